"""Where things are: the project's files, the outputs of a run, and the home of all that may be thrown away."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from surrogate_core.atomic import write_file
from surrogate_core.problems.black_box import identity
from tasks.errors import BadInput
from tasks.files import StageFiles
from tasks.inputs import Inputs

if TYPE_CHECKING:
    from tasks.settings import Settings  # it imports JAX, whose environment a command sets first


LEAST_FREE_BYTES = 50_000_000
"""Of a disk that a run begins on: its two databases, compiled code and results take some 30 MB."""
RESULTS, COMPILED, JOURNALS = "results", "jax", "journal"  # folders of the home
MAX_COMPILED_BYTES = 200_000_000
"""Of the programs that JAX has compiled, kept in the home; as trusted as the sources beside them."""


@dataclass(frozen=True)
class Workspace:
    """The folders of one command.

    Args:
        root: the project: where params.yaml, dvc.yaml and the black box are.
        out: below it the outputs are written: the root itself, or `runs/DIGEST` for foreign settings.
        settings: what is run.
        inputs: what the process has started from.
    """

    root: Path
    out: Path
    settings: "Settings"
    inputs: Inputs

    @classmethod
    def of(cls, root: Path, settings: "Settings", *, foreign: bool, inputs: Inputs | None = None) -> "Workspace":
        root = root.resolve()
        out = root / "runs" / settings.digest[:12] if foreign else root
        return cls(root, out, settings, inputs or Inputs.now(root))

    @cached_property
    def black_box(self) -> str:
        """Digest of the problem's sources and `problem.version`, as they were when it was first asked for.

        Raises:
            BadInput: a source is not there.
        """
        try:
            return self._identity()
        except OSError as error:
            problem = self.settings.problem
            named = "source" if problem.source is not None else problem.kind
            got = f"{getattr(problem, named)!r} ({error.strerror})"
            raise BadInput(f"problem.{named}: expected a file or folder below {self.root}, got {got}") from error

    def _identity(self) -> str:
        problem = self.settings.problem
        return identity(problem.sources(self.root), problem.version)

    def edited(self, *, pipeline: bool) -> str:
        """What is no longer as it was when the run began, such as the library's source; "" for nothing.

        Args:
            pipeline: params.yaml and dvc.yaml are looked at too, whose edits do not concern this run's results.
        """
        now = Inputs.now(self.root)
        if now.code != self.inputs.code:
            return "the library's source or its lock file"
        if "black_box" in vars(self) and self._is_another_black_box():
            return f"the source of problem.{self.settings.problem.kind}"
        return "params.yaml or dvc.yaml" if pipeline and now.pipeline != self.inputs.pipeline else ""

    def _is_another_black_box(self) -> bool:
        try:
            return self._identity() != self.black_box
        except (OSError, BadInput):
            return True

    @property
    def home(self) -> Path:
        return home_of(self.root)

    @property
    def unversioned(self) -> Path:
        """What runs leave for people, unversioned: `runs`, or the folder of foreign settings."""
        return self.out if self.out != self.root else self.root / "runs"

    @property
    def results(self) -> Path:
        """The result cache."""
        return self.home / RESULTS

    def journal(self, stage: str, key: str) -> Path:
        return self.home / JOURNALS / f"{stage}-{key}.jsonl"

    def finish(self, stage: str, key: str) -> None:
        """Notes under which key the stage's files were written, and drops the journals it no longer needs."""
        if self.out == self.root:
            write_file(self.root / ".surrogate" / "keys" / stage, key.encode())
        for journal in (self.journal(stage, key), self.journal(stage, f"{key}.trials")):
            journal.unlink(missing_ok=True)

    def last_key(self, stage: str) -> str | None:
        """The key that the stage's files were last written under here."""
        note = self.root / ".surrogate" / "keys" / stage
        return note.read_text() if note.is_file() else None

    def read(self, paths: Iterable[str]) -> StageFiles:
        """Content of files and folders by path below `out`.

        Raises:
            BadInput: one is missing.
        """
        files: StageFiles = {}
        for path in paths:
            place = self.out / path
            found = sorted(p for p in place.iterdir() if p.is_file()) if place.is_dir() else [place]
            found = found or [place]  # an empty folder, which cannot be read
            for file in found:
                try:
                    files[file.relative_to(self.out).as_posix()] = file.read_bytes()
                except OSError as error:
                    message = f"{file}: expected the output of an earlier stage, got {error.strerror}; run that first"
                    raise BadInput(message) from error
        return files

    def write(self, files: Mapping[str, bytes], outs: Iterable[str]) -> None:
        """Writes a stage's files below `out`, each whole or not at all; one that is already the same is left alone.

        Args:
            files: path to content.
            outs: the stage's files and folders; what else is in one of its folders is not its output any more.
        """
        for folder in (self.out / path for path in outs if (self.out / path).is_dir()):
            for file in folder.iterdir():
                if file.is_dir():
                    shutil.rmtree(file)
                elif file.relative_to(self.out).as_posix() not in files:
                    file.unlink()
        for path, content in files.items():
            target = self.out / path
            if not (target.is_file() and target.read_bytes() == content):
                write_file(target, content)


def check_writable(*folders: Path) -> None:
    """Finds out, before any work is done, whether folders can be written; they are made if need be.

    Raises:
        BadInput: one cannot, or its disk is all but full.
    """
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise BadInput(f"{folder}: expected a folder that can be written, got {error.strerror}") from error
        free = shutil.disk_usage(folder).free
        if free < LEAST_FREE_BYTES:
            least = f"{LEAST_FREE_BYTES / 1e6:.0f} MB"
            raise BadInput(f"{folder}: expected {least} free on its disk, got {free / 1e6:.1f} MB; make room")


def link_command(home: Path) -> None:
    """Leaves a link to this environment's `surrogate` where dvc.yaml looks for it when nothing is activated."""
    program, link = Path(sys.executable).with_name("surrogate"), home / "bin" / "surrogate"
    if not program.exists() or (link.is_symlink() and link.readlink() == program):
        return
    with suppress(OSError):  # it is a convenience
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(program)


def drop_oldest(folder: Path, max_bytes: int) -> None:
    """Removes the files of a folder that were written longest ago until the rest is no larger than `max_bytes`."""
    found = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # another process drops it too
            if path.is_file():
                found.append((path, path.stat()))
    total = sum(status.st_size for _, status in found)
    for path, status in sorted(found, key=lambda file: file[1].st_mtime_ns):
        if total <= max_bytes:
            return
        path.unlink(missing_ok=True)
        total -= status.st_size


def home_of(root: Path) -> Path:
    """`.surrogate`, shared by the copies of the project in which `dvc exp run --queue` works."""
    return anchor(root) / ".surrogate"


def anchor(root: Path) -> Path:
    """The project's own folder, also from a copy of it in which `dvc exp run --queue` or `--temp` works."""
    return Path(os.environ.get("DVC_ROOT") or root).resolve()


def git_revision(root: Path) -> str:
    """The checked-out commit, marked `-dirty` where files differ from it; empty where there is none."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        described = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    except OSError:  # there is no git
        return ""
    return described.stdout.strip()
