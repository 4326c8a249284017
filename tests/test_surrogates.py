"""Surrogates: one contract that every kind meets, and what is exact about the Gaussian process."""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
import threading
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
from compilations import compilations
from hypothesis import given
from hypothesis import strategies as st
from safetensors import numpy as safetensors
from tolerances import DIFFERENCES, QUADRATURE, ROUNDING

from surrogate_core import Dataset, Float, GPSurrogate, Integer, SearchSpace, load_surrogate
from surrogate_core.sampling import sample
from surrogate_core.surrogates.base import FittedSurrogate, Surrogate
from surrogate_core.surrogates.files import SURROGATES, surrogate_files
from surrogate_core.surrogates.support import bucket

# Beside its defaults, each kind is held to the contract with these.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "gaussian_process": [
        {"n_starts": 2},
        {"n_starts": 2, "kernel": "matern32", "transform": "log"},
        {"n_starts": 1, "kernel": "matern12", "prior": "flat", "length_scale": 0.5, "noise_level": 1e-4},
        {"n_starts": 2, "kernel": "rbf", "output_scale": "unit", "transform": "yeo_johnson"},
        {"n_starts": 2, "kernel": "auto", "transform": "auto"},
        {"n_starts": 2, "max_exact": 2, "n_inducing": 24},
    ],
    "neural_network": [{}, {"ensemble_size": 5, "activation": "gelu", "transform": "log"}],
    "auto": [{"budget": 1.0}],  # two candidates
    "hybrid": [
        {"members": [{"kind": "gaussian_process", "n_starts": 2}, {"kind": "random_forest", "n_estimators": 20}]},
        {"members": ["gaussian_process", {"kind": "random_forest", "n_estimators": 20}], "transform": "log"},
    ],
    "random_forest": [{}, {"n_estimators": 50, "max_depth": 5, "temperature": 0.01, "transform": "yeo_johnson"}],
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
        assert one.dtype.itemsize == 8 or one.dtype == bool
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
    assert (again.asked, again.spec, again.space) == (spec, fitted.spec, SPACE)


@contract
def test_a_saved_surrogate_predicts_bit_for_bit(spec: Surrogate, tmp_path: Path) -> None:
    fitted, X = fit(spec), points()
    fitted.save(tmp_path / "some" / "model")
    again = load_surrogate(str(tmp_path / "some" / "model"))
    assert (again.asked, again.spec) == (spec, fitted.spec)
    assert (again.space, again.diagnostics) == (SPACE, fitted.diagnostics)
    for told in ("predict", "uncertainty", "gradient"):
        assert getattr(again, told)(X).tobytes() == getattr(fitted, told)(X).tobytes()
    assert again.interval(X)[0].tobytes() == fitted.interval(X)[0].tobytes()
    assert surrogate_files(again) == surrogate_files(fitted)


@contract
def test_a_saved_surrogate_is_json_and_arrays(spec: Surrogate, tmp_path: Path) -> None:
    fit(spec).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    about = orjson.loads((tmp_path / "model.json").read_bytes())
    assert about["asked"] == orjson.loads(orjson.dumps(spec.to_config()))
    arrays = (tmp_path / "model.safetensors").read_bytes()
    orjson.loads(arrays[8 : 8 + int.from_bytes(arrays[:8], "little")])
    with pytest.raises((pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError)):
        pickle.loads(arrays)


@contract
def test_rows_in_another_order_change_no_bit(spec: Surrogate) -> None:
    rows = measured()
    shuffled = rows.take(np.random.default_rng(0).permutation(rows.n_samples))
    assert surrogate_files(spec.fit(shuffled, jax.random.key(3))) == surrogate_files(fit(spec))


@contract
def test_a_fit_that_goes_on_from_one_to_fewer_rows_predicts_as_well_as_a_new_one(spec: Surrogate) -> None:
    U, at = sample("sobol", 36, 2, seed=1), sample("sobol", 64, 2, seed=5)
    rows = Dataset(U, smooth(U), CUBE)
    before = spec.fit(rows.take(range(30)), jax.random.key(3))
    fits = spec.fit(rows, jax.random.key(3), before), spec.fit(rows, jax.random.key(3))
    assert {fitted.asked for fitted in fits} == {spec}
    on, anew = (np.sqrt(np.mean((fitted.predict(at) - smooth(at)) ** 2)) for fitted in fits)
    assert on < 1.5 * anew + 1e-3 * np.ptp(rows.y)


