"""Scheduled runs: one at a time, late ones skipped, killed ones marked as such and gone on from."""

import datetime as dt
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID

import psutil
import pytest
from filelock import FileLock
from ruamel.yaml import YAML
from test_crash import in_flight
from workspace_fixture import N_CALLS, N_WORKERS, ROOT, Workspace, Workspaces, at_work, eventually, only_line

from tasks.errors import BadInput, StageFailed

NOW = dt.datetime.now(dt.UTC)


# --- what the command line says


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((None, None, None), "serve: expected either --cron or --interval, got none"),
        (("* * * * *", 60, None), "serve: expected either --cron or --interval, got both"),
        ((None, 0, None), "--interval: expected a number of seconds >= 1, got 0"),
        ((None, float("nan"), None), "--interval: expected a number of seconds >= 1, got nan"),
        ((None, float("inf"), None), "--interval: expected a number of seconds >= 1, got inf"),
        (("every day", None, None), '--cron: expected five fields such as "0 6 * * *"'),
        (("61 * * * *", None, None), '--cron: expected five fields such as "0 6 * * *"'),
        (("* * * * *", None, "Mars/North"), "--timezone: expected a name such as Europe/Berlin, got 'Mars/North'"),
        (("* * * * *", None, ".."), "--timezone: expected a name such as Europe/Berlin, got '..'"),
    ],
)
def test_a_schedule_that_is_none_is_told(options: tuple[Any, ...], line: str) -> None:
    from flows.serve import schedule

    with pytest.raises(BadInput, match=re.escape(line)):
        schedule(*options)


def test_a_cron_expression_is_meant_where_it_is_written() -> None:
    import tzlocal

    from flows.serve import schedule

    assert schedule("0 6 * * *", None, None).timezone == tzlocal.get_localzone_name()
    assert schedule("0 6 * * *", None, "Asia/Tokyo").timezone == "Asia/Tokyo"
    assert schedule(None, 60, None).interval == dt.timedelta(minutes=1)


@pytest.mark.parametrize("folder", ["R&D", "100%", "a<b>", "plain"])
def test_a_folder_of_any_name_has_a_schedule(folder: str, tmp_path: Path) -> None:
    from flows.serve import deployment, schedule

    made = deployment(tmp_path / folder, None, schedule(None, 60, None), None, ())
    assert re.fullmatch(re.sub("[%&<>]", "-", folder) + "-[0-9a-f]{6}", made.name)


@pytest.mark.parametrize("name", ["a/b", "R&D", "100%", "<b>", "", " "])
def test_a_name_that_prefect_does_not_take_is_told(name: str, tmp_path: Path) -> None:
    from flows.serve import deployment, schedule

    line = f"--name: expected a name without / % & < >, got {name!r}"
    with pytest.raises(BadInput, match=f"^{re.escape(line)}$"):
        deployment(tmp_path, name, schedule(None, 60, None), None, ())


def test_one_server_a_project(tmp_path: Path) -> None:
    from flows.serve import only_server

    (tmp_path / ".surrogate").mkdir()
    with (
        only_server(tmp_path),
        pytest.raises(StageFailed, match="another `surrogate serve` works here"),
        only_server(tmp_path),
    ):
        pass
    with only_server(tmp_path):  # the lock does not outlive it
        pass


def test_prefect_yaml_deploys_the_flow_that_serve_starts() -> None:
    from prefect.flows import load_flow_from_entrypoint

    from flows.deployments import scheduled

    (deployment,) = YAML(typ="safe").load(ROOT / "prefect.yaml")["deployments"]
    assert load_flow_from_entrypoint(deployment["entrypoint"]) is scheduled
    assert scheduled.validate_parameters(deployment["parameters"]) == {"root": ".", "params": None, "overrides": []}


# --- what the runs of a schedule do, on a server


@pytest.fixture
def client(prefect_harness: None) -> Iterator[Any]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def dead(tmp_path: Path) -> list[str]:
    """The tags of a run in `tmp_path` whose process was killed."""
    from flows.liveness import run_tags

    process = subprocess.Popen(["sleep", "1000"])
    tags = run_tags(tmp_path, process.pid)
    process.kill()
    process.wait()
    return tags


