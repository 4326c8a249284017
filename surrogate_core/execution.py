"""The one place that knows serial, threads, spawned processes and Dask.

A pool calls one function on many arguments; a call that fails, takes too long or kills its worker is an `Outcome` like
any other.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from importlib.util import find_spec
from queue import SimpleQueue
from typing import Any, Literal, TypeVar, get_args

from surrogate_core.dask_pool import ClusterNotFound, DaskPool
from surrogate_core.output_log import OutputLog
from surrogate_core.pool import Chunker, Chunks, OnStart, Pool, part
from surrogate_core.process_pool import ProcessPool
from surrogate_core.worker import Reply, call_many
from surrogate_core.worker_pool import WorkerNotStarted

__all__ = [
    "STOPPING",
    "ClusterNotFound",
    "ExecutorSpec",
    "Kind",
    "Pool",
    "WorkerNotStarted",
    "map_calls",
    "open_pool",
    "usable_cpus",
]

A = TypeVar("A")
T = TypeVar("T")
Kind = Literal["serial", "threads", "processes", "dask", "auto"]
STOPPING = ("processes", "dask", "auto")
"""Kinds that can stop a call."""
START_OF_A_POOL = 1.0  # seconds of two processes that import JAX, on two cores of 2024; without imports, 0.1
HANDED_OVER = 1e-6  # seconds that a short call costs more in a process
LOOK = 0.1  # seconds of calls by which is judged what one costs


@dataclass(frozen=True)
class ExecutorSpec:
    """Where calls are made.

    Args:
        kind: in this process one by one, in its threads, or in processes of their own, which can be stopped; by the
            workers of a Dask cluster; or `auto`: here as long as processes would be no sooner done, else in processes.
        n_workers: how many calls at a time; None means one for each usable CPU, or for each thread of the cluster.
        address: of the Dask scheduler, such as "tcp://127.0.0.1:8786"; None for a cluster of processes on this machine.
    """

    kind: Kind = "processes"
    n_workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"executor: expected one of {', '.join(map(repr, get_args(Kind)))}, got {self.kind!r}")
        n = self.n_workers
        if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 1):
            raise ValueError(f"n_workers: expected an integer >= 1, got {n!r}")
        if self.kind == "dask" and not find_spec("distributed"):
            raise ValueError("executor: 'dask' needs Dask, got none: pip install 'surrogate-lab[dask]'")
        if self.address is not None and self.kind != "dask":
            raise ValueError(f"address: expected one with executor 'dask' alone, got one with {self.kind!r}")


@contextmanager
def open_pool(
    function: Callable[[Any], Any],
    spec: ExecutorSpec,
    timeout: float | None = None,
    output: OutputLog | None = None,
) -> Iterator[Pool]:
    """A pool that is open for the length of a `with`; its workers are started when they are first needed.

    Args:
        function: called with one argument; for processes it must be one that can travel. It may have a method
            `many(arguments)`, which returns their outcomes, for many short calls.
        spec: where calls are made.
        timeout: seconds after which a call is stopped, not counting its worker's start, which has START_SECONDS more;
            not here, nor in threads.
        output: where the processes' standard output and error go; None for this process's standard error.

    Raises:
        ValueError: the function or the timeout does not go with the executor.
    """
    if timeout is not None:
        if not (timeout > 0 and math.isfinite(timeout)):
            raise ValueError(f"timeout: expected a number of seconds > 0, got {timeout!r}")
        if spec.kind not in STOPPING:
            raise ValueError(f"timeout: needs executor 'processes' or 'dask', which can stop a call, got {spec.kind!r}")
    n_workers = spec.n_workers or usable_cpus()
    pool: Pool
    if spec.kind == "serial":
        pool = _SerialPool(function)
    elif spec.kind == "threads":
        pool = _ThreadPool(function, n_workers)
    elif spec.kind == "dask":
        n_threads = spec.n_workers if spec.address else n_workers
        pool = DaskPool(function, n_threads, spec.address, timeout, output)
    elif spec.kind == "processes" or timeout is not None:
        pool = ProcessPool(function, n_workers, timeout, output)
    else:
        pool = _AutoPool(function, n_workers, output)
    try:
        yield pool
    finally:
        pool.close()


def map_calls(function: Callable[[A], T], arguments: Iterable[A], spec: ExecutorSpec) -> list[T]:
    """The function's values, in the order of the arguments, wherever they are made.

    Raises:
        Exception: what the first call that failed, in the order of the arguments, has raised.
        RuntimeError: the first one's worker has died.
    """
    with open_pool(_Caught(function), spec) as pool:
        outcomes = pool.run(list(arguments))
    for outcome in outcomes:
        if outcome.status != "ok":
            raise RuntimeError(outcome.reason)
        if isinstance(outcome.value, _Raised):
            raise outcome.value.error
    return [outcome.value for outcome in outcomes]


@dataclass(frozen=True)
class _Raised:
    error: Exception


@dataclass(frozen=True)
class _Caught:
    """A function whose exceptions are values, which travel."""

    function: Callable[[Any], Any]

    def __call__(self, argument: Any) -> Any:
        try:
            return self.function(argument)
        except Exception as error:  # noqa: BLE001 - it is raised again where it was asked for
            return _Raised(error)


class _SerialPool(Pool):
    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function
        self.cost: float | None = None

    def _calls(self, arguments: Sequence[Any], on_start: OnStart, longest: float) -> Chunks:
        waiting = Chunker(len(arguments), 1, longest)
        while not waiting.is_empty:
            numbers = waiting.take()
            on_start(numbers)
            reply = call_many(self._function, part(arguments, numbers))
            waiting.took(len(numbers), reply.seconds)
            self.cost = waiting.cost
            yield numbers, reply.outcomes

    def close(self) -> None:
        pass


class _ThreadPool(Pool):
    """Daemon threads, unlike concurrent.futures': after Ctrl-C the process need not wait for calls nobody can stop."""

    def __init__(self, function: Callable[[Any], Any], n_workers: int) -> None:
        self._function = function
        self._n_workers = n_workers
        self._n_started = 0
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def _calls(self, arguments: Sequence[Any], on_start: OnStart, longest: float) -> Chunks:
        done: SimpleQueue[tuple[Sequence[int], Reply]] = SimpleQueue()  # of this run: an abandoned one's end elsewhere
        waiting = Chunker(len(arguments), self._n_workers, longest)
        n_under_way = 0
        while n_under_way or not waiting.is_empty:
            while n_under_way < self._n_workers and not waiting.is_empty:
                numbers = waiting.take()
                on_start(numbers)
                self._hand_over(numbers, part(arguments, numbers), done)
                n_under_way += 1
            numbers, reply = done.get()
            n_under_way -= 1
            waiting.took(len(numbers), reply.seconds)
            yield numbers, reply.outcomes

    def _hand_over(self, numbers: Sequence[int], arguments: Sequence[Any], done: SimpleQueue[Any]) -> None:
        context = copy_context()  # a monitor around the run is one around its calls
        self._tasks.put(lambda: done.put((numbers, context.run(call_many, self._function, arguments))))
        if self._n_started < self._n_workers:
            threading.Thread(target=self._work, daemon=True).start()
            self._n_started += 1

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()

    def close(self) -> None:
        for _ in range(self._n_started):
            self._tasks.put(None)


