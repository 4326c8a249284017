"""Champion and challenger: which spec a search comes to, and whether it takes the champion's place.

Source of the one-standard-error rule: Breiman, Friedman, Olshen & Stone (1984), Classification and Regression Trees,
section 3.4.3; here the error is that of the difference to the best, which is less, as all are judged by the same folds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from surrogate_core.tuning.trials import Trial
from surrogate_core.validation.held_out import HeldOut


def one_standard_error(trials: Sequence[Trial], cost: Callable[[Trial], float]) -> Trial:
    """The cheapest trial that is not worse than the best by more than the standard error of their difference.

    Args:
        trials: of which values are minimized, with their folds as steps; those that failed or were pruned are left out.
        cost: of a trial; of equally cheap ones the better counts.

    Raises:
        ValueError: none has ended well.
    """
    ok = [trial for trial in trials if trial.status == "ok"]
    if not ok:
        raise ValueError(f"expected at least one trial to succeed, got {trials[0].reason if trials else 'no trials'}")
    best = min(ok, key=lambda trial: trial.value)
    near = [trial for trial in ok if trial.value - best.value <= _error_of_difference(trial, best)]
    return min(near, key=lambda trial: (cost(trial), trial.value, trial.number))


def _error_of_difference(trial: Trial, best: Trial) -> float:
    """0 of a single step."""
    if len(trial.steps) < 2:
        return 0.0
    return standard_error(np.array(trial.steps) - np.array(best.steps))


def standard_error(differences: np.ndarray) -> float:
    """Of the mean of differences, (n,) with n > 1."""
    with np.errstate(over="ignore", invalid="ignore"):
        error = float(differences.std(ddof=1) / np.sqrt(len(differences)))
    return error if np.isfinite(error) else 0.0  # values that no float can square are told apart as they are


@dataclass(frozen=True)
class Duel:
    """A challenger against the champion, row by row: each predicted by fits to the same other rows.

    Args:
        advantage: the challenger's mean log density less the champion's, in nats a row.
        standard_error: of that.
    """

    advantage: float
    standard_error: float

    @classmethod
    def of(cls, champion: HeldOut, challenger: HeldOut) -> Duel:
        """Of the same rows, held out in the same folds."""
        differences = challenger.log_density - champion.log_density
        return cls(float(differences.mean()), standard_error(differences))

    @property
    def is_won(self) -> bool:
        """Whether the challenger is better by more than the standard error."""
        return self.advantage > self.standard_error
