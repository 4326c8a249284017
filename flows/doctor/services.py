"""Checks of Prefect and MLflow: do their servers or files answer, and which runs did killed processes leave open?

Neither library is imported: that takes seconds, makes folders in the user's home, and may migrate a database.
"""

import base64
import json
import os
import platform
import re
import shlex
import socket
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from flows.doctor.finding import Finding, fail, ok, warn
from flows.doctor.installation import masked
from flows.doctor.project import holder

LONG = timedelta(days=1)
"""For how long a flow run may be running on a server that others share."""

_MARKED = "none is needed: the next `surrogate run` marks them"
_RUNNING_FLOWS = "SELECT count(*) FROM flow_run WHERE state_type = 'RUNNING'"
_RUNNING_RUNS = """
    SELECT process.value FROM runs
    JOIN experiments USING (experiment_id)
    JOIN tags AS host ON host.run_uuid = runs.run_uuid AND host.key = 'host' AND host.value = ?
    LEFT JOIN tags AS process ON process.run_uuid = runs.run_uuid AND process.key = 'process'
    WHERE experiments.name = 'surrogate' AND runs.status = 'RUNNING' AND runs.lifecycle_stage = 'active'
"""


def prefect(root: Path) -> Iterator[Finding]:
    """The server, the local one's history, and flow runs that nobody works on."""
    from flows.server import trouble

    if url := os.environ.get("PREFECT_API_URL"):
        if said := trouble(url):
            cure = "start that server, or `unset PREFECT_API_URL` to use a local one"
            yield fail("prefect", f"{said} from PREFECT_API_URL, {masked(url)}", cure)
            return
        yield ok("prefect", f"the server of PREFECT_API_URL answers at {masked(url)}")
        yield from _long_flow_runs(url)
        return
    from tasks.workspace import home_of

    home = home_of(root) / "prefect"
    yield _local_server(home)
    database = home / "prefect.db"
    if not database.is_file():
        return
    try:
        [(running,)] = _rows(database, _RUNNING_FLOWS)
    except sqlite3.Error as error:
        cure = (
            f"when no command works here, `rm -r {shlex.quote(str(home))}`; only the history of flow runs goes with it"
        )
        yield _unusable("prefect", database, error, cure)
        return
    if running and holder(root / ".surrogate" / "project.lock") is None:
        yield warn("prefect", f"flow runs left RUNNING while no command works here: {running}", _MARKED)


def mlflow(root: Path) -> Iterator[Finding]:
    """The store, and runs left open by processes of this machine that are gone."""
    from tasks.workspace import anchor

    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    scheme, _, rest = uri.partition(":///")
    if not uri:
        yield from _mlflow_file(anchor(root) / "mlruns" / "mlflow.db")
    elif scheme == "sqlite":
        yield from _mlflow_file(root / unquote(rest.partition("?")[0]))
    elif urlsplit(uri).scheme in ("", "file"):
        cure = "`unset MLFLOW_TRACKING_URI`, or name a server or a database, such as sqlite:////folder/mlflow.db"
        yield fail("mlflow", f"MLFLOW_TRACKING_URI={uri} is a folder, which MLflow no longer writes to", cure)
    else:
        yield from _mlflow_server(uri)


def _local_server(home: Path) -> Finding:
    from flows.server import kept, trouble

    server = kept(home)
    if server is None:
        return ok("prefect", "no local server runs; the next command starts one")
    if not server.alive:
        cure = "none is needed: the next command starts another"
        return warn("prefect", f"the local server, process {server.pid}, died without its keeper", cure)
    if server.url is None:
        return ok("prefect", f"the local server is starting, process {server.pid}")
    if said := trouble(server.url):
        cure = f"the next command waits for it, then replaces it; at once: `kill {server.pid}`"
        return warn("prefect", f"{said} from the local server at {server.url}, process {server.pid}", cure)
    return ok("prefect", f"the local server answers at {server.url}, process {server.pid}")


def _long_flow_runs(url: str) -> Iterator[Finding]:
    key, secret = os.environ.get("PREFECT_API_KEY"), os.environ.get("PREFECT_API_AUTH_STRING")
    since = datetime.now(UTC) - LONG
    asked = {
        "flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}, "start_time": {"before_": since.isoformat()}},
        "flows": {"name": {"any_": ["pipeline", "collect", "fit", "validate", "optimize", "tune"]}},
    }
    try:
        found = _json(f"{url.rstrip('/')}/flow_runs/filter", asked, _authorization(key, secret))
    except urllib.error.HTTPError as error:
        yield _refused("prefect", error, "PREFECT_API_KEY or PREFECT_API_AUTH_STRING")
        return
    for run in found:
        cure = f"if nobody works on it any more: `prefect flow-run delete {run['id']}`"
        yield warn("prefect", f"the flow run {run['name']} is RUNNING since {run['start_time'][:16]}", cure)