class _AutoPool(Pool):
    """Calls the function here until a call's cost is known, and goes on in processes where that is sooner done.

    How long a function takes to import is not known: short calls go on here until the processes are there. Nor is what
    is still to come after this run: as many calls again as there were before are counted on. What cannot travel, or
    cannot be imported there, is called here alone.
    """

    def __init__(self, function: Callable[[Any], Any], n_workers: int, output: OutputLog | None) -> None:
        self._function = function
        self._here = _SerialPool(function)
        self._n_workers = n_workers
        self._output = output
        self._there: ProcessPool | None = None
        self._n_before = 0

    def _calls(self, arguments: Sequence[Any], on_start: OnStart, longest: float) -> Chunks:
        began, n_done, there = time.perf_counter(), 0, None
        for numbers, outcomes in self._here._calls(arguments, on_start, longest):
            yield numbers, outcomes
            n_done = numbers[-1] + 1
            if time.perf_counter() - began > LOOK and self._is_sooner_there(len(arguments) - n_done):
                there = self._started(len(arguments) - n_done)
            if there is not None:
                break
        self._n_before += len(arguments)
        if there is not None:
            rest = lambda numbers: range(numbers[0] + n_done, numbers[-1] + 1 + n_done)  # noqa: E731
            chunks = there._calls(arguments[n_done:], lambda numbers: on_start(rest(numbers)), longest)
            for numbers, outcomes in chunks:
                yield rest(numbers), outcomes

    def _is_sooner_there(self, n_left: int) -> bool:
        cost = self._here.cost
        if self._n_workers == 1 or cost is None or n_left == 0:
            return False
        start, n = (START_OF_A_POOL, n_left + self._n_before) if self._there is None else (0.0, n_left)
        return start + n * (cost / self._n_workers + HANDED_OVER) < n * cost

    def _started(self, n_left: int) -> ProcessPool | None:
        """The processes; None as long as a short call is sooner made here than they are there."""
        try:
            if self._there is None:
                self._there = ProcessPool(self._function, self._n_workers, None, self._output)
            is_long = self._here.cost is not None and self._here.cost > LOOK
            return self._there if self._there.is_started(n_left, wait=is_long) else None
        except (ValueError, WorkerNotStarted):
            self._n_workers = 1
            return None

    def close(self) -> None:
        if self._there is not None:
            self._there.close()


def usable_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
