"""Metrics of predictive distributions against held-out observations, in the problem's units, all finite.

Notation: y, predicted: (n,) observed values and predicted means; PIT: (n,) the predicted probability of a value of at
most y (the probability integral transform), uniform over many rows where the distributions are right.

Sources: Gneiting & Raftery (2007), JASA 102, 359 (log score, CRPS); Kuleshov et al. (2018), ICML, arXiv:1807.00263
(calibration curve); Tran et al. (2020), Mach. Learn.: Sci. Technol. 1, 025006 (miscalibration area).
"""

import numpy as np

LEVELS = (0.5, 0.9, 0.95)  # of the central intervals whose coverage is told


def regression_metrics(
    y: np.ndarray, predicted: np.ndarray, log_density: np.ndarray, cumulative: np.ndarray, crps: np.ndarray
) -> dict[str, float]:
    """Accuracy and calibration over n held-out rows; what JSON cannot hold is the greatest float instead.

    Args:
        y: (n,) observed values.
        predicted: (n,) predicted means.
        log_density: (n,) log predictive density at y.
        cumulative: (n,) PIT.
        crps: (n,) continuous ranked probability scores.

    Returns:
        r2 (1 - residual over total sum of squares; 0 for a constant y that is not met), rmse, mae, nlpd (mean negative
        log predictive density), crps (mean), coverage_50, coverage_90, coverage_95 (share of y in the central interval
        of that level), miscalibration_area.
    """
    residual, deviation = y - predicted, y - y.mean()
    told = {
        "r2": _r2(residual, deviation),
        "rmse": rms(residual),
        "mae": np.mean(np.abs(residual)),
        "nlpd": -np.mean(log_density),
        "crps": np.mean(crps),
        **{f"coverage_{100 * level:.0f}": np.mean(np.abs(cumulative - 0.5) <= level / 2) for level in LEVELS},
        "miscalibration_area": miscalibration_area(cumulative),
    }
    return {name: finite(value) for name, value in told.items()}


def miscalibration_area(cumulative: np.ndarray) -> float:
    """The area between the calibration curve and the diagonal: 0 where every quantile is right, at worst 1/2.

    It is the integral of |F(p) - p| over levels p, with F(p) the share of PIT <= p, exact from the sorted PIT. By
    chance alone n rows of a calibrated surrogate have about 0.31 / sqrt(n), the mean area of a Brownian bridge.
    """
    c = np.sort(cumulative)
    edges = np.concatenate([[0.0], c, [1.0]])
    share = np.arange(len(c) + 1) / len(c)
    return float(np.sum(_signed_square(edges[1:] - share) - _signed_square(edges[:-1] - share)))


def calibration_curve(cumulative: np.ndarray, n_levels: int = 101) -> tuple[np.ndarray, np.ndarray]:
    """Levels p from 0 to 1, and the share of observations up to their predicted p-quantile: both (n_levels,)."""
    levels = np.linspace(0.0, 1.0, n_levels)
    return levels, np.searchsorted(np.sort(cumulative), levels, side="right") / len(cumulative)


def rms(values: np.ndarray) -> float:
    """Root mean square, of values that may be too large or too small to be squared."""
    size = np.max(np.abs(values))
    return float(size * np.sqrt(np.mean((values / size) ** 2))) if 0 < size < np.inf else float(size)


def finite(value: float) -> float:
    """The nearest float that JSON can hold."""
    greatest = np.finfo(float).max
    return float(np.clip(value, -greatest, greatest))


def _r2(residual: np.ndarray, deviation: np.ndarray) -> float:
    unexplained, total = rms(residual), rms(deviation)
    if total == 0:
        return float(unexplained == 0)
    with np.errstate(over="ignore"):
        return 1 - np.square(unexplained / total)


def _signed_square(x: np.ndarray) -> np.ndarray:
    """An integral of |x|."""
    return x * np.abs(x) / 2
