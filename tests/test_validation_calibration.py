"""Recalibration: the factor is the likeliest, its worth is told honestly, and impossible rows do not decide it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from validation_surrogates import held_out

from surrogate_core import Dataset, GPSurrogate
from surrogate_core.sampling import sample
from surrogate_core.validation.calibration import BOUNDS, recalibration
from surrogate_core.validation.cross_validation import leave_one_out
from surrogate_core.validation.gates import METRICS


@given(st.integers(0, 2**32), st.sampled_from([0.2, 0.5, 2.0, 5.0]))
def test_errors_of_another_size_than_claimed_are_found_and_mended(seed: int, size: float) -> None:
    z = np.random.default_rng(seed).standard_normal(500)
    found = recalibration(held_out(3.0 + size * z, 3.0, 1.0, n_folds=5))
    assert found.factor == pytest.approx(size, rel=0.2)
    assert found.helps
    assert found.metrics["recalibrated_nlpd"] < found.before["nlpd"]
    area = found.metrics["recalibrated_miscalibration_area"]
    assert area < 0.06 < found.before["miscalibration_area"]
    assert found.metrics["recalibrated_coverage_95"] == pytest.approx(0.95, abs=0.05)
    assert found.after["rmse"] == pytest.approx(found.before["rmse"])  # a mean is what it was
    assert set(found.metrics) <= set(METRICS)


def test_the_factor_is_the_likeliest() -> None:
    rows = held_out([0.3, -2.0, 1.0, 4.0, 0.1], 0.0, [1.0, 0.5, 2.0, 1.0, 1.0])
    best = recalibration(rows).factor
    densities = [rows.stretched(best * by).log_density.sum() for by in (0.99, 1.0, 1.01)]
    assert densities[1] > max(densities[0], densities[2])
    assert best == pytest.approx(np.sqrt(np.mean(np.square([0.3, 4.0, 0.5, 4.0, 0.1]))))


def test_what_it_is_worth_is_measured_with_factors_of_the_other_folds() -> None:
    y = np.array([1.0, 3.0, -2.0, 5.0])
    found = recalibration(held_out(y, 0.0, 1.0, n_folds=2))  # rows 0 and 2 against rows 1 and 3
    even, odd = np.sqrt((1 + 4) / 2), np.sqrt((9 + 25) / 2)
    assert found.after["nlpd"] == pytest.approx(-np.mean(norm.logpdf(y, 0, [odd, even, odd, even])))
    assert found.before["nlpd"] == pytest.approx(-np.mean(norm.logpdf(y)))


def test_one_outlier_makes_a_factor_that_does_not_help_the_others() -> None:
    y = np.array([-1.0, 1.0] * 10 + [6.0])
    found = recalibration(held_out(y, 0.0, 1.0, n_folds=21))
    assert found.factor > 1.5
    in_sample = held_out(y, 0.0, 1.0, n_folds=21).stretched(found.factor).metrics["nlpd"]
    assert in_sample < found.before["nlpd"]  # as a dishonest measure would have it
    assert not found.helps


def test_values_that_were_ruled_out_or_met_exactly_do_not_decide_it() -> None:
    ruled_out = held_out([-1.0, *np.exp([0.5, -0.5, 0.5, -0.5])], 0.0, 1.0, transform="log")
    assert ruled_out.standardized_error[0] == -np.inf
    found = recalibration(ruled_out)
    assert found.factor == pytest.approx(0.5)
    assert all(np.isfinite(value) for value in [*found.after.values(), *found.metrics.values()])
    assert not found.helps  # for no factor makes up for the value
    assert recalibration(held_out([-1.0, -2.0], 0.0, 1.0, transform="log")).factor == 1.0
    exact = recalibration(held_out([2.0, 2.0, 2.0], 2.0, 1.0))
    assert exact.factor == BOUNDS[0]
    assert recalibration(held_out([1e9, -1e9], 0.0, 1.0)).factor == BOUNDS[1]


def test_stretching_a_fit_is_stretching_its_held_out_rows() -> None:
    U = sample("sobol", 12, 1, seed=0)
    dataset = Dataset(U, np.exp(2 * U[:, 0]))
    fitted = GPSurrogate(transform="log", n_starts=1).fit(dataset)
    left = leave_one_out(fitted, dataset)
    stretched, again = left.stretched(2.0), leave_one_out(fitted.recalibrated(2.0), dataset)
    for name in ("predicted", "lower", "upper", "log_density", "cumulative", "crps"):
        assert getattr(stretched, name) == pytest.approx(getattr(again, name), rel=1e-9)
    assert recalibration(stretched).factor == pytest.approx(recalibration(left).factor / 2)
