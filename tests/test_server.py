"""The local Prefect server: one for all commands, replaced when it is killed, gone when nobody needs it."""

import contextlib
import fcntl
import http.server
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows import server as module
from flows.server import Server, ServerUnreachable, ask, begin, prefect_server, quiet_environment, stop

ROOT = Path(__file__).parents[1]

# A command: says what it got, and holds its lease until it is told to go.
COMMAND = """
import dataclasses, json, sys
from pathlib import Path
from flows.server import begin
pending = begin(Path(sys.argv[1]))
print(json.dumps(dataclasses.asdict(pending.wait())), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


def command(home: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(home)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.1)
    return holds()


def processes(home: Path) -> dict[str, int]:
    """Return the living keeper (`keep`) and server (`serve`) of a home by their command lines, whatever is recorded."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line, place = process.cmdline(), process.cwd()
            if process.status() != psutil.STATUS_ZOMBIE and str(Path(module.__file__)) in line and place == str(home):
                assert line[3] not in found, "two of a kind"
                found[line[3]] = process.pid
    return found


def answers(url: str) -> bool:
    return module.trouble(url) is None


# --- a server of our own: each test leaves one running or stopped, as it likes, and takes what it finds


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, surroundings: Mapping[str, str]) -> Iterator[Path]:
    """The home of a server, which need not make its database: that takes Prefect longer than all else here."""
    home = tmp_path_factory.mktemp("home").resolve()
    with (
        contextlib.closing(sqlite3.connect(Path(surroundings["PREFECT_HOME"]) / "prefect.db")) as made,
        contextlib.closing(sqlite3.connect(home / "prefect.db")) as copy,
    ):
        made.backup(copy)
    yield home
    stop(home)
    assert processes(home) == {}


@pytest.mark.slow
def test_two_commands_at_once_share_one_server_which_survives_their_being_killed(home: Path) -> None:
    stop(home)
    commands = [command(home) for _ in range(2)]
    told: list[dict[str, Any]] = []
    for process in commands:
        assert process.stdout
        told.append(json.loads(process.stdout.readline()))
    assert told[0]["url"] == told[1]["url"]
    assert sum(one["started"] for one in told) == 1
    found = processes(home)
    assert set(found) == {"keep", "serve"}
    for process in commands:
        process.kill()
        process.communicate()
    assert answers(told[0]["url"])
    pending = begin(home)
    again = pending.wait()
    pending.close()
    assert (again.url, again.started) == (told[0]["url"], False)
    assert processes(home) == found


def allowed_origin(url: str, origin: str) -> str | None:
    """The origin that may ask the server to start a run, as a browser finds out."""
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    request = urllib.request.Request(f"{url}/deployments/filter", headers=asked, method="OPTIONS")
    try:
        with module.ask(request) as answer:
            return answer.headers["Access-Control-Allow-Origin"]
    except urllib.error.HTTPError as refusal:
        return refusal.headers["Access-Control-Allow-Origin"]


@pytest.mark.slow
def test_prefects_own_pages_and_no_others_may_ask_the_server_anything(home: Path) -> None:
    pending = begin(home)
    url = pending.wait().url
    own = url.removesuffix("/api")
    for origin in (own, own.replace("127.0.0.1", "localhost")):
        assert allowed_origin(url, origin) == origin
    for origin in ("https://example.org", "http://127.0.0.1:1", "null"):
        assert allowed_origin(url, origin) is None
    with ask(f"{own}/ui-settings") as answer:
        assert json.load(answer)["api_url"] == url  # which its pages ask
    pending.close()


@pytest.mark.slow
def test_a_killed_server_is_replaced_and_ends_with_its_killed_keeper(home: Path) -> None:
    pending = begin(home)
    before = pending.wait()
    first = processes(home)
    os.kill(first["serve"], signal.SIGKILL)
    pending.close()
    with prefect_server(home) as server:
        assert server.started
        assert server.url != before.url
        second = processes(home)
        assert set(second) == {"keep", "serve"}
        assert not set(second.values()) & set(first.values())
        os.kill(second["keep"], signal.SIGKILL)
        assert eventually(lambda: processes(home) == {})
    stop(home)  # what the keeper left
    assert not (home / "server.json").exists()


