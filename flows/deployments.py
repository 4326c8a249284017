"""The pipeline as a flow that starts by itself: for `surrogate serve`, or for a Prefect worker as prefect.yaml says.

At most one run works in a project, held apart by the project's lock, which no kill leaves behind as it would a slot of
Prefect's. A run that comes too late, or while another one works, ends as Cancelled under the name Skipped.
"""

import datetime as dt
import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import chdir
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import psutil
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext
from prefect.states import Cancelled, Completed, Failed

from flows.command import (
    Busy,
    ServerGone,
    interrupt,
    interruptible,
    leave,
    only_errors,
    open_workspace,
    project,
    room_needed,
    server_needed,
)
from flows.liveness import run_tags
from tasks.errors import BadInput, UserError

INTERRUPTED = "what was evaluated is kept, and the next run goes on from there"
SERVER_GONE = os.EX_UNAVAILABLE  # the exit status of a run that has nobody left to tell how it ended

_END_SECONDS = 30.0


@flow(name="scheduled", persist_result=False)
def scheduled(root: str = ".", params: str | None = None, overrides: list[str] | None = None) -> State:
    """Runs the whole pipeline in a project, as `surrogate run` does, unless another run works there.

    Args:
        root: the project's folder.
        params: another settings file than its params.yaml.
        overrides: settings such as fit.seed=1, as after -S.

    Returns:
        How it ended, with one line that says what came out, or why nothing did.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)  # not as Prefect does, which would leave the run as Crashed
    only_errors()
    try:
        state = _outcome(Path(root).resolve(), params, overrides or ())
    except Exception:
        traceback.print_exc()  # it is our mistake
        raise
    if not _told_by_parent.get():
        click.echo(f"{state.name}: {state.message}")
    return state


# `surrogate serve` says itself how a run has ended.
_told_by_parent: ContextVar[bool] = ContextVar("told_by_parent", default=False)


def _outcome(folder: Path, params: str | None, overrides: Sequence[str]) -> State:
    began = time.perf_counter()
    try:
        if not folder.is_dir():
            raise BadInput(f"root: expected the project's folder, got {folder}, which is none")
        with (
            server_needed(),
            room_needed(),
            chdir(folder),
            get_client(sync_client=True) as client,
            project(folder, params),
        ):
            context = FlowRunContext.get()
            if context is not None and context.flow_run is not None:
                if newer := newer_due(client, context.flow_run):
                    return replaced(context.flow_run, newer)
                client.update_flow_run(context.flow_run.id, tags={*context.flow_run.tags, *run_tags(folder)})
            line = _run(folder, params, overrides)
    except Busy as error:
        return skipped(str(error))
    except ServerGone as error:
        if _told_by_parent.get():
            leave(SERVER_GONE)  # Prefect would try for a minute to say so
        return Failed(message=str(error))
    except UserError as error:
        return Failed(message=str(error))
    except KeyboardInterrupt:
        return Cancelled(name="Interrupted", message=INTERRUPTED)
    return Completed(message=f"{line}, {time.perf_counter() - began:.1f} s")


def skipped(why: str) -> State:
    """The end of a run that did nothing."""
    return Cancelled(name="Skipped", message=why)


def replaced(run: FlowRun, newer: FlowRun) -> State:
    """The end of a late run after which another one was due already."""
    return skipped(f"{lateness(run)}: the run due at {clock(newer)} takes its place")


def lateness(run: FlowRun) -> str:
    """How late a run is now."""
    return f"late by {(dt.datetime.now(dt.UTC) - due(run)).total_seconds():.0f} s"


def due(run: FlowRun) -> dt.datetime:
    """When a run should start."""
    time = run.next_scheduled_start_time or run.expected_start_time
    assert time is not None, f"{run.name} was never scheduled"
    return time


def clock(run: FlowRun) -> str:
    """When a run should start, as people here read it."""
    return f"{due(run).astimezone():%H:%M:%S}"


def newer_due(client: SyncPrefectClient, run: FlowRun) -> FlowRun | None:
    """The newest run of the same deployment that was due already when this process started; None for this one.

    What has been due since then does not count: runs due faster than they start would each give way to the next.
    """
    if run.deployment_id is None or run.expected_start_time is None:
        return None
    started = dt.datetime.fromtimestamp(psutil.Process().create_time(), dt.UTC)
    alive = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.COMPLETED]
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[run.deployment_id]),
            expected_start_time=FlowRunFilterExpectedStartTime.model_validate(
                {"after_": run.expected_start_time, "before_": started}
            ),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=alive)),
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=1,
    )
    return found[0] if found and due(found[0]) > run.expected_start_time else None


def _run(folder: Path, params: str | None, overrides: Sequence[str]) -> str:
    """Runs all stages and says what came out."""
    from rich.console import Console

    from tasks.inputs import Inputs
    from tasks.workspace import check_writable

    inputs = Inputs.now(folder)  # before the sources are imported
    workspace = open_workspace(folder, params, overrides, inputs)
    check_writable(workspace.out, workspace.out / "data")

    from flows.pipeline import run_stages
    from flows.view import Lines
    from tasks.keys import STAGES
    from tasks.reports import recommendation

    only_errors()  # again: mlflow has set its own level as it was imported
    gc.enable()
    console = Console(width=140)
    session = run_stages(workspace, tuple(STAGES), Lines(console))
    for note in session.notes:
        console.print(f"note      {note}", soft_wrap=True, highlight=False, markup=False)
    final = recommendation(workspace)
    worked = [stage for stage, (cache, _) in session.costs.items() if cache == "miss"]
    gates = "" if final["gates_passed"] else f", gates FAILED ({', '.join(final['failed_gates'])})"
    told = "nothing measured" if final["measured"] is None else f"measured {final['measured']:.4g}"
    return f"{told}{gates}; {', '.join(worked) + ' worked' if worked else 'all cached'}"


def work(flow_run_id: str, parameters: dict[str, Any]) -> None:
    """The process of one run that `surrogate serve` has started: it ends with that, as by Ctrl-C."""
    gc.disable()  # until the stages work: collecting amid imports is a fifth of the start
    interruptible()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _told_by_parent.set(True)
    try:
        from prefect.flow_engine import run_flow
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        # The heartbeat's thread would be joined for a second at the end.
        with server_needed(), temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            with get_client(sync_client=True) as client:
                run = client.read_flow_run(UUID(flow_run_id))
            run.deployment_id = None  # else Prefect watches for a suspension, and tells at length of a server that died
            run_flow(scheduled, flow_run=run, parameters=parameters, return_type="state")
    except ServerGone:
        leave(SERVER_GONE)
    except KeyboardInterrupt:
        sys.exit(130)


def _end_with_parent() -> None:
    # Only the parent holds the other end of this pipe, and never writes: it ends when the parent does.
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_END_SECONDS)
    os._exit(1)
