"""What is exact about the Gaussian process: likelihood, prediction, leave-one-out, derivatives, draws, choices."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel
from textbook import CUBE, KERNELS, THETAS, covariance, slopes, textbook, wavy
from tolerances import GRADIENT, LIKELIHOOD, NEARBY, REORDERED, SOLVE

from surrogate_core import Categorical, Dataset, Float, GPSurrogate, SearchSpace
from surrogate_core.sampling import sample
from surrogate_core.surrogates.base import FittedSurrogate
from surrogate_core.surrogates.derivatives import joint_log_likelihood
from surrogate_core.surrogates.hyperparameters import BOUNDS
from surrogate_core.surrogates.kernels import SMOOTH
from surrogate_core.surrogates.likelihood import log_likelihood
from surrogate_core.surrogates.training import Training, features, training

THEIRS: dict[str, Callable[[float | list[float]], Any]] = {
    "matern52": lambda scales: Matern(scales, length_scale_bounds=BOUNDS[0], nu=2.5),
    "matern32": lambda scales: Matern(scales, length_scale_bounds=BOUNDS[0], nu=1.5),
    "matern12": lambda scales: Matern(scales, length_scale_bounds=BOUNDS[0], nu=0.5),
    "rbf": lambda scales: RBF(scales, length_scale_bounds=BOUNDS[0]),
}
pytestmark = pytest.mark.usefixtures("one_thread")


def density(K: np.ndarray, z: np.ndarray) -> float:
    return float(multivariate_normal(np.zeros(len(z)), K).logpdf(z))


def differences(f: Callable[[np.ndarray], float], theta: np.ndarray, h: float = 1e-5) -> np.ndarray:
    return np.array([(f(theta + step) - f(theta - step)) / (2 * h) for step in h * np.eye(len(theta))])


def close(told: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> bool:
    return bool(np.abs(told - expected).max() <= tolerance * np.abs(expected).max())


# Likelihood


@pytest.mark.parametrize("kernel", [*KERNELS, "matern"])  # the last is matern52 by another name
@pytest.mark.parametrize("n", [1, 2, 130])  # one block of rows, and two
def test_the_likelihood_is_that_of_the_normal_distribution_and_its_gradient_holds(kernel: str, n: int) -> None:
    U = sample("sobol", n, 2, seed=4)
    rows = training(Dataset(U, wavy(U), CUBE), "standardize")
    for theta in THETAS:
        value, gradient = log_likelihood(kernel, theta, rows)
        K = covariance(kernel, theta, rows.U) + np.exp(theta[-1]) * np.eye(n)
        assert value == pytest.approx(density(K, rows.z), rel=SOLVE)
        expected = differences(lambda at: log_likelihood(kernel, at, rows)[0], theta)
        assert close(gradient, expected)


@pytest.mark.parametrize("kernel", KERNELS)
def test_repeated_rows_are_merged_without_a_loss(kernel: str) -> None:
    U = np.repeat(sample("sobol", 6, 2, seed=4), [1, 3, 2, 1, 1, 2], axis=0)
    y = wavy(U) + 0.1 * np.random.default_rng(0).standard_normal(10)
    rows = training(Dataset(U, y, CUBE), "standardize")
    assert (len(rows.z), rows.repeats, rows.told) == (6, 4, ("4 repeated rows merged",))
    for theta in THETAS:
        K = covariance(kernel, theta, U) + np.exp(theta[-1]) * np.eye(10)
        value, gradient = log_likelihood(kernel, theta, rows)
        assert value == pytest.approx(density(K, rows.each), rel=SOLVE)
        assert close(gradient, differences(lambda at: log_likelihood(kernel, at, rows)[0], theta))


def test_noise_that_is_given_is_used_as_it_is() -> None:
    U = sample("sobol", 8, 2, seed=4)
    noise = np.array([0.1, 0.5, np.nan, np.nan, 0.2, 0.1, np.nan, 0.3])
    rows = training(Dataset(U, wavy(U), CUBE, noise=noise), "standardize")
    order = [int(np.flatnonzero((u == U).all(axis=1))[0]) for u in rows.U]
    s = np.where(np.isnan(noise), np.exp(THETAS[0][-1]), (noise / wavy(U).std()) ** 2)[order]
    value, gradient = log_likelihood("matern52", THETAS[0], rows)
    assert value == pytest.approx(density(covariance("matern52", THETAS[0], rows.U) + np.diag(s), rows.z), rel=SOLVE)
    assert close(gradient, differences(lambda at: log_likelihood("matern52", at, rows)[0], THETAS[0]))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("apart", [1e-6, 1e-4])
def test_the_likelihood_stands_rows_that_are_nearly_one(kernel: str, apart: float) -> None:
    U = sample("sobol", 12, 2, seed=4)
    U[1] = U[0] + apart
    rows = training(Dataset(U, wavy(U), CUBE), "standardize")
    assert len(rows.z) == 12
    for theta in THETAS:
        K = covariance(kernel, theta, rows.U) + np.exp(theta[-1]) * np.eye(12)
        value, gradient = log_likelihood(kernel, theta, rows)
        assert value == pytest.approx(density(K, rows.z), rel=NEARBY)

        def textbook_density(at: np.ndarray) -> float:
            return density(covariance(kernel, at, rows.U) + np.exp(at[-1]) * np.eye(12), rows.z)

        assert close(gradient, differences(textbook_density, theta), NEARBY)


KINDS = {"a": 0.0, "b": 3.0, "c": -1.0}
WITH_KINDS = SearchSpace({"x": Float(0, 2), "kind": Categorical(list(KINDS))})


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_likelihood_holds_for_choices_too(kernel: str) -> None:
    X = WITH_KINDS.decode(sample("sobol", 12, 2, seed=4))
    F, group = features(WITH_KINDS.encode(X), WITH_KINDS.n_choices)
    assert F.shape == (12, 4)
    assert group.tolist() == [0, 1, 1, 1]
    rows = training(Dataset(X, np.sin(5 * X[:, 0]) + X[:, 1], WITH_KINDS), "standardize")
    for theta in THETAS:
        value, gradient = log_likelihood(kernel, theta, rows)
        K = covariance(kernel, theta, rows.F, rows.group) + np.exp(theta[-1]) * np.eye(len(rows.z))
        assert value == pytest.approx(density(K, rows.z), rel=SOLVE)
        assert close(gradient, differences(lambda at: log_likelihood(kernel, at, rows)[0], theta))


# Derivatives in the data


def joint_covariance(kernel: str, theta: np.ndarray, U: np.ndarray) -> np.ndarray:
    """Of values and derivatives, by automatic differentiation of the textbook's kernel."""
    l, s2 = np.exp(theta[:2]), np.exp(theta[2])

    def k(u: Any, v: Any) -> Any:
        r2 = jnp.sum(((u - v) / l) ** 2)
        return s2 * textbook(jnp, kernel, jnp.sqrt(r2 + 1e-18))

    def block(u: Any, v: Any) -> Any:
        by_v, by_u = jax.grad(k, argnums=1)(u, v), jax.grad(k)(u, v)
        second = jax.jacfwd(jax.grad(k), argnums=1)(u, v)
        return jnp.block([[k(u, v)[None, None], by_v[None]], [by_u[:, None], second]])

    with jax.enable_x64(True):
        blocks = jax.jit(jax.vmap(jax.vmap(block, (None, 0)), (0, None)))(jnp.asarray(U), jnp.asarray(U))
    n = len(U)
    return np.asarray(blocks).transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)


