"""Pools: one contract over all executors; then what processes alone can promise."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from blackboxes import UnprintableError, act, is_running, running_script, squares_by_processes, wait_until

from surrogate_core import worker_pool
from surrogate_core.execution import ExecutorSpec, Pool, WorkerNotStarted, open_pool
from surrogate_core.worker import Outcome

KINDS = ["serial", "threads", "processes", "dask", "auto"]
PROCESSES = ExecutorSpec("processes", 2)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def spec(kind: str, request: pytest.FixtureRequest) -> ExecutorSpec:
    return ExecutorSpec(kind, 2, request.getfixturevalue("dask_address") if kind == "dask" else None)


@pytest.fixture(scope="module")
def pool(spec: ExecutorSpec) -> Iterator[Pool]:
    with open_pool(act, spec) as pool:
        yield pool


def one(pool: Pool, *argument: Any) -> Outcome:
    return pool.run([argument])[0]


# The contract of every executor


def test_outcomes_come_in_the_order_of_the_arguments(pool: Pool) -> None:
    arguments = [("sleep", 0.2 if i == 0 else 0.0) for i in range(5)]
    assert pool.run(arguments) == [Outcome(seconds, "ok", "") for _, seconds in arguments]


def test_no_arguments_give_no_outcomes(pool: Pool) -> None:
    assert pool.run([]) == []


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        (("raise", ValueError("negative thickness")), "ValueError: negative thickness"),
        (("raise", ValueError()), "ValueError"),
        (("raise", ValueError("two\n  lines\tand more ")), "ValueError: two lines and more"),
        (("raise", KeyError("a")), "KeyError: 'a'"),
        (
            ("raise", RuntimeError("<X object at 0x7f4c539347c0> with code 0x1F")),
            "RuntimeError: <X object at 0x...> with code 0x1F",
        ),
        (("raise", OSError("bad name \udc80")), "OSError: bad name ?"),
        (("raise", GeneratorExit("stopped")), "GeneratorExit: stopped"),
        (("sys.exit", 3), "SystemExit: 3"),
        (("unpicklable error", "with a lock"), "UnpicklableError: with a lock"),
        (("unprintable error", ""), f"{UnprintableError.__name__}: <exception str() failed>"),
        (("no such act", None), "KeyError: 'no such act'"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, tuple) else None,
)
def test_an_exception_is_an_outcome_with_one_line(pool: Pool, argument: Any, reason: str) -> None:
    outcome = one(pool, *argument)
    assert (outcome.value, outcome.status) == (None, "error")
    assert outcome.reason.startswith(reason)
    assert outcome.reason == " ".join(outcome.reason.split())
    outcome.reason.encode()
    assert one(pool, "return", 1).value == 1, "the pool goes on"


def test_a_long_reason_is_cut(pool: Pool) -> None:
    reason = one(pool, "raise", ValueError("x" * 1000)).reason
    assert len(reason) == 300
    assert reason.endswith("...")


def test_starts_and_ends_are_told_here_and_only_free_workers_get_work(kind: str, pool: Pool) -> None:
    n, in_flight, most = 6, set[int](), 0
    told: list[tuple[str, int]] = []
    here = threading.get_ident()

    def on_start(i: int) -> None:
        nonlocal most
        assert threading.get_ident() == here
        told.append(("start", i))
        in_flight.add(i)
        most = max(most, len(in_flight))

    def on_end(i: int, outcome: Outcome) -> None:
        assert threading.get_ident() == here
        told.append(("end", i))
        in_flight.remove(i)
        assert outcome == Outcome(0.05, "ok", "")

    pool.run([("sleep", 0.05)] * n, on_start, on_end)
    assert [i for what, i in told if what == "start"] == list(range(n))
    assert sorted(i for what, i in told if what == "end") == list(range(n))
    assert most == (1 if kind in ("serial", "auto") else 2)


def test_workers_stay_warm(pool: Pool) -> None:
    def workers() -> set[tuple[int, int]]:
        found = [outcome.value for outcome in pool.run([("whereabouts", None)] * 4)]
        return {(worker["pid"], worker["thread"]) for worker in found}

    pool.run([("sleep", 0.1)] * 2)
    assert len(workers() | workers() | workers()) <= 2


@pytest.mark.parametrize("callback", ["on_start", "on_end"])
def test_an_exception_in_a_callback_stops_the_run_and_the_next_is_clean(pool: Pool, callback: str) -> None:
    def stop(i: int, *_: Any) -> None:
        if i == 1:
            raise LookupError("stop")

    with pytest.raises(LookupError, match="stop"):
        pool.run([("return", i) for i in range(4)], **{callback: stop})
    assert [outcome.value for outcome in pool.run([("return", "clean")] * 3)] == ["clean"] * 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "fork"}, "executor: expected one of 'serial', 'threads', 'processes', 'dask', 'auto', got 'fork'"),
        (
            {"address": "tcp://127.0.0.1:1"},
            "address: expected one with executor 'dask' alone, got one with 'processes'",
        ),
        ({"n_workers": 0}, "n_workers: expected an integer >= 1, got 0"),
        ({"n_workers": 1.5}, "n_workers: expected an integer >= 1, got 1.5"),
        ({"n_workers": True}, "n_workers: expected an integer >= 1, got True"),
    ],
)
def test_a_wrong_spec_says_what_was_expected(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExecutorSpec(**spec)


@pytest.mark.parametrize("kind", ["serial", "threads"])
def test_a_timeout_needs_processes(kind: str) -> None:
    message = f"timeout: needs executor 'processes' or 'dask', which can stop a call, got '{kind}'"
    with pytest.raises(ValueError, match=message), open_pool(act, ExecutorSpec(kind), timeout=1):
        pass


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_is_a_number_of_seconds(timeout: float) -> None:
    with pytest.raises(ValueError, match=r"timeout: expected a number of seconds > 0, got"):
        open_pool(act, PROCESSES, timeout).__enter__()


# Short calls go in chunks


@pytest.mark.parametrize("n", [1, 7, 5000])
def test_short_calls_go_together_and_come_back_in_order(spec: ExecutorSpec, n: int) -> None:
    chunks: list[int] = []
    ended: dict[int, Any] = {}

    def end(numbers: Any, outcomes: Any) -> None:
        chunks.append(len(numbers))
        ended.update(zip(numbers, [outcome.value for outcome in outcomes], strict=True))

    started: list[int] = []
    with open_pool(double, spec) as pool:
        pool.run_chunks(np.arange(n), started.extend, end)
        assert ended == {i: 2 * i for i in range(n)}
        assert sorted(started) == list(range(n))
        assert (max(chunks) > 50) == (n == 5000)
        assert [outcome.value for outcome in pool.run(list(range(9)))] == list(range(0, 18, 2))


def double(x: Any) -> Any:
    return 2 * x


@pytest.mark.parametrize("end", ["os._exit(3)", "time.sleep(60)", "return_lock()"])
def test_a_call_that_is_lost_takes_no_other_of_its_chunk_with_it(end: str) -> None:
    def call(x: int) -> Any:
        if x != 700:
            return x
        if "exit" in end:
            os._exit(3)
        if "sleep" in end:
            time.sleep(60)
        return threading.Lock()

    with open_pool(call, ExecutorSpec("processes", 2), timeout=1) as pool:
        outcomes = pool.run(list(range(1000)))
    assert [outcome.value for outcome in outcomes] == [None if i == 700 else i for i in range(1000)]
    assert outcomes[700].status == {"o": "died", "t": "timeout", "r": "error"}[end[0]]


def test_auto_calls_here_what_is_short_and_in_processes_what_is_long() -> None:
    def whereabouts(seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    with open_pool(whereabouts, ExecutorSpec("auto", 2)) as pool:
        short, long = pool.run([1e-5] * 2000), pool.run([0.12] * 60)
    assert {outcome.value for outcome in short} == {os.getpid()}
    pids = [outcome.value for outcome in long]
    assert pids[0] == os.getpid()
    assert len(set(pids[2:]) - {os.getpid()}) == 2


def test_auto_counts_on_as_many_runs_as_there_have_been() -> None:
    def whereabouts(seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    with open_pool(whereabouts, ExecutorSpec("auto", 2)) as pool:
        runs = [{outcome.value for outcome in pool.run([0.01] * 100)} for _ in range(8)]
    assert runs[0] == {os.getpid()}  # half a second is less than what a start takes
    assert len(runs[-1] - {os.getpid()}) == 2


# What processes alone can promise


@pytest.fixture(scope="module")
def processes() -> Iterator[Pool]:
    with open_pool(act, PROCESSES, timeout=1) as pool:
        yield pool


@pytest.mark.parametrize(
    ("argument", "outcome"),
    [
        (("sleep", 60), Outcome(None, "timeout", "timeout: no result within 1 s")),
        (("exit", 3), Outcome(None, "died", "worker died: exit status 3")),
        (("exit", 0), Outcome(None, "died", "worker died: exit status 0")),
        (("die", signal.SIGKILL), Outcome(None, "died", "worker died: signal 9")),
        (("die", signal.SIGSEGV), Outcome(None, "died", "worker died: signal 11")),
        (("die", signal.SIGSTOP), Outcome(None, "timeout", "timeout: no result within 1 s")),
        (("raise", KeyboardInterrupt()), Outcome(None, "died", "worker died: exit status 1")),
    ],
    ids=str,
)
def test_a_lost_worker_is_an_outcome_and_is_replaced(processes: Pool, argument: Any, outcome: Outcome) -> None:
    outcomes = processes.run([argument, ("return", 1), ("return", 2)])
    assert outcomes == [outcome, Outcome(1, "ok", ""), Outcome(2, "ok", "")]
    assert processes.run([argument])[0] == outcome, "the same again: the reason is deterministic"


def test_a_returned_value_that_cannot_travel_is_an_error(processes: Pool) -> None:
    outcome = one(processes, "unpicklable", None)
    assert (outcome.status, outcome.reason) == ("error", "TypeError: cannot pickle '_thread.lock' object")


def test_a_worker_that_died_between_two_runs_does_not_stop_the_pool() -> None:
    with open_pool(act, ExecutorSpec("processes", 1)) as pool:
        first = one(pool, "whereabouts", None).value["pid"]
        os.kill(first, signal.SIGKILL)
        outcomes = pool.run([("whereabouts", None)] * 3)
    assert {outcome.status for outcome in outcomes} <= {"ok", "died"}
    assert outcomes[-1].value["pid"] != first


def test_the_clock_does_not_count_the_start_of_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(1.2)\ndef double(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    with open_pool(__import__("slow_to_import").double, ExecutorSpec(n_workers=1), timeout=1) as pool:
        assert pool.run([21]) == [Outcome(42, "ok", "")]


def test_a_start_that_takes_for_ever_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "endless.py").write_text(
        "import multiprocessing, time\n"
        "if multiprocessing.parent_process(): time.sleep(3600)\n"
        "def double(x): return 2 * x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(worker_pool, "START_SECONDS", 1.5)
    before = set(multiprocessing.active_children())
    with (
        open_pool(__import__("endless").double, PROCESSES, timeout=0.5) as pool,
        pytest.raises(WorkerNotStarted) as caught,
    ):
        pool.run([1, 2])
    assert caught.value.reason == "expected an import within 2 s, got none"
    assert not caught.value.killed
    assert set(multiprocessing.active_children()) == before


def test_a_call_may_use_processes_of_its_own() -> None:
    with open_pool(squares_by_processes, ExecutorSpec(n_workers=1)) as pool:
        assert pool.run([[1, 2, 3]]) == [Outcome([1, 4, 9], "ok")]


def test_where_the_system_cannot_look_at_an_ended_process_workers_are_stopped_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "waitid")
    with open_pool(act, ExecutorSpec(n_workers=1), timeout=0.5) as pool:
        slow, quick = pool.run([("sleep", 60), ("return", 1)])
    assert (slow.status, quick.value) == ("timeout", 1)


def test_workers_find_what_the_parent_finds_and_have_one_thread_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path / "first")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with open_pool(act, PROCESSES) as pool:
        worker = one(pool, "whereabouts", None).value
    assert [folder for folder in sys.path if folder] == [folder for folder in worker["path"] if folder in sys.path]
    assert worker["path"][-1] == str(tmp_path), "the working folder comes last"
    assert worker["omp"] == "1"
    assert worker["sigint_ignored"]
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_workers_start_when_they_are_needed_and_are_gone_afterwards() -> None:
    before = set(multiprocessing.active_children())
    with open_pool(act, ExecutorSpec("processes", 2)) as pool:
        assert set(multiprocessing.active_children()) == before
        pool.run([("return", 0)])
        assert len(set(multiprocessing.active_children()) - before) == 1
        pool.run([("sleep", 0.01), ("exit", 1), ("sleep", 0.01)])
        assert len(set(multiprocessing.active_children()) - before) <= 2
    assert set(multiprocessing.active_children()) == before


def test_a_timeout_also_ends_the_programs_that_the_call_started() -> None:
    with open_pool(act, ExecutorSpec("processes", 1), timeout=1) as pool:
        found: list[psutil.Process] = []

        def look(_: int) -> None:
            threading.Thread(target=wait_for_program).start()

        def wait_for_program() -> None:
            wait_until(lambda: [p for p in psutil.Process().children(recursive=True) if p.name() == "sleep"])
            found.extend(p for p in psutil.Process().children(recursive=True) if p.name() == "sleep")

        assert pool.run([("program", 60)], look)[0].status == "timeout"
    assert len(found) == 1
    wait_until(lambda: not is_running(found[0]))


@pytest.mark.parametrize("end", [("return", None), ("exit", 3), ("raise", KeyboardInterrupt())], ids=str)
def test_programs_left_in_the_background_end_with_the_pool(end: tuple[str, Any]) -> None:
    """They hold all that the worker has open, whose death is seen all the same."""
    with open_pool(act, ExecutorSpec("processes", 1)) as pool:
        left = psutil.Process(pool.run([("left behind", 600)])[0].value)
        assert is_running(left)
        assert pool.run([end])[0].status == ("ok" if end[0] == "return" else "died")
    wait_until(lambda: not is_running(left))


def test_lambdas_and_closures_travel_and_what_holds_a_lock_is_refused() -> None:
    factor = 3

    def local(x: float) -> float:
        return factor * x

    for function, expected in [(lambda x: x + factor, 5), (local, 6)]:
        with open_pool(function, PROCESSES) as pool:
            assert [outcome.value for outcome in pool.run([2, 2])] == [expected] * 2
    held = threading.Lock().__enter__
    message = "function: expected one that can travel to another process, got __enter__ ("
    with pytest.raises(ValueError, match=re.escape(message)), open_pool(held, PROCESSES):
        pass
    with open_pool(held, ExecutorSpec("serial")) as pool:
        assert len(pool.run([1])) == 1
    lock = threading.Lock()

    def slow_with_a_lock(x: int) -> int:
        with lock:
            time.sleep(0.12)
        return x

    with open_pool(slow_with_a_lock, ExecutorSpec("auto", 2)) as pool:
        assert [outcome.value for outcome in pool.run(list(range(40)))] == list(range(40))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (None, "ModuleNotFoundError: No module named 'ghost'"),
        ("raise ImportError('no licence')", "ImportError: no licence"),
        ("import os; os._exit(5)", "worker died: exit status 5"),
        ("import os; os.kill(os.getpid(), 9)", "worker died: signal 9"),
    ],
)
def test_a_function_that_workers_cannot_import_is_an_error_and_no_endless_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | None, reason: str
) -> None:
    ghost = types.ModuleType("ghost")
    exec("import time\ndef f(x):\n    time.sleep(0.12)\n    return x", ghost.__dict__)
    monkeypatch.setitem(sys.modules, "ghost", ghost)
    if source is not None:
        (tmp_path / "ghost.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
    with open_pool(ghost.f, PROCESSES) as pool, pytest.raises(WorkerNotStarted) as caught:
        pool.run([1, 2])
    assert str(caught.value).startswith(f"the worker process could not start ({reason}): what the function")
    if source is None:
        with open_pool(ghost.f, ExecutorSpec("auto", 2)) as pool:
            assert [outcome.value for outcome in pool.run(list(range(25)))] == list(range(25))
    assert caught.value.killed == ("signal" in reason)


def test_an_argument_that_cannot_travel_is_the_callers_mistake(processes: Pool) -> None:
    with pytest.raises((pickle.PicklingError, TypeError)):
        one(processes, "return", threading.Lock())
    assert one(processes, "return", 1).value == 1


SCRIPT = """
import os
from surrogate_core.execution import ExecutorSpec, open_pool