@pytest.mark.slow
def test_runs_are_marked_as_crashed_when_their_process_has_gone_and_no_others(
    client: Any, dead: list[str], tmp_path: Path
) -> None:
    from prefect import flow, task
    from prefect.states import Cancelling, Completed, Pending, Running

    from flows.liveness import mark_crashed, project_tag, run_tags

    @flow
    def body() -> None: ...

    @task
    def step() -> None: ...

    alive = run_tags(tmp_path)
    its_number_only = [alive[0], f"process:{os.getpid()}:{psutil.Process().create_time() - 3600:.2f}"]
    cases = {
        "killed while it ran": (Running(), dead, "CRASHED"),
        "killed before it ran": (Pending(), dead, "CRASHED"),
        "killed while it was cancelled": (Cancelling(), dead, "CRASHED"),
        "number taken by another process": (Running(), its_number_only, "CRASHED"),
        "ended": (Completed(), dead, "COMPLETED"),
        "alive": (Running(), alive, "RUNNING"),
        "alive in a child": (Running(), [*alive, dead[1]], "RUNNING"),
        "of an unknown process": (Running(), [alive[0]], "RUNNING"),
        "of a strange process": (Running(), [alive[0], "process:x:y"], "RUNNING"),
        "of another project": (Running(), [project_tag(tmp_path / "other"), dead[1]], "RUNNING"),
    }
    runs = {
        name: client.create_flow_run(body, state=state, tags=tags, name=name)
        for name, (state, tags, _) in cases.items()
    }
    steps = {
        name: client.create_task_run(step, flow_run_id=runs[name].id, dynamic_key="0", state=Running())
        for name in ("killed while it ran", "alive")
    }
    marked = {run.name for run in mark_crashed(client, tmp_path)}
    expected = {name: state for name, (_, _, state) in cases.items()}
    assert {name: client.read_flow_run(run.id).state.type.value for name, run in runs.items()} == expected
    assert marked == {name for name, state in expected.items() if state == "CRASHED"}
    assert client.read_task_run(steps["killed while it ran"].id).state.is_crashed()
    assert client.read_task_run(steps["alive"].id).state.is_running()
    assert mark_crashed(client, tmp_path) == []


def make_due(client: Any, deployment: UUID, seconds_ago: float, **parameters: Any) -> Any:
    from prefect.states import Scheduled

    due = NOW - dt.timedelta(seconds=seconds_ago)
    state = Scheduled(scheduled_time=due)
    return client.create_flow_run_from_deployment(deployment, state=state, parameters=parameters)


def make_runs(root: Path, told: list[str]) -> Any:
    """The runs of a schedule that is far away, so that tests make what is due."""
    from flows.runs import Runs
    from flows.serve import deployment, schedule

    plan = deployment(root, None, schedule(None, 1e7, None), None, ())
    return Runs(root, plan, lambda what, line: told.append(f"{what} {line}"))


@pytest.mark.slow
def test_a_run_gives_way_to_a_newer_one_that_was_due_when_it_started(client: Any, tmp_path: Path) -> None:
    from flows.deployments import newer_due, skipped

    runs = make_runs(tmp_path, [])
    runs.apply(client)
    started = psutil.Process().create_time()  # what is due later does not count
    ago = [NOW.timestamp() - started + seconds for seconds in (300, 200, 100, -3600)]
    old, middle, new, future = (make_due(client, runs.deployment_id, seconds) for seconds in ago)
    assert newer_due(client, old).id == newer_due(client, middle).id == new.id
    assert newer_due(client, new) is None
    client.set_flow_run_state(new.id, skipped("a test"), force=True)
    assert newer_due(client, old).id == middle.id  # who was skipped takes nobody's place
    assert newer_due(client, middle) is None
    assert newer_due(client, future) is None


