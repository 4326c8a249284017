"""Where the time of a piece of work went, and its memory: nested operations, each with what the compiler took of it.

    with performance_monitor("search") as profiler:
        with performance_monitor("fit"):
            fitted = spec.fit(dataset)
        found = optimizer.optimize(fitted)
    profiler.get_performance_summary()["timing_summary"]["fit"]["total_time"]

A monitor within another is its child: what it tells, the outer one tells too. Within a monitor the library names its
own operations, such as `evaluate`, `fit` and `search`; without one, naming them costs next to nothing.
"""

from __future__ import annotations

import cProfile
import pstats
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, get_args

import numpy as np

from surrogate_core.performance.compilation import compiler
from surrogate_core.performance.memory import MemoryMonitor

P = ParamSpec("P")
R = TypeVar("R")
Level = Literal["basic", "detailed", "full"]
VALUES, GRADIENTS = "function_evaluations", "gradient_evaluations"  # of a surrogate, by a search
MOST_SPANS = 20_000  # that are kept for pictures; of more operations their times alone
TOP = 40  # functions that cProfile's table tells, by their own time and by that of all they call
SAMPLED = 0.4  # seconds between samples of memory; where all CPUs compute, each can take the work some milliseconds


@dataclass
class Span:
    """One operation: when it began, by `time.perf_counter`, and what it took.

    Args:
        name: of the operation.
        thread: in which it ran.
        began, wall_s, cpu_s, compile_s: seconds; cpu_s is of the whole process, all its threads.
        children: within it.
    """

    name: str
    thread: str
    began: float
    wall_s: float = 0.0
    cpu_s: float = 0.0
    compile_s: float = 0.0
    children: list[Span] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "children": [child.to_dict() for child in self.children]}


@dataclass
class _Times:
    """Of all calls of one operation."""

    wall: array[float] = field(default_factory=lambda: array("d"))  # of each call; of many timed together, their mean
    n_calls: int = 0
    total_s: float = 0.0
    cpu_s: float = 0.0
    compile_s: float = 0.0

    def summary(self) -> dict[str, Any]:
        wall = np.sort(np.array(self.wall if self.wall else [0.0]))
        p50, p90 = np.interp([0.5 * (len(wall) - 1), 0.9 * (len(wall) - 1)], np.arange(len(wall)), wall)  # percentile's
        return {
            "call_count": self.n_calls,
            "total_time": self.total_s,
            "mean_time": self.total_s / max(self.n_calls, 1),
            "min_time": float(wall[0]),
            "max_time": float(wall[-1]),
            "p50": float(p50),
            "p90": float(p90),
            "cpu_time": self.cpu_s,
            "compile_time": self.compile_s,
            "run_time": max(self.total_s - self.compile_s, 0.0),
        }


