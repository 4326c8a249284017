"""`surrogate run` killed and interrupted at random moments: what had ended stays, and nothing is done twice."""

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest
from workspace_fixture import (
    N_CALLS,
    N_WORKERS,
    Solved,
    Workspace,
    Workspaces,
    at_work,
    digests,
    eventually,
    finish,
    only_line,
)

pytestmark = pytest.mark.slow

HALF_A_STORE = 500_000  # bytes of MLflow's SQLite file when its tables are there and are being migrated
INTERRUPTED = "surrogate: interrupted: what was evaluated is kept, and the same command goes on from there\n"


@dataclass(frozen=True)
class Moment:
    """When some of a stage's work has begun, and a random time later.

    Args:
        signal: what is sent to the process group.
        stage: whose journal is watched; or "store" for MLflow's, while it is made.
        label: how the keys begin that count.
        begun: how many have to begin in this process.
    """

    signal: signal.Signals
    stage: str
    label: str = ""
    begun: int = 0


MOMENTS = [
    Moment(signal.SIGKILL, "store"),
    Moment(signal.SIGINT, "collect", "sample/", 3),
    Moment(signal.SIGTERM, "validate", "gradient/", 1),
    Moment(signal.SIGKILL, "optimize", "round-", 2),
    Moment(signal.SIGKILL, "tune", "trial/", 2),
    Moment(signal.SIGKILL, "tune", "round-", 1),
]


def entries(journal: Path) -> list[dict[str, str]]:
    """What a journal holds, less a torn last line, whether or not somebody writes it."""
    return [json.loads(line)["entry"] for line in journal.read_text().split("\n")[:-1]]


def journals(workspace: Workspace, stage: str = "*") -> list[Path]:
    return list((workspace.root / ".surrogate" / "journal").glob(f"{stage}-*.jsonl"))


def begun(workspace: Workspace, moment: Moment) -> int:
    """How often work that the moment counts has begun, in all processes."""
    try:
        found = [
            entry["start"] for path in journals(workspace, moment.stage) for entry in entries(path) if "start" in entry
        ]
    except FileNotFoundError:  # its stage has just ended
        return 0
    return sum(key.startswith(moment.label) for key in found)


def in_flight(workspace: Workspace) -> set[str]:
    """The points that a journal says were begun and have not ended."""
    told = [entry for path in journals(workspace) for entry in entries(path)]
    keys = {entry["start"] for entry in told if "start" in entry} - {entry["end"] for entry in told if "end" in entry}
    return {key.rpartition("/")[2] for key in keys if not key.startswith("trial/")}


def size(path: Path) -> int:
    """Of a file, 0 where it has gone."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def stop_at(moment: Moment, workspace: Workspace, seconds: float) -> "subprocess.Popen[str]":
    """Starts `surrogate run` and sends its process group the moment's signal, `seconds` after the moment has come."""
    before = begun(workspace, moment)
    process = workspace.start("flows", "run", "--json", BOX_SECONDS="0.3")

    def has_come() -> bool:
        if process.poll() is not None:
            return True
        if moment.stage == "store":
            return any(size(path) > HALF_A_STORE for path in (workspace.root / "mlruns").glob("*"))
        return begun(workspace, moment) - before >= moment.begun

    assert eventually(has_come)
    if moment.stage != "store":  # which soon is made
        time.sleep(seconds)
    assert process.poll() is None, f"{moment}: the run ended by itself: {process.communicate()[1][-1000:]}"
    os.killpg(process.pid, moment.signal)
    return process


def statuses(workspace: Workspace) -> list[str]:
    """The states of the workspace's MLflow runs, the oldest first."""
    from mlflow import MlflowClient

    mlflow = MlflowClient(f"sqlite:///{workspace.root / 'mlruns' / 'mlflow.db'}")
    experiment = mlflow.get_experiment_by_name("surrogate").experiment_id
    runs = mlflow.search_runs([experiment], order_by=["attributes.start_time ASC"])
    return [run.info.status for run in runs if "mlflow.parentRunId" not in run.data.tags]


