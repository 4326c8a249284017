"""Metrics of predictions against held-out observations, in the problem's units."""

import numpy as np


def regression_metrics(
    y: np.ndarray, predicted: np.ndarray, lower: np.ndarray, upper: np.ndarray, log_density: np.ndarray
) -> dict[str, float]:
    """Accuracy and calibration over n held-out rows.

    Args:
        y: (n,) observed values.
        predicted: (n,) predicted means.
        lower, upper: (n,) ends of the 95 % interval of an observation.
        log_density: (n,) log predictive density at y.

    Returns:
        r2 (1 - residual over total sum of squares; 0 for a constant y that is not met), rmse, mae, nlpd (mean negative
        log predictive density) and coverage_95 (share of y within the interval).
    """
    residual = y - predicted
    total = np.sum((y - y.mean()) ** 2)
    unexplained = np.sum(residual**2)
    with np.errstate(over="ignore"):
        r2 = 1 - unexplained / total if total > 0 else float(unexplained == 0)
    return {
        "r2": float(max(r2, np.finfo(float).min)),  # JSON knows no infinity
        "rmse": float(np.sqrt(np.mean(residual**2))),
        "mae": float(np.mean(np.abs(residual))),
        "nlpd": float(-np.mean(log_density)),
        "coverage_95": float(np.mean((lower <= y) & (y <= upper))),
    }
