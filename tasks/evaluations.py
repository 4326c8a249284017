"""Evaluations of the black box by a stage: under its journal, failures among them rows, an outage an error."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from surrogate_core.collection import evaluate_points
from surrogate_core.dataset import Dataset
from surrogate_core.evaluation import Evaluator
from surrogate_core.execution import ClusterNotFound, WorkerNotStarted
from surrogate_core.journal import Journal
from surrogate_core.output_log import OutputLog
from surrogate_core.space import SearchSpace
from tasks.errors import BadInput, StageFailed
from tasks.workspace import Workspace

_logger = logging.getLogger("surrogate.stages")

Progress = Callable[[int, int, str], None]
"""Called with what is done, what there is to do, and a few words on how it goes."""

Evaluate = Callable[[np.ndarray, str, Progress, int, int], Dataset]


@contextmanager
def evaluation(
    workspace: Workspace, space: SearchSpace, stage: str, key: str, before: Dataset | None = None
) -> Iterator[Evaluate]:
    """Evaluates points under a stage's journal; offline, they stay pending.

    Raises:
        BadInput: what is called cannot be imported or started.
        StageFailed: all evaluations failed, for a reason of which no row before died: what is called is out of order;
            or a worker was killed as it started.
    """
    problem, execution = workspace.settings.problem, workspace.settings.execution.spec
    if problem.is_offline:
        yield lambda X, *_: Dataset(X, np.full(len(X), np.nan), space, np.full(len(X), "pending"))
        return
    black_box = problem.black_box(workspace.root, workspace.unversioned / "evaluations")
    output = OutputLog(workspace.unversioned / "black-box.log")
    tried: list[Dataset] = []
    with (
        open_journal(workspace, stage, key) as journal,
        Evaluator(black_box, execution, problem.timeout, problem.retries, journal, output) as evaluator,
    ):

        def evaluate(X: np.ndarray, label: str, progress: Progress, before: int, total: int) -> Dataset:
            def on_progress(done: int, _: int) -> None:
                progress(before + done, total, "evaluations")

            try:
                rows = evaluate_points(evaluator, space, X, label, sign=problem.sign, on_progress=on_progress)
            except WorkerNotStarted as error:
                if error.killed:
                    raise StageFailed(
                        f"{stage}: problem.{problem.kind} could not be started: {error.reason}"
                    ) from error
                raise BadInput(f"problem.{problem.kind}: {error.reason.removeprefix('ValueError: ')}") from error
            except ClusterNotFound as error:
                raise BadInput(f"execution.{error}") from error
            tried.append(rows)
            return rows

        if execution.kind != "processes":  # whose workers find out as they start
            try:
                black_box.check()
            except ValueError as error:
                raise BadInput(f"problem.{problem.kind}: {error}") from error
        yield evaluate
        status, reason = (np.concatenate([getattr(rows, name) for rows in tried]) for name in ("status", "reason"))
        known = set() if before is None else {_kind(one) for one in before.reason}
        if len(status) and (status == "failed").all() and not known & {_kind(one) for one in reason}:
            for name, record in list(journal.ended.items()):
                if record.get("status") == "failed":
                    journal.drop(name)  # so that the next run tries it again
            told = f"; what it printed is in {output.path}" if output.is_there() else ""
            raise StageFailed(f"{stage}: all {len(status)} evaluations failed, the first with: {reason[0]}{told}")


@contextmanager
def open_journal(workspace: Workspace, stage: str, key: str) -> Iterator[Journal]:
    try:
        journal = Journal(workspace.journal(stage, key))
    except ValueError as error:
        raise StageFailed(str(error)) from error
    if journal.damaged:
        _logger.warning("%s: %d damaged lines skipped; what they told of is done again", journal.path, journal.damaged)
    with journal:
        yield journal


def _kind(reason: str) -> str:
    """What a reason is of, whatever numbers it tells."""
    return re.sub(r"[\d.eE+-]+", "#", reason)
