"""`surrogate profile` and `surrogate bench`: what a command's time goes to, and how fast and good all of it is."""

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from surrogate_core.performance.profiler import Level, PerformanceProfiler, performance_monitor
from tasks.errors import BadInput

ENDINGS = (".html", ".speedscope.json", ".json")


def profile(work: Callable[[], None], arguments: Sequence[str], level: Level) -> tuple[int, PerformanceProfiler]:
    """Does the work of a command, watched; returns its exit status with the profile."""
    profiler, status = PerformanceProfiler(), 0
    name = shlex.join(("surrogate", *arguments))
    try:
        with performance_monitor(name, level, profiler=profiler, include_children=True):
            work()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    return status, profiler


def save(profiler: PerformanceProfiler, command: str, target: Path | None) -> Path:
    """Writes the page of a profile, and beside it what viewers and programs read.

    Raises:
        BadInput: the files cannot be written.
    """
    page = (target or Path("runs", "profiles", f"surrogate-{command}.html")).absolute()
    try:
        for ending in ENDINGS:
            profiler.save(page.with_suffix(ending))
    except OSError as error:
        raise BadInput(f"-o: expected a file that can be written, got {page} ({error.strerror})") from error
    return page


def bench(arguments: Sequence[str]) -> NoReturn:
    """Becomes the process that runs the benchmarks beside this package.

    Raises:
        BadInput: there are none.
    """
    root = Path(__file__).parents[1]
    if not (root / "benchmarks" / "__main__.py").exists():
        raise BadInput(f"{root}: expected benchmarks/, got none; they come with a clone of the repository")
    os.chdir(root)
    os.execv(sys.executable, [sys.executable, "-m", "benchmarks", *arguments])
