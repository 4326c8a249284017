"""Checks of one project: its settings, who works in it, what killed runs left, its cache, and what versions it."""

import fcntl
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flows.doctor.finding import Finding, fail, ok, warn


def lock(root: Path) -> Iterator[Finding]:
    """Whether a command works here."""
    path = root / ".surrogate" / "project.lock"
    held = holder(path)
    if held is None:
        yield ok("lock", "free: no command works here")
    elif held.pid is None:
        cure = f"wait for it, or end it: `fuser {shlex.quote(str(path))}` names it"
        yield warn("lock", "held: a command works here, and other commands are refused", cure)
    else:
        found = f"held: process {held.pid} works here ({held.command}), and other commands are refused"
        yield warn("lock", found, f"wait for it, or end it: `kill {held.pid}`")


def checkpoints(root: Path) -> Iterator[Finding]:
    """Journals of stages that were killed or failed."""
    from tasks.records import cache_stats
    from tasks.workspace import home_of

    left = cache_stats(home_of(root))["journals"]
    if not left:
        yield ok("checkpoints", "none: every stage that began has ended")
    elif holder(root / ".surrogate" / "project.lock"):
        yield ok("checkpoints", f"{left}, while a command works here")
    else:
        cure = "the same command goes on from them; `surrogate cache clear --checkpoints` removes them and the cache"
        yield warn("checkpoints", f"{left} left by stages that did not end", cure)


def versioning(root: Path) -> Iterator[Finding]:
    """Git and DVC, without which nothing is versioned."""
    if not (root / "params.yaml").is_file():
        return
    missing = []
    if shutil.which("git") is None:
        missing.append(("git is not installed", "install git"))
    elif not any((folder / ".git").exists() for folder in (root, *root.parents)):
        missing.append(("no git repository here", "`git init`"))
    if not (root / ".dvc").is_dir():
        missing.append(("no DVC repository here: outputs are not versioned", "`dvc init`, within a git repository"))
    if not (root / "dvc.yaml").is_file():
        cure = "bring it back (`git checkout dvc.yaml`), or begin a new folder with `surrogate init`"
        missing.append(("no dvc.yaml here: outputs are not versioned", cure))
    yield from [warn("versioning", text, cure) for text, cure in missing] or [ok("versioning", "git and DVC are there")]


def settings(root: Path) -> Iterator[Finding]:
    """Whether params.yaml can be worked with."""
    from tasks.errors import UserError

    path = root / "params.yaml"
    if not path.is_file():
        cure = "`surrogate init` makes one; or work in a folder that has one"
        yield warn("settings", f"no params.yaml in {root}: there is nothing to run", cure)
        return
    from tasks.settings import load_settings

    try:
        settings = load_settings(path)
    except UserError as error:
        yield fail("settings", str(error), "mend that in params.yaml; a comment there says what each field takes")
        return
    problem = settings.problem
    try:
        missing = [path for path in problem.sources(root) if not path.exists()]
        problem.check(root, 2 * settings.validate.folds)
    except UserError as error:
        yield fail("settings", str(error), "mend that in params.yaml, or bring the file back")
        return
    space = problem.search_space
    of = f" of {space.n_dims} variables" if space else ""
    yield ok("settings", f"params.yaml: problem.{problem.kind} {getattr(problem, problem.kind)}{of}")
    for path in missing:
        found = f"problem.source: expected a file or folder below {root}, got {path}, which is not there"
        yield fail("settings", found, "name the black box's own file in params.yaml, or bring it back")


def cache(root: Path) -> Iterator[Finding]:
    """The size of the result cache against the limit that params.yaml sets."""
    from tasks.errors import UserError
    from tasks.records import MAX_BYTES, cache_stats
    from tasks.workspace import home_of

    limit = MAX_BYTES
    if (root / "params.yaml").is_file():
        from tasks.settings import load_settings

        with suppress(UserError):  # told above
            limit = int(load_settings(root / "params.yaml").execution.cache_mb * 1e6)
    told = cache_stats(home_of(root), limit)
    text = f"{told['entries']} results, {told['bytes'] / 1e6:.1f} of {limit / 1e6:.0f} MB"
    text += f"; compiled code, {told['compiled_bytes'] / 1e6:.1f} of {told['compiled_limit'] / 1e6:.0f} MB"
    if told["bytes"] > limit:
        cure = "the next result that is kept drops the oldest; raise execution.cache_mb, or `surrogate cache clear`"
        yield warn("cache", text, cure)
    else:
        yield ok("cache", text)


def holder(path: Path) -> "Holder | None":
    """Who holds a lock file; None where it is free.

    It is asked for, shared, and given back at once: a command that starts in that very moment is refused.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return Holder.of(os.fstat(file.fileno()).st_ino)
    return None


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock, as far as the system tells of it."""

    pid: int | None
    command: str

    @classmethod
    def of(cls, inode: int) -> "Holder":
        """Of the lock on a file, by Linux's list of all locks."""
        import psutil

        with suppress(OSError, psutil.Error):
            listed = Path("/proc/locks").read_text()
            for pid in re.findall(rf"FLOCK\s+ADVISORY\s+WRITE (\d+) \S+:{inode} ", listed):
                words = psutil.Process(int(pid)).cmdline() or ["?"]
                return cls(int(pid), " ".join([Path(words[0]).name, *words[1:]])[:60])
        return cls(None, "another process")
