"""What `benchmarks.performance` measures in a process of its own: by how much collecting makes it grow."""

import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from surrogate_core.collection import DataCollector
from surrogate_core.performance.memory import MemoryMonitor

D = 50


def cheap(x: np.ndarray) -> float:
    return float(x[0])


def collecting(how: str, n: int) -> dict[str, float]:
    """By how much the process grows, and seconds."""
    collector = DataCollector(cheap, [(0.0, 1.0)] * D)
    with TemporaryDirectory() as folder:
        collector.collect_streaming(64, 32, Path(folder) / "warm.parquet")
        collector.collect(64)
        began = time.perf_counter()
        with MemoryMonitor() as memory:
            if how == "whole":
                collector.collect(n)
            else:
                collector.collect_streaming(n, 10_000, Path(folder) / "rows.parquet")
    return {"mb": memory.get_memory_increase(), "s": time.perf_counter() - began}


if __name__ == "__main__":
    print(json.dumps(collecting(sys.argv[1], int(sys.argv[2]))))
