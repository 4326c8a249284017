"""Held-out predictions as a table: each row beside what was expected of it by a fit that had not seen it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from surrogate_core.dataset import Dataset
from surrogate_core.surrogates.predictive import Predictive
from surrogate_core.validation.metrics import finite, regression_metrics

Part = tuple[np.ndarray, Predictive]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What was expected of each of n rows by fits that had not seen it, its own known noise included.

    Args:
        rows: the ok rows.
        fold: (n,) the part of the rows that each was held out with.
        parts: indices of rows and their predictive distributions; together all rows, each once.
        extrapolation: (n,) how far each row was from those that its fit had seen; None where not told.
        gradient: (n, d) predicted gradients in the problem's units; None where the rows have none to compare with.
    """

    rows: Dataset
    fold: np.ndarray
    parts: tuple[Part, ...]
    extrapolation: np.ndarray | None = None
    gradient: np.ndarray | None = None

    @property
    def y(self) -> np.ndarray:
        return self.rows.y

    @cached_property
    def predicted(self) -> np.ndarray:
        """Means."""
        return self._column(lambda p, y: p.mean)

    @cached_property
    def lower(self) -> np.ndarray:
        """Of the 95 % interval of an observation."""
        return self._column(lambda p, y: p.interval()[0])

    @cached_property
    def upper(self) -> np.ndarray:
        """Of the 95 % interval of an observation."""
        return self._column(lambda p, y: p.interval()[1])

    @cached_property
    def log_density(self) -> np.ndarray:
        """At y."""
        return self._column(lambda p, y: p.log_density(y))

    @cached_property
    def cumulative(self) -> np.ndarray:
        """PIT: the predicted probability of a value of at most y."""
        return self._column(lambda p, y: p.cumulative(y))

    @cached_property
    def crps(self) -> np.ndarray:
        """Continuous ranked probability score."""
        return self._column(lambda p, y: p.crps(y))

    @cached_property
    def standardized_error(self) -> np.ndarray:
        """(z - m) / s of the latent output: standard normal where calibrated; -inf where y was ruled out."""
        return self._column(lambda p, y: p.standardized_error(y))

    @cached_property
    def metrics(self) -> dict[str, float]:
        return regression_metrics(self.y, self.predicted, self.log_density, self.cumulative, self.crps)

    def stretched(self, factor: float | np.ndarray) -> "HeldOut":
        """The same with standard deviations multiplied by a factor, scalar or (n,)."""
        factors = np.broadcast_to(factor, self.y.shape)

        def stretch(rows: np.ndarray, p: Predictive) -> Part:
            return rows, replace(p, output=p.output._replace(calibration=p.output.calibration * factors[rows]))

        return replace(self, parts=tuple(stretch(*part) for part in self.parts))

    def table(self, sign: float = 1.0) -> list[dict[str, Any]]:
        """A row for each held-out prediction, as JSON holds it; sign -1 turns values round that are maximized."""
        lower, upper = np.sort(sign * np.stack([self.lower, self.upper]), axis=0)
        columns = {
            "fold": self.fold,
            "y": sign * self.y,
            "predicted": sign * self.predicted,
            "lower": lower,
            "upper": upper,
            "cumulative": self.cumulative if sign > 0 else 1 - self.cumulative,
            "crps": self.crps,
        }
        if self.extrapolation is not None:
            columns["extrapolation"] = self.extrapolation
        return [dict(zip(columns, row, strict=True)) for row in zip(*(map(_json, columns.values())), strict=True)]

    def _column(self, of: Callable[[Predictive, np.ndarray], np.ndarray]) -> np.ndarray:
        column = np.empty(len(self.y))
        for rows, predictive in self.parts:
            column[rows] = of(predictive, self.y[rows])
        return column


def _json(column: np.ndarray) -> list[Any]:
    return [finite(value) if isinstance(value, float) else value for value in column.tolist()]
