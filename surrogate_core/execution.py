"""The one place that knows serial, threads and spawned processes.

A pool calls one function on many arguments; a call that fails, takes too long or kills its worker is an `Outcome` like
any other. Workers are spawned, never forked: a fork hangs once JAX has started.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import re
import signal
import sys
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import Any, Literal, get_args

from surrogate_core.output_log import OutputLog

Kind = Literal["serial", "threads", "processes"]
_SPAWN = multiprocessing.get_context("spawn")
_SPAWN_LOCK = threading.Lock()
_THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
START_SECONDS = 300.0
"""What a worker has to import the function, beside the time limit of a call; for ever where there is no limit."""
_GRACE = 1.0  # seconds that an idle worker has to end by itself
_LONGEST_REASON = 300


@dataclass(frozen=True)
class Outcome:
    """What became of one call: its value, or one line that says why there is none."""

    value: Any
    status: Literal["ok", "error", "timeout", "died"]
    reason: str = ""


@dataclass(frozen=True)
class ExecutorSpec:
    """Where calls are made.

    Args:
        kind: in this process one by one, in its threads, or in processes of their own, which alone can be stopped.
        n_workers: how many calls at a time; None means one for each usable CPU.
    """

    kind: Kind = "processes"
    n_workers: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"executor: expected one of {', '.join(map(repr, get_args(Kind)))}, got {self.kind!r}")
        n = self.n_workers
        if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 1):
            raise ValueError(f"n_workers: expected an integer >= 1, got {n!r}")


_Outcomes = Generator[tuple[int, Outcome], None, None]


class WorkerNotStarted(RuntimeError):
    """A worker process could not fetch the function; `reason` is what happened in it.

    Args:
        reason: in one line.
        killed: whether a signal has ended it that was not ours.
    """

    def __init__(self, reason: str, killed: bool = False) -> None:
        super().__init__(
            f"the worker process could not start ({reason}): the function must be importable in a new process, and a "
            "script must guard what it runs by `if __name__ == '__main__':`; or use executor 'threads' or 'serial'"
        )
        self.reason = reason
        self.killed = killed


class Pool(ABC):
    """Calls one function, in workers that stay warm from one `run` to the next."""

    def run(
        self,
        arguments: Sequence[Any],
        on_start: Callable[[int], None] | None = None,
        on_end: Callable[[int, Outcome], None] | None = None,
    ) -> list[Outcome]:
        """Call the function on every argument.

        Args:
            arguments: each is handed over only when a worker is free.
            on_start: called here with `i` right before the i-th argument is handed over.
            on_end: called here with `i` and its outcome as each finishes, in whatever order.

        Returns:
            The outcomes, in the order of `arguments`.

        Raises:
            WorkerNotStarted: a worker process could not be started with this function.
        """
        outcomes: dict[int, Outcome] = {}
        with closing(self._calls(arguments, on_start or (lambda i: None))) as calls:
            for i, outcome in calls:
                outcomes[i] = outcome
                if on_end is not None:
                    on_end(i, outcome)
        return [outcomes[i] for i in range(len(arguments))]

    @abstractmethod
    def _calls(self, arguments: Sequence[Any], on_start: Callable[[int], None]) -> _Outcomes:
        """Make the calls and yield each outcome as it comes; closed early, it abandons those under way."""

    @abstractmethod
    def close(self) -> None:
        """Stop the workers."""


@contextmanager
def open_pool(
    function: Callable[[Any], Any],
    spec: ExecutorSpec,
    timeout: float | None = None,
    output: OutputLog | None = None,
) -> Iterator[Pool]:
    """A pool that is open for the length of a `with`; its workers are started when they are first needed.

    Args:
        function: called with one argument; for processes it must be picklable.
        spec: where calls are made.
        timeout: seconds after which a call is stopped, not counting its worker's start, which has START_SECONDS more;
            processes only.
        output: where the processes' standard output and error go; None for this process's standard error.

    Raises:
        ValueError: the function or the timeout does not go with the executor.
    """
    if timeout is not None:
        if not (timeout > 0 and math.isfinite(timeout)):
            raise ValueError(f"timeout: expected a number of seconds > 0, got {timeout!r}")
        if spec.kind != "processes":
            raise ValueError(f"timeout: needs executor 'processes', which alone can stop a call, got {spec.kind!r}")
    n_workers = spec.n_workers or _n_usable_cpus()
    pool: Pool
    if spec.kind == "serial":
        pool = _SerialPool(function)
    elif spec.kind == "threads":
        pool = _ThreadPool(function, n_workers)
    else:
        pool = _ProcessPool(_pickled(function), n_workers, timeout, output)
    try:
        yield pool
    finally:
        pool.close()


class _SerialPool(Pool):
    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def _calls(self, arguments: Sequence[Any], on_start: Callable[[int], None]) -> _Outcomes:
        for i, argument in enumerate(arguments):
            on_start(i)
            yield i, _call(self._function, argument)

    def close(self) -> None:
        pass


class _ThreadPool(Pool):
    """Daemon threads, unlike concurrent.futures': after Ctrl-C the process need not wait for calls nobody can stop."""

    def __init__(self, function: Callable[[Any], Any], n_workers: int) -> None:
        self._function = function
        self._n_workers = n_workers
        self._n_started = 0
        self._tasks: SimpleQueue[tuple[int, Any, SimpleQueue[tuple[int, Outcome]]] | None] = SimpleQueue()

    def _calls(self, arguments: Sequence[Any], on_start: Callable[[int], None]) -> _Outcomes:
        done: SimpleQueue[tuple[int, Outcome]] = SimpleQueue()  # of this run: an abandoned run's calls end elsewhere
        while self._n_started < min(self._n_workers, len(arguments)):
            threading.Thread(target=self._work, daemon=True).start()
            self._n_started += 1
        n_handed = 0
        for n_done in range(len(arguments)):
            while n_handed < min(len(arguments), n_done + self._n_workers):
                on_start(n_handed)
                self._tasks.put((n_handed, arguments[n_handed], done))
                n_handed += 1
            yield done.get()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            i, argument, done = task
            done.put((i, _call(self._function, argument)))

    def close(self) -> None:
        for _ in range(self._n_started):
            self._tasks.put(None)


