"""The local Prefect server that all commands share, and its keeper, which stops it when no command needs it any more.

Two locks in the home folder tell who lives, as the system frees them however a process ends: commands hold `lease`,
shared, and the keeper holds `start.lock` from before its start. Run as a file, this is the keeper or the server.
"""

import contextlib
import fcntl
import http.client
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import psutil

from surrogate_core.environment import environment
from tasks.errors import BadInput

IDLE_SECONDS = 120.0

_START_SECONDS = 90.0
_STARTS = 2  # the free port may have been taken meanwhile
_STOP_SECONDS = 10.0
_HUNG_SECONDS = 30.0
_ANSWER_SECONDS = 5.0
_RETRIES = "2"  # 6 s
# psutil counts creation times from the boot time, which follows corrections of the clock.
_CLOCK_SECONDS = 2.0

QUIET = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",  # each event that a dead server missed would be told in full
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # its own 7 take minutes to say that nobody answers
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven more processes, for what the pages here do not offer
    "DVC_NO_ANALYTICS": "1",
    "ITERATIVE_DO_NOT_TRACK": "1",
}


class ServerUnreachable(BadInput):
    """No Prefect server answers; the message says which and what to do."""


@dataclass(frozen=True)
class Server:
    """A Prefect server that answers: its API's url, the seconds waited for it, and whether this call started it."""

    url: str
    seconds: float
    started: bool


