"""A surrogate and its settings chosen by cross-validation, within a budget that a cost model keeps, not a clock."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NoReturn

import jax
import numpy as np
from jax import Array

from surrogate_core.dataset import Dataset
from surrogate_core.surrogates.base import Estimate, FittedSurrogate, Surrogate
from surrogate_core.surrogates.gaussian_process import GPSurrogate
from surrogate_core.surrogates.hybrid import GROWN, HybridSurrogate
from surrogate_core.surrogates.neural_network import NeuralSurrogate
from surrogate_core.surrogates.output import Transform
from surrogate_core.surrogates.random_forest import RandomForestSurrogate

FEWEST = 100  # rows that candidates are compared on, before the dearest are left out
LEAST = 4  # rows below which nothing can be compared


@dataclass(frozen=True)
class AutoSurrogate(Surrogate):
    """The one of all kinds, and of some settings of each, that predicts rows left out best, by their log density.

    Where the budget does not last, candidates are compared on fewer rows; where it does not for few either, the dearest
    is left out. In the end the choice is fitted to all rows, and predicts: the fitted surrogate is of its kind.

    Args:
        transform: of the candidates; "auto" tries several.
        budget: of all comparisons, in the seconds of `Surrogate.estimate`; within 0 nothing is compared. By default it
            lasts for all candidates on a hundred rows: for the hybrid too, the dearest, which is best most often.
        memory_budget_mb: of the fit to all rows; dearer candidates are left out.
        folds: in which rows are left out.

    Raises:
        ValueError: a value is out of its range.
    """

    kind: ClassVar[str] = "auto"

    transform: Transform = "auto"
    budget: float = 60.0
    memory_budget_mb: float = 2048.0
    folds: int = 5

    def __post_init__(self) -> None:
        self._check_transform(auto=True)
        self._check_range("budget", 0.0, np.inf)
        self._check_range("memory_budget_mb", 0.0, np.inf)
        self._check_range("folds", 2, np.inf, whole=True)

    def fit(self, dataset: Dataset, key: Array | None = None, start: FittedSurrogate | None = None) -> FittedSurrogate:
        key = jax.random.key(0) if key is None else key
        n = dataset.ok.n_samples
        told = start.diagnostics.get("auto", {}) if start is not None and start.asked == self else {}
        if start is not None and n <= GROWN * told.get("n_rows", 0):
            before = FittedSurrogate(start.spec, start.space, start.state, start.diagnostics)
            fitted = start.spec.fit(dataset, key, before)
        else:
            chosen, told = self._chosen(dataset, key)
            fitted = chosen.fit(dataset, key)
        diagnostics = {**fitted.diagnostics, "auto": told}
        return FittedSurrogate(fitted.spec, fitted.space, fitted.state, diagnostics, self)

    def within(self, memory_mb: float) -> list["AutoSurrogate"]:
        return [replace(self, memory_budget_mb=min(memory_mb, self.memory_budget_mb))]

    def candidates(self, y: np.ndarray) -> list[Surrogate]:
        """What is compared where the outputs are y, (n,)."""
        transforms = [self.transform]
        if self.transform == "auto":
            transforms = ["standardize", "log" if y.min() > 0 else "yeo_johnson"]
        gaussian: list[Surrogate] = [
            GPSurrogate(transform=transforms[0]),
            GPSurrogate(transform=self.transform, kernel="auto"),
        ]
        others = [kind(transform=one) for one in transforms for kind in (NeuralSurrogate, RandomForestSurrogate)]
        return [*gaussian, *others, HybridSurrogate(transform=transforms[0])]

    def estimate(self, n_samples: int, n_dims: int, derivatives: bool = False) -> Estimate:
        """The greatest of what may be chosen."""
        parts = [one.estimate(n_samples, n_dims, derivatives) for one in self.candidates(np.zeros(1))]
        memory = min(self.memory_budget_mb, max(one.memory_mb for one in parts))
        return Estimate(memory, self.budget + max(one.seconds for one in parts), max(one.once_s for one in parts))

    def latent(self, state: Any, u: Array) -> NoReturn:
        raise TypeError("auto: what it has chosen predicts")

    def _chosen(self, dataset: Dataset, key: Array) -> tuple[Surrogate, dict[str, Any]]:
        from surrogate_core.validation.cross_validation import cross_validate  # which knows surrogates

        rows = dataset.ok.in_order
        n, d, derivatives = rows.n_samples, rows.n_dims, rows.gradients is not None
        if n < LEAST:
            return self.candidates(np.zeros(1))[0], {"n_rows": n, "candidates": [], "left_out": []}
        candidates = self.candidates(rows.y)
        left_out = [one for one in candidates if one.estimate(n, d, derivatives).memory_mb > self.memory_budget_mb]
        compared = [one for one in candidates if one not in left_out]
        if not compared:
            least = min(one.estimate(n, d, derivatives).memory_mb for one in candidates)
            raise ValueError(
                f"memory_budget_mb: expected {least:.0f} or more for {n} rows, got {self.memory_budget_mb:g}"
            )

        def cost(spec: Surrogate, m: int) -> float:
            K = min(self.folds, m)
            estimate = spec.estimate(m - m // K, d, derivatives)
            return K * estimate.seconds + estimate.once_s

        m, first = n, compared[0]
        while len(compared) > 1 and sum(cost(one, m) for one in compared) > self.budget:
            if m > FEWEST:
                m = max(FEWEST, m // 2)
            else:
                dearest = max(compared, key=lambda one: cost(one, n))
                compared.remove(dearest)
                left_out.append(dearest)
                m = n
        if len(compared) == 1:  # nothing is compared
            return first, {"n_rows": n, "candidates": [], "left_out": [str(one) for one in candidates]}
        seed = np.asarray(jax.random.key_data(key))
        some = rows.take(np.sort(np.random.default_rng(seed).permutation(n)[:m]))
        table: list[dict[str, Any]] = []
        best = -math.inf, compared[0]
        for spec in compared:
            try:
                held_out = cross_validate(spec, some, min(self.folds, m), int(seed[-1]))
            except ValueError as error:  # the values do not suit its transform
                table.append({"surrogate": str(spec), "log_density": None, "why": str(error)})
                continue
            density = math.fsum(held_out.log_density) / m
            table.append({"surrogate": str(spec), "log_density": density, "cost": cost(spec, m)})
            if density > best[0]:
                best = density, spec
        told = {"n_rows": n, "compared_on": m, "candidates": table, "left_out": [str(one) for one in left_out]}
        return best[1], told
