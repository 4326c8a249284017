"""Studies: the search of a space of designs, none tried twice and none lost, for thousands of trials.

Proposals come in synchronous batches. They depend on the seed and on the values told, in the order they were proposed,
never on who evaluated when; so a seed fixes the study, and one that was killed goes on from its journal.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

from surrogate_core.execution import ExecutorSpec
from surrogate_core.journal import Journal
from surrogate_core.tuning.engine import Run
from surrogate_core.tuning.guard import DuplicateGuard, PlaceNotReached
from surrogate_core.tuning.samplers import Pruner, Sampler, silent
from surrogate_core.tuning.space import TuningSpace
from surrogate_core.tuning.storage import Joined, Storage, reached
from surrogate_core.tuning.trials import Trial
from surrogate_core.tuning.watch import Progress

Objective = Callable[..., Any]
Strategy = Literal["optuna", "grid", "random"]
Direction = Literal["minimize", "maximize"]
Stopped = Literal["done", "exhausted", "patience", "time_budget", "smoke"]
SMOKE, LONG = 3, 50
"""Trials that run first where nobody says how many, if there are as many as LONG to come."""
SEED = "SURROGATE_RANDOM_SEED"


def default_seed() -> int:
    """What SURROGATE_RANDOM_SEED says, or 0.

    Raises:
        ValueError: it says no integer >= 0.
    """
    given = os.environ.get(SEED, "0")
    if not given.isdecimal() or int(given) >= 2**31:
        raise ValueError(f"{SEED}: expected an integer from 0 to 2147483647, got {given!r}")
    return int(given)


@dataclass(frozen=True)
class StudySpec:
    """How a space is searched.

    Args:
        n_trials: distinct designs to try; fewer where there are fewer.
        strategy: by a sampler, or every design of a finite space in turn, or at random.
        sampler: what proposes.
        pruner: what breaks off trials whose first steps are no good.
        batch: trials that are proposed before any of them is told; by default as many as a sampler can do with in a
            space of its kind. Results depend on it, and not on how many workers there are.
        asynchronous: propose as soon as a worker is free: nobody waits, and a seed no longer fixes the study.
        seed: of all proposals; by default what SURROGATE_RANDOM_SEED says, or 0.
        direction: which values are best.
        n_steps: of a trial, such as folds: the objective is called for each, and the value is their mean.
        time_budget: seconds after which no batch is begun; a study that it cuts short is not reproducible.
        patience: trials without a better value after which the study ends.
        smoke: trials that run first; if all of them fail, nothing else is tried. By default 3 before long studies.
        precision: decimals by which designs differ; by default 10, and more where a logarithmic range begins lower.

    Raises:
        ValueError: a value is out of its range.
    """

    n_trials: int = 100
    strategy: Strategy = "optuna"
    sampler: Sampler = field(default_factory=Sampler)
    pruner: Pruner = field(default_factory=Pruner)
    batch: int | None = None
    asynchronous: bool = False
    seed: int | None = None
    direction: Direction = "minimize"
    n_steps: int = 1
    time_budget: float | None = None
    patience: int | None = None
    smoke: int | None = None
    precision: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("n_trials", 0), ("batch", 1), ("n_steps", 1), ("patience", 1), ("smoke", 0), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < least):
                raise ValueError(f"{name}: expected an integer >= {least}, got {value!r}")
        if self.time_budget is not None and not 0 < self.time_budget < math.inf:
            raise ValueError(f"time_budget: expected a number of seconds > 0, got {self.time_budget!r}")
        if self.strategy not in ("optuna", "grid", "random"):
            raise ValueError(f"strategy: expected one of optuna, grid, random, got {self.strategy!r}")
        if self.direction not in ("minimize", "maximize"):
            raise ValueError(f"direction: expected minimize or maximize, got {self.direction!r}")
        if self.pruner.kind != "none" and self.n_steps < 2:
            raise ValueError(f"pruner: expected none, as trials have one step, got {self.pruner.kind}")
        if self.pruner.kind != "none" and self.asynchronous:
            raise ValueError(f"pruner: expected none with asynchronous, got {self.pruner.kind}")

    @property
    def proposed_by(self) -> Sampler:
        return self.sampler if self.strategy == "optuna" else Sampler(self.strategy)

    @property
    def fixed_seed(self) -> int:
        """The seed, wherever it comes from.

        Raises:
            ValueError: the variable of the environment holds none.
        """
        return default_seed() if self.seed is None else self.seed

    @property
    def n_smoke(self) -> int:
        if self.smoke is None:  # a stateful pruner's verdicts depend on which steps are made side by side
            return SMOKE * (self.n_trials >= LONG and not self.pruner.is_stateful)
        return self.smoke

    @property
    def sign(self) -> float:
        return 1.0 if self.direction == "minimize" else -1.0

    def batch_in(self, space: TuningSpace) -> int:
        """Trials of a batch."""
        return self.batch or space.estimate.workers[1]

    def precision_in(self, space: TuningSpace) -> int:
        """Decimals by which designs differ."""
        return space.precision if self.precision is None else self.precision

    def identity(self, space: TuningSpace, first: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What a study that goes on must have in common with the one before; it may have more trials, or fewer."""
        return {
            "space": space.key,
            "sampler": [self.proposed_by.kind, self.proposed_by.told_options],
            "pruner": [self.pruner.kind, self.pruner.told_options],
            "batch": None if self.asynchronous else self.batch_in(space),
            "seed": self.fixed_seed,
            "direction": self.direction,
            "n_steps": self.n_steps,
            "precision": self.precision_in(space),
            "first": [dict(params) for params in first],
        }