def quiet_environment(home: Path | None = None) -> None:
    """Set what keeps Prefect, MLflow and DVC quiet and offline; to be called before they are imported.

    Args:
        home: also keeps Prefect's own files there instead of in ~/.prefect, which its import creates. Not with a
            PREFECT_API_URL, whose key the user's own Prefect home may hold.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if home is not None and not os.environ.get("PREFECT_API_URL"):
        home.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("PREFECT_HOME", str(home.resolve()))


@contextlib.contextmanager
def prefect_server(home: Path, pending: "PendingServer | None" = None) -> Iterator[Server]:
    """Point Prefect's settings and the environment to PREFECT_API_URL's server, or to a local one kept in `home`."""
    pending = pending or begin(home)
    try:
        # Imported here, while the server starts: both take seconds.
        from prefect.settings import PREFECT_API_URL, temporary_settings

        server = pending.wait()
        named = {"PREFECT_API_URL", "PREFECT_CLIENT_MAX_RETRIES"} & os.environ.keys()
        # A local one that has died never answers at its port again: Prefect would try for minutes.
        patience = {} if named else {"PREFECT_CLIENT_MAX_RETRIES": _RETRIES}
        with (
            temporary_settings({PREFECT_API_URL: server.url, **patience}),
            environment(PREFECT_API_URL=server.url, **patience, **_direct(server)),
        ):
            yield server
    finally:
        pending.close()


def begin(home: Path, idle: float = IDLE_SECONDS) -> "PendingServer":
    """Find the server, or launch one that stops after `idle` seconds without a lease, and do not wait for it."""
    return PendingServer(home, idle)


class PendingServer:
    """A server that may still be starting: `wait` for it, and `close` when it is no longer needed."""

    def __init__(self, home: Path, idle: float) -> None:
        self._home = home.resolve()
        self._idle = idle
        self._starts = 0
        self._lease: BinaryIO | None = None
        self._given = os.environ.get("PREFECT_API_URL")
        if not self._given:
            self._home.mkdir(parents=True, exist_ok=True)
            # Blocks while a keeper is stopping its server, which then is gone.
            self._lease = _locked(self._home / "lease", fcntl.LOCK_SH)
            os.utime(self._home / "lease")  # tells the keeper of a lease that came and went between its looks
            self._start_unless_kept()

    def wait(self) -> Server:
        """Return the server once it answers, or raise ServerUnreachable."""
        began = time.perf_counter()
        if self._given:
            if said := trouble(self._given):
                raise ServerUnreachable(
                    f"PREFECT_API_URL: expected a reachable Prefect server, got {said} from {self._given}; "
                    "start it, or unset the variable to use a local one"
                )
            return Server(self._given, time.perf_counter() - began, started=False)
        hung_since = None
        while time.perf_counter() - began < _START_SECONDS:
            self._start_unless_kept()
            record = _read_record(self._home)
            process = living_process(record.pid, record.created) if record else None
            if record and record.url and process:
                if not trouble(record.url):
                    return Server(record.url, time.perf_counter() - began, started=self._starts > 0)
                hung_since = hung_since or time.perf_counter()
                if time.perf_counter() - hung_since > _HUNG_SECONDS:
                    hung_since = None
                    _kill(process)  # its keeper then goes too, and the next turn starts another
            time.sleep(0.1)
        raise self._failure()

    def close(self) -> None:
        """Give the lease back; the keeper stops the server when none has been held for its idle time."""
        if self._lease is not None:
            self._lease.close()
            self._lease = None

    def _start_unless_kept(self) -> None:
        lock = _locked(self._home / "start.lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is None:
            return
        if self._starts == _STARTS:
            lock.close()
            raise self._failure()
        with lock, (self._home / "keeper.log").open("wb") as log:
            _kill_leftovers(self._home)
            # The lock goes to the keeper with its descriptor: there is no moment in which nobody holds it.
            _children.append(
                subprocess.Popen(
                    [sys.executable, "-P", str(Path(__file__).resolve()), "keep", str(self._home), str(self._idle)],
                    cwd=self._home,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[lock.fileno()],
                    start_new_session=True,
                )
            )
        self._starts += 1

    def _failure(self) -> ServerUnreachable:
        log = self._home / "keeper.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        lines = [line.strip() for line in lines if line.strip() not in {"", "Server stopped!"}]
        told = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)] or lines or ["nothing"]
        return ServerUnreachable(
            f"local Prefect server: expected an answer within {_START_SECONDS:.0f} s of its start, got none; "
            f"{log} says: {told[-1]} (deleting {self._home} starts afresh)"
        )


def stop(home: Path) -> None:
    """Stop the keeper and the server of a home at once, whoever holds a lease; nothing happens where none runs."""
    home = home.resolve()
    if not home.is_dir():
        return
    told = False
    deadline = time.monotonic() + 2 * _STOP_SECONDS
    while (lock := _locked(home / "start.lock", fcntl.LOCK_EX | fcntl.LOCK_NB)) is None:
        record = _read_record(home)
        keeper = living_process(record.keeper_pid, record.keeper_created) if record else None
        if keeper and not told:
            told = True
            with contextlib.suppress(psutil.NoSuchProcess):
                keeper.terminate()
        elif time.monotonic() > deadline:
            if keeper is None:
                raise ServerUnreachable(f"{home}: expected its keeper to end, but something holds start.lock")
            _kill(keeper)
        time.sleep(0.05)
    with lock:
        _kill_leftovers(home)


@dataclass(frozen=True)
class Kept:
    """What a home's record tells of its server: its process, whether that is alive, and its url once it answers."""

    pid: int
    alive: bool
    url: str | None


def kept(home: Path) -> Kept | None:
    """The server that was last started in a home and not stopped; nothing is started or written."""
    record = _read_record(home)
    if record is None:
        return None
    return Kept(record.pid, living_process(record.pid, record.created) is not None, record.url)


def trouble(url: str) -> str | None:
    """Say why the server whose health is told at `url`/health cannot be used, or None."""
    try:
        with ask(url.rstrip("/") + "/health"):
            return None
    except urllib.error.HTTPError as error:
        # Anything else is a server at least: 401 without its key, 503 when busy.
        return "status 404" if error.code == 404 else None
    except (OSError, ValueError, http.client.HTTPException):
        return "no answer"


def ask(asked: str | urllib.request.Request) -> BinaryIO:
    """Open a url, a loopback address never through a proxy."""
    url = asked if isinstance(asked, str) else asked.full_url
    local = urllib.parse.urlsplit(url).hostname in {"127.0.0.1", "localhost", "::1"}
    proxies = [urllib.request.ProxyHandler({})] if local else []
    answer: BinaryIO = urllib.request.build_opener(*proxies).open(asked, timeout=_ANSWER_SECONDS)
    return answer


