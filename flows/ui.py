"""`surrogate ui`: MLflow's pages of all runs and Prefect's, on loopback addresses until Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from tasks.errors import BadInput, StageFailed

# MLflow's server, in a group of its own, which ends when nobody can write to its standard input: even after a kill.
_PAGES = """
import os, signal, sys, threading

def end_with_parent():
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)

threading.Thread(target=end_with_parent, daemon=True).start()
from mlflow.cli import cli
cli(prog_name="mlflow")
"""


def serve_pages(root: Path, port: int, tell: Callable[[str], None]) -> None:
    """Serves until Ctrl-C.

    Args:
        root: the project.
        port: of MLflow's pages.
        tell: told the addresses.

    Raises:
        BadInput: the port is taken.
        StageFailed: MLflow's server ended by itself.
    """
    _check_free(port)
    from flows.server import prefect_server  # these take seconds
    from tasks.tracking.store import open_store, tracking_uri
    from tasks.workspace import home_of

    open_store(root)
    with ExitStack() as stack:
        server = stack.enter_context(prefect_server(home_of(root) / "prefect"))
        log = stack.enter_context((home_of(root) / "ui.log").open("w"))
        command = [sys.executable, "-c", _PAGES, "ui", "--backend-store-uri", tracking_uri(root)]
        command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        pages = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while pages.poll() is None and not _answers(port):
                time.sleep(0.2)
            if pages.returncode is None:
                tell(f"MLflow   http://127.0.0.1:{port}")
                tell(f"Prefect  {server.url.removesuffix('/api')}")
                tell("Ctrl-C ends MLflow's at once and Prefect's when no command has used it for two minutes")
                pages.wait()
        except KeyboardInterrupt:
            return
        finally:
            _end_group(pages)
        raise StageFailed(f"MLflow's server ended by itself; {log.name} says why")


def _check_free(port: int) -> None:
    with socket.socket() as asked:
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            if port == 0:
                raise OSError("the pages need one to be found at")
            asked.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise BadInput(f"--port: expected a free port of this machine, got {port} ({error})") from error


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
    assert process.stdin is not None
    process.stdin.close()
