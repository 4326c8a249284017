"""Measure what work costs, remember predictions, predict and evaluate many points at once, within a memory budget."""

from importlib import import_module
from typing import Any

_HOMES = {
    "performance_monitor": "profiler",
    "PerformanceProfiler": "profiler",
    "ProfiledOptimizer": "optimizer",
    "MemoryMonitor": "memory",
    "SurrogateCache": "cache",
    "enable_caching": "wrappers",
    "VectorizedSurrogate": "wrappers",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
