"""A black box over points: failures, retries and timeouts become values, and a journal remembers them.

A call is known by its key. What the journal has ended is not called again, so a killed batch goes on where it stopped.
"""

from __future__ import annotations

import math
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Self

import numpy as np

from surrogate_core.execution import ExecutorSpec, Pool, open_pool
from surrogate_core.journal import Journal
from surrogate_core.measurement import LARGEST, Evaluation, interpret
from surrogate_core.output_log import OutputLog
from surrogate_core.pool import CHUNK_SECONDS
from surrogate_core.worker import Numbers, Outcome, attempt, failure

_PROCESSES = ExecutorSpec()


class Evaluator:
    """Evaluates a black box at points, in workers that stay warm from one batch to the next; used in a `with`.

    Args:
        function: the black box, called with one argument.
        executor: where it is called; no process or thread is started before the first call.
        timeout: seconds after which a call is stopped and has failed; not here, nor in threads.
        retries: how many more times a failed call is tried.
        journal: what remembers calls by their keys; None remembers nothing.
        output: where processes print; None for this process's standard error.

    Attributes:
        n_calls: how many calls were really made, each try counted.
        n_served: how many evaluations came from the journal.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        executor: ExecutorSpec = _PROCESSES,
        timeout: float | None = None,
        retries: int = 0,
        journal: Journal | None = None,
        output: OutputLog | None = None,
    ) -> None:
        if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
            raise ValueError(f"retries: expected an integer >= 0, got {retries!r}")
        self.n_calls = 0
        self.n_served = 0
        self._measure = _Measure(function)
        self._executor = executor
        self._timeout = timeout
        self._retries = retries
        self._journal = journal
        self._output = output
        self._pool: Pool | None = None
        self._stack = ExitStack()

    @property
    def remembers(self) -> bool:
        """Whether calls are known by keys."""
        return self._journal is not None

    def evaluate(
        self,
        keys: Sequence[str] | None,
        arguments: Sequence[Any],
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Evaluations:
        """Evaluate every argument, those that the journal knows without a call.

        Args:
            keys: names each call in the journal, one an argument; None where there is none.
            arguments: what the black box is called with; of an array with each of its rows.
            on_progress: called with (done, total): once at the start, then as evaluations end.

        Returns:
            The evaluations, in the order of `arguments`.

        Raises:
            ValueError: a key is there twice, or keys and arguments differ in number.
        """
        if keys is not None and len(keys) != len(arguments):
            raise ValueError(f"keys: expected one for each of {len(arguments)} arguments, got {len(keys)}")
        if repeated := [key for key, n in Counter(keys).items() if n > 1]:
            raise ValueError(f"keys: expected no key twice, got {reprlib.repr(repeated)} repeatedly")
        if keys is None and self.remembers:
            raise ValueError("keys: expected one for each argument, as there is a journal, got none")
        batch = _Batch(keys, arguments, self._journal, on_progress)
        self.n_served += batch.n_done
        for n_tries in range(1, self._retries + 2):
            if len(pending := batch.pending):
                self._try(batch, pending, n_tries)
        return batch.found

    def close(self) -> None:
        """Stop the workers."""
        self._stack.close()
        self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _try(self, batch: _Batch, pending: np.ndarray, n_tries: int) -> None:
        """Make every call that is pending once more; one that succeeds, or has no try left, is finished."""

        def on_start(numbers: Sequence[int]) -> None:
            self.n_calls += len(numbers)
            if n_tries == 1:
                batch.start(pending[numbers])

        def on_end(numbers: Sequence[int], outcomes: Sequence[Outcome]) -> None:
            places, n_before = pending[numbers], batch.n_done
            ended: Iterable[tuple[int, Outcome]] = enumerate(outcomes)
            if isinstance(outcomes, Numbers):
                is_plain = np.ones(len(outcomes), dtype=bool)
                is_plain[list(outcomes.others)] = False
                batch.end_numbers(places[is_plain], outcomes.values[is_plain])
                ended = outcomes.others.items()
            for k, outcome in ended:
                if outcome.status == "ok":
                    batch.end(int(places[k]), outcome.value)
                elif n_tries > self._retries:
                    tries = f" (after {n_tries} tries)" if n_tries > 1 else ""
                    batch.end(int(places[k]), Evaluation(math.nan, "failed", outcome.reason + tries))
            if batch.n_done > n_before:
                batch.report()

        if self._pool is None:
            self._pool = self._stack.enter_context(
                open_pool(self._measure, self._executor, self._timeout, self._output)
            )
        longest = 0.0 if self.remembers else CHUNK_SECONDS  # what is remembered is so call by call
        self._pool.run_chunks(batch.arguments_at(pending), on_start, on_end, longest)


class Evaluations(Sequence[Evaluation]):
    """Evaluations of which most are just a number.

    Attributes:
        values: (n,), NaN where a call has failed.
        others: by place, those that are more than a number.
    """

    def __init__(self, n: int) -> None:
        self.values = np.full(n, np.nan)
        self.others: dict[int, Evaluation] = {}

    def put(self, i: int, evaluation: Evaluation) -> None:
        self.values[i] = evaluation.value
        if evaluation != Evaluation(evaluation.value, "ok"):
            self.others[i] = evaluation

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i %= len(self)
        return self.others.get(i) or Evaluation(float(self.values[i]), "ok")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


class _Batch:
    """What is being evaluated, and what is known of it."""

    def __init__(
        self,
        keys: Sequence[str] | None,
        arguments: Sequence[Any],
        journal: Journal | None,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self._keys, self._arguments, self._journal = keys, arguments, journal
        self._on_progress = on_progress or (lambda n_done, n_total: None)
        self.found = Evaluations(len(arguments))
        self._is_done = np.zeros(len(arguments), dtype=bool)
        self.n_done = 0
        if journal is not None and keys is not None:
            for i, key in enumerate(keys):
                if key in journal:
                    self.found.put(i, Evaluation.from_record(journal[key]))
                    self._is_done[i] = True
            self.n_done = int(self._is_done.sum())
        self.report()

    def report(self) -> None:
        self._on_progress(self.n_done, len(self.found))

    @property
    def pending(self) -> np.ndarray:
        """Places of what has not ended."""
        return np.flatnonzero(~self._is_done)

    def arguments_at(self, places: np.ndarray) -> Sequence[Any]:
        if len(places) == len(self._arguments):
            return self._arguments
        if isinstance(self._arguments, np.ndarray):
            return self._arguments[places]
        return [self._arguments[i] for i in places]

    def start(self, places: np.ndarray) -> None:
        if self._journal is not None and self._keys is not None:
            for i in places:
                self._journal.start(self._keys[i])

    def end(self, i: int, evaluation: Evaluation) -> None:
        if self._journal is not None and self._keys is not None:
            self._journal.end(self._keys[i], evaluation.to_record())
        self.found.put(i, evaluation)
        self._is_done[i] = True
        self.n_done += 1

    def end_numbers(self, places: np.ndarray, values: np.ndarray) -> None:
        if self._journal is not None:
            for i, value in zip(places, values, strict=True):
                self.end(int(i), Evaluation(float(value), "ok"))
        elif len(places):
            self.found.values[places] = values
            self._is_done[places] = True
            self.n_done += len(places)


class _Measure:
    """The black box and the check of what it returns, which is made in the worker."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function
        self.__name__ = getattr(function, "__name__", type(function).__name__)  # for messages about the function

    def __call__(self, argument: Any) -> Evaluation:
        return interpret(self.function(_own(argument)), argument)

    def many(self, arguments: Sequence[Any]) -> Sequence[Outcome]:
        """The outcomes of one call after the other; what is just a number costs next to nothing."""
        values, others, function = np.full(len(arguments), np.nan), {}, self.function
        for i, argument in enumerate(arguments):
            try:
                value = function(_own(argument))
            except BaseException as error:  # noqa: BLE001 - a black box's sys.exit() is a failure like any other
                others[i] = failure(error)
            else:
                if type(value) in _PLAIN and -LARGEST <= value <= LARGEST:
                    values[i] = value
                else:
                    others[i] = attempt(partial(interpret, value), argument)
        return Numbers(values, others)


_PLAIN = (float, np.float64)


def _own(argument: Any) -> Any:
    """An array that the black box may write to: the point stays what it is."""
    return argument.copy() if isinstance(argument, np.ndarray) else argument
