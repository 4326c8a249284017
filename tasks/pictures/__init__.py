"""Pictures of reports: what people would rather look at than read."""

from tasks.pictures.designs import rounds, trials
from tasks.pictures.drawing import PANELS, png, svg
from tasks.pictures.evaluations import against_variables, histogram, history
from tasks.pictures.landscape import gradient_field, has_field, has_planes, planes, slices
from tasks.pictures.search import convergence, optima, promises
from tasks.pictures.validation import calibration, gradients, learning_curve, parity, reach, sensitivity

__all__ = [
    "PANELS",
    "against_variables",
    "calibration",
    "convergence",
    "gradient_field",
    "gradients",
    "has_field",
    "has_planes",
    "histogram",
    "history",
    "learning_curve",
    "optima",
    "parity",
    "planes",
    "png",
    "promises",
    "reach",
    "rounds",
    "sensitivity",
    "slices",
    "svg",
    "trials",
]
