"""Agreement of gradients, and true gradients from differences of a function that may be noisy, stepped or fail."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from validation_surrogates import exact

from surrogate_core import Categorical, Dataset, Float, GPSurrogate, Integer, SearchSpace
from surrogate_core.sampling import sample
from surrogate_core.validation.cross_validation import cross_validate
from surrogate_core.validation.finite_differences import finite_differences, stencil
from surrogate_core.validation.gates import METRICS
from surrogate_core.validation.gradient_agreement import agreement_at, gradient_agreement, held_out_agreement
from surrogate_core.validation.gradient_check import STEPS, noise_at, points_to_check, points_within, step_lengths

ONE = np.ones((1, 2))
vectors = arrays(float, (3, 4), elements=st.floats(-10, 10).map(lambda x: round(x, 3)))


@pytest.mark.parametrize(
    ("predicted", "true", "cosine", "signs", "error"),
    [
        ([3.0, 4.0], [3.0, 4.0], 1.0, 1.0, 0.0),
        ([6.0, 8.0], [3.0, 4.0], 1.0, 1.0, 1.0),
        ([-3.0, -4.0], [3.0, 4.0], -1.0, 0.0, 2.0),
        ([4.0, -3.0], [3.0, 4.0], 0.0, 0.5, np.sqrt(2)),
        ([0.0, 0.0], [3.0, 4.0], 0.0, 0.0, 1.0),
        ([1.0, -1e-3], [1.0, 1e-2], 1.0, 1.0, 0.011),  # the second component is too small to matter
        ([3.0, 7.0], [3.0, np.nan], 1.0, 1.0, 0.0),
    ],
)
def test_agreement_by_hand(
    predicted: list[float], true: list[float], cosine: float, signs: float, error: float
) -> None:
    found = gradient_agreement(np.array([predicted]), np.array([true]), ONE)
    assert found.cosine == pytest.approx([cosine], abs=1e-3)
    assert found.signs.tolist() == [signs]
    assert found.relative_error == pytest.approx([error], abs=1e-4)
    assert found.metrics == {
        "gradient_cosine": found.cosine[0],
        "gradient_sign_agreement": signs,
        "gradient_relative_error": pytest.approx(found.relative_error[0]),
        "gradient_truth_error": 0.0,
    }
    assert set(found.metrics) <= set(METRICS)


@given(vectors, vectors, arrays(float, 4, elements=st.sampled_from([0.001, 0.5, 1.0, 30.0])))
def test_units_decide_nothing(predicted: np.ndarray, true: np.ndarray, unit: np.ndarray) -> None:
    plain = gradient_agreement(predicted, true, np.ones((3, 4)))
    scaled = gradient_agreement(predicted * unit, true * unit, np.tile(unit, (3, 1)))
    for name in ("cosine", "relative_error", "pooled_error"):
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name), rel=1e-9, abs=1e-9, nan_ok=True)
    assert (np.abs(plain.cosine[np.isfinite(plain.cosine)]) <= 1 + 1e-12).all()


def test_a_flat_point_tells_nothing_and_where_nothing_is_known_nothing_is_measured() -> None:
    found = gradient_agreement(np.ones((2, 2)), np.array([[0.0, 0.0], [1.0, 1.0]]), np.ones((2, 2)))
    assert np.isnan(found.cosine).tolist() == [True, False]
    assert found.n_compared == 1
    assert found.metrics["gradient_cosine"] == pytest.approx(1.0)
    for true, slope in ((np.full((1, 2), np.nan), ONE), (ONE, 0 * ONE)):  # a failed call; categorical variables
        assert gradient_agreement(ONE, true, slope).metrics == {}
    with pytest.raises(ValueError, match=r"of one shape \(n, d\), got \(1, 2\), \(1, 3\), \(1, 2\), \(1, 3\)"):
        gradient_agreement(ONE, np.ones((1, 3)), ONE)


def test_its_table_has_every_known_component_in_the_unit_cube() -> None:
    true, predicted = np.array([[3.0, np.nan], [1.0, 2.0]]), np.array([[4.0, 5.0], [0.0, 2.0]])
    found = gradient_agreement(predicted, true, np.array([[0.5, 1.0], [0.5, 0.0]]))
    table = [(row["point"], row["name"], row["true"], row["predicted"]) for row in found.table(["x", "y"], sign=-1)]
    assert table == [(0, "x", -6.0, -8.0), (1, "x", -2.0, 0.0)]
    assert {type(value) for row in found.table(["x", "y"]) for value in row.values()} == {int, str, float}


def test_a_sign_that_noise_may_have_turned_does_not_count() -> None:
    predicted, true, error = np.array([[1.0, -1.0]]), np.array([[1.0, 1.0]]), np.array([[0.1, 0.6]])
    found = gradient_agreement(predicted, true, ONE, error)
    assert found.signs.tolist() == [1.0]
    assert found.truth_error == pytest.approx(np.sqrt((0.01 + 0.36) / 2))
    unsure = gradient_agreement(predicted, true, ONE, np.ones((1, 2)))
    assert "gradient_sign_agreement" not in unsure.metrics
    assert "gradient_cosine" in unsure.metrics


def test_measured_gradients_are_compared_with_fits_that_have_not_seen_them() -> None:
    U = sample("sobol", 14, 2, seed=2)
    space = SearchSpace.from_bounds([(0, 1)] * 2)
    slopes = np.column_stack([3 * np.cos(3 * U[:, 0]), 2 * U[:, 1]])
    y = np.sin(3 * U[:, 0]) + U[:, 1] ** 2
    spec = GPSurrogate(n_starts=1)
    right = held_out_agreement(cross_validate(spec, Dataset(U, y, space, gradients=slopes), 3, 0))
    wrong = held_out_agreement(cross_validate(spec, Dataset(U, y, space, gradients=slopes[::-1]), 3, 0))
    assert right is not None
    assert wrong is not None
    assert right.metrics["gradient_cosine"] > 0.9
    assert right.metrics["gradient_relative_error"] < 0.4 < wrong.metrics["gradient_relative_error"]
    assert held_out_agreement(cross_validate(spec, Dataset(U, y, space), 3, 0)) is None


# Finite differences

MIXED = SearchSpace(
    {
        "x": Float(-2, 3),
        "rate": Float(1e-3, 10, log=True),
        "step": Float(0, 1.05, step=0.1),
        "n": Integer(2, 11, step=3),
        "m": Integer(1, 64, log=True),
        "kind": Categorical(["a", "b", "c"]),
    }
)
U = np.array([[0.3, 0.6, 0.5, 0.4, 0.5, 0.5], [0.0, 1.0, 0.0, 1.0, 0.0, 0.0], [1.0, 0.01, 1.0, 0.0, 1.0, 1.0]])


@pytest.mark.parametrize("h", [1e-3, 0.05, 0.5])
def test_differences_of_what_is_linear_on_the_scale_of_each_variable_are_exact_anywhere(h: float) -> None:
    X = MIXED.decode(U)
    weights = np.array([3.0, -2.0, 5.0, 0.5, 7.0, 100.0])

    def function(X: np.ndarray) -> np.ndarray:
        assert MIXED.decode(MIXED.encode(X)) == pytest.approx(X)
        return MIXED.encode(X) @ weights

    found = finite_differences(function, MIXED, X, h)
    numbers = found[:, :5]
    assert numbers == pytest.approx((weights * MIXED.slope(X))[:, :5], rel=1e-6)
    assert np.isnan(found[:, 5]).all()


def test_a_stencil_is_no_larger_than_its_budget_and_stays_in_the_space() -> None:
    around = stencil(MIXED, MIXED.decode(U), 0.05)
    assert len(around.points) <= len(U) * 2 * 5
    assert points_within(len(around.points), MIXED) <= len(U) <= points_within(len(U) * 10, MIXED)
    assert len(np.unique(around.points, axis=0)) == len(around.points)
    low, high = MIXED.bounds.T
    assert ((around.points >= low) & (around.points <= high)).all()


@pytest.mark.parametrize(("budget", "n"), [(-1, 0), (0, 0), (9, 0), (10, 1), (39, 3)])
def test_a_budget_pays_for_two_calls_a_number(budget: int, n: int) -> None:
    assert points_within(budget, MIXED) == n
    assert points_within(budget, SearchSpace({"kind": Categorical(["a", "b"])})) == 0


def test_central_differences_are_exact_on_a_parabola_and_one_sided_ones_at_a_bound_are_not() -> None:
    space = SearchSpace.from_bounds([(0, 2)])
    found = finite_differences(lambda X: X[:, 0] ** 2, space, np.array([[0.5], [0.0]]), 0.05)
    assert found[:, 0] == pytest.approx([1.0, 0.1])


def test_calls_that_failed_make_unknown_components_and_constraints_are_kept() -> None:
    space = SearchSpace({"x": Float(0, 1), "y": Float(0, 1)}, ["x + y <= 1"])
    X = np.array([[0.25, 0.25], [0.5, 0.5]])
    around = stencil(space, X, 0.1)
    assert space.is_feasible(around.points).all()
    values = np.where(around.points[:, 0] > 0.3, np.nan, around.points.sum(axis=1))
    values[(around.points == X[1]).all(axis=1)] = 1.0
    values[(around.points[:, 0] == 0.4) | (around.points[:, 1] == 0.4)] = 0.9
    gradient, error = around.combine(values, 0.01)
    assert gradient[0] == pytest.approx([np.nan, 1.0], nan_ok=True)
    assert gradient[1] == pytest.approx([1.0, 1.0])
    assert (np.isnan(error) == np.isnan(gradient)).all()
    with pytest.raises(ValueError, match=r"values: expected shape \(7,\), got \(3,\)"):
        around.combine(np.zeros(3))


def test_a_space_without_numbers_has_nothing_to_difference() -> None:
    space = SearchSpace({"kind": Categorical(["a", "b"])})
    around = stencil(space, np.array([[1.0]]), 0.1)
    assert around.points.shape == (0, 1)
    assert np.isnan(around.combine(np.zeros(0))[0]).all()


def test_the_standard_error_is_that_of_repeated_noisy_measurements() -> None:
    space = SearchSpace({"x": Float(0, 10), "n": Integer(1, 5)})
    around = stencil(space, np.array([[4.0, 3.0], [0.0, 1.0]]), 0.02)
    rng = np.random.default_rng(0)
    noise = 0.3 * rng.standard_normal((4000, len(around.points)))
    found = np.std([around.combine(values)[0] for values in noise], axis=0)
    assert around.combine(noise[0], 0.3)[1] == pytest.approx(found, rel=0.1)


def test_steps_are_long_where_values_are_noisy_and_short_where_the_function_bends() -> None:
    space = SearchSpace({"x": Float(-3, 7), "rate": Float(1e-4, 1, log=True), "kind": Categorical(["a", "b"])})
    X = space.decode(sample("sobol", 16, 3, seed=0))

    def wave(u: jnp.ndarray) -> jnp.ndarray:
        return jnp.sin(5 * u[0]) + u[1] + u[2]

    quiet, noisy, loud = (step_lengths(exact(wave, space, e=e), X) for e in (1e-10, 1e-4, 1e4))
    bend = 125 * np.sqrt(np.mean(np.cos(5 * space.encode(X)[:, 0]) ** 2))
    assert noisy[0] == pytest.approx(np.cbrt(3 / np.sqrt(2) * 1e-2 / bend), rel=0.05)
    errors = [bend * h**2 / 6 + 1e-2 / (np.sqrt(2) * h) for h in noisy[0] * np.array([0.8, 1.0, 1.2])]
    assert errors[1] < min(errors[0], errors[2])
    assert STEPS[0] < quiet[0] < noisy[0] < loud[0] == STEPS[1]
    assert noisy[1] == STEPS[1]  # straight lines may be measured from afar
    assert step_lengths(exact(wave, space), X)[0] == STEPS[0]


def test_learned_noise_is_told_in_the_units_of_the_problem() -> None:
    rng = np.random.default_rng(0)
    X = sample("sobol", 64, 1, seed=0)
    dataset = Dataset(X, 100 * X[:, 0] + 5 * rng.standard_normal(64), SearchSpace.from_bounds([(0, 1)]))
    assert noise_at(GPSurrogate(n_starts=1).fit(dataset), X[:3]) == pytest.approx(np.full(3, 5.0), rel=0.4)


def test_points_to_check_are_new_feasible_where_the_data_is_and_half_of_them_among_the_better() -> None:
    space = SearchSpace({"x": Float(0, 1), "y": Float(0, 1), "kind": Categorical(["a", "b"])}, ["x + y <= 1"])
    X = space.decode(sample("sobol", 60, 3, seed=0))
    X = X[space.is_feasible(X) & (X[:, 0] < 0.5)]
    dataset = Dataset(X, (X[:, 0] - 0.2) ** 2 + (X[:, 1] - 0.3) ** 2 + 0.1 * X[:, 2], space)
    fitted = GPSurrogate(n_starts=1).fit(dataset)
    points = points_to_check(fitted, dataset, 20, seed=0)
    assert points.shape == (20, 3)
    assert space.is_feasible(points).all()
    assert (fitted.extrapolation(points) <= 1).all()
    assert not {tuple(x) for x in points} & {tuple(x) for x in X}
    spread, better = fitted.predict(points[::2]), fitted.predict(points[1::2])
    assert np.median(better) < np.median(spread)
    assert points.tobytes() == points_to_check(fitted, dataset, 20, seed=0).tobytes()
    assert points.tobytes() != points_to_check(fitted, dataset, 20, seed=1).tobytes()
    assert len(points_to_check(fitted, dataset, 0, seed=0)) == 0


def test_a_space_of_few_points_is_checked_at_each_of_them_once() -> None:
    space = SearchSpace({"n": Integer(1, 3), "kind": Categorical(["a", "b"])})
    X = np.array(list(itertools.product([1.0, 2.0, 3.0], [0.0, 1.0])))
    dataset = Dataset(X[:5], X[:5, 0], space)
    points = points_to_check(GPSurrogate(n_starts=1).fit(dataset), dataset, 50, seed=0)
    assert sorted(map(tuple, points)) == sorted(map(tuple, X))


def test_a_surrogate_that_is_the_function_agrees_with_its_differences_and_its_mirror_image_does_not() -> None:
    space = SearchSpace({"x": Float(0, 10), "rate": Float(1e-4, 1, log=True), "n": Integer(0, 100)})

    def bowl(u: jnp.ndarray) -> jnp.ndarray:
        return jnp.sin(2 * u[0]) + u[1] ** 2 - u[0] * u[2]

    fitted, mirror = exact(bowl, space), exact(lambda u: -bowl(u), space)
    X = space.decode(sample("sobol", 8, 3, seed=3))
    true = finite_differences(fitted.predict, space, X, 0.01)
    right, wrong = agreement_at(fitted, X, true), agreement_at(mirror, X, true)
    assert right.metrics["gradient_cosine"] > 0.999
    assert right.metrics["gradient_sign_agreement"] == 1.0
    assert right.metrics["gradient_relative_error"] < 0.01
    assert wrong.metrics["gradient_cosine"] < -0.999
    assert wrong.metrics["gradient_sign_agreement"] == 0.0
    assert wrong.metrics["gradient_relative_error"] == pytest.approx(2.0, rel=0.01)


def test_a_variable_of_many_steps_moves_by_as_many_as_are_asked_for() -> None:
    """One of a thousand would tell nothing of a value that is noisy."""
    space = SearchSpace({"n": Integer(0, 1000), "t": Integer(5, 600, log=True), "x": Float(0, 1, step=0.001)})
    X = np.array([[500.0, 300.0, 0.5], [500.0, 6.0, 0.5]])
    around = stencil(space, X, 0.05)
    assert around.width == pytest.approx(np.full((2, 3), 0.1), abs=0.02)
    assert stencil(space, X[1:], 1e-6).width[0] == pytest.approx([2 / 1001, 0.07, 2 / 1001], rel=0.05)
