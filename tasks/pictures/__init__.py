"""Pictures of reports: what people would rather look at than read."""

from tasks.pictures.designs import rounds, trials
from tasks.pictures.drawing import PANELS, png, svg
from tasks.pictures.evaluations import against_variables, histogram, history
from tasks.pictures.validation import calibration, gradients, learning_curve, parity, reach, sensitivity

__all__ = [
    "PANELS",
    "against_variables",
    "calibration",
    "gradients",
    "histogram",
    "history",
    "learning_curve",
    "parity",
    "png",
    "reach",
    "rounds",
    "sensitivity",
    "svg",
    "trials",
]