print("begins")

class Scale:
    def __init__(self, by):
        self.by = by

scale = Scale(3)

def times(x):
    return scale.by * x, os.getpid()

with open_pool(times, ExecutorSpec("processes", 2)) as pool:
    values, pids = zip(*[outcome.value for outcome in pool.run([1, 2, 3])])
print(values, os.getpid() in pids)
"""


def test_a_script_needs_no_guard_and_is_run_once(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("begins\n(3, 6, 9) False\n", "")


PRINTING = """
import json
from blackboxes import act
from surrogate_core.execution import ExecutorSpec, open_pool

with open_pool(act, ExecutorSpec("processes", 1)) as pool:
    outcome = pool.run([("print", "noise")])[0]
print(json.dumps(outcome.status))
"""


def test_what_a_black_box_prints_does_not_reach_standard_output() -> None:
    with running_script(PRINTING) as process:
        out, err = process.communicate(timeout=60)
    assert json.loads(out) == "ok"
    assert err.split() == ["noise", "noise"]


INTERRUPTED = """
import sys
from blackboxes import act
from surrogate_core.execution import ExecutorSpec, open_pool

try:
    with open_pool(act, ExecutorSpec(sys.argv[1], 2)) as pool:
        pool.run([(sys.argv[2], 600), ("sleep", 600)], on_start=lambda i: print(i, flush=True))
except KeyboardInterrupt:
    sys.exit(7)
"""


def has_started_both(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    return {process.stdout.readline(), process.stdout.readline()} == {"0\n", "1\n"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signal_number", "status"), [(signal.SIGINT, 7), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGKILL, -9)]
)
def test_a_stopped_parent_leaves_no_process_behind(signal_number: int, status: int) -> None:
    children: list[psutil.Process] = []

    def has_started_program() -> bool:
        children[:] = psutil.Process(process.pid).children(recursive=True)
        return any(child.name() == "sleep" for child in children)

    with running_script(INTERRUPTED, "processes", "program") as process:
        assert has_started_both(process)
        wait_until(has_started_program)
        os.killpg(process.pid, signal_number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == status
    assert "Traceback" not in err
    assert len(children) >= 3, "two workers and the program of one"
    wait_until(lambda: not any(map(is_running, children)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["threads", "dask"])
def test_ctrl_c_does_not_wait_for_calls_under_way(kind: str) -> None:
    with running_script(INTERRUPTED, kind, "sleep") as process:
        assert has_started_both(process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (7, "")
