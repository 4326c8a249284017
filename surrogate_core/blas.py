"""How many threads linear algebra has, which decides the last bits: never a matter of who else computes just now."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController

SMALL = 512
"""Rows of a matrix below which threads cost more than they do for it."""

_turn = threading.Condition()
_using = {"one": 0, "all": 0}  # the number of threads is the process's: users of one kind wait for those of the other
_limits: list[object] = []
_here = threading.local()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS and LAPACK calls within, here and in all that is called, have one thread each."""
    with _section("one"):
        yield


@contextmanager
def blas_threads(n: int) -> Iterator[None]:
    """BLAS and LAPACK calls within have the threads that suit matrices of n rows."""
    with _section("one" if n < SMALL else "all"):
        yield


def is_settled() -> bool:
    """Whether this thread is within one of these sections."""
    return getattr(_here, "kind", None) is not None


@contextmanager
def _section(kind: str) -> Iterator[None]:
    if is_settled():  # an inner section has what the outer one has
        yield
        return
    other = "all" if kind == "one" else "one"
    with _turn:
        _turn.wait_for(lambda: not _using[other])
        _using[kind] += 1
        if kind == "one" and not _limits:
            _take_control()
            _limits.append(_blas().limit(limits=1))
    _here.kind = kind
    try:
        yield
    finally:
        _here.kind = None
        with _turn:
            _using[kind] -= 1
            if not _using[kind]:
                while _limits:
                    _take_control()
                    _limits.pop().restore_original_limits()  # type: ignore[attr-defined]
                _turn.notify_all()


def _take_control() -> None:
    """threadpoolctl obeys the thread that used it first and ignores all others; here they take turns."""
    for library in _blas().lib_controllers:
        if hasattr(library, "clear_controlling_thread"):
            library.clear_controlling_thread(force=True)


@cache
def _blas() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401 - the controller knows the libraries that are loaded

    return ThreadpoolController().select(user_api="blas")
