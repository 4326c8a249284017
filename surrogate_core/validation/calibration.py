"""Recalibration: one factor on all standard deviations, learned from held-out rows, and what it is worth.

Notation: q: (n,) standardized errors (z - m) / s of the Gaussian latent output; c: the factor. The log density of a row
is -q^2 / (2 c^2) - log c, up to what c leaves alone; over all rows it is greatest at c^2 = mean q^2.

Source: Laves et al. (2020), MIDL, PMLR 121, 393, whose sigma scaling this is.
"""

from dataclasses import dataclass

import numpy as np

from surrogate_core.validation.held_out import HeldOut

BOUNDS = (0.01, 100.0)  # of c: a few rows that are met exactly by chance must not make a surrogate certain


@dataclass(frozen=True, eq=False)
class Recalibration:
    """The factor that all rows teach, and what it is worth.

    Args:
        factor: for `fitted.recalibrated`.
        rows: as they were.
        stretched: the rows, each stretched by the factor that the other folds have taught, as new rows will be.
    """

    factor: float
    rows: HeldOut
    stretched: HeldOut

    @property
    def before(self) -> dict[str, float]:
        """Metrics of the rows as they were."""
        return self.rows.metrics

    @property
    def after(self) -> dict[str, float]:
        """Metrics of the rows stretched."""
        return self.stretched.metrics

    @property
    def helps(self) -> bool:
        """Whether the held-out rows have become likelier."""
        return self.after["nlpd"] < self.before["nlpd"]

    @property
    def metrics(self) -> dict[str, float]:
        kept = ("nlpd", "coverage_95", "miscalibration_area")
        return {"recalibration_factor": self.factor, **{f"recalibrated_{name}": self.after[name] for name in kept}}


def recalibration(held_out: HeldOut) -> Recalibration:
    """What stretching the standard deviations would do, for `fitted.recalibrated(factor)` where it helps.

    A row whose value the transform rules out, an infinite error, can be mended by no factor and teaches none.
    """
    q, fold = held_out.standardized_error, held_out.fold
    known = np.isfinite(q)
    squares = np.bincount(fold, np.where(known, q, 0.0) ** 2)
    counts = np.bincount(fold, known)
    others = _factor(squares.sum() - squares, counts.sum() - counts)
    return Recalibration(float(_factor(squares.sum(), counts.sum())), held_out, held_out.stretched(others[fold]))


def _factor(squares: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """c of sums of squares and how many there are; 1 where there are none."""
    mean = np.where(counts > 0, squares / np.maximum(counts, 1), 1.0)
    return np.clip(np.sqrt(np.maximum(mean, 0.0)), *BOUNDS)
