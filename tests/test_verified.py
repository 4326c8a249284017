"""The trust region that the true function decides: steps, their reasons, its budget, and what it comes to."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from surrogate_core import Categorical, Dataset, GPSurrogate, Integer, SearchSpace, TrustRegionOptimizer
from surrogate_core.optimizers.result import OptimizationResult
from surrogate_core.optimizers.status import Status
from surrogate_core.sampling import sample

SPACE = SearchSpace.from_bounds([(-2, 2)] * 3)


def bowl(x: np.ndarray) -> float:
    return float(((x - 0.7) ** 2).sum() + 0.3 * np.sin(2 * x).sum())


class Counted:
    def __init__(self, function: Any = bowl):
        self.function, self.points = function, list[np.ndarray]()

    def __call__(self, x: np.ndarray) -> float:
        self.points.append(x)
        return float(self.function(x))


def run(function: Any = bowl, seed: int = 0, n: int = 24, **how: Any) -> tuple[Counted, Dataset, OptimizationResult]:
    X = SPACE.decode(sample("sobol", n, 3, seed))
    dataset = Dataset(X, np.array([bowl(x) for x in X]), SPACE)
    counted = Counted(function)
    optimizer = TrustRegionOptimizer(**{"max_evaluations": 12, **how})
    fitted = GPSurrogate(n_starts=2).fit(dataset)
    return counted, dataset, optimizer.optimize(fitted, true_function=counted, dataset=dataset)


def test_it_beats_the_best_row_within_its_budget_and_comes_close_for_most_seeds() -> None:
    least = 3 * min(bowl(np.full(3, x)) / 3 for x in np.linspace(-2, 2, 4001))
    close = 0
    for seed in range(5):
        counted, dataset, found = run(seed=seed, max_evaluations=16)
        assert len(counted.points) == found.nfev <= 16
        assert found.fun < dataset.y.min()
        assert found.fun == bowl(found.x)
        close += found.fun < least + 0.01
    assert close >= 4


def test_the_trajectory_says_which_steps_stood_and_why() -> None:
    kinds = set()
    for seed in range(4):
        counted, _, found = run(seed=seed, max_evaluations=20)
        path = found.trajectory
        assert path.measured is not None
        assert len(path.why) == len(path.fun) == len(path.measured) == found.nit + 1
        assert path.why[0] == "the start"
        called = ~np.isnan(path.measured)
        assert called.sum() == len(counted.points)
        assert np.array(path.x)[called].tolist() == [x.tolist() for x in counted.points]
        value = path.measured[0]
        for i in range(1, len(path.why)):
            ratio = re.match(r"(-?[\d.]+) of the promised reduction", path.why[i])
            if ratio:
                assert path.accepted[i] == (float(ratio[1]) > 0.15) or abs(float(ratio[1]) - 0.15) < 0.01
                kinds.add(bool(path.accepted[i]))
                if path.accepted[i]:
                    assert path.measured[i] < value
                    value = path.measured[i]
                assert np.abs(SPACE.encode(path.x[i]) - SPACE.encode(path.x[i - 1])).max() <= 1
            else:
                assert path.why[i] == "nothing better is promised"
                assert not path.accepted[i]
    assert kinds == {True, False}


def test_steps_between_measurements_are_taken_on_the_surrogates_word() -> None:
    counted, _, found = run(validate_every=3)
    words = [why == "on the surrogate's word" for why in found.trajectory.why]
    assert sum(words) >= 2
    assert found.trajectory.measured is not None
    assert np.isnan(found.trajectory.measured[words]).all()
    assert len(counted.points) == found.nfev
    assert found.fun <= counted.function(counted.points[0])


def test_what_was_taken_on_the_surrogates_word_is_measured_in_the_end() -> None:
    counted, _, found = run(validate_every=3, max_iterations=2, max_evaluations=9)
    assert found.trajectory.why[-1] == "the end"
    assert len(counted.points) == 2
    assert found.fun == bowl(found.x) == min(bowl(x) for x in counted.points)


def test_a_surrogate_of_ones_own_is_no_model_of_a_true_function() -> None:
    with pytest.raises(ValueError, match="surrogate: expected one that this library fitted"):
        TrustRegionOptimizer().optimize(object(), true_function=bowl)  # type: ignore[arg-type]


def test_the_surrogate_learns_only_where_it_is_asked_to() -> None:
    _, dataset, found = run()
    assert found.metadata["dataset"].n_samples == dataset.n_samples + found.nfev
    X = np.array(found.metadata["dataset"].X[-found.nfev :])
    assert found.metadata["surrogate"].predict(X) == pytest.approx([bowl(x) for x in X], abs=1e-2)
    _, _, without = run(refit=False)
    assert without.metadata["dataset"].n_samples == 24


def test_a_surrogate_that_is_wrong_is_not_followed() -> None:
    counted, _, found = run(lambda x: -bowl(x), refit=False)
    assert found.fun == counted.function(counted.points[0]) == -bowl(counted.points[0])
    assert not found.trajectory.accepted[1:].any()
    assert found.status in (Status.RADIUS_TOO_SMALL, Status.MAX_EVALUATIONS)


def test_a_true_function_that_fails_on_the_way_costs_a_step() -> None:
    def broken(x: np.ndarray) -> float:
        if len(counted_calls) == 2:
            counted_calls.append(x)
            raise ArithmeticError("it diverged")
        counted_calls.append(x)
        return bowl(x)

    counted_calls: list[np.ndarray] = []
    _, dataset, found = run(broken)
    assert "ArithmeticError: it diverged" in found.trajectory.why
    assert found.fun < dataset.y.min()


def test_a_true_function_that_fails_at_the_start_ends_it() -> None:
    _, _, found = run(lambda x: np.nan)
    assert not found.success
    assert found.status == Status.NOT_FINITE
    assert found.trajectory.why == ("the true function gave nan",)


def test_ctrl_c_keeps_what_was_measured() -> None:
    calls: list[float] = []

    def interrupted(x: np.ndarray) -> float:
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(bowl(x))
        return calls[-1]

    _, _, found = run(interrupted)
    assert found.status == Status.INTERRUPTED
    assert found.fun == min(calls)
    assert not found.success


def test_the_same_seed_gives_the_same_bits() -> None:
    (one, _, first), (other, _, again) = run(seed=2), run(seed=2)
    assert first.x.tobytes() == again.x.tobytes()
    assert [x.tobytes() for x in one.points] == [x.tobytes() for x in other.points]


def test_learning_without_a_dataset_is_told() -> None:
    X = SPACE.decode(sample("sobol", 12, 3, 0))
    fitted = GPSurrogate(n_starts=1).fit(Dataset(X, X.sum(axis=1), SPACE))
    with pytest.raises(ValueError, match="dataset: expected what the surrogate was fitted to, as refit is true"):
        TrustRegionOptimizer().optimize(fitted, true_function=bowl)


@pytest.mark.parametrize("name", ["validate_every", "max_evaluations"])
def test_a_value_out_of_range_is_told(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected an integer >= 1, got 0"):
        TrustRegionOptimizer(**{name: 0})


def test_steps_and_choices_are_within_reach_however_small_the_region() -> None:
    space = SearchSpace({"k": Categorical(["p", "q"]), "n": Integer(0, 4)})
    X = np.array([[k, n] for k in (0, 1) for n in range(5)], dtype=float)

    def function(x: np.ndarray) -> float:
        return float((x[1] - 2) ** 2 + 3 * (x[0] == 0))

    dataset = Dataset(X, np.array([function(x) for x in X]), space)
    fitted = GPSurrogate(n_starts=2).fit(dataset)
    found = TrustRegionOptimizer(refit=False).optimize(fitted, [0, 4], true_function=function)
    assert found.x.tolist() == [1, 2]
