"""A Dask cluster as people start one: a scheduler and workers, processes of their own on loopback addresses."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
from blackboxes import TESTS, wait_until


@contextmanager
def dask_cluster(folder: Path, *options: str, n_commands: int = 1) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The scheduler's address, and its process; `dask worker` is run `n_commands` times with the options."""
    told = folder / "scheduler.json"
    common = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(told)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}

    def start(*arguments: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "dask", *arguments]
        with (folder / f"{arguments[0]}.log").open("wb") as log:
            return subprocess.Popen(
                command, cwd=folder, env=environment, stderr=log, stdout=log, start_new_session=True
            )

    scheduler = start("scheduler", "--port", "0", *common)
    workers = [start("worker", *common, "--local-directory", str(folder), *options) for _ in range(n_commands)]
    try:
        wait_until(lambda: told.exists() and told.read_bytes().endswith(b"}"))
        yield orjson.loads(told.read_bytes())["address"], scheduler
    finally:
        for process in (*workers, scheduler):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="session")
def dask_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a cluster with two workers."""
    with dask_cluster(tmp_path_factory.mktemp("dask"), "--nworkers", "2", "--nthreads", "1") as (address, _):
        yield address
