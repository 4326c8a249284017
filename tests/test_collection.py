"""Collection: a design's points are evaluated as the function wants them, and a failed call is a row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from surrogate_core import Categorical, DataCollector, Dataset, Float, Integer, SearchSpace, collect_data
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
