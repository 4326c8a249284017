"""`surrogate init`: a workspace for a user's own problem, in a folder outside this project."""

import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from surrogate_core.atomic import write_file
from surrogate_core.space import SearchSpace
from surrogate_core.table import Columns, read_table
from tasks.errors import BadInput
from tasks.workspace import home_of, link_command

TEMPLATES = Path(__file__).with_name("templates")
IGNORED = ".gitignore"
COMMAND = 'PATH="$PATH:$DVC_ROOT/.surrogate/bin" surrogate'
"""By which DVC runs a stage: the command on the PATH, else the one that was last used here."""


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    Args:
        kind: "function", "command" or "data".
        table: of "data", which is copied.
        output: the column of the table to optimize.
        inputs: its columns that are variables; none for all others.
        maximize: it.
        git: a repository, where there is none yet and git is installed.
        dvc: versioned data.
    """

    kind: str = "function"
    table: Path | None = None
    output: str = ""
    inputs: tuple[str, ...] = ()
    maximize: bool = False
    git: bool = True
    dvc: bool = True


def make_workspace(folder: Path, wish: Wish) -> list[tuple[str, str]]:
    """Makes the folder and its files, all or none of them.

    Returns:
        What was done, as pairs of a word and a line.

    Raises:
        BadInput: a file is in the way, or the table is not as expected; nothing has been written.
    """
    files = workspace_files(folder, wish)
    added = (folder / IGNORED).is_file()
    for name in files:
        if (folder / name).exists() and name != IGNORED and not _is(folder / name, wish.table):
            raise BadInput(f"{folder / name}: expected no such file, got one; name another folder, or move it away")
    written = []
    try:
        for name, content in files.items():
            if not _is(folder / name, wish.table):
                write_file(folder / name, content)
                written.append(folder / name)
    except OSError as error:
        for path in written:
            path.unlink()
        raise BadInput(f"{folder}: expected a folder that can be written, got {error.strerror}") from error
    told = [f"{name} (added to)" if name == IGNORED and added else name for name in files]
    done = [("made", f"{', '.join(told)} in {folder}")]
    if wish.dvc:
        link_command(home_of(folder))  # so that `dvc repro` finds it before any command has run
    has_git, said = _git(folder) if wish.git else (False, "no repository: not wanted")
    done.append(("git", said))
    done.append(("dvc", _dvc(folder, has_git) if wish.dvc else "not wanted: nothing is versioned, all else works"))
    return done


def workspace_files(folder: Path, wish: Wish) -> dict[str, bytes]:
    """The files of a workspace, by name.

    Raises:
        BadInput: the table is not as expected.
    """
    problem = _template(f"problem.{wish.kind}.yaml")
    files: dict[str, bytes] = {}
    if wish.kind == "data":
        if wish.table is None or not wish.output:
            raise BadInput("--output: expected the column of --data to optimize, got none")
        try:
            space = read_table(wish.table, Columns(wish.output, wish.inputs or None)).space
        except ValueError as error:
            field, _, rest = str(error).partition(": ")
            option = field.removeprefix("columns.")
            raise BadInput(f"--{option if option in ('output', 'inputs') else 'data'}: {rest}") from error
        for name, value in {
            "DATA": _yaml(wish.table.name),
            "OUTPUT": _yaml(wish.output),
            "INPUTS": _yaml(list(wish.inputs)) if wish.inputs else "null",
            "DIRECTION": "maximize" if wish.maximize else "minimize",
            "SPACE": _variables(space),
        }.items():
            problem = problem.replace(f"@{name}@", value)
    else:
        name = "problem.py" if wish.kind == "function" else "simulate.py"
        files[name] = _template(f"{name}.txt").encode()
    files["params.yaml"] = _template("params.yaml").replace("@PROBLEM@", problem.rstrip()).encode()
    files["requirements.txt"] = f"surrogate-lab=={version('surrogate-lab')}\n".encode()
    if wish.dvc:
        source = "data" if wish.kind == "data" else "source"
        files["dvc.yaml"] = dvc_yaml(COMMAND, ["requirements.txt"], source).encode()
    if wish.table is not None:
        if wish.table.name.lower() in files:
            raise BadInput(
                f"--data: expected a name that no file of the workspace has, got {wish.table.name!r}; rename it"
            )
        files = {wish.table.name: wish.table.read_bytes(), **files}
    if ignored := _ignored(folder / IGNORED):  # last: what is there is replaced only when all else is written
        files[IGNORED] = ignored
    return files


def dvc_yaml(command: str, code: list[str], source: str) -> str:
    """The text of dvc.yaml.

    Args:
        command: by which DVC runs the command line.
        code: files and folders that all stages depend on.
        source: the field of `problem` that names what the black box is.
    """
    text = _template("dvc.yaml.txt")
    for name, value in {"COMMAND": command, "CODE": ", ".join(code), "SOURCE": source}.items():
        text = text.replace(f"@{name}@", value)
    return text


def _ignored(path: Path) -> bytes:
    """What .gitignore is to hold: the lines that are there, then those that are missing; b"" where none is."""
    if path.exists() and not path.is_file():
        return b""
    try:
        there = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise BadInput(f"{path}: expected a file that can be read, got {error.strerror}") from error
    known = {line.strip().lstrip(b"!").strip(b"/") for line in there.splitlines()}
    missing = [line for line in _template("gitignore").encode().splitlines(True) if line.strip(b"/\n") not in known]
    gap = b"\n" * (bool(there) and not there.endswith(b"\n"))
    return there + gap + b"".join(missing) if missing else b""


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _is(path: Path, table: Path | None) -> bool:
    return table is not None and path.exists() and path.resolve() == table.resolve()


def _variables(space: SearchSpace) -> str:
    lines = []
    for name, variable in space.to_config()["variables"]:
        fields = {key: value for key, value in variable.items() if _is_told(key, value)}
        inner = ", ".join(f"{key}: {_yaml(value)}" for key, value in fields.items())
        lines.append(f"    {_yaml(name)}: {{{inner}}}")
    return "\n".join(lines)


def _is_told(key: str, value: Any) -> bool:
    return not ((key == "log" and value is False) or (key == "step" and value in (None, 1)))


def _yaml(value: Any) -> str:
    """A value in YAML's flow style, which JSON is; a plain word without quotes."""
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, str) and value.replace("_", "").replace(".", "").isalpha() and value.lower() not in _WORDS:
        return value
    return orjson.dumps(value).decode()


