"""What is minimized: it is what its formula says, and keeps its accuracy and its slope far from the data."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tolerances import DIFFERENCES, ROUNDING

from surrogate_core import Categorical, Dataset, Float, GPSurrogate, SearchSpace
from surrogate_core.acquisition import Form, Goal, Weights, acquisition, exploration_weights, log_h
from surrogate_core.sampling import sample
from surrogate_core.surrogates.base import FittedSurrogate
from surrogate_core.surrogates.output import Transform

SPACE = SearchSpace({"rate": Float(1e-3, 1, log=True), "x": Float(-20, 60)})
FORMS: tuple[Form, ...] = ("mean", "bound", "conservative", "expected_improvement", "log_expected_improvement")
transforms = pytest.mark.parametrize("transform", ["standardize", "log"])

# log(phi(z) + z Phi(z)) by mpmath with 120 digits.
LOG_H = {
    -1e4: -50000019.33961931469519,
    -300.0: -45012.3265368145643,
    -38.0: -730.1961834021137941,
    -8.0: -37.1223642616927,
    -5.0001: -16.7448373489851,
    -3.0: -7.8696860596030,
    0.0: -0.9189385332046727,
    1.0: 0.0800262188493069,
    30.0: 3.4011973816621554,
}


@cache
def fit(transform: Transform = "standardize") -> FittedSurrogate:
    U = sample("sobol", 12, 2, seed=1)
    y = np.exp(3 * (U[:, 0] - 0.6) ** 2 + np.sin(4 * U[:, 1]))
    return GPSurrogate(n_starts=2, transform=transform).fit(Dataset(SPACE.decode(U), y, SPACE))


def values(form: Form, fitted: FittedSurrogate, U: np.ndarray, **weights: float) -> np.ndarray:
    of = Weights(**{"kappa": 0.0, "best": 0.0, "beyond": 0.0, **weights})
    with jax.enable_x64(True):
        objective = acquisition(form, fitted.spec.traced)
        return np.asarray(jax.jit(jax.vmap(objective, (0, None, None)))(jnp.asarray(U), fitted.state, of))


def standardized(fitted: FittedSurrogate, U: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with jax.enable_x64(True):
        m, s = jax.vmap(lambda u: fitted.spec.standardized(fitted.state, u))(jnp.asarray(U))
        return np.asarray(m), np.asarray(s)


@transforms
def test_the_mean_has_the_order_of_the_prediction(transform: Transform) -> None:
    U = sample("sobol", 64, 2, seed=3)
    predicted = fit(transform).predict(SPACE.decode(U))
    by_value = predicted[np.argsort(values("mean", fit(transform), U))]
    assert (np.diff(by_value) >= -ROUNDING * np.abs(by_value[1:])).all()


@transforms
def test_bounds_move_the_mean_by_the_uncertainty(transform: Transform) -> None:
    U = sample("sobol", 64, 2, seed=3)
    m, s = standardized(fit(transform), U)
    for kappa in (-3.0, 0.0, 1.5):
        assert values("bound", fit(transform), U, kappa=kappa) == pytest.approx(m + kappa * s, rel=ROUNDING)


def test_the_conservative_form_also_keeps_to_the_data() -> None:
    fitted, U = fit(), np.concatenate([sample("sobol", 64, 2, seed=3), [[-1.0, 2.0]]])  # the last far beyond all rows
    m, s = standardized(fitted, U)
    apart = np.array([float(fitted.extrapolation(SPACE.decode(u))) for u in U[:-1]])
    found = values("conservative", fitted, U, kappa=0.5, beyond=2.0)
    assert found[:-1] == pytest.approx((m + 0.5 * s)[:-1] + 2 * np.maximum(apart - 1, 0), abs=1e-9)
    assert found[-1] > (m + 0.5 * s)[-1] + 2


@transforms
def test_expected_improvement_is_the_mean_of_the_improvement(transform: Transform) -> None:
    U = sample("sobol", 32, 2, seed=3)
    m, s = standardized(fit(transform), U)
    nodes, weights = np.polynomial.legendre.leggauss(400)
    for best in (-1.5, 0.0, 1.0):
        z = 10 * nodes  # standard deviations
        improvement = np.maximum(best - m[:, None] - s[:, None] * z, 0)
        expected = 10 * (improvement * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)) @ weights
        found = -values("expected_improvement", fit(transform), U, best=best)
        assert found == pytest.approx(expected, rel=5e-3, abs=1e-6)  # the integrand has a kink
        logs = -values("log_expected_improvement", fit(transform), U, best=best)
        assert np.exp(logs) == pytest.approx(found, rel=1e-9)


def test_far_from_the_best_its_logarithm_still_has_a_slope() -> None:
    fitted, u = fit(), jnp.array([0.4, 0.6])
    with jax.enable_x64(True):
        for best in (-50.0, -1e4):
            of = Weights(0.0, best, 0.0)
            plain = jax.grad(acquisition("expected_improvement", fitted.spec.traced))(u, fitted.state, of)
            slope = jax.grad(acquisition("log_expected_improvement", fitted.spec.traced))(u, fitted.state, of)
            assert (np.asarray(plain) == 0).all()
            assert np.isfinite(slope).all()
            assert np.abs(slope).max() > 1


def test_log_h_is_accurate_at_any_distance() -> None:
    z = np.array(list(LOG_H))
    with jax.enable_x64(True):
        assert np.asarray(log_h(jnp.asarray(z))) == pytest.approx(np.array(list(LOG_H.values())), rel=1e-13)


@given(st.floats(-40, 10))
def test_the_slope_of_log_h_is_that_of_its_values(z: float) -> None:
    with jax.enable_x64(True):
        step = 1e-4 * max(1.0, abs(z))
        ahead, behind = (float(log_h(jnp.float64(z + by))) for by in (step, -step))
        assert float(jax.grad(log_h)(jnp.float64(z))) == pytest.approx((ahead - behind) / (2 * step), rel=DIFFERENCES)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_objective_is_compiled_once(form: Form) -> None:
    spec = fit().spec.traced
    assert acquisition(form, spec) is acquisition(form, GPSurrogate(n_starts=5).traced)


def test_goals_are_forms_and_weights() -> None:
    fitted = fit("log")
    assert (Goal("mean").form, Goal("cautious").form, Goal("exploring").form) == ("mean", "bound", "bound")
    assert Goal("cautious", kappa=2).weights(fitted).kappa == 2
    assert Goal("exploring", kappa=2).weights(fitted).kappa == -2
    assert Goal("conservative", kappa=2).weights(fitted)[0::2] == (2, 2)
    output = fitted.state.output
    given = Goal("expected_improvement", best=1.3).weights(fitted).best
    assert given == pytest.approx((np.log(1.3) - output.shift) / output.scale)
    rows = SPACE.decode(sample("sobol", 12, 2, seed=1))
    least = Goal("log_expected_improvement").weights(fitted).best
    assert least == pytest.approx((np.log(fitted.predict(rows).min()) - output.shift) / output.scale)


def test_categories_have_expected_improvement_too() -> None:
    space = SearchSpace({"x": Float(0, 1), "kind": Categorical(["a", "b"])})
    X = space.decode(sample("sobol", 16, 2, seed=0))
    fitted = GPSurrogate(n_starts=1).fit(Dataset(X, X[:, 0] + X[:, 1], space))
    found = values("log_expected_improvement", fitted, np.array([[0.1, 0.25], [0.1, 0.75]]), best=-0.5)
    assert found[0] < found[1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Goal("least"), "goal: expected one of mean, cautious, .*, got 'least'"),  # type: ignore[arg-type]
        (lambda: Goal(kappa=-1), "kappa: expected a number >= 0, got -1"),
        (lambda: Goal(kappa="a"), "kappa: expected a number >= 0, got 'a'"),  # type: ignore[arg-type]
        (lambda: Goal(best=float("nan")), "best: expected a finite number, got nan"),
        (lambda: acquisition("least", GPSurrogate()), "form: expected one of mean, .*, got 'least'"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_goal_is_told(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@given(st.integers(1, 200))
def test_exploration_begins_at_nothing_and_grows(n: int) -> None:
    weights = exploration_weights(n)
    assert weights.shape == (n,)
    assert weights[0] == 0
    assert (np.diff(weights) > 0).all()
    assert np.isfinite(weights).all()
    # The quantiles of an exponential distribution: as much probability lies between any two neighbours.
    assert np.diff(1 - np.exp(-weights)) == pytest.approx(np.full(n - 1, 1 / n))
