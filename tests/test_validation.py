"""Validation: metrics by hand, every row held out once, and gates that judge both ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from tolerances import ROUNDING

from surrogate_core import Dataset, GPSurrogate, SearchSpace
from surrogate_core.sampling import sample
from surrogate_core.surrogates.base import FittedSurrogate, Surrogate
from surrogate_core.surrogates.output import Output, fit_output
from surrogate_core.validation.cross_validation import cross_validate
from surrogate_core.validation.gates import judge
from surrogate_core.validation.metrics import regression_metrics

numbers = st.floats(-1e3, 1e3)


@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=2, max_size=20, unique_by=lambda row: row[0]))
def test_metrics_are_those_of_scikit_learn(rows: list[tuple[float, float, float]]) -> None:
    y, predicted, density = np.array(rows).T
    lower, upper = predicted - 10, predicted + 1
    told = regression_metrics(y, predicted, lower, upper, density)
    finite_r2 = max(r2_score(y, predicted), np.finfo(float).min)
    assert told["r2"] == pytest.approx(finite_r2, rel=1e-9, abs=1e-9)
    assert told["rmse"] == pytest.approx(root_mean_squared_error(y, predicted), rel=ROUNDING)
    assert told["mae"] == pytest.approx(mean_absolute_error(y, predicted), rel=ROUNDING)
    assert told["nlpd"] == pytest.approx(-np.mean(density), rel=ROUNDING, abs=ROUNDING)
    assert told["coverage_95"] == np.mean(
        [low <= value <= high for value, low, high in zip(y, lower, upper, strict=True)]
    )
    assert all(type(value) is float for value in told.values())


def test_metrics_by_hand() -> None:
    y, predicted = np.array([1.0, 2.0, 3.0, 6.0]), np.array([1.0, 3.0, 3.0, 4.0])
    told = regression_metrics(y, predicted, predicted - 1, predicted + 1, np.log([0.5, 0.25, 0.5, 0.125]))
    assert told == {
        "r2": pytest.approx(1 - 5 / 14),
        "rmse": pytest.approx(np.sqrt(5 / 4)),
        "mae": pytest.approx(3 / 4),
        "nlpd": pytest.approx(7 / 4 * np.log(2)),
        "coverage_95": 0.75,
    }


@pytest.mark.parametrize(("predicted", "r2"), [([2.0, 2.0], 1.0), ([2.0, 3.0], 0.0)])
def test_a_constant_is_met_or_it_is_not(predicted: list[float], r2: float) -> None:
    y, at = np.array([2.0, 2.0]), np.array(predicted)
    assert regression_metrics(y, at, at, at, np.zeros(2))["r2"] == r2


# Cross-validation, of a surrogate that tells what it was fitted to


class MeanState(NamedTuple):
    seen: Any
    output: Output


@dataclass(frozen=True)
class Mean(Surrogate):
    """Predicts the mean of the rows it has seen, whose number and sum it keeps."""

    kind: ClassVar[str] = "mean"
    State: ClassVar[type] = MeanState
    name: str = ""

    def fit(self, dataset: Dataset, key: Any = None) -> FittedSurrogate:
        state = MeanState(np.sort(dataset.X[:, 0]), fit_output(self.transform, dataset.y))
        _FITS.append((self, dataset, jax.random.key_data(key).tolist()))
        return FittedSurrogate(self, dataset.space, state)

    def latent(self, state: MeanState, u: Any) -> Any:
        return 0.0 * u[0], 1.0 + 0.0 * u[0]

    def noise(self, state: MeanState) -> Any:
        return np.float64(0.0)


_FITS: list[Any] = []


def rows(n: int = 11) -> Dataset:
    X = np.arange(float(n))[:, None]
    return Dataset(X, np.where(np.arange(n) % 5 == 4, np.nan, X[:, 0] ** 2))


@pytest.mark.parametrize("folds", [2, 3, 9])
def test_every_row_is_held_out_once_and_predicted_by_a_fit_that_has_not_seen_it(folds: int) -> None:
    dataset = rows()
    _FITS.clear()
    checked = cross_validate(Mean(), dataset, folds, seed=0)
    ok = dataset.ok
    assert len(_FITS) == folds
    assert sorted(set(checked.fold)) == list(range(folds))
    sizes = np.bincount(checked.fold)
    assert sizes.sum() == ok.n_samples == 9
    assert np.ptp(sizes) <= 1
    assert checked.y.tolist() == ok.y.tolist()
    for i, (_, train, _) in enumerate(_FITS):
        held = checked.fold == i
        assert train.X.tolist() == ok.X[~held].tolist()
        assert checked.predicted[held] == pytest.approx(np.full(held.sum(), ok.y[~held].mean()))
        s = ok.y[~held].std()
        expected = norm.logpdf(ok.y[held], ok.y[~held].mean(), s)
        assert checked.log_density[held] == pytest.approx(expected)
        assert checked.upper[held] - checked.lower[held] == pytest.approx(np.full(held.sum(), 2 * norm.ppf(0.975) * s))


def test_every_spec_gets_the_same_folds_and_keys_and_a_seed_changes_them() -> None:
    _FITS.clear()
    one, other, later = (
        cross_validate(Mean(name=name), rows(), 3, seed) for name, seed in (("a", 0), ("b", 0), ("a", 1))
    )
    assert one.fold.tolist() == other.fold.tolist()
    assert one.fold.tolist() != later.fold.tolist()
    keys = [key for _, _, key in _FITS]
    assert keys[:3] == keys[3:6]
    assert len({str(key) for key in keys[:3]}) == 3
    assert keys[6:] != keys[:3]


def test_cross_validation_is_deterministic_and_its_metrics_are_those_of_its_columns() -> None:
    U = sample("sobol", 12, 2, seed=0)
    dataset = Dataset(U, np.sin(4 * U[:, 0]) + U[:, 1], SearchSpace.from_bounds([(0, 1)] * 2))
    one, again = (cross_validate(GPSurrogate(n_starts=1), dataset, 3, seed=4) for _ in range(2))
    for name in ("y", "fold", "predicted", "lower", "upper", "log_density"):
        assert getattr(one, name).tobytes() == getattr(again, name).tobytes()
    assert one.metrics == regression_metrics(one.y, one.predicted, one.lower, one.upper, one.log_density)
    assert one.metrics["r2"] > 0.3
    table = one.table()
    assert [row["y"] for row in table] == one.y.tolist()
    assert set(table[0]) == {"fold", "y", "predicted", "lower", "upper"}
    assert {type(value) for row in table for value in row.values()} == {int, float}
    for row, turned in zip(table, one.table(sign=-1), strict=True):
        assert turned == {"fold": row["fold"], **{k: -row[k] for k in ("y", "predicted")},
                          "lower": -row["upper"], "upper": -row["lower"]}  # fmt: skip


@pytest.mark.parametrize("folds", [-1, 0, 1, 10])
def test_a_number_of_folds_that_cannot_be_is_told_with_the_number_of_rows(folds: int) -> None:
    with pytest.raises(ValueError, match=f"folds: expected an integer from 2 to the 9 ok rows, got {folds}"):
        cross_validate(Mean(), rows(), folds, seed=0)


def test_data_that_a_spec_cannot_fit_are_an_error() -> None:
    with pytest.raises(ValueError, match="expected values above 0 for 'log'"):
        cross_validate(GPSurrogate(transform="log"), Dataset([[0.0], [1.0], [2.0]], [1.0, -1.0, 2.0]), 3, seed=0)


# Gates

METRICS = {"r2": 0.7, "coverage_95": 0.95, "rmse": 2.0, "nlpd": float("nan")}


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
        ({}, []),
    ],
    ids=str,
)
def test_a_metric_is_held_to_its_bound(bounds: dict[str, float | None], verdicts: list[bool]) -> None:
    gates = judge(METRICS, bounds)
    assert [gate.passed for gate in gates] == verdicts
    assert [gate.name for gate in gates] == [name for name, bound in bounds.items() if bound is not None]


def test_a_verdict_says_what_was_measured_and_what_was_asked() -> None:
    passed, low, high = judge(METRICS, {"min_r2": 0.5, "min_coverage_95": 0.99, "max_rmse": 1.0})
    assert str(passed) == "min_r2: 0.7"
    assert str(low) == "min_coverage_95: 0.95 < 0.99"
    assert str(high) == "max_rmse: 2 > 1"
    assert (low.value, low.bound) == (0.95, 0.99)


@pytest.mark.parametrize("name", ["min_r3", "max_", "mean_r2", "r2"])
def test_a_bound_that_names_no_metric_is_an_error(name: str) -> None:
    with pytest.raises(KeyError):
        judge(METRICS, {name: 0.5})
