"""Whatever a user brings that cannot be worked with: one line that names the field, and nothing left half done.

The command is run in this process, where everything is imported once.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
from click.testing import CliRunner
from filelock import FileLock
from workspace_fixture import digests

from flows.cli import cli
from surrogate_core import journal

pytestmark = pytest.mark.slow

SPACE = "{x: {type: float, low: 0, high: 1}, n: {type: integer, low: 1, high: 9}}"
REST = "collect: {n_samples: 4}\nvalidate: {folds: 2}\nexecution: {executor: EXECUTOR, n_workers: 2}\n"
NEED_PROCESSES = ("misnamed", "hanging", "deadly", "chatty", "command")  # all else is quicker in threads
BOX = """\
import os, sys, time
import numpy as np

def ok(x, n): return x * n
def misnamed(x, m): return x
def too_few(x): return x
def text(x, n): return "1.5"
def nothing(x, n): pass
def array(x, n): return np.ones(3)
def imaginary(x, n): return 1 + 2j
def huge(x, n): return 1e300
def broken(x, n): raise RuntimeError("no licence")
def hanging(x, n): time.sleep(600)
def deadly(x, n): os.kill(os.getpid(), 9)
def leaving(x, n): sys.exit(3)
def outside(x, n): return {"value": x, "constraints": [1.0]}
def chatty(x, n):
    for _ in range(30):
        sys.stdout.write("y" * 10_000_000)
    os.write(2, b"the end")
    raise RuntimeError("talked too much")
