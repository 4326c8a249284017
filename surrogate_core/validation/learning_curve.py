"""What more data would bring: the error against the number of rows, and the law by which it falls.

Notation: n: rows that a fit has seen; rmse(n) = a n^-b, the power law of learning curves.

Source: Viering & Loog (2023), IEEE TPAMI 45(6), 7799, on power laws.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import jax
import numpy as np

from surrogate_core.dataset import Dataset
from surrogate_core.parallel import in_threads
from surrogate_core.performance.profiler import timed
from surrogate_core.surrogates.base import FittedSurrogate, Surrogate
from surrogate_core.validation.metrics import finite, rms

FRACTIONS = (0.25, 0.5, 1.0)  # of the rows that are not held out
HELD_OUT = 0.2
LEAST = 8  # rows below which there is no curve
EXACT = 1e-12  # an error below so much of the values' size is rounding


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Errors of fits to nested subsets of the rows, on rows that none of them has seen.

    Args:
        n_rows: of the whole dataset.
        n: (k,) rows of each subset.
        rmse: (r, k) of each repeat and subset.
        least: an error that counts as none.
    """

    n_rows: int
    n: np.ndarray
    rmse: np.ndarray
    least: float

    @property
    def law(self) -> tuple[float, float, float]:
        """a and b by least squares of log rmse, and the standard error of b over the repeats (NaN of a single one)."""
        x = np.log(self.n) - np.log(self.n).mean()
        y = np.log(np.maximum(self.rmse, self.least))
        b = -(y @ x) / (x @ x)
        log_a = y.mean() + b.mean() * np.log(self.n).mean()
        error = b.std(ddof=1) / np.sqrt(len(b)) if len(b) > 1 else np.nan
        return float(np.exp(log_a)), float(b.mean()), float(error)

    def expected(self, n: Any) -> np.ndarray:
        """The law's rmse at so many rows."""
        a, b, _ = self.law
        return a * np.asarray(n, dtype=float) ** -b

    @property
    def metrics(self) -> dict[str, float]:
        """rmse_ratio_if_doubled is near 1 where more data do not help, and above where they seem to harm."""
        ratio = 2.0 ** -self.law[1]
        return {
            "rmse_if_doubled": finite(float(self.expected(2 * self.n_rows))),
            "rmse_ratio_if_doubled": finite(ratio),
        }

    def table(self) -> list[dict[str, Any]]:
        """A row for each repeat and subset."""
        places = product(range(len(self.rmse)), range(len(self.n)))
        return [{"repeat": r, "n": int(self.n[k]), "rmse": finite(self.rmse[r, k])} for r, k in places]


@timed("learning_curve")
def learning_curve(
    spec: Surrogate, dataset: Dataset, seed: int, repeats: int = 3, n_workers: int | None = None
) -> LearningCurve:
    """Fits nested subsets of the rows, each fit going on from the one before it, the repeats in threads.

    Args:
        spec: the surrogate.
        dataset: at least LEAST ok rows.
        seed: of the subsets and the fits.
        repeats: how often the rows are shuffled, for an error of the law.
        n_workers: threads, which change no bit; by default one for each usable CPU.

    Raises:
        ValueError: fewer ok rows, or the spec cannot fit the data.
    """
    rows = dataset.ok
    if rows.n_samples < LEAST:
        raise ValueError(f"learning_curve: expected at least {LEAST} ok rows, got {rows.n_samples}")
    n_held = max(2, round(HELD_OUT * rows.n_samples))
    n = np.unique([max(2, round(fraction * (rows.n_samples - n_held))) for fraction in FRACTIONS])

    def errors(repeat: int) -> list[float]:
        order = np.random.default_rng([seed, repeat]).permutation(rows.n_samples)
        held, others = order[:n_held], order[n_held:]
        key = jax.random.fold_in(jax.random.key(seed), repeat)
        fitted: FittedSurrogate | None = None
        found = []
        for size in n:
            fitted = spec.fit(rows.take(others[:size]), key, fitted)
            found.append(rms(rows.y[held] - fitted.predict(rows.X[held])))
        return found

    rmse = np.array(in_threads(errors, range(repeats), n_workers, rows.n_samples))
    return LearningCurve(rows.n_samples, n, rmse, max(EXACT * np.abs(rows.y).max(), np.finfo(float).tiny))
