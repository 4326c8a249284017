"""Champion and challenger: which spec a search comes to, and whether it takes the champion's place.

Of many specs the best on some folds is in part the luckiest there. So the challenger is the simplest of those that the
folds cannot tell from the best, and other folds decide whether it is better than the champion: in the mean, and on
most rows, for log densities have long tails, and one row can weigh as much as all others.

Sources: of the one-standard-error rule Breiman, Friedman, Olshen & Stone (1984), Classification and Regression Trees,
section 3.4.3; here the error is that of the difference to the best, which is less, as all are judged by the same folds.
Of the signed-rank test Wilcoxon (1945), Biometrics Bulletin 1, 80.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from surrogate_core.dataset import Dataset
from surrogate_core.surrogates.base import Surrogate
from surrogate_core.tuning.trials import Trial
from surrogate_core.validation.cross_validation import cross_validate

REPEATS = 3  # shuffles into folds, none of which a spec was chosen by
LEVEL = 0.001  # of the test by which a challenger must be better; strict, for rows that share fits are not independent


def one_standard_error(trials: Sequence[Trial], complexity: Callable[[Trial], Any]) -> Trial:
    """The simplest trial that is not worse than the best by more than the standard error of their difference.

    Args:
        trials: of which values are minimized, with their folds as steps; those that failed or were pruned are left out.
        complexity: of a trial, anything that can be sorted; of equally simple ones the better counts.

    Raises:
        ValueError: none has ended well.
    """
    ok = [trial for trial in trials if trial.status == "ok"]
    if not ok:
        raise ValueError(f"expected at least one trial to succeed, got {trials[0].reason if trials else 'no trials'}")
    best = min(ok, key=lambda trial: trial.value)
    near = [trial for trial in ok if trial.value - best.value <= _error_of_difference(trial, best)]
    return min(near, key=lambda trial: (complexity(trial), trial.value, trial.number))


def complexity(spec: Surrogate, champion: Surrogate, rows: Dataset) -> tuple[float, int]:
    """Seconds of a fit, as a model has them, not a clock; and how many fields are not the champion's.

    The champion comes last: it is its own challenger only where nothing else is as good.
    """
    if spec == champion:
        return math.inf, 0
    estimate = spec.estimate(rows.n_samples, rows.n_dims, rows.gradients is not None)
    changed = [field.name for field in fields(spec) if getattr(spec, field.name) != getattr(champion, field.name, None)]
    return estimate.seconds, len(changed)


@dataclass(frozen=True)
class Duel:
    """A challenger against the champion, row by row: each predicted by fits to the same other rows.

    Args:
        advantage: the challenger's mean log density less the champion's, in nats a row.
        standard_error: of that.
        p_value: of the signed-rank test, with the hypothesis that neither is better.
    """

    advantage: float
    standard_error: float
    p_value: float

    @property
    def is_won(self) -> bool:
        """Whether the challenger is better, and not by chance."""
        return self.advantage > 0 and self.p_value < LEVEL


def duel(
    champion: Surrogate, challenger: Surrogate, dataset: Dataset, folds: int, seed: int, n_workers: int | None = None
) -> Duel:
    """Both cross-validated on the same folds, of REPEATS shuffles other than that of the seed.

    Fewer than ten rows prove nothing at LEVEL: nobody wins.

    Args:
        champion, challenger: where they are one, it is nobody's win.
        dataset, folds, seed, n_workers: as of `cross_validate`.

    Raises:
        ValueError: one of them cannot fit the data.
    """
    from scipy.stats import wilcoxon  # takes a moment to import

    if champion == challenger:
        return Duel(0.0, 0.0, 1.0)

    def log_density(spec: Surrogate) -> np.ndarray:
        told = [cross_validate(spec, dataset, folds, seed + 1 + i, n_workers).log_density for i in range(REPEATS)]
        return np.asarray(np.mean(told, axis=0))

    with np.errstate(invalid="ignore"):
        differences = log_density(challenger) - log_density(champion)
    differences[np.isnan(differences)] = 0.0  # of a row that both rule out neither knows more
    p_value = float(wilcoxon(differences, alternative="greater").pvalue) if differences.any() else 1.0
    return Duel(float(differences.mean()), _standard_error(differences), p_value)


def _error_of_difference(trial: Trial, best: Trial) -> float:
    """0 of a single step."""
    return _standard_error(np.array(trial.steps) - np.array(best.steps)) if len(trial.steps) > 1 else 0.0


def _standard_error(differences: np.ndarray) -> float:
    """Of the mean of differences, (n,) with n > 1."""
    with np.errstate(over="ignore", invalid="ignore"):
        error = float(differences.std(ddof=1) / np.sqrt(len(differences)))
    return error if np.isfinite(error) else np.inf
