"""Surrogates: one contract that every kind meets, and what is exact about the Gaussian process."""

from __future__ import annotations

import os
import pickle
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import numpy as safetensors
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel
from tolerances import DIFFERENCES, GRADIENT, LIKELIHOOD, NEARBY, QUADRATURE, REORDERED, ROUNDING, SOLVE

from surrogate_core import Categorical, Dataset, Float, GPSurrogate, Integer, SearchSpace, load_surrogate
from surrogate_core.sampling import sample
from surrogate_core.surrogates.base import FittedSurrogate, Surrogate, bucket
from surrogate_core.surrogates.files import SURROGATES, surrogate_files
from surrogate_core.surrogates.gaussian_process import BOUNDS, _features, negative_log_posterior

# Beside its defaults, each kind is held to the contract with these.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "gaussian_process": [
        {"n_starts": 2},
        {"n_starts": 2, "kernel": "matern32", "transform": "log"},
        {"n_starts": 1, "kernel": "matern12", "prior": "flat", "length_scale": 0.5, "noise_level": 1e-4},
        {"n_starts": 2, "kernel": "rbf", "prior": "flat", "transform": "log"},
    ]
}
# Few shapes are used throughout, for each is compiled: fits and predictions of at most 64 rows.
CONTRACT = [SURROGATES[kind](**changes) for kind in SURROGATES for changes in VARIANTS.get(kind, [{}])]
contract = pytest.mark.parametrize("spec", CONTRACT, ids=str)

SPACE = SearchSpace({"rate": Float(1e-4, 1e-1, log=True), "n": Integer(1, 40)})
CUBE = SearchSpace.from_bounds([(0, 1)] * 2)


def smooth(U: np.ndarray) -> np.ndarray:
    """A positive function of the unit cube that spans magnitudes."""
    return np.exp(np.sin(3 * U[:, 0]) + 2 * (U[:, 1] - 0.4) ** 2)


def measured() -> Dataset:
    """14 rows of which the first and the last have failed."""
    X = SPACE.decode(sample("sobol", 14, 2, seed=1))
    y = smooth(SPACE.encode(X))
    y[[0, -1]] = np.nan
    return Dataset(X, y, SPACE)


def points(n: int = 7) -> np.ndarray:
    """Away from the rows, and not on whole numbers."""
    return SPACE.decode(sample("sobol", n, 2, seed=2)) * np.array([1.0, 1.01])


@cache
def fit(spec: Surrogate) -> FittedSurrogate:
    return spec.fit(measured(), jax.random.key(3))


