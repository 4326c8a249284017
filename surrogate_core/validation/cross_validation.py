"""K-fold cross-validation of any surrogate: every row is predicted by a fit that has not seen it."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from surrogate_core.dataset import Dataset
from surrogate_core.surrogates.base import Surrogate
from surrogate_core.validation.metrics import regression_metrics


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """Held-out predictions of the ok rows, all (n,), and their metrics."""

    y: np.ndarray
    fold: np.ndarray
    predicted: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    log_density: np.ndarray

    @property
    def metrics(self) -> dict[str, float]:
        return regression_metrics(self.y, self.predicted, self.lower, self.upper, self.log_density)

    def table(self, sign: float = 1.0) -> list[dict[str, Any]]:
        """A row for each held-out prediction; sign -1 turns values round that are maximized."""
        lower, upper = np.sort(sign * np.stack([self.lower, self.upper]), axis=0)
        names = ("fold", "y", "predicted", "lower", "upper")
        columns = (self.fold, sign * self.y, sign * self.predicted, lower, upper)
        return [dict(zip(names, row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)]


def cross_validate(spec: Surrogate, dataset: Dataset, folds: int, seed: int) -> CrossValidation:
    """Fits the spec once a fold.

    Args:
        spec: the surrogate.
        dataset: at least `folds` ok rows.
        folds: how many parts the rows are shuffled into.
        seed: of the shuffle and of the fits; the same dataset, folds and seed give the same parts for every spec.

    Raises:
        ValueError: fewer ok rows than folds, or the spec cannot fit the data.
    """
    from sklearn.model_selection import KFold  # takes a second to import

    rows = dataset.ok
    if not 2 <= folds <= rows.n_samples:
        raise ValueError(f"folds: expected an integer from 2 to the {rows.n_samples} ok rows, got {folds}")
    fold = np.empty(rows.n_samples, dtype=int)
    predicted, lower, upper, log_density = np.empty((4, rows.n_samples))
    for i, (train, held) in enumerate(KFold(folds, shuffle=True, random_state=seed).split(rows.X)):
        fitted = spec.fit(rows.take(train), jax.random.fold_in(jax.random.key(seed), i))
        fold[held] = i
        predicted[held] = fitted.predict(rows.X[held])
        lower[held], upper[held] = fitted.interval(rows.X[held])
        log_density[held] = fitted.log_density(rows.X[held], rows.y[held])
    return CrossValidation(rows.y, fold, predicted, lower, upper, log_density)
