"""What every pool promises: calls of one function, in chunks whose size follows what a call costs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from surrogate_core.worker import Outcome

CHUNK_SECONDS = 0.02  # that the calls of a chunk take together; one that takes longer alone goes alone
GROWTH = 8  # a chunk is at most so many times as long as the one before

OnStart = Callable[[Sequence[int]], None]
Chunks = Generator[tuple[Sequence[int], Sequence[Outcome]], None, None]


class Pool(ABC):
    """Calls one function, in workers that stay warm from one run to the next."""

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
            ClusterNotFound: no Dask scheduler answers.
        """
        outcomes: dict[int, Outcome] = {}

        def begin(numbers: Sequence[int]) -> None:
            if on_start is not None:
                for i in numbers:
                    on_start(i)

        def end(numbers: Sequence[int], ended: Sequence[Outcome]) -> None:
            for i, outcome in zip(numbers, ended, strict=True):
                outcomes[i] = outcome
                if on_end is not None:
                    on_end(i, outcome)

        self.run_chunks(arguments, begin, end)
        return [outcomes[i] for i in range(len(arguments))]

    def run_chunks(
        self,
        arguments: Sequence[Any],
        on_start: OnStart,
        on_end: Callable[[Sequence[int], Sequence[Outcome]], None],
        longest: float = CHUNK_SECONDS,
    ) -> None:
        """The same, told a chunk at a time: its places among the arguments, and then their outcomes.

        A chunk has one call, unless calls are so short that several take at most `longest` seconds together.
        """
        with closing(self._calls(arguments, on_start, longest)) as chunks:
            for numbers, outcomes in chunks:
                on_end(numbers, outcomes)

    @abstractmethod
    def _calls(self, arguments: Sequence[Any], on_start: OnStart, longest: float) -> Chunks:
        """Make the calls and yield each chunk as it comes; closed early, it abandons those under way."""

    @abstractmethod
    def close(self) -> None:
        """Stop the workers."""


def part(arguments: Sequence[Any], numbers: Sequence[int]) -> Any:
    """The arguments of a chunk."""
    if isinstance(numbers, range):
        return arguments[numbers.start : numbers.stop]
    if isinstance(arguments, np.ndarray):
        return arguments[list(numbers)]
    return [arguments[i] for i in numbers]


class Chunker:
    """Cuts calls into chunks: of one at first, then of as many as take some time together, fewer towards the end.

    Args:
        n: calls.
        n_workers: among which they are shared.
        seconds: that a chunk of several calls may take.

    Attributes:
        cost: seconds of a call, as the last ones took; None before the first.
    """

    def __init__(self, n: int, n_workers: int, seconds: float):
        self._next, self._n, self._n_workers = 0, n, n_workers
        self._again: list[Sequence[int]] = []
        self._seconds = seconds
        self._size = 1
        self.cost: float | None = None

    @property
    def is_empty(self) -> bool:
        return self._next == self._n and not self._again

    def take(self) -> Sequence[int]:
        """The places of the next chunk, in order."""
        if self._again:
            return self._again.pop()
        size = 1
        if self.cost is not None:
            fair = math.ceil((self._n - self._next) / (2 * self._n_workers))
            size = max(1, min(int(self._seconds / max(self.cost, 1e-9)), GROWTH * self._size, fair))
        self._size = size
        first, self._next = self._next, min(self._next + size, self._n)
        return range(first, self._next)

    def put_back(self, numbers: Sequence[int]) -> None:
        """To be made again, one by one: what became of them is not known."""
        self._again.extend([i] for i in reversed(numbers))

    def took(self, n: int, seconds: float) -> None:
        """So many calls took so long together."""
        cost = seconds / n
        self.cost = cost if self.cost is None else 0.5 * (self.cost + cost)
