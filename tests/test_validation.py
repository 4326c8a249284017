"""Validation: metrics by hand, every row held out once, and gates that judge both ways."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, t
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from tolerances import ROUNDING
from validation_surrogates import FITS, Mean, held_out

from surrogate_core import Dataset, GPSurrogate, SearchSpace
from surrogate_core.blas import blas_threads, one_blas_thread
from surrogate_core.execution import ExecutorSpec, map_calls
from surrogate_core.parallel import in_threads
from surrogate_core.sampling import sample
from surrogate_core.validation.cross_validation import cross_validate, leave_one_out
from surrogate_core.validation.gates import METRICS, Gate, judge, parse_bound
from surrogate_core.validation.metrics import calibration_curve, miscalibration_area, regression_metrics

numbers = st.integers(-(10**6), 10**6).map(lambda k: k / 1e3)  # scikit-learn squares what is too small for it
shares = st.floats(0, 1)
UNIT = SearchSpace.from_bounds([(0, 1)] * 2)


@given(st.lists(st.tuples(numbers, numbers, numbers, shares), min_size=2, max_size=20, unique_by=lambda row: row[0]))
def test_metrics_are_those_of_scikit_learn(rows: list[tuple[float, float, float, float]]) -> None:
    y, predicted, density, pit = np.array(rows).T
    told = regression_metrics(y, predicted, density, pit, np.abs(density))
    finite_r2 = max(r2_score(y, predicted), np.finfo(float).min)
    assert told["r2"] == pytest.approx(finite_r2, rel=1e-9, abs=1e-9)
    assert told["rmse"] == pytest.approx(root_mean_squared_error(y, predicted), rel=ROUNDING, abs=1e-150)
    assert told["mae"] == pytest.approx(mean_absolute_error(y, predicted), rel=ROUNDING)
    assert told["nlpd"] == pytest.approx(-np.mean(density), rel=ROUNDING, abs=ROUNDING)
    assert told["crps"] == pytest.approx(np.mean(np.abs(density)), rel=ROUNDING, abs=ROUNDING)
    assert 0 <= told["coverage_50"] <= told["coverage_90"] <= told["coverage_95"] <= 1
    assert all(type(value) is float and np.isfinite(value) for value in told.values())


def test_metrics_by_hand() -> None:
    y, predicted = np.array([1.0, 2.0, 3.0, 6.0]), np.array([1.0, 3.0, 3.0, 4.0])
    pit = np.array([0.5, 0.04, 0.3, 0.98])
    told = regression_metrics(y, predicted, np.log([0.5, 0.25, 0.5, 0.125]), pit, np.array([0.0, 1.0, 1.0, 2.0]))
    assert told == {
        "r2": pytest.approx(1 - 5 / 14),
        "rmse": pytest.approx(np.sqrt(5 / 4)),
        "mae": pytest.approx(3 / 4),
        "nlpd": pytest.approx(7 / 4 * np.log(2)),
        "crps": 1.0,
        "coverage_50": 0.5,
        "coverage_90": 0.5,
        "coverage_95": 0.75,
        "miscalibration_area": pytest.approx(miscalibration_area(pit)),
    }


@pytest.mark.parametrize(("predicted", "r2"), [([2.0, 2.0], 1.0), ([2.0, 3.0], 0.0)])
def test_a_constant_is_met_or_it_is_not(predicted: list[float], r2: float) -> None:
    y, at = np.array([2.0, 2.0]), np.array(predicted)
    assert regression_metrics(y, at, np.zeros(2), np.full(2, 0.5), np.zeros(2))["r2"] == r2


@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_accuracy_does_not_depend_on_the_size_of_the_values_nor_on_what_float64_can_square(size: float) -> None:
    y, predicted = size * np.array([1.0, 2.0, 3.0]), size * np.array([1.0, 2.0, 4.0])
    told = regression_metrics(y, predicted, np.array([-np.inf, 0.0, 0.0]), np.full(3, 0.5), np.zeros(3))
    assert told["r2"] == pytest.approx(0.5)
    assert told["rmse"] == pytest.approx(size / np.sqrt(3), rel=ROUNDING, abs=0)
    assert told["nlpd"] == np.finfo(float).max  # a value that was ruled out, as JSON can hold it


# The calibration curve and its area


@given(st.lists(shares, min_size=1, max_size=30))
def test_the_area_is_that_between_curve_and_diagonal(pit: list[float]) -> None:
    area = miscalibration_area(np.array(pit))
    levels, observed = calibration_curve(np.array(pit), 20001)
    assert 0 <= area <= 0.5
    assert area >= 1 / (4 * len(pit)) * (1 - 1e-9)  # what a curve of steps is off at least
    assert area == pytest.approx(np.trapezoid(np.abs(observed - levels), levels), abs=1e-3)
    assert miscalibration_area(1 - np.array(pit)) == pytest.approx(area, abs=ROUNDING)  # maximized or minimized
    assert (np.diff(observed) >= 0).all()
    assert observed[-1] == 1


@pytest.mark.parametrize(("pit", "area"), [([0.0], 0.5), ([1.0, 1.0], 0.5), ([0.5], 0.25), ([0.25, 0.75], 0.125)])
def test_areas_by_hand(pit: list[float], area: float) -> None:
    assert miscalibration_area(np.array(pit)) == pytest.approx(area)


@given(st.integers(0, 2**32))
def test_a_calibrated_sample_is_told_from_one_that_is_too_sure_or_biased(seed: int) -> None:
    error = np.random.default_rng(seed).standard_normal(2000)
    y, zero = error, np.zeros(2000)

    def told(m: float, s: float) -> dict[str, float]:
        return regression_metrics(y, zero, zero, norm.cdf(y, m, s), zero)

    right, sure, biased = told(0, 1), told(0, 0.5), told(1, 1)
    off = 3 / np.sqrt(2000)  # exceeded once in 10^7 (Dvoretzky, Kiefer & Wolfowitz 1956)
    assert right["miscalibration_area"] < off
    for level in (50, 90, 95):
        assert abs(right[f"coverage_{level}"] - level / 100) < 2 * off
        assert sure[f"coverage_{level}"] < level / 100 - 0.1
    assert sure["miscalibration_area"] > 0.06
    assert biased["miscalibration_area"] > 0.2


# Cross-validation, of a surrogate that tells what it was fitted to


def rows(n: int = 11) -> Dataset:
    X = np.arange(float(n))[:, None]
    return Dataset(X, np.where(np.arange(n) % 5 == 4, np.nan, X[:, 0] ** 2))


@pytest.mark.parametrize("folds", [2, 3, 9])
def test_every_row_is_held_out_once_and_predicted_by_a_fit_that_has_not_seen_it(folds: int) -> None:
    dataset = rows()
    FITS.clear()
    checked = cross_validate(Mean(), dataset, folds, seed=0, n_workers=1)
    ok = dataset.ok
    assert len(FITS) == folds
    assert sorted(set(checked.fold)) == list(range(folds))
    sizes = np.bincount(checked.fold)
    assert sizes.sum() == ok.n_samples == 9
    assert np.ptp(sizes) <= 1
    assert checked.y.tolist() == ok.y.tolist()
    for i, (_, train, *_) in enumerate(FITS):
        held = checked.fold == i
        assert train.X.tolist() == ok.X[~held].tolist()
        seen = ok.y[~held]
        expected = norm(seen.mean(), seen.std() * t(len(seen) - 1).ppf(0.975) / norm.ppf(0.975))
        y = ok.y[held]
        assert checked.predicted[held] == pytest.approx(np.full(held.sum(), expected.mean()))
        assert checked.log_density[held] == pytest.approx(expected.logpdf(y))
        assert checked.cumulative[held] == pytest.approx(expected.cdf(y))
        assert checked.standardized_error[held] == pytest.approx((y - expected.mean()) / expected.std())
        width = checked.upper[held] - checked.lower[held]
        assert width == pytest.approx(np.full(held.sum(), 2 * norm.ppf(0.975) * expected.std()))
        apart = np.abs(ok.X[held] - ok.X[~held].T).min(axis=1) / 10  # of the unit cube, whose edge of data is at 0.25
        assert checked.extrapolation is not None
        assert checked.extrapolation[held] == pytest.approx(apart / 0.25)


def test_every_spec_gets_the_same_folds_and_keys_and_a_seed_changes_them() -> None:
    FITS.clear()
    one, other, later = (
        cross_validate(Mean(name=name), rows(), 3, seed, n_workers=1) for name, seed in (("a", 0), ("b", 0), ("a", 1))
    )
    assert one.fold.tolist() == other.fold.tolist()
    assert one.fold.tolist() != later.fold.tolist()
    keys = [key for _, _, key, _ in FITS]
    assert keys[:3] == keys[3:6]
    assert len({str(key) for key in keys[:3]}) == 3
    assert keys[6:] != keys[:3]


COLUMNS = ("y", "fold", "predicted", "lower", "upper", "log_density", "cumulative", "crps", "extrapolation", "gradient")


def test_threads_and_processes_change_no_bit() -> None:
    U = sample("sobol", 14, 2, seed=0)
    slopes = np.column_stack([4 * np.cos(4 * U[:, 0]), np.ones(14)])
    dataset = Dataset(U, np.sin(4 * U[:, 0]) + U[:, 1], UNIT, gradients=np.where(U > 0.9, np.nan, slopes))
    spec = GPSurrogate(n_starts=2)
    one, *others = (cross_validate(spec, dataset, 3, 4, n_workers) for n_workers in (1, 3, None))
    for kind in ("serial", "threads", "processes"):
        with one_blas_thread():
            others.append(cross_validate(spec, dataset, 3, 4, executor=ExecutorSpec(kind, 2)))
    for other in others:
        for name in COLUMNS:
            assert getattr(one, name).tobytes() == getattr(other, name).tobytes()
        assert other.metrics == one.metrics
    assert one.metrics["r2"] > 0.3


def test_its_table_is_json_and_turned_round_where_values_are_maximized() -> None:
    checked = held_out([1.0, 2.0, 4.0], [1.5, 2.0, 2.0], [1.0, 2.0, 0.01], n_folds=3)
    table = checked.table()
    assert [row["y"] for row in table] == checked.y.tolist()
    assert set(table[0]) == {"fold", "y", "predicted", "lower", "upper", "cumulative", "crps"}
    assert {type(value) for row in table for value in row.values()} == {int, float}
    for row, turned in zip(table, checked.table(sign=-1), strict=True):
        assert turned == {"fold": row["fold"], "crps": row["crps"], **{k: -row[k] for k in ("y", "predicted")},
                          "lower": -row["upper"], "upper": -row["lower"],
                          "cumulative": 1 - row["cumulative"]}  # fmt: skip


def test_the_known_noise_of_a_row_widens_its_own_interval() -> None:
    X = np.arange(6.0)[:, None]
    plain = cross_validate(Mean(), Dataset(X, X[:, 0]), 3, 0)
    noise = np.array([np.nan, 50.0, np.nan, np.nan, np.nan, np.nan])
    noisy = cross_validate(Mean(), Dataset(X, X[:, 0], noise=noise), 3, 0)
    wider = (noisy.upper - noisy.lower) / (plain.upper - plain.lower)
    assert wider[1] > 10
    assert np.delete(wider, 1) == pytest.approx(np.ones(5))


@pytest.mark.parametrize("folds", [-1, 0, 1, 10])
def test_a_number_of_folds_that_cannot_be_is_told_with_the_number_of_rows(folds: int) -> None:
    with pytest.raises(ValueError, match=f"folds: expected an integer from 2 to the 9 ok rows, got {folds}"):
        cross_validate(Mean(), rows(), folds, seed=0)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_data_that_a_spec_cannot_fit_are_an_error(n_workers: int) -> None:
    dataset = Dataset([[0.0], [1.0], [2.0]], [1.0, -1.0, 2.0])
    with pytest.raises(ValueError, match="expected values above 0 for 'log'"):
        cross_validate(GPSurrogate(transform="log"), dataset, 3, 0, n_workers)


def test_calls_in_threads_keep_their_order_and_fail_as_the_first_of_them() -> None:
    def reciprocal(x: int) -> float:
        with blas_threads(10**6):  # which waits for no one that is waiting for it
            return 1 / x

    assert in_threads(reciprocal, [4, 2, 1], 2) == [0.25, 0.5, 1.0]
    assert in_threads(reciprocal, []) == []
    with pytest.raises(ZeroDivisionError):
        in_threads(reciprocal, [1, 0, "a", 2], 3)
    with pytest.raises(TypeError):
        in_threads(reciprocal, [1, "a", 0, 2], 3)
    with pytest.raises(ValueError, match="n_workers: expected an integer >= 1, got 0"):
        in_threads(reciprocal, [1], 0)


@pytest.mark.parametrize("kind", ["serial", "threads", "processes", "auto"])
def test_values_come_in_order_from_any_executor_and_an_error_is_the_first_ones(kind: Any) -> None:
    def reciprocal(x: int) -> float:
        return os._exit(1) if x == -1 else 1 / x  # type: ignore[return-value]

    assert map_calls(reciprocal, [4, 2, 1], ExecutorSpec(kind, 2)) == [0.25, 0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        map_calls(reciprocal, [1, 0, "a", 2], ExecutorSpec(kind, 2))
    if kind == "processes":
        with pytest.raises(RuntimeError, match="worker died: exit status 1"):
            map_calls(reciprocal, [1, -1], ExecutorSpec(kind, 2))


# Leaving out one row at a time, in closed form


def test_a_row_left_out_is_predicted_as_by_a_fit_of_the_others_with_the_same_hyperparameters() -> None:
    U = sample("sobol", 10, 2, seed=1)
    y = np.sin(4 * U[:, 0]) + U[:, 1]
    spec = GPSurrogate(length_scale=0.5, noise_level=1e-3, fixed=("length_scale", "noise_level"), output_scale="unit")
    dataset = Dataset([*U, [0.5, 0.5]], [*y, np.nan], UNIT)
    left = leave_one_out(spec.fit(dataset), dataset)
    folds = cross_validate(spec, dataset, 10, 0)
    assert left.fold.tolist() == list(range(10))
    assert left.y.tolist() == y.tolist()
    assert left.predicted == pytest.approx(folds.predicted, abs=0.1)  # but for the standardization, which differs
    assert left.metrics["rmse"] == pytest.approx(folds.metrics["rmse"], rel=0.2)
    assert left.table()[3]["fold"] == 3


def test_there_is_no_closed_form_of_any_surrogate_nor_of_a_single_row() -> None:
    dataset = rows()
    assert leave_one_out(Mean().fit(dataset.ok, np.zeros(2, dtype=np.uint32)), dataset) is None
    single = Dataset([[0.5, 0.5]], [1.0], UNIT)
    with pytest.raises(ValueError, match="leave_one_out: expected at least 2 ok rows, got 1"):
        leave_one_out(GPSurrogate(n_starts=1).fit(single), single)


# Gates

MEASURED = {"r2": 0.7, "coverage_95": 0.95, "rmse": 2.0, "nlpd": float("nan")}


@pytest.mark.parametrize(
    ("bounds", "verdicts"),
    [
        ({"min_r2": 0.5}, [True]),
        ({"min_r2": 0.7}, [True]),
        ({"min_r2": 0.71}, [False]),
        ({"max_rmse": 2.0}, [True]),
        ({"max_rmse": 1.9}, [False]),
        ({"min_coverage_95": 0.8, "max_coverage_95": 0.9}, [True, False]),
        ({"min_r2": None}, []),
        ({"min_r2": None, "max_rmse": 1.0}, [False]),
        ({"min_r2": 0}, [True]),
        ({"min_nlpd": 0.0, "max_nlpd": 0.0}, [False, False]),
        ({"min_gradient_cosine": -1.0, "max_gradient_cosine": 1.0, "min_r2": 0.5}, [False, False, True]),
        ({}, []),
    ],
    ids=str,
)
def test_a_metric_is_held_to_its_bound(bounds: dict[str, float | None], verdicts: list[bool]) -> None:
    gates = judge(MEASURED, bounds)
    assert [gate.passed for gate in gates] == verdicts
    assert [gate.name for gate in gates] == [name for name, bound in bounds.items() if bound is not None]


def test_a_verdict_says_what_was_measured_and_what_was_asked() -> None:
    asked = {"min_r2": 0.5, "min_coverage_95": 0.99, "max_rmse": 1.0, "min_gradient_cosine": 0.9, "max_nlpd": 1.0}
    passed, low, high, missing, nan = judge(MEASURED, asked)
    assert str(passed) == "min_r2: 0.7"
    assert str(low) == "min_coverage_95: 0.95 < 0.99"
    assert str(high) == "max_rmse: 2 > 1"
    assert (low.value, low.bound) == (0.95, 0.99)
    assert missing == Gate("min_gradient_cosine", None, 0.9, passed=False)
    assert str(missing) == "min_gradient_cosine: not measured"
    assert str(nan) == "max_nlpd: not measured"


@pytest.mark.parametrize("name", ["min_r3", "max_", "mean_r2", "r2", "min"])
def test_a_bound_that_names_no_metric_is_an_error(name: str) -> None:
    with pytest.raises(KeyError, match=name):
        judge(MEASURED, {name: 0.5})
    with pytest.raises(KeyError):
        parse_bound(name)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_can_be_bounded_on_both_sides_and_says_which_way_it_gets_better(metric: str) -> None:
    assert [parse_bound(f"{side}_{metric}") for side in ("min", "max")] == [("min", metric), ("max", metric)]
    about: Any = METRICS[metric]
    assert about.better in ("higher", "lower") or about.ideal is not None
    assert about.meaning[0].islower()