def test_a_run_stopped_at_random_moments_goes_on_and_ends_as_if_undisturbed(
    workspaces: Workspaces, solved_by_run: "Future[Solved]", tmp_path: Path
) -> None:
    workspace = workspaces(tmp_path / "stopped")
    workspace.edit("params.yaml", "executor: threads", "executor: processes")
    chance = random.Random(1)
    done_for_good: set[str] = set()
    histories: dict[Path, Path] = {}  # journals and second names of them, by which they are read once they are removed

    def check_calls(since: int, moment: object) -> None:
        again = {call.point for call in workspace.calls()[since:]} & done_for_good
        assert not again, f"called again before or at {moment}"

    for moment in MOMENTS:
        if moment is MOMENTS[-2]:  # then in threads, as processes take seconds to start
            workspace.edit("params.yaml", "executor: processes", "executor: threads")
        since = len(workspace.calls())
        process = stop_at(moment, workspace, chance.uniform(0, 0.3))
        if moment.signal != signal.SIGKILL:
            assert only_line(finish(process, 130)) == INTERRUPTED
            assert at_work(workspace) == []
            assert statuses(workspace)[-1] == "KILLED"
        else:
            finish(process, -signal.SIGKILL)
            assert eventually(lambda: at_work(workspace) == []), at_work(workspace)
        check_calls(since, moment)
        under_way = in_flight(workspace)
        assert len(under_way) <= N_WORKERS
        done_for_good |= {call.point for call in workspace.calls()} - under_way
        for path in journals(workspace):
            if path not in histories:
                histories[path] = tmp_path / path.name
                os.link(path, histories[path])

    since = len(workspace.calls())
    told = workspace.run()
    check_calls(since, "the end")
    calls = workspace.calls()
    assert len({call.point for call in calls}) == N_CALLS
    assert len(calls) <= N_CALLS + N_WORKERS * len(MOMENTS)
    assert told["stages"]["collect"]["cache"] == told["stages"]["fit"]["cache"] == "hit"
    undisturbed = solved_by_run.result()
    assert workspace.data() == digests(undisturbed.data)
    assert (workspace.root / "dvc.lock").read_text() == undisturbed.lock
    assert "up to date" in workspace.command("dvc", "status").stdout
    assert journals(workspace) == []

    stages = {path.name.partition("-")[0] for path in histories}
    assert stages == {"collect", "validate", "optimize", "tune"}
    for path in histories.values():
        began: Counter[str] = Counter()
        ended: set[str] = set()
        for entry in entries(path):
            if "start" in entry:
                assert entry["start"] not in ended, f"{path.name}: done again"
                began[entry["start"]] += 1
            else:
                assert entry["end"] not in ended, f"{path.name}: ended twice"
                ended.add(entry["end"])
        assert {key for key in ended if key != "study" and not key.startswith("batch/")} == set(began)
    *earlier, last = statuses(workspace)
    assert last == "FINISHED"
    assert Counter(earlier)["KILLED"] == 2
    assert set(earlier) == {"KILLED", "FAILED"}


CTRL_C_IN_A_CALLBACK = """
import gc, signal, sys, threading

def interrupt(phase, info):
    if "flows.pipeline" in sys.modules and threading.current_thread() is threading.main_thread():
        gc.callbacks.remove(interrupt)
        signal.raise_signal(signal.SIGINT)

gc.callbacks.append(interrupt)
"""


def test_ctrl_c_is_not_lost_where_python_ignores_exceptions(workspaces: Workspaces, tmp_path: Path) -> None:
    """JAX hangs a callback on the garbage collector, which takes a good part of the time that it starts."""
    workspace = workspaces(tmp_path / "interrupted")
    (tmp_path / "sitecustomize.py").write_text(CTRL_C_IN_A_CALLBACK)
    done = workspace.command("flows", "run", "--json", status=130, PYTHONPATH=str(tmp_path))
    assert only_line(done) == INTERRUPTED