number = 3
"""
WHY_NOT_4 = "collect: all 4 evaluations failed, the first with: "
NO_NUMBER = WHY_NOT_4 + "TypeError: a black box must return a real number or a dict with 'value', got "
NO_JSON = WHY_NOT_4 + "CommandFailed: expected one JSON value on standard output, got "
NO_FUNCTION_OF = "problem.function: expected a function of x, n, as the space names them, or of one dict, got "


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, surroundings: Mapping[str, str]) -> Path:
    """A folder with the black boxes, used for all: its tracking store is made once."""
    folder = tmp_path_factory.mktemp("workshop")
    (folder / "box.py").write_text(BOX)
    (folder / "script.py").write_text("import sys\ndef f(x, n): return x\nsys.exit(0)\n")
    with mock.patch.dict(os.environ, surroundings, clear=True):
        import prefect.main  # noqa: F401 - within CliRunner, its set-up of logging would close pytest's own stderr
    return folder


@pytest.fixture
def here(workshop: Path, surroundings: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(workshop)
    with mock.patch.dict(os.environ, surroundings, clear=True):
        yield workshop
    for name in ("params.yaml", "my.csv"):
        (workshop / name).unlink(missing_ok=True)


def refused(here: Path, params: str | bytes, status: int, *arguments: str) -> str:
    """The one line that `surrogate collect` ends with; it has written no output and released the lock."""
    (here / "params.yaml").write_bytes(params if isinstance(params, bytes) else params.encode())
    before = digests(here / "data")
    done = CliRunner().invoke(cli, ["collect", "--json", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == status, done.output
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("surrogate: ")
    assert digests(here / "data") == before == {}
    with FileLock(here / ".surrogate" / "project.lock", timeout=0):
        pass
    return line.removeprefix("surrogate: ")


def problem(**fields: str) -> str:
    space = {} if "data" in fields else {"space": SPACE}
    text = "problem:\n" + "".join(f"  {name}: {value}\n" for name, value in {**fields, **space}.items()) + REST
    return text.replace("EXECUTOR", "processes" if any(name in text for name in NEED_PROCESSES) else "threads")


@pytest.mark.parametrize(
    ("function", "status", "line"),
    [
        ("nowhere:f", 2, "problem.function: expected package.module:name below "),
        ("box:nowhere", 2, "problem.function: expected an importable function, got 'box:nowhere'"),
        ("box:number", 2, "problem.function: expected a function, got 'box:number', a int"),
        ("box", 2, "problem.function: expected package.module:name, got 'box'"),
        ("script:f", 2, "problem.function: expected an importable function, got 'script:f' (0)"),
        ("box:misnamed", 2, NO_FUNCTION_OF + "box:misnamed(x, m)"),
        ("box:too_few", 2, NO_FUNCTION_OF + "box:too_few(x)"),
        ("box:text", 1, NO_NUMBER + "str"),
        ("box:nothing", 1, NO_NUMBER + "None"),
        ("box:array", 1, NO_NUMBER + "ndarray of shape (3,)"),
        ("box:imaginary", 1, NO_NUMBER + "complex (1+2j)"),
        ("box:huge", 1, WHY_NOT_4 + "ValueError: expected a number of magnitude up to 1e+100, got 1e+300"),
        ("box:broken", 1, WHY_NOT_4 + "RuntimeError: no licence"),
        ("box:deadly", 1, WHY_NOT_4 + "worker died: signal 9"),
        ("box:leaving", 1, WHY_NOT_4 + "SystemExit: 3"),
        ("box:outside", 1, "collect: none of 4 evaluations can be learned from, the first for: constraint 1: expected"),
    ],
)  # fmt: skip
def test_a_function_that_cannot_be_worked_with(function: str, status: int, line: str, here: Path) -> None:
    assert refused(here, problem(function=function), status).startswith(line)


def test_a_function_that_hangs_is_stopped(here: Path) -> None:
    line = refused(here, problem(function="box:hanging", timeout="0.5"), 1)
    assert line.startswith(WHY_NOT_4 + "timeout: no result within 0.5 s")


def test_a_function_that_prints_gigabytes_fills_neither_terminal_nor_disk(here: Path) -> None:
    line = refused(here, problem(function="box:chatty"), 1)
    log = here / "runs" / "black-box.log"
    assert line == f"{WHY_NOT_4}RuntimeError: talked too much; what it printed is in {log}"
    kept = [path for path in (log, log.with_name("black-box.log.old")) if path.exists()]
    assert 0 < sum(path.stat().st_size for path in kept) < 3_000_000


@pytest.mark.parametrize(
    ("command", "status", "line"),
    [
        ("[./nowhere]", 2, "problem.command: expected a program, got './nowhere', which is not there"),
        ("[./box.py]", 2, "problem.command: expected a program, got './box.py', which is not executable"),
        ("[surely-not-installed]", 2, "problem.command: expected a program on the PATH, got 'surely-not-installed'"),
        ("[python, -c, pass]", 1, NO_JSON + "nothing"),
        ("[python, -c, 'print(1, 2)']", 1, NO_JSON + "'1 2'"),
        ("[python, -c, 'exit(\"no licence\")']", 1, WHY_NOT_4 + "CommandFailed: exit status 1: no licence"),
        ("[]", 2, "problem.command: expected a program and its arguments, got an empty list"),
    ],
)  # fmt: skip
def test_a_program_that_cannot_be_worked_with(command: str, status: int, line: str, here: Path) -> None:
    assert refused(here, problem(command=command), status).startswith(line)


ROWS = "\n".join(f"{i / 8},{i % 3},{i}" for i in range(8))


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("x,n,w\n" + ROWS, "problem.columns.output: expected one of the columns x, n, w, got 'y'"),
        ("x,n,y\n" + ROWS.replace("0.25", "a bit"), "problem.columns.inputs: column 'x', row 3: expected a number"),
        ("x,n,y\n" + ROWS.replace(",7", ",lots"), "problem.columns.output: column 'y', row 8: expected a number"),
        ("x,n,n,y\n" + ROWS.replace(",", ",1,", 8), "problem.data: expected "),
        ("x,y,y\n" + ROWS, "problem.data: expected distinct columns, got 'y' twice in my.csv"),
        ("x,n,y\n", "problem.data: expected at least two rows, got 0 in my.csv"),
        ("x,n,y\n1,2,3\n", "problem.data: expected at least two rows, got 1 in my.csv"),
        ("x,n,y\n0,1,2\n1,2,3\n", "problem.data: expected at least 2 * validate.folds = 4 rows with a value, got"),
        ("x,n,y\n" + ROWS.replace("\n", ",\n").replace(",\n", "\n").replace(",0,", ",1,").replace(",2,", ",1,"),
         "problem.columns.inputs: expected columns that vary, got 1 in every row of 'n'"),
        ("x,n,y\n" + ROWS.replace(",7", ",1e300"), "problem.columns.output: column 'y', row 8: expected a number"),
        ("", "problem.data: expected a table, got my.csv: "),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_worked_with(table: str, line: str, here: Path) -> None:
    (here / "my.csv").write_text(table)
    assert refused(here, problem(data="my.csv", columns="{output: y}"), 2).startswith(line)


def test_a_table_that_is_not_there(here: Path) -> None:
    line = refused(here, problem(data="nowhere.csv", columns="{output: y}"), 2)
    assert line.startswith("problem.data: expected a file or folder below ")
    assert "got 'nowhere.csv' (No such file or directory)" in line


GOOD = problem(function="box:ok")


@pytest.mark.parametrize(
    ("params", "line"),
    [
        ("", "params.yaml: expected sections such as problem: and collect:, got nothing"),
        ("- a\n- b\n", "params.yaml: expected sections such as problem: and collect:, got ['a', 'b']"),
        (GOOD.replace("  function", "\tfunction"), "params.yaml: expected YAML, got found character '\\t' that cannot"),
        (b"problem: \xff", "params.yaml: expected YAML, got "),
        (GOOD + "colect: {}\n", "colect: unknown key; did you mean collect?"),
        (GOOD.replace("n_samples", "n_sample"), "collect.n_sample: unknown key; did you mean n_samples?"),
        (GOOD.replace("type: integer, low", "type: integer, lo"), "problem.space.n.lo: unknown key; did you mean low?"),
        (GOOD + "fit: {surrogate: {kind: gaussian_process, kernl: rbf}}\n", "fit.surrogate.kernl: unknown key; did"),
        (GOOD.replace("n_samples: 4", "n_samples: many"), "collect.n_samples: expected an integer, got 'many'"),
        (GOOD.replace("high: 1}", "high: .nan}"), "problem.space.x.high: expected a finite number, got nan"),
        (GOOD + "gates: {min_r2: .nan}\n", "gates.min_r2: expected a finite number, got nan"),
        (GOOD.replace("function: box:ok", "version: 1"), "problem: expected one of function, command, data"),
        (GOOD.replace("function: box:ok", "function: box:ok\n  data: my.csv"),
         "problem: expected one of function, command, data, name, got function and data"),
        (GOOD.replace("  space:", "  constraints: [box:too_few]\n  space:"),
         "problem.constraints[0]: expected a function of x, n, as the space names them, got box:too_few(x) ("),
        (GOOD.replace("  space:", "  constraints: [x + n <= -1]\n  space:"),
         "problem.constraints: expected 4 points that meet them, got 0"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_worked_with(params: str | bytes, line: str, here: Path) -> None:
    before = set(here.iterdir())
    assert refused(here, params, 2).removeprefix(f"{here}/").startswith(line)
    assert {path.name for path in set(here.iterdir()) - before} <= {"params.yaml", ".surrogate"}


def test_outputs_that_cannot_be_written_are_found_before_any_work(here: Path) -> None:
    shutil.rmtree(here / "data", ignore_errors=True)
    (here / "data").write_text("in the way")
    line = refused(here, GOOD, 2)
    (here / "data").unlink()
    assert line.startswith(f"{here / 'data'}: expected a folder that can be written, got ")


def test_a_full_disk_is_told_and_what_was_evaluated_is_kept(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(journal, "os", SimpleNamespace(**{**vars(os), "write": full}))
        line = refused(here, GOOD, 1)
    assert line == "the disk is full: make room; what was evaluated is kept, and the same command goes on"


def test_a_disk_that_is_all_but_full_is_told_before_any_work(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = mock.Mock(return_value=mock.Mock(free=1_500_000))
    monkeypatch.setattr("tasks.workspace.shutil.disk_usage", usage)
    assert refused(here, GOOD, 2).endswith(": expected 50 MB free on its disk, got 1.5 MB; make room")


@pytest.mark.parametrize(
    ("name", "url"), [("PREFECT_API_URL", "http://127.0.0.1:9/api"), ("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")]
)
def test_a_server_that_is_named_and_does_not_answer(name: str, url: str, here: Path) -> None:
    with mock.patch.dict(os.environ, {name: url, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}):
        line = refused(here, GOOD, 2)
    assert line.startswith(f"{name}: expected a reachable ")
    assert url in line
    assert "unset the variable" in line


def test_two_runs_at_once_in_one_folder(here: Path) -> None:
    (here / "params.yaml").write_text(GOOD)
    with FileLock(here / ".surrogate" / "project.lock", timeout=0):
        done = CliRunner().invoke(cli, ["collect", "--json"])
    assert done.exit_code == 1
    assert done.stderr == f"surrogate: {here}: another run is working here; wait for it, or end it\n"
