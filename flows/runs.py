"""The runs of one schedule: starts what is due, one at a time, skips what is late, and says how each has ended.

Not by Prefect's own runner, which starts a process, 3.5 s of CPU time, even to find that a run is to be skipped, and
gives a run no process group of its own.
"""

import datetime as dt
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import cast
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed, Pending

from flows.deployments import INTERRUPTED, SERVER_GONE, clock, due, lateness, replaced, scheduled, skipped
from flows.liveness import mark_crashed, run_tags
from tasks.errors import StageFailed

LOOK_SECONDS = 5.0  # what a person asks for on Prefect's pages is done so soon; what is scheduled, when it is due

Tell = Callable[[str, str], None]  # what happened, in a word, and the rest of the line

_STOP_SECONDS = 60.0
_ADDING_SECONDS = 0.2  # Prefect may be adding runs, in a transaction of its own, while it deletes those of a schedule


class Runs:
    """The runs of one schedule: those that are due, and the one that works."""

    def __init__(self, root: Path, plan: RunnerDeployment, tell: Tell) -> None:
        self.deployment_id: UUID | None = None
        self._root = root
        self._plan = plan
        self._tell = tell
        self._run: FlowRun | None = None  # the one that works
        self._process: subprocess.Popen[bytes] | None = None
        self._told_first = False

    def apply(self, client: SyncPrefectClient) -> None:
        """Sets the schedule up, unless it is; what was due before is skipped, what was killed is marked as crashed."""
        try:
            known = client.read_deployment_by_name(f"{scheduled.name}/{self._plan.name}").id
        except ObjectNotFound:
            known = None
        if known is not None and known == self.deployment_id:
            return
        for run in mark_crashed(client, self._root):
            if run.parent_task_run_id is None:
                self._tell("crashed", f"{run.name}: its process was killed before; it is marked so now")
        if known is not None:
            for run in self._scheduled(client, known):
                if due(run) <= _now():  # else Prefect would delete it without a trace
                    self._end(client, run, skipped(f"{lateness(run)}: nothing served the schedule"))
        self.deployment_id = cast(UUID, self._plan.apply())  # no coroutine, outside of one

    def look(self, client: SyncPrefectClient) -> float:
        """Starts the newest run that is due, unless one works, and skips the others; returns the seconds to wait."""
        assert self.deployment_id is not None, "apply comes first"
        self._look_after_work(client)
        runs, now = self._scheduled(client, self.deployment_id), _now()
        if not runs:
            self._check_not_deleted(client)
        late = []
        for run in runs:
            if due(run) <= now and run.parameters == self._plan.parameters:
                late.append(run)
            elif due(run) <= now:  # whoever reaches the server could name another project, or a program to run
                self._end(client, run, skipped("parameters: expected the schedule's own, got others"))
        if self._run is not None:
            for run in late:
                self._end(client, run, skipped(f"the run due at {clock(self._run)} still works"))
        elif late:
            *old, newest = late
            self._start(client, newest)
            for run in old:
                self._end(client, run, replaced(run, newest))
        upcoming = [due(run) for run in runs if due(run) > now]
        if upcoming and not self._told_first:
            self._told_first = True
            self._tell("next", f"the first run is due at {upcoming[0].astimezone():%Y-%m-%d %H:%M:%S}")
        return min([LOOK_SECONDS, *((time - now).total_seconds() for time in upcoming)])

    def wait(self, seconds: float) -> None:
        """Returns after that time, or when the run that works has ended."""
        if self._process is None or self._process.returncode is not None:
            time.sleep(seconds)
        else:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)

    def stop(self, client: SyncPrefectClient | None) -> None:
        """Interrupts the run that works and pauses the schedule."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):  # who cannot wait has it killed
                self._process.terminate()
                self._process.wait(_STOP_SECONDS)
            _kill_group(self._process)
        with suppress(httpx.HTTPError, ObjectNotFound):
            if client is not None and self.deployment_id is not None:
                self._look_after_work(client, stopping=True)
                client.pause_deployment(self.deployment_id)
                time.sleep(_ADDING_SECONDS)
                for run in self._scheduled(client, self.deployment_id):
                    if run.auto_scheduled:
                        client.delete_flow_run(run.id)
                self._tell("stopped", "the schedule is paused")

    def _scheduled(self, client: SyncPrefectClient, deployment: UUID) -> list[FlowRun]:
        """The runs that have not begun, the earliest first."""
        runs: list[FlowRun] = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
            ),
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        )
        return sorted(runs, key=due)

    def _check_not_deleted(self, client: SyncPrefectClient) -> None:
        try:
            client.read_deployment_by_name(f"{scheduled.name}/{self._plan.name}")
        except ObjectNotFound as error:
            raise StageFailed(f"serve: the schedule {self._plan.name} was deleted on Prefect's pages") from error

    def _start(self, client: SyncPrefectClient, run: FlowRun) -> None:
        # The path is this process's: the working folder may hold other packages by the name of ours.
        code = f"import sys; sys.path[:] = {sys.path!r}; from flows.deployments import work; "
        code += f"work({str(run.id)!r}, {self._plan.parameters!r})"  # not those that the server names by then
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=self._root,
            env={**os.environ, "PREFECT_API_URL": str(client.api_url)},
            stdin=subprocess.PIPE,  # it ends with this one: see `deployments.work`
            start_new_session=True,
        )
        self._run = run
        # In this order: what is pending says whose it is.
        client.update_flow_run(run.id, tags={*run.tags, *run_tags(self._root, self._process.pid)})
        client.set_flow_run_state(run.id, Pending())

    def _look_after_work(self, client: SyncPrefectClient, stopping: bool = False) -> None:
        """Tells how the run that worked has ended, or ends it where somebody has cancelled it on Prefect's pages."""
        run, process = self._run, self._process
        if run is None or process is None:
            return
        status = process.poll()
        with suppress(ObjectNotFound):  # somebody has deleted it
            run = client.read_flow_run(run.id)
        state = run.state
        if status is None:
            if state is not None and (state.is_cancelling() or state.is_cancelled()):
                process.terminate()
            return
        _kill_group(process)
        if state is not None and state.is_final():
            self._tell_end(run, state)
        elif stopping:
            self._end(client, run, Cancelled(name="Interrupted", message=INTERRUPTED))
        else:
            self._end(client, run, Crashed(message=f"{_cause(status)}; the next run goes on from what was evaluated"))
        self._run = self._process = None
        mark_crashed(client, self._root)  # what it had begun

    def _end(self, client: SyncPrefectClient, run: FlowRun, state: State) -> None:
        with suppress(ObjectNotFound):
            client.set_flow_run_state(run.id, state, force=True)
        self._tell_end(run, state)

    def _tell_end(self, run: FlowRun, state: State) -> None:
        what = "finished" if state.is_completed() else str(state.name).lower()
        self._tell(what, f"the run due at {clock(run)}: {(state.message or '').partition(chr(10))[0]}")


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _cause(status: int) -> str:
    """Why a process ended that did not say how."""
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return "it lost Prefect's server" if status == SERVER_GONE else f"its process ended with {status}"


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    """Leaves nothing of a run behind; done twice, it does no more, as another process may have got the number."""
    assert process.stdin is not None
    if not process.stdin.closed:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
