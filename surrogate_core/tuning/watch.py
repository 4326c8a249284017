"""A watch on a study: how it is getting on, and what seems wrong with it."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from surrogate_core.tuning.trials import Trial

FEWEST = 10  # proposals before anything is said of their ratios
TOO_MANY = 0.5
_DUPLICATES = (
    "{ratio:.0%} of {n} proposals had been tried: the space is small, its steps are coarse, or the sampler is stuck. "
    "Widen ranges, loosen steps, ask for fewer trials, or give tpe more n_startup_trials and multivariate: true"
)
_DEGENERATE = (
    "{ratio:.0%} of {n} trials taught nothing ({failed} failed, {constant} had the commonest value{reason}). Look at "
    "the objective, narrow ranges to where it works, widen them where it is flat, or take more n_startup_trials"
)


@dataclass(frozen=True)
class Progress:
    """How a study is getting on.

    Attributes:
        n_told: trials that have ended.
        n_trials: that there will be.
        best: the best value so far; NaN where every trial failed.
        duplicate_ratio: share of the proposals that had been tried.
        degenerate_ratio: share of the trials that failed or repeated the commonest value.
        seconds: since the study began, or went on.
    """

    n_told: int
    n_trials: int
    best: float
    duplicate_ratio: float
    degenerate_ratio: float
    seconds: float


class Watch:
    """Counts what a study is told.

    Args:
        sign: 1 where the least value is best, -1 where the greatest is.
        n_trials: that there will be.
        on_warning: called with each warning, once.

    Attributes:
        warnings: all of them.
        n_duplicates: proposals that had been tried.
        n_without_better: trials since the best one.
        n_failed: trials that failed.
    """

    def __init__(self, sign: float, n_trials: int, on_warning: Callable[[str], None] | None = None) -> None:
        self._sign, self._n_trials, self._on_warning = sign, n_trials, on_warning
        self._began = time.monotonic()
        self._n_told = self.n_failed = self._n_constant = 0
        self._values: Counter[float] = Counter()
        self._best = math.inf
        self._reason = ""
        self._warned: set[str] = set()
        self.warnings: list[str] = []
        self.n_duplicates = 0
        self.n_without_better = 0

    @property
    def duplicate_ratio(self) -> float:
        return self.n_duplicates / max(1, self.n_duplicates + self._n_told)

    @property
    def degenerate_ratio(self) -> float:
        return (self.n_failed + self._n_constant) / max(1, self._n_told)

    def told(self, trial: Trial) -> Progress:
        """Counts a trial that has ended, and says how the study is getting on."""
        self._n_told += 1
        self.n_without_better += 1
        if trial.status == "failed":
            self.n_failed += 1
            self._reason = self._reason or trial.reason
        else:
            self._values[trial.value] += 1
            self._n_constant = max(self._n_constant, self._values[trial.value] - 1)
        if trial.status == "ok" and self._sign * trial.value < self._best:
            self._best, self.n_without_better = self._sign * trial.value, 0
        self._judge()
        best = math.nan if self._best == math.inf else self._sign * self._best
        ratios = self.duplicate_ratio, self.degenerate_ratio
        return Progress(self._n_told, self._n_trials, best, *ratios, time.monotonic() - self._began)

    def warn(self, line: str, kind: str = "") -> None:
        """Says something once."""
        if (kind or line) not in self._warned:
            self._warned.add(kind or line)
            self.warnings.append(line)
            if self._on_warning is not None:
                self._on_warning(line)

    def _judge(self) -> None:
        n = self._n_told + self.n_duplicates
        if n >= FEWEST and self.duplicate_ratio > TOO_MANY:
            self.warn(_DUPLICATES.format(ratio=self.duplicate_ratio, n=n), "duplicates")
        if self._n_told >= FEWEST and self.degenerate_ratio > TOO_MANY:
            reason = f"; the first for: {self._reason}" if self._reason else ""
            told = {"failed": self.n_failed, "constant": self._n_constant, "reason": reason}
            self.warn(_DEGENERATE.format(ratio=self.degenerate_ratio, n=self._n_told, **told), "degenerate")
