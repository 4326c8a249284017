"""What every pool of workers outside this process does: hand over chunks, wait, give up what takes too long."""

from __future__ import annotations

import math
import pickle
import time
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

import cloudpickle

from surrogate_core.pool import Chunker, Chunks, OnStart, Pool, part
from surrogate_core.worker import Outcome, Reply

START_SECONDS = 300.0
"""What a worker has to import the function, beside the time limit of a call; for ever where there is no limit."""


class WorkerNotStarted(RuntimeError):
    """A worker could not fetch the function; `reason` is what happened in it.

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


class Worker(Protocol):
    """This side of what makes one call at a time: it fetches the function, then is idle or has a task."""

    is_ready: bool
    task: Sequence[int] | None
    deadline: float

    @property
    def is_idle(self) -> bool: ...

    @property
    def was_killed(self) -> bool:
        """Whether a signal has ended it."""

    def hand_over(self, numbers: Sequence[int], payload: bytes, deadline: float) -> None: ...

    def receive(self) -> Outcome | None:
        """An outcome whose value is the `Reply`; or what became of the worker; None: ask another for the same."""


W = TypeVar("W", bound=Worker)


class WorkerPool(Pool, Generic[W]):
    """Workers that are started when they are first needed.

    Args:
        pickled: the function as it travels.
        timeout: seconds after which a call is given up; None for never.
    """

    patience = 1.0
    """How many times as long as is asked for a chunk of several calls may take."""

    def __init__(self, pickled: bytes, timeout: float | None) -> None:
        self._pickled = pickled
        self._timeout = math.inf if timeout is None else timeout
        self._workers: list[W] = []

    @abstractmethod
    def _hire(self, n: int) -> None:
        """Have workers for so many calls, as far as there may be."""

    @abstractmethod
    def _answering(self, seconds: float) -> Collection[W]:
        """Those that have something to say, or will say nothing more; waits for one, at most so long."""

    @abstractmethod
    def _stop(self, workers: Sequence[W]) -> None:
        """End what they are doing."""

    def _abandon(self, workers: Sequence[W]) -> None:
        """End what they are doing, of whose end nobody wants to know."""
        self._stop(workers)

    @property
    def _too_late(self) -> Outcome:
        return Outcome(None, "timeout", f"timeout: no result within {self._timeout:g} s")

    @property
    def _start_deadline(self) -> float:
        return time.monotonic() + START_SECONDS + self._timeout

    def _calls(self, arguments: Sequence[Any], on_start: OnStart, longest: float) -> Chunks:
        n_unfinished = len(arguments)
        self._hire(n_unfinished)
        waiting = Chunker(len(arguments), max(1, len(self._workers)), min(self.patience * longest, self._timeout / 4))
        try:
            while n_unfinished:
                self._hire(n_unfinished)
                for worker in self._workers:
                    if worker.is_idle and not waiting.is_empty:
                        numbers = waiting.take()
                        payload = pickle.dumps(part(arguments, numbers))
                        on_start(numbers)
                        worker.hand_over(numbers, payload, time.monotonic() + self._timeout)
                for numbers, outcome in self._finished():
                    reply = outcome.value if outcome else None
                    outcomes: Sequence[Outcome]
                    if isinstance(reply, Reply) and len(numbers) == 1 and reply.seconds > self._timeout:
                        outcomes = [self._too_late]  # though it came before it could be stopped
                    elif isinstance(reply, Reply):
                        waiting.took(len(numbers), reply.seconds)
                        outcomes = reply.outcomes
                    elif outcome is None or len(numbers) > 1:  # which of them it was is found out one by one
                        waiting.put_back(numbers)
                        continue
                    else:
                        outcomes = [outcome]
                    n_unfinished -= len(numbers)
                    yield numbers, outcomes
        finally:
            if busy := [worker for worker in self._workers if worker.task is not None]:  # by an exception alone
                self._workers = [worker for worker in self._workers if worker not in busy]
                self._abandon(busy)

    def is_started(self, n: int, wait: bool) -> bool:
        """Whether workers for so many calls are ready to make them; those that are missing are started.

        Raises:
            WorkerNotStarted: a worker process could not be started with this function.
        """
        self._hire(n)
        list(self._finished(0.0))
        while wait and not all(worker.is_ready for worker in self._workers):
            list(self._finished())
        return all(worker.is_ready for worker in self._workers)

    def _finished(self, longest: float = 3600.0) -> Iterator[tuple[Sequence[int], Outcome | None]]:
        """Wait, at most so long, for a worker to become ready, finish, die or run out of time."""
        seconds = min((worker.deadline for worker in self._workers), default=math.inf) - time.monotonic()
        # Capped, as the system call takes no more than an int of milliseconds.
        answering = self._answering(min(max(0.0, seconds), longest))
        now = time.monotonic()
        late = [worker for worker in self._workers if worker not in answering and now >= worker.deadline]
        if late:
            self._stop(late)
        for worker in [worker for worker in self._workers if worker in answering or worker in late]:
            outcome: Outcome | None
            if worker in answering:
                outcome = worker.receive()
            else:
                outcome = self._too_late
                if not worker.is_ready:
                    reason = f"expected an import within {START_SECONDS + self._timeout:g} s, got none"
                    outcome = Outcome(None, "timeout", reason)
            if outcome is None or outcome.status in ("timeout", "died"):
                self._workers.remove(worker)
            if not worker.is_ready and outcome is not None and outcome.status != "ok":
                raise WorkerNotStarted(outcome.reason, outcome.status == "died" and worker.was_killed)
            numbers, worker.is_ready, worker.task, worker.deadline = worker.task, True, None, math.inf
            if numbers is not None:
                yield numbers, outcome


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
