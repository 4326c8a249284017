"""Measure what work costs, remember predictions, predict and evaluate many points at once, within a memory budget."""

from importlib import import_module
from typing import Any

_HOMES = {
    "performance_monitor": "performance.profiler",
    "PerformanceProfiler": "performance.profiler",
    "ProfiledOptimizer": "performance.optimizer",
    "MemoryMonitor": "performance.memory",
    "SurrogateCache": "performance.cache",
    "enable_caching": "performance.wrappers",
    "VectorizedSurrogate": "performance.wrappers",
    "DataCollector": "collection",
    "ParallelDataCollector": "collection",
    "select_surrogate": "surrogates.auto",
    "select_memory_conscious_surrogate": "surrogates.auto",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"surrogate_core.{_HOMES[name]}"), name)
