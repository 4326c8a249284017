"""How much memory this process takes, and, if asked, those that it has started: at first, at its peak, in the end.

Between two samples the peak is the operating system's own high-water mark, so that no allocation is missed however
soon it is freed. All numbers are of resident memory in MB of 10^6 bytes.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from weakref import WeakSet

import psutil

MB = 1e6
STARTING = 0.02  # seconds for which a new process may still show the memory of the one that it was made of
INTERVAL = 0.05  # seconds between samples
SHARE = 0.05  # of the time, at most, is spent on sampling
MOST_SAMPLES = 2000  # that are kept: of a longer work every second one, and so on


class MemoryMonitor:
    """Watches the memory of this process from `start` to `stop`, or for the length of a `with`.

    Args:
        include_children: count the processes that are started meanwhile, and theirs, while they are seen; not those
            with a session of their own, such as servers.
        interval: seconds between samples; None for none, where the high-water mark tells the peak all the same.

    Raises:
        ValueError: the interval is not above 0.

    Example:
        >>> with MemoryMonitor() as monitor:
        ...     block = bytearray(50_000_000)
        >>> monitor.get_memory_increase() > 40
        True
    """

    def __init__(self, include_children: bool = False, interval: float | None = INTERVAL):
        if interval is not None and not interval > 0:
            raise ValueError(f"interval: expected a number of seconds > 0, got {interval!r}")
        self.include_children = include_children
        self.interval = interval
        self.samples: list[tuple[float, float]] = []  # seconds since the start, MB
        self.children_cpu_s = 0.0
        self._start = self._end = self._peak = 0.0
        self._device: dict[str, float] = {}
        self._process = psutil.Process()
        self._family: _Children | None = None
        self._ended = threading.Event()
        self._sampler: threading.Thread | None = None

    def start(self) -> Self:
        """Begins to watch; what was watched before is forgotten."""
        self.samples, self._device = [], _device_memory()
        self._family = _Children() if self.include_children else None
        self._start = self._end = self._peak = self._resident()
        self._began = time.perf_counter()
        _mark.watch(self)
        if self.interval is not None:
            self._ended.clear()
            self._sampler = threading.Thread(target=self._sample, name="memory-sampler", daemon=True)
            self._sampler.start()
        return self

    def stop(self) -> None:
        """Ends; what has been seen stays to be asked for."""
        if self._sampler is not None:
            self._ended.set()
            self._sampler.join()
            self._sampler = None
        _mark.leave(self)
        self._end = self._resident()
        self.saw(self._end)
        if self._family is not None:
            self.children_cpu_s = self._family.cpu_s
        now = _device_memory()
        before = self._device
        self._device = {}
        if now:
            rose = now["peak_mb"] > before.get("peak_mb", 0.0)  # it is of the whole process, and cannot be set back
            self._device = {
                "start_mb": before.get("in_use_mb", 0.0),
                "end_mb": now["in_use_mb"],
                "peak_mb": now["peak_mb"] if rose else max(before.get("in_use_mb", 0.0), now["in_use_mb"]),
            }

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def saw(self, mb: float) -> None:
        """So much was taken at some moment."""
        self._peak = max(self._peak, mb)

    def get_peak_memory(self) -> float:
        """The most that was taken at a time, MB."""
        _mark.read(self)
        return self._peak

    def get_memory_increase(self) -> float:
        """By how much the peak is above what was taken at the start, MB."""
        return self.get_peak_memory() - self._start

    def get_summary(self) -> dict[str, Any]:
        """`start_mb`, `end_mb`, `peak_mb`, `increase_mb` = peak - start, and `device` of the same on a GPU."""
        told: dict[str, Any] = {
            "start_mb": self._start,
            "end_mb": self._end,
            "peak_mb": self.get_peak_memory(),
            "increase_mb": self.get_memory_increase(),
        }
        return {**told, "device": self._device} if self._device else told

    def _resident(self) -> float:
        return float(self._process.memory_info().rss / MB) + (self._family.look() if self._family is not None else 0.0)

    def _sample(self) -> None:
        assert self.interval is not None
        interval = self.interval
        while True:
            began = time.perf_counter()
            mb = self._resident()
            self.saw(mb)
            self.samples.append((began - self._began, mb))
            if len(self.samples) > MOST_SAMPLES:
                self.samples, interval = self.samples[::2], 2 * interval
            if self._ended.wait(max(interval, (time.perf_counter() - began) / SHARE)):
                return


class _Children:
    """The processes that were started since, and what they take."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._session = os.getsid(0)
        self._before = {child.pid: child.create_time() for child in self._process.children(recursive=True)}
        self._cpu: dict[int, float] = {}
        self._first_seen: dict[tuple[int, float], float] = {}  # its birth is known to a second alone

    @property
    def cpu_s(self) -> float:
        """Seconds of computing, as far as they were seen alive."""
        return sum(self._cpu.values())

    def look(self) -> float:
        """MB that they take now."""
        mb, now = 0.0, time.perf_counter()
        for child in self._process.children(recursive=True):
            with suppress(psutil.Error, OSError):  # it ended while it was looked at
                born = child.create_time()
                first = self._first_seen.setdefault((child.pid, born), now)
                is_ours = os.getsid(child.pid) == self._session and self._before.get(child.pid) != born
                if is_ours and now - first > STARTING:
                    mb += child.memory_info().rss / MB
                    self._cpu[child.pid] = sum(child.cpu_times()[:2])
        return mb


class _HighWaterMark:
    """The operating system's note of the most that this process has taken, shared by all that watch.

    On Linux it is set back whenever somebody begins to watch, after the others were told what it said. Elsewhere it
    can only rise: then it tells a peak where it has risen.
    """

    def __init__(self) -> None:
        self._watching: WeakSet[MemoryMonitor] = WeakSet()
        self._lock = threading.Lock()
        self._last = 0.0
        self._can_set_back = False

    def watch(self, monitor: MemoryMonitor) -> None:
        with self._lock:
            self._read()
            self._set_back()
            self._watching.add(monitor)

    def leave(self, monitor: MemoryMonitor) -> None:
        with self._lock:
            self._read()
            self._watching.discard(monitor)

    def read(self, monitor: MemoryMonitor) -> None:
        with self._lock:
            if monitor in self._watching:
                self._read()

    def _read(self) -> None:
        mark = _high_water_mb()
        if mark > self._last or self._can_set_back:
            for monitor in self._watching:
                monitor.saw(mark)
            self._last = mark

    def _set_back(self) -> None:
        self._can_set_back = False
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # proc_pid_clear_refs(5): resets the peak resident set size
            self._can_set_back = True
        self._last = _high_water_mb()


def _high_water_mb() -> float:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / MB
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / MB if sys.platform == "darwin" else most * 1024 / MB


def _device_memory() -> dict[str, float]:
    """What JAX's devices say of their own memory, all together; nothing where there are none but the CPU."""
    import jax

    told = [stats for device in jax.local_devices() if (stats := device.memory_stats())]
    if not told:
        return {}
    return {
        "in_use_mb": sum(one.get("bytes_in_use", 0) for one in told) / MB,
        "peak_mb": sum(one.get("peak_bytes_in_use", 0) for one in told) / MB,
    }


_mark = _HighWaterMark()
