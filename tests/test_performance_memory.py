"""The memory of a process is watched: what is allocated and freed between two samples too."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from surrogate_core.performance import MemoryMonitor

BLOCK = 25_000_000  # numbers: 200 MB


def test_an_allocation_of_known_size_is_told_within_a_tenth() -> None:
    with MemoryMonitor() as monitor:
        block = np.ones(BLOCK)
        assert 180 < monitor.get_memory_increase() < 220
        del block
    assert 180 < monitor.get_memory_increase() < 220
    told = monitor.get_summary()
    assert told["peak_mb"] == monitor.get_peak_memory()
    assert told["increase_mb"] == told["peak_mb"] - told["start_mb"]
    assert told["end_mb"] < told["start_mb"] + 60


@pytest.mark.skipif(sys.platform == "darwin", reason="there the mark of the system cannot be set back")
def test_a_peak_between_samples_and_after_a_higher_one_is_seen() -> None:
    np.ones(2 * BLOCK)
    with MemoryMonitor(interval=None) as monitor:
        np.ones(BLOCK)
    assert monitor.samples == []
    assert 180 < monitor.get_memory_increase() < 220


def test_monitors_within_each_other_tell_each_their_own() -> None:
    with MemoryMonitor() as outer:
        np.ones(BLOCK)
        with MemoryMonitor() as inner:
            np.ones(BLOCK // 4)
        with MemoryMonitor() as idle:
            pass
    assert 180 < outer.get_memory_increase() < 220
    assert 40 < inner.get_memory_increase() < 65
    assert idle.get_memory_increase() < 10


def test_a_monitor_watches_anew_each_time() -> None:
    monitor = MemoryMonitor()
    with monitor:
        np.ones(BLOCK)
    with monitor:
        pass
    assert monitor.get_memory_increase() < 20


def test_it_may_be_asked_from_another_thread_while_it_watches() -> None:
    with MemoryMonitor() as monitor:
        told: list[float] = []
        thread = threading.Thread(target=lambda: told.append(monitor.get_peak_memory()))
        thread.start()
        thread.join()
    assert told[0] > 0


def test_children_count_on_request() -> None:
    takes = [sys.executable, "-c", "import time; block = bytearray(b'x') * 200_000_000; time.sleep(1.0)"]
    with MemoryMonitor() as without, MemoryMonitor(include_children=True) as watched:
        subprocess.run(takes, check=True)
        time.sleep(0.1)
    assert 180 < watched.get_memory_increase() < 240
    assert without.get_memory_increase() < 50


def test_the_interval_is_checked() -> None:
    with pytest.raises(ValueError, match=r"^interval: expected a number of seconds > 0, got 0$"):
        MemoryMonitor(interval=0)
