"""Studies: no design is tried twice and none is lost, a seed fixes them, and what was killed goes on."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surrogate_core.execution import ExecutorSpec
from surrogate_core.journal import Journal
from surrogate_core.tuning.guard import DuplicateGuard
from surrogate_core.tuning.identity import trial_key
from surrogate_core.tuning.samplers import Pruner, PrunerName, Sampler, SamplerName, silent
from surrogate_core.tuning.study import SEED, StudyResult, StudySpec, search
from surrogate_core.tuning.trials import load_trials

GRID: dict[str, list[Any]] = {"kernel": ["a", "b", "c", "d"], "n": [1, 2, 4, 8], "prior": ["flat", None]}
DESIGNS = [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]
MIXED: dict[str, Any] = {
    "x": {"type": "float", "low": 0, "high": 1},
    "rate": {"type": "loguniform", "low": 1e-4, "high": 1},
    "n": {"type": "int", "low": 1, "high": 64, "log": True},
    "kind": {"type": "branches", "branches": {"net": {"width": {"type": "int", "low": 8, "high": 64}}, "tree": {}}},
}
needs_torch = pytest.mark.skipif(not find_spec("torch"), reason="needs PyTorch: pip install 'surrogate-lab[gp]'")
SAMPLERS = [pytest.param(name, marks=needs_torch) if name == "gp" else name for name in get_args(SamplerName)]
Objective = Callable[..., float]


def bowl(params: Mapping[str, Any]) -> float:
    """Least, 0, at c, 4, None."""
    return abs("abcd".index(params["kernel"]) - 2) + abs(math.log2(params["n"]) - 2) + (params["prior"] is not None)


def valley(params: Mapping[str, Any]) -> float:
    """Least, 0, at 0.3, 0.01, 8, net, 32."""
    branch = abs(params["width"] - 32) / 32 if params["kind"] == "net" else 1.0
    rate, n = math.log10(params["rate"]) + 2, math.log2(params["n"]) - 3
    return (params["x"] - 0.3) ** 2 + 0.1 * rate**2 + 0.05 * n**2 + 0.2 * branch


def picky(params: Mapping[str, Any]) -> float:
    if params["kernel"] == "b":
        raise ValueError("b suits no data")
    if params["n"] == 8:
        return math.inf
    return bowl(params)


def in_steps(params: Mapping[str, Any], step: int) -> float:
    """The same in each step, but for a little that differs."""
    return bowl(params) + 0.01 * math.sin(7 * step + bowl(params))


def told(study: StudyResult) -> list[Any]:
    """All that a study says, with NaN as the text that it prints as."""
    trials = [(t.number, trial_key(t.params), repr(t.value), t.status, t.reason, t.steps) for t in study.trials]
    return [study.n_duplicates, *trials]


class Counted:
    """An objective that keeps what it was called with, and is killed in a given call."""

    def __init__(self, objective: Objective, killed_in: int | None = None) -> None:
        self.objective = objective
        self.killed_in = killed_in
        self.calls: list[str] = []

    def __call__(self, params: Mapping[str, Any], *step: int) -> float:
        self.calls.append(trial_key({"params": params, "step": list(step)}))
        if len(self.calls) == self.killed_in:
            raise KeyboardInterrupt
        return self.objective(params, *step)


def spec_of(kind: SamplerName, space: dict[str, Any], **others: Any) -> StudySpec:
    """Of a sampler, whose first trials do not take the whole of a short study."""
    options = {"n_startup_trials": 5} if kind in ("tpe", "gp", "cmaes") else {}
    return StudySpec(**{"n_trials": 20, "batch": 4, "seed": 1, "sampler": Sampler(kind, options), **others})


# None twice


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 7), st.integers(0, 2**31 - 1), st.sampled_from(["tpe", "random", "grid"]))
def test_no_design_is_tried_twice(n_trials: int, batch: int, seed: int, kind: SamplerName) -> None:
    objective = Counted(bowl)
    study = search(objective, GRID, StudySpec(n_trials, sampler=Sampler(kind), batch=batch, seed=seed))
    expected = min(n_trials, len(DESIGNS))
    assert len(study.trials) == len(set(objective.calls)) == len(objective.calls) == expected
    assert [trial.number for trial in study.trials] == list(range(expected))
    assert [trial.value for trial in study.trials] == [bowl(trial.params) for trial in study.trials]
    assert all(trial.params in DESIGNS for trial in study.trials)
    assert study.best.value == min(trial.value for trial in study.trials)


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("batch", [1, 4, 50])
def test_it_stops_when_the_grid_is_exhausted(kind: SamplerName, batch: int) -> None:
    study = search(bowl, GRID, spec_of(kind, GRID, n_trials=1000, batch=batch))
    assert sorted(trial_key(trial.params) for trial in study.trials) == sorted(map(trial_key, DESIGNS))
    assert study.best.params == {"kernel": "c", "n": 4, "prior": None}
    assert study.warnings[0] == "space: 32 designs are fewer than the 1000 trials asked for: each is tried once"


def test_a_duplicate_is_answered_without_a_call_and_counted() -> None:
    objective = Counted(bowl)
    study = search(objective, GRID, StudySpec(32, sampler=Sampler("random"), batch=4, seed=0))
    assert len(objective.calls) == 32
    assert study.n_duplicates > 0
    assert study.duplicate_ratio == study.n_duplicates / (study.n_duplicates + 32)


# A seed fixes it


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_seed_fixes_the_study_whatever_the_workers(kind: SamplerName) -> None:
    where = [ExecutorSpec("serial"), ExecutorSpec("threads", 1), ExecutorSpec("threads", 3)]
    studies = [
        search(valley, MIXED if kind != "grid" else GRID_OF_MIXED, spec_of(kind, MIXED), executor=e) for e in where
    ]
    assert told(studies[0]) == told(studies[1]) == told(studies[2])
    assert all(study.reproducible for study in studies)


GRID_OF_MIXED = {**MIXED, "x": [0.1, 0.3, 0.5], "rate": [0.01, 0.1], "n": [1, 8]}


@pytest.mark.slow
def test_processes_change_nothing() -> None:
    here, there = (
        search(valley, MIXED, spec_of("tpe", MIXED), executor=executor)
        for executor in (ExecutorSpec("serial"), ExecutorSpec("processes", 2))
    )
    assert told(here) == told(there)


@pytest.mark.parametrize("kind", ["tpe", "random", "qmc", "cmaes"])
def test_another_seed_gives_another_study(kind: SamplerName) -> None:
    one, other = (search(valley, MIXED, spec_of(kind, MIXED, seed=seed)) for seed in (3, 4))
    assert told(one) != told(other)


def test_the_environment_gives_the_seed_where_nobody_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SEED, "7")
    given, asked, other = (search(bowl, GRID, StudySpec(8, batch=4, seed=seed)) for seed in (None, 7, 0))
    assert told(given) == told(asked) != told(other)
    monkeypatch.setenv(SEED, "seven")
    with pytest.raises(ValueError, match=r"^SURROGATE_RANDOM_SEED: expected an integer from 0 to 2147483647, got 'sev"):
        search(bowl, GRID, StudySpec(8))


def test_what_has_been_told_before_a_batch_does_not_depend_on_who_asks_later() -> None:
    short, long = (search(bowl, GRID, StudySpec(n, batch=4, seed=0)) for n in (15, 16))
    assert told(short)[1:] == told(long)[1:16]


# It learns


@pytest.mark.parametrize("kind", ["tpe", "cmaes", pytest.param("gp", marks=needs_torch)])
def test_a_sampler_that_learns_finds_what_chance_does_not(kind: SamplerName) -> None:
    """On 6 of 8 seeds the best of 60 trials is better than the best of 60 random ones of the same seed."""
    space = {name: MIXED[name] for name in ("x", "rate", "n")}

    def best(kind: SamplerName, seed: int) -> float:
        spec = spec_of(kind, space, n_trials=60 if kind != "gp" else 25, seed=seed)
        return search(lambda params: valley({**params, "kind": "tree"}), space, spec).best.value

    wins = [best(kind, seed) < best("random", seed) for seed in range(8 if kind != "gp" else 2)]
    assert sum(wins) >= 0.75 * len(wins)


def test_maximizing_is_minimizing_the_negative() -> None:
    spec = StudySpec(16, batch=4, seed=0)
    least = search(valley, MIXED, spec)
    most = search(lambda params: -valley(params), MIXED, replace(spec, direction="maximize"))
    assert [trial.params for trial in least.trials] == [trial.params for trial in most.trials]
    assert least.best.params == most.best.params


# The first designs


@pytest.mark.parametrize("first", [DESIGNS[0], DESIGNS[-1], {"prior": None, "n": 2, "kernel": "b"}], ids=str)
@pytest.mark.parametrize("kind", SAMPLERS)
def test_the_first_design_is_the_one_asked_for(first: dict[str, Any], kind: SamplerName) -> None:
    study = search(bowl, GRID, spec_of(kind, GRID, n_trials=8), first=[first])
    assert study.trials[0].params == first
    assert len({trial_key(trial.params) for trial in study.trials}) == 8


@pytest.mark.parametrize("first", [{"kernel": "z", "n": 1, "prior": None}, {"kernel": "a"}], ids=str)
def test_a_first_design_outside_the_space_is_refused_by_name(first: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^(kernel|n): expected"):
        search(bowl, GRID, StudySpec(8), first=[first])


def test_a_first_design_is_told_from_others_that_compare_equal() -> None:
    study = search(lambda params: float(params["x"]), {"x": [1, 1.0, True]}, StudySpec(1), first=[{"x": True}])
    assert study.trials[0].params["x"] is True


# Failures


def test_a_design_that_fails_is_a_trial_with_its_reason() -> None:
    study = search(picky, GRID, StudySpec(32, batch=4))
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


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (math.nan, "not a finite number: nan"),
        (None, "TypeError: a black box must return a real number or a dict with 'value', got None"),
        (True, "TypeError: a black box must return a real number or a dict with 'value', got bool True"),
    ],
)
def test_what_is_no_number_is_a_failure(returned: Any, reason: str) -> None:
    study = search(lambda params: returned, GRID, StudySpec(2, batch=1))
    assert {(trial.status, trial.reason) for trial in study.trials} == {("failed", reason)}


def test_if_everything_failed_there_is_no_best_and_the_error_says_why() -> None:
    def fail(params: Mapping[str, Any]) -> float:
        raise ValueError("no data")

    study = search(fail, GRID, StudySpec(6, batch=4))
    assert len(study.trials) == 6
    with pytest.raises(ValueError, match="expected at least one trial to succeed, got no data"):
        _ = study.best


def test_of_no_trials_there_is_no_best() -> None:
    with pytest.raises(ValueError, match=r"expected at least one trial"):
        _ = search(bowl, GRID, StudySpec(0)).best


def test_a_call_that_takes_too_long_is_stopped_and_fails() -> None:
    def sleepy(params: Mapping[str, Any]) -> float:
        time.sleep(30 * (params["x"] == 2))
        return params["x"]

    executor = ExecutorSpec("processes", 2)
    study = search(sleepy, {"x": [1, 2, 3]}, StudySpec(3), executor=executor, timeout=1.0)
    assert {t.params["x"]: t.status for t in study.trials} == {1: "ok", 2: "failed", 3: "ok"}
    assert [t.reason for t in study.trials if t.reason] == ["timeout: no result within 1 s"]


# Bad input


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch": 0}, "batch: expected an integer >= 1, got 0"),
        ({"n_trials": -1}, "n_trials: expected an integer >= 0, got -1"),
        ({"time_budget": 0}, "time_budget: expected a number of seconds > 0, got 0"),
        ({"strategy": "tpe"}, "strategy: expected one of optuna, grid, random, got 'tpe'"),
        ({"direction": "least"}, "direction: expected minimize or maximize, got 'least'"),
        ({"pruner": Pruner("median")}, "pruner: expected none, as trials have one step, got median"),
        ({"pruner": Pruner("median"), "n_steps": 3, "asynchronous": True}, "pruner: expected none with asynchronous"),
    ],
)
def test_a_spec_that_cannot_be_is_refused_by_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        StudySpec(**given)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sampler("tpe2"), "sampler: expected one of tpe, gp, cmaes, qmc, random, grid, got 'tpe2'"),  # type: ignore[arg-type]
        (lambda: Sampler("tpe", {"sigma0": 1}), "sampler.sigma0: expected some of "),
        (lambda: Sampler("tpe", {"seed": 1}), "sampler.seed: expected some of "),
        (lambda: Pruner("half"), "pruner: expected one of none, median, successive_halving, hyperband, wilcoxon, got"),  # type: ignore[arg-type]
        (lambda: Pruner("median", {"p": 1}), "pruner.p: expected some of "),
        (lambda: Sampler("tpe", {"n_startup_trials": "x"}), "sampler.n_startup_trials: expected int, got 'x'"),
        (lambda: Sampler("tpe", {"multivariate": "a"}), "sampler.multivariate: expected bool . None, got 'a'"),
        (lambda: Sampler("tpe", {"gamma": 3}), "sampler.gamma: expected Callable"),
        (lambda: Sampler("tpe", {"n_ei_candidates": 0}), "sampler.n_ei_candidates: expected a number >= 1, got 0"),
        (lambda: Sampler("cmaes", {"sigma0": "a"}), r"sampler.sigma0: expected float \| None, got 'a'"),
        (lambda: Sampler("qmc", {"qmc_type": "foo"}), "sampler: expected options that go together, got "),
        (lambda: Pruner("wilcoxon", {"p_threshold": 3.0}), "pruner: expected options that go together, got "),
    ],
)
def test_a_sampler_or_pruner_that_is_not_known_is_refused_by_name(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


def test_the_settings_of_the_default_sampler() -> None:
    with silent():
        made = Sampler("tpe").make(seed=0, batch=0, parallel=8, has_branches=True)
    assert isinstance(made, optuna.samplers.TPESampler)
    assert (made._multivariate, made._constant_liar, made._n_ei_candidates) == (True, True, 48)
    assert (made._n_startup_trials, made._group) == (40, True)
    assert Sampler("tpe").make(0, 0, 2, False)._n_startup_trials == 25  # type: ignore[attr-defined]


# Steps and pruners


@pytest.mark.parametrize("kind", [kind for kind in get_args(PrunerName) if kind != "none"])
def test_a_pruner_breaks_off_some_trials_and_not_others(kind: PrunerName) -> None:
    options = {"n_startup_trials": 2} if kind == "median" else {"p_threshold": 0.2} if kind == "wilcoxon" else {}
    objective = Counted(in_steps)
    spec = StudySpec(32, pruner=Pruner(kind, options), n_steps=6, batch=4, seed=0)
    study = search(objective, GRID, spec)
    n = {status: sum(trial.status == status for trial in study.trials) for status in ("ok", "pruned", "failed")}
    assert n["ok"] > 0
    assert n["pruned"] > 0
    assert len(objective.calls) == sum(len(trial.steps) for trial in study.trials) < 6 * 32
    assert study.best.value == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_what_was_pruned_is_not_taken_for_a_good_design_when_it_is_proposed_again(kind: SamplerName) -> None:
    """The first steps of all designs are low; that of a pruned one is not its value."""

    def late(params: Mapping[str, Any], step: int) -> float:
        return (0.0 if step < 6 else 10.0) + params["x"]

    wilcoxon = Pruner("wilcoxon", {"n_startup_steps": 2})
    spec = StudySpec(20, sampler=Sampler(kind), pruner=wilcoxon, n_steps=10, batch=2, seed=3)
    study = search(late, {"x": list(range(20))}, spec, first=[{"x": 0}])
    assert study.n_duplicates > 0
    assert [trial.status for trial in study.trials] == ["ok"] * 2 + ["pruned"] * 18  # the first batch knows no better


def test_without_a_pruner_the_value_is_the_mean_of_all_steps() -> None:
    study = search(in_steps, GRID, StudySpec(4, n_steps=3, batch=2))
    for trial in study.trials:
        steps = [in_steps(trial.params, k) for k in range(3)]
        assert trial.steps == tuple(steps)
        assert trial.value == math.fsum(steps) / 3


# The journal


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("killed_in", [1, 5, 9])
def test_a_study_that_was_killed_goes_on_from_its_journal(kind: SamplerName, killed_in: int, tmp_path: Path) -> None:
    spec = spec_of(kind, GRID, n_trials=12)
    arguments: dict[str, Any] = {"first": [DESIGNS[5]]}
    whole = Counted(picky)
    expected = told(search(whole, GRID, spec, **arguments))

    killed = Counted(picky, killed_in)
    with Journal(tmp_path / "tune.jsonl") as journal, pytest.raises(KeyboardInterrupt):
        search(killed, GRID, spec, journal=journal, **arguments)
    again = Counted(picky)
    with Journal(tmp_path / "tune.jsonl") as journal:
        assert told(search(again, GRID, spec, journal=journal, **arguments)) == expected
    assert [*killed.calls[:-1], *again.calls] == whole.calls
    nothing = Counted(picky)
    with Journal(tmp_path / "tune.jsonl") as journal:
        assert told(search(nothing, GRID, spec, journal=journal, **arguments)) == expected
    assert not nothing.calls


@pytest.mark.parametrize("kind", get_args(PrunerName))
@pytest.mark.parametrize("killed_in", [3, 20, 41])
def test_a_study_in_steps_goes_on_as_if_nothing_had_been(kind: PrunerName, killed_in: int, tmp_path: Path) -> None:
    """What is in flight is called again, from its first step on."""
    spec = StudySpec(16, pruner=Pruner(kind), n_steps=4, batch=4, seed=3)
    expected = told(search(in_steps, GRID, spec))
    with Journal(tmp_path / "tune.jsonl") as journal, pytest.raises(KeyboardInterrupt):
        search(Counted(in_steps, killed_in), GRID, spec, journal=journal)
    with Journal(tmp_path / "tune.jsonl") as journal:
        assert told(search(in_steps, GRID, spec, journal=journal)) == expected


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize(("n", "n_more"), [(10, 14), (12, 60)], ids=["amid a batch", "to a long one"])
def test_a_study_that_ended_goes_on_with_more_trials(kind: SamplerName, n: int, n_more: int, tmp_path: Path) -> None:
    if kind == "gp" and n_more > 50:
        pytest.skip("that takes minutes")
    numbers = {name: {"type": "int", "low": 0, "high": 9} for name in "xy"}
    spec = StudySpec(n, sampler=Sampler(kind), batch=4, seed=1)

    def far(params: Mapping[str, Any]) -> float:
        return float((params["x"] - 3) ** 2 + (params["y"] - 7) ** 2)

    with Journal(tmp_path / "tune.jsonl") as journal:
        search(far, numbers, spec, journal=journal)
    more = Counted(far)
    with Journal(tmp_path / "tune.jsonl") as journal:
        study = search(more, numbers, replace(spec, n_trials=n_more), journal=journal)
    assert len(study.trials) == n_more
    assert len(more.calls) == n_more - n
    assert told(study) == told(search(far, numbers, replace(spec, n_trials=n_more)))


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seed": 2}, "seed"), ({"batch": 5}, "batch"), ({"sampler": Sampler("random")}, "sampler")],
)
def test_the_journal_of_another_study_is_refused_by_name(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    spec = spec_of("tpe", GRID, n_trials=4)
    with Journal(tmp_path / "tune.jsonl") as journal:
        search(bowl, GRID, spec, journal=journal)
        before = journal.path.read_bytes()
        with pytest.raises(ValueError, match=f"^{named}: expected that of the study which .*tune.jsonl remembers"):
            search(bowl, GRID, replace(spec, **change), journal=journal)
        assert journal.path.read_bytes() == before


def test_a_trial_that_kills_its_process_is_retried_once(tmp_path: Path) -> None:
    for _ in range(2):
        process = multiprocessing.get_context("spawn").Process(target=_killed, args=(tmp_path / "j.jsonl",))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    calls = Counted(lambda params: params["x"])
    with Journal(tmp_path / "j.jsonl") as journal:
        study = search(calls, OF_FOUR, IN_TURN, journal=journal)
    assert [(t.status, t.reason) for t in study.trials] == [
        ("ok", ""),
        ("failed", "its process was killed 2 times"),
        ("ok", ""),
        ("ok", ""),
    ]
    assert len(calls.calls) == 2


OF_FOUR, IN_TURN = {"x": [1, 2, 3, 4]}, StudySpec(4, sampler=Sampler("grid"), batch=4)


def _killed(path: Path) -> None:
    """A study whose process dies in the second trial."""

    def objective(params: Mapping[str, Any]) -> float:
        if params["x"] == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return float(params["x"])

    with Journal(path) as journal:
        search(objective, OF_FOUR, IN_TURN, journal=journal)


def test_an_interrupt_is_no_kill(tmp_path: Path) -> None:
    for _ in range(3):
        with Journal(tmp_path / "j.jsonl") as journal, pytest.raises(KeyboardInterrupt):
            search(Counted(lambda params: params["x"], 2), OF_FOUR, IN_TURN, journal=journal)
    with Journal(tmp_path / "j.jsonl") as journal:
        study = search(lambda params: params["x"], OF_FOUR, IN_TURN, journal=journal)
    assert [trial.status for trial in study.trials] == ["ok"] * 4


def test_what_a_damaged_line_told_of_is_done_again(tmp_path: Path) -> None:
    path, spec = tmp_path / "j.jsonl", spec_of("tpe", MIXED, n_trials=16)
    with Journal(path) as journal:
        expected = told(search(valley, MIXED, spec, journal=journal))
    content = path.read_bytes()
    place = content.index(b'"end":"trial/3"')
    path.write_bytes(content[:place] + b"#" + content[place + 1 :])
    again = Counted(valley)
    with Journal(path) as journal:
        assert journal.damaged == 1
        assert told(search(again, MIXED, spec, journal=journal)) == expected
    assert len(again.calls) == 1


@pytest.mark.parametrize("kind", ["random", "grid"])
def test_designs_that_were_claimed_and_not_begun_are_tried_by_the_study_that_goes_on(
    kind: SamplerName, tmp_path: Path
) -> None:
    space, spec = {"x": list(range(40))}, StudySpec(40, sampler=Sampler(kind), batch=8, seed=0)
    for calls in (Counted(lambda params: params["x"], 12), Counted(lambda params: params["x"])):
        with Journal(tmp_path / "j.jsonl") as journal, DuplicateGuard(tmp_path / "guard") as guard:
            try:
                study = search(calls, space, spec, journal=journal, guard=guard)
            except KeyboardInterrupt:
                continue
    assert sorted(trial.params["x"] for trial in study.trials) == list(range(40))
    assert study.reproducible


def test_a_grid_counts_what_others_have_tried(tmp_path: Path) -> None:
    with DuplicateGuard(tmp_path / "guard") as guard:
        search(lambda params: params["x"], OF_FOUR, StudySpec(2, strategy="grid"), guard=guard)
        rest = search(lambda params: params["x"], OF_FOUR, StudySpec(4, strategy="grid"), guard=guard)
    assert [trial.params["x"] for trial in rest.trials] == [3, 4]
    assert (rest.n_duplicates, rest.duplicate_ratio, rest.reproducible) == (2, 0.5, False)


def test_an_objective_cannot_change_its_design(tmp_path: Path) -> None:
    space = {"layers": {"type": "categorical", "values": [[1], [2, 3]]}}

    def careless(params: dict[str, Any], step: int) -> float:
        params["layers"].append(9)
        return float(len(params["layers"]))

    with Journal(tmp_path / "j.jsonl") as journal:
        study = search(careless, space, StudySpec(2, n_steps=2, strategy="grid"), journal=journal)
    assert [trial.params["layers"] for trial in study.trials] == [[1], [2, 3]]
    assert [trial.steps for trial in study.trials] == [(2.0, 2.0), (3.0, 3.0)]


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ({"value": 1.0, "constraints": [0.5]}, "constraint 1: expected <= 0, got 0.5"),
        ({"value": 1.0, "constraints": [-0.5], "gradient": {"x": 2.0}}, ""),
    ],
)
def test_a_broken_constraint_is_a_failure(returned: dict[str, Any], reason: str) -> None:
    study = search(lambda params: returned, {"x": {"type": "float", "low": 0, "high": 1}}, StudySpec(1))
    assert study.trials[0].reason == reason


def test_any_json_value_may_be_in_the_space(tmp_path: Path) -> None:
    values: dict[str, list[Any]] = {
        "layers": [[64], [64, 32], []],
        "options": [{"a": 1, "b": [2]}, {}, None],
        "mixed": [None, "1", 1, 1.5, 1.0, True, False],
    }

    def size(params: Mapping[str, Any]) -> float:
        return len(trial_key(params))

    spec = StudySpec(1000, batch=5, seed=0)
    with Journal(tmp_path / "j.jsonl") as journal:
        study = search(size, values, spec, journal=journal)
    assert len({trial_key(trial.params) for trial in study.trials}) == len(study.trials) == 3 * 3 * 7
    with Journal(tmp_path / "j.jsonl") as journal:
        assert told(search(lambda params: 1 / 0, values, spec, journal=journal)) == told(study)
    kept = load_trials(tmp_path / "j.jsonl")
    assert [trial_key(kept[str(t.number)].params) for t in study.trials] == [trial_key(t.params) for t in study.trials]


# Asynchronous


def test_without_batches_a_seed_no_longer_fixes_the_study_and_it_says_so() -> None:
    objective = Counted(valley)
    spec = spec_of("tpe", MIXED, asynchronous=True, n_trials=30)
    study = search(objective, MIXED, spec, executor=ExecutorSpec("threads", 3))
    assert not study.reproducible
    assert len(study.trials) == len(set(objective.calls)) == len(objective.calls) == 30


def test_an_asynchronous_study_that_was_killed_goes_on(tmp_path: Path) -> None:
    spec = spec_of("tpe", MIXED, asynchronous=True, n_trials=12)
    killed, again = Counted(valley, 7), Counted(valley)
    with Journal(tmp_path / "j.jsonl") as journal, pytest.raises(KeyboardInterrupt):
        search(killed, MIXED, spec, journal=journal)
    with Journal(tmp_path / "j.jsonl") as journal:
        study = search(again, MIXED, spec, journal=journal)
    assert len(study.trials) == len({trial_key(t.params) for t in study.trials}) == 12
    assert again.calls[0] == killed.calls[-1]  # what was in flight comes first
    assert len(killed.calls) + len(again.calls) == 13


def test_an_asynchronous_study_ends_when_no_design_is_left() -> None:
    study = search(bowl, GRID, StudySpec(100, asynchronous=True), executor=ExecutorSpec("threads", 3))
    assert len(study.trials) == 32


# Watching


def test_most_proposals_tried_before_are_warned_of_and_few_are_not() -> None:
    heard: list[str] = []
    small = {"x": [1, 2, 3, 4, 5, 6]}
    study = search(lambda p: p["x"], small, StudySpec(6, sampler=Sampler("random"), batch=1), on_warning=heard.append)
    assert study.duplicate_ratio > 0.5
    assert heard == [line for line in heard if "proposals had been tried" in line and "loosen steps" in line]
    assert list(study.warnings) == heard != []
    assert not search(valley, MIXED, spec_of("random", MIXED)).warnings


def test_trials_that_teach_nothing_are_warned_of_and_others_are_not() -> None:
    def flat(params: Mapping[str, Any]) -> float:
        return 1.0

    def failing(params: Mapping[str, Any]) -> float:
        if params["x"] < 0.8:
            raise ValueError("no convergence")
        return params["x"]

    def fine(params: Mapping[str, Any]) -> float:
        if params["x"] < 0.2:
            raise ValueError("no convergence")
        return params["x"]

    def warnings(objective: Objective) -> list[str]:
        return list(search(objective, MIXED, spec_of("random", MIXED, smoke=0)).warnings)

    def counting(params: Mapping[str, Any]) -> float:
        return round(20 * params["x"])

    assert ["0 failed, 9 had the commonest value" in line for line in warnings(flat)] == [True]
    assert warnings(counting) == []
    assert ["the first for: no convergence" in line for line in warnings(failing)] == [True]
    assert warnings(fine) == []


def test_a_long_study_in_which_the_first_trials_fail_is_not_begun() -> None:
    def fail(params: Mapping[str, Any]) -> float:
        raise ValueError("no such file")

    study = search(fail, MIXED, StudySpec(1000))
    assert (study.stopped, len(study.trials)) == ("smoke", 3)
    assert search(fail, MIXED, StudySpec(1000, smoke=5)).trials[-1].number == 4
    assert search(fail, MIXED, StudySpec(20)).stopped == "done"  # it is short


def test_patience_ends_a_study_that_gets_no_better() -> None:
    study = search(valley, MIXED, spec_of("random", MIXED, n_trials=500, batch=1, patience=10))
    values = [trial.value for trial in study.trials]
    assert study.stopped == "patience"
    assert len(values) - 1 - values.index(min(values)) == 10
    assert study.reproducible


def test_a_time_budget_ends_a_study_and_is_told() -> None:
    def slow(params: Mapping[str, Any]) -> float:
        time.sleep(0.02)
        return valley(params)

    study = search(slow, MIXED, spec_of("random", MIXED, n_trials=100_000, time_budget=0.3))
    assert study.stopped == "time_budget"
    assert not study.reproducible
    assert 4 <= len(study.trials) < 100


def test_each_trial_is_told_as_it_ends_and_how_the_study_is_getting_on() -> None:
    heard: list[Any] = []
    study = search(bowl, GRID, StudySpec(50, batch=4), on_trial=lambda trial, how: heard.append((trial, how)))
    assert [trial for trial, _ in heard] == list(study.trials)
    assert [(how.n_told, how.n_trials) for _, how in heard] == [(i + 1, 32) for i in range(32)]
    best = list(itertools.accumulate((trial.value for trial in study.trials), min))
    assert [how.best for _, how in heard] == best


def test_optuna_is_left_as_it_was() -> None:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    try:
        search(bowl, GRID, StudySpec(2))
        with pytest.raises(KeyboardInterrupt):
            search(Counted(bowl, 1), GRID, StudySpec(2))
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.set_verbosity(before)
