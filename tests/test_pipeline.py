"""The stages as Prefect tasks: what is transient is tried again, what a user must mend is not."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from prefect import flow
from workspace_fixture import PARAMS

from flows import pipeline
from flows.command import ServerGone
from flows.ui import _check_free
from tasks.caching import ResultStorage, call_cached
from tasks.errors import BadInput, StageFailed
from tasks.files import StageFiles
from tasks.settings import load_settings
from tasks.workspace import Workspace


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "n_calls"),
    [
        (OSError("the disk was full"), 2),
        (EOFError("a worker was lost"), 2),
        (StageFailed("all failed"), 1),
        (KeyError(1), 1),
    ],
)
def test_only_what_may_pass_is_tried_again(
    prefect_harness: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, n_calls: int
) -> None:
    calls = []

    def body(workspace: object, key: str, progress: object) -> StageFiles:
        calls.append(key)
        if len(calls) < 2:
            raise error
        return {"data/out": b"done"}

    monkeypatch.setattr(pipeline, "RETRY_SECONDS", 0)
    task = pipeline._task("fit", body)

    @flow(validate_parameters=False)
    def run() -> tuple[StageFiles, bool]:
        return call_cached(
            task, storage=ResultStorage(basepath=str(tmp_path)), key="0" * 64, workspace=None, progress=None
        )

    if n_calls == 1:
        with pytest.raises(type(error)):
            run()
    else:
        assert run() == ({"data/out": b"done"}, False)
    assert len(calls) == n_calls


@pytest.mark.slow
def test_a_prefect_server_that_no_longer_answers_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "params.yaml").write_text(PARAMS)
    workspace = Workspace.of(tmp_path, load_settings(tmp_path / "params.yaml"), foreign=False)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # it does not listen
        gone = {PREFECT_API_URL: f"http://127.0.0.1:{nobody.getsockname()[1]}/api", "PREFECT_CLIENT_MAX_RETRIES": 0}
        with temporary_settings(gone), pytest.raises(ServerGone, match=r"no longer answers.* the same command goes on"):
            pipeline.run_stages(workspace, ["fit"])
    mlflow = MlflowClient(f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}")
    (run,) = mlflow.search_runs([mlflow.get_experiment_by_name("surrogate").experiment_id])
    assert run.info.status == "FAILED"
    assert "MLFLOW_TRACKING_URI" not in os.environ  # MLflow would set it, and the next project would take that store


def test_what_is_for_programs_is_printed_where_standard_error_is_closed() -> None:
    code = "from flows.command import take_stdout; out = take_stdout(); print('no'); print('{}', file=out)"
    done = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" 2>&-', sys.executable, code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "{}\n")


@pytest.mark.parametrize("port", [0, 65536])
def test_pages_need_a_port_that_there_is(port: int) -> None:
    with pytest.raises(BadInput, match=rf"^--port: expected a free port of this machine, got {port} \("):
        _check_free(port)