@contract
def test_nothing_is_compiled_again_within_a_bucket(spec: Surrogate) -> None:
    rows = measured().ok
    before = spec.fit(rows.take(range(11)), jax.random.key(3))
    for told in ("predict", "uncertainty", "gradient", "extrapolation"):
        getattr(before, told)(points())
    with compilations() as compiled:
        later = replace(before.spec).fit(rows, jax.random.key(3), before)
        (
            later.predict(points(9)),
            later.uncertainty(points(9)),
            later.gradient(points(9)),
            later.extrapolation(points(9)),
        )
        assert not compiled
        jax.jit(lambda x: x + 2.5)(np.ones(17))
        assert compiled  # the listener hears what is compiled


@contract
def test_a_row_is_at_no_distance_from_the_data_and_what_is_far_is_beyond_its_edge(spec: Surrogate) -> None:
    fitted = fit(spec)
    corner = 0.3 * sample("sobol", 16, 2, seed=1)
    there = spec.fit(Dataset(corner, smooth(corner), CUBE), jax.random.key(3))
    assert fitted.extrapolation(measured().ok.X) == pytest.approx(np.zeros(12), abs=1e-6)
    assert (there.extrapolation(0.3 * sample("sobol", 64, 2, seed=5)) <= 1).mean() > 0.7
    assert (there.extrapolation(0.9 + 0.1 * sample("sobol", 64, 2, seed=5)) > 1).all()
    assert fitted.extrapolation(points()[0]).shape == ()


@contract
def test_a_stretch_of_the_deviations_changes_no_mean_of_a_symmetric_prediction(spec: Surrogate) -> None:
    fitted, X = fit(spec), points()
    wide = fitted.recalibrated(3.0)
    low, high = fitted.interval(X)
    wide_low, wide_high = wide.interval(X)
    assert ((wide_low < low) & (high < wide_high)).all()
    assert (wide.uncertainty(X) > fitted.uncertainty(X)).all()
    if wide.spec.transform == "standardize":
        assert wide.predict(X) == pytest.approx(fitted.predict(X), rel=ROUNDING)
        assert wide.uncertainty(X) == pytest.approx(3 * fitted.uncertainty(X), rel=ROUNDING)
    twice = wide.recalibrated(1 / 3)
    assert twice.uncertainty(X) == pytest.approx(fitted.uncertainty(X), rel=1e-6)


@contract
def test_the_crps_is_the_mean_distance_less_half_the_spread(spec: Surrogate) -> None:
    expected = fit(spec).predictive(points(3))
    levels = (np.arange(500) + 0.5) / 500
    y = np.array([2.0, 0.5, 3.0])
    draws = np.array([expected.interval(abs(2 * q - 1))[int(q > 0.5)] for q in levels])
    for told, of_point, at in zip(expected.crps(y), draws.T, y, strict=True):
        spread = np.abs(of_point[:, None] - of_point).mean()
        assert told == pytest.approx(np.abs(of_point - at).mean() - spread / 2, rel=0.05, abs=0.01 * of_point.std())


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
    assert at_data.max() < 0.15 * np.ptp(y)
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
    if fitted.spec.transform == "log":
        assert (outer[0] > 0).all()
    assert fitted.interval(X, level=0.95)[0].tolist() == outer[0].tolist()


@contract
def test_the_density_integrates_to_the_level_of_an_interval(spec: Surrogate) -> None:
    fitted = fit(spec)
    nodes, weights = np.polynomial.legendre.leggauss(64)

    def integral(x: np.ndarray, low: float, high: float) -> float:
        if fitted.spec.transform == "log":  # on a logarithmic scale, where the density is smooth
            y = np.exp(np.log(low * high) / 2 + np.log(high / low) / 2 * nodes)
            by = y * np.log(high / low) / 2
        else:
            y, by = (low + high) / 2 + (high - low) / 2 * nodes, (high - low) / 2
        return float(np.sum(weights * by * np.exp(fitted.log_density(np.tile(x, (64, 1)), y))))

    kinks = [fitted.state.output.center] if fitted.spec.transform == "yeo_johnson" else []  # where its branches meet
    for x in points(3):
        for level in (0.95, 1 - 1e-9):
            low, high = fitted.interval(x, level)
            ends = [low, *(kink for kink in kinks if low < kink < high), high]
            total = sum(integral(x, *part) for part in itertools.pairwise(ends))
            assert total == pytest.approx(level, abs=QUADRATURE)


