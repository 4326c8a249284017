"""What JAX tells of its compiler: how long it worked."""

from __future__ import annotations

import threading
import time


class CompilerClock:
    """Seconds covered by JAX's own events, in this process; one for all, as JAX has no public way to take one away.

    An event is told when it ends, an inner one before the one around it: time that was counted is not counted again.
    """

    def __init__(self) -> None:
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
                    self._listening = True
        return self._seconds

    def _hear(self, event: str, duration_secs: float, **_: str | int) -> None:
        if not event.startswith("/jax/core/compile/"):
            return
        with self._lock:
            end = time.perf_counter()
            begin = end - duration_secs
            while self._intervals and self._intervals[-1][1] > begin:
                inner = self._intervals.pop()
                self._seconds -= inner[1] - inner[0]
                begin = min(begin, inner[0])
            self._intervals.append((begin, end))
            self._seconds += end - begin


compiler = CompilerClock()
