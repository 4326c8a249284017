"""What JAX tells of its compiler: how long it worked, and what it loaded instead of compiling it again."""

from __future__ import annotations

import threading
import time

HIT = "/jax/compilation_cache/cache_hits"
COMPILED = "/jax/core/compile/backend_compile_duration"


class CompilerClock:
    """Seconds covered by JAX's own events, in this process; one for all, as JAX has no public way to take one away.

    An event is told when it ends, an inner one before the one around it: time that was counted is not counted again.

    Attributes:
        n_compiled: programs that were compiled, or loaded from the persistent cache.
        n_loaded: those of them that were loaded.
    """

    def __init__(self) -> None:
        self.n_compiled = 0
        self.n_loaded = 0
        self._seconds = 0.0
        self._intervals: list[tuple[float, float]] = []  # disjoint, in order
        self._listening = False
        self._lock = threading.Lock()

    def seconds(self) -> float:
        """Spent so far on tracing, lowering, and compiling or loading what was compiled; listens from now on."""
        if not self._listening:
            with self._lock:
                if not self._listening:
                    import jax.monitoring  # here: who evaluates a black box needs no JAX

                    jax.monitoring.register_event_duration_secs_listener(self._hear)
                    jax.monitoring.register_event_listener(self._count)
                    self._listening = True
        return self._seconds

    def _count(self, event: str, **_: str | int) -> None:
        if event == HIT:
            with self._lock:
                self.n_loaded += 1

    def _hear(self, event: str, duration_secs: float, **_: str | int) -> None:
        if not event.startswith("/jax/core/compile/"):
            return
        with self._lock:
            self.n_compiled += event == COMPILED
            end = time.perf_counter()
            begin = end - duration_secs
            while self._intervals and self._intervals[-1][1] > begin:
                inner = self._intervals.pop()
                self._seconds -= inner[1] - inner[0]
                begin = min(begin, inner[0])
            self._intervals.append((begin, end))
            self._seconds += end - begin


compiler = CompilerClock()
