"""The pipeline as a Prefect flow: the stages one after the other, each cached, written, published and committed."""

import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from prefect import Task, flow, tags, task
from prefect.client.schemas.objects import TaskRun
from prefect.context import SyncClientContext, TagsContext
from prefect.states import State

from flows.command import check, server_needed
from flows.dvc import DvcCommitter
from flows.last_run import note_end, note_stage
from flows.liveness import mark_crashed, run_tags
from flows.view import Silent, View
from surrogate_core.performance.profiler import Cost, PerformanceProfiler, operation, performance_monitor
from tasks.caching import ResultStorage, call_cached, stage_options
from tasks.errors import BadInput
from tasks.files import StageFiles
from tasks.keys import STAGES, stage_key
from tasks.reports import is_done, read_report
from tasks.stages import BODIES, Progress
from tasks.tracking import Cache, Status, Tracker, dvc_process
from tasks.workspace import Workspace

TRANSIENT = (OSError, EOFError)  # a worker pool that broke, a disk that was full: worth another try
RETRIES, RETRY_SECONDS = 1, 2


@dataclass
class Session:
    """One command's work: where, seen by whom, and what it has cost so far."""

    workspace: Workspace
    view: View
    tracker: Tracker
    committer: DvcCommitter
    costs: dict[str, tuple[str, Cost]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # a line each; complete once the run has ended
    on_sigterm: Any = None  # the handler that the process has; None outside the main thread, which alone may set one

    def storage(self, stage: str) -> ResultStorage:
        """The cache as one stage sees it."""
        limit = int(self.workspace.settings.execution.cache_mb * 1e6)
        return ResultStorage(basepath=str(self.workspace.results), max_bytes=limit, outs=STAGES[stage].outs)


# Prefect records a flow's parameters; what is no plain value reaches the flow this way.
_session: ContextVar[Session] = ContextVar("session")


def run_stages(workspace: Workspace, stages: Sequence[str], view: View | None = None) -> Session:
    """Runs stages in their order as one flow run and one MLflow run; a Prefect server must be set.

    Raises:
        BadInput: the black box or the figure cannot be found; nothing has been done.
        UserError: the work could not be done. The MLflow run has ended as FAILED.
    """
    check(workspace, stages)
    process = dvc_process()
    with operation("track"):
        tracker = Tracker.join(workspace, process) if process else Tracker.start(workspace)
    with ExitStack() as stack:
        committer = stack.enter_context(DvcCommitter(workspace))
        session = Session(workspace, view or Silent(), tracker, committer)
        if threading.current_thread() is threading.main_thread():
            session.on_sigterm = signal.getsignal(signal.SIGTERM)
        token = _session.set(session)
        stack.callback(_session.reset, token)
        status: Status = "FAILED"
        reason = ""
        try:
            named = pipeline if len(stages) > 1 else pipeline.with_options(name=stages[0])
            with server_needed(), SyncClientContext.get_or_create() as prefect, tags(*run_tags(workspace.root)):
                mark_crashed(prefect.client, workspace.root)
                named(list(stages), workspace.settings.digest)
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        except Exception as error:
            reason = str(error)
            raise
        finally:
            tracker.end(status)
            session.notes.append(note_end(workspace, status=status, reason=reason, run_id=tracker.run_id))
    why_not = [committer.why_not] if committer.why_not and not process else []  # DVC itself commits what it runs
    session.notes = [*tracker.trouble, *committer.trouble, *dict.fromkeys(filter(None, session.notes)), *why_not]
    return session


@flow(name="pipeline", validate_parameters=False, persist_result=False)
def pipeline(stages: list[str], params_digest: str) -> None:
    """The stages named, in their order."""
    session = _session.get()
    if session.on_sigterm is not None:
        # In place of Prefect's, whose exception a black box called in this thread would be taken to have raised.
        signal.signal(signal.SIGTERM, session.on_sigterm)
    with TagsContext(current_tags=set()):  # a task with tags asks the server for a slot of each
        for stage in stages:
            _run_stage(stage, session)
    if dvc_process():
        _publish_skipped(session)


def _publish_skipped(session: Session) -> None:
    """Publishes the stages that DVC finds up to date, which run in no process of their own.

    Those are the earlier ones, for else DVC would not have come here, and the later ones whose key is still the one
    that they last ran under.
    """
    workspace, published, order = session.workspace, session.tracker.published(), list(STAGES)
    last = max(order.index(stage) for stage in session.costs)
    for place, stage in enumerate(order):
        if stage not in published and is_done(stage, workspace) and (place < last or _is_up_to_date(stage, workspace)):
            key = workspace.last_key(stage) or ""
            session.tracker.publish(read_report(stage, workspace), key, "skipped by dvc", None)


def _is_up_to_date(stage: str, workspace: Workspace) -> bool:
    try:
        return workspace.last_key(stage) == stage_key(STAGES[stage], workspace)
    except BadInput:  # what it reads has not been made here
        return False


def _run_stage(stage: str, session: Session) -> None:
    workspace = session.workspace
    session.view.begin(stage)
    key = stage_key(STAGES[stage], workspace)
    with performance_monitor(stage, "detailed", include_children=True) as profiler:
        files, hit = call_cached(
            _TASKS[stage],
            storage=session.storage(stage),
            key=key,
            is_current=lambda: not workspace.edited(pipeline=False),
            workspace=workspace,
            progress=session.view.progress,
        )
        workspace.write(files, STAGES[stage].outs)
    workspace.finish(stage, key)
    with operation("publish"):
        _publish(stage, session, key, hit, profiler)


def _publish(stage: str, session: Session, key: str, hit: bool, profiler: PerformanceProfiler) -> None:
    workspace, cost = session.workspace, profiler.cost
    session.committer.add(stage)
    report = read_report(stage, workspace)
    cache: Cache = "hit" if hit else "miss"
    session.costs[stage] = (cache, cost)
    session.notes += [f"{stage}: {note}" for note in report.notes]
    session.notes.append(note_stage(workspace, stage, key=key, cache=cache, cost=cost, run_id=session.tracker.run_id))
    session.view.end(report, cache, cost)
    session.tracker.publish(report, key, cache, cost, None if hit else profiler)


def _is_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.data, TRANSIENT) or isinstance(getattr(state, "_exception", None), TRANSIENT)


def _task(stage: str, body: Callable[[Workspace, str, Progress], StageFiles]) -> Task[..., StageFiles]:
    def work(key: str, workspace: Workspace, progress: Progress) -> StageFiles:
        return body(workspace, key, progress)

    work.__doc__ = body.__doc__
    make = task(
        retries=RETRIES, retry_delay_seconds=RETRY_SECONDS, retry_condition_fn=_is_transient, **stage_options(stage)
    )
    return make(work)


_TASKS = {stage: _task(stage, body) for stage, body in BODIES.items()}
