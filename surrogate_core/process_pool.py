"""A pool of spawned processes: never forked, for a fork hangs once JAX has started."""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any

import cloudpickle

from surrogate_core.output_log import OutputLog
from surrogate_core.pool import Chunker, Chunks, OnStart, Pool, part
from surrogate_core.worker import GRACE, Outcome, Reply, Worker

START_SECONDS = 300.0
"""What a worker has to import the function, beside the time limit of a call; for ever where there is no limit."""


class WorkerNotStarted(RuntimeError):
    """A worker process could not fetch the function; `reason` is what happened in it.

    Args:
        reason: in one line.
        killed: whether a signal has ended it that was not ours.
    """

    def __init__(self, reason: str, killed: bool = False) -> None:
        super().__init__(
            f"the worker process could not start ({reason}): what the function needs must be importable in a new "
            "process; or use executor 'threads' or 'serial'"
        )
        self.reason = reason
        self.killed = killed


class ProcessPool(Pool):
    def __init__(
        self, function: Callable[[Any], Any], n_workers: int, timeout: float | None, output: OutputLog | None
    ) -> None:
        self._pickled = pickled(function)
        self._output = output
        self._n_workers = n_workers
        self._timeout = math.inf if timeout is None else timeout
        self._workers: list[Worker] = []

    @property
    def n_started(self) -> int:
        return len(self._workers)

    def _calls(self, arguments: Sequence[Any], on_start: OnStart, longest: float) -> Chunks:
        waiting = Chunker(len(arguments), self._n_workers, min(longest, self._timeout / 4))
        n_unfinished = len(arguments)
        try:
            while n_unfinished:
                while len(self._workers) < min(self._n_workers, n_unfinished):
                    deadline = time.monotonic() + START_SECONDS + self._timeout
                    self._workers.append(Worker(self._pickled, self._output, deadline))
                for worker in self._workers:
                    if worker.is_idle and not waiting.is_empty:
                        numbers = waiting.take()
                        payload = pickle.dumps(part(arguments, numbers))
                        on_start(numbers)
                        worker.hand_over(numbers, payload, time.monotonic() + self._timeout)
                for numbers, outcome in self._finished():
                    reply = outcome.value
                    if isinstance(reply, Reply):
                        waiting.took(len(numbers), reply.seconds)
                        outcomes = reply.outcomes
                    elif len(numbers) > 1:  # which of them it was is found out one by one
                        waiting.put_back(numbers)
                        continue
                    else:
                        outcomes = [outcome]
                    n_unfinished -= len(numbers)
                    yield numbers, outcomes
        finally:  # only an exception leaves calls under way
            for worker in [worker for worker in self._workers if worker.task is not None]:
                self._workers.remove(worker)
                worker.kill()

    def _finished(self) -> Iterator[tuple[Sequence[int], Outcome]]:
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
            numbers, worker.is_ready, worker.task, worker.deadline = worker.task, True, None, math.inf
            if numbers is not None:
                yield numbers, outcome

    def close(self) -> None:
        for worker in self._workers:
            worker.connection.close()  # at which an idle worker ends
        deadline = time.monotonic() + GRACE
        for worker in self._workers:
            if worker.is_idle:
                worker.let_end(deadline - time.monotonic())
            worker.kill()


def pickled(function: Callable[[Any], Any]) -> bytes:
    """A function as it travels to workers, lambdas and closures too.

    Raises:
        ValueError: something that it holds cannot travel, such as a lock.
    """
    try:
        return bytes(cloudpickle.dumps(function))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        name = getattr(function, "__name__", type(function).__name__)
        raise ValueError(
            f"function: expected one that can travel to another process, got {name} ({error}); use executor 'threads' "
            "or 'serial'"
        ) from error
