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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from flows.doctor.finding import Finding, fail, ok, warn
from flows.doctor.installation import masked
from flows.doctor.project import holder

_PATIENCE_SECONDS = 5.0
_RUNNING_FLOWS = "SELECT tags FROM flow_run WHERE state_type = 'RUNNING'"
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
        yield from _flow_runs(url, root)
        return
    from tasks.workspace import home_of

    home = home_of(root) / "prefect"
    yield _local_server(home)
    database = home / "prefect.db"
    if not database.is_file():
        return
    try:
        running = [json.loads(tags) for (tags,) in _rows(database, _RUNNING_FLOWS)]
    except sqlite3.Error as error:
        cure = f"when no command works here, `rm -r {shlex.quote(str(home))}`: it holds flow runs' history only"
        yield _unusable("prefect", database, error, cure)
        return
    ours = [tags for tags in running if _project_tag(root) in tags]
    yield from _left_open("prefect", "flow runs", filter(None, map(_process_tag, ours)))
    unknown = sum(_process_tag(tags) is None for tags in running)
    if unknown and holder(root / ".surrogate" / "project.lock") is None:
        cure = "`surrogate ui`, and delete them on Prefect's pages"
        yield warn("prefect", f"flow runs left RUNNING, of processes that are not named: {unknown}", cure)


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


def _flow_runs(url: str, root: Path) -> Iterator[Finding]:
    """Those of this project and machine; a server may be shared."""
    key, secret = os.environ.get("PREFECT_API_KEY"), os.environ.get("PREFECT_API_AUTH_STRING")
    where = {
        "state": {"type": {"any_": ["RUNNING"]}},
        "tags": {"all_": [_project_tag(root)]},
    }
    try:
        found = _json(f"{url.rstrip('/')}/flow_runs/filter", {"flow_runs": where}, _authorization(key, secret))
    except urllib.error.HTTPError as error:
        yield _untold("prefect", error, "PREFECT_API_KEY or PREFECT_API_AUTH_STRING")
        return
    yield from _left_open("prefect", "flow runs", (_process_tag(run["tags"]) for run in found))


def _project_tag(root: Path) -> str:
    """As `flows.liveness` has it, without the import of Prefect."""
    return f"project:{platform.node()}:{root.resolve()}"


def _process_tag(tags: Sequence[str]) -> str | None:
    return next((tag.removeprefix("process:") for tag in tags if tag.startswith("process:")), None)


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
    yield from _left_open("mlflow", "runs", (process for (process,) in running))


def _mlflow_server(uri: str) -> Iterator[Finding]:
    from flows.server import trouble

    place, cure = urlsplit(uri), "start that store, or `unset MLFLOW_TRACKING_URI` to use the local one"
    if place.scheme in ("http", "https"):
        user, _, host = place.netloc.rpartition("@")  # whom urllib would take for a part of the host
        url = f"{place.scheme}://{host}{place.path.rstrip('/')}"
        if said := trouble(url):
            yield fail("mlflow", f"{said} from MLFLOW_TRACKING_URI, {masked(uri)}", cure)
            return
        yield ok("mlflow", f"the server of MLFLOW_TRACKING_URI answers at {masked(uri)}")
        try:
            yield from _left_open("mlflow", "runs", _running_on(f"{url}/api/2.0/mlflow", unquote(user)))
        except urllib.error.HTTPError as error:
            yield _untold("mlflow", error, "MLFLOW_TRACKING_TOKEN, or _USERNAME and _PASSWORD")
    elif place.hostname and place.port:
        try:
            socket.create_connection((place.hostname, place.port), timeout=_PATIENCE_SECONDS).close()
            yield ok("mlflow", f"something answers at MLFLOW_TRACKING_URI, {masked(uri)}; its runs are not looked at")
        except OSError as error:
            yield fail("mlflow", f"no answer from MLFLOW_TRACKING_URI, {masked(uri)} ({error})", cure)
    else:
        yield ok("mlflow", f"MLFLOW_TRACKING_URI is {masked(uri)}, which is not looked at")


def _running_on(api: str, user: str) -> Iterator[str | None]:
    """The processes of this machine's runs that an MLflow server holds for running."""
    given = [os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("USERNAME", "PASSWORD", "TOKEN")]
    known = _authorization(given[2], ":".join(given[:2]) if given[0] else user)
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


def _left_open(subject: str, what: str, processes: Iterable[str | None]) -> Iterator[Finding]:
    """Of runs that are said to be running, by the process that each names: `pid:start`."""
    gone = sum(_is_gone(process or "") for process in processes)
    if gone:
        cure = "none is needed: the next `surrogate run` marks them"
        yield warn(subject, f"{what} left RUNNING by processes of this machine that are gone: {gone}", cure)


def _is_gone(process: str) -> bool:
    from flows.server import living_process

    named = re.fullmatch(r"(\d+):([\d.]+)", process)
    return named is None or living_process(int(named[1]), float(named[2])) is None


def _untold(subject: str, error: urllib.error.HTTPError, names: str) -> Finding:
    cure = f"set {names}" if error.code in (401, 403) else "ask again; if it stays so, the server's log says why"
    return warn(subject, f"the server does not tell of its runs (status {error.code})", cure)


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
    with closing(sqlite3.connect(name, uri=True, timeout=_PATIENCE_SECONDS)) as connection:
        [(said,)] = connection.execute("PRAGMA quick_check(1)")
        if said != "ok":
            raise sqlite3.DatabaseError(said)
        return connection.execute(query, values).fetchall()
