"""What the last bits of linear algebra, and compiled code, depend on: instruction set and thread count."""

import os
import platform
from functools import cache
from pathlib import Path

from surrogate_core.execution import usable_cpus

SETTINGS = ("XLA_FLAGS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Environment variables that results may differ with."""


@cache
def machine() -> dict[str, str]:
    """A description that differs where results may."""
    features = platform.processor()
    cpu = Path("/proc/cpuinfo")
    if cpu.is_file():
        lines = cpu.read_text(encoding="utf-8", errors="replace").splitlines()
        features = next((line for line in lines if line.lower().startswith(("flags", "features"))), features)
    threads = usable_cpus()
    settings = {name: os.environ.get(name, "") for name in SETTINGS}
    return {"architecture": platform.machine(), "features": features, "threads": str(threads), **settings}
