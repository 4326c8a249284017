"""Calls and what became of them, and a process that makes calls: spawned, and ended with all that it has started."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any, Literal

import numpy as np

from surrogate_core.environment import environment
from surrogate_core.output_log import OutputLog

_SPAWN = multiprocessing.get_context("spawn")
_SPAWN_LOCK = threading.Lock()
_THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
GRACE = 1.0
"""Seconds that a process has to end by itself."""
_LONGEST_REASON = 300


@dataclass(frozen=True)
class Outcome:
    """What became of one call: its value, or one line that says why there is none."""

    value: Any
    status: Literal["ok", "error", "timeout", "died"]
    reason: str = ""


def attempt(function: Callable[[Any], Any], argument: Any) -> Outcome:
    """Call a function that may raise anything at all."""
    try:
        return Outcome(function(argument), "ok")
    except BaseException as error:  # noqa: BLE001 - a black box's sys.exit() is a failure like any other
        return failure(error)


def failure(error: BaseException) -> Outcome:
    """What became of a call that raised.

    Raises:
        KeyboardInterrupt: it was Ctrl-C, which reaches the main thread alone.
    """
    if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
        raise error
    # TracebackException survives an error whose __str__ raises.
    message = str(traceback.TracebackException(type(error), error, None))
    return Outcome(None, "error", _one_line(f"{type(error).__name__}: {message}" if message else type(error).__name__))


@dataclass(frozen=True, eq=False)
class Numbers(Sequence[Outcome]):
    """Outcomes of many calls of which most gave just a number.

    Args:
        values: (n,) what they gave.
        others: the outcomes, by place, of those that did not.
    """

    values: np.ndarray
    others: Mapping[int, Outcome]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, i: Any) -> Any:
        return self.others.get(i) or Outcome(float(self.values[i]), "ok")


@dataclass(frozen=True)
class Reply:
    """What became of calls that were made one after the other, and how long they took all together."""

    outcomes: Sequence[Outcome]
    seconds: float


def call_many(function: Callable[[Any], Any], arguments: Sequence[Any]) -> Reply:
    """Call a function on one argument after the other, by its own `many(arguments) -> outcomes` where it has that."""
    began = time.perf_counter()
    many = getattr(function, "many", None)
    outcomes = [attempt(function, argument) for argument in arguments] if many is None else many(arguments)
    return Reply(outcomes, time.perf_counter() - began)


def _one_line(text: str) -> str:
    """The same line on every run: no addresses; and one that can be stored: no lone surrogates."""
    text = re.sub(r"\b0x[0-9a-fA-F]{8,}\b", "0x...", " ".join(text.split()))
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 3] + "..."


class WorkerProcess:
    """The parent's side of a process: it starts, says that it is ready, then is idle or has a task."""

    def __init__(self, pickled: bytes, output: OutputLog | None, deadline: float) -> None:
        self.is_ready = False
        self.task: Sequence[int] | None = None
        self.deadline = deadline
        self.connection, theirs = _SPAWN.Pipe()
        printed, printing = _SPAWN.Pipe(duplex=False) if output else (None, None)
        self.process = _SPAWN.Process(target=_serve, args=(theirs, printing), daemon=True)
        with _surroundings():
            self.process.start()
        theirs.close()  # or its death would not be seen as the end of the pipe
        if output is not None and printed is not None and printing is not None:
            printing.close()
            output.follow(printed)
        self._send(pickled)

    @property
    def is_idle(self) -> bool:
        return self.is_ready and self.task is None

    @property
    def was_killed(self) -> bool:
        return (self.process.exitcode or 0) < 0

    def hand_over(self, numbers: Sequence[int], payload: bytes, deadline: float) -> None:
        self.task, self.deadline = numbers, deadline
        self._send(payload)

    def _send(self, payload: bytes) -> None:
        with suppress(OSError):  # it has died, which is found out when its answer is read
            self.connection.send_bytes(payload)

    def receive(self) -> Outcome:
        """An outcome whose value is the `Reply`; or what became of the process."""
        try:
            outcome: Outcome = self.connection.recv()
        except (EOFError, OSError):
            self.let_end(GRACE)  # the pipe ends a little before the process does
            self.kill()
            code = self.process.exitcode or 0
            return Outcome(None, "died", "worker died: " + (f"signal {-code}" if code < 0 else f"exit status {code}"))
        if self.is_ready and outcome.status == "ok":
            return attempt(pickle.loads, outcome.value)
        return outcome

    def let_end(self, seconds: float) -> None:
        """Wait for the process to end by itself; unlike its `join`, this does not free its number, its group's."""
        wait([self.process.sentinel], max(0.0, seconds))

    def kill(self) -> None:
        """End the process at once, unless it has ended, and with its group the programs that its calls had started."""
        assert self.process.pid  # killpg(0) would be the parent's own group
        with suppress(ChildProcessError, ProcessLookupError, PermissionError):
            if hasattr(os, "waitid"):  # not before Python 3.13 on macOS
                # Raises where somebody else has reaped it: its number may be another's by now.
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                os.killpg(self.process.pid, signal.SIGKILL)
            elif self.process.is_alive():
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection, printing: Connection | None) -> None:
    """What a worker does: fetch the function, say that it is ready, then answer arguments until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.setpgrp()
    multiprocessing.current_process().daemon = False  # a black box may have processes of its own, of this group
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if printing is not None:
        os.dup2(printing.fileno(), 2)
        printing.close()
    os.set_inheritable(connection.fileno(), False)  # held by what a call leaves behind, it would not end with us
    os.dup2(2, 1)  # the parent's standard output may be JSON for a program
    sys.stdout = sys.stderr
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())

    def answer(payload: bytes) -> bytes:
        return pickle.dumps(call_many(fetched.value, pickle.loads(payload)))

    with suppress(EOFError, OSError):
        fetched = attempt(pickle.loads, connection.recv_bytes())
        connection.send(replace(fetched, value=None))
        while True:
            connection.send(attempt(answer, connection.recv_bytes()))


def _die_with_parent() -> None:
    """A killed parent cannot stop a call that takes hours, so the worker does, and what the call had started."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.killpg(0, signal.SIGKILL)


@contextmanager
def _surroundings() -> Iterator[None]:
    """What a process started inside inherits: one thread for linear algebra, no Ctrl-C before it can ignore it.

    And nothing of a script: what is called travels by its value, so the script is not run again to find it.
    """
    with _SPAWN_LOCK:
        resource_tracker.ensure_running()  # now: it unblocks SIGINT when it starts
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        script = sys.modules["__main__"]
        try:
            sys.modules["__main__"] = ModuleType("__main__")
            with environment(**dict.fromkeys(_THREAD_LIMITS, "1")):
                yield
        finally:
            sys.modules["__main__"] = script
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
