"""One thin Prefect task a stage, and what library users take from Prefect: `fit_surrogate`."""

from surrogate_core.lazy import lazily

_HOMES = {"fit_surrogate": "tasks.fitting"}
__all__ = list(_HOMES)
__getattr__ = lazily(__name__, _HOMES)
