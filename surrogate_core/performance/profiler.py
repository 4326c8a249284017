"""What a piece of work cost: wall and CPU seconds, peak memory, and the seconds JAX spent compiling."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import jax.monitoring
import psutil

SAMPLING_SECONDS = 0.05  # the memory of a process and its workers is looked at so often


@dataclass
class Cost:
    """Filled when the work ends; workers count in CPU and memory as far as they were seen alive."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    compile_s: float = 0.0
    peak_mb: float = 0.0


@contextmanager
def measured() -> Iterator[Cost]:
    """Measures the body; the result is complete once it has been left."""
    cost = Cost()
    process = psutil.Process()
    ended = threading.Event()
    workers: dict[int, float] = {}
    before = {child.pid: child.create_time() for child in process.children(recursive=True)}
    session = os.getsid(0)  # children with a session of their own, or from before, such as servers, are not this work

    def sample() -> None:
        while True:
            memory = process.memory_info().rss
            for child in process.children(recursive=True):
                try:
                    if os.getsid(child.pid) != session or before.get(child.pid) == child.create_time():
                        continue
                    memory += child.memory_info().rss
                    workers[child.pid] = sum(child.cpu_times()[:2])
                except (psutil.Error, OSError):  # it ended while it was looked at
                    continue
            cost.peak_mb = max(cost.peak_mb, memory / 1e6)
            if ended.wait(SAMPLING_SECONDS):
                return

    sampler = threading.Thread(target=sample, name="memory-sampler", daemon=True)
    compiled, wall, cpu = _compiler.seconds(), time.perf_counter(), time.process_time()
    sampler.start()
    try:
        yield cost
    finally:
        ended.set()
        sampler.join()
        cost.wall_s = time.perf_counter() - wall
        cost.cpu_s = time.process_time() - cpu + sum(workers.values())
        cost.compile_s = _compiler.seconds() - compiled


class _CompilerClock:
    """Seconds covered by JAX's own events; one listener for the process, as JAX has no public way to remove one.

    An event is told when it ends, an inner one before the one around it: time that was counted is not counted again.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._intervals: list[tuple[float, float]] = []  # disjoint, in order
        self._listening = False
        self._lock = threading.Lock()

    def seconds(self) -> float:
        with self._lock:
            if not self._listening:
                jax.monitoring.register_event_duration_secs_listener(self._hear)
                self._listening = True
            return self._seconds

    def _hear(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event.startswith("/jax/core/compile/"):  # tracing, lowering and compiling or loading what was compiled
            with self._lock:
                end = time.perf_counter()
                begin = end - duration_secs
                while self._intervals and self._intervals[-1][1] > begin:
                    inner = self._intervals.pop()
                    self._seconds -= inner[1] - inner[0]
                    begin = min(begin, inner[0])
                self._intervals.append((begin, end))
                self._seconds += end - begin


_compiler = _CompilerClock()
