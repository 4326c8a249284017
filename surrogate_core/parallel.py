"""Calls in threads, for fits: most of their time is spent in compiled code, which holds no lock."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from surrogate_core.blas import is_settled, one_blas_thread
from surrogate_core.execution import ExecutorSpec, map_calls, usable_cpus

FEW_ROWS = 300
"""Of a fit, below which its calls are so short that threads wait for each other longer than they work."""

T = TypeVar("T")
A = TypeVar("A")


def in_threads(
    function: Callable[[A], T], arguments: Iterable[A], n_workers: int | None = None, n_rows: int = FEW_ROWS
) -> list[T]:
    """The function's values, in the order of the arguments; the same bits however many threads there are.

    Args:
        function: called with each argument.
        arguments: of the calls.
        n_workers: threads; by default one for each usable CPU. Within another such call there is one.
        n_rows: that each call fits; below FEW_ROWS there is one thread.

    Raises:
        ValueError: n_workers is below 1.
        Exception: what the first call that failed, in the order of the arguments, has raised.
    """
    arguments = list(arguments)
    n = usable_cpus() if n_workers is None else n_workers
    if n < 1:
        raise ValueError(f"n_workers: expected an integer >= 1, got {n!r}")

    def call(argument: A) -> T:
        with one_blas_thread():  # in each thread, too: what it calls asks what its own thread is in
            return function(argument)

    if n == 1 or len(arguments) < 2 or n_rows < FEW_ROWS or is_settled():
        return [call(argument) for argument in arguments]
    with one_blas_thread():
        return map_calls(call, arguments, ExecutorSpec("threads", min(n, len(arguments))))
