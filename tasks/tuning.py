"""The search of surrogate specs that the stage `tune` makes: a trial is a cross-validation, its folds the steps."""

import math
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from surrogate_core.dataset import Dataset
from surrogate_core.execution import ExecutorSpec
from surrogate_core.surrogates.base import Surrogate
from surrogate_core.tuning.champion import complexity, one_standard_error
from surrogate_core.tuning.importance import importances
from surrogate_core.tuning.study import StudyResult, search
from surrogate_core.tuning.trials import Trial
from surrogate_core.tuning.watch import Progress as StudyProgress
from surrogate_core.validation.cross_validation import Folds
from tasks.errors import StageFailed
from tasks.evaluations import Progress, open_journal
from tasks.tune import as_bad_input, forget, release, spec_of, workers
from tasks.workspace import Workspace

PRECOMPUTE = "SURROGATE_PRECOMPUTE"  # 0: folds and distances are computed anew for each trial, which saves memory


@dataclass(frozen=True)
class SpecObjective:
    """The mean negative log density of a fold."""

    champion: Surrogate
    folds: Callable[[], Folds]

    def __call__(self, params: Mapping[str, Any], step: int) -> float:
        return self.folds().nlpd(spec_of(self.champion, params), step)


@dataclass(frozen=True)
class Tuned:
    """What the search came to.

    Attributes:
        study: all of it.
        best: the trial of the best value.
        chosen: the simplest that is not worse by more than a standard error.
        challenger: its spec.
        importance: of the parameters.
    """

    study: StudyResult
    best: Trial
    chosen: Trial
    challenger: Surrogate
    importance: Mapping[str, float]

    def report(self) -> dict[str, Any]:
        """What tuning.json has of it; no time is told."""
        study = self.study
        return {
            "best": self.best.number,
            "chosen": self.chosen.number,
            "stopped": study.stopped,
            "reproducible": study.reproducible,
            "n_duplicates": study.n_duplicates,
            "duplicate_ratio": study.duplicate_ratio,
            "degenerate_ratio": study.degenerate_ratio,
            "warnings": list(study.warnings) or None,  # DVC's plots of the file would fail at an empty list
            "importance": dict(self.importance),
            "trials": [_row(trial) for trial in study.trials],
        }


def search_specs(workspace: Workspace, key: str, champion: Surrogate, dataset: Dataset, progress: Progress) -> Tuned:
    """Searches specs for a challenger, from the champion's own on; one that was killed goes on.

    Raises:
        StageFailed: every spec failed.
        BadInput: a guard, a database or a cluster that the settings name does not answer.
    """
    settings = workspace.settings
    asked, execution, validate = settings.tune, settings.execution, settings.validate
    space, spec = settings.tune_space, asked.study(validate.folds)
    make: Callable[[], Folds] = partial(Folds, dataset, validate.folds, validate.seed)
    if os.environ.get(PRECOMPUTE, "1") not in ("", "0"):
        make = partial(_same, make())

    def tell(trial: Trial, how: StudyProgress) -> None:
        progress(how.n_told, how.n_trials, "specs")

    kept_at, first = asked.kept_at(f"tune-{key}"), asked.own_design(champion)
    executor = workers(_where(execution.spec), space)
    with as_bad_input(), asked.open_guard(workspace.root, f"tune-{key}") as guard:
        if not asked.allow_resume:
            forget(workspace.journal("tune", f"{key}.trials"), guard)
        with nullcontext() if kept_at else open_journal(workspace, "tune", f"{key}.trials") as journal:
            study = search(
                SpecObjective(champion, make),
                space,
                spec,
                journal=journal,
                executor=executor,
                guard=guard,
                storage=kept_at,
                first=[] if first is None else [first],
                on_trial=tell,
            )
            if journal is not None and guard is not None:
                release(journal, guard)  # whoever makes the stage again, without its cache, searches again
    if not study.trials:
        raise StageFailed(f"tune.guard: every spec of tune.space has been tried by another search, says {asked.guard}")
    if all(trial.status == "failed" for trial in study.trials):
        raise StageFailed(f"tune.space: all {len(study.trials)} specs failed, the first with: {study.trials[0].reason}")
    rows = dataset.ok
    chosen = one_standard_error(study.trials, lambda trial: complexity(spec_of(champion, trial.params), champion, rows))
    importance = importances(space, study.trials, seed=asked.fixed_seed)
    return Tuned(study, study.best, chosen, spec_of(champion, chosen.params), importance)


def _where(executor: ExecutorSpec) -> ExecutorSpec:
    """Where trials are made: here, as long as processes, which import and compile anew, would be no sooner done."""
    return replace(executor, kind="auto") if executor.kind == "processes" else executor


def _same(folds: Folds) -> Folds:
    return folds


def _row(trial: Trial) -> dict[str, Any]:
    return {
        "number": trial.number,
        **trial.params,
        "nlpd": None if math.isnan(trial.value) else trial.value,
        "status": trial.status,
        "reason": trial.reason,
    }
