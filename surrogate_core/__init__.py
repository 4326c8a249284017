"""Surrogate-gradient optimization of expensive functions: the library, which knows no scheduler and no tracker."""

from importlib import import_module
from typing import Any

# Loaded when first asked for: workers that evaluate a black box import this package and need no JAX.
_HOMES = {
    "SearchSpace": "space",
    "Float": "space",
    "Integer": "space",
    "Categorical": "space",
    "Dataset": "dataset",
    "DataCollector": "collection",
    "ParallelDataCollector": "collection",
    "collect_data": "collection",
    "GPSurrogate": "surrogates.gaussian_process",
    "NeuralSurrogate": "surrogates.neural_network",
    "RandomForestSurrogate": "surrogates.random_forest",
    "HybridSurrogate": "surrogates.hybrid",
    "AutoSurrogate": "surrogates.auto",
    "select_surrogate": "surrogates.auto",
    "select_memory_conscious_surrogate": "surrogates.auto",
    "load_surrogate": "surrogates.files",
    "SurrogateRegressor": "adapters.regressor",
    "GradientDescentOptimizer": "optimizers.gradient_descent",
    "LBFGSOptimizer": "optimizers.lbfgs",
    "TrustRegionOptimizer": "optimizers.trust_region",
    "MultiStartOptimizer": "optimizers.multi_start",
    "recommend": "offline",
    "SurrogateOptimizer": "facade",
    "quick_optimize": "facade",
    "tune_surrogate_hyperparameters": "facade",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
