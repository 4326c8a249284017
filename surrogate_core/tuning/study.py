"""A search over finite grids of designs by Optuna's TPE sampler: in synchronous batches, never one design twice.

Proposals depend on the seed and on the values told, never on who evaluated when; so a study that was killed is replayed
from its journal, which answers what had ended without evaluating it again.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import optuna
import orjson
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from surrogate_core.journal import Journal

Grid = Mapping[str, Sequence[Any]]
GRID = "grid"  # the name of the choice among several, as Optuna knows it
MAX_REPEATS = 20  # proposals already tried before an untried design is drawn in their place


@dataclass(frozen=True)
class Trial:
    """One design and what came of it; the value is NaN where it failed."""

    number: int
    params: Mapping[str, Any]
    value: float
    status: Literal["ok", "failed"]
    reason: str = ""


@dataclass(frozen=True)
class Study:
    """All trials in the order they were told, and how often the sampler proposed one that had been tried."""

    trials: tuple[Trial, ...]
    n_duplicates: int

    @property
    def best(self) -> Trial:
        """The trial of the least value.

        Raises:
            ValueError: every trial failed.
        """
        ok = [trial for trial in self.trials if trial.status == "ok"]
        if not ok:
            got = self.trials[0].reason if self.trials else "no trials"
            raise ValueError(f"expected at least one trial to succeed, got {got}")
        return min(ok, key=lambda trial: trial.value)


def search(
    objective: Callable[[Mapping[str, Any]], float],
    space: Grid | Sequence[Grid],
    *,
    n_trials: int,
    batch: int,
    seed: int,
    first: Mapping[str, Any] | None = None,
    journal: Journal | None = None,
    on_trial: Callable[[Trial, int], None] | None = None,
) -> Study:
    """Minimizes an objective over a grid, or over several that share no design.

    Args:
        objective: a design's value; a ValueError it raises is a failed trial.
        space: name to the values it may take; or several such, whose names may differ.
        n_trials: distinct designs to try; fewer where the grids have fewer.
        batch: designs proposed before any of them is told.
        seed: fixes every proposal.
        first: a design of a grid to try before all others.
        journal: remembers each trial when it starts and when it ends.
        on_trial: called with each trial as it is told, and how many there will be.
    """
    if batch < 1:
        raise ValueError(f"batch: expected an integer >= 1, got {batch!r}")
    grids = [space] if isinstance(space, Mapping) else list(space)
    untried = _untried(grids, seed)
    n_trials = min(n_trials, len(untried))
    opening = [places for places in untried if first is not None and _key(_at(grids, places)) == _key(first)]
    if first is not None and not opening:
        raise ValueError(f"first: expected a design of the grid, got {first!r}")
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        sampler = TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=max(5, n_trials // 3))
        study = optuna.create_study(sampler=sampler)
        for places in opening:
            study.enqueue_trial(places)
        tried: dict[str, Trial] = {}
        n_duplicates = 0
        while len(tried) < n_trials:
            asked: list[tuple[optuna.Trial, dict[str, Any]]] = []
            for _ in range(min(batch, n_trials - len(tried))):
                for _repeat in range(MAX_REPEATS):
                    trial, params = _ask(study, grids)
                    known = tried.get(_key(params))
                    if known is None and all(params != other for _, other in asked):
                        break
                    n_duplicates += 1
                    _tell(study, trial, known)
                else:
                    taken = {*tried, *(_key(other) for _, other in asked)}
                    study.enqueue_trial(next(places for places in untried if _key(_at(grids, places)) not in taken))
                    trial, params = _ask(study, grids)
                asked.append((trial, params))
            for trial, params in asked:
                ended = _evaluate(objective, params, len(tried), journal)
                tried[_key(params)] = ended
                _tell(study, trial, ended)
                if on_trial is not None:
                    on_trial(ended, n_trials)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return Study(tuple(tried.values()), n_duplicates)


def _evaluate(
    objective: Callable[[Mapping[str, Any]], float], params: dict[str, Any], number: int, journal: Journal | None
) -> Trial:
    key = f"trial/{_key(params)}"
    if journal is not None and key in journal:
        record = journal[key]
    else:
        if journal is not None:
            journal.start(key)
        try:
            value = float(objective(params))
            reason = "" if math.isfinite(value) else f"not a finite number: {value}"
        except ValueError as error:  # a design that the data rules out, such as a logarithm of negative values
            value, reason = math.nan, str(error) or repr(error)
        record = {"value": None if reason else value, "reason": reason}
        if journal is not None:
            journal.end(key, record)
    failed = record["value"] is None
    value = math.nan if failed else record["value"]
    return Trial(number, params, value, "failed" if failed else "ok", record["reason"])


def _tell(study: optuna.Study, trial: optuna.Trial, ended: Trial | None) -> None:
    if ended is None or ended.status == "failed":  # none: proposed twice within one batch
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, ended.value)


def _ask(study: optuna.Study, grids: Sequence[Grid]) -> tuple[optuna.Trial, dict[str, Any]]:
    """A proposal: choices go to Optuna by their place, so that any JSON value can be one."""
    trial = study.ask()

    def place(name: str, n: int) -> int:
        return int(trial.suggest_categorical(name, range(n)))

    number = place(GRID, len(grids))
    for name, values in grids[number].items():
        place(f"{number}.{name}", len(values))
    return trial, _at(grids, trial.params)


def _untried(grids: Sequence[Grid], seed: int) -> Any:
    """Every design as places, in an order fixed by the seed."""
    designs = [
        {GRID: number, **dict(zip((f"{number}.{name}" for name in grid), places, strict=True))}
        for number, grid in enumerate(grids)
        for places in itertools.product(*(range(len(values)) for values in grid.values()))
    ]
    return [designs[i] for i in np.random.default_rng(seed).permutation(len(designs))]


def _at(grids: Sequence[Grid], places: Mapping[str, int]) -> dict[str, Any]:
    number = places[GRID]
    return {name: values[places[f"{number}.{name}"]] for name, values in grids[number].items()}


def _key(params: Mapping[str, Any]) -> str:
    return orjson.dumps(params, option=orjson.OPT_SORT_KEYS).decode()