class _ProcessPool(Pool):
    def __init__(self, pickled: bytes, n_workers: int, timeout: float | None, output: OutputLog | None) -> None:
        self._pickled = pickled
        self._output = output
        self._n_workers = n_workers
        self._timeout = math.inf if timeout is None else timeout
        self._workers: list[_Worker] = []

    def _calls(self, arguments: Sequence[Any], on_start: Callable[[int], None]) -> _Outcomes:
        waiting = deque(enumerate(arguments))
        n_unfinished = len(arguments)
        try:
            while n_unfinished:
                while len(self._workers) < min(self._n_workers, n_unfinished):
                    deadline = time.monotonic() + START_SECONDS + self._timeout
                    self._workers.append(_Worker(self._pickled, self._output, deadline))
                for worker in self._workers:
                    if waiting and worker.is_idle:
                        i, argument = waiting.popleft()
                        payload = pickle.dumps(argument)
                        on_start(i)
                        worker.hand_over(i, payload, time.monotonic() + self._timeout)
                for finished in self._finished():
                    n_unfinished -= 1
                    yield finished
        finally:  # only an exception leaves calls under way
            for worker in [worker for worker in self._workers if worker.task is not None]:
                self._workers.remove(worker)
                worker.kill()

    def _finished(self) -> Iterator[tuple[int, Outcome]]:
        """Wait for a worker to become ready, finish, die or run out of time."""
        seconds = min(worker.deadline for worker in self._workers) - time.monotonic()
        # Capped, as the system call takes no more than an int of milliseconds.
        answering = wait([worker.connection for worker in self._workers], min(max(0.0, seconds), 3600.0))
        for worker in list(self._workers):
            if worker.connection in answering:
                outcome = worker.receive()
            elif time.monotonic() >= worker.deadline:
                worker.kill()
                reason = f"timeout: no result within {self._timeout:g} s"
                if not worker.is_ready:
                    reason = f"expected an import within {START_SECONDS + self._timeout:g} s, got none"
                outcome = Outcome(None, "timeout", reason)
            else:
                continue
            if outcome.status in ("timeout", "died"):
                self._workers.remove(worker)
            if not worker.is_ready and outcome.status != "ok":
                killed = outcome.status == "died" and (worker.process.exitcode or 0) < 0
                raise WorkerNotStarted(outcome.reason, killed)
            i, worker.is_ready, worker.task, worker.deadline = worker.task, True, None, math.inf
            if i is not None:
                yield i, outcome

    def close(self) -> None:
        for worker in self._workers:
            worker.connection.close()  # at which an idle worker ends
        deadline = time.monotonic() + _GRACE
        for worker in self._workers:
            if worker.is_idle:
                worker.let_end(deadline - time.monotonic())
            worker.kill()


