"""A study of an objective of one's own: `surrogate tune --objective package.module:function`.

It has a folder below `runs/tune`, known by all that its trials depend on: the same command goes on with it, and another
space, seed or source begins another one.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from surrogate_core.atomic import write_file
from surrogate_core.execution import STOPPING, ExecutorSpec, WorkerNotStarted
from surrogate_core.journal import Journal
from surrogate_core.problems.black_box import BlackBox, call_with, check_signature
from surrogate_core.tuning.guard import DuplicateGuard
from surrogate_core.tuning.identity import trial_key
from surrogate_core.tuning.importance import importances
from surrogate_core.tuning.proposals import draw
from surrogate_core.tuning.space import TuningSpace
from surrogate_core.tuning.storage import Storage
from surrogate_core.tuning.study import StudyResult, StudySpec, search
from surrogate_core.tuning.trials import Trial
from surrogate_core.tuning.watch import Progress
from surrogate_core.tuning.workers import advice
from tasks import pictures
from tasks.errors import BadInput, StageFailed
from tasks.outputs import to_json
from tasks.parsing import plain, validated
from tasks.settings import Execution, is_fast, load_content, shortened
from tasks.tune import Tune, as_bad_input, forget, workers

STEP = "step"
"""The name under which an objective is told which step of a trial it is to make, where trials have several."""
DESIGNS = 20  # for which the function is looked at before any is tried


@dataclass(frozen=True)
class Objective:
    """A function by its name, called with a design, and with the number of a step where trials have several."""

    black_box: BlackBox

    def __call__(self, params: Mapping[str, Any], step: int | None = None) -> Any:
        return call_with(self.black_box.resolve(), params if step is None else {**params, STEP: step})


@dataclass(frozen=True)
class ObjectiveStudy:
    """What is to be done, checked.

    Attributes:
        target: the function's name.
        tune: the settings.
        space: of the designs.
        spec: how it is searched.
        executor: where the function is called.
        folder: where all of it is kept.
        guarded: the name of what values depend on.
    """

    target: str
    tune: Tune
    space: TuningSpace
    spec: StudySpec
    executor: ExecutorSpec
    folder: Path
    guarded: str

    @classmethod
    def of(cls, root: Path, target: str, settings: Path, overrides: Sequence[str]) -> "ObjectiveStudy":
        """Of the sections `tune` and `execution` of a settings file; what else it has is not looked at.

        Raises:
            BadInput: something in them is not as expected, or there is no such function.
        """
        content = load_content(settings, overrides)
        tune: Tune = validated(TypeAdapter(Tune), plain(content.get("tune") or {}, "tune"), "tune", Tune)
        tune = replace(tune, seed=tune.fixed_seed)
        if is_fast():
            tune = shortened("tune", tune)
        given = plain(content.get("execution") or {}, "execution")
        execution: Execution = validated(TypeAdapter(Execution), given, "execution", Execution)
        space = tune.own_space
        spec = tune.checked(space, tune.steps)
        if tune.steps > 1 and STEP in (tune.space or {}):
            raise BadInput(f"tune.space.{STEP}: expected another name, as that of a trial's step, got it")
        executor = workers(execution.spec, space)
        if tune.timeout is not None and executor.kind not in STOPPING:
            raise BadInput(
                f"tune.timeout: needs executor processes or dask, which can stop a call, got {executor.kind}"
            )
        box, rng = BlackBox(target), np.random.default_rng(0)
        try:
            function = box.resolve()
            for _ in range(DESIGNS):  # which names there are depends on the branches
                names = list(space.propose(lambda name, what: draw(what, rng)))
                check_signature(function, names + [STEP] * (tune.steps > 1), target)
        except ValueError as error:
            raise BadInput(f"--objective: {error}") from error
        source = box.source()
        about = [target, source.read_bytes().hex() if source is not None else "", spec.identity(space, ())]
        digest = hashlib.sha256(trial_key({"study": about}).encode()).hexdigest()[:12]
        folder = root / "runs" / "tune" / f"{target.rpartition(':')[2]}-{digest}"
        guarded = trial_key({"about": [*about[:2], tune.steps, tune.direction]})
        return cls(target, tune, space, spec, executor, folder, guarded)

    @property
    def journal(self) -> Path:
        return self.folder / "trials.jsonl"

    @property
    def about(self) -> str:
        """A line: how large the space is, who works, and what is advised."""
        estimate = self.space.estimate
        least, most = estimate.workers
        n = self.executor.n_workers
        workers = "the cluster's" if n is None and self.executor.address else f"{1 if n is None else n}"
        return (
            f"{estimate}, {estimate.n_parameters} parameter{'s' * (estimate.n_parameters != 1)}; "
            f"{workers} at a time by {self.executor.kind} (advised for {estimate.kind} spaces: {least} to {most}), "
            f"in batches of {self.spec.batch_in(self.space)}"
        )

    def run(
        self, on_trial: Callable[[Trial, Progress], None], on_warning: Callable[[str], None], root: Path
    ) -> StudyResult:
        """Works until the study is done, or goes on with it.

        Raises:
            BadInput: what the settings name does not answer, or the function cannot be imported by a worker.
        """
        if warned := advice(self.executor.n_workers or 1, self.space):
            on_warning(warned)
        kept_at = self.tune.kept_at(self.folder.name)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with as_bad_input(), self.tune.open_guard(root, self.guarded) as guard:
                if not self.tune.allow_resume:
                    forget(self.journal, guard)
                with nullcontext() if kept_at else Journal(self.journal) as journal:
                    if journal is not None and journal.damaged:
                        on_warning(
                            f"{self.journal}: {journal.damaged} damaged lines skipped; what they told is done again"
                        )
                    result = self._search(journal, guard, kept_at, on_trial, on_warning)
                if kept_at is None and all(trial.status == "failed" for trial in result.trials):
                    forget(self.journal, guard)  # what is mended elsewhere than in the function's file is tried again
                return result
        except WorkerNotStarted as error:
            raise BadInput(f"--objective: {error.reason.removeprefix('ValueError: ')}") from error

    def _search(
        self,
        journal: Journal | None,
        guard: DuplicateGuard | None,
        kept_at: Storage | None,
        on_trial: Callable[[Trial, Progress], None],
        on_warning: Callable[[str], None],
    ) -> StudyResult:
        return search(
            Objective(BlackBox(self.target)),
            self.space,
            self.spec,
            journal=journal,
            executor=self.executor,
            guard=guard,
            storage=kept_at,
            timeout=self.tune.timeout,
            on_trial=on_trial,
            on_warning=on_warning,
        )

    def write(self, result: StudyResult) -> tuple[dict[str, Any], list[Path]]:
        """Writes what a study came to, as `study.json` and pictures; returns it with the files.

        Raises:
            StageFailed: no trial ended well; `study.json` is written all the same.
        """
        told = self._report(result)
        files = [self.folder / "study.json"]
        write_file(files[0], to_json(told))
        if not result.trials:
            raise StageFailed(
                f"tune.guard: every design of tune.space has been tried by another search, says {self.tune.guard}"
            )
        if told["best"] is None:
            first = next((trial.reason for trial in result.trials if trial.reason), "there were no trials")
            smoke = " (the first few were tried alone: tune.smoke)" if result.stopped == "smoke" else ""
            stored = self.tune.kept_at(self.folder.name)
            cure = "" if stored is None else "; once that is mended, another tune.storage.name begins a new study"
            raise StageFailed(f"tune: all {len(result.trials)} trials failed{smoke}, the first with: {first}{cure}")
        for name, figure in self._figures(told).items():
            files.append(self.folder / f"{name}.png")
            write_file(files[-1], pictures.png(figure()))
        return told, files

    def _report(self, result: StudyResult) -> dict[str, Any]:
        ok = [trial for trial in result.trials if trial.status == "ok"]
        best = result.best if ok else None
        shares = importances(self.space, result.trials, self.spec.sign, self.spec.fixed_seed)
        return {
            "objective": self.target,
            "direction": self.spec.direction,
            "best": None if best is None else {"number": best.number, "value": best.value, "params": best.params},
            "n_trials": len(result.trials),
            "n_failed": sum(trial.status == "failed" for trial in result.trials),
            "n_pruned": sum(trial.status == "pruned" for trial in result.trials),
            "n_duplicates": result.n_duplicates,
            "duplicate_ratio": result.duplicate_ratio,
            "degenerate_ratio": result.degenerate_ratio,
            "stopped": result.stopped,
            "reproducible": result.reproducible,
            "warnings": list(result.warnings),
            "importance": shares,
            "trials": [self.row(trial) for trial in result.trials],
        }

    def row(self, trial: Trial) -> dict[str, Any]:
        """A trial as pictures and trackers take it, its parameters by the names that samplers know."""
        value = None if math.isnan(trial.value) else trial.value
        told = {"number": trial.number, "value": value, "status": trial.status, "reason": trial.reason}
        return {**told, "params": self.space.labels(trial.params)}

    def _figures(self, told: Mapping[str, Any]) -> dict[str, Callable[[], Any]]:
        rows, direction = told["trials"], self.spec.direction
        figures: dict[str, Callable[[], Any]] = {
            "history": lambda: pictures.study_history(rows, direction, "value", told["n_duplicates"])
        }
        if told["importance"]:
            figures["importance"] = lambda: pictures.importance(told["importance"])
        if pictures.has_scales(rows):
            figures["slices"] = lambda: pictures.study_slices(rows, "value")
            figures["parallel"] = lambda: pictures.parallel_coordinates(rows, direction, "value")
        return figures