_children: list[subprocess.Popen[bytes]] = []  # keepers outlive this process: kept here, they are not warned about


@dataclass(frozen=True)
class _Record:
    """What `server.json` holds; the url is null until the server answers."""

    pid: int
    created: float
    keeper_pid: int
    keeper_created: float
    url: str | None


def _read_record(home: Path) -> _Record | None:
    try:
        return _Record(**json.loads((home / "server.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _write_record(home: Path, server: int, url: str | None) -> None:
    created = psutil.Process(server).create_time()
    record = _Record(server, created, os.getpid(), psutil.Process().create_time(), url)
    temporary = home / "server.json.new"
    temporary.write_text(json.dumps(vars(record)))
    os.replace(temporary, home / "server.json")


def living_process(pid: int, created: float) -> psutil.Process | None:
    """The process that was created then, if it lives; None for another one that has got its number."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < _CLOCK_SECONDS and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return process if same else None


def _kill_leftovers(home: Path) -> None:
    record = _read_record(home)
    process = living_process(record.pid, record.created) if record else None
    if process:
        _kill(process)
    (home / "server.json").unlink(missing_ok=True)


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()
        process.wait(_STOP_SECONDS)


def _locked(path: Path, how: int) -> BinaryIO | None:
    file = path.open("ab")
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        file.close()
        return None
    return file


def _direct(server: Server) -> dict[str, str]:
    # Prefect's client would ask an http_proxy for the loopback address.
    if urllib.parse.urlsplit(server.url).hostname != "127.0.0.1":
        return {}
    hosts = ",".join(filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1"]))
    return {"no_proxy": hosts, "NO_PROXY": hosts}


def _keep(home: Path, idle: float) -> None:
    """Run the server until it dies, or no lease has been held for `idle` seconds, or the home is gone."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    # A profile of the user's could name another database or server.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_PROFILE")}
    server = subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).resolve()), "serve", str(port)],
        env={**QUIET, **inherited, **_pages(port), "PREFECT_HOME": str(home)},
        stdin=subprocess.PIPE,
    )
    lease = (home / "lease").open("ab")
    try:
        _write_record(home, server.pid, url=None)
        deadline = time.monotonic() + _START_SECONDS
        while trouble(url):
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit(1)
            time.sleep(0.2)
        _write_record(home, server.pid, url)
        _watch(server, lease, idle)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (home / "server.json").unlink(missing_ok=True)
        server.terminate()
        try:
            server.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _pages(port: int) -> dict[str, str]:
    own = [f"http://{host}:{port}" for host in ("127.0.0.1", "localhost")]
    return {
        # Prefect's default lets every page that is open in a browser read this server and start runs.
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": ",".join(own),
        "PREFECT_SERVER_UI_API_URL": f"{own[0]}/api",  # its pages would ask the default port
    }


def _watch(server: "subprocess.Popen[bytes]", lease: BinaryIO, idle: float) -> None:
    """Return when the server is dead or not needed: then with the lease locked, so that no command counts on it."""
    stamp, since = None, time.monotonic()
    while server.poll() is None and os.fstat(lease.fileno()).st_nlink:
        held, before = False, stamp
        try:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = True
        stamp = os.fstat(lease.fileno()).st_mtime_ns
        if held or stamp != before:
            since = time.monotonic()
        elif time.monotonic() - since >= idle:
            return
        fcntl.flock(lease, fcntl.LOCK_UN)
        time.sleep(min(1.0, idle / 4))


def _serve(port: str) -> None:
    """Be the server, and end with the keeper however it ended."""
    threading.Thread(target=_end_with_keeper, daemon=True).start()
    sys.argv = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


def _end_with_keeper() -> None:
    # Only the keeper holds the other end of this pipe, and never writes: it ends when the keeper does.
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_STOP_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    if sys.argv[1] == "keep":
        _keep(Path(sys.argv[2]), float(sys.argv[3]))
    else:
        _serve(sys.argv[2])
