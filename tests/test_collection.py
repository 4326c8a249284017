"""Collection: a design's points are evaluated as the function wants them, and a failed call is a row."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from surrogate_core import (
    Categorical,
    DataCollector,
    Dataset,
    Float,
    GPSurrogate,
    Integer,
    ParallelDataCollector,
    SearchSpace,
    collect_data,
)
from surrogate_core.collection import design, evaluate_points
from surrogate_core.evaluation import Evaluator
from surrogate_core.execution import ExecutorSpec
from surrogate_core.journal import Journal
from surrogate_core.problems.black_box import BlackBox
from surrogate_core.sampling import sample

SERIAL = ExecutorSpec("serial")
SPACE = SearchSpace({"rate": Float(1e-3, 1, log=True), "n": Integer(1, 9)})


def squares(x: np.ndarray) -> float:
    assert x.shape == (2,)
    return float(x @ x)


def by_name(*, rate: float, n: int) -> dict[str, float]:
    assert type(rate) is float
    assert type(n) is int
    return {"value": rate * n, "noise": 0.1}


@pytest.mark.parametrize("sampling", ["sobol", "latin_hypercube", "random", "grid"])
def test_with_bounds_the_function_is_called_with_an_array(sampling: Any) -> None:
    dataset = collect_data(squares, n_samples=9, bounds=[(-5, 5), (0, 2)], sampling=sampling, seed=3)
    assert dataset.space == SearchSpace.from_bounds([(-5, 5), (0, 2)])
    assert dataset.X.tolist() == dataset.space.decode(sample(sampling, 9, 2, 3)).tolist()
    assert dataset.y == pytest.approx((dataset.X**2).sum(axis=1))
    assert (dataset.status == "ok").all()


def test_with_a_space_the_function_is_called_with_keywords() -> None:
    dataset = collect_data(by_name, n_samples=8, bounds=SPACE)
    assert dataset.space is SPACE
    assert dataset.y == pytest.approx(dataset.X[:, 0] * dataset.X[:, 1])
    assert set(dataset.X[:, 1]) <= set(range(1, 10))


@pytest.mark.parametrize("constraints", [[], ["n <= 3"]])
@pytest.mark.parametrize("sampling", ["sobol", "random", "grid"])
def test_no_point_of_a_discrete_space_is_evaluated_twice(sampling: Any, constraints: list[str]) -> None:
    space = SearchSpace({"n": Integer(1, 4), "kind": Categorical(["a", "b"])}, constraints)
    X = design(space, sampling, 16, seed=0)
    assert len(np.unique(X, axis=0)) == len(X)
    if sampling != "grid":
        assert len(X) == (6 if constraints else 8)
    assert len(design(space, sampling, 3, seed=0)) <= 3


def test_a_collector_gives_what_the_short_form_gives() -> None:
    collector = DataCollector(squares, [(-1, 1)] * 2)
    one, again = (collector.collect(n_samples=5, sampling="random", seed=1) for _ in range(2))
    short = collect_data(squares, 5, [(-1, 1)] * 2, "random", 1)
    assert one.digest == again.digest == short.digest
    assert collector.collect(5, "random", seed=2).digest != one.digest


def test_the_executor_changes_nothing() -> None:
    threads = ExecutorSpec("threads", 2)
    one, other = (collect_data(squares, 7, [(-1, 1)] * 2, executor=executor) for executor in (None, threads))
    assert one.digest == other.digest


def test_a_call_that_fails_is_a_row_with_its_reason() -> None:
    def fragile(x: np.ndarray) -> Any:
        if x[0] < -0.5:
            raise RuntimeError("too cold")
        if x[0] < 0:
            return math.nan
        if x[0] < 0.5:
            return "warm"
        return x[0]

    dataset = collect_data(fragile, 16, [(-1, 1)])
    for x, y, status, reason in zip(dataset.X[:, 0], dataset.y, dataset.status, dataset.reason, strict=True):
        expected = "too cold" if x < -0.5 else "not a finite number" if x < 0 else "must return" if x < 0.5 else ""
        assert status == ("ok" if x >= 0.5 else "failed")
        assert expected in reason
        assert bool(reason) == (status == "failed")
        assert np.isnan(y) == (status == "failed")
    assert dataset.n_samples == 16
    assert 0 < dataset.ok.n_samples < 16
    assert Dataset.from_bytes(dataset.to_bytes()).digest == dataset.digest


def test_a_problem_that_maximizes_is_turned_round() -> None:
    X = SPACE.decode(sample("sobol", 8, 2, 0))
    with Evaluator(by_box, SERIAL) as evaluator:
        down = evaluate_points(evaluator, SPACE, X, "label")
        up = evaluate_points(evaluator, SPACE, X, "label", sign=-1.0)
    assert up.y.tolist() == (-down.y).tolist()
    assert up.X.tolist() == down.X.tolist() == X.tolist()
    assert up.best_index == int(np.argmax(down.y))


def by_box(params: dict[str, Any]) -> float:
    return params["rate"] * params["n"]


def test_turned_round_a_failure_is_still_a_failure() -> None:
    with Evaluator(BlackBox("math:no_such_name"), SERIAL) as evaluator:
        dataset = evaluate_points(evaluator, SPACE, SPACE.decode([[0.5, 0.5]]), "label", sign=-1.0)
    assert dataset.status.tolist() == ["failed"]
    assert np.isnan(dataset.y).all()
    assert "no_such_name" in dataset.reason[0]


def test_no_points_are_an_empty_table() -> None:
    with Evaluator(by_box, SERIAL) as evaluator:
        dataset = evaluate_points(evaluator, SPACE, np.empty((0, 2)), "label")
    assert dataset.X.shape == (0, 2)
    assert dataset.space == SPACE


def test_progress_is_told_to_the_end() -> None:
    heard: list[tuple[int, int]] = []
    DataCollector(squares, [(-1, 1)] * 2).collect(4, on_progress=lambda done, total: heard.append((done, total)))
    assert (heard[0], heard[-1]) == ((0, 4), (4, 4))
    assert heard == sorted(set(heard))


def test_a_journal_answers_for_the_same_points_of_the_same_batch_alone(tmp_path: Any) -> None:
    X = SPACE.decode(sample("sobol", 4, 2, 0))
    with Journal(tmp_path / "journal.jsonl") as journal, Evaluator(by_box, SERIAL, journal=journal) as evaluator:
        first = evaluate_points(evaluator, SPACE, X, "a")
        assert evaluate_points(evaluator, SPACE, X, "a").digest == first.digest
        assert (evaluator.n_calls, evaluator.n_served) == (4, 4)
        evaluate_points(evaluator, SPACE, X, "b")
        assert (evaluator.n_calls, evaluator.n_served) == (8, 4)
        evaluate_points(evaluator, SPACE, X + np.array([0, 1]), "a")
        assert (evaluator.n_calls, evaluator.n_served) == (12, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_samples": 0, "bounds": [(0, 1)]}, "n_samples: expected an integer >= 1, got 0"),
        ({"n_samples": 4, "bounds": [(1, 0)]}, r"bounds\[0\]: expected a pair low < high"),
        ({"n_samples": 4, "bounds": []}, "space: expected at least one variable"),
        ({"n_samples": 4, "bounds": [(0, 1)], "sampling": "halton"}, "sampling: expected one of"),
    ],
    ids=str,
)
def test_a_mistake_is_told_before_anything_is_called(arguments: dict[str, Any], message: str) -> None:
    def never(x: np.ndarray) -> float:
        raise AssertionError("called")

    with pytest.raises(ValueError, match=message):
        collect_data(never, **arguments)


@pytest.mark.parametrize("sampling", ["sobol", "random"])
@pytest.mark.parametrize("chunk_size", [1, 7, 64, 1000])
def test_a_streamed_table_has_the_rows_of_one_in_memory(sampling: Any, chunk_size: int, tmp_path: Path) -> None:
    collector, path = DataCollector(squares, [(-1, 1)] * 2), tmp_path / "deep" / "rows.parquet"
    heard: list[tuple[int, int]] = []
    told = collector.collect_streaming(
        100, chunk_size, path, sampling, seed=3, on_progress=lambda done, total: heard.append((done, total))
    )
    expected = collector.collect(100, sampling, seed=3)
    assert Dataset.from_bytes(told.read_bytes()).digest == expected.digest
    assert heard == sorted(heard)
    assert heard[-1] == (100, 100)
    groups = pq.ParquetFile(path).metadata
    assert max(groups.row_group(i).num_rows for i in range(groups.num_row_groups)) <= chunk_size
    assert [one.name for one in path.parent.iterdir()] == ["rows.parquet"]


def test_a_streamed_table_keeps_to_constraints_and_tells_of_failures_and_derivatives(tmp_path: Path) -> None:
    space = SearchSpace({"a": Float(0, 1), "b": Float(0, 1)}, constraints=["a + b <= 1"])

    def slope(a: float, b: float) -> dict[str, Any]:
        if a > 0.6:
            raise ValueError("too long")
        return {"value": a * b, "gradient": {"a": b, "b": a}}

    path = DataCollector(slope, space).collect_streaming(50, 16, tmp_path / "rows.parquet")
    rows = Dataset.from_bytes(path.read_bytes())
    assert rows.n_samples == 50
    assert space.is_feasible(rows.X).all()
    assert set(rows.status) == {"ok", "failed"}
    assert rows.gradients is not None
    assert rows.ok.gradients[:, 0].tolist() == rows.ok.X[:, 1].tolist()  # type: ignore[index]
    fitted = GPSurrogate(n_starts=1).fit(rows)
    assert fitted.predict([0.3, 0.3]) == pytest.approx(0.09, abs=0.01)


def test_what_was_streamed_before_an_interruption_is_kept(tmp_path: Path) -> None:
    n = 0

    def interrupted(x: np.ndarray) -> float:
        nonlocal n
        n += 1
        if n == 45:
            raise KeyboardInterrupt
        return float(x.sum())

    path = tmp_path / "rows.parquet"
    with pytest.raises(KeyboardInterrupt):
        DataCollector(interrupted, [(0, 1)] * 2).collect_streaming(100, 16, path)
    assert Dataset.from_bytes(path.read_bytes()).n_samples == 32


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"n_samples": 0}, "n_samples: expected an integer >= 1, got 0"),
        ({"chunk_size": 0}, "chunk_size: expected an integer >= 1, got 0"),
        ({"sampling": "grid"}, "sampling: expected 'sobol' or 'random', whose points come one by one, got 'grid'"),
    ],
)
def test_what_cannot_be_streamed_is_refused_and_writes_nothing(
    how: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        DataCollector(squares, [(0, 1)]).collect_streaming(**{"n_samples": 9, "path": tmp_path / "rows", **how})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("executor", ["serial", "threads", "processes", "auto"])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_the_rows_are_the_same_whatever_the_workers(executor: Any, n_jobs: int) -> None:
    shift = 0.25
    collector = ParallelDataCollector(lambda x: float((x - shift) @ x), [(-1, 1)] * 3, n_jobs, executor=executor)
    assert collector.collect(300).digest == collect_data(lambda x: float((x - shift) @ x), 300, [(-1, 1)] * 3).digest


def test_a_worker_that_dies_costs_one_retry_and_what_is_slow_ends(tmp_path: Path) -> None:
    def falters(x: np.ndarray) -> float:
        mark = tmp_path / f"{x[0]:.6f}"
        if x[0] > 0.9 and not mark.exists():
            mark.touch()
            os._exit(1)
        if x[0] < 0.1:
            time.sleep(60)
        return float(x[0])

    collector = ParallelDataCollector(falters, [(0, 1)], 2, executor="processes", timeout=1.0)
    rows = collector.evaluate(np.array([[0.95], [0.5], [0.05], [0.6]]))
    assert rows.status.tolist() == ["ok", "ok", "failed", "ok"]
    assert rows.reason[2] == "timeout: no result within 1 s (after 2 tries)"


def test_a_function_that_writes_to_its_argument_changes_no_row() -> None:
    def vandal(x: np.ndarray) -> float:
        value = float(x.sum())
        x[:] = 0.0
        return value

    rows = collect_data(vandal, 8, [(1, 2)] * 2)
    assert (rows.X >= 1).all()
    assert rows.y == pytest.approx(rows.X.sum(axis=1))


GROWTH = """
import sys
from surrogate_core import DataCollector
from surrogate_core.performance import MemoryMonitor
collector = DataCollector(lambda x: float(x[0]), [(0, 1)] * 20)
collector.collect_streaming(64, 64, sys.argv[2], "random").read_bytes()
with MemoryMonitor(interval=None) as monitor:
    if sys.argv[1] == "streamed":
        collector.collect_streaming(100_000, 2000, sys.argv[2], "random")
    else:
        open(sys.argv[2], "wb").write(collector.collect(100_000, "random").to_bytes())
print(monitor.get_memory_increase())
"""


@pytest.mark.slow
def test_of_a_stream_one_chunk_is_in_memory(tmp_path: Path) -> None:
    grown = {
        how: float(subprocess.check_output([sys.executable, "-c", GROWTH, how, str(tmp_path / how)], text=True))
        for how in ("streamed", "whole")
    }
    assert grown["streamed"] < 0.3 * grown["whole"]
