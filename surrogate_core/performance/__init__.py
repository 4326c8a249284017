"""Measure what work costs, remember predictions, predict and evaluate many points at once, within a memory budget."""

from surrogate_core.lazy import lazily

_HOMES = {
    "performance_monitor": "surrogate_core.performance.profiler",
    "PerformanceProfiler": "surrogate_core.performance.profiler",
    "ProfiledOptimizer": "surrogate_core.performance.optimizer",
    "MemoryMonitor": "surrogate_core.performance.memory",
    "SurrogateCache": "surrogate_core.performance.cache",
    "enable_caching": "surrogate_core.performance.wrappers",
    "VectorizedSurrogate": "surrogate_core.performance.wrappers",
    "DataCollector": "surrogate_core.collection",
    "ParallelDataCollector": "surrogate_core.collection",
    "select_surrogate": "surrogate_core.surrogates.memory_budget",
    "select_memory_conscious_surrogate": "surrogate_core.surrogates.memory_budget",
}
__all__ = list(_HOMES)
__getattr__ = lazily(__name__, _HOMES)