@contract
def test_a_value_that_the_transform_rules_out_has_no_density(spec: Surrogate) -> None:
    density = fit(spec).log_density(points(3), np.array([-1.0, 0.0, 1.0]))
    logarithmic = fit(spec).spec.transform == "log"
    assert np.isfinite(density).tolist() == ([False, False, True] if logarithmic else [True] * 3)
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
    "tiny values": (sample("sobol", 8, 2, seed=0), 1e-200 * (1 + np.arange(8))),
    "corners": ([[0, 0], [0, 1], [1, 0], [1, 1]], [1.0, 2.0, 3.0, 5.0]),
}


@contract
def test_what_a_fit_takes_is_estimated_and_grows_with_the_rows(spec: Surrogate) -> None:
    told = [spec.estimate(n, 5) for n in (10, 100, 1000, 10_000, 100_000)]
    for part in zip(*told, strict=True):
        assert np.isfinite(part).all()
        assert (np.diff(part) >= 0).all()
    assert told[0].memory_mb > 10
    assert 0 < told[0].seconds < told[-1].seconds


@contract
def test_values_whose_squares_overflow_are_refused(spec: Surrogate) -> None:
    with pytest.raises(ValueError, match=r"^fit: expected values no larger than 1e\+100, got 2e\+200$"):
        spec.fit(Dataset(sample("sobol", 6, 2, seed=0), [1e200, 1.0, 2.0, 1.5, 2e200, 1.0], CUBE))


@pytest.mark.parametrize("spec", [spec for spec in CONTRACT if spec.transform in ("standardize", "log")], ids=str)
def test_the_derivatives_of_an_outlier_are_not_learned(spec: Surrogate) -> None:
    U = sample("sobol", 12, 2, seed=0)
    y, G = smooth(U), np.ones((12, 2))
    y[4], G[4] = 1e90, 1e90
    fits = [spec.fit(Dataset(U, y, CUBE, gradients=G))]
    G[4] = np.nan
    fits.append(spec.fit(Dataset(U, y, CUBE, gradients=G)))
    once, again = (fitted.predict(U) for fitted in fits)
    assert once.tolist() == again.tolist()


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
        assert fitted.interval(at, level=0)[0] == pytest.approx(np.full(4, np.mean(y)), rel=1e-8)


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
    config = orjson.loads(orjson.dumps(spec.to_config()))
    assert SURROGATES[config.pop("kind")](**config) == spec
    assert hash(replace(spec)) == hash(spec)
    assert str(spec).startswith(spec.kind)
    assert "transform=log" in str(replace(spec, transform="log"))
    assert "transform" not in str(replace(spec, transform=type(spec)().transform))


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


# Programs


@given(st.integers(0, 10**6))
def test_a_bucket_holds_its_rows_and_wastes_at_most_half(n: int) -> None:
    assert n <= bucket(n) <= max(64, 1.5 * n)
    assert bucket(bucket(n)) == bucket(n)


def test_buckets_are_few() -> None:
    assert sorted({bucket(n) for n in range(1, 201)}) == [64, 96, 128, 192, 256]


def test_fits_never_hang() -> None:
    """A process of its own, since what hangs within compiled code ends no test; the last line names what hangs."""
    code = (
        "import numpy as np, threading\n"
        "from surrogate_core import *\n"
        "from surrogate_core.surrogates.files import SURROGATES\n"
        "rng = np.random.default_rng(0)\n"
        "def work(spec):\n"
        "    for n in (12, 70):\n"
        "        X = rng.random((n, 2))\n"
        "        spec.fit(Dataset(X, 2 + np.sin(X.sum(1)))).gradient(X[:7])\n"
        f"for config in {[spec.to_config() for spec in CONTRACT]!r}:\n"
        "    print(config, flush=True)\n"
        "    spec = SURROGATES[config.pop('kind')](**config)\n"
        "    threads = [threading.Thread(target=work, args=(spec,)) for _ in range(2)]\n"
        "    [t.start() for t in threads]; [t.join() for t in threads]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)