_WORDS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")


def _git(folder: Path) -> tuple[bool, str]:
    try:
        inside = _run(["git", "rev-parse", "--is-inside-work-tree"], folder)
        if inside.returncode == 0:
            return True, "in the repository that is there"
        made = _run(["git", "init", "--quiet"], folder)
    except FileNotFoundError:
        return False, "not installed: no repository"
    return made.returncode == 0, _said(made) or "a new repository; commit when you like"


def _dvc(folder: Path, has_git: bool) -> str:
    if (folder / ".dvc").is_dir():
        return "in the repository that is there"
    options = ["--no-scm"]
    if has_git:
        top = _run(["git", "rev-parse", "--show-toplevel"], folder).stdout.strip()
        options = [] if Path(top).resolve() == folder.resolve() else ["--subdir"]
    dvc = [sys.executable, "-m", "dvc"]
    for command in (["init", "--quiet", *options], ["config", "core.analytics", "false"]):
        done = _run([*dvc, *command], folder)
        if done.returncode:
            return f"could not be initialized: {_said(done)}; nothing is versioned, all else works"
    return "initialized: `dvc repro` runs what has changed"


def _run(command: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def _said(done: "subprocess.CompletedProcess[str]") -> str:
    return (done.stderr.strip().splitlines() or [""])[-1] if done.returncode else ""