class _Worker:
    """The parent's side of a process: it starts, says that it is ready, then is idle or has a task."""

    def __init__(self, pickled: bytes, output: OutputLog | None, deadline: float) -> None:
        self.is_ready = False
        self.task: int | None = None
        self.deadline = deadline
        self.connection, theirs = _SPAWN.Pipe()
        printed, printing = _SPAWN.Pipe(duplex=False) if output else (None, None)
        self.process = _SPAWN.Process(target=_serve, args=(theirs, printing), daemon=True)
        with _worker_surroundings():
            self.process.start()
        theirs.close()  # or its death would not be seen as the end of the pipe
        if output is not None and printed is not None and printing is not None:
            printing.close()
            output.follow(printed)
        self._send(pickled)

    @property
    def is_idle(self) -> bool:
        return self.is_ready and self.task is None

    def hand_over(self, i: int, payload: bytes, deadline: float) -> None:
        self.task, self.deadline = i, deadline
        self._send(payload)

    def _send(self, payload: bytes) -> None:
        with suppress(OSError):  # it has died, which is found out when its answer is read
            self.connection.send_bytes(payload)

    def receive(self) -> Outcome:
        try:
            outcome: Outcome = self.connection.recv()
        except (EOFError, OSError):
            self.let_end(_GRACE)  # the pipe ends a little before the process does
            self.kill()
            code = self.process.exitcode or 0
            return Outcome(None, "died", "worker died: " + (f"signal {-code}" if code < 0 else f"exit status {code}"))
        if self.is_ready and outcome.status == "ok":
            return _call(pickle.loads, outcome.value)
        return outcome

    def let_end(self, seconds: float) -> None:
        """Wait for the process to end by itself; unlike its `join`, this does not free its number, its group's."""
        wait([self.process.sentinel], max(0.0, seconds))

    def kill(self) -> None:
        """End the process at once, unless it has ended, and with its group the programs that its calls had started."""
        assert self.process.pid  # killpg(0) would be the parent's own group
        with suppress(ChildProcessError, ProcessLookupError, PermissionError):
            # Raises where somebody else has reaped it: its number may be another's by now.
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection, printing: Connection | None) -> None:
    """What a worker does: fetch the function, say that it is ready, then answer each argument until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.setpgrp()
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
        return pickle.dumps(fetched.value(pickle.loads(payload)))

    with suppress(EOFError, OSError):
        fetched = _call(pickle.loads, connection.recv_bytes())
        connection.send(replace(fetched, value=None))
        while True:
            connection.send(_call(answer, connection.recv_bytes()))


def _die_with_parent() -> None:
    """A killed parent cannot stop a call that takes hours, so the worker does, and what the call had started."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.killpg(0, signal.SIGKILL)


def _call(function: Callable[[Any], Any], argument: Any) -> Outcome:
    try:
        return Outcome(function(argument), "ok")
    except BaseException as error:  # a black box may raise anything, and its sys.exit() is a failure like any other
        # Ctrl-C reaches the main thread alone.
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise
        # TracebackException survives an error whose __str__ raises.
        message = str(traceback.TracebackException(type(error), error, None))
        return Outcome(
            None, "error", _one_line(f"{type(error).__name__}: {message}" if message else type(error).__name__)
        )


def _one_line(text: str) -> str:
    """The same line on every run: no addresses; and one that can be stored: no lone surrogates."""
    text = re.sub(r"\b0x[0-9a-fA-F]{8,}\b", "0x...", " ".join(text.split()))
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 3] + "..."


def _pickled(function: Callable[[Any], Any]) -> bytes:
    try:
        return pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        name = getattr(function, "__name__", type(function).__name__)
        raise ValueError(
            f"function: must be importable by name to run in processes (got {name}); use executor 'threads' or 'serial'"
        ) from error


def _n_usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _worker_surroundings() -> Iterator[None]:
    """What a process started inside inherits: one thread for linear algebra, and no Ctrl-C before it can ignore it."""
    with _SPAWN_LOCK:
        resource_tracker.ensure_running()  # now: it unblocks SIGINT when it starts
        before = {name: os.environ.get(name) for name in _THREAD_LIMITS}
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        os.environ.update(dict.fromkeys(_THREAD_LIMITS, "1"))
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
