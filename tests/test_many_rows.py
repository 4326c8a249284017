"""A Gaussian process on more rows than an exact fit takes."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from scipy.optimize import approx_fprime

from surrogate_core import Categorical, Dataset, Float, GPSurrogate, SearchSpace, load_surrogate
from surrogate_core.parallel import in_threads
from surrogate_core.sampling import sample
from surrogate_core.surrogates.files import surrogate_files
from surrogate_core.surrogates.inducing import factor_of, inducing_points, lower_bound, posterior, predicted, triangle
from surrogate_core.surrogates.likelihood import log_likelihood
from surrogate_core.surrogates.training import Training, training

pytestmark = pytest.mark.usefixtures("one_thread")

SPACE = SearchSpace({"x": Float(0, 1), "y": Float(0, 1), "kind": Categorical(["a", "b", "c"])})
THETA = np.log([0.4, 0.7, 1.5, 1.2, 0.01])
SMALL: dict[str, Any] = {"n_starts": 2, "max_exact": 150, "n_inducing": 64}


def wavy(X: np.ndarray) -> np.ndarray:
    return np.sin(6 * X[:, 0]) + X[:, 1] ** 2 + 0.5 * (X[:, 2] == 1)


def rows(n: int, seed: int = 1, deviation: float = 0.0, **more: Any) -> Dataset:
    X = SPACE.decode(sample("sobol", n, 3, seed))
    return Dataset(X, wavy(X) + deviation * np.random.default_rng(seed).standard_normal(n), SPACE, **more)


def some_known() -> Training:
    """Rows of which some repeat others and of some the noise is known."""
    data = rows(40)
    noise = np.where(np.arange(60) % 3, np.nan, 0.1)
    X, y = np.concatenate([data.X, data.X[::2]]), np.append(data.y, data.y[::2] + 0.1)
    return training(Dataset(X, y, SPACE, noise=noise), "standardize")


@pytest.mark.parametrize("kernel", ["matern52", "matern32", "matern12", "rbf"])
def test_the_bound_is_the_likelihood_where_every_row_is_an_inducing_point(kernel: str) -> None:
    learned = some_known()
    value, gradient = lower_bound(kernel, THETA, learned, np.arange(len(learned.z)))
    exact, its_gradient = log_likelihood(kernel, THETA, learned)
    assert value == pytest.approx(exact, rel=1e-4)
    assert gradient == pytest.approx(its_gradient, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("kernel", ["matern52", "matern32", "matern12", "rbf"])
def test_the_bound_is_below_the_likelihood_and_its_gradient_is_that_of_differences(kernel: str) -> None:
    learned = some_known()
    points = inducing_points(kernel, THETA, learned, 12, np.array([3]), np.random.default_rng(0))
    value, gradient = lower_bound(kernel, THETA, learned, points)
    assert value < log_likelihood(kernel, THETA, learned)[0]
    told = approx_fprime(THETA, lambda theta: lower_bound(kernel, theta, learned, points)[0], 1e-6)
    assert gradient == pytest.approx(told, rel=1e-3, abs=1e-4 * np.abs(told).max())


def test_inducing_points_are_apart_and_hold_what_is_given() -> None:
    learned = training(rows(300), "standardize")
    first = np.array([7, 250])
    points, all_of_them = (
        inducing_points("matern52", THETA, learned, M, first, np.random.default_rng(0)) for M in (50, 300)
    )
    assert len(set(points)) == 50
    assert np.isin(first, points).all()
    at_random = np.random.default_rng(0).choice(300, 50, replace=False)
    bounds = [lower_bound("matern52", THETA, learned, chosen)[0] for chosen in (points, at_random)]
    assert bounds[0] > bounds[1]
    assert all_of_them.tolist() == list(range(300))


def test_rows_that_lie_together_are_learned_by_the_roughest_kernel_too() -> None:
    rng = np.random.default_rng(0)
    for d, radius in ((1, 1e-3), (2, 1e-5), (5, 1e-7)):
        X = np.vstack([rng.random((150, d)), 0.9 + radius * rng.standard_normal((200, d))])
        data = Dataset(X, np.abs(X - 0.9).sum(axis=1), SearchSpace.from_bounds([(0, 1)] * d))
        fitted = GPSurrogate(kernel="matern12", n_starts=1, max_exact=150, n_inducing=128).fit(data)
        assert fitted.diagnostics["n_inducing"] <= 128
        assert np.corrcoef(fitted.predict(X[:150]), data.y[:150])[0, 1] > 0.9


def test_rows_in_parts_tell_what_they_tell_at_once() -> None:
    learned = training(rows(200, deviation=0.1), "standardize")
    Z = (learned.F / np.exp(THETA[learned.group]))[::5]
    L_inverse, _ = factor_of("matern52", THETA, Z)
    parts = [learned.take(part) for part in (np.arange(200), np.arange(80), np.arange(80, 200))]
    whole, *halves = (triangle("matern52", THETA, part, Z, L_inverse) for part in parts)
    at = parts[1].F / np.exp(THETA[learned.group])
    once, twice = (predicted("matern52", THETA, at, Z, posterior(L_inverse, of)) for of in ([whole], halves))
    assert twice[0] == pytest.approx(once[0], abs=1e-9)
    assert twice[1] == pytest.approx(once[1], abs=1e-9)


def test_it_predicts_as_an_exact_fit_does_where_the_points_are_many() -> None:
    data, at = rows(200, deviation=0.2), rows(128, seed=2).X
    exact, sparse = (GPSurrogate(n_starts=2, max_exact=most, n_inducing=150).fit(data) for most in (1000, 100))
    assert [bool(fitted.state.is_sparse) for fitted in (exact, sparse)] == [False, True]
    off = np.abs(sparse.predict(at) - exact.predict(at))
    assert off.max() < 0.1
    assert np.sqrt(np.mean((sparse.predict(at) - wavy(at)) ** 2)) < 0.1


def test_what_it_costs_is_told_and_true() -> None:
    data, at = rows(1500), rows(256, seed=2).X
    fitted = GPSurrogate(**SMALL).fit(data)
    told = fitted.diagnostics["accuracy"]
    assert told["exact_rows"] == 150
    assert told["rmse_exact"] < told["rmse_sparse_of_exact_rows"]  # 64 points for 150 rows without noise
    true = np.sqrt(np.mean((fitted.predict(at) - wavy(at)) ** 2)) / fitted.state.output.scale
    assert 0.5 < true / told["rmse"] < 2.0
    assert fitted.diagnostics["n_inducing"] == 64
    assert GPSurrogate(n_starts=2).fit(data.take(range(100))).diagnostics.get("accuracy") is None


@pytest.mark.parametrize("deviation", [0.0, 0.3])
def test_the_intervals_hold_what_was_not_seen(deviation: float) -> None:
    covered = []
    for seed in range(2):
        fitted = GPSurrogate(**SMALL).fit(rows(600, seed, deviation), jax.random.key(seed))
        at = rows(400, seed + 10, deviation)
        low, high = fitted.interval(at.X)
        covered.append(np.mean((low <= at.y) & (at.y <= high)))
    assert 0.9 <= np.mean(covered) <= 0.99


def test_draws_have_the_posterior_s_moments() -> None:
    fitted, at = GPSurrogate(**SMALL).fit(rows(400, deviation=0.3)), rows(16, seed=2).X
    told = fitted.draws(500, jax.random.key(0))(at)
    s = fitted.uncertainty(at)
    assert np.abs(told.mean(axis=1) - fitted.predict(at)).max() < 0.15 * s.max()
    assert told.std(axis=1) / s == pytest.approx(1.0, abs=0.15)


def test_kernel_and_transform_are_chosen_on_some_rows() -> None:
    data = rows(400)
    spec = GPSurrogate(**SMALL, kernel="auto", transform="auto")
    fitted = spec.fit(Dataset(data.X, np.exp(3 * data.y), SPACE))
    assert fitted.asked == spec
    assert fitted.spec.transform == "log"
    assert len(fitted.diagnostics["leave_one_out_density"]) > 3


def test_derivatives_are_left_out_and_it_is_told() -> None:
    data = rows(400)
    slopes = np.column_stack([6 * np.cos(6 * data.X[:, 0]), 2 * data.X[:, 1], np.full(400, np.nan)])
    fitted = GPSurrogate(**SMALL).fit(Dataset(data.X, data.y, SPACE, gradients=slopes))
    assert fitted.diagnostics["fallbacks"] == ["derivatives left out: inducing points learn values alone"]


def test_threads_and_the_order_of_rows_change_no_bit(tmp_path: Any) -> None:
    data = rows(400)
    spec = GPSurrogate(**SMALL)
    alone = spec.fit(data)
    turned = spec.fit(data.take(np.arange(400)[::-1]))
    assert surrogate_files(turned) == surrogate_files(alone)
    in_parallel = in_threads(lambda _: surrogate_files(spec.fit(data)), range(2), n_workers=2)
    assert in_parallel == [surrogate_files(alone)] * 2
    alone.save(tmp_path)
    assert load_surrogate(tmp_path).predict(data.X[:9]).tolist() == alone.predict(data.X[:9]).tolist()


@pytest.mark.slow
def test_rows_beyond_3000_are_learned_by_inducing_points() -> None:
    X = sample("sobol", 4096, 3, seed=1)
    fitted = GPSurrogate(n_starts=2).fit(Dataset(X, wavy(X)))
    assert 256 <= fitted.diagnostics["n_inducing"] <= 1024
    assert fitted.diagnostics["accuracy"]["exact_rows"] == 3000
    at = sample("sobol", 512, 3, seed=2)
    assert np.sqrt(np.mean((fitted.predict(at) - wavy(at)) ** 2)) < 1e-3