@dataclass(frozen=True)
class Cost:
    """Of a piece of work: wall and CPU seconds, those of the compiler, and the peak of memory in MB.

    Processes that it has started count in CPU and memory as far as they were seen alive, where it was asked for.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    compile_s: float = 0.0
    peak_mb: float = 0.0


class PerformanceProfiler:
    """Notes operations and memory; made to be subclassed.

    Args:
        enable_memory_profiling: whether memory is watched while a monitor of this profiler is open.

    Attributes:
        counters: what was counted, by name, such as `cache_hits` and `cache_misses` of cached surrogates.
        functions: with level `full`, the functions that took longest, alone or with what they call, as cProfile tells.

    Example:
        >>> profiler = PerformanceProfiler()
        >>> with profiler.operation("wait"):
        ...     time.sleep(0.01)
        >>> profiler.get_performance_summary()["timing_summary"]["wait"]["call_count"]
        1
    """

    def __init__(self, enable_memory_profiling: bool = True):
        self.enable_memory_profiling = enable_memory_profiling
        self.counters: Counter[str] = Counter()
        self.functions: list[dict[str, Any]] = []
        self.spans: list[Span] = []
        self.memory: MemoryMonitor | None = None
        self._times: dict[str, _Times] = {}
        self._n_spans = 0
        self._n_monitors = 0
        self._parent: PerformanceProfiler | None = None
        self._lock = threading.Lock()

    @contextmanager
    def operation(self, name: str) -> Iterator[None]:
        """Times what is done inside, until what it has set off in JAX is done too."""
        around = _open.get()
        span = Span(name, threading.current_thread().name, time.perf_counter())
        if self._n_spans < MOST_SPANS:
            self._n_spans += 1
            if around is not None:
                around.span.children.append(span)
            if around is None or around.profiler is not self:
                self.spans.append(span)
        token = _open.set(_Open(self, span, around))
        cpu, compiled = time.process_time(), compiler.seconds()
        try:
            yield
        finally:
            _settle()
            span.wall_s = time.perf_counter() - span.began
            span.cpu_s = time.process_time() - cpu
            span.compile_s = min(compiler.seconds() - compiled, span.wall_s)
            _open.reset(token)
            for profiler in self._line():
                if around is None or not around.is_within(name, profiler):  # it is part of that one's time
                    profiler._note(name, span.wall_s, 1, span.cpu_s, span.compile_s)

    def record(self, name: str, seconds: float, calls: int = 1) -> None:
        """Notes calls of an operation that were timed elsewhere, all together."""
        for profiler in self._line():
            profiler._note(name, seconds, calls)

    def count(self, name: str, n: int = 1) -> None:
        """Counts something."""
        for profiler in self._line():
            with profiler._lock:
                profiler.counters[name] += n

    def get_performance_summary(self) -> dict[str, Any]:
        """What has been measured so far.

        Returns:
            `timing_summary`: of each operation `call_count`, and in seconds `total_time`, `mean_time`, `min_time`,
            `max_time`, `p50`, `p90`, `cpu_time`, `compile_time` and `run_time`, which is the rest. `memory_summary`:
            `start_mb`, `end_mb`, `peak_mb`, `increase_mb`, and `device` of the same where there is a GPU; nothing
            unless memory is watched. `counters`.
        """
        with self._lock:
            times = {name: told.summary() for name, told in self._times.items()}
            counters = dict(self.counters)
        memory = self.memory.get_summary() if self.memory is not None else {}
        return {"timing_summary": times, "memory_summary": memory, "counters": counters}

    @property
    def cost(self) -> Cost:
        """Of what was monitored first."""
        span = self.spans[0]
        if self.memory is None:
            return Cost(span.wall_s, span.cpu_s, span.compile_s)
        cpu_s = span.cpu_s + self.memory.children_cpu_s
        return Cost(span.wall_s, cpu_s, span.compile_s, self.memory.get_peak_memory())

    def to_dict(self) -> dict[str, Any]:
        """The summary, the tree of operations, samples of memory, and functions where these were watched."""
        return {
            **self.get_performance_summary(),
            "spans": [span.to_dict() for span in self.spans],
            "memory_samples": self.memory.samples if self.memory is not None else [],
            "functions": self.functions,
        }

    def save(self, path: str | Path) -> None:
        """Writes the profile: `.speedscope.json` and `.trace.json` (Chrome) for viewers, `.json` for programs, `.html`
        to read, or a picture such as `.svg` and `.png`.

        Raises:
            ValueError: nothing is written under such a name.
        """
        from surrogate_core.performance.export import save_profile  # it draws

        save_profile(self, Path(path))

    @contextmanager
    def monitor(
        self,
        name: str,
        profile_level: Level = "basic",
        *,
        include_children: bool = False,
        jax_trace: str | Path | None = None,
    ) -> Iterator[None]:
        """Has this profiler note what is done inside; see `performance_monitor`."""
        if profile_level not in get_args(Level):
            known = ", ".join(map(repr, get_args(Level)))
            raise ValueError(f"profile_level: expected one of {known}, got {profile_level!r}")
        around = _open.get()
        with ExitStack() as stack:
            if self._n_monitors == 0:
                self._parent = around.profiler if around is not None and around.profiler is not self else None
                if self.enable_memory_profiling:
                    self.memory = MemoryMonitor(include_children, None if profile_level == "basic" else SAMPLED)
                    stack.enter_context(self.memory)
            self._n_monitors += 1
            stack.callback(self._leave)
            if jax_trace is not None:
                import jax

                stack.enter_context(jax.profiler.trace(str(jax_trace)))
            if profile_level == "full":
                stack.enter_context(self._watch_functions())
            stack.enter_context(self.operation(name))
            yield

    def _leave(self) -> None:
        self._n_monitors -= 1

    @contextmanager
    def _watch_functions(self) -> Iterator[None]:
        if not _watched.acquire(blocking=False):  # by a monitor around this one, which sees all that this one would
            yield
            return
        watch = cProfile.Profile()
        try:
            watch.enable()
            yield
        finally:
            watch.disable()
            _watched.release()
            self.functions = _table(watch)

    def _line(self) -> Iterator[PerformanceProfiler]:
        """This profiler, that of the monitor around it, and so on."""
        profiler: PerformanceProfiler | None = self
        while profiler is not None:
            yield profiler
            profiler = profiler._parent

    def _note(self, name: str, seconds: float, calls: int, cpu_s: float = 0.0, compile_s: float = 0.0) -> None:
        with self._lock:
            times = self._times.setdefault(name, _Times())
            times.n_calls += calls
            times.total_s += seconds
            times.cpu_s += cpu_s
            times.compile_s += compile_s
            if calls:
                times.wall.append(seconds / calls)


@dataclass(frozen=True)
class _Open:
    """The operation within which this thread works, and whose it is."""

    profiler: PerformanceProfiler
    span: Span
    around: _Open | None

    def is_within(self, name: str, profiler: PerformanceProfiler) -> bool:
        """Whether this is, or is within, an operation of that name of which the profiler is told."""
        if self.span.name == name and profiler in self.profiler._line():
            return True
        return self.around is not None and self.around.is_within(name, profiler)


_open: ContextVar[_Open | None] = ContextVar("operation", default=None)
_watched = threading.Lock()  # there can be one cProfile at a time


@contextmanager
def performance_monitor(
    name: str,
    profile_level: Level = "basic",
    *,
    profiler: PerformanceProfiler | None = None,
    include_children: bool = False,
    jax_trace: str | Path | None = None,
) -> Iterator[PerformanceProfiler]:
    """Measures what is done inside, as the operation `name`; a monitor within another is its child.

    Args:
        name: of the operation as a whole.
        profile_level: `basic` notes times and the peak of memory; `detailed` samples memory besides, in a thread;
            `full` has cProfile watch every function of this thread besides, which slows Python down.
        profiler: what notes it; by default a new `PerformanceProfiler`.
        include_children: count the memory of processes that are started meanwhile.
        jax_trace: a folder for a trace by JAX's own profiler, which TensorBoard and Perfetto show.

    Raises:
        ValueError: there is no such level.
    """
    profiler = PerformanceProfiler() if profiler is None else profiler
    with profiler.monitor(name, profile_level, include_children=include_children, jax_trace=jax_trace):
        yield profiler


def operation(name: str) -> AbstractContextManager[None]:
    """An operation of the monitor within which this is; without one nothing is noted."""
    around = _open.get()
    return _NOTHING if around is None else around.profiler.operation(name)


def timed(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes every call of a function an `operation`."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def inside(*args: P.args, **kwargs: P.kwargs) -> R:
            with operation(name):
                return function(*args, **kwargs)

        return inside

    return decorate


def record(name: str, seconds: float, calls: int = 1) -> None:
    """Tells the monitor within which this is, if there is one, of calls that were timed elsewhere."""
    if (around := _open.get()) is not None:
        around.profiler.record(name, seconds, calls)


def count(name: str, n: int = 1) -> None:
    """Counts something for the monitor within which this is, if there is one."""
    if (around := _open.get()) is not None:
        around.profiler.count(name, n)


@dataclass
class Tally:
    """How many calls there were."""

    n: int = 0


@contextmanager
def tallied(*names: str) -> Iterator[Tally]:
    """Tells the monitor within which this is of so many calls as the body counts, and its time less the compiler's."""
    tally = Tally()
    if _open.get() is None:
        yield tally
        return
    began, compiled = time.perf_counter(), compiler.seconds()
    yield tally
    seconds = time.perf_counter() - began - (compiler.seconds() - compiled)
    for name in names:
        record(name, max(seconds, 0.0), tally.n)


_NOTHING: AbstractContextManager[None] = nullcontext()


def _settle() -> None:
    """Waits for all that JAX computes."""
    import jax

    for value in jax.live_arrays():
        with suppress(RuntimeError):  # it was deleted meanwhile
            value.block_until_ready()


def _table(watch: cProfile.Profile) -> list[dict[str, Any]]:
    """The functions that took longest, themselves or with what they called, by the latter."""
    stats: dict[Any, Any] = pstats.Stats(watch).stats  # type: ignore[attr-defined]
    rows = [
        {"function": name, "file": file, "line": line, "calls": calls, "own_s": own, "total_s": total}
        for (file, line, name), (_, calls, own, total, _) in stats.items()
    ]
    longest = {key: sorted(row[key] for row in rows)[-TOP:][0] for key in ("own_s", "total_s") if rows}
    chosen = [row for row in rows if any(row[key] >= least for key, least in longest.items())]
    return sorted(chosen, key=lambda row: -row["total_s"])