@pytest.mark.slow
def test_the_newest_run_that_is_due_works_and_the_others_are_skipped(client: Any, tmp_path: Path) -> None:
    told: list[str] = []
    runs = make_runs(tmp_path, told)
    runs.apply(client)
    late = [make_due(client, runs.deployment_id, seconds) for seconds in (300, 200)]
    newest = make_due(client, runs.deployment_id, 100)
    runs.look(client)
    assert [line.split()[0] for line in told] == ["skipped", "skipped"]
    assert all(re.search(r"late by \d+ s: the run due at .* takes its place", line) for line in told)
    meanwhile = make_due(client, runs.deployment_id, 0)
    runs.look(client)
    assert told[-1].endswith("still works")
    assert eventually(lambda: not runs.wait(0.1) and runs.look(client) and not told[-1].startswith("skipped"))
    assert told[-1].startswith("failed")
    assert told[-1].endswith(
        "params.yaml: expected a settings file, got none; work in a folder that has one, or name it"
    )

    def state(run: Any) -> str:
        return str(client.read_flow_run(run.id).state.name)

    assert [state(run) for run in (*late, meanwhile)] == ["Skipped"] * 3
    assert state(newest) == "Failed"
    runs.stop(client)
    assert client.read_deployment(runs.deployment_id).paused


@pytest.mark.slow
@pytest.mark.parametrize(
    "parameters", [{"root": "/"}, {"params": "other.yaml"}, {"overrides": ["problem.command=[touch,/tmp/pwned]"]}]
)
def test_a_run_that_somebody_gave_other_parameters_is_skipped(
    parameters: dict[str, Any], client: Any, tmp_path: Path
) -> None:
    told: list[str] = []
    runs = make_runs(tmp_path, told)
    runs.apply(client)
    other = make_due(client, runs.deployment_id, 100, **parameters)
    with mock.patch("flows.runs.subprocess.Popen") as start:
        runs.look(client)
    start.assert_not_called()
    assert client.read_flow_run(other.id).state.name == "Skipped"
    assert [re.sub(r"\d+", "N", line) for line in told if not line.startswith("next")] == [
        "skipped the run due at N:N:N: parameters: expected the schedule's own, got others"
    ]


@pytest.mark.slow
def test_what_was_due_while_nothing_served_is_skipped(client: Any, tmp_path: Path) -> None:
    told: list[str] = []
    before = make_runs(tmp_path, [])
    before.apply(client)
    missed = make_due(client, before.deployment_id, 100)
    after = make_runs(tmp_path, told)
    after.apply(client)
    assert after.deployment_id == before.deployment_id
    assert client.read_flow_run(missed.id).state.name == "Skipped"
    assert [re.sub(r"\d+", "N", line) for line in told] == [
        "skipped the run due at N:N:N: late by N s: nothing served the schedule"
    ]


@pytest.mark.slow
def test_a_schedule_that_is_stopped_has_no_run_that_prefect_added_meanwhile(client: Any, tmp_path: Path) -> None:
    from flows.runs import Runs
    from flows.serve import deployment, schedule

    plan = deployment(tmp_path, None, schedule(None, 60, None), None, ())
    runs = Runs(tmp_path, plan, lambda what, line: None)
    runs.apply(client)
    asked_for = make_due(client, runs.deployment_id, -3600)
    pause, added = client.pause_deployment, []

    def pause_and_add(deployment: UUID) -> None:
        """As where Prefect's scheduler had read the deployment before, and writes now."""
        pause(deployment)
        client._client.post(f"/deployments/{deployment}/schedule", json={}).raise_for_status()
        added.extend(runs._scheduled(client, deployment))

    with mock.patch.object(client, "pause_deployment", pause_and_add):
        runs.stop(client)
    assert len(added) > 1
    assert [run.id for run in runs._scheduled(client, runs.deployment_id)] == [asked_for.id]


