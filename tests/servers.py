"""Redis and PostgreSQL servers of the tests' own, on free ports of the loopback address.

A test module that wants them names this one in its `pytest_plugins`; where a server is not installed, its fixture skips
the test and says why.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from blackboxes import wait_until


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with redis_server() as url:
        yield url


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    with postgresql_server() as url:
        yield url


@contextmanager
def redis_server(port: int | None = None) -> Iterator[str]:
    """The URL of a server that keeps nothing, at a port or a free one."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server here: apt-get install redis-server")
    if find_spec("redis") is None:
        pytest.skip("no package redis here: pip install 'surrogate-lab[redis]'")
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with _served([*command, "--dir", folder], port, Path(folder), signal.SIGTERM):
            yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def postgresql_server() -> Iterator[str]:
    """The URL of a server's database, for SQLAlchemy; whoever asks is let in."""
    programs = _postgresql_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server here: apt-get install postgresql")
    if find_spec("psycopg") is None:
        pytest.skip("no package psycopg here: pip install 'surrogate-lab[postgresql]'")
    port, owner = free_port(), _unprivileged()
    # Not in pytest's folder, which only its owner may enter.
    with tempfile.TemporaryDirectory(prefix="postgresql-") as folder:
        if owner is not None:
            os.chown(folder, owner, -1)
        data = Path(folder) / "data"
        options = ["-U", "postgres", "--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync"]
        made = subprocess.run(
            [programs / "initdb", "-D", data, *options], capture_output=True, text=True, cwd=folder, user=owner
        )
        assert made.returncode == 0, made.stderr
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "shared_buffers": "16MB",
        }
        command = [str(programs / "postgres"), "-D", str(data), "-p", str(port)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with _served(command, port, Path(folder), signal.SIGINT, owner):
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def _served(
    command: Sequence[str], port: int, folder: Path, end: signal.Signals, owner: int | None = None
) -> Iterator[None]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True, user=owner)
    try:
        wait_until(lambda: process.poll() is not None or _answers(port))
        assert process.poll() is None, (folder / "log").read_text()
        yield
    finally:
        process.send_signal(end)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _postgresql_programs() -> Path | None:
    """Debian keeps them where no PATH leads."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(folders, key=lambda folder: float(folder.parent.name), default=None)


def _unprivileged() -> int | None:
    """The user as whom a server runs that refuses to be root's; None for the one who runs the tests."""
    if os.getuid() != 0:
        return None
    users = {user.pw_name: user.pw_uid for user in pwd.getpwall()}
    return users.get("postgres", users.get("nobody"))
