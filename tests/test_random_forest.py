"""The soft forest: what it has in common with scikit-learn's, and what it has beyond."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor

from surrogate_core import Categorical, Dataset, Float, Integer, RandomForestSurrogate, SearchSpace
from surrogate_core.problems.library import PROBLEMS
from surrogate_core.sampling import sample
from surrogate_core.surrogates import random_forest
from surrogate_core.surrogates.random_forest import flatten, routed

COLD = 1e-6  # a temperature at which nothing but a point within some 1e-5 of a threshold is routed softly
SPACE = SearchSpace({"x": Float(0, 1), "n": Integer(1, 2), "kind": Categorical(["a", "b", "c"])})


def mixed(n: int, seed: int) -> Dataset:
    X = SPACE.decode(sample("sobol", n, 3, seed))
    return Dataset(X, np.sin(5 * X[:, 0]) + 0.1 * X[:, 1] + (X[:, 2] == 1), SPACE)


def away(trees: list[Any], F: np.ndarray) -> np.ndarray:
    """Which points are at no threshold, as far as a cold forest and 32 bits, which scikit-learn reads, can tell."""
    near = np.zeros(len(F), dtype=bool)
    for tree in trees:
        split = tree.tree_.feature >= 0
        f, t = tree.tree_.feature[split], tree.tree_.threshold[split]
        near |= (np.abs(F[:, f] - t) < 40 * COLD).any(axis=1)
    return ~near


@pytest.mark.parametrize("options", [{}, {"max_depth": 3}, {"min_samples_leaf": 4}, {"max_features": 0.4}])
def test_flattened_trees_are_scikit_learns_as_the_temperature_goes_to_0(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    F, at = rng.random((80, 4)), rng.random((500, 4))
    grown = RandomForestRegressor(20, **{"max_depth": 10, **options}, random_state=0)
    grown.fit(F, np.sin(5 * F[:, 0]) + F[:, 1] * F[:, 2])
    apart = away(grown.estimators_, at)
    assert apart.mean() > 0.9
    forest = flatten(grown.estimators_, options.get("max_depth", 10))
    mean, square = routed(np, forest, at[apart], COLD)
    assert mean.mean(axis=1) == pytest.approx(grown.predict(at[apart]), abs=1e-9)
    leaves = np.stack([tree.tree_.impurity[tree.apply(at[apart])] for tree in grown.estimators_], axis=1)
    assert square - mean**2 == pytest.approx(leaves, abs=1e-9)


def test_the_surrogate_predicts_what_scikit_learn_does_as_the_temperature_goes_to_0(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grown: list[Any] = []

    def noted(trees: list[Any], depth: int) -> Any:
        grown.extend(trees)
        return flatten(trees, depth)

    monkeypatch.setattr(random_forest, "flatten", noted)
    fitted = RandomForestSurrogate(temperature=COLD, n_estimators=30).fit(mixed(60, seed=1))
    X = mixed(256, seed=2).X
    U = SPACE.encode(X)
    F = np.column_stack([U[:, :2], *(np.sqrt(0.5) * (X[:, 2] == choice) for choice in range(3))])
    apart = away(grown, F)
    assert apart.mean() > 0.9
    theirs = np.mean([tree.predict(F[apart]) for tree in grown], axis=0)
    output = fitted.state.output
    assert fitted.predict(X[apart]) == pytest.approx(output.shift + output.scale * theirs, abs=1e-9)


@pytest.mark.parametrize("name", ["branin", "hartmann6", "borehole"])
def test_the_gradient_is_finite_and_nowhere_0(name: str) -> None:
    problem = PROBLEMS[name]()
    space = problem.space
    X, at = (space.decode(sample("sobol", n, space.n_dims, seed)) for n, seed in ((64, 1), (128, 2)))
    fitted = RandomForestSurrogate().fit(Dataset(X, [problem(space.params(x)) for x in X], space))
    gradient = fitted.gradient(at)
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient).max(axis=1) > 0).all()
    cold = RandomForestSurrogate(temperature=COLD).fit(Dataset(X, [problem(space.params(x)) for x in X], space))
    assert (np.abs(cold.gradient(at)).max(axis=1) == 0).mean() > 0.5  # a hard forest has none


def test_the_intervals_hold_what_was_not_seen() -> None:
    covered = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        X, at = rng.random((2, 100, 3))
        f = [np.sin(6 * x[:, 0]) + x[:, 1] ** 2 + 0.1 * rng.standard_normal(100) for x in (X, at)]
        fitted = RandomForestSurrogate(n_estimators=50).fit(Dataset(X, f[0]), jax.random.key(seed))
        low, high = fitted.interval(at)
        covered.append(np.mean((low <= f[1]) & (f[1] <= high)))
        s = fitted.uncertainty(at)
        assert s.max() > 1.5 * s.min()  # no constant
    assert 0.88 <= np.mean(covered) <= 0.99


def test_all_variables_are_1_of_their_share() -> None:
    data = Dataset(X := sample("sobol", 32, 3, seed=0), X.sum(axis=1))
    one, whole = (RandomForestSurrogate(max_features=share).fit(data).predict(X) for share in (1.0, 1))
    assert one.tolist() == whole.tolist()


def test_noise_that_is_given_is_heeded() -> None:
    rng = np.random.default_rng(0)
    X = np.repeat(rng.random((40, 1)), 2, axis=0)
    wrong = np.tile([0.0, 1.0], 40)
    y = X[:, 0] + 5 * wrong
    noise = np.where(wrong, 5.0, 0.01)
    heeded, unheeded = (
        RandomForestSurrogate().fit(Dataset(X, y, noise=given)).predict(X[::2]) - X[::2, 0] for given in (noise, None)
    )
    assert np.abs(heeded).mean() < 0.3 < np.abs(unheeded).mean()


def test_derivatives_are_left_out_and_it_is_told() -> None:
    X = np.random.default_rng(0).random((12, 2))
    fitted = RandomForestSurrogate().fit(Dataset(X, X.sum(axis=1), gradients=np.ones((12, 2))))
    assert fitted.diagnostics["fallbacks"] == ["derivatives left out: a forest learns none"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_estimators": 0}, "n_estimators: expected an integer from 1 to 10000, got 0"),
        ({"max_depth": None}, "max_depth: expected an integer from 1 to 12, got None"),
        ({"max_depth": 13}, "max_depth: expected an integer from 1 to 12, got 13"),
        ({"min_samples_leaf": 1.5}, "min_samples_leaf: expected an integer >= 1, got 1.5"),
        ({"max_features": 0.0}, "max_features: expected a number from 0.01 to 1, got 0.0"),
        ({"temperature": 0.0}, "temperature: expected a number from 1e-06 to 1, got 0.0"),
        ({"temperature": True}, "temperature: expected a number from 1e-06 to 1, got True"),
        ({"transform": "auto"}, "transform: expected one of standardize, log, yeo_johnson, got 'auto'"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        RandomForestSurrogate(**options)
