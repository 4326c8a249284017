"""The workflow behind one object: it fits, predicts, optimizes, validates, and its parts can be swapped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import OptimizeResult

from surrogate_core import (
    Categorical,
    Dataset,
    Float,
    GPSurrogate,
    LBFGSOptimizer,
    MultiStartOptimizer,
    SearchSpace,
    SurrogateOptimizer,
    collect_data,
    quick_optimize,
    tune_surrogate_hyperparameters,
)

BOUNDS = [(-2.0, 2.0)] * 2
FAST = {"n_starts": 2}


def bowl(x: np.ndarray) -> float:
    return float((x[0] - 0.5) ** 2 + 2 * (x[1] + 0.4) ** 2)


def fitted(**how: Any) -> SurrogateOptimizer:
    return SurrogateOptimizer(surrogate_params=FAST, **how).fit_surrogate(collect_data(bowl, 24, BOUNDS))


def test_the_interface_that_others_rely_on() -> None:
    workflow = SurrogateOptimizer(
        surrogate_type="gaussian_process",
        surrogate_params={"kernel": "rbf"},
        optimizer_type="multi_start",
        optimizer_params={"n_starts": 8},
    )
    assert workflow.surrogate == GPSurrogate(kernel="rbf")
    assert workflow.optimizer == MultiStartOptimizer(n_starts=8)
    assert not workflow.is_fitted
    data = collect_data(bowl, 24, BOUNDS)
    assert workflow.fit_surrogate(data) is workflow
    assert workflow.is_fitted
    assert workflow.training_data is data
    X = np.array([[0.5, -0.4], [1.0, 1.0]])
    assert workflow.predict(X) == pytest.approx([bowl(x) for x in X], abs=0.02)
    assert workflow.gradient(X[1]) == pytest.approx([1.0, 5.6], abs=0.2)
    assert (workflow.uncertainty(X) >= 0).all()
    found = workflow.optimize([0.0, 0.0], BOUNDS)
    assert found.x == pytest.approx([0.5, -0.4], abs=0.02)
    assert workflow.optimize(goal="cautious").success


def test_validation_is_at_fresh_points_of_the_true_function() -> None:
    told = fitted().validate(bowl, n_samples=32)
    assert told["r2"] > 0.999
    assert told["n_failed"] == 0
    assert 0.8 <= told["coverage_95"] <= 1
    assert fitted().validate(lambda x: -bowl(x))["r2"] < 0
    partly = fitted().validate(lambda x: bowl(x) if x[0] > 0 else np.nan, n_samples=32)
    assert 8 < partly["n_failed"] < 24
    with pytest.raises(ValueError, match=r"function: expected values, got none of 8: .*too late"):
        fitted().validate(_failing, n_samples=8)


def _failing(x: np.ndarray) -> float:
    raise ArithmeticError("too late")


def test_a_space_is_called_with_keywords() -> None:
    space = SearchSpace({"x": Float(-1, 1), "kind": Categorical(["a", "b"])})

    def function(x: float, kind: str) -> float:
        return x**2 + (kind == "b")

    workflow = SurrogateOptimizer(surrogate_params=FAST).fit_surrogate(collect_data(function, 16, space))
    assert workflow.optimize().metadata["params"]["kind"] == "a"
    assert workflow.validate(function, n_samples=16)["r2"] > 0.9


def test_the_optimizer_can_be_swapped() -> None:
    workflow = fitted()
    workflow.optimizer = LBFGSOptimizer()
    assert workflow.optimize([1.0, 1.0]).n_starts == 1

    class Corner:
        def optimize(self, surrogate: Any, x0: Any = None, bounds: Any = None, **how: Any) -> OptimizeResult:
            x = np.array([low for low, _ in bounds])
            return OptimizeResult(x=x, fun=float(surrogate.predict(x)), success=True)

    workflow.optimizer = Corner()
    assert workflow.optimize(bounds=BOUNDS).x.tolist() == [-2, -2]


class Nearest:
    """A user's own surrogate."""

    def fit(self, dataset: Dataset) -> None:
        self.X, self.y = dataset.X, dataset.y

    def predict(self, X: Any) -> np.ndarray:
        apart = np.linalg.norm(np.atleast_2d(X)[:, None] - self.X[None], axis=-1)
        weights = np.exp(-4 * apart**2)
        return np.asarray(weights @ self.y / weights.sum(axis=1))


@pytest.mark.parametrize("swapped", [False, True])
def test_a_surrogate_of_ones_own_works_in_its_place(swapped: bool) -> None:
    params = {"n_starts": 4}
    if swapped:
        workflow = SurrogateOptimizer(optimizer_params=params)
        workflow.surrogate = Nearest()
    else:
        workflow = SurrogateOptimizer("test_facade:Nearest", optimizer_params=params)
    assert not workflow.is_fitted
    workflow.fit_surrogate(collect_data(bowl, 64, BOUNDS))
    assert workflow.is_fitted
    found = workflow.optimize()
    assert found.x == pytest.approx([0.5, -0.4], abs=0.3)
    assert workflow.validate(bowl, n_samples=16).keys() == {"rmse", "mae", "r2", "n_failed"}
    workflow.surrogate = Nearest()
    assert not workflow.is_fitted


def test_a_spec_in_the_surrogates_place_is_fitted_next() -> None:
    workflow = fitted()
    workflow.surrogate = GPSurrogate(kernel="matern32", n_starts=1)
    assert not workflow.is_fitted
    with pytest.raises(ValueError, match="surrogate: expected one that is fitted, got one that is not; call fit_surr"):
        workflow.predict([0.0, 0.0])
    assert workflow.training_data is not None
    workflow.fit_surrogate(workflow.training_data)
    assert workflow.surrogate.spec.kernel == "matern32"


