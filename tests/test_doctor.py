"""The doctor: each check says yes where things are as they should be, no where they are not, and names the cure."""

import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import psutil
import pytest
from click.testing import CliRunner
from filelock import FileLock

from flows.cli import cli
from flows.doctor import CHECKS, examine, installation, services, summary, told
from flows.doctor.finding import Finding, fail, ok, warn
from tasks.machine import machine
from tasks.workspace import JOURNALS, RESULTS

ROOT = Path(__file__).parents[1]
FREE = "http://127.0.0.1:9"  # the discard port, where nobody listens
NOW = f"{os.getpid()}:{psutil.Process().create_time():.2f}"
GONE = f"{os.getpid()}:1000000000.00"  # this number, but of a process of 2001


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """None of the variables that the checks look at."""
    for name in list(os.environ):
        if name.startswith(("PREFECT_", "MLFLOW_", "DVC_", "JAX_", "OMP_", "OPENBLAS_", "XLA_", "DO_NOT", "ITERATIVE")):
            monkeypatch.delenv(name)
    yield
    machine.cache_clear()  # which may have been asked for the first time here, without them


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = (tmp_path / "project").resolve()
    root.mkdir()
    shutil.copy(ROOT / "params.yaml", root)
    return root


def look(subject: str, root: Path) -> list[Finding]:
    """What one check finds; whatever is not well has a cure, and nothing else has."""
    found = list(examine(root, {subject: CHECKS[subject]}))
    assert all(bool(one.cure) == (one.verdict != "ok") for one in found)
    assert {one.subject for one in found} <= {subject}
    return found


def one(subject: str, root: Path) -> Finding:
    [found] = look(subject, root)
    return found


def verdicts(subject: str, root: Path) -> list[str]:
    return [found.verdict for found in look(subject, root)]


# --- what is installed


def distribution(site: Path, name: str, release: str, *lines: str) -> None:
    """Metadata of an installed distribution, as pip writes it."""
    folder = site / f"{name.replace('-', '_')}-{release}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(
        "\n".join(["Metadata-Version: 2.4", f"Name: {name}", f"Version: {release}", *lines])
    )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed distributions that are found before the others."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path / "site"


def test_what_is_installed_here_is_within_its_bounds(tmp_path: Path) -> None:
    assert verdicts("python", tmp_path) == ["ok"]
    found = one("libraries", tmp_path)
    assert found.verdict == "ok"
    assert int(found.text.split()[0]) > 20


def test_another_python_than_the_tested_ones_fails(site: Path, tmp_path: Path) -> None:
    distribution(site, "surrogate-lab", "9", "Requires-Python: >=4,<5")
    found = one("python", tmp_path)
    assert found.verdict == "fail"
    assert found.text == f"{platform.python_version()} is not within the tested >=4,<5"
    assert "make run" in found.cure


def test_libraries_out_of_bounds_or_missing_fail_each_with_its_command(site: Path, tmp_path: Path) -> None:
    needed = [
        "numpy<9,>=8",
        "no-such-thing>=1",
        "click>=8",
        "tomli>=99; python_version < '3'",
        "ruff>=99; extra == 'dev'",
    ]
    distribution(site, "surrogate-lab", "9", *(f"Requires-Dist: {line}" for line in needed))
    numpy, missing, rest = look("libraries", tmp_path)
    assert (numpy.verdict, missing.verdict, rest.verdict) == ("fail", "fail", "ok")
    assert numpy.text == f"numpy {version('numpy')} is not within the tested >=8,<9"
    assert numpy.cure.endswith("-m pip install 'numpy>=8,<9'`")
    assert missing.text.startswith("no-such-thing is missing")
    assert rest.text.startswith("1 that surrogate-lab 9 needs")


def test_sources_that_are_not_installed_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "DISTRIBUTION", "no-such-thing")
    found = one("libraries", tmp_path)
    assert found.verdict == "fail"
    assert found.cure.endswith("-m pip install -e .`")


# --- the machine


def test_a_variable_that_changes_the_last_bits_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdicts("processor", tmp_path) == ["ok"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    _, found = look("processor", tmp_path)
    assert (found.verdict, found.cure.split(",")[0]) == ("warn", "`unset OMP_NUM_THREADS`")


@pytest.mark.parametrize(("free", "verdict"), [(5e9, "ok"), (5e8, "warn"), (5e7, "fail")])
def test_little_disk_and_memory_are_told(
    free: float, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=int(free)))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=int(free), total=int(8e9)))
    assert set(verdicts("disk", tmp_path)) == {verdict}
    assert verdicts("memory", tmp_path) == [verdict]


