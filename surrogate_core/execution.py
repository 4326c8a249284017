"""The one place that knows serial, threads and spawned processes.

A pool calls one function on many arguments; a call that fails, takes too long or kills its worker is an `Outcome` like
any other. Workers are spawned, never forked: a fork hangs once JAX has started.
"""

from __future__ import annotations

import math
import os
import pickle
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from queue import SimpleQueue
from typing import Any, Literal, get_args

from surrogate_core.output_log import OutputLog
from surrogate_core.worker import GRACE, Outcome, Worker, attempt

Kind = Literal["serial", "threads", "processes"]
START_SECONDS = 300.0
"""What a worker has to import the function, beside the time limit of a call; for ever where there is no limit."""


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
    n_workers = spec.n_workers or usable_cpus()
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
            yield i, attempt(self._function, argument)

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
            done.put((i, attempt(self._function, argument)))

    def close(self) -> None:
        for _ in range(self._n_started):
            self._tasks.put(None)


class _ProcessPool(Pool):
    def __init__(self, pickled: bytes, n_workers: int, timeout: float | None, output: OutputLog | None) -> None:
        self._pickled = pickled
        self._output = output
        self._n_workers = n_workers
        self._timeout = math.inf if timeout is None else timeout
        self._workers: list[Worker] = []

    def _calls(self, arguments: Sequence[Any], on_start: Callable[[int], None]) -> _Outcomes:
        waiting = deque(enumerate(arguments))
        n_unfinished = len(arguments)
        try:
            while n_unfinished:
                while len(self._workers) < min(self._n_workers, n_unfinished):
                    deadline = time.monotonic() + START_SECONDS + self._timeout
                    self._workers.append(Worker(self._pickled, self._output, deadline))
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
        deadline = time.monotonic() + GRACE
        for worker in self._workers:
            if worker.is_idle:
                worker.let_end(deadline - time.monotonic())
            worker.kill()


def _pickled(function: Callable[[Any], Any]) -> bytes:
    try:
        return pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        name = getattr(function, "__name__", type(function).__name__)
        raise ValueError(
            f"function: must be importable by name to run in processes (got {name}); use executor 'threads' or 'serial'"
        ) from error


def usable_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
