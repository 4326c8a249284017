"""Black boxes that spawned workers can import, and what is needed to watch the processes they run in."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

TESTS = Path(__file__).parent


class UnpicklableError(Exception):
    """An exception that cannot travel between processes."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class UnprintableError(Exception):
    """An exception that fails when it is asked for its message."""

    def __str__(self) -> str:
        raise RuntimeError("no message")


def act(argument: tuple[str, Any]) -> Any:
    """Do what the argument says: one function for a whole table of behaviours, so that workers stay warm."""
    verb, value = argument
    return ACTS[verb](value)


def sleep_and_return(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def raise_(error: BaseException) -> None:
    raise error


def die(signal_number: int) -> None:
    os.kill(os.getpid(), signal_number)


def print_everywhere(text: str) -> None:
    print(text)  # noqa: T201 - that it prints is the point
    os.system(f"echo {text}")


def _square(x: float) -> float:
    return x * x


def squares_by_processes(values: list[float]) -> list[float]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(_square, values))


def unpicklable(value: Any) -> Any:
    return threading.Lock()


def unpicklable_error(message: str) -> None:
    raise UnpicklableError(message)


def unprintable_error(message: str) -> None:
    raise UnprintableError(message)


def whereabouts(value: Any) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "thread": threading.get_ident(),
        "path": sys.path,
        "omp": os.environ.get("OMP_NUM_THREADS"),
        "sigint_ignored": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
    }


def start_program_and_wait(seconds: float) -> None:
    subprocess.run(["sleep", str(seconds)], check=True)


def leave_program_behind(seconds: float) -> int:
    return subprocess.Popen(["sleep", str(seconds)], close_fds=False).pid


ACTS: dict[str, Callable[[Any], Any]] = {
    "return": lambda value: value,
    "raise": raise_,
    "sleep": sleep_and_return,
    "exit": os._exit,
    "sys.exit": sys.exit,
    "die": die,
    "print": print_everywhere,
    "unpicklable": unpicklable,
    "unpicklable error": unpicklable_error,
    "unprintable error": unprintable_error,
    "whereabouts": whereabouts,
    "program": start_program_and_wait,
    "left behind": leave_program_behind,
}


class FailsAtFirst:
    """Counts its calls by argument in a folder of side files, and fails until the n-th."""

    def __init__(self, folder: Path, n_needed: int) -> None:
        self.folder = folder
        self.n_needed = n_needed

    def __call__(self, x: float) -> float:
        if count_call(self.folder / str(x)) < self.n_needed:
            raise ValueError(f"not yet at {x}")
        return 2 * x


class Recorded:
    """Appends every call to a side file, then takes its time."""

    def __init__(self, calls: Path, seconds: float) -> None:
        self.calls = calls
        self.seconds = seconds

    def __call__(self, x: int) -> float:
        count_call(self.calls, str(x))
        time.sleep(self.seconds)
        return x / 3


def count_call(path: Path, line: str = "called") -> int:
    with path.open("a+") as file:
        file.write(line + "\n")
        file.flush()
        file.seek(0)
        return len(file.readlines())


@contextmanager
def running_script(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A script in a session of its own, with these black boxes importable; killed at the end where it still runs."""
    # A shell's background job ignores SIGINT and hands that on: how the tests were started must not matter.
    take_interrupts = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", take_interrupts + script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Wait for what must happen; the limit is only there to end a broken test."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it never happened")
        time.sleep(0.01)


def is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