@pytest.mark.slow
def test_a_run_in_a_project_where_another_one_works_is_skipped(prefect_harness: None, tmp_path: Path) -> None:
    from flows.deployments import scheduled

    (tmp_path / "params.yaml").touch()
    (tmp_path / ".surrogate").mkdir()
    with ExitStack() as stack, mock.patch.dict(os.environ):
        stack.callback(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        stack.enter_context(FileLock(tmp_path / ".surrogate" / "project.lock"))
        state = scheduled(str(tmp_path), return_state=True)
        assert state.is_cancelled()
        assert (state.name, state.message.partition(";")[0]) == (
            "Skipped",
            f"{tmp_path}: another run is working here",
        )
        state = scheduled(str(tmp_path / "none"), return_state=True)
        assert state.is_failed()
        assert state.message == f"root: expected the project's folder, got {tmp_path / 'none'}, which is none"


# --- the real thing


@dataclass
class Serving:
    """A `surrogate serve` and the lines that it prints."""

    process: "subprocess.Popen[str]"
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def told(self, what: str) -> list[str]:
        """The lines of the runs that ended so."""
        return [line for line in self.lines if re.match(rf"[\d-]+ [\d:]+  {what} ", line)]

    def comes(self, what: str, times: int = 1) -> bool:
        """Waits for lines of runs that ended so."""
        assert eventually(lambda: len(self.told(what)) >= times or self.process.poll() is not None), self.lines
        return len(self.told(what)) >= times

    def run(self) -> int:
        """The process of the run that works, which leads a group."""
        (run,) = psutil.Process(self.process.pid).children()
        assert os.getpgid(run.pid) == run.pid
        return run.pid


@pytest.mark.slow
def test_scheduled_runs_complete_and_one_goes_on_where_another_was_killed(
    workspaces: Workspaces, tmp_path: Path
) -> None:
    workspace = workspaces(tmp_path / "served")
    serving = Serving(workspace.start("flows", "serve", "--interval", "4", BOX_SECONDS="0.5"))
    assert eventually(lambda: len(workspace.calls()) > N_WORKERS or serving.process.poll() is not None)
    os.killpg(serving.run(), signal.SIGKILL)
    assert serving.comes("crashed"), serving.lines
    assert serving.told("crashed")[0].endswith("killed by SIGKILL; the next run goes on from what was evaluated")
    under_way = in_flight(workspace)
    ended = {call.point for call in workspace.calls()} - under_way
    before = len(workspace.calls())
    assert ended
    assert len(under_way) <= N_WORKERS

    assert serving.comes("finished", 2), serving.lines
    again = {call.point for call in workspace.calls()[before:]} & ended
    assert not again
    assert len({call.point for call in workspace.calls()}) == N_CALLS
    first, second = serving.told("finished")[:2]
    assert "collect, fit, validate, optimize, tune worked" in first
    assert "all cached" in second
    assert re.search(r"measured -?[\d.]+;", second)
    assert all(line.endswith("still works") for line in serving.told("skipped"))
    assert serving.told("skipped")

    serving.process.send_signal(signal.SIGINT)
    assert eventually(lambda: serving.process.poll() is not None)
    assert serving.process.returncode == 0
    assert eventually(lambda: bool(serving.told("stopped")))
    assert at_work(workspace) == []
    check_states(workspace, len(serving.told("finished")))


def check_states(workspace: Workspace, n_finished: int) -> None:
    """What Prefect knows of the scheduled runs of a workspace, and of what they began."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.liveness import project_tag

    with (
        temporary_settings({PREFECT_API_URL: workspace.environment["PREFECT_API_URL"]}),
        get_client(sync_client=True) as client,
    ):
        of_project = FlowRunFilter(tags=FlowRunFilterTags(all_=[project_tag(workspace.root)]))
        runs = client.read_flow_runs(flow_run_filter=of_project)
        for flow in ("scheduled", "pipeline"):
            its = [run.state.name for run in runs if client.read_flow(run.flow_id).name == flow and run.state]
            assert its.count("Completed") == n_finished
            assert its.count("Crashed") == 1
            assert set(its) <= {"Completed", "Crashed", "Skipped", "Interrupted"}
        (deployment,) = {run.deployment_id for run in runs if run.deployment_id}
        assert client.read_deployment(deployment).paused


@pytest.mark.slow
def test_settings_that_are_wrong_are_told_before_anything_starts(workspaces: Workspaces, tmp_path: Path) -> None:
    workspace = workspaces(tmp_path / "wrong")
    done = workspace.command("flows", "serve", "--interval", "60", "-S", "fit.sed=1", status=2)
    assert only_line(done) == "surrogate: fit.sed: unknown key; did you mean seed?\n"
