"""Learning curves of known laws, Sobol indices of known functions, and how much of a space the data covers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from validation_surrogates import FITS, Exact, Mean, exact

from surrogate_core import Categorical, Dataset, Float, GPSurrogate, Integer, SearchSpace
from surrogate_core.sampling import sample
from surrogate_core.surrogates.base import FittedSurrogate
from surrogate_core.validation.extrapolation import extrapolation_share
from surrogate_core.validation.gates import METRICS
from surrogate_core.validation.learning_curve import FRACTIONS, learning_curve
from surrogate_core.validation.sensitivity import relevances, sobol_indices

UNIT = SearchSpace.from_bounds([(0, 1)] * 2)


@dataclass(frozen=True)
class Lawful(Exact):
    """Is off by 3 n^-b after n rows."""

    kind: ClassVar[str] = "lawful"
    b: float = 0.5

    def fit(self, dataset: Dataset, key: Any = None, start: Any = None) -> FittedSurrogate:
        off = 3.0 * dataset.n_samples**-self.b if self.b < 9 else 0.0
        return exact(_constants.setdefault(off, lambda u: off + 0 * u[0]), dataset.space)


_constants: dict[float, Any] = {}


def zeros(n: int) -> Dataset:
    return Dataset(sample("sobol", n, 2, seed=0), np.zeros(n), UNIT)


@pytest.mark.parametrize("b", [0.5, 1.0, 0.0])
def test_the_law_of_a_learning_curve_is_found_and_says_what_twice_the_rows_bring(b: float) -> None:
    curve = learning_curve(Lawful(b=b), zeros(50), seed=0, repeats=2)
    assert curve.law == pytest.approx((3.0, b, 0.0), abs=1e-9)
    assert curve.metrics == {
        "rmse_if_doubled": pytest.approx(3 * 100**-b),
        "rmse_ratio_if_doubled": pytest.approx(2**-b),
    }
    assert set(curve.metrics) <= set(METRICS)
    assert curve.expected([1, 4]) == pytest.approx([3.0, 3 * 4**-b])
    assert curve.n.tolist() == [round(fraction * 40) for fraction in FRACTIONS]
    assert curve.table()[1] == {"repeat": 0, "n": 20, "rmse": pytest.approx(3 * 20**-b)}
    assert len(curve.table()) == 6


def test_without_an_error_left_more_data_do_not_help() -> None:
    curve = learning_curve(Lawful(b=9), zeros(8), seed=0, repeats=1)
    assert curve.rmse.max() == 0
    assert curve.metrics["rmse_ratio_if_doubled"] == pytest.approx(1.0, abs=1e-9)
    assert np.isnan(curve.law[2])  # one repeat knows of no error


def test_subsets_are_nested_go_on_from_one_another_and_leave_the_same_rows_unseen() -> None:
    X = np.arange(40.0)[:, None]
    dataset = Dataset(X, np.where(X[:, 0] == 7, np.nan, np.sin(X[:, 0])))
    FITS.clear()
    learning_curve(Mean(), dataset, seed=0, repeats=2, n_workers=1)
    for repeat in (FITS[:3], FITS[3:]):
        seen = [set(train.X[:, 0]) for _, train, *_ in repeat]
        assert seen[0] < seen[1] < seen[2] < set(X[:, 0]) - {7.0}
        assert len(seen[2]) == 31
        starts = [start for *_, start in repeat]
        assert starts[0] is None
        for start, before in zip(starts[1:], seen, strict=False):
            assert len(start.state.U) == len(before)
    assert FITS[0][1].X.tolist() != FITS[3][1].X.tolist()


def test_a_learning_curve_is_the_same_bit_for_bit_and_falls_for_a_smooth_function() -> None:
    U = sample("sobol", 40, 2, seed=0)
    dataset = Dataset(U, np.sin(4 * U[:, 0]) + U[:, 1] ** 2, UNIT)
    one, other = (learning_curve(GPSurrogate(n_starts=1), dataset, 3, 2, n_workers) for n_workers in (1, 2))
    assert one.rmse.tobytes() == other.rmse.tobytes()
    assert one.metrics["rmse_ratio_if_doubled"] < 0.8


def test_too_few_rows_have_no_curve() -> None:
    with pytest.raises(ValueError, match="learning_curve: expected at least 8 ok rows, got 7"):
        learning_curve(Mean(), zeros(7), seed=0)


# Sobol indices


def ishigami(u: jnp.ndarray) -> jnp.ndarray:
    """Ishigami & Homma (1990), a = 7, b = 0.1; V = a^2/8 + b pi^4/5 + b^2 pi^8/18 + 1/2."""
    x = jnp.pi * (2 * u - 1)
    return jnp.sin(x[0]) + 7 * jnp.sin(x[1]) ** 2 + 0.1 * x[2] ** 4 * jnp.sin(x[0])


def test_indices_of_ishigamis_function() -> None:
    found = sobol_indices(exact(ishigami, SearchSpace.from_bounds([(0, 1)] * 3)), seed=0, n=2048)
    assert found.first == pytest.approx([0.3139, 0.4424, 0.0], abs=0.02)
    assert found.total == pytest.approx([0.5576, 0.4424, 0.2437], abs=0.02)
    assert found.metrics == {"first_order_share": pytest.approx(0.7563, abs=0.03)}
    assert set(found.metrics) <= set(METRICS)
    for error in (found.first_error, found.total_error):
        assert ((error > 0) & (error < 0.06)).all()


def additive(u: jnp.ndarray) -> jnp.ndarray:
    return u[0] + 2 * u[1] + jnp.cos(3 * u[2])


@settings(max_examples=10)
@given(st.integers(0, 2**31))
def test_a_sum_has_no_interactions_and_errors_cover_the_truth(seed: int) -> None:
    found = sobol_indices(exact(additive, SearchSpace.from_bounds([(0, 1)] * 3)), seed, n=512)
    spread = np.sin(3) / 3
    V = np.array([1 / 12, 4 / 12, 0.5 + np.sin(6) / 12 - spread**2])
    truth = V / V.sum()
    assert (np.abs(found.first - truth) <= 4 * found.first_error + 1e-3).all()
    assert (np.abs(found.total - truth) <= 4 * found.total_error + 1e-3).all()
    assert found.metrics["first_order_share"] == pytest.approx(1.0, abs=0.05)


def test_variables_count_on_their_own_scale_whatever_their_kind() -> None:
    space = SearchSpace(
        {
            "rate": Float(1e-6, 1, log=True),
            "n": Integer(1, 2),
            "kind": Categorical(["a", "b"]),
            "idle": Float(0, 1e9),
        }
    )
    fitted = exact(lambda u: u[0] + u[1] * u[2], space)
    found = sobol_indices(fitted, seed=1)
    # u1 and u2 are 1/4 or 3/4: the variances are 1/12, (1/2)^2/16 each, and 1/256 together.
    V = np.array([1 / 12, 1 / 64, 1 / 64, 0.0])
    whole = V.sum() + 1 / 256
    assert found.first == pytest.approx(V / whole, abs=0.02)
    assert found.total == pytest.approx((V + np.array([0, 1, 1, 0]) / 256) / whole, abs=0.02)
    assert found.total[3] == 0
    assert [row["name"] for row in found.table()] == ["rate", "n", "kind", "idle"]
    assert {type(value) for row in found.table() for value in row.values()} == {str, float}
    again = sobol_indices(fitted, seed=1)
    assert found.first_error.tobytes() == again.first_error.tobytes()


def test_nothing_explains_a_constant() -> None:
    found = sobol_indices(exact(lambda u: 7.0 + 1e-15 * u[0], UNIT), seed=0, n=64)
    assert found.first.tolist() == found.total.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="n: expected an integer >= 2, got 1"):
        sobol_indices(exact(lambda u: u[0], UNIT), seed=0, n=1)


@pytest.mark.parametrize(
    ("scale", "shares"), [([1.0, 1.0], [0.5, 0.5]), ([0.5, 1.0], [0.8, 0.2]), ([1.0, np.inf], [1.0, 0.0])]
)
def test_relevances_are_shares_of_squared_distance(scale: list[float], shares: list[float]) -> None:
    assert relevances(exact(lambda u: u[0], UNIT, scale=scale)) == pytest.approx(shares)


def test_a_gaussian_process_finds_the_variable_that_matters() -> None:
    U = sample("sobol", 30, 2, seed=0)
    fitted = GPSurrogate(n_starts=1).fit(Dataset(U, np.sin(6 * U[:, 0]), UNIT))
    assert relevances(fitted)[0] > 0.9
    assert sobol_indices(fitted, 0, n=256).total[0] > 0.95


# Extrapolation


def test_the_share_of_the_space_beyond_the_data() -> None:
    U = sample("sobol", 64, 2, seed=0)
    spec = GPSurrogate(length_scale=1.0, fixed=("length_scale",), n_starts=1)
    everywhere = spec.fit(Dataset(U, U[:, 0], UNIT))
    corner = spec.fit(Dataset(U / 4, U[:, 0], UNIT))
    assert extrapolation_share(everywhere, seed=0) < 0.2
    assert extrapolation_share(corner, seed=0) > 0.85
    there = SearchSpace({"x1": Float(0, 1), "x2": Float(0, 1)}, ["x1 <= 0.25", "x2 <= 0.25"])
    assert extrapolation_share(spec.fit(Dataset(U / 4, U[:, 0], there)), seed=0) < 0.2
    nowhere = SearchSpace({"x1": Float(0, 1), "x2": Float(0, 1)}, ["x1 >= 2"])
    assert np.isnan(extrapolation_share(spec.fit(Dataset(U, U[:, 0], nowhere)), seed=0, n=16))