def steep() -> Dataset:
    """12 rows whose derivatives are known but for a few."""
    U = sample("sobol", 12, 2, seed=4)
    G = slopes(U)
    G[2, 1], G[5] = np.nan, np.nan
    return Dataset(U, wavy(U), CUBE, gradients=G)


@pytest.mark.parametrize("kernel", SMOOTH)
def test_the_joint_likelihood_is_that_of_values_and_derivatives(kernel: str) -> None:
    rows = training(steep(), "standardize")
    assert rows.slopes is not None
    known = ~np.isnan(rows.slopes)
    told = np.column_stack([rows.z, rows.slopes]).ravel()
    some = ~np.isnan(told)
    assert known.sum() == 21
    for theta in np.log([[0.3, 0.7, 1.3, 1e-3], [2.0, 1.0, 30.0, 1e-3]]):
        l, e = np.exp(theta[:2]), np.exp(theta[-1])
        K = joint_covariance(kernel, theta, rows.U) + np.diag(np.tile(e * np.array([1, *l**-2.0]), 12))
        value, gradient = joint_log_likelihood(kernel, theta, rows)
        assert value == pytest.approx(density(K[np.ix_(some, some)], told[some]), rel=NEARBY)
        assert close(gradient, differences(lambda at: joint_log_likelihood(kernel, at, rows)[0], theta))


