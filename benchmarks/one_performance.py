"""What `benchmarks.performance` measures in a process of its own: peak memory of collecting, and a run."""

import json
import subprocess
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


def run(folder: str, settings: list[str]) -> dict[str, object]:
    """What `surrogate run --json` tells."""
    command = [sys.executable, "-m", "flows", "run", "--json", *(f"-S{one}" for one in settings)]
    ended = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True)
    told: dict[str, object] = json.loads(ended.stdout)
    return told


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    print(json.dumps(run(rest[0], rest[1:]) if what == "run" else collecting(what, int(rest[0]))))
