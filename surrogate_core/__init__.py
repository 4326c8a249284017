"""Surrogate-gradient optimization of expensive functions: the library, which knows no scheduler and no tracker."""

from surrogate_core.lazy import lazily

# Loaded when first asked for: workers that evaluate a black box import this package and need no JAX.
_HOMES = {
    "SearchSpace": "surrogate_core.space",
    "Float": "surrogate_core.space",
    "Integer": "surrogate_core.space",
    "Categorical": "surrogate_core.space",
    "Dataset": "surrogate_core.dataset",
    "DataCollector": "surrogate_core.collection",
    "ParallelDataCollector": "surrogate_core.collection",
    "collect_data": "surrogate_core.collection",
    "GPSurrogate": "surrogate_core.surrogates.gaussian_process",
    "NeuralSurrogate": "surrogate_core.surrogates.neural_network",
    "RandomForestSurrogate": "surrogate_core.surrogates.random_forest",
    "HybridSurrogate": "surrogate_core.surrogates.hybrid",
    "AutoSurrogate": "surrogate_core.surrogates.auto",
    "select_surrogate": "surrogate_core.surrogates.memory_budget",
    "select_memory_conscious_surrogate": "surrogate_core.surrogates.memory_budget",
    "load_surrogate": "surrogate_core.surrogates.files",
    "SurrogateRegressor": "surrogate_core.adapters.regressor",
    "GradientDescentOptimizer": "surrogate_core.optimizers.gradient_descent",
    "LBFGSOptimizer": "surrogate_core.optimizers.lbfgs",
    "TrustRegionOptimizer": "surrogate_core.optimizers.trust_region",
    "MultiStartOptimizer": "surrogate_core.optimizers.multi_start",
    "recommend": "surrogate_core.offline",
    "SurrogateOptimizer": "surrogate_core.facade",
    "quick_optimize": "surrogate_core.facade",
    "tune_surrogate_hyperparameters": "surrogate_core.facade",
}
__all__ = list(_HOMES)
__getattr__ = lazily(__name__, _HOMES)