def test_a_folder_that_cannot_be_written_fails() -> None:
    privileged = os.geteuid() == 0  # whom no mode keeps from writing
    with tempfile.TemporaryDirectory() as name:  # pytest's own are below one that is the user's alone
        folder = Path(name)
        assert "fail" not in verdicts("disk", folder)
        folder.chmod(0o555)
        try:
            if privileged:
                os.seteuid(65534)
            found = next(found for found in look("disk", folder) if found.verdict == "fail")
        finally:
            if privileged:
                os.seteuid(0)
            folder.chmod(0o755)
    assert found.text == f"{folder} cannot be written"
    assert f"`chmod u+w {folder}`" in found.cure


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose nvidia-smi tells of a GPU."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100, 550.54'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    return tool


def test_without_a_gpu_the_cpu_does_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(installation, "_GPUS", tmp_path)
    assert one("gpu", tmp_path) == ok("gpu", "no NVIDIA GPU: the CPU does the work")


def test_a_gpu_without_its_plugin_is_told_with_the_command_that_installs_it(gpu: Path, tmp_path: Path) -> None:
    found = one("gpu", tmp_path)
    assert found.verdict == "warn"
    assert found.text.startswith("NVIDIA H100, driver 550.54, but JAX has no CUDA plugin")
    assert found.cure.endswith(f"-m pip install 'jax[cuda12]=={version('jax')}'`")


def test_a_gpu_is_seen_where_only_the_driver_tells_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA A100\nIRQ:   \t\t 51\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(installation, "_GPUS", tmp_path)
    assert one("gpu", tmp_path).text.startswith("NVIDIA A100, but JAX has no CUDA plugin")


def test_a_gpu_that_the_user_keeps_jax_from_is_no_trouble(
    gpu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert verdicts("gpu", tmp_path) == ["ok"]


def test_a_plugin_of_another_release_than_jaxlib_is_told(gpu: Path, site: Path, tmp_path: Path) -> None:
    distribution(site, "jax-cuda12-plugin", "0.1")
    assert f"jax-cuda12-plugin 0.1 does not fit jaxlib {version('jaxlib')}" in one("gpu", tmp_path).text


@pytest.mark.slow
def test_a_gpu_that_jax_does_not_take_is_told(gpu: Path, site: Path, tmp_path: Path) -> None:
    distribution(site, "jax-cuda12-plugin", version("jaxlib"))  # which holds no code
    found = one("gpu", tmp_path)
    assert found.verdict == "warn"
    assert "JAX cannot use it: it takes the cpu" in found.text


def test_variables_that_move_things_are_told_without_passwords(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert one("environment", tmp_path).text == "no variable moves records or caches elsewhere"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@example.org")
    found = one("environment", tmp_path)
    assert found.text.startswith("MLFLOW_TRACKING_URI=http://…@example.org: ")


# --- telemetry


@pytest.mark.parametrize(
    ("name", "loud", "quiet"),
    [
        ("DO_NOT_TRACK", "0", "1"),
        ("MLFLOW_DISABLE_TELEMETRY", "false", "True"),
        ("PREFECT_SERVER_ANALYTICS_ENABLED", "true", "0"),
        ("DVC_NO_ANALYTICS", "", "1"),
    ],
)
def test_a_shell_that_switches_telemetry_on_is_told(
    name: str, loud: str, quiet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verdicts("telemetry", tmp_path) == ["ok"]
    monkeypatch.setenv(name, quiet)
    assert verdicts("telemetry", tmp_path) == ["ok"]
    monkeypatch.setenv(name, loud)
    found = one("telemetry", tmp_path)
    assert (found.verdict, found.text.split()[0]) == ("warn", f"{name}={loud}")
    assert found.cure.startswith(f"`unset {name}`")


def test_what_dvc_sends_when_called_by_hand_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(project))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(project))
    (project / ".dvc").mkdir()
    cures = ["`dvc config core.analytics false`", "`dvc config core.check_update false`"]
    assert [found.cure for found in look("telemetry", project)[1:]] == cures
    shutil.copy(ROOT / ".dvc" / "config", project / ".dvc")
    assert verdicts("telemetry", project) == ["ok"]


# --- Prefect

Answers = Mapping[str, tuple[int, Any]]


@pytest.fixture
def serving() -> Iterator[Callable[[Answers], str]]:
    """Starts servers that answer some paths, each with a status and JSON; the rest is not found."""
    servers = []

    def serve(answers: Answers) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, answer = answers.get(self.path.partition("?")[0], (404, None))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_prefect_server_that_was_named_must_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serving: Callable[[Answers], str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"{FREE}/api")
    found = one("prefect", tmp_path)
    assert (found.verdict, found.text) == ("fail", f"no answer from PREFECT_API_URL, {FREE}/api")
    assert "`unset PREFECT_API_URL`" in found.cure
    url = serving({"/api/health": (200, True), "/api/flow_runs/filter": (200, [])}) + "/api"
    monkeypatch.setenv("PREFECT_API_URL", url)
    assert one("prefect", tmp_path) == ok("prefect", f"the server of PREFECT_API_URL answers at {url}")


def test_a_prefect_server_that_wants_a_key_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serving: Callable[[Answers], str]
) -> None:
    url = serving({"/api/health": (200, True), "/api/flow_runs/filter": (401, None)})
    monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
    answers, refuses = look("prefect", tmp_path)
    assert (answers.verdict, refuses.verdict) == ("ok", "warn")
    assert refuses.cure == "set PREFECT_API_KEY or PREFECT_API_AUTH_STRING"


