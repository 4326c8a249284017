"""Tuning: a search that tries no design twice, repeats by its seed and goes on from its journal."""

from __future__ import annotations

import itertools
import math
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surrogate_core.journal import Journal
from surrogate_core.tuning.study import Study, search

GRID: dict[str, list[Any]] = {"kernel": ["a", "b", "c", "d"], "n": [1, 2, 4, 8], "prior": ["flat", None]}
DESIGNS = [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]
Objective = Callable[[Mapping[str, Any]], float]


def bowl(params: Mapping[str, Any]) -> float:
    """Least, 0, at c, 4, None."""
    return abs("abcd".index(params["kernel"]) - 2) + abs(math.log2(params["n"]) - 2) + (params["prior"] is not None)


def picky(params: Mapping[str, Any]) -> float:
    if params["kernel"] == "b":
        raise ValueError("b suits no data")
    if params["n"] == 8:
        return math.inf
    return bowl(params)


def key(params: Mapping[str, Any]) -> str:
    return orjson.dumps(params, option=orjson.OPT_SORT_KEYS).decode()


def told(study: Study) -> list[Any]:
    """All that a study says, with NaN as the text that it prints as."""
    return [study.n_duplicates, *((t.number, key(t.params), repr(t.value), t.status, t.reason) for t in study.trials)]


class Counted:
    """An objective that keeps what it was called with, and is killed in a given call."""

    def __init__(self, objective: Objective, killed_in: int | None = None) -> None:
        self.objective = objective
        self.killed_in = killed_in
        self.calls: list[Mapping[str, Any]] = []

    def __call__(self, params: Mapping[str, Any]) -> float:
        self.calls.append(params)
        if len(self.calls) == self.killed_in:
            raise KeyboardInterrupt
        return self.objective(params)


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 7), st.integers(0, 2**31 - 1))
def test_no_design_is_tried_twice(n_trials: int, batch: int, seed: int) -> None:
    objective = Counted(bowl)
    study = search(objective, GRID, n_trials=n_trials, batch=batch, seed=seed)
    expected = min(n_trials, len(DESIGNS))
    assert len(study.trials) == len(objective.calls) == expected
    assert len({key(trial.params) for trial in study.trials}) == expected
    assert [trial.params for trial in study.trials] == objective.calls
    assert [trial.number for trial in study.trials] == list(range(expected))
    assert [trial.value for trial in study.trials] == [bowl(trial.params) for trial in study.trials]
    assert all(trial.params in DESIGNS for trial in study.trials)
    assert study.best.value == min(trial.value for trial in study.trials)


@pytest.mark.parametrize("batch", [1, 4, 50])
def test_it_stops_when_the_grid_is_exhausted(batch: int) -> None:
    study = search(bowl, GRID, n_trials=1000, batch=batch, seed=0)
    assert sorted(key(trial.params) for trial in study.trials) == sorted(map(key, DESIGNS))
    assert study.best.params == {"kernel": "c", "n": 4, "prior": None}


def test_a_seed_fixes_the_study_and_another_gives_another() -> None:
    studies = [search(picky, GRID, n_trials=12, batch=4, seed=seed) for seed in (3, 3, 4)]
    assert told(studies[0]) == told(studies[1])
    assert told(studies[0]) != told(studies[2])


def test_it_learns() -> None:
    """Half of the grid is enough to find its minimum by far more often than by chance."""
    found = [search(bowl, GRID, n_trials=16, batch=4, seed=seed).best.value == 0 for seed in range(12)]
    assert sum(found) >= 8  # by chance 6 are expected


def test_what_has_been_told_before_a_batch_does_not_depend_on_who_asks_later() -> None:
    short, long = (search(bowl, GRID, n_trials=n, batch=4, seed=0) for n in (15, 16))
    assert told(short)[1:] == told(long)[1:16]


@pytest.mark.parametrize("first", [DESIGNS[0], DESIGNS[-1], {"prior": None, "n": 2, "kernel": "b"}], ids=str)
def test_the_first_design_is_the_one_asked_for(first: dict[str, Any]) -> None:
    study = search(bowl, GRID, n_trials=8, batch=4, seed=0, first=first)
    assert study.trials[0].params == first
    assert len({key(trial.params) for trial in study.trials}) == 8


@pytest.mark.parametrize("first", [{"kernel": "z", "n": 1, "prior": None}, {"kernel": "a"}], ids=str)
def test_a_first_design_outside_the_grid_is_refused_by_name(first: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="first"):
        search(bowl, GRID, n_trials=8, batch=4, seed=0, first=first)


def test_a_design_that_fails_is_a_trial_with_its_reason() -> None:
    study = search(picky, GRID, n_trials=32, batch=4, seed=0)
    for trial in study.trials:
        if trial.params["kernel"] == "b":
            expected = ("failed", "b suits no data")
        elif trial.params["n"] == 8:
            expected = ("failed", "not a finite number: inf")
        else:
            expected = ("ok", "")
        assert (trial.status, trial.reason) == expected
        assert math.isnan(trial.value) == (trial.status == "failed")
    assert study.best.params == {"kernel": "c", "n": 4, "prior": None}


