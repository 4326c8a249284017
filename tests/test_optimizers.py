"""Local optimizers and the loop they share: where descents arrive, when they end, and what is told of them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from tolerances import DESCENT, ROUNDING

from surrogate_core import GradientDescentOptimizer, LBFGSOptimizer, TrustRegionOptimizer
from surrogate_core.optimizers import loop
from surrogate_core.optimizers.gradient_descent import RULES, SCHEDULES
from surrogate_core.optimizers.local import LocalOptimizer
from surrogate_core.optimizers.loop import Paths, follow
from surrogate_core.optimizers.status import Status
from surrogate_core.sampling import sample

OPTIMIZERS = (LBFGSOptimizer(), TrustRegionOptimizer(), GradientDescentOptimizer())
SECOND_ORDER = (LBFGSOptimizer(max_iterations=400), TrustRegionOptimizer(max_iterations=400))
UNIT = st.floats(0, 1, allow_subnormal=False)  # which XLA takes for 0
optimizers = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: one.kind)


def quadratic(u: jax.Array, center: jax.Array, _: Any) -> jax.Array:
    return jnp.sum(jnp.array([1.0, 4.0]) * (u - center) ** 2)


def descent(optimizer: LocalOptimizer, starts: Any, center: Any = (0.3, 0.7)) -> Paths:
    return follow(optimizer, quadratic, starts, np.array(center, dtype=float))


@optimizers
@pytest.mark.parametrize(
    "center",
    [(0.3, 0.7), (0.0, 1.0), (1.4, 0.2), (-0.5, 0.5), (2.0, -3.0), (0.999, 0.001)],
    ids=["inside", "in a corner", "right of the cube", "left of the cube", "far beyond a corner", "close to a corner"],
)
def test_a_descent_reaches_the_minimum_within_the_cube(optimizer: LocalOptimizer, center: Any) -> None:
    found = descent(optimizer, sample("sobol", 8, 2, seed=0), center)
    assert np.abs(found.U - np.clip(center, 0, 1)).max() < DESCENT


@optimizers
@settings(max_examples=25)
@given(
    starts=st.lists(st.tuples(UNIT, UNIT), min_size=8, max_size=8),
    center=st.tuples(st.floats(-1, 2), st.floats(-1, 2)),
)
def test_what_is_told_of_a_path_is_what_happened(optimizer: LocalOptimizer, starts: Any, center: Any) -> None:
    found = descent(optimizer, starts, center)
    turns = optimizer.max_turns
    assert found.U.shape == (8, 2)
    assert found.losses.shape == found.rates.shape == found.accepted.shape == (8, turns)
    assert found.points.shape == (8, turns, 2)
    assert ((found.U >= 0) & (found.U <= 1)).all()
    told = np.arange(turns) < found.n_evaluations[:, None]
    assert (np.isnan(found.losses) == ~told).all()
    assert not found.accepted[~told].any()
    assert (found.points[:, 0] == np.array(starts)).all()
    assert found.losses[told] == pytest.approx(
        ((found.points[told] - center) ** 2 * [1, 4]).sum(axis=1), rel=ROUNDING, abs=ROUNDING
    )
    assert (found.values == np.nanmin(found.losses, axis=1)).all()
    assert (found.n_iterations == found.accepted.sum(axis=1) - 1).all()
    assert (found.n_iterations <= optimizer.max_iterations).all()
    assert (found.status != Status.RUNNING).all()
    converged = found.status == Status.CONVERGED
    assert (found.slopes[converged] <= optimizer.tolerance).all()
    if optimizer.kind != "gradient_descent":  # which may overshoot; the others take only what is better
        taken = np.where(found.accepted, found.losses, np.inf)
        assert (np.diff(np.minimum.accumulate(taken, axis=1)) <= 0).all()
        assert all((np.diff(row[keep]) <= 1e-14).all() for row, keep in zip(found.losses, found.accepted, strict=True))


@optimizers
def test_a_start_at_the_minimum_stays_there(optimizer: LocalOptimizer) -> None:
    found = descent(optimizer, [[0.25, 0.5]] * 3, (0.25, 0.5))
    assert found.U.tolist() == [[0.25, 0.5]] * 3
    assert found.n_evaluations.tolist() == [1] * 3
    assert found.status.tolist() == [Status.CONVERGED] * 3


@optimizers
def test_a_start_goes_its_own_way_whatever_goes_beside_it(optimizer: LocalOptimizer) -> None:
    """More starts than lanes, so that most wait for a lane; each ends as it does alone."""
    starts = sample("sobol", 3 * loop.BLOCK + 5, 2, seed=4)
    together, again = descent(optimizer, starts), descent(optimizer, starts)
    assert together.U.tobytes() == again.U.tobytes()
    assert (together.points[:, 0] == starts).all()
    for i in (0, loop.BLOCK, 3 * loop.BLOCK + 4):
        alone = descent(optimizer, starts[[i]])
        assert alone.n_evaluations[0] == together.n_evaluations[i]
        assert alone.U[0] == pytest.approx(together.U[i], abs=ROUNDING)


@optimizers
def test_each_start_has_bounds_and_arguments_of_its_own(optimizer: LocalOptimizer) -> None:
    def goal(u: jax.Array, shared: jax.Array, own: jax.Array) -> jax.Array:
        return jnp.sum((u - own - shared) ** 2)

    bounds = np.array([[[0.0, 0.2], [0.0, 1.0]], [[0.5, 0.5], [0.6, 1.0]]])
    found = follow(optimizer, goal, [[0.9, 0.9], [0.1, 0.1]], np.float64(0.1), np.array([0.2, 0.3]), bounds)
    assert np.abs(found.U - [[0.2, 0.3], [0.5, 0.6]]).max() < DESCENT
    assert found.points[:, 0].tolist() == [[0.2, 0.9], [0.5, 0.6]]


@optimizers
def test_a_start_without_a_value_is_told_and_the_others_go_on(optimizer: LocalOptimizer) -> None:
    def broken(u: jax.Array, _: Any, __: Any) -> jax.Array:
        return jnp.where(u[0] > 0.9, jnp.nan, jnp.sum((u - 0.4) ** 2))

    found = follow(optimizer, broken, [[0.95, 0.5], [0.1, 0.2]])
    assert found.status[0] == Status.NOT_FINITE
    assert not Status(found.status[0]).is_success
    assert found.values[0] == np.inf
    assert np.abs(found.U[1] - 0.4).max() < DESCENT


def test_a_step_to_where_there_is_no_value_is_taken_back() -> None:
    def walled(u: jax.Array, _: Any, __: Any) -> jax.Array:
        return jnp.where(u[0] > 0.5, jnp.inf, -100 * u[0] + (u[1] - 0.4) ** 2)

    for optimizer in SECOND_ORDER:
        found = follow(optimizer, walled, [[0.1, 0.9]])
        assert np.isnan(found.losses).sum() > 0
        assert 0.45 < found.U[0, 0] <= 0.5
    assert np.isfinite(follow(GradientDescentOptimizer(), walled, [[0.1, 0.9]]).values).all()


def test_a_gradient_that_is_not_that_of_the_values_is_told() -> None:
    @jax.custom_vjp
    def lying(u: jax.Array) -> jax.Array:
        return jnp.sum(u)

    lying.defvjp(lambda u: (jnp.sum(u), u), lambda u, g: (-g * jnp.ones_like(u),))
    found = follow(LBFGSOptimizer(), lambda u, _, __: lying(u), [[0.5, 0.5]])
    assert found.status.tolist() == [Status.LINE_SEARCH_FAILED]
    assert found.U.tolist() == [[0.5, 0.5]]
    assert "no step" in Status(found.status[0]).message


@optimizers
def test_patience_ends_what_no_longer_improves(optimizer: LocalOptimizer) -> None:
    def valley(u: jax.Array, _: Any, __: Any) -> jax.Array:
        return jnp.sum(100 * (u[1:] - u[:-1] ** 2) ** 2 + (0.9 - u[:-1]) ** 2)

    starts = sample("sobol", 16, 4, seed=0)
    whole = follow(optimizer, valley, starts)
    early = follow(type(optimizer)(patience=3, min_improvement=1e-2), valley, starts)
    assert (early.n_iterations <= whole.n_iterations).all()
    assert early.n_iterations.sum() < whole.n_iterations.sum()
    ended = early.status == Status.NO_IMPROVEMENT
    assert ended.any()
    for losses, accepted in zip(early.losses[ended], early.accepted[ended], strict=True):
        taken = losses[accepted]
        assert taken[-4] - taken[-3:].min() <= 1e-2


ROSENBROCK = lambda u, d, _: jnp.sum(100 * ((4 * u - 2)[1:] - (4 * u - 2)[:-1] ** 2) ** 2 + (3 - 4 * u[:-1]) ** 2)  # noqa: E731


@pytest.mark.parametrize("optimizer", SECOND_ORDER, ids=lambda one: one.kind)
def test_a_narrow_valley_is_followed_to_its_end_as_often_as_by_scipy(optimizer: LocalOptimizer) -> None:
    starts = sample("random", 20, 5, seed=0)
    found = follow(optimizer, ROSENBROCK, starts)
    with jax.enable_x64(True):
        program = jax.jit(jax.value_and_grad(ROSENBROCK))

        def fun(u: np.ndarray) -> Any:
            value, slope = program(u, 0, 0)
            return float(value), np.asarray(slope)

        peers = [minimize(fun, u, jac=True, method="L-BFGS-B", bounds=[(0, 1)] * 5) for u in starts]
    assert (found.values < 1e-6).sum() >= sum(peer.fun < 1e-6 for peer in peers) - 1
    assert (found.values < 1e-6).sum() >= 14  # the others end in the local minimum, at 3.9
    if optimizer.kind == "lbfgs":
        assert np.median(found.n_evaluations) < 1.3 * np.median([peer.nfev for peer in peers])


def test_one_iteration_is_a_step_of_the_learning_rate() -> None:
    found = descent(GradientDescentOptimizer(learning_rate=0.1, max_iterations=1), [[0.5, 0.5]], (1.0, 0.0))
    assert np.abs(found.U - np.array([[0.6, 0.4]])).max() < DESCENT
    assert found.n_iterations.tolist() == [1]
    assert found.rates[0, 1] == pytest.approx(0.1)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_a_rule_takes_steps_in_proportion_to_the_rate(rule: str) -> None:
    """Which is what schedules and the adaptive rate rely on."""
    u, slopes = jnp.array([0.2, 0.8]), [jnp.array([1.0, -0.3]), jnp.array([0.2, 0.4])]
    steps = []
    for rate in (1.0, 0.01):
        made = RULES[rule](learning_rate=rate)
        state, taken = made.init(u), []
        for slope in slopes:
            step, state = made.update(slope, state, u)
            taken.append(np.asarray(step) / rate)
        steps.append(taken)
    assert np.array(steps[0]) == pytest.approx(np.array(steps[1]), rel=1e-4)
    assert np.abs(steps[0]).max() > 0


@pytest.mark.parametrize("rule", ["adam", "adamw", "lion", "momentum", "nesterov", "rmsprop", "sgd"])
def test_common_rules_arrive(rule: str) -> None:
    found = descent(GradientDescentOptimizer(rule=rule, max_iterations=300), sample("sobol", 8, 2, seed=0))
    assert found.values.max() < DESCENT


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_rates_are_those_of_the_schedule(schedule: str) -> None:
    optimizer = GradientDescentOptimizer(schedule=schedule, max_iterations=40, tolerance=0)
    rates = descent(optimizer, [[0.9, 0.1]]).rates[0, 1:]
    assert np.nanmax(rates) == pytest.approx(0.05, rel=0.05)
    expected = {
        "constant": optax.constant_schedule(0.05),
        "cosine": optax.cosine_decay_schedule(0.05, 40, alpha=1e-3),
        "linear": optax.linear_schedule(0.05, 5e-5, 40),
    }
    if schedule in expected:
        assert rates == pytest.approx([float(expected[schedule](n)) for n in range(40)], rel=1e-5)


def test_the_adaptive_rate_grows_with_good_steps_and_shrinks_with_poor_ones() -> None:
    optimizer = GradientDescentOptimizer(
        rule="sgd", schedule="constant", learning_rate=0.01, adaptive_lr=True, max_iterations=200, tolerance=0
    )
    found = descent(optimizer, [[0.9, 0.1]])
    rates, losses = found.rates[0, 1:], found.losses[0]
    assert rates[0] == pytest.approx(0.01)
    seen = set()
    for n in range(1, len(rates)):
        improved = losses[n - 1] - losses[n]
        factor = 1.05 if improved > 1e-3 else 0.95 if improved < 1e-6 else 1.0
        seen.add(factor)
        assert rates[n] == pytest.approx(np.clip(rates[n - 1] * factor, 1e-6, 1))
    assert seen == {1.05, 1.0, 0.95}


def test_the_adaptive_rate_stays_within_its_limits() -> None:
    def slope(u: jax.Array, _: Any, __: Any) -> jax.Array:
        return 1e3 * u[0]

    how: dict[str, Any] = {"schedule": "constant", "adaptive_lr": True, "rule": "sign_sgd", "tolerance": 0}
    falls = follow(GradientDescentOptimizer(grow=10.0, learning_rate=1e-4, **how), slope, [[1.0]])
    stands = follow(GradientDescentOptimizer(shrink=0.1, **how), lambda u, _, __: jnp.abs(u[0] - 0.5) + 1, [[0.5]])
    assert np.nanmax(falls.rates) == 1.0
    assert np.nanmin(stands.rates) == 1e-6


def test_a_trust_region_shrinks_after_a_bad_step_and_grows_after_good_ones() -> None:
    def kink(u: jax.Array, _: Any, __: Any) -> jax.Array:
        return jnp.abs(u[0] - 0.31) ** 1.5 + (u[1] - 0.5) ** 4

    found = follow(TrustRegionOptimizer(initial_radius=0.02), kink, [[0.95, 0.9]])
    radii, accepted = found.rates[0], found.accepted[0]
    n = int(found.n_evaluations[0])
    assert not accepted[:n].all()
    for i in range(2, n):
        if not accepted[i - 1]:
            assert radii[i] < radii[i - 1]
    assert np.nanmax(radii) > 0.02
    steps = np.abs(np.diff(found.points[0, :2], axis=0)).max()
    assert steps <= 0.02 + ROUNDING


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (GradientDescentOptimizer, {"learning_rate": 0.0}, r"learning_rate: expected a number in \(0, 1\], got 0.0"),
        (GradientDescentOptimizer, {"learning_rate": 1.5}, "learning_rate: .*got 1.5"),
        (GradientDescentOptimizer, {"learning_rate": float("nan")}, "learning_rate: .*got nan"),
        (GradientDescentOptimizer, {"max_iterations": 0}, "max_iterations: expected an integer >= 1, got 0"),
        (GradientDescentOptimizer, {"rule": "newton"}, "rule: expected one of adabelief, .*got 'newton'"),
        (GradientDescentOptimizer, {"schedule": "no"}, "schedule: expected one of constant, .*got 'no'"),
        (GradientDescentOptimizer, {"poor_improvement": 1.0}, "poor_improvement: .*good_improvement = 0.001.*got 1.0"),
        (GradientDescentOptimizer, {"grow": 0.5}, "grow: expected a number >= 1, got 0.5"),
        (GradientDescentOptimizer, {"shrink": 0.0}, r"shrink: expected a number in \(0, 1\], got 0.0"),
        (LBFGSOptimizer, {"n_pairs": 0}, "n_pairs: expected an integer >= 1, got 0"),
        (LBFGSOptimizer, {"min_reduction": -1.0}, "min_reduction: expected a number >= 0, got -1.0"),
        (LBFGSOptimizer, {"patience": 0}, "patience: expected an integer >= 1 or none, got 0"),
        (LBFGSOptimizer, {"tolerance": -1e-9}, "tolerance: expected a number >= 0, got -1e-09"),
        (TrustRegionOptimizer, {"initial_radius": 0.9}, r"initial_radius: .*max_radius = 0.5\], got 0.9"),
        (TrustRegionOptimizer, {"eta": 0.3}, r"eta: expected a number in \[0, 0.25\), got 0.3"),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_told(make: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)


@pytest.mark.parametrize(
    ("starts", "bounds", "message"),
    [
        ([0.5, 0.5], None, r"starts: expected shape \(S, d\)"),
        (np.empty((0, 2)), None, r"starts: expected shape \(S, d\)"),
        ([[0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]], "bounds: expected 2 pairs low <= high"),
    ],
)
def test_starts_and_bounds_that_do_not_fit_are_told(starts: Any, bounds: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        follow(LBFGSOptimizer(), quadratic, starts, np.zeros(2), bounds=bounds)


def test_following_switches_nothing_on() -> None:
    descent(LBFGSOptimizer(), [[0.5, 0.5]])
    assert not jax.config.jax_enable_x64
    assert jnp.zeros(1).dtype == jnp.float32


def test_no_end_that_is_taken_for_a_minimum_has_a_slope() -> None:
    """Also where a variable at its bound is pushed out by the curvature of others."""

    def wavy(u: jax.Array, H: jax.Array, _: Any) -> jax.Array:
        return (u - 0.4) @ H @ (u - 0.4) / 2 + 0.3 * jnp.sum(jnp.cos(9 * u))

    A = np.random.default_rng(0).standard_normal((6, 6))
    starts = sample("random", 300, 6, 1)
    for optimizer in SECOND_ORDER:
        found = follow(optimizer, wavy, starts, A @ A.T * 5)
        assert (found.status <= Status.NO_IMPROVEMENT).mean() > 0.98
        stalled = found.status == Status.STALLED
        assert (found.slopes[stalled] < 1e-3).all()


def test_a_descent_that_steps_to_where_there_is_no_value_has_not_converged() -> None:
    found = follow(GradientDescentOptimizer(), lambda u, _, __: jnp.where(u[0] > 0.6, jnp.nan, -u[0]), [[0.3]])
    assert found.status.tolist() == [Status.NOT_FINITE]
    assert 0.55 < found.U[0, 0] <= 0.6


def test_one_program_does_for_any_number_of_starts_beyond_one() -> None:
    def objective(u: jax.Array, shared: Any, own: Any) -> jax.Array:
        return ((u - 0.3) ** 2).sum()

    before = loop._follow._cache_size()
    for n in (2, 9, 33, 130, 300):
        paths = follow(LBFGSOptimizer(), objective, sample("sobol", n, 2, seed=0))
        assert paths.U.shape == (n, 2)
        assert np.asarray(paths.U) == pytest.approx(np.full((n, 2), 0.3), abs=1e-6)
        assert (np.asarray(paths.status) == Status.CONVERGED).all()
    assert loop._follow._cache_size() == before + 1
