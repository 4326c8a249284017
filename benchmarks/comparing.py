"""Two ways of one thing, which take turns, and the line that tells how much faster one is."""

import math
import time
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.rows import FOLDER

Line = tuple[str, str, str, bool | None]
"""What, against what, the figures, and whether what is required is reached; None where nothing is."""
Work = Callable[[Any], Any]


def least(repeats: int, prepare: Callable[[int], Any] = lambda i: i, **works: Work) -> dict[str, float]:
    """The least seconds of each work, which take turns; all are given what was prepared for the turn."""
    took = dict.fromkeys(works, math.inf)
    for i in range(repeats):
        prepared = prepare(i)
        for name, work in works.items():
            began = time.perf_counter()
            work(prepared)
            took[name] = min(took[name], time.perf_counter() - began)
    return took


def compared(what: str, way: str, required: float | None, plain: float, ours: float, n: int = 1) -> Line:
    """The line of two times of n things each."""
    against = way if required is None else f"{way}: {required:g}x"
    told = f"{plain / ours:.1f}x ({shown(plain / n)} against {shown(ours / n)}{' each' * (n > 1)})"
    return what, against, told, None if required is None else plain >= required * ours


def shown(s: float) -> str:
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if s >= size:
            return f"{s / size:.3g} {unit}"
    return f"{s * 1e9:.3g} ns"


def folder() -> TemporaryDirectory[str]:
    """On the disk that the workspace is on: a temporary one may be memory, where nothing has to be synced."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    return TemporaryDirectory(dir=FOLDER)