def test_a_subclass_changes_one_step() -> None:
    class Cautious(SurrogateOptimizer):
        def optimize(self, x0: Any = None, bounds: Any = None, **how: Any) -> Any:
            return super().optimize(x0, bounds, **{"goal": "cautious", **how})

    workflow = Cautious(surrogate_params=FAST).fit_surrogate(collect_data(bowl, 12, BOUNDS))
    assert workflow.optimize().metadata["goal"].name == "cautious"


def test_quick_optimize_measures_what_it_promises() -> None:
    calls = []

    def counted(x: np.ndarray) -> float:
        calls.append(x)
        return bowl(x)

    found = quick_optimize(counted, BOUNDS, n_samples=25, surrogate_params=FAST)
    assert len(calls) == 25
    assert found.fun == bowl(found.x) == found.metadata["measured"] < found.metadata["best_sample"]
    assert found.metadata["promised"] == pytest.approx(found.fun, abs=0.01)
    assert found.metadata["dataset"].n_samples == 25


def test_quick_optimize_keeps_the_best_sample_where_the_promise_is_not_kept() -> None:
    def needle(x: np.ndarray) -> float:
        return float(np.sin(40 * x[0]) * np.cos(37 * x[1]))

    kept = [quick_optimize(needle, BOUNDS, n_samples=12, surrogate_params=FAST, seed=seed) for seed in range(4)]
    stayed = [found for found in kept if "the best sample stays" in found.message]
    assert stayed
    for found in stayed:
        assert found.fun == found.metadata["best_sample"] == needle(found.x)


def test_tuning_records_every_candidate_and_passes_over_those_that_fail() -> None:
    told: list[Any] = []
    grid = {"kernel": ["rbf", "matern12"], "transform": ["standardize", "log"], "n_starts": [1]}
    best, score, tried = tune_surrogate_hyperparameters(
        lambda x: bowl(x) - 5, BOUNDS, grid, n_samples=24, on_result=told.append
    )
    assert [one.params for one in tried] == [
        {"kernel": kernel, "transform": transform, "n_starts": 1}
        for kernel in ("rbf", "matern12")
        for transform in ("standardize", "log")
    ]
    assert told == tried
    failed = [one for one in tried if one.score is None]
    assert {one.params["transform"] for one in failed} == {"log"}
    assert all("expected values above 0 for 'log'" in one.error for one in failed)
    assert all(one.train_time > 0 for one in tried)
    assert best == {"kernel": "rbf", "transform": "standardize", "n_starts": 1}
    assert score == min(one.score for one in tried if one.score is not None)
    _, r2, by_r2 = tune_surrogate_hyperparameters(
        bowl, BOUNDS, {"kernel": ["rbf", "matern12"]}, n_samples=24, metric="r2"
    )
    assert r2 == max(one.score for one in by_r2 if one.score is not None)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: SurrogateOptimizer("kriging"),
            "surrogate_type: expected one of gaussian_process, .*, got 'kriging'",
        ),
        (
            lambda: SurrogateOptimizer(surrogate_params={"depth": 1}),
            "surrogate_params: expected some of .*, got 'depth'",
        ),
        (lambda: SurrogateOptimizer(optimizer_type="newton"), "optimizer_type: expected one of .*, got 'newton'"),
        (lambda: SurrogateOptimizer().optimize(), "call fit_surrogate"),
        (lambda: quick_optimize(bowl, BOUNDS, n_samples=2), "n_samples: expected an integer >= 3, got 2"),
        (lambda: quick_optimize(_failing, BOUNDS, 4), "function: expected values, got none of 3: .*too late"),
        (lambda: tune_surrogate_hyperparameters(bowl, BOUNDS, {}, 8), "param_grid: expected names with lists"),
        (
            lambda: tune_surrogate_hyperparameters(bowl, BOUNDS, {"kernel": ["no"]}, 12),
            "param_grid: all 1 candidates failed, the first with: kernel: expected one of",
        ),
        (
            lambda: tune_surrogate_hyperparameters(bowl, BOUNDS, {"n_starts": [1]}, 12, metric="mse"),
            "metric: expected one of r2, rmse, .*, got 'mse'",
        ),
    ],
)
def test_what_cannot_be_done_is_told(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_surrogate_of_ones_own_keeps_to_the_space() -> None:
    space = SearchSpace({"a": Float(0, 1), "kind": Categorical(["p", "q"])}, ["a >= 0.25"])
    calls = []

    def function(a: float, kind: str) -> float:
        calls.append((a, kind))
        return a + (kind == "p")

    found = quick_optimize(function, space, 24, surrogate_type="test_facade:Nearest", optimizer_params={"n_starts": 3})
    assert all(a >= 0.25 for a, _ in calls)
    assert found.metadata["params"].keys() == {"a", "kind"}
    assert found.metadata["params"]["kind"] == "q"


def test_a_workflow_that_cannot_be_made_calls_nothing() -> None:
    calls: list[Any] = []
    with pytest.raises(ValueError, match="optimizer_type"):
        quick_optimize(calls.append, BOUNDS, 8, optimizer_type="lbgfs")
    assert not calls


def test_a_surrogate_whose_fit_is_another_object_is_fitted_again() -> None:
    class Maker:
        def fit(self, dataset: Dataset) -> Nearest:
            made = Nearest()
            made.fit(dataset)
            return made

    workflow = SurrogateOptimizer()
    workflow.surrogate = Maker()
    for n in (16, 32):
        workflow.fit_surrogate(collect_data(bowl, n, BOUNDS))
        assert len(workflow.surrogate.y) == n