def test_the_local_server_is_told_by_its_record(project: Path, serving: Callable[[Answers], str]) -> None:
    assert one("prefect", project).text == "no local server runs; the next command starts one"
    home = project / ".surrogate" / "prefect"
    home.mkdir(parents=True)

    def recorded(process: str, url: str | None) -> tuple[str, str]:
        pid, _, created = process.partition(":")
        me = {"pid": int(pid), "created": float(created), "keeper_pid": 1, "keeper_created": 0.0, "url": url}
        (home / "server.json").write_text(json.dumps(me))
        found = one("prefect", project)
        return found.verdict, found.text

    pid, url = os.getpid(), serving({"/api/health": (200, True)}) + "/api"
    assert recorded(NOW, None) == ("ok", f"the local server is starting, process {pid}")
    assert recorded(NOW, url) == ("ok", f"the local server answers at {url}, process {pid}")
    assert recorded(NOW, FREE) == ("warn", f"no answer from the local server at {FREE}, process {pid}")
    assert recorded(GONE, url) == ("warn", f"the local server, process {pid}, died without its keeper")


def flow_runs(project: Path, *tags: list[str]) -> Path:
    """A database of Prefect's, as far as the check reads it, with a running flow run for each list of tags."""
    path = project / ".surrogate" / "prefect" / "prefect.db"
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as made:
        made.execute("PRAGMA journal_mode = wal")
        made.execute("CREATE TABLE flow_run (tags TEXT, state_type TEXT)")
        rows = [(json.dumps(one), "RUNNING") for one in tags]
        made.executemany("INSERT INTO flow_run VALUES (?, ?)", [*rows, ("[]", "COMPLETED")])
    made.close()
    return path


def test_flow_runs_of_processes_that_are_gone_are_told(project: Path) -> None:
    here = f"project:{platform.node()}:{project}"
    flow_runs(project, [here, f"process:{NOW}"], [here, f"process:{GONE}"], ["other", f"process:{GONE}"], [])
    _, gone, unknown = look("prefect", project)
    assert gone.text == "flow runs left RUNNING by processes of this machine that are gone: 1"
    assert gone.cure == "none is needed: the next `surrogate run` marks them"
    assert unknown.text == "flow runs left RUNNING, of processes that are not named: 1"


def test_flow_runs_that_name_no_process_are_left_alone_while_a_command_works(project: Path) -> None:
    flow_runs(project, [])
    with FileLock(project / ".surrogate" / "project.lock"):
        assert verdicts("prefect", project) == ["ok"]
    assert verdicts("prefect", project) == ["ok", "warn"]


def test_a_database_is_looked_at_without_a_file_being_made_beside_it(project: Path) -> None:
    database = flow_runs(project)
    assert verdicts("prefect", project) == ["ok"]
    assert os.listdir(database.parent) == ["prefect.db"]


