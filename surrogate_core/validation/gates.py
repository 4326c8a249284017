"""Gates: bounds that a surrogate's validation must meet before its optimum is believed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Metric:
    """What a number of the validation means.

    Args:
        meaning: in plain words.
        better: which way it gets better; of a number with `ideal`, by which it is best, neither.
        ideal: the value that it ought to have.
    """

    meaning: str
    better: Better | None = None
    ideal: float | None = None


HELD_OUT: dict[str, Metric] = {
    "r2": Metric("share of the values' variance that held-out predictions explain", "higher", 1.0),
    "rmse": Metric("root mean square error of held-out predictions, in the objective's units", "lower", 0.0),
    "mae": Metric("mean absolute error of held-out predictions, in the objective's units", "lower", 0.0),
    "nlpd": Metric("mean negative log predictive density of held-out values", "lower"),
    "crps": Metric("mean continuous ranked probability score, in the objective's units", "lower", 0.0),
    "coverage_50": Metric("share of held-out values within their 50 % interval", ideal=0.5),
    "coverage_90": Metric("share of held-out values within their 90 % interval", ideal=0.9),
    "coverage_95": Metric("share of held-out values within their 95 % interval", ideal=0.95),
    "miscalibration_area": Metric("area between the calibration curve and the diagonal, at worst 0.5", "lower", 0.0),
}
"""Of what `regression_metrics` tells."""

METRICS: dict[str, Metric] = {
    **HELD_OUT,
    **{
        f"loo_{name}": replace(metric, meaning=f"{metric.meaning}; each row by itself, in closed form")
        for name, metric in HELD_OUT.items()
    },
    "recalibration_factor": Metric("by which standard deviations should be multiplied", ideal=1.0),
    "recalibrated_nlpd": Metric("nlpd with standard deviations stretched as other folds teach", "lower"),
    "recalibrated_coverage_95": Metric(
        "coverage_95 with standard deviations stretched as other folds teach", ideal=0.95
    ),
    "recalibrated_miscalibration_area": Metric(
        "miscalibration_area with standard deviations stretched as other folds teach", "lower", 0.0
    ),
    "gradient_cosine": Metric("mean cosine of the angle between predicted and true gradient", "higher", 1.0),
    "gradient_sign_agreement": Metric("share of the gradient components that matter with the true sign", "higher", 1.0),
    "gradient_relative_error": Metric(
        "length of the gradient's error over that of the true gradient; 1 is as good as no gradient", "lower", 0.0
    ),
    "gradient_truth_error": Metric(
        "the same of the true gradient's own noise, which no surrogate can undercut", "lower", 0.0
    ),
    "rmse_if_doubled": Metric("rmse expected with twice the rows", "lower", 0.0),
    "rmse_ratio_if_doubled": Metric(
        "rmse with twice the rows over rmse now; near 1, more data do not help", "higher", 1.0
    ),
    "extrapolation_share": Metric("share of the search space that lies beyond the data", "lower", 0.0),
    "first_order_share": Metric(
        "share of the prediction's variance that single variables explain alone", "higher", 1.0
    ),
}
"""All that a gate can be on, as `min_NAME` or `max_NAME`."""


@dataclass(frozen=True)
class Gate:
    """One verdict: a metric against the bound it was held to; a metric that was not measured (None) does not pass."""

    name: str
    value: float | None
    bound: float
    passed: bool

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name}: not measured"
        sign = "<" if self.name.startswith("min_") else ">"
        return f"{self.name}: {self.value:.3g}" + ("" if self.passed else f" {sign} {self.bound:g}")


def parse_bound(name: str) -> tuple[Literal["min", "max"], str]:
    """The side and the metric of a bound's name.

    Raises:
        KeyError: it is not `min_METRIC` or `max_METRIC` of a metric in METRICS.
    """
    side, _, metric = name.partition("_")
    if (side != "min" and side != "max") or metric not in METRICS:
        raise KeyError(name)
    return "min" if side == "min" else "max", metric


def judge(metrics: Mapping[str, float], bounds: Mapping[str, float | None]) -> list[Gate]:
    """A verdict on each bound that is set.

    Args:
        metrics: of a validation, by name; one that is missing or NaN was not measured.
        bounds: `min_METRIC` or `max_METRIC` to its bound; None is no gate.

    Raises:
        KeyError: a bound names no metric.
    """
    gates = []
    for name, bound in bounds.items():
        if bound is None:
            continue
        side, metric = parse_bound(name)
        value = metrics.get(metric)
        if value is None or value != value:
            gates.append(Gate(name, None, bound, passed=False))
        else:
            gates.append(Gate(name, value, bound, passed=value >= bound if side == "min" else value <= bound))
    return gates
