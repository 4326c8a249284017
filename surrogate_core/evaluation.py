"""A black box over points: failures, retries and timeouts become values, and a journal remembers them.

A call is known by its key. What the journal has ended is not called again, so a killed batch goes on where it stopped.
"""

from __future__ import annotations

import math
import reprlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Self

from surrogate_core.execution import ExecutorSpec, Pool, open_pool
from surrogate_core.journal import Journal
from surrogate_core.measurement import Evaluation, interpret
from surrogate_core.output_log import OutputLog
from surrogate_core.worker import Outcome

_PROCESSES = ExecutorSpec()


class Evaluator:
    """Evaluates a black box at points, in workers that stay warm from one batch to the next; used in a `with`.

    Args:
        function: the black box, called with one argument.
        executor: where it is called; no process or thread is started before the first call.
        timeout: seconds after which a call is stopped and has failed; processes only.
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

    def evaluate(
        self,
        keys: Sequence[str],
        arguments: Sequence[Any],
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[Evaluation]:
        """Evaluate every argument, those that the journal knows without a call.

        Args:
            keys: names each call in the journal, one an argument.
            arguments: what the black box is called with.
            on_progress: called with (done, total): once at the start, then at each evaluation's end.

        Returns:
            The evaluations, in the order of `arguments`.

        Raises:
            ValueError: a key is there twice, or keys and arguments differ in number.
        """
        if len(keys) != len(arguments):
            raise ValueError(f"keys: expected one for each of {len(arguments)} arguments, got {len(keys)}")
        if repeated := [key for key, n in Counter(keys).items() if n > 1]:
            raise ValueError(f"keys: expected no key twice, got {reprlib.repr(repeated)} repeatedly")
        done: dict[str, Evaluation] = {}
        journal = self._journal
        if journal is not None:
            done.update({key: Evaluation.from_record(journal[key]) for key in keys if key in journal})
        self.n_served += len(done)

        def finish(key: str, evaluation: Evaluation) -> None:
            if journal is not None:
                journal.end(key, evaluation.to_record())
            done[key] = evaluation
            report(len(done), len(keys))

        report = on_progress or (lambda n_done, n_total: None)
        report(len(done), len(keys))
        for n_tries in range(1, self._retries + 2):
            calls = {key: argument for key, argument in zip(keys, arguments, strict=True) if key not in done}
            if calls:
                self._try(calls, n_tries, finish)
        return [done[key] for key in keys]

    def close(self) -> None:
        """Stop the workers."""
        self._stack.close()
        self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _try(self, calls: dict[str, Any], n_tries: int, finish: Callable[[str, Evaluation], None]) -> None:
        """Make every call once more; one that succeeds, or has no try left, is finished."""
        keys = list(calls)

        def on_start(i: int) -> None:
            self.n_calls += 1
            if self._journal is not None and n_tries == 1:
                self._journal.start(keys[i])

        def on_end(i: int, outcome: Outcome) -> None:
            if outcome.status == "ok":
                finish(keys[i], outcome.value)
            elif n_tries > self._retries:
                tries = f" (after {n_tries} tries)" if n_tries > 1 else ""
                finish(keys[i], Evaluation(math.nan, "failed", outcome.reason + tries))

        if self._pool is None:
            self._pool = self._stack.enter_context(
                open_pool(self._measure, self._executor, self._timeout, self._output)
            )
        self._pool.run(list(calls.values()), on_start, on_end)


class _Measure:
    """The black box and the check of what it returns, which is made in the worker."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function
        self.__name__ = getattr(function, "__name__", type(function).__name__)  # for messages about the function

    def __call__(self, argument: Any) -> Evaluation:
        return interpret(self.function(argument), argument)