def test_a_damaged_history_of_prefect_fails(project: Path) -> None:
    flow_runs(project).write_bytes(b"no database" * 1000)
    _, found = look("prefect", project)
    assert (found.verdict, found.text.rpartition(": ")[2]) == ("fail", "file is not a database")
    assert f"`rm -r {project / '.surrogate' / 'prefect'}`" in found.cure


@pytest.mark.slow
def test_real_flow_runs_are_told_of_by_the_server_and_by_its_database(
    project: Path, surroundings: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, home = surroundings["PREFECT_API_URL"], Path(surroundings["PREFECT_HOME"])
    here = f"project:{platform.node()}:{project}"

    def post(path: str, asked: dict[str, Any]) -> Any:
        while True:
            try:
                return services._json(f"{url}/{path}", asked, {})
            except urllib.error.HTTPError as error:
                if error.code != 503:  # which says that it is busy, as it has just started
                    raise
                time.sleep(0.2)

    flow, made = post("flows/", {"name": "pipeline"})["id"], []
    for process, state in ((NOW, "RUNNING"), (GONE, "RUNNING"), (GONE, "COMPLETED")):
        asked = {"flow_id": flow, "tags": [here, f"process:{process}"], "state": {"type": state}}
        made.append(post("flow_runs/", asked)["id"])
    told_of = warn(
        "prefect",
        "flow runs left RUNNING by processes of this machine that are gone: 1",
        "none is needed: the next `surrogate run` marks them",
    )
    (project / ".surrogate").mkdir()
    (project / ".surrogate" / "prefect").symlink_to(home)
    assert told_of in look("prefect", project)
    monkeypatch.setenv("PREFECT_API_URL", url)
    assert look("prefect", project)[1:] == [told_of]
    post(f"flow_runs/{made[1]}/set_state", {"state": {"type": "CRASHED"}, "force": True})
    assert verdicts("prefect", project) == ["ok"]


# --- MLflow


@pytest.fixture
def store(project: Path) -> Path:
    """A database of MLflow's, as far as the check reads it; large enough to be damaged within."""
    path = project / "mlruns" / "mlflow.db"
    path.parent.mkdir()
    with sqlite3.connect(path) as made:
        made.executescript("""
            CREATE TABLE experiments (experiment_id, name);
            CREATE TABLE runs (run_uuid, experiment_id, status, lifecycle_stage);
            CREATE TABLE tags (run_uuid, key, value);
            CREATE TABLE params (run_uuid, key, value);
            CREATE INDEX by_value ON params (value);
        """)
        made.executemany("INSERT INTO params VALUES (?, ?, ?)", [(str(i), "a", "b" * 100) for i in range(500)])
    made.close()
    return path


def test_a_store_is_whole_or_not_there_yet(project: Path, request: pytest.FixtureRequest) -> None:
    assert one("mlflow", project).text == f"no store yet; the first run makes {project}/mlruns/mlflow.db"
    request.getfixturevalue("store")
    assert one("mlflow", project).text.startswith("the store is whole")


def test_a_damaged_store_fails(project: Path, store: Path) -> None:
    content = bytearray(store.read_bytes())
    content[20_000:40_000] = os.urandom(20_000)
    store.write_bytes(content)
    found = one("mlflow", project)
    assert found.verdict == "fail"
    assert f"{store} cannot be used" in found.text
    assert "move it away" in found.cure


def test_a_file_that_is_no_store_of_mlflow_fails(project: Path, store: Path) -> None:
    store.write_bytes(b"")
    assert "no such table" in one("mlflow", project).text


def test_a_store_that_is_being_written_to_is_no_failure(
    project: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "_PATIENCE_SECONDS", 0.0)
    writer = sqlite3.connect(store, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    assert one("mlflow", project) == warn("mlflow", f"{store} is being written to", "ask again when that is done")
    writer.close()
    assert verdicts("mlflow", project) == ["ok"]


def test_a_write_that_was_killed_halfway_is_no_damage(project: Path, store: Path) -> None:
    write = """
        import os, sqlite3, sys
        store = sqlite3.connect(sys.argv[1], isolation_level=None)
        store.execute("PRAGMA cache_size = 1")
        store.execute("BEGIN")
        store.execute("UPDATE params SET value = run_uuid || value")
        os._exit(0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(write), store], check=True)
    found = one("mlflow", project)
    assert (found.verdict, found.cure.partition(":")[0]) == ("warn", "none is needed")
    sqlite3.connect(store).execute("SELECT * FROM params")  # as the next command does
    assert verdicts("mlflow", project) == ["ok"]


@pytest.mark.parametrize(
    ("uri", "verdict", "told_of"),
    [
        ("http://me:secret@127.0.0.1:9", "fail", "no answer from MLFLOW_TRACKING_URI, http://…@127.0.0.1:9"),
        ("postgresql://127.0.0.1:9/runs", "fail", "no answer from MLFLOW_TRACKING_URI"),
        ("./mlruns", "fail", "is a folder"),
        ("file:///mlruns", "fail", "is a folder"),
        ("sqlite:///other.db", "ok", "the first run makes"),
        ("databricks://profile", "ok", "is not looked at"),
    ],
)
def test_a_store_that_was_named_must_answer(
    uri: str, verdict: str, told_of: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    found = one("mlflow", project)
    assert found.verdict == verdict
    assert told_of in found.text
    assert verdict == "ok" or "`unset MLFLOW_TRACKING_URI`" in found.cure


def test_the_runs_of_a_store_that_was_named_are_looked_at(
    project: Path, monkeypatch: pytest.MonkeyPatch, serving: Callable[[Answers], str]
) -> None:
    def running(*processes: str) -> Answers:
        runs = [{"data": {"tags": [{"key": "host", "value": "x"}, {"key": "process", "value": p}]}} for p in processes]
        return {
            "/health": (200, "OK"),
            "/api/2.0/mlflow/experiments/get-by-name": (200, {"experiment": {"experiment_id": "1"}}),
            "/api/2.0/mlflow/runs/search": (200, {"runs": runs}),
        }

    def look_at(answers: Answers) -> list[Finding]:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", serving(answers).replace("//", "//me:secret@"))
        return look("mlflow", project)

    assert [found.verdict for found in look_at({"/health": (200, "OK")})] == ["ok"]  # nothing has run yet
    assert [found.verdict for found in look_at(running(NOW))] == ["ok"]
    _, gone = look_at(running(NOW, GONE, GONE))
    assert (gone.verdict, gone.text[-3:]) == ("warn", ": 2")


@pytest.mark.slow
def test_real_runs_of_processes_that_are_gone_are_told(project: Path) -> None:
    from tasks.tracking.store import end_killed_runs, open_store

    client, experiment = open_store(project)
    now = f"{os.getpid()}:{psutil.Process().create_time():.0f}"
    for host, process in ((platform.node(), now), (platform.node(), GONE), ("elsewhere", GONE)):
        client.create_run(experiment, tags={"host": host, "process": process})
    ended = client.create_run(experiment, tags={"host": platform.node(), "process": GONE})
    client.set_terminated(ended.info.run_id)
    whole, gone = look("mlflow", project)
    assert whole.verdict == "ok"
    assert gone.text == "runs left RUNNING by processes of this machine that are gone: 1"
    end_killed_runs(client, experiment)  # as the next run does
    assert verdicts("mlflow", project) == ["ok"]


# --- the project


def test_a_lock_that_another_process_holds_is_told_with_the_process(project: Path) -> None:
    assert verdicts("lock", project) == ["ok"]
    path = project / ".surrogate" / "project.lock"
    path.parent.mkdir()
    hold = "import filelock, sys\nwith filelock.FileLock(sys.argv[1]): print(flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        process.stdout.readline()
        found = one("lock", project)
        assert found.verdict == "warn"
        listed = Path("/proc/locks").is_file() and str(path.stat().st_ino) in Path("/proc/locks").read_text()
        assert (f"process {process.pid} works here (python" in found.text) == listed
        assert (f"`kill {process.pid}`" if listed else f"`fuser {path}`") in found.cure
    finally:
        process.kill()
        process.communicate()
    assert verdicts("lock", project) == ["ok"]


def test_checkpoints_of_killed_stages_are_told(project: Path) -> None:
    assert verdicts("checkpoints", project) == ["ok"]
    journals = project / ".surrogate" / JOURNALS
    journals.mkdir(parents=True)
    (journals / "collect-0.jsonl").touch()
    found = one("checkpoints", project)
    assert (found.verdict, found.text) == ("warn", "1 left by stages that did not end")
    assert "`surrogate cache clear --checkpoints`" in found.cure
    with FileLock(project / ".surrogate" / "project.lock"):
        assert verdicts("checkpoints", project) == ["ok"]


def test_what_is_missing_to_version_is_told(project: Path) -> None:
    missing = ["`git init`", "`dvc init`, within a git repository"]
    assert [found.cure for found in look("versioning", project)][:2] == missing
    for folder in (".git", ".dvc"):
        (project / folder).mkdir()
    assert one("versioning", project).text == "no dvc.yaml here: outputs are not versioned"
    (project / "dvc.yaml").touch()
    assert verdicts("versioning", project) == ["ok"]


def test_without_git_the_cure_is_to_install_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(project))
    assert look("versioning", project)[0].cure == "install git"


def test_settings_that_cannot_be_read_fail_with_their_line(project: Path) -> None:
    sources = project / "surrogate_core" / "problems"
    assert [found.text.partition(":")[0] for found in look("settings", project)] == ["params.yaml", "problem.source"]
    sources.mkdir(parents=True)
    (sources / "optics.py").touch()
    assert verdicts("settings", project) == ["ok"]
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("n_samples: 64", "n_samples: many"))
    found = one("settings", project)
    assert (found.verdict, found.text) == ("fail", "collect.n_samples: expected an integer, got 'many'")


def test_a_cache_above_its_limit_is_told(project: Path) -> None:
    assert verdicts("cache", project) == ["ok"]
    records = project / ".surrogate" / RESULTS
    records.mkdir(parents=True)
    (records / f"fit-{'0' * 16}").write_bytes(bytes(2000))
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("cache_mb: 1000", "cache_mb: 0.001"))
    found = one("cache", project)
    assert (found.verdict, found.text.partition(",")[0]) == ("warn", "1 results")


# --- all of it


def test_a_check_that_breaks_is_a_failure_and_hides_no_other(tmp_path: Path) -> None:
    def breaks(_: Path) -> Iterator[Finding]:
        yield ok("first", "seen")
        raise PermissionError(13, "Permission denied", "here")

    first, broken, last = examine(tmp_path, {"first": breaks, "last": lambda _: iter([ok("last", "seen")])})
    assert (first, last) == (ok("first", "seen"), ok("last", "seen"))
    assert (broken.subject, broken.verdict) == ("first", "fail")
    assert "PermissionError: [Errno 13] Permission denied: 'here'" in broken.text
    assert broken.cure


def test_findings_are_wrapped_but_their_commands_are_whole() -> None:
    command = "`python -m pip install 'numpy>=2.1' 'another-one-with-a-long-name>=1,<2'`"
    lines = click.unstyle(told(fail("libraries", "found " * 20, f"to mend it: {command}"), 80)).splitlines()
    assert lines[0].startswith("fail  libraries    found found")
    assert all(line.startswith(" " * 19) for line in lines[1:])
    assert all(len(line) <= 80 for line in lines if "python" not in line)
    assert any(command in line for line in lines)


def test_the_summary_counts() -> None:
    found = [ok("a", ""), ok("b", ""), warn("c", "", "x"), fail("d", "", "x")]
    assert summary(found) == "1 to be mended; 1 worth a look, 2 fine"
    assert summary(found[:3]) == "Nothing to be mended; 1 worth a look, 2 fine"


def test_the_command_fails_where_something_fails_and_a_warning_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["doctor", "--json"])
    found = {one["subject"]: one for one in json.loads(done.stdout)}
    assert set(found) == set(CHECKS) - {"versioning"}
    assert found["settings"]["verdict"] == "warn"
    assert found["settings"]["cure"].startswith("`surrogate init`")
    assert done.exit_code == 0
    monkeypatch.setenv("PREFECT_API_URL", FREE)
    done = CliRunner().invoke(cli, ["doctor"])
    assert f"no answer from PREFECT_API_URL, {FREE}" in done.stdout
    assert done.exit_code == 1


@pytest.mark.parametrize("params", [None, pytest.param("params.yaml", marks=pytest.mark.slow)])
def test_nothing_is_made_anywhere(params: str | None, tmp_path: Path) -> None:
    folder, user = tmp_path / "folder", tmp_path / "user"
    for made in (folder, user):
        made.mkdir()
    if params:
        shutil.copy(ROOT / params, folder)
    subprocess.run(
        [sys.executable, "-m", "flows", "doctor"],
        cwd=folder,
        env={**os.environ, "HOME": str(user), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        check=params is None,
        stdout=subprocess.DEVNULL,
    )
    assert os.listdir(folder) == ([params] if params else [])
    assert os.listdir(user) == []