@pytest.mark.parametrize("kernel", SMOOTH)
@pytest.mark.parametrize("transform", ["standardize", "yeo_johnson"])
def test_derivatives_make_a_prediction_better_and_are_met(kernel: str, transform: str) -> None:
    data, at = steep(), sample("sobol", 100, 2, seed=7)
    spec = GPSurrogate(kernel=kernel, transform=transform, n_starts=2)
    with_them, without = spec.fit(data), spec.fit(Dataset(data.X, data.y, CUBE))
    error, plain = (np.abs(fitted.predict(at) - wavy(at)).mean() for fitted in (with_them, without))
    assert error < 0.7 * plain
    rows = [0, 1, 3, 4, 6]
    assert with_them.gradient(data.X[rows]) == pytest.approx(slopes(data.X[rows]), abs=0.1)
    assert (with_them.uncertainty(at) < without.uncertainty(at)).mean() > 0.7


def test_derivatives_are_those_of_the_problems_units() -> None:
    space = SearchSpace({"rate": Float(1e-3, 1e1, log=True), "x": Float(-3, 5)})
    X = space.decode(sample("sobol", 12, 2, seed=4))
    y, G = np.log(X[:, 0]) ** 2 + 7 * X[:, 1], np.column_stack([2 * np.log(X[:, 0]) / X[:, 0], np.full(12, 7.0)])
    fitted = GPSurrogate(n_starts=2).fit(Dataset(X, y, space, gradients=G))
    scale = np.abs(G).max(axis=1)
    assert (np.abs(fitted.gradient(X) - G).max(axis=1) < 0.05 * scale).all()


def test_derivatives_that_cannot_be_learned_are_told() -> None:
    data = steep()
    assert any(
        "matern12 has none" in line for line in GPSurrogate(kernel="matern12").fit(data).diagnostics["fallbacks"]
    )
    assert not any("derivatives" in line for line in GPSurrogate(n_starts=1).fit(data).diagnostics["fallbacks"])


def test_too_many_derivatives_are_left_out_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surrogate_core.surrogates.gaussian_process.MAX_DERIVATIVES", 30)
    fitted = GPSurrogate(n_starts=1).fit(steep())
    assert any("with 36 values, above 30" in line for line in fitted.diagnostics["fallbacks"])
    assert fitted.state.a.ndim == 1


# Prediction


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("transform", ["standardize", "log"])
@pytest.mark.parametrize("n", [6, 65])  # in two buckets
def test_the_prediction_is_that_of_the_textbook_whatever_the_padding(kernel: str, transform: str, n: int) -> None:
    U = sample("sobol", n, 2, seed=1)
    y = np.exp(wavy(U))
    fitted = GPSurrogate(kernel=kernel, transform=transform, n_starts=1).fit(Dataset(U, y, CUBE))
    told = fitted.diagnostics
    l, s2, e = np.array(list(told["lengthscales"].values())), told["output_scale"], told["noise"]
    at = sample("random", 5, 2, seed=2)
    g = np.log(y) if transform == "log" else y
    K = cho_factor(s2 * textbook(np, kernel, cdist(U / l, U / l)) + e * np.eye(n), lower=True)
    k = s2 * textbook(np, kernel, cdist(at / l, U / l))
    mean = g.mean() + g.std() * k @ cho_solve(K, (g - g.mean()) / g.std())  # eq. 2.25
    variance = g.var() * (s2 - np.sum(k * cho_solve(K, k.T).T, axis=1))  # eq. 2.26
    variance *= told["stretch"] ** 2
    if transform == "log":
        y_mean, y_std = np.exp(mean + variance / 2), np.exp(mean + variance / 2) * np.sqrt(np.expm1(variance))
    else:
        y_mean, y_std = mean, np.sqrt(variance)
    assert fitted.predict(at) == pytest.approx(y_mean, rel=NEARBY)
    assert fitted.uncertainty(at) == pytest.approx(y_std, rel=NEARBY, abs=NEARBY * np.ptp(y))


