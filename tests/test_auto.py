"""The choice of a surrogate: by what rows left out say, within budgets that no clock keeps."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

import surrogate_core
from surrogate_core import (
    AutoSurrogate,
    Dataset,
    GPSurrogate,
    HybridSurrogate,
    RandomForestSurrogate,
    SearchSpace,
    select_surrogate,
)
from surrogate_core.sampling import sample
from surrogate_core.surrogates.files import surrogate_files
from surrogate_core.surrogates.memory_budget import PREFERRED

CUBE = SearchSpace.from_bounds([(0, 1)] * 2)
SMALL = AutoSurrogate(budget=6.0)  # Gaussian processes and forests, on few rows


def wavy(U: np.ndarray) -> np.ndarray:
    return np.sin(6 * U[:, 0]) + U[:, 1] ** 2 + 2


def steps(U: np.ndarray) -> np.ndarray:
    return np.where(U[:, 0] > 0.43, 5.0, 1.0) + np.where(U[:, 1] > 0.71, 3.0, 0.0)


@pytest.fixture
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of each of two kinds, soon fitted."""
    specs = [GPSurrogate(n_starts=2), RandomForestSurrogate(n_estimators=10)]
    monkeypatch.setattr(AutoSurrogate, "candidates", lambda *_: specs)


def rows(f: Any, n: int, seed: int = 1) -> Dataset:
    U = sample("sobol", n, 2, seed)
    return Dataset(U, f(U), CUBE)


def test_the_choice_is_the_candidate_of_the_greatest_density_and_varies() -> None:
    kinds = set()
    for f in (wavy, steps):
        fitted = SMALL.fit(rows(f, 60))
        told = fitted.diagnostics["auto"]
        best = max(told["candidates"], key=lambda one: one["log_density"])
        kinds.add(fitted.spec.kind)
        assert best["surrogate"].startswith(fitted.spec.kind)
        assert fitted.asked == SMALL
        assert sum(one["cost"] for one in told["candidates"]) <= SMALL.budget
    assert kinds == {"gaussian_process", "random_forest"}


def test_a_larger_budget_compares_more() -> None:
    data = rows(wavy, 24)
    few, more = (AutoSurrogate(budget=budget).fit(data).diagnostics["auto"] for budget in (0.0, 12.0))
    assert len(few["candidates"]) == 0 < len(more["candidates"])
    everything = len(AutoSurrogate().candidates(data.y))
    assert [len(told["candidates"]) + len(told["left_out"]) for told in (few, more)] == [everything] * 2


@pytest.mark.usefixtures("few_candidates")
def test_of_many_rows_some_are_compared_and_all_are_learned() -> None:
    fitted = AutoSurrogate(budget=1.5).fit(rows(wavy, 512))
    assert 100 <= fitted.diagnostics["auto"]["compared_on"] < 512
    assert fitted.diagnostics["n_rows"] == 512


def test_what_needs_more_memory_than_there_is_is_left_out() -> None:
    data = rows(wavy, 24)
    told = AutoSurrogate(memory_budget_mb=140.0, budget=12.0).fit(data).diagnostics["auto"]
    assert not any("neural" in one["surrogate"] for one in told["candidates"])
    with pytest.raises(ValueError, match=r"^memory_budget_mb: expected \d+ or more for 24 rows, got 1$"):
        AutoSurrogate(memory_budget_mb=1.0).fit(data)


@pytest.mark.usefixtures("few_candidates")
def test_more_folds_than_rows_cost_no_more_than_as_many() -> None:
    data = rows(wavy, 8)
    once, again = (AutoSurrogate(budget=12.0, folds=folds).fit(data).diagnostics["auto"] for folds in (8, 800))
    assert once == again


def test_a_hybrid_that_was_chosen_goes_on_without_leaving_rows_out(monkeypatch: pytest.MonkeyPatch) -> None:
    few = HybridSurrogate(members=["gaussian_process", {"kind": "random_forest", "n_estimators": 10}])
    monkeypatch.setattr(AutoSurrogate, "candidates", lambda *_: [few])
    first = SMALL.fit(rows(wavy, 32))
    assert SMALL.fit(rows(wavy, 36), None, first).diagnostics["cross_validated"] == 32


@pytest.mark.usefixtures("few_candidates")
def test_the_choice_stands_until_rows_have_grown() -> None:
    data = rows(wavy, 40)
    first = SMALL.fit(data.take(range(32)), jax.random.key(1))
    on = SMALL.fit(data.take(range(36)), jax.random.key(1), first)
    assert on.diagnostics["auto"] == first.diagnostics["auto"]
    assert SMALL.fit(data, jax.random.key(1), SMALL.fit(rows(wavy, 8))).diagnostics["auto"]["n_rows"] == 40


def test_values_below_0_rule_no_logarithm_in() -> None:
    specs = AutoSurrogate().candidates(np.array([-1.0, 2.0]))
    assert {spec.transform for spec in specs} == {"standardize", "yeo_johnson", "auto"}
    assert {spec.transform for spec in AutoSurrogate(transform="log").candidates(np.ones(2))} == {"log"}


@pytest.mark.usefixtures("few_candidates")
def test_the_order_of_rows_changes_no_bit() -> None:
    data = rows(wavy, 30)
    assert surrogate_files(SMALL.fit(data)) == surrogate_files(SMALL.fit(data.take(np.arange(30)[::-1])))


def test_less_memory_is_a_smaller_surrogate() -> None:
    chosen = [select_surrogate(50_000, 10, budget) for budget in (4000, 600, 450, 300, 180)]
    assert [one.surrogate for one in chosen] == list(PREFERRED)
    for one, budget in zip(chosen, (4000, 600, 450, 300, 180), strict=True):
        assert one.estimate.memory_mb <= budget
        assert one.estimates[str(one.surrogate)] == one.estimate
    assert select_surrogate(100, 3, 200).surrogate == GPSurrogate()
    assert surrogate_core.select_memory_conscious_surrogate is select_surrogate


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 3, 100), "n_samples: expected a number above 0, got 0"),
        ((10, 0, 100), "n_dims: expected a number above 0, got 0"),
        ((10, 3, -1), "memory_budget_mb: expected a number above 0, got -1"),
        ((10, 3, 1), r"memory_budget_mb: expected \d+ or more for 10 rows of 3, got 1"),
    ],
)
def test_a_choice_of_what_cannot_be_is_refused(arguments: tuple[int, int, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        select_surrogate(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": -1.0}, "budget: expected a number >= 0, got -1.0"),
        ({"memory_budget_mb": "much"}, "memory_budget_mb: expected a number >= 0, got 'much'"),
        ({"folds": 1}, "folds: expected an integer >= 2, got 1"),
        ({"transform": "root"}, "transform: expected one of standardize, log, yeo_johnson, auto, got 'root'"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        AutoSurrogate(**options)
