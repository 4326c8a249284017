"""Optimizers and acquisition: descents arrive, also at the boundary, and candidates are sorted and within the cube."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import DESCENT, ROUNDING

from surrogate_core import Dataset, Float, GPSurrogate, GradientDescentOptimizer, MultiStartOptimizer, SearchSpace
from surrogate_core.acquisition import exploration_weights, lower_confidence_bound
from surrogate_core.optimizers.multi_start import distinct
from surrogate_core.sampling import sample
from surrogate_core.surrogates.base import FittedSurrogate
from surrogate_core.surrogates.output import Transform

SPACE = SearchSpace({"rate": Float(1e-3, 1, log=True), "x": Float(-20, 60)})
KAPPAS = np.array([0.0, 0.5, 2.0])
SMALL = MultiStartOptimizer(n_starts=3, n_screened=32)


def quadratic(u: jax.Array, center: jax.Array) -> jax.Array:
    return jnp.sum(jnp.array([1.0, 4.0]) * (u - center) ** 2)


@cache
def descend(optimizer: GradientDescentOptimizer) -> Any:
    return jax.jit(lambda starts, center: optimizer.descend(quadratic, starts, center))


def descent(starts: Any, center: Any, **changes: Any) -> Any:
    with jax.enable_x64(True):
        found = descend(GradientDescentOptimizer(**changes))(jnp.asarray(starts), jnp.asarray(center))
        return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize(
    "center",
    [(0.3, 0.7), (0.0, 1.0), (1.4, 0.2), (-0.5, 0.5), (2.0, -3.0), (0.999, 0.001)],
    ids=["inside", "in a corner", "right of the cube", "left of the cube", "far beyond a corner", "close to a corner"],
)
def test_a_descent_reaches_the_minimum_within_the_cube(center: tuple[float, float]) -> None:
    found = descent(sample("sobol", 8, 2, seed=0), center)
    assert np.abs(found.U - np.clip(center, 0, 1)).max() < DESCENT


@settings(max_examples=30)
@given(
    starts=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=8, max_size=8),
    center=st.tuples(st.floats(-1, 2), st.floats(-1, 2)),
)
def test_what_is_told_is_the_best_point_of_each_path(starts: Any, center: Any) -> None:
    found = descent(starts, center)
    assert found.U.shape == (8, 2)
    assert found.values.shape == (8,)
    assert found.history.shape == (8, GradientDescentOptimizer().max_iterations)
    assert ((found.U >= 0) & (found.U <= 1)).all()
    at_start = ((np.array(starts) - center) ** 2 * [1, 4]).sum(axis=1)
    assert found.history[:, 0] == pytest.approx(at_start, rel=ROUNDING)
    assert (np.diff(found.history, axis=1) <= 0).all()
    assert (found.values <= found.history[:, -1]).all()
    assert found.values == pytest.approx(((found.U - center) ** 2 * [1, 4]).sum(axis=1), rel=ROUNDING)


def test_a_start_at_the_minimum_stays_there() -> None:
    found = descent([[0.25, 0.5]] * 8, (0.25, 0.5))
    assert found.U.tolist() == [[0.25, 0.5]] * 8
    assert found.values.tolist() == [0.0] * 8


def test_one_iteration_is_a_step_of_the_learning_rate() -> None:
    found = descent([[0.5, 0.5]], (1.0, 0.0), learning_rate=0.1, max_iterations=1)
    assert np.abs(found.U - np.array([[0.6, 0.4]])).max() < DESCENT
    assert found.history.shape == (1, 1)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (GradientDescentOptimizer, {"learning_rate": 0.0}, r"learning_rate: expected a number in \(0, 1\], got 0.0"),
        (GradientDescentOptimizer, {"learning_rate": 1.5}, "learning_rate: .*got 1.5"),
        (GradientDescentOptimizer, {"learning_rate": float("nan")}, "learning_rate: .*got nan"),
        (GradientDescentOptimizer, {"max_iterations": 0}, "max_iterations: expected an integer >= 1, got 0"),
        (MultiStartOptimizer, {"n_starts": 0}, "n_starts: expected an integer >= 1, got 0"),
        (MultiStartOptimizer, {"n_starts": 8, "n_screened": 4}, "n_screened: .*n_starts = 8, got 4"),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_told(make: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)


@cache
def fit(transform: Transform) -> FittedSurrogate:
    U = sample("sobol", 12, 2, seed=1)
    y = np.exp(3 * (U[:, 0] - 0.6) ** 2 + np.sin(4 * U[:, 1]))
    return GPSurrogate(n_starts=2, transform=transform).fit(Dataset(SPACE.decode(U), y, SPACE))


@cache
def bounds_of(transform: Transform) -> Any:
    spec = fit(transform).spec
    return jax.jit(jax.vmap(lambda state, u, kappa: lower_confidence_bound(spec, state, u, kappa), (None, 0, None)))


def lower_bounds(transform: Transform, U: np.ndarray, kappa: float) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(bounds_of(transform)(fit(transform).state, jnp.asarray(U), kappa))


transforms = pytest.mark.parametrize("transform", ["standardize", "log"])


@transforms
def test_without_exploration_the_bound_has_the_order_of_the_prediction(transform: Transform) -> None:
    U = sample("sobol", 64, 2, seed=3)
    predicted = fit(transform).predict(SPACE.decode(U))
    by_bound = predicted[np.argsort(lower_bounds(transform, U, 0.0))]
    assert (np.diff(by_bound) >= -ROUNDING * np.abs(by_bound[1:])).all()
    assert by_bound[0] == predicted.min()


@transforms
def test_exploration_lowers_the_bound_by_the_uncertainty(transform: Transform) -> None:
    U = sample("sobol", 64, 2, seed=3)
    none, some, more = (lower_bounds(transform, U, kappa) for kappa in (0.0, 1.0, 3.0))
    assert (some < none).all()
    assert none - more == pytest.approx(3 * (none - some))
    if transform == "standardize":
        spread = fit(transform).uncertainty(SPACE.decode(U))
        assert np.corrcoef(none - some, spread)[0, 1] == pytest.approx(1)


@given(st.integers(1, 200))
def test_exploration_begins_at_nothing_and_grows(n: int) -> None:
    weights = exploration_weights(n)
    assert weights.shape == (n,)
    assert weights[0] == 0
    assert (np.diff(weights) > 0).all()
    assert np.isfinite(weights).all()
    # The quantiles of an exponential distribution: as much probability lies between any two neighbours.
    assert np.diff(1 - np.exp(-weights)) == pytest.approx(np.full(n - 1, 1 / n))


@transforms
def test_candidates_are_within_the_cube_and_sorted_the_ends_first(transform: Transform) -> None:
    rows = sample("random", 4, 2, seed=9)
    found = SMALL.candidates(fit(transform), KAPPAS, rows, seed=7)
    screened = np.concatenate([sample("sobol", 32, 2, seed=7), rows])
    assert len(found) == len(KAPPAS)
    for kappa, points in zip(KAPPAS, found, strict=True):
        assert points.shape == (3 + 32 + 4, 2)
        assert points.dtype == np.float64
        assert ((points >= 0) & (points <= 1)).all()
        values = lower_bounds(transform, points, kappa)
        ends, others = values[:3], values[3:]
        assert (np.diff(ends) >= -ROUNDING).all()
        assert (np.diff(others) >= -ROUNDING).all()
        assert ends[0] <= others[0]
        assert sorted(points[3:].tolist()) == sorted(screened.tolist())


def test_the_first_candidate_is_the_minimizer_of_the_prediction() -> None:
    fitted = fit("log")
    best = SMALL.candidates(fitted, np.zeros(1), np.empty((0, 2)), seed=7)[0][0]
    fine = SPACE.decode(sample("grid", 64 * 64, 2, seed=0))
    assert (
        fitted.predict(SPACE.decode(best)) <= min(fitted.predict(part).min() for part in np.split(fine, 64)) + DESCENT
    )


def test_candidates_are_fixed_by_the_seed() -> None:
    one, again, other = (SMALL.candidates(fit("log"), KAPPAS, np.empty((0, 2)), seed=seed) for seed in (7, 7, 8))
    assert [points.tobytes() for points in one] == [points.tobytes() for points in again]
    assert one[0].tobytes() != other[0].tobytes()


def test_looking_for_candidates_switches_nothing_on() -> None:
    SMALL.candidates(fit("log"), KAPPAS, np.empty((0, 2)), seed=7)
    assert not jax.config.jax_enable_x64
    assert jnp.zeros(1).dtype == jnp.float32


@pytest.mark.parametrize(
    ("points", "others", "expected"),
    [
        ([[0.0, 0.0], [1.0, 1.0]], [], [True, True]),
        ([[0.0, 0.0], [1.0, 1.0]], [[0.0, 0.05]], [False, True]),
        ([[0.0, 0.0], [1.0, 1.0]], [[0.3, 0.4]], [True, True]),
        ([[0.0, 0.0], [0.5, 0.5]], [[0.0, 0.05], [0.5, 0.5]], [False, False]),
        ([[0.0, 0.0]], [[0.0, 0.125]], [True]),
        ([], [[0.0, 0.0]], []),
    ],
)
def test_points_are_told_apart_by_their_distance(points: Any, others: Any, expected: list[bool]) -> None:
    found = distinct(np.reshape(points, (-1, 2)), np.reshape(others, (-1, 2)), 0.1)
    assert found.dtype == bool
    assert found.tolist() == expected