@pytest.mark.slow
def test_a_server_stops_after_its_idle_time_and_not_while_a_lease_is_held(home: Path) -> None:
    stop(home)
    pending = begin(home, idle=1.0)
    server = pending.wait()
    assert server.started
    time.sleep(3)
    assert answers(server.url)
    pending.close()
    assert eventually(lambda: processes(home) == {})
    assert not (home / "server.json").exists()
    assert not answers(server.url)


# --- without starting one


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def given() -> Iterator[str]:
    """A stand-in for somebody's own server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health) as stand_in:
        threading.Thread(target=stand_in.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{stand_in.server_address[1]}"
        stand_in.shutdown()


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_given_server_is_used_and_nothing_is_started(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"{given}/api")
    with prefect_server(tmp_path / "home") as server:
        assert (server.url, server.started) == (f"{given}/api", False)
    assert os.environ["PREFECT_API_URL"] == f"{given}/api"
    assert not (tmp_path / "home").exists()


def test_settings_and_environment_are_set_in_the_body_alone(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL

    before, settings_before = dict(os.environ), PREFECT_API_URL.value()
    monkeypatch.setattr(module.PendingServer, "wait", lambda self: Server(f"{given}/api", 0.0, started=False))
    monkeypatch.setattr(module.PendingServer, "_start_unless_kept", lambda self: None)
    with contextlib.suppress(KeyError), prefect_server(tmp_path):
        assert os.environ["PREFECT_API_URL"] == PREFECT_API_URL.value() == f"{given}/api"
        assert "127.0.0.1" in os.environ["no_proxy"]
        raise KeyError
    assert (dict(os.environ), PREFECT_API_URL.value()) == (before, settings_before)


@pytest.mark.parametrize(
    ("path", "trouble"), [("/api", "no answer"), ("/elsewhere", "status 404"), ("nonsense", "no answer")]
)
def test_a_given_server_that_is_unreachable_is_told_in_one_line(
    path: str, trouble: str, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = {"/api": f"http://127.0.0.1:{closed_port()}", "/elsewhere": given, "nonsense": ""}
    url = hosts[path] + path
    monkeypatch.setenv("PREFECT_API_URL", url)
    with pytest.raises(ServerUnreachable) as error, prefect_server(tmp_path):
        pass
    assert str(error.value) == (
        f"PREFECT_API_URL: expected a reachable Prefect server, got {trouble} from {url}; "
        "start it, or unset the variable to use a local one"
    )


def test_a_server_that_cannot_start_is_told_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(ServerUnreachable, match=r"keeper\.log says: nothing"), prefect_server(tmp_path):
        pass
    assert processes(tmp_path) == {}


def test_a_server_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HUNG_SECONDS", 0.2)
    monkeypatch.setattr(module, "_START_SECONDS", 2.0)
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as hung,
        (tmp_path / "start.lock").open("ab") as kept,
    ):
        fcntl.flock(kept, fcntl.LOCK_EX)
        module._write_record(tmp_path, hung.pid, f"http://127.0.0.1:{closed_port()}/api")
        with pytest.raises(ServerUnreachable, match="expected an answer"), prefect_server(tmp_path):
            pass
        assert not psutil.pid_exists(hung.pid)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"pid": 1, "created": 0, "url": "x"}', "\0"])
def test_an_unreadable_record_is_as_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text(content)
    assert module._read_record(tmp_path) is None
    stop(tmp_path)
    assert not (tmp_path / "server.json").exists()


def test_a_process_that_only_has_the_recorded_number_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        record = {"pid": stranger.pid, "created": 1.0, "keeper_pid": stranger.pid, "keeper_created": 1.0, "url": None}
        (tmp_path / "server.json").write_text(json.dumps(record))
        stop(tmp_path)
        assert stranger.poll() is None
        stranger.communicate(b"\n")
        assert stranger.returncode == 0


def test_stopping_where_nothing_runs_is_nothing(tmp_path: Path) -> None:
    stop(tmp_path / "absent")
    stop(tmp_path)


def test_the_quiet_environment_overrides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"DO_NOT_TRACK": "0"})
    quiet_environment(tmp_path / "home")
    assert os.environ["DO_NOT_TRACK"] == "0"
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert os.environ["PREFECT_HOME"] == str((tmp_path / "home").resolve())
    monkeypatch.setattr(os, "environ", {"PREFECT_API_URL": "http://example.org/api"})
    quiet_environment(tmp_path / "home")
    assert "PREFECT_HOME" not in os.environ  # its key may be in the user's own
