"""Which flow runs are at work: each is tagged with its project and process, and crashed when that process has gone.

Nothing else tells Prefect that a run was killed: it would stay Running for ever.
"""

import platform
import re
from pathlib import Path

import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Crashed

from flows.server import living_process

AT_WORK = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]

_PROCESS = re.compile(r"process:(\d+):([\d.]+)")


def project_tag(root: Path) -> str:
    """What the flow runs of a project on this machine have in common."""
    return f"project:{platform.node()}:{root.resolve()}"


def run_tags(root: Path, pid: int | None = None) -> list[str]:
    """The tags of a flow run that works in a project, in this process or in another one of this machine."""
    process = psutil.Process(pid)
    return [project_tag(root), f"process:{process.pid}:{process.create_time():.2f}"]


def mark_crashed(client: SyncPrefectClient, root: Path) -> list[FlowRun]:
    """Marks the runs of a project as crashed, and their tasks, whose process on this machine has gone.

    Returns:
        Those runs, as they were.
    """
    at_work = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[project_tag(root)]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=AT_WORK)),
    )
    dead = [run for run in client.read_flow_runs(flow_run_filter=at_work) if _has_gone(run)]
    for run in dead:
        client.set_flow_run_state(run.id, Crashed(message="its process was killed"), force=True)
    if dead:
        tasks = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id for run in dead])),
            task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=AT_WORK))),
        )
        for task in tasks:
            client.set_task_run_state(task.id, Crashed(message="its process was killed"), force=True)
    return dead


def _has_gone(run: FlowRun) -> bool:
    """Whether the process that a run names has ended; False where it names none."""
    found = [match for tag in run.tags if (match := _PROCESS.fullmatch(tag))]
    return bool(found) and not any(living_process(int(match[1]), float(match[2])) for match in found)
