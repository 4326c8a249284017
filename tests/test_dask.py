"""What a pool on a Dask cluster promises beside what every pool does (test_execution.py)."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from blackboxes import act, count_call, running_script, wait_until
from dask_cluster import dask_cluster

from surrogate_core import dask_pool
from surrogate_core.collection import DataCollector, ParallelDataCollector
from surrogate_core.execution import ClusterNotFound, ExecutorSpec, Pool, WorkerNotStarted, open_pool
from surrogate_core.worker import Outcome


@pytest.fixture(scope="module")
def spec(dask_address: str) -> ExecutorSpec:
    return ExecutorSpec("dask", address=dask_address)


@pytest.fixture(scope="module")
def pool(spec: ExecutorSpec) -> Iterator[Pool]:
    with open_pool(act, spec, timeout=1) as pool:
        yield pool


def test_rows_are_the_same_whatever_the_executor_and_the_number_of_workers(dask_address: str) -> None:
    factor = 3.0

    def rough(x: np.ndarray) -> float:
        if x[0] > 0.9:
            raise ValueError(f"too far at {x[0]:.3f}")
        return factor * float(x @ x)

    expected = DataCollector(rough, [(-1, 1)] * 2).collect(64)
    assert 0 < (expected.status == "failed").sum() < 64
    for kind, n in [("threads", 2), ("processes", 2), ("dask", 1), ("dask", None)]:
        address = dask_address if kind == "dask" else None
        collector = ParallelDataCollector(rough, [(-1, 1)] * 2, n, executor=kind, address=address, retries=0)
        assert collector.collect(64).digest == expected.digest


@pytest.mark.parametrize(("retries", "status", "n_calls"), [(0, "failed", 1), (1, "ok", 2)])
def test_a_worker_that_dies_costs_one_retry_and_none_that_was_not_asked_for(
    dask_address: str, tmp_path: Path, retries: int, status: str, n_calls: int
) -> None:
    calls = tmp_path / "calls"

    def deadly_once(x: np.ndarray) -> float:
        if count_call(calls) == 1:
            os._exit(1)
        return float(x[0])

    collector = ParallelDataCollector(deadly_once, [(0, 1)], executor="dask", address=dask_address, retries=retries)
    dataset = collector.collect(1)
    assert list(dataset.status) == [status]
    time.sleep(1)  # in which Dask's scheduler would have made the call again
    assert len(calls.read_text().split()) == n_calls


def test_a_call_that_takes_too_long_is_stopped_and_its_worker_restarted(pool: Pool) -> None:
    late = Outcome(None, "timeout", "timeout: no result within 1 s")
    assert pool.run([("sleep", 60), ("return", 1), ("return", 2)]) == [late, Outcome(1, "ok"), Outcome(2, "ok")]
    assert [outcome.status for outcome in pool.run([("sleep", 0.1)] * 3)] == ["ok"] * 3


def test_of_calls_that_all_take_too_long_none_counts(pool: Pool) -> None:
    late = Outcome(None, "timeout", "timeout: no result within 1 s")
    assert pool.run([("sleep", 2)] * 4) == [late] * 4


def test_a_call_beside_one_that_is_stopped_is_made_again(tmp_path: Path) -> None:
    with (
        dask_cluster(tmp_path, "--nworkers", "1", "--nthreads", "2") as (address, _),
        open_pool(act, ExecutorSpec("dask", address=address), timeout=4) as pool,
    ):
        pool.run([("return", 0)] * 2)
        outcomes = pool.run([("sleep", 60), ("sleep", 1.0), ("sleep", 1.5)])
    assert [outcome.status for outcome in outcomes] == ["timeout", "ok", "ok"]


def test_a_worker_without_a_nanny_that_takes_too_long_is_asked_no_more(tmp_path: Path) -> None:
    with (
        dask_cluster(tmp_path, "--no-nanny", "--nthreads", "1", n_commands=2) as (address, _),
        open_pool(act, ExecutorSpec("dask", address=address), timeout=1) as pool,
    ):
        wait_until(lambda: len(pids(pool)) == 2)
        outcomes = pool.run([("sleep", 60), *[("return", i) for i in range(5)]])
        assert [outcome.status for outcome in outcomes] == ["timeout", *["ok"] * 5]
        assert len(pids(pool)) == 1


def pids(pool: Pool) -> set[int]:
    return {outcome.value["pid"] for outcome in pool.run([("whereabouts", None)] * 8) if outcome.value}


def test_what_workers_cannot_import_is_an_error(
    spec: ExecutorSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("def f(x): return x")
    monkeypatch.syspath_prepend(tmp_path)
    with open_pool(__import__("only_here").f, spec) as pool, pytest.raises(WorkerNotStarted) as caught:
        pool.run([1, 2])
    assert caught.value.reason == "ModuleNotFoundError: No module named 'only_here'"


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of what accepts connections and says nothing, as a scheduler's dashboard does to a client."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nowhere at all", "silent"])
def test_no_scheduler_is_one_error(address: str, silent_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_pool, "ANSWER_SECONDS", 0.5)
    address = silent_server if address == "silent" else address
    message = f"address: expected a Dask scheduler that answers and has workers, got '{address}'"
    with open_pool(act, ExecutorSpec("dask", address=address)) as pool, pytest.raises(ClusterNotFound, match=message):
        pool.run([("return", 1)])


def test_a_scheduler_that_dies_is_an_error_and_no_endless_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_pool, "ANSWER_SECONDS", 1.0)
    with (
        dask_cluster(tmp_path, "--nworkers", "1", "--nthreads", "1") as (address, scheduler),
        open_pool(act, ExecutorSpec("dask", address=address)) as pool,
    ):
        assert pool.run([("return", 1)]) == [Outcome(1, "ok")]
        with pytest.raises(ClusterNotFound, match="address: expected a Dask scheduler that answers"):
            pool.run([("sleep", 60)], on_start=lambda _: scheduler.kill())


def test_a_cluster_without_workers_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_pool, "START_SECONDS", 1.0)
    with (
        dask_cluster(tmp_path, n_commands=0) as (address, _),
        open_pool(act, ExecutorSpec("dask", address=address)) as pool,
        pytest.raises(ClusterNotFound, match=r"no worker for 1 s"),
    ):
        pool.run([("return", 1)])


LOCAL = """
import psutil
from blackboxes import act
from surrogate_core.execution import ExecutorSpec, open_pool

with open_pool(act, ExecutorSpec("dask", 2)) as pool:
    statuses = [outcome.status for outcome in pool.run([("print", "noise"), ("exit", 3), ("sleep", 0.5)])]
print(statuses, len(psutil.Process().children(recursive=True)))
"""


def test_a_cluster_of_its_own_prints_nothing_here_and_ends_with_the_pool(tmp_path: Path) -> None:
    with running_script(LOCAL) as process:
        out, err = process.communicate(timeout=60)
    assert out.startswith("['ok', 'died', 'ok'] ")
    assert int(out.split()[-1]) <= 1, "the resource tracker of multiprocessing"
    assert err.split() == ["noise", "noise"]
