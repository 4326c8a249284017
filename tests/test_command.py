"""Programs as black boxes: JSON in, JSON out, and every way in which that goes wrong told with what they said."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import psutil
import pytest
from blackboxes import is_running, wait_until

from surrogate_core.evaluation import Evaluator
from surrogate_core.execution import ExecutorSpec
from surrogate_core.problems.command import MOST_OUTPUT, Command, CommandFailed

Make = Callable[..., Command]


@pytest.fixture
def program(tmp_path: Path) -> Make:
    def make(source: str, *arguments: str, folders: str | None = None) -> Command:
        (tmp_path / "simulate.py").write_text(source)
        return Command((sys.executable, "simulate.py", *arguments), str(tmp_path), folders)

    return make


ECHO = "import json, sys; asked = json.load(sys.stdin); "


def test_parameters_go_in_and_the_result_comes_out(program: Make) -> None:
    command = program(
        ECHO + 'json.dump({"value": asked["x"] * 2, "got": asked, "argv": sys.argv[1:]}, sys.stdout)', "-a b"
    )
    asked = {"x": 0.1, "n": 3, "kind": "a", "on": True}
    told = command(asked)
    assert told == {"value": 0.2, "got": asked, "argv": ["-a b"]}  # no shell: an argument stays one
    assert type(told["got"]["n"]) is int


@pytest.mark.parametrize("value", ["1.5", " 2\n", '{"value": 3}', "null", "[1]", '"a"', "true"])
def test_any_one_json_value_is_handed_on(value: str, program: Make) -> None:
    assert program(f"import sys; sys.stdout.write({value!r})")({}) == orjson.loads(value)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "expected one JSON value on standard output, got nothing"),
        ("print('hello')", "expected one JSON value on standard output, got 'hello'"),
        ("print(1); print(2)", r"expected one JSON value on standard output, got '1\n2'"),
        ("print(float('nan'))", "expected one JSON value on standard output, got 'nan'"),
        ("import sys; print('x', file=sys.stderr); print('{')", "got '{'; x"),
        ("import sys; sys.exit(3)", "exit status 3: nothing on standard error"),
        ("import sys; sys.exit('no  licence\\nleft')", "exit status 1: no licence left"),
        ("raise RuntimeError('diverged')", "RuntimeError: diverged"),
        ("import sys; sys.exit('at first ' + 'word ' * 60 + 'at last')", "exit status 1: ..."),
        ("import os; os.kill(os.getpid(), 9)", "signal 9: nothing on standard error"),
        ("import sys; sys.stdin.close(); print(1); sys.exit(2)", "exit status 2"),
        (f"print('1' * {MOST_OUTPUT + 1})", f"got over {MOST_OUTPUT} bytes"),
        ("import sys\nwhile True: sys.stdout.write('y' * 10**6)", f"got over {MOST_OUTPUT} bytes"),
    ],
)
def test_what_goes_wrong_is_told_with_what_the_program_said(source: str, reason: str, program: Make) -> None:
    with pytest.raises(CommandFailed) as raised:
        program(source)({"x": 1})
    assert reason in str(raised.value)
    assert len(str(raised.value)) < 400


def test_gigabytes_on_standard_error_are_not_kept(program: Make) -> None:
    source = "import sys\nfor _ in range(200): sys.stderr.write('e' * 10**6)\nsys.stderr.write(' the end'); sys.exit(1)"
    with pytest.raises(CommandFailed, match=r"e the end$") as raised:
        program(source)({})
    assert len(str(raised.value)) < 300


def test_on_request_each_evaluation_has_a_folder_of_its_own_which_stays(program: Make, tmp_path: Path) -> None:
    source = ECHO + 'open("mesh.txt", "w").write(str(asked["x"])); print(len(__import__("os").listdir(".")))'
    command = program(source, folders=str(tmp_path / "runs" / "evaluations"))
    assert [command({"x": x}) for x in (1, 2, 1)] == [2, 2, 2]  # with parameters.json
    folders = sorted((tmp_path / "runs" / "evaluations").iterdir())
    assert sorted((folder / "mesh.txt").read_text() for folder in folders) == ["1", "1", "2"]
    assert orjson.loads((folders[0] / "parameters.json").read_bytes()).keys() == {"x"}
    assert not (tmp_path / "mesh.txt").exists()
    assert program("import os; print(len(os.environ['SURROGATE_ROOT']))")({}) == len(str(tmp_path))


def test_a_program_of_the_folder_is_found_from_any_folder(tmp_path: Path) -> None:
    script = tmp_path / "simulate"
    script.write_text("#!/bin/sh\ncat > /dev/null\necho 4\n")
    script.chmod(0o755)
    command = Command(("./simulate",), str(tmp_path), str(tmp_path / "folders"))
    command.check()
    assert command({"x": 1}) == 4
    script.write_text("echo 4\n")  # no first line that names an interpreter
    with pytest.raises(CommandFailed, match=r"\./simulate cannot be started: Exec format error; has it a line #!"):
        command({"x": 1})


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("./nowhere", "expected a program, got './nowhere', which is not there"),
        ("./plain", "expected a program, got './plain', which is not executable; chmod +x it, or name its interpreter"),
        (".", "expected a program"),
        (
            "surely-not-installed",
            "expected a program on the PATH, got 'surely-not-installed'; ./surely-not-installed is",
        ),
    ],
)
def test_a_program_that_cannot_be_started_is_told_before_any_call(word: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with pytest.raises(ValueError, match=re.escape(message)):
        Command((word,), str(tmp_path)).check()


def test_a_program_that_leaves_another_behind_has_answered(program: Make, tmp_path: Path) -> None:
    """The other one holds standard output and standard error."""
    source = ECHO + 'import subprocess; print(1.5); open("pid", "w").write(str(subprocess.Popen(["sleep", "600"]).pid))'
    assert program(source)({"x": 1}) == 1.5
    left = psutil.Process(int((tmp_path / "pid").read_text()))
    assert is_running(left)
    left.kill()


@pytest.mark.slow
def test_a_program_that_hangs_is_stopped_with_all_that_it_had_started(program: Make, tmp_path: Path) -> None:
    source = f"""
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "600"])
open({str(tmp_path / "pids")!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
time.sleep(600)
"""
    with Evaluator(program(source), ExecutorSpec("processes", 1), timeout=3.0) as evaluator:
        (evaluation,) = evaluator.evaluate(["a"], [{"x": 1}])
    assert evaluation.reason == "timeout: no result within 3 s"
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        wait_until(lambda pid=pid: not psutil.pid_exists(pid) or not is_running(psutil.Process(pid)))