def test_many_points_are_predicted_as_few_are() -> None:
    fitted = GPSurrogate(n_starts=1).fit(steep())
    at = sample("random", 2500, 2, seed=2)  # three chunks
    for told in ("predict", "uncertainty", "gradient", "extrapolation"):
        many = getattr(fitted, told)(at)
        assert len(many) == 2500
        assert many[[0, 1023, 1024, 2499]] == pytest.approx(getattr(fitted, told)(at[[0, 1023, 1024, 2499]]), rel=1e-7)


# Leave-one-out


def brute_force(kernel: str, fitted: FittedSurrogate, rows: Training) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each row's observed z by all others, at the fit's hyperparameters."""
    told = fitted.diagnostics
    theta = np.log([*told["lengthscales"].values(), told["output_scale"], told["noise"]])
    F = rows.F[rows.place]
    s = np.where(np.isnan(rows.known), told["noise"], rows.known)[rows.place]
    K = covariance(kernel, theta, F, rows.group) + np.diag(s)
    means, variances = [], []
    for i in range(len(rows.each)):
        others = np.arange(len(rows.each)) != i
        solved = np.linalg.solve(K[np.ix_(others, others)], np.column_stack([rows.each[others], K[others, i]]))
        means.append(K[i, others] @ solved[:, 0])
        variances.append(K[i, i] - K[i, others] @ solved[:, 1])
    return np.array(means), np.array(variances)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("case", ["plain", "repeated", "known noise", "failed rows"])
def test_leave_one_out_is_that_of_brute_force(kernel: str, case: str) -> None:
    U = sample("sobol", 14, 2, seed=4)
    if case == "repeated":
        U = np.repeat(U[:8], [1, 3, 2, 1, 1, 2, 3, 1], axis=0)
    y = wavy(U) + 0.05 * np.random.default_rng(1).standard_normal(14)
    noise = np.where(np.arange(14) % 2, 0.1, np.nan) if case == "known noise" else None
    if case == "failed rows":
        y[[0, 7]] = np.nan
    data = Dataset(U, y, CUBE, noise=noise)
    spec = GPSurrogate(kernel=kernel, n_starts=2)
    fitted = spec.fit(data)
    told = spec.leave_one_out(fitted, data)
    mean, variance = brute_force(kernel, fitted, training(data, "standardize", fitted.state.output))
    assert told.m == pytest.approx(mean, abs=GRADIENT)
    assert told.v + told.e == pytest.approx(variance, rel=1e-5)


def test_leave_one_out_leaves_the_derivatives_of_the_row_out_too() -> None:
    data = steep()
    spec = GPSurrogate(n_starts=1)
    fitted = spec.fit(data)
    told = spec.leave_one_out(fitted, data)
    theta = np.log([*fitted.state.lengthscales, float(fitted.state.output_scale), float(fitted.state.noise)])
    rows = training(data, "standardize", fitted.state.output)
    assert rows.slopes is not None
    l, e = np.exp(theta[:2]), np.exp(theta[-1])
    K = joint_covariance("matern52", theta, rows.U) + np.diag(np.tile(e * np.array([1, *l**-2.0]), 12))
    z = np.column_stack([rows.z, rows.slopes]).ravel()
    for i in range(12):
        others = (np.arange(36) // 3 != rows.place[i]) & ~np.isnan(z)
        solved = np.linalg.solve(K[np.ix_(others, others)], np.column_stack([z[others], K[others, 3 * rows.place[i]]]))
        mean, by = K[3 * rows.place[i], others] @ solved[:, 0], K[3 * rows.place[i], others] @ solved[:, 1]
        assert told.m[i] == pytest.approx(mean, abs=1e-3)
        assert told.v[i] + told.e[i] == pytest.approx(np.exp(theta[2]) + e - by, rel=0.02)


def test_leave_one_out_needs_the_data_that_was_fitted() -> None:
    data = steep()
    spec = GPSurrogate(n_starts=1)
    with pytest.raises(
        ValueError, match="leave_one_out: expected the dataset that was fitted, got another of 11 places"
    ):
        spec.leave_one_out(spec.fit(data), data.take(range(11)))


# The search


@pytest.mark.parametrize("kernel", ["matern52", "matern12"])
def test_the_fit_is_as_likely_as_scikit_learns(kernel: str) -> None:
    U = sample("sobol", 30, 2, seed=1)
    y = np.sin(6 * U[:, 0]) + (U[:, 1] - 0.3) ** 2
    scale, noise = ConstantKernel(1.0, BOUNDS[1]), WhiteKernel(1e-4, BOUNDS[2])
    theirs = GaussianProcessRegressor(
        scale * THEIRS[kernel]([0.5, 0.5]) + noise, normalize_y=True, n_restarts_optimizer=4, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a hyperparameter is close to its bound
        theirs.fit(U, y)
    told = GPSurrogate(kernel=kernel, prior="flat").fit(Dataset(U, y, CUBE)).diagnostics
    ours = np.log([told["output_scale"], *told["lengthscales"].values(), told["noise"]])
    assert theirs.log_marginal_likelihood(ours) >= theirs.log_marginal_likelihood_value_ - LIKELIHOOD


def test_many_rows_are_searched_on_some_of_them_and_end_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    U = sample("sobol", 120, 2, seed=1)
    data = Dataset(U, wavy(U), CUBE)
    whole = GPSurrogate(n_starts=3).fit(data).diagnostics
    for name, value in (("FEW", 20), ("SOME", 40), ("LARGE", 60)):
        monkeypatch.setattr(f"surrogate_core.surrogates.hyperparameters.{name}", value)
    told = GPSurrogate(n_starts=3).fit(data).diagnostics
    assert told["negative_log_posterior"] == pytest.approx(whole["negative_log_posterior"], abs=0.5)


def test_noise_is_found_where_it_is() -> None:
    U = sample("sobol", 30, 2, seed=1)
    clean = np.sin(6 * U[:, 0]) + U[:, 1]
    noisy = clean + 0.3 * np.random.default_rng(0).standard_normal(30)
    quiet, loud = (GPSurrogate(n_starts=2).fit(Dataset(U, y, CUBE)) for y in (clean, noisy))
    assert quiet.diagnostics["noise"] < 1e-3 < 1e-2 < loud.diagnostics["noise"]
    lower, upper = loud.interval(U)
    assert 0.8 <= np.mean((lower <= noisy) & (noisy <= upper)) <= 1


def test_a_row_of_little_noise_counts_more_than_one_of_much() -> None:
    U = np.array([[0.2, 0.5], [0.5, 0.5], [0.5001, 0.5], [0.8, 0.5]])
    y = np.array([0.0, 1.0, -1.0, 0.0])
    for noise, nearer in (([0.1, 0.01, 1.0, 0.1], 1.0), ([0.1, 1.0, 0.01, 0.1], -1.0)):
        fitted = GPSurrogate(n_starts=2).fit(Dataset(U, y, CUBE, noise=np.array(noise)))
        assert fitted.predict([0.5, 0.5]) * nearer > 0.5
    wide, narrow = (fitted.predictive([0.3, 0.3], noise=s).interval() for s in (1.0, 0.01))
    assert wide[1] - wide[0] > narrow[1] - narrow[0]


def test_what_is_fixed_stays() -> None:
    U = sample("sobol", 20, 2, seed=1)
    data = Dataset(U, wavy(U), CUBE)
    spec = GPSurrogate(length_scale=(0.3, 2.0), noise_level=1e-3, fixed=("length_scale",), output_scale="unit")
    told = spec.fit(data).diagnostics
    assert list(told["lengthscales"].values()) == pytest.approx([0.3, 2.0])
    assert told["output_scale"] == 1.0
    assert told["noise"] != pytest.approx(1e-3)
    told = replace(spec, fixed=("noise_level", "length_scale")).fit(data).diagnostics
    assert told["noise"] == pytest.approx(1e-3)
    free = replace(spec, fixed=()).fit(data).diagnostics
    assert list(free["lengthscales"].values()) != pytest.approx([0.3, 2.0])
    with pytest.raises(ValueError, match="length_scale: expected one number or 2, got 3"):
        GPSurrogate(length_scale=(0.3, 2.0, 1.0)).fit(data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": "matern53"}, "kernel: expected one of matern52, .*got 'matern53'"),
        ({"kernel": None}, "kernel: .*got None"),
        ({"prior": "falt"}, "prior: expected .*got 'falt'"),
        ({"output_scale": "big"}, "output_scale: expected .*got 'big'"),
        ({"n_starts": 0}, "n_starts: expected an integer >= 1, got 0"),
        ({"max_iterations": 0}, "max_iterations: expected an integer >= 1, got 0"),
        ({"length_scale": 0.0}, "length_scale: expected a number from 0.005 to 10000, got 0.0"),
        ({"length_scale": (0.5, float("nan"))}, "length_scale: .*got nan"),
        ({"noise_level": 2.0}, "noise_level: expected a number from 1e-08 to 1, got 2.0"),
        ({"fixed": ("noise_level",)}, "noise_level: expected a number, as it is fixed, got none"),
        ({"fixed": ("kernel",)}, "fixed: expected some of length_scale, noise_level, got 'kernel'"),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_told(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GPSurrogate(**arguments)


# What is chosen


def test_the_transform_that_suits_the_data_is_chosen() -> None:
    U = sample("sobol", 30, 2, seed=1)
    told = {}
    for name, y in (("plain", wavy(U)), ("magnitudes", np.exp(4 * wavy(U))), ("below zero", np.exp(4 * wavy(U)) - 50)):
        fitted = GPSurrogate(transform="auto", n_starts=2).fit(Dataset(U, y, CUBE))
        scores = fitted.diagnostics["leave_one_out_density"]
        told[name] = fitted.spec.transform
        assert max(scores, key=scores.get).startswith(fitted.spec.transform)
        assert fitted.asked.transform == "auto"
        assert any(said.startswith("log") for said in scores) == (y.min() > 0)
    assert told["magnitudes"] == "log"
    assert told["plain"] != "log"
    assert told["below zero"] == "yeo_johnson"


def test_the_kernel_that_suits_the_data_is_chosen() -> None:
    U = sample("sobol", 40, 2, seed=1)
    smooth = GPSurrogate(kernel="auto", n_starts=2).fit(Dataset(U, wavy(U), CUBE))
    rough = GPSurrogate(kernel="auto", n_starts=2).fit(Dataset(U, np.sqrt(np.abs(U - [0.4, 0.6])).sum(axis=1), CUBE))
    assert smooth.spec.kernel == "rbf"
    assert rough.spec.kernel in ("matern12", "matern32")
    for fitted in (smooth, rough):
        scores = fitted.diagnostics["leave_one_out_density"]
        assert len({said.split(", ")[1] for said in scores}) == 4
        assert len({said.split(", ")[2] for said in scores}) == 2
        best = f"{fitted.spec.transform}, {fitted.spec.kernel}, {fitted.spec.output_scale} scale"
        assert max(scores, key=scores.get) == best


# Categorical variables


def by_kind(X: np.ndarray, offsets: list[float]) -> np.ndarray:
    return np.sin(2 * X[:, 0]) + np.array(offsets)[X[:, 1].astype(int)]


def test_a_choice_is_learned_and_the_gradient_is_that_within_it() -> None:
    X = WITH_KINDS.decode(sample("sobol", 24, 2, seed=1))
    y = by_kind(X, list(KINDS.values()))
    for gradients in (None, np.column_stack([2 * np.cos(2 * X[:, 0]), np.full(24, 99.0)])):
        fitted = GPSurrogate(n_starts=2).fit(Dataset(X, y, WITH_KINDS, gradients=gradients))
        for choice, offset in enumerate(KINDS.values()):
            at = np.array([[x, choice] for x in (0.3, 0.9, 1.6)])
            assert fitted.predict(at) == pytest.approx(np.sin(2 * at[:, 0]) + offset, abs=0.05)
            assert fitted.gradient(at)[:, 0] == pytest.approx(2 * np.cos(2 * at[:, 0]), abs=0.3)
            assert fitted.gradient(at)[:, 1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("order", [("b", "c", "a"), ("c", "b", "a")])
def test_the_order_of_the_choices_does_not_matter(order: tuple[str, ...]) -> None:
    other = SearchSpace({"x": Float(0, 2), "kind": Categorical(order)})
    X = WITH_KINDS.decode(sample("sobol", 12, 2, seed=1))
    y = by_kind(X, list(KINDS.values()))
    there = np.array([other.point(WITH_KINDS.params(x)) for x in X])
    one = GPSurrogate(n_starts=2).fit(Dataset(X, y, WITH_KINDS))
    two = GPSurrogate(n_starts=2).fit(Dataset(there, y, other))
    beside = np.array([0.01, 0])
    assert two.predict(there + beside) == pytest.approx(one.predict(X + beside), abs=REORDERED * np.ptp(y))


# Functions drawn from the posterior


@pytest.mark.parametrize(
    ("kernel", "case"),
    [
        *((kernel, "values") for kernel in KERNELS),
        *((kernel, "choices") for kernel in ("matern12", "rbf")),
        *((kernel, "derivatives") for kernel in ("matern52", "rbf")),  # the tails of matern32's spectrum are too heavy
    ],
)
def test_draws_have_the_moments_of_the_posterior_and_gradients_of_their_own(kernel: str, case: str) -> None:
    if case == "choices":
        X = WITH_KINDS.decode(sample("sobol", 12, 2, seed=1))
        data, at = Dataset(X, by_kind(X, list(KINDS.values())), WITH_KINDS), X + np.array([0.05, 0])
    else:
        data, at = steep(), sample("sobol", 12, 2, seed=9)
        if case == "values":
            data = Dataset(data.X, data.y, CUBE)
    fitted = GPSurrogate(kernel=kernel, n_starts=1, noise_level=1e-2, fixed=("noise_level",)).fit(data)
    mean, std = fitted.predict(at), fitted.uncertainty(at)
    draws = fitted.draws(400, jax.random.key(1), n_features=128)
    values = draws(at)
    assert values.shape == (12, 400)
    assert (np.abs(values.mean(axis=1) - mean) < 5 * std / 20).all()
    assert values.std(axis=1) == pytest.approx(std, rel=0.25)
    few = fitted.draws(3)
    assert few(at[0]).shape == (3,)
    assert few.gradient(at[0]).shape == (3, 2)
    h = np.array([1e-6, 0])
    assert few.gradient(at)[:, :, 0] == pytest.approx((few(at + h) - few(at - h)) / 2e-6, rel=1e-3, abs=1e-3)


def test_draws_are_fixed_by_their_key_and_differ_from_each_other() -> None:
    fitted = GPSurrogate(n_starts=1).fit(steep())
    at = sample("sobol", 5, 2, seed=9)
    one, again, other = (fitted.draws(3, jax.random.key(seed))(at) for seed in (1, 1, 2))
    assert one.tobytes() == again.tobytes()
    assert one.tobytes() != other.tobytes()
    assert len({round(value, 9) for value in one[0]}) == 3
    assert (fitted.recalibrated(2.0).draws(3, jax.random.key(1))(at) - fitted.predict(at)[:, None]) == pytest.approx(
        2 * (one - fitted.predict(at)[:, None])
    )
    with pytest.raises(ValueError, match="n_draws: expected an integer >= 1, got 0"):
        fitted.draws(0)
