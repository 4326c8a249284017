"""Searches of thousands of trials, none tried twice and none lost: of surrogate specs, and of any objective."""

from surrogate_core.lazy import lazily

# Loaded when first asked for: keys and guards need no Optuna.
_HOMES = {
    "search": "surrogate_core.tuning.study",
    "StudySpec": "surrogate_core.tuning.study",
    "StudyResult": "surrogate_core.tuning.study",
    "Sampler": "surrogate_core.tuning.samplers",
    "Pruner": "surrogate_core.tuning.samplers",
    "Storage": "surrogate_core.tuning.storage",
    "TuningSpace": "surrogate_core.tuning.space",
    "expand_parameters": "surrogate_core.tuning.space",
    "estimate_search_space": "surrogate_core.tuning.space",
    "round_to_step": "surrogate_core.tuning.parameters",
    "deep_merge": "surrogate_core.tuning.merge",
    "trial_key": "surrogate_core.tuning.identity",
    "param_signature": "surrogate_core.tuning.identity",
    "DuplicateGuard": "surrogate_core.tuning.guard",
    "Trial": "surrogate_core.tuning.trials",
    "load_trials": "surrogate_core.tuning.trials",
    "importances": "surrogate_core.tuning.importance",
    "trial_executor": "surrogate_core.tuning.workers",
    "one_standard_error": "surrogate_core.tuning.champion",
    "duel": "surrogate_core.tuning.champion",
}
__all__ = list(_HOMES)
__getattr__ = lazily(__name__, _HOMES)
