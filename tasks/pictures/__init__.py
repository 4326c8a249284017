"""Pictures of reports: what people would rather look at than read."""

from surrogate_core.lazy import lazily

# Matplotlib takes half a second to load, and what was drawn before is not drawn again.
_HOMES = {
    "rounds": "tasks.pictures.designs",
    "trials": "tasks.pictures.designs",
    "PANELS": "tasks.pictures.drawing",
    "png": "tasks.pictures.drawing",
    "svg": "tasks.pictures.drawing",
    "against_variables": "tasks.pictures.evaluations",
    "histogram": "tasks.pictures.evaluations",
    "history": "tasks.pictures.evaluations",
    "gradient_field": "tasks.pictures.landscape",
    "planes": "tasks.pictures.landscape",
    "slices": "tasks.pictures.landscape",
    "convergence": "tasks.pictures.search",
    "optima": "tasks.pictures.search",
    "promises": "tasks.pictures.search",
    "has_scales": "tasks.pictures.study",
    "importance": "tasks.pictures.study",
    "parallel_coordinates": "tasks.pictures.study",
    "study_history": "tasks.pictures.study",
    "study_slices": "tasks.pictures.study",
    "calibration": "tasks.pictures.validation",
    "gradients": "tasks.pictures.validation",
    "learning_curve": "tasks.pictures.validation",
    "parity": "tasks.pictures.validation",
    "reach": "tasks.pictures.validation",
    "sensitivity": "tasks.pictures.validation",
}
__all__ = list(_HOMES)
__getattr__ = lazily(__name__, _HOMES)