def _mlflow_file(database: Path) -> Iterator[Finding]:
    if not database.is_file():
        yield ok("mlflow", f"no store yet; the first run makes {database}")
        return
    try:
        running = _rows(database, _RUNNING_RUNS, platform.node())
    except sqlite3.Error as error:
        cure = "bring it back from a copy, or move it away: the next run then makes a new one"
        yield _unusable("mlflow", database, error, cure)
        return
    yield ok("mlflow", f"the store is whole: {database}, {database.stat().st_size / 1e6:.1f} MB")
    yield from _left_open(process for (process,) in running)


def _mlflow_server(uri: str) -> Iterator[Finding]:
    from flows.server import trouble

    place, cure = urlsplit(uri), "start that store, or `unset MLFLOW_TRACKING_URI` to use the local one"
    if place.scheme in ("http", "https"):
        if said := trouble(uri):
            yield fail("mlflow", f"{said} from MLFLOW_TRACKING_URI, {masked(uri)}", cure)
            return
        yield ok("mlflow", f"the server of MLFLOW_TRACKING_URI answers at {masked(uri)}")
        try:
            yield from _left_open(_running_on(uri.rstrip("/") + "/api/2.0/mlflow"))
        except urllib.error.HTTPError as error:
            yield _refused("mlflow", error, "MLFLOW_TRACKING_TOKEN or _USERNAME and _PASSWORD")
    elif place.hostname and place.port:
        try:
            socket.create_connection((place.hostname, place.port), timeout=5).close()
            yield ok("mlflow", f"something answers at MLFLOW_TRACKING_URI, {masked(uri)}; its runs are not looked at")
        except OSError as error:
            yield fail("mlflow", f"no answer from MLFLOW_TRACKING_URI, {masked(uri)} ({error})", cure)
    else:
        yield ok("mlflow", f"MLFLOW_TRACKING_URI is {masked(uri)}, which is not looked at")


def _running_on(api: str) -> Iterator[str | None]:
    """The processes of this machine's runs that an MLflow server holds for running."""
    user = ":".join(os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("USERNAME", "PASSWORD"))
    known = _authorization(os.environ.get("MLFLOW_TRACKING_TOKEN"), user.strip(":"))
    try:
        experiment = _json(f"{api}/experiments/get-by-name?experiment_name=surrogate", None, known)["experiment"]
    except urllib.error.HTTPError as error:
        if error.code == 404:  # nothing has run yet
            return
        raise
    where = f"attributes.status = 'RUNNING' and tags.host = '{platform.node()}'"
    asked = {"experiment_ids": [experiment["experiment_id"]], "filter": where, "max_results": 1000}
    for run in _json(f"{api}/runs/search", asked, known).get("runs", []):
        yield next((tag["value"] for tag in run["data"]["tags"] if tag["key"] == "process"), None)


def _left_open(processes: Iterator[str | None]) -> Iterator[Finding]:
    gone = sum(_is_gone(process or "") for process in processes)
    if gone:
        yield warn("mlflow", f"runs left RUNNING by processes of this machine that are gone: {gone}", _MARKED)


def _is_gone(process: str) -> bool:
    """Of a process as tasks/tracking writes it, `pid:start`."""
    from flows.server import is_alive

    told = re.fullmatch(r"(\d+):(\d+)", process)
    return not (told and is_alive(int(told[1]), float(told[2])))


def _refused(subject: str, error: urllib.error.HTTPError, names: str) -> Finding:
    return warn(
        subject, f"its server refuses to tell of runs (status {error.code})", f"set {names}, if it asks for one"
    )


def _authorization(token: str | None, secret: str | None) -> dict[str, str]:
    if token:
        return {"Authorization": f"Bearer {token}"}
    return {"Authorization": f"Basic {base64.b64encode(secret.encode()).decode()}"} if secret else {}


def _json(url: str, body: Any, headers: dict[str, str]) -> Any:
    from flows.server import ask

    data = None if body is None else json.dumps(body).encode()
    with ask(urllib.request.Request(url, data, {"Content-Type": "application/json", **headers})) as answer:
        return json.load(answer)


def _unusable(subject: str, database: Path, error: sqlite3.Error, cure: str) -> Finding:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith("SQLITE_BUSY"):
        return warn(subject, f"{database} is being written to", "ask again when that is done")
    if name.startswith("SQLITE_READONLY"):
        found = f"{database} holds a write that a killed process left half done"
        return warn(subject, found, "none is needed: the next command takes it back")
    return fail(subject, f"{database} cannot be used: {error}", cure)


def _rows(database: Path, query: str, *values: str) -> list[tuple[Any, ...]]:
    """What a query of a database gives, if SQLite finds the whole of it sound."""
    # Even a reader makes files beside a database with a write-ahead log, unless it is told that nobody writes to it.
    with database.open("rb") as file:
        has_log = file.read(20)[18:19] == b"\2"
    idle = has_log and not database.with_name(f"{database.name}-wal").exists()
    name = f"{database.resolve().as_uri()}?mode=ro{'&immutable=1' if idle else ''}"
    with closing(sqlite3.connect(name, uri=True, timeout=5)) as connection:
        [(said,)] = connection.execute("PRAGMA quick_check(1)")
        if said != "ok":
            raise sqlite3.DatabaseError(said)
        return connection.execute(query, values).fetchall()