def differences(f: Callable[[np.ndarray], np.ndarray], x: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Central differences of f: (n, d) -> (n,) at one point, with a step for each of d."""
    steps = np.diag(h)
    return (f(x + steps) - f(x - steps)) / (2 * h)


@contract
def test_the_gradient_is_that_of_the_prediction_in_the_problems_units(spec: Surrogate) -> None:
    fitted = fit(spec)
    X = points()
    gradient = fitted.gradient(X)
    for x, found in zip(X, gradient, strict=True):
        expected = differences(fitted.predict, x, h=1e-5 / SPACE.slope(x))
        assert found / SPACE.slope(x) == pytest.approx(
            expected / SPACE.slope(x), rel=DIFFERENCES, abs=DIFFERENCES * np.abs(expected / SPACE.slope(x)).max()
        )


@contract
def test_one_point_and_many_agree(spec: Surrogate) -> None:
    fitted = fit(spec)
    X = points()
    y = fitted.predict(X)
    lower, upper = fitted.interval(X)
    many = [fitted.predict(X), fitted.uncertainty(X), fitted.gradient(X), lower, upper, fitted.log_density(X, y)]
    assert [part.shape for part in many] == [(7,), (7,), (7, 2), (7,), (7,), (7,)]
    for i, x in enumerate(X):
        low, high = fitted.interval(x)
        one = [fitted.predict(x), fitted.uncertainty(x), fitted.gradient(x), low, high, fitted.log_density(x, y[i])]
        assert [np.shape(part) for part in one] == [(), (), (2,), (), (), ()]
        for alone, together in zip(one, many, strict=True):
            assert alone == pytest.approx(together[i], rel=ROUNDING)
    assert fitted.predict(X.tolist()).tolist() == y.tolist()


@contract
def test_no_points_are_no_predictions(spec: Surrogate) -> None:
    fitted = fit(spec)
    assert fitted.predict(np.empty((0, 2))).shape == fitted.uncertainty(np.empty((0, 2))).shape == (0,)
    assert fitted.gradient(np.empty((0, 2))).shape == (0, 2)


@contract
def test_numbers_are_of_64_bits_though_jax_has_32(spec: Surrogate) -> None:
    found: list[Any] = []

    def use() -> None:
        fitted = spec.fit(measured(), jax.random.key(3))
        X = points()
        told = [fitted.predict(X), fitted.uncertainty(X), fitted.gradient(X), *fitted.interval(X)]
        leaves = [fitted.log_density(X, told[0]), *jax.tree.leaves(fitted.state)]
        found.append((*told, *leaves))
        # Nothing has been switched on, neither here nor for what comes after.
        assert not jax.config.jax_enable_x64
        assert jnp.zeros(1).dtype == jnp.float32

    use()
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    here, there = found
    for one, other in zip(here, there, strict=True):
        assert isinstance(one, np.ndarray | np.float64)
        assert one.dtype == np.float64
        assert one.tobytes() == other.tobytes()


@contract
def test_a_key_fixes_every_bit_and_without_one_there_is_a_fixed_one(spec: Surrogate) -> None:
    def files(key: Any) -> dict[str, bytes]:
        return surrogate_files(spec.fit(measured(), key))

    assert files(jax.random.key(3)) == surrogate_files(fit(spec))
    assert files(None) == files(jax.random.key(0))


@contract
def test_a_fitted_surrogate_is_a_pytree(spec: Surrogate) -> None:
    fitted = fit(spec)
    again = jax.tree.map(lambda leaf: leaf, fitted)
    assert again.predict(points()).tolist() == fitted.predict(points()).tolist()
    assert (again.spec, again.space) == (spec, SPACE)


@contract
def test_a_saved_surrogate_predicts_bit_for_bit(spec: Surrogate, tmp_path: Path) -> None:
    fitted, X = fit(spec), points()
    fitted.save(tmp_path / "some" / "model")
    again = load_surrogate(str(tmp_path / "some" / "model"))
    assert (again.spec, again.space, again.diagnostics) == (spec, SPACE, fitted.diagnostics)
    for told in ("predict", "uncertainty", "gradient"):
        assert getattr(again, told)(X).tobytes() == getattr(fitted, told)(X).tobytes()
    assert again.interval(X)[0].tobytes() == fitted.interval(X)[0].tobytes()
    assert surrogate_files(again) == surrogate_files(fitted)


@contract
def test_a_saved_surrogate_is_json_and_arrays(spec: Surrogate, tmp_path: Path) -> None:
    fit(spec).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    about = orjson.loads((tmp_path / "model.json").read_bytes())
    assert about["surrogate"] == spec.to_config()
    arrays = (tmp_path / "model.safetensors").read_bytes()
    orjson.loads(arrays[8 : 8 + int.from_bytes(arrays[:8], "little")])
    with pytest.raises((pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError)):
        pickle.loads(arrays)


@contract
def test_rows_in_another_order_change_the_prediction_little(spec: Surrogate) -> None:
    rows = measured()
    shuffled = rows.take(np.random.default_rng(0).permutation(rows.n_samples))
    spread = np.ptp(rows.ok.y)
    again = spec.fit(shuffled, jax.random.key(3))
    assert again.predict(points()) == pytest.approx(fit(spec).predict(points()), abs=REORDERED * spread)


@contract
def test_failed_rows_teach_nothing(spec: Surrogate) -> None:
    assert surrogate_files(spec.fit(measured().ok, jax.random.key(3))) == surrogate_files(fit(spec))


@contract
def test_the_data_are_learned(spec: Surrogate) -> None:
    fitted = fit(spec)
    U = sample("sobol", 64, 2, seed=5)
    X = SPACE.decode(U)
    y = smooth(SPACE.encode(X))
    assert np.corrcoef(fitted.predict(X), y)[0, 1] > 0.6


@contract
def test_uncertainty_is_small_at_the_data_and_larger_away_from_it(spec: Surrogate) -> None:
    corner = 0.4 * sample("sobol", 12, 2, seed=1)
    y = smooth(corner)
    fitted = spec.fit(Dataset(corner, y, CUBE), jax.random.key(3))
    at_data, away = fitted.uncertainty(corner[:8]), fitted.uncertainty(0.8 + 0.5 * corner[:8])
    assert (at_data >= 0).all()
    assert at_data.max() < 0.1 * np.ptp(y)
    assert away.min() > at_data.max()


@contract
def test_an_interval_holds_the_median_and_grows_with_its_level(spec: Surrogate) -> None:
    fitted, X = fit(spec), points()
    median, upper_median = fitted.interval(X, level=0.0)
    assert median == pytest.approx(upper_median, rel=ROUNDING)
    inner, outer = fitted.interval(X, level=0.5), fitted.interval(X)
    assert (outer[0] < inner[0]).all()
    assert (inner[0] < median).all()
    assert (median < inner[1]).all()
    assert (inner[1] < outer[1]).all()
    if spec.transform == "log":
        assert (outer[0] > 0).all()
    assert fitted.interval(X, level=0.95)[0].tolist() == outer[0].tolist()


@contract
def test_the_density_integrates_to_the_level_of_an_interval(spec: Surrogate) -> None:
    fitted = fit(spec)
    nodes, weights = np.polynomial.legendre.leggauss(64)
    for x in points(3):
        for level in (0.95, 1 - 1e-9):
            low, high = fitted.interval(x, level)
            if spec.transform == "log":  # on a logarithmic scale, where the density is smooth
                y = np.exp(np.log(low * high) / 2 + np.log(high / low) / 2 * nodes)
                by = y * np.log(high / low) / 2
            else:
                y, by = (low + high) / 2 + (high - low) / 2 * nodes, (high - low) / 2
            density = np.exp(fitted.log_density(np.tile(x, (64, 1)), y))
            assert np.sum(weights * by * density) == pytest.approx(level, abs=QUADRATURE)


@contract
def test_a_value_that_the_transform_rules_out_has_no_density(spec: Surrogate) -> None:
    density = fit(spec).log_density(points(3), np.array([-1.0, 0.0, 1.0]))
    assert np.isfinite(density).tolist() == ([False, False, True] if spec.transform == "log" else [True] * 3)
    assert not np.isnan(density).any()


DEGENERATE = {
    "one row": ([[0.3, 0.6]], [2.0]),
    "a row twice": ([[0.3, 0.6]] * 2, [2.0, 2.0]),
    "a row twice, with two values": ([[0.3, 0.6]] * 2, [2.0, 3.0]),
    "many rows twice": (np.repeat([[0.1, 0.2], [0.5, 0.9], [0.9, 0.4]], 2, axis=0), [1.0, 1.0, 2.0, 2.0, 4.0, 4.1]),
    "nearly the same row": ([[0.3, 0.6], [0.3 + 1e-9, 0.6], [0.7, 0.1]], [2.0, 2.1, 1.0]),
    "constant y": (sample("sobol", 8, 2, seed=0), [3.0] * 8),
    "y constant up to rounding": (sample("sobol", 8, 2, seed=0), 3.0 + 4e-16 * np.arange(8)),
    "a constant column": ([[0.1, 0.5], [0.4, 0.5], [0.9, 0.5]], [1.0, 2.0, 4.0]),
    "an outlier": (sample("sobol", 8, 2, seed=0), [1.0] * 7 + [1e8]),
    "tiny values": (sample("sobol", 8, 2, seed=0), 1e-9 * (1 + np.arange(8))),
    "corners": ([[0, 0], [0, 1], [1, 0], [1, 1]], [1.0, 2.0, 3.0, 5.0]),
}


@contract
@pytest.mark.parametrize("case", DEGENERATE)
def test_poor_data_give_a_finite_surrogate(spec: Surrogate, case: str) -> None:
    X, y = DEGENERATE[case]
    fitted = spec.fit(Dataset(np.array(X, dtype=float), y, CUBE))
    at = np.array([[0.0, 0.0], [0.3, 0.6], [0.51, 0.49], [1.0, 1.0]])
    lower, upper = fitted.interval(at)
    for told in (fitted.predict(at), fitted.uncertainty(at), fitted.gradient(at), lower, upper):
        assert np.isfinite(told).all()
    assert (fitted.uncertainty(at) >= 0).all()
    assert (lower < upper).all()
    if np.ptp(y) < ROUNDING:
        assert fitted.interval(at, level=0)[0] == pytest.approx(np.full(4, np.mean(y)), rel=SOLVE)


@contract
def test_there_must_be_something_to_fit(spec: Surrogate) -> None:
    nothing = Dataset([[0.5, 0.5], [0.1, 0.1]], [np.nan, np.nan], CUBE)
    with pytest.raises(ValueError, match="fit: expected at least one ok row, got none among 2"):
        spec.fit(nothing)


@contract
def test_a_logarithm_needs_positive_values_and_says_which_it_got(spec: Surrogate) -> None:
    for worst in (0.0, -2.5):
        with pytest.raises(ValueError, match=f"transform: expected values above 0 for 'log', got {worst:g}"):
            replace(spec, transform="log").fit(Dataset([[0.5, 0.5], [0.1, 0.1]], [1.0, worst], CUBE))


@contract
@pytest.mark.parametrize("told", ["predict", "uncertainty", "gradient", "interval"])
@pytest.mark.parametrize("shape", [(), (3,), (4, 1), (2, 2, 2)])
def test_points_of_a_wrong_shape_are_refused_with_their_shape(
    spec: Surrogate, told: str, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"expected shape \(2,\) or \(n, 2\), got ") as raised:
        getattr(fit(spec), told)(np.full(shape, 0.5))
    assert str(raised.value).endswith(f"got {shape}")


@contract
def test_a_spec_is_told_by_its_config_and_by_what_differs_from_the_defaults(spec: Surrogate) -> None:
    config = spec.to_config()
    assert SURROGATES[config.pop("kind")](**config) == spec
    assert hash(replace(spec)) == hash(spec)
    assert str(spec).startswith(spec.kind)
    assert "transform=log" in str(replace(spec, transform="log"))
    assert "transform" not in str(replace(spec, transform="standardize"))


@pytest.mark.parametrize("kind", SURROGATES)
def test_an_unknown_transform_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"transform: expected .*got 'sqrt'"):
        SURROGATES[kind](transform="sqrt")


# Files


def saved(folder: Path) -> Path:
    fit(CONTRACT[0]).save(folder)
    return folder


def about_with(**changes: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "model.json"
        path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), **changes}))

    return spoil


def other_dimension(folder: Path) -> None:
    path = folder / "model.safetensors"
    arrays = safetensors.load_file(path)
    safetensors.save_file({**arrays, "U": np.hstack([arrays["U"]] * 2)}, path)


def cut(name: str, n: int) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        os.truncate(folder / name, n)

    return spoil


def put(name: str, content: bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return spoil


def without(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).unlink()

    return spoil


def folder_instead(folder: Path) -> None:
    (folder / "model.json").unlink()
    (folder / "model.json").mkdir()


SPOILT: dict[str, Callable[[Path], None]] = {
    "no model.json": without("model.json"),
    "no model.safetensors": without("model.safetensors"),
    "a folder for a file": folder_instead,
    "empty json": cut("model.json", 0),
    "json cut short": cut("model.json", 100),
    "empty arrays": cut("model.safetensors", 0),
    "arrays cut short": cut("model.safetensors", 300),
    "arrays cut within the header": cut("model.safetensors", 20),
    "a pickle for arrays": put("model.safetensors", pickle.dumps({"a": 1})),
    "a pickle for json": put("model.json", pickle.dumps({"a": 1})),
    "a list for json": put("model.json", b"[]"),
    "a number for json": put("model.json", b"5"),
    "an empty object": put("model.json", b"{}"),
    "another schema": about_with(schema=99),
    "an unknown kind": about_with(surrogate={"kind": "oracle"}),
    "no kind": about_with(surrogate={}),
    "a list for the kind": about_with(surrogate={"kind": []}),
    "a list for the spec": about_with(surrogate=[]),
    "an unknown field": about_with(surrogate={"kind": "gaussian_process", "colour": "red"}),
    "a wrong value": about_with(surrogate={"kind": "gaussian_process", "n_starts": "many"}),
    "a wrong kernel": about_with(surrogate={"kind": "gaussian_process", "kernel": ["rbf"]}),
    "no space": about_with(space={}),
    "a list for the space": about_with(space=[]),
    "a number for a variable": about_with(space={"x": 1}),
    "an unknown variable": about_with(space={"x": {"type": "colour"}}),
    "a list for diagnostics": about_with(diagnostics=[1]),
    "arrays of another model": other_dimension,
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_model_is_one_error_that_names_the_folder(case: str, tmp_path: Path) -> None:
    SPOILT[case](saved(tmp_path))
    with pytest.raises(ValueError, match="^" + str(tmp_path)):
        load_surrogate(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=str(tmp_path / "nowhere")):
        load_surrogate(tmp_path / "nowhere")


def test_a_damaged_byte_of_the_arrays_is_found(tmp_path: Path) -> None:
    content = (saved(tmp_path) / "model.safetensors").read_bytes()
    for i in range(0, len(content), 101):
        put("model.safetensors", content[:i] + bytes([content[i] ^ 0x55]) + content[i + 1 :])(tmp_path)
        with pytest.raises(ValueError, match="^" + str(tmp_path)):
            load_surrogate(tmp_path)


def test_numbers_of_numpy_in_a_spec_can_be_saved(tmp_path: Path) -> None:
    spec = GPSurrogate(n_starts=1, length_scale=np.float64(0.5), max_iterations=np.int64(5))
    fitted = spec.fit(measured())
    fitted.save(tmp_path)
    assert load_surrogate(tmp_path).spec == spec


# The Gaussian process

KERNELS = ("matern52", "matern32", "matern12", "rbf")
THEIRS: dict[str, Callable[[float | list[float]], Any]] = {
    "matern52": lambda scales: Matern(scales, length_scale_bounds=BOUNDS[0], nu=2.5),
    "matern32": lambda scales: Matern(scales, length_scale_bounds=BOUNDS[0], nu=1.5),
    "matern12": lambda scales: Matern(scales, length_scale_bounds=BOUNDS[0], nu=0.5),
    "rbf": lambda scales: RBF(scales, length_scale_bounds=BOUNDS[0]),
}


def textbook(kernel: str, r: np.ndarray) -> np.ndarray:
    """Rasmussen & Williams (2006), eqs. 4.9, 4.17, by the scaled distance."""
    if kernel == "rbf":
        return np.exp(-(r**2) / 2)
    if kernel == "matern12":
        return np.exp(-r)
    if kernel == "matern32":
        return (1 + np.sqrt(3) * r) * np.exp(-np.sqrt(3) * r)
    return (1 + np.sqrt(5) * r + 5 * r**2 / 3) * np.exp(-np.sqrt(5) * r)


def textbook_covariance(kernel: str, theta: np.ndarray, U: np.ndarray) -> np.ndarray:
    *l, s2, e = np.exp(theta)
    return s2 * textbook(kernel, cdist(U / l, U / l)) + e * np.eye(len(U))


THETAS = np.log([[0.3, 0.7, 1.3, 1e-3], [0.05, 3.0, 0.2, 1e-1], [2.0, 2.0, 30.0, 1e-4]])


PLAIN = np.arange(2)  # two numbers: each feature is a variable of its own


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_gradient_by_hand_is_that_of_the_posterior(kernel: str) -> None:
    n, N = 10, 12
    U = np.zeros((N, 2))
    U[:n] = sample("sobol", n, 2, seed=4)
    z = np.where(np.arange(N) < n, np.sin(5 * U[:, 0]) + U[:, 1], 0.0)
    rest = (
        U,
        PLAIN,
        z,
        (np.arange(N) < n).astype(float),
        np.array([0.2, 0.2, 0.0, -5.0]),
        np.array([0.5, 0.5, 1.0, 0.1]),
    )
    with jax.enable_x64(True):
        automatic = jax.jit(jax.grad(lambda theta: negative_log_posterior(kernel, theta, *rest)[0]))
        for theta in THETAS:
            expected = np.asarray(automatic(theta))
            by_hand = np.asarray(negative_log_posterior(kernel, theta, *rest)[1])
            assert by_hand == pytest.approx(expected, rel=GRADIENT, abs=GRADIENT * np.abs(expected).max())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("apart", [0.0, 1e-9, 1e-4])
def test_the_gradient_by_hand_stands_rows_that_are_nearly_one(kernel: str, apart: float) -> None:
    U = sample("sobol", 12, 2, seed=4)
    U[1] = U[0] + apart
    z = np.sin(5 * U[:, 0]) + U[:, 1]

    def value(thetas: np.ndarray) -> np.ndarray:
        covariances = [textbook_covariance(kernel, theta, U) for theta in thetas]
        return np.array([-multivariate_normal(np.zeros(12), K).logpdf(z) for K in covariances])

    for theta in THETAS:
        with jax.enable_x64(True):
            by_hand = np.asarray(negative_log_posterior(kernel, theta, U, PLAIN, z, np.ones(12), *[np.zeros(4)] * 2)[1])
        expected = differences(value, theta, h=np.full(4, 1e-4))
        assert by_hand == pytest.approx(expected, rel=NEARBY, abs=NEARBY * np.abs(expected).max())


@pytest.mark.parametrize("kernel", [*KERNELS, "matern"])  # the last is matern52 by another name
@pytest.mark.parametrize("n", [1, 5, 8])
def test_the_likelihood_is_that_of_the_normal_distribution_whatever_the_padding(kernel: str, n: int) -> None:
    U, z = np.full((8, 2), 0.5), np.zeros(8)
    U[:n] = sample("sobol", n, 2, seed=4)
    z[:n] = np.cos(4 * U[:n, 0]) - U[:n, 1]
    theta, flat = np.log([0.4, 0.9, 1.7, 1e-3]), np.zeros(4)
    K = textbook_covariance(kernel, theta, U[:n])
    with jax.enable_x64(True):
        value = negative_log_posterior(kernel, theta, U, PLAIN, z, (np.arange(8) < n) * 1.0, flat, flat)[0]
    assert float(value) == pytest.approx(-multivariate_normal(np.zeros(n), K).logpdf(z[:n]), rel=SOLVE)


@pytest.mark.parametrize("spec", [spec for spec in CONTRACT if isinstance(spec, GPSurrogate)], ids=str)
@pytest.mark.parametrize("n", [6, 8, 9, 12])  # in buckets of 8 and of 12
def test_the_prediction_is_that_of_the_textbook_whatever_the_padding(spec: GPSurrogate, n: int) -> None:
    U = sample("sobol", n, 2, seed=1)
    y = smooth(U)
    fitted = spec.fit(Dataset(U, y, CUBE))
    told = fitted.diagnostics
    l, s2, e = np.array(list(told["lengthscales"].values())), told["output_scale"], told["noise"]
    at = sample("random", 5, 2, seed=2)
    g = np.log(y) if spec.transform == "log" else y
    K = cho_factor(s2 * textbook(spec.kernel, cdist(U / l, U / l)) + e * np.eye(n), lower=True)
    k = s2 * textbook(spec.kernel, cdist(at / l, U / l))
    mean = g.mean() + g.std() * k @ cho_solve(K, (g - g.mean()) / g.std())  # eq. 2.25
    variance = g.var() * (s2 - np.sum(k * cho_solve(K, k.T).T, axis=1))  # eq. 2.26
    if spec.transform == "log":
        y_mean, y_std = np.exp(mean + variance / 2), np.exp(mean + variance / 2) * np.sqrt(np.expm1(variance))
    else:
        y_mean, y_std = mean, np.sqrt(variance)
    assert fitted.predict(at) == pytest.approx(y_mean, rel=GRADIENT)
    assert fitted.uncertainty(at) == pytest.approx(y_std, rel=GRADIENT, abs=GRADIENT * np.ptp(y))


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


def test_more_starts_do_not_end_worse() -> None:
    few, many = (GPSurrogate(n_starts=n).fit(measured()).diagnostics for n in (1, 6))
    assert many["negative_log_posterior"] <= few["negative_log_posterior"] + SOLVE
    assert len(many["start_values"]) == 6
    assert min(many["start_values"]) == many["negative_log_posterior"]


def test_noise_is_found_where_it_is() -> None:
    U = sample("sobol", 30, 2, seed=1)
    clean = np.sin(6 * U[:, 0]) + U[:, 1]
    noisy = clean + 0.3 * np.random.default_rng(0).standard_normal(30)
    quiet, loud = (GPSurrogate(n_starts=2).fit(Dataset(U, y, CUBE)) for y in (clean, noisy))
    assert quiet.diagnostics["noise"] < 1e-3 < 1e-2 < loud.diagnostics["noise"]
    lower, upper = loud.interval(U)
    assert 0.8 <= np.mean((lower <= noisy) & (noisy <= upper)) <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": "matern53"}, "kernel: expected one of matern52, .*got 'matern53'"),
        ({"kernel": None}, "kernel: .*got None"),
        ({"prior": "falt"}, "prior: expected .*got 'falt'"),
        ({"n_starts": 0}, "n_starts: expected an integer >= 1, got 0"),
        ({"max_iterations": 0}, "max_iterations: expected an integer >= 1, got 0"),
        ({"length_scale": 0.0}, "length_scale: expected a number from 0.005 to 200, got 0.0"),
        ({"length_scale": float("nan")}, "length_scale: .*got nan"),
        ({"noise_level": 2.0}, "noise_level: expected a number from 1e-08 to 1, got 2.0"),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_told(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GPSurrogate(**arguments)


@given(st.integers(0, 10**6))
def test_a_bucket_holds_its_rows_and_wastes_at_most_half(n: int) -> None:
    assert n <= bucket(n) <= max(64, 1.5 * n)
    assert bucket(bucket(n)) == bucket(n)


def test_buckets_are_few() -> None:
    assert sorted({bucket(n) for n in range(1, 201)}) == [64, 96, 128, 192, 256]


# Categorical variables

KINDS = {"a": 0.0, "b": 3.0, "c": -1.0}
WITH_KINDS = SearchSpace({"x": Float(0, 2), "kind": Categorical(list(KINDS))})


def by_kind(X: np.ndarray, offsets: list[float]) -> np.ndarray:
    return np.sin(2 * X[:, 0]) + np.array(offsets)[X[:, 1].astype(int)]


def test_a_choice_is_learned_and_the_gradient_is_that_within_it() -> None:
    X = WITH_KINDS.decode(sample("sobol", 24, 2, seed=1))
    fitted = GPSurrogate(n_starts=2).fit(Dataset(X, by_kind(X, list(KINDS.values())), WITH_KINDS))
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


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_gradient_by_hand_holds_for_choices_too(kernel: str) -> None:
    U = WITH_KINDS.encode(WITH_KINDS.decode(sample("sobol", 12, 2, seed=4)))
    F, group = _features(U, WITH_KINDS.n_choices)
    assert F.shape == (12, 4)
    assert group.tolist() == [0, 1, 1, 1]
    z = np.sin(5 * U[:, 0]) + U[:, 1]
    rest = F, group, z, np.ones(12), np.array([0.2, 0.2, 0.0, -5.0]), np.array([0.5, 0.5, 1.0, 0.1])
    with jax.enable_x64(True):
        automatic = jax.jit(jax.grad(lambda theta: negative_log_posterior(kernel, theta, *rest)[0]))
        for theta in THETAS:
            expected = np.asarray(automatic(theta))
            by_hand = np.asarray(negative_log_posterior(kernel, theta, *rest)[1])
            assert by_hand == pytest.approx(expected, rel=GRADIENT, abs=GRADIENT * np.abs(expected).max())
