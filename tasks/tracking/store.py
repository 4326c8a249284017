"""MLflow's store: where it is, how it is opened, and what holds of all runs in it."""

import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import psutil
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Param
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from surrogate_core.tuning.guard import without_password
from tasks.errors import BadInput
from tasks.workspace import anchor, git_revision

EXPERIMENT = "surrogate"


class TrackingUnreachable(BadInput):
    """MLflow's store does not answer; the message says which and what to do."""


def tracking_uri(root: Path) -> str:
    """`MLFLOW_TRACKING_URI`, or the SQLite file of the project."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{anchor(root) / 'mlruns' / 'mlflow.db'}"


def open_store(root: Path) -> tuple[MlflowClient, str]:
    """A client of the store and the id of the project's experiment; both are made if need be.

    Raises:
        TrackingUnreachable: a store was named and does not answer.
    """
    uri, named = tracking_uri(root), bool(os.environ.get("MLFLOW_TRACKING_URI"))
    folder = anchor(root) / "mlruns"
    folder.mkdir(exist_ok=True)
    try:
        with FileLock(folder / "store.lock"):  # processes that make one database at once break it
            if not named:
                _make_database(folder)
            mlflow.set_tracking_uri(uri)  # which opens the store, and would make the database in place
            if not named:
                os.environ.pop("MLFLOW_TRACKING_URI", None)  # set by that, and nobody has named it
            client = MlflowClient(uri)
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is not None:
                return client, experiment.experiment_id
            local = None if named else (folder / "artifacts").as_uri()
            kind = {"mlflow.experimentKind": "custom_model_development"}  # the pages that suit: runs, not prompts
            return client, client.create_experiment(EXPERIMENT, artifact_location=local, tags=kind)
    except (MlflowException, SQLAlchemyError) as error:
        raise TrackingUnreachable(
            f"MLFLOW_TRACKING_URI: expected a reachable MLflow store, got no use of {uri} ({first_line(error)}); "
            "start it, or unset the variable to use the local one"
        ) from error


def _make_database(folder: Path) -> None:
    """Makes MLflow's SQLite file under another name first: a kill amid its migrations would break it."""
    target, making = folder / "mlflow.db", folder / "making.db"
    if target.exists():
        return
    for leftover in folder.glob("making.db*"):
        leftover.unlink()
    MlflowClient(f"sqlite:///{making}").search_experiments(max_results=1)
    os.replace(making, target)


@contextmanager
def observing(what: str, trouble: list[str]) -> Iterator[None]:
    """A store that fails does not stop the work: a line says what was not published."""
    try:
        yield
    except (MlflowException, OSError) as error:
        trouble.append(f"{what} not published to MLflow: {first_line(error)}")


def process_tags(root: Path) -> dict[str, str]:
    """Who works on a run, by which it is found if it is killed, and by which sources."""
    process = f"{os.getpid()}:{psutil.Process().create_time():.0f}"
    return {"git.revision": git_revision(root), "host": platform.node(), "process": process}


def settings_params(settings: Mapping[str, Any]) -> list[Param]:
    """Nested settings as parameters, without the passwords that URLs may hold."""
    hidden = {name: without_password(str(value)) for name, value in _flat(settings).items()}
    return [Param(safe_name(name), value[:6000]) for name, value in hidden.items()]


def safe_name(name: str) -> str:
    """A name that MLflow takes: variables may have any."""
    return re.sub(r"[^\w.\- :]", "_", name)


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]


def end_killed_runs(client: MlflowClient, experiment: str) -> None:
    """Ends runs of this machine that a killed process left open."""
    for run in client.search_runs([experiment], f"attributes.status = 'RUNNING' and tags.host = '{platform.node()}'"):
        if not _is_alive(run.data.tags.get("process", "")):
            client.set_terminated(run.info.run_id, "FAILED")


def _is_alive(process: str) -> bool:
    pid, _, created = process.partition(":")
    try:
        return f"{psutil.Process(int(pid)).create_time():.0f}" == created
    except (ValueError, psutil.Error):
        return False


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in section.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