@pytest.mark.parametrize("returned", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_a_failure(returned: float) -> None:
    study = search(lambda params: returned, GRID, n_trials=2, batch=1, seed=0)
    assert {trial.status for trial in study.trials} == {"failed"}


@pytest.mark.parametrize("journal", [False, True])
def test_a_failure_without_a_message_is_a_failure(journal: bool, tmp_path: Path) -> None:
    def fail(params: Mapping[str, Any]) -> float:
        raise ValueError

    with Journal(tmp_path / "j.jsonl") as written:
        study = search(fail, GRID, n_trials=3, batch=2, seed=0, journal=written if journal else None)
    assert [trial.status for trial in study.trials] == ["failed"] * 3
    assert all(trial.reason for trial in study.trials)


def test_if_everything_failed_there_is_no_best_and_the_error_says_why() -> None:
    def fail(params: Mapping[str, Any]) -> float:
        raise ValueError("no data")

    study = search(fail, GRID, n_trials=6, batch=4, seed=0)
    assert len(study.trials) == 6
    with pytest.raises(ValueError, match="expected at least one trial to succeed, got no data"):
        _ = study.best


def test_of_no_trials_there_is_no_best() -> None:
    with pytest.raises(ValueError, match=r"expected at least one trial"):
        _ = search(bowl, GRID, n_trials=0, batch=4, seed=0).best


def test_an_error_that_is_no_failure_of_the_design_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        search(lambda params: 1 / 0, GRID, n_trials=6, batch=4, seed=0)


@contextmanager
def broken_off_after(seconds: int) -> Iterator[None]:
    """So that a loop that does not end fails its test alone."""

    def stop(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_nothing_is_refused(batch: int) -> None:
    with broken_off_after(3), pytest.raises(ValueError, match="batch: expected an integer >= 1"):
        search(bowl, GRID, n_trials=4, batch=batch, seed=0)


@pytest.mark.parametrize("killed_in", [1, 2, 4, 5, 9, 12])
def test_a_study_that_was_killed_goes_on_from_its_journal(killed_in: int, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"n_trials": 12, "batch": 4, "seed": 1, "first": DESIGNS[5]}
    whole = Counted(picky)
    expected = told(search(whole, GRID, **arguments))

    killed = Counted(picky, killed_in)
    with Journal(tmp_path / "tune.jsonl") as journal, pytest.raises(KeyboardInterrupt):
        search(killed, GRID, journal=journal, **arguments)
    again = Counted(picky)
    with Journal(tmp_path / "tune.jsonl") as journal:
        assert len(journal.ended) == killed_in - 1
        assert len(journal.in_flight) == 1
        assert told(search(again, GRID, journal=journal, **arguments)) == expected
    assert [*killed.calls[:-1], *again.calls] == whole.calls

    nothing = Counted(picky)
    with Journal(tmp_path / "tune.jsonl") as journal:
        assert told(search(nothing, GRID, journal=journal, **arguments)) == expected
    assert not nothing.calls


def test_each_trial_is_told_as_it_ends_and_how_many_there_will_be() -> None:
    heard: list[Any] = []
    study = search(bowl, GRID, n_trials=50, batch=4, seed=0, on_trial=lambda trial, total: heard.append((trial, total)))
    assert heard == [(trial, 32) for trial in study.trials]


VALUES: dict[str, list[Any]] = {
    "layers": [[64], [64, 32], []],
    "options": [{"a": 1, "b": [2]}, {}, None],
    "mixed": [None, "1", 1, 1.5, 1.0, True, False],
}


def test_any_json_value_may_be_in_the_space(tmp_path: Path) -> None:
    def size(params: Mapping[str, Any]) -> float:
        return len(key(params))

    with Journal(tmp_path / "j.jsonl") as journal:
        study = search(size, VALUES, n_trials=1000, batch=5, seed=0, journal=journal)
    assert len(study.trials) == len({key(trial.params) for trial in study.trials}) == 3 * 3 * 7
    with Journal(tmp_path / "j.jsonl") as journal:
        again = search(lambda params: 1 / 0, VALUES, n_trials=1000, batch=5, seed=0, journal=journal)
    assert told(again) == told(study)


def test_a_first_design_is_told_from_others_that_compare_equal() -> None:
    study = search(bowl_of_one, {"x": [1, 1.0, True]}, n_trials=1, batch=1, seed=0, first={"x": True})
    assert study.trials[0].params["x"] is True


def bowl_of_one(params: Mapping[str, Any]) -> float:
    return float(params["x"])


def test_optuna_is_left_as_it_was() -> None:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    try:
        search(bowl, GRID, n_trials=2, batch=1, seed=0)
        with pytest.raises(ZeroDivisionError):
            search(lambda params: 1 / 0, GRID, n_trials=2, batch=1, seed=0)
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.set_verbosity(before)