@dataclass(frozen=True)
class StudyResult:
    """What a study came to.

    Attributes:
        trials: in the order they were told.
        n_duplicates: proposals that had been tried; they were answered with what became of them.
        stopped: why it ended: all trials are done, no design was left, or what cut it short.
        reproducible: whether the seed fixes it.
        warnings: what was told while it ran.
        direction: which values are best.
        duplicate_ratio: share of the proposals that had been tried.
        degenerate_ratio: share of the trials that failed or repeated the commonest value.
    """

    trials: tuple[Trial, ...]
    n_duplicates: int
    stopped: Stopped = "done"
    reproducible: bool = True
    warnings: tuple[str, ...] = ()
    direction: Direction = "minimize"
    duplicate_ratio: float = 0.0
    degenerate_ratio: float = 0.0

    @property
    def best(self) -> Trial:
        """The trial of the best value, the first of equals.

        Raises:
            ValueError: every trial failed.
        """
        ok = [trial for trial in self.trials if trial.status == "ok"]
        if not ok:
            got = self.trials[0].reason if self.trials else "no trials"
            raise ValueError(f"expected at least one trial to succeed, got {got}")
        return (min if self.direction == "minimize" else max)(ok, key=lambda trial: trial.value)


def search(
    objective: Objective,
    space: TuningSpace | Mapping[str, Any],
    spec: StudySpec | None = None,
    *,
    journal: Journal | None = None,
    executor: ExecutorSpec | None = None,
    guard: DuplicateGuard | None = None,
    storage: Storage | None = None,
    timeout: float | None = None,
    first: Sequence[Mapping[str, Any]] = (),
    on_trial: Callable[[Trial, Progress], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> StudyResult:
    """Searches a space for the design of the best value.

    Args:
        objective: called with a design, and where trials have steps with the number of one, from 0; returns a finite
            number. What it raises is a failed trial.
        space: of the designs, or its spec.
        spec: how it is searched.
        journal: remembers each trial when it starts and when it ends; a study that finds one goes on with it.
        executor: where the objective is called; by default here. No result depends on it, unless `asynchronous`.
        guard: what other processes have claimed, which are not tried here.
        storage: where the study is kept in place of a journal, for others to join, on this machine or another; there
            are `n_trials` of all together. What others try is claimed there, unless there is a guard.
        timeout: seconds after which a call is stopped, and its trial has failed; by executors that can stop one.
        first: designs to try before all others.
        on_trial: called with each trial as it is told, those of an earlier process and of others too, and how the study
            is getting on.
        on_warning: called with a line where something seems wrong with the study.

    Raises:
        ValueError: a value is not as it should be, a design is none of the space, or the journal is of another study.
        StorageUnreachable: the database does not answer.
    """
    space = space if isinstance(space, TuningSpace) else TuningSpace(space)
    spec, executor = spec or StudySpec(), executor or ExecutorSpec("serial")
    if journal is not None and storage is not None:
        raise ValueError(f"journal: expected none, as the study is kept at {storage.told}, got {journal.path}")
    with silent(), reached(storage), ExitStack() as stack:
        about = {"space": space.key, "n_steps": spec.n_steps, "precision": spec.precision_in(space)}
        joined = None if storage is None else Joined(storage, spec.direction, about)
        if storage is not None and guard is None:
            stack.enter_context(reached(storage, PlaceNotReached))
            guard = stack.enter_context(DuplicateGuard(storage.url, name=storage.name))
        run = Run(
            objective,
            space,
            spec,
            journal=journal,
            executor=executor,
            timeout=timeout,
            guard=guard,
            first=first,
            on_trial=on_trial,
            on_warning=on_warning,
            joined=joined,
        )
        run.go()
    is_fixed = not (spec.asynchronous or run.stopped == "time_budget" or storage is not None or run.n_refused)
    watch = run.watch
    return StudyResult(
        tuple(run.told),
        run.n_duplicates,
        run.stopped,
        is_fixed,
        tuple(watch.warnings),
        spec.direction,
        watch.duplicate_ratio,
        watch.degenerate_ratio,
    )
