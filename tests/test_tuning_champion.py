"""The challenger is the simplest of the best, and wins where it is better on other folds; what mattered is told."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from surrogate_core import Dataset, GPSurrogate, HybridSurrogate, SearchSpace
from surrogate_core.execution import ExecutorSpec, map_calls, usable_cpus
from surrogate_core.tuning.champion import Duel, complexity, duel, one_standard_error
from surrogate_core.tuning.importance import importances
from surrogate_core.tuning.samplers import Sampler
from surrogate_core.tuning.space import TuningSpace
from surrogate_core.tuning.study import StudySpec, search
from surrogate_core.tuning.trials import Trial
from surrogate_core.tuning.workers import MAX_CONCURRENT, advice, trial_executor
from surrogate_core.validation.cross_validation import Folds, cross_validate


def trial(number: int, *steps: float, status: Any = "ok") -> Trial:
    value = math.fsum(steps) / len(steps) if steps else math.nan
    return Trial(number, {"n": number}, value, status, "" if status == "ok" else "no", steps)


def later_is_more(one: Trial) -> float:
    return one.number


# One standard error


@pytest.mark.parametrize(
    ("trials", "chosen"),
    [
        ([trial(0, 1.2, 2.8), trial(1, 1.1, 2.8), trial(2, 0.9, 2.9)], 0),  # within the error of the difference
        ([trial(0, 2.0, 4.0), trial(1, 1.0, 3.0)], 1),  # a worse one, surely
        ([trial(0, 1.0, 3.0, status="pruned"), trial(1, 5.0, 6.0)], 1),
        ([trial(0, status="failed"), trial(1, 5.0, 6.0)], 1),
        ([trial(0, 1.5), trial(1, 1.0)], 1),  # of a single step there is no error
        ([trial(0, 1e99, 1e99), trial(1, -1e99, 1.0)], 1),
    ],
)
def test_the_simplest_within_a_standard_error_of_the_best_is_chosen(trials: Sequence[Trial], chosen: int) -> None:
    assert one_standard_error(trials, later_is_more).number == chosen


def test_of_equally_simple_ones_the_better_is_chosen() -> None:
    trials = [trial(0, 1.0, 3.0), trial(1, 1.1, 2.8), trial(2, 0.9, 2.9)]
    assert one_standard_error(trials, lambda one: 1.0).number == 2


@pytest.mark.parametrize("trials", [[], [trial(0, status="failed")]])
def test_where_none_ended_well_nothing_is_chosen(trials: Sequence[Trial]) -> None:
    with pytest.raises(ValueError, match=f"got {'no' if trials else 'no trials'}"):
        one_standard_error(trials, later_is_more)


@given(st.lists(st.tuples(*[st.floats(-10, 10)] * 3), min_size=1, max_size=8))
def test_what_is_chosen_is_no_more_complex_than_the_best_and_near_it(values: list[tuple[float, float, float]]) -> None:
    trials = [trial(i, *steps) for i, steps in enumerate(values)]
    best = min(trials, key=lambda one: one.value)
    chosen = one_standard_error(trials, later_is_more)
    error = np.std(np.array(chosen.steps) - np.array(best.steps), ddof=1) / np.sqrt(3)
    assert later_is_more(chosen) <= later_is_more(best)
    assert chosen.value - best.value <= error + 1e-9


# Duels


def wavy(n: int = 40) -> Dataset:
    X = np.random.default_rng(0).uniform(size=(n, 2))
    return Dataset(X, np.sin(9 * X[:, 0]) + X[:, 1], SearchSpace.from_bounds([(0, 1)] * 2))


@pytest.mark.parametrize(
    ("champion", "challenger", "is_won"),
    [
        (GPSurrogate(fixed=("length_scale",), length_scale=1e4), GPSurrogate(), True),
        (GPSurrogate(), GPSurrogate(fixed=("length_scale",), length_scale=1e4), False),
        (GPSurrogate(), GPSurrogate(n_starts=7), False),  # as good
        (GPSurrogate(), GPSurrogate(), False),
    ],
)
def test_a_challenger_wins_only_if_it_is_better_beyond_doubt(
    champion: GPSurrogate, challenger: GPSurrogate, is_won: bool
) -> None:
    assert duel(champion, challenger, wavy(), 4, 0).is_won == is_won


def test_a_duel_is_fought_row_by_row_on_folds_that_neither_was_chosen_by() -> None:
    champion, challenger = GPSurrogate(kernel="matern12"), GPSurrogate()
    told = duel(champion, challenger, wavy(), 4, 7)
    by_seed = [
        cross_validate(challenger, wavy(), 4, seed).log_density - cross_validate(champion, wavy(), 4, seed).log_density
        for seed in (8, 9, 10)
    ]
    differences = np.mean(by_seed, axis=0)
    assert told.advantage == pytest.approx(differences.mean())
    assert told.standard_error == pytest.approx(differences.std(ddof=1) / np.sqrt(40))
    assert told.p_value == pytest.approx(wilcoxon(differences, alternative="greater").pvalue)


@pytest.mark.parametrize(
    ("advantage", "p_value", "is_won"),
    [(0.3, 1e-4, True), (0.3, 0.01, False), (-0.3, 1e-4, False), (math.nan, 1e-4, False)],
)
def test_a_lead_must_be_one_in_the_mean_and_on_most_rows(advantage: float, p_value: float, is_won: bool) -> None:
    assert Duel(advantage, 0.1, p_value).is_won == is_won


def test_a_spec_is_the_more_complex_the_longer_it_fits_and_the_more_it_differs() -> None:
    champion = GPSurrogate()
    specs = [GPSurrogate(kernel="rbf"), GPSurrogate(kernel="rbf", prior="flat"), HybridSurrogate(), champion]
    measured = [complexity(spec, champion, wavy()) for spec in specs]
    assert measured == sorted(measured)
    assert len(set(measured)) == 4


# Folds that trials share


def test_shared_folds_change_no_bit() -> None:
    shared, specs = Folds(wavy(), 4, 3), [GPSurrogate(kernel=kernel) for kernel in ("rbf", "matern32", "rbf")]
    for spec in specs:
        alone = cross_validate(spec, wavy(), 4, 3)
        told = [shared.nlpd(spec, i) for i in range(4)]
        again = shared.held_out(spec)
        assert alone.log_density.tobytes() == again.log_density.tobytes()
        assert told == [-np.mean(alone.log_density[alone.fold == i]) for i in range(4)]


def test_distances_are_computed_once_for_all_specs(monkeypatch: pytest.MonkeyPatch) -> None:
    from surrogate_core.surrogates import few_rows

    made: list[int] = []
    compute = few_rows._squared_differences
    monkeypatch.setattr(few_rows, "_squared_differences", lambda rows: made.append(len(rows.F)) or compute(rows))
    shared = Folds(wavy(), 4, 3)
    shared.nlpd(GPSurrogate(kernel="rbf"), 0)
    n_first = len(made)
    shared.nlpd(GPSurrogate(kernel="matern32", prior="flat"), 0)
    assert len(made) == n_first > 0
    Folds(wavy(), 4, 3).nlpd(GPSurrogate(kernel="rbf"), 0)
    assert len(made) == 2 * n_first


@pytest.mark.slow
def test_folds_travel_to_processes() -> None:
    folds = Folds(wavy(), 4, 3)
    here = [folds.nlpd(GPSurrogate(), i) for i in range(4)]
    assert map_calls(lambda i: folds.nlpd(GPSurrogate(), i), range(4), ExecutorSpec("processes", 2)) == here


# Importance

SPACE = TuningSpace(
    {
        "much": {"type": "float", "low": 0, "high": 1},
        "little": {"type": "float", "low": 0, "high": 1},
        "kind": {"type": "branches", "branches": {"a": {"own": [1, 2, 3, 4]}, "b": {}}},
    }
)


def leaning(params: Mapping[str, Any]) -> float:
    return 10 * params["much"] + 0.1 * params["little"] + 5 * (params["kind"] == "b") + params.get("own", 0)


def test_importance_is_of_what_values_depend_on() -> None:
    study = search(leaning, SPACE, StudySpec(80, sampler=Sampler("random")))
    found = importances(SPACE, study.trials)
    assert list(found) == sorted(found, key=found.__getitem__, reverse=True)
    assert next(iter(found)) == "much"
    assert found["much"] > 0.5 > 0.02 > found["little"]
    assert found["kind"] > found["little"]
    assert found["kind=a/own"] > found["little"]
    assert importances(SPACE, study.trials) == found


def test_an_outlier_does_not_explain_everything() -> None:
    study = search(
        lambda params: 1e6 if params["little"] > 0.97 else leaning(params),
        SPACE,
        StudySpec(80, sampler=Sampler("random")),
    )
    assert next(iter(importances(SPACE, study.trials))) == "much"


@pytest.mark.parametrize("objective", [lambda params: 1.0, lambda params: 1 / 0], ids=["constant", "failing"])
def test_where_nothing_is_known_nothing_is_important(objective: Any) -> None:
    study = search(objective, SPACE, StudySpec(20, sampler=Sampler("random"), smoke=0))
    assert not any(importances(SPACE, study.trials).values())


# Workers

DISCRETE = TuningSpace({"x": [1, 2, 3]})
CONTINUOUS = TuningSpace({"x": {"type": "float", "low": 0, "high": 1}})
LARGE = TuningSpace({f"x{i}": {"type": "float", "low": 0, "high": 1} for i in range(25)})


@pytest.mark.parametrize(("space", "least", "most"), [(DISCRETE, 2, 4), (CONTINUOUS, 4, 8), (LARGE, 8, 16)])
def test_workers_are_advised_by_the_kind_of_space(space: TuningSpace, least: int, most: int) -> None:
    assert space.estimate.workers == (least, most)
    assert advice(most, space) == ""
    told = advice(most + 1, space)
    assert f"{most + 1} at a time are more than the {least} to {most}" in told
    assert StudySpec().batch_in(space) == most


def test_the_environment_bounds_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    def n_workers(kind: Any = "threads", n: int | None = None) -> int | None:
        return trial_executor(ExecutorSpec(kind, n), CONTINUOUS).n_workers

    assert (n_workers(), n_workers(n=32), n_workers("serial")) == (min(usable_cpus(), 8), 32, None)
    monkeypatch.setenv(MAX_CONCURRENT, "3")
    assert (n_workers(), n_workers(n=32), n_workers(n=2), n_workers("serial")) == (3, 3, 2, None)
    for wrong in ("0", "-1", "many"):
        monkeypatch.setenv(MAX_CONCURRENT, wrong)
        with pytest.raises(ValueError, match=f"^SURROGATE_MAX_CONCURRENT: expected an integer >= 1, got '{wrong}'"):
            n_workers()
