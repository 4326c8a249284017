"""How well the surrogate's gradient, which optimizers follow, agrees with the true one.

Notation: g, p: (n, d) true and predicted gradients by unit-cube coordinates, so that a variable's unit decides nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from surrogate_core.surrogates.base import FittedSurrogate
from surrogate_core.validation.held_out import HeldOut
from surrogate_core.validation.metrics import finite

SHARE = 0.1  # of the gradient's length: a component below it hardly turns the direction
SURE = 2.0  # standard errors that a component is from 0 if its sign is known


@dataclass(frozen=True, eq=False)
class GradientAgreement:
    """Agreement at each of n points, NaN where no true component is known or all are 0, and over all of them.

    Args:
        predicted, true: p and g, NaN in a component that is not known of both.
        cosine: (n,) of the angle between p and g; 0 where p is 0.
        signs: (n,) share of the components that matter in which p has the sign of g; NaN where there is none.
        relative_error: (n,) |p - g| / |g|.
        pooled_error: the same of all points together, sqrt(sum |p - g|^2 / sum |g|^2): a point where the truth is
            all but flat does not drown the others. 0 is exact; 1 is what a prediction of no gradient has.
        truth_error: the same of the standard errors of g.
    """

    predicted: np.ndarray
    true: np.ndarray
    cosine: np.ndarray
    signs: np.ndarray
    relative_error: np.ndarray
    pooled_error: float
    truth_error: float

    @property
    def n_compared(self) -> int:
        return int(np.isfinite(self.cosine).sum())

    @property
    def metrics(self) -> dict[str, float]:
        """None where nothing could be compared, and no share of signs where none is known."""
        if self.n_compared == 0:
            return {}
        told = {"gradient_cosine": np.nanmean(self.cosine)}
        if np.isfinite(self.signs).any():
            told["gradient_sign_agreement"] = np.nanmean(self.signs)
        told |= {"gradient_relative_error": self.pooled_error, "gradient_truth_error": self.truth_error}
        return {name: finite(value) for name, value in told.items()}

    def table(self, names: Sequence[str], sign: float = 1.0) -> list[dict[str, Any]]:
        """A row for each known component; sign -1 turns gradients round of values that are maximized."""
        return [
            {
                "point": int(i),
                "name": names[j],
                "true": float(sign * self.true[i, j]),
                "predicted": float(sign * self.predicted[i, j]),
            }
            for i, j in np.argwhere(np.isfinite(self.true))
        ]


def gradient_agreement(
    predicted: np.ndarray, true: np.ndarray, slope: np.ndarray, error: np.ndarray | None = None
) -> GradientAgreement:
    """Compares gradients in the problem's units; a component that is NaN, or of a categorical variable, is left out.

    Args:
        predicted, true: (n, d).
        slope: (n, d) `space.slope` of the points.
        error: (n, d) standard errors of the true components, in their units; without it, none.

    Raises:
        ValueError: the shapes differ.
    """
    predicted, true, slope = (np.asarray(part, dtype=float) for part in (predicted, true, slope))
    error = np.zeros_like(true) if error is None else np.asarray(error, dtype=float)
    if not predicted.shape == true.shape == slope.shape == error.shape or predicted.ndim != 2:
        shapes = ", ".join(str(part.shape) for part in (predicted, true, slope, error))
        raise ValueError(f"gradients: expected predicted, true, slope and error of one shape (n, d), got {shapes}")
    known = np.isfinite(predicted) & np.isfinite(true) & (slope > 0)
    by_u = np.where(known, 1 / np.where(known, slope, 1.0), 0.0)
    p, g, e = (by_u * np.where(known, part, 0.0) for part in (predicted, true, error))
    length, off = np.linalg.norm(g, axis=1), np.linalg.norm(p - g, axis=1)
    some = length > 0
    matters = (np.abs(g) > SHARE * length[:, None]) & (np.abs(g) > SURE * e)
    lengths = length * np.linalg.norm(p, axis=1)
    cosine = np.sum(p * g, axis=1) / np.where(lengths > 0, lengths, 1.0)
    total = float(np.linalg.norm(length)) or np.nan
    return GradientAgreement(
        predicted=np.where(known, p, np.nan),
        true=np.where(known, g, np.nan),
        cosine=np.where(some, cosine, np.nan),
        signs=_ratio(np.sum(matters & (np.sign(p) == np.sign(g)), axis=1), matters.sum(axis=1)),
        relative_error=_ratio(off, length),
        pooled_error=float(np.linalg.norm(off)) / total,
        truth_error=float(np.linalg.norm(e)) / total,
    )


def agreement_at(
    fitted: FittedSurrogate, X: np.ndarray, true: np.ndarray, error: np.ndarray | None = None
) -> GradientAgreement:
    """Of a fitted surrogate with true gradients at points, all (n, d) in the problem's units."""
    return gradient_agreement(fitted.gradient(X), true, fitted.space.slope(X), error)


def held_out_agreement(held_out: HeldOut) -> GradientAgreement | None:
    """Of fits that had seen neither a row nor its gradient with that gradient; None where rows have none."""
    rows = held_out.rows
    if held_out.gradient is None or rows.gradients is None:
        return None
    return gradient_agreement(held_out.gradient, rows.gradients, rows.space.slope(rows.X))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """NaN where the whole is nothing."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)
