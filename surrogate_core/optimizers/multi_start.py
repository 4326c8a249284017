"""Many starts at once through the surrogate's gradient: screened, followed in one program, polished and ranked."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.spatial.distance import cdist

from surrogate_core.optimizers.lbfgs import LBFGSOptimizer
from surrogate_core.optimizers.local import LocalOptimizer, check_count
from surrogate_core.optimizers.polish import valid
from surrogate_core.optimizers.search import Aim, Ends, descend
from surrogate_core.performance.profiler import timed
from surrogate_core.sampling import feasible_sample
from surrogate_core.surrogates.base import FittedSurrogate

if TYPE_CHECKING:
    from surrogate_core.optimizers.result import OptimizationResult

CHUNK = 1024  # points whose distances from all better ones are known at once
NEAR = 0.05  # standard deviation of perturbations in unit-cube units


@dataclass(frozen=True)
class MultiStartOptimizer:
    """Follows the gradient from the best of many points and ranks where that leads.

    Points are Sobol's, the best rows of the data, and perturbations of these. Half of the starts are the best of all,
    the others those that are farthest from any better point (as in multi-level single linkage: Rinnooy Kan & Timmer
    1987, Math. Program. 39, 57), so that each well has one.

    Args:
        n_starts: for each goal; more where more points are given.
        n_screened: Sobol points among which starts are chosen.
        optimizer: by which each start is followed.

    Raises:
        ValueError: a value is out of its range.
    """

    kind: ClassVar[str] = "multi_start"
    n_starts: int = 16
    n_screened: int = 512
    optimizer: LocalOptimizer = field(default_factory=LBFGSOptimizer)

    def __post_init__(self) -> None:
        check_count("n_starts", self.n_starts)
        if not isinstance(self.n_screened, int) or self.n_screened < self.n_starts:
            raise ValueError(f"n_screened: expected an integer >= n_starts = {self.n_starts}, got {self.n_screened!r}")

    @timed("search")
    def search(self, aim: Aim, rows: np.ndarray, seed: int, n_given: int = 0) -> tuple[list[Ends], np.ndarray]:
        """Where the starts of each goal end, and the points that were screened.

        Args:
            aim: what is minimized.
            rows: (k, d) unit-cube points worth starting from, such as the best of the data, the best first.
            seed: of the screened points.
            n_given: how many of the rows are starts whatever they are worth, the first.

        Returns:
            G results, and (G, m, d) valid points, the best first.
        """
        n_goals = len(aim.goals)
        screened = self._screened(aim, rows, seed)
        of = np.repeat(np.arange(n_goals), len(screened))
        values = aim.values(np.tile(screened, (n_goals, 1)), of).reshape(n_goals, -1)
        order = np.argsort(values, axis=1, kind="stable")
        given = np.arange(self.n_screened, self.n_screened + n_given)  # rows come after what was drawn
        chosen = [self._chosen(screened, best_first) for best_first in order]
        n_chosen = max(self.n_starts - n_given, 0)
        starts = np.stack([screened[np.concatenate([given, places[:n_chosen]])] for places in chosen])
        return descend(aim, self.optimizer, starts, screened, seed), screened[order]

    def optimize(
        self, surrogate: FittedSurrogate, x0: Any = None, bounds: Any = None, **how: Any
    ) -> "OptimizationResult":
        """Minimizes on the surrogate from many starts; see `surrogate_core.optimizers.optimize.optimize`."""
        from surrogate_core.optimizers.optimize import optimize  # it needs all optimizers

        return optimize(self, surrogate, x0, bounds, **how)

    def _screened(self, aim: Aim, rows: np.ndarray, seed: int) -> np.ndarray:
        """Sobol points, rows, and perturbations of rows, (m, d): valid, within the box, and of a fixed number."""
        space, generator = aim.fitted.space, np.random.default_rng(seed)
        low, high = aim.box.T
        drawn = feasible_sample(space, "sobol", self.n_screened, seed, aim.box)
        drawn = np.resize(drawn if len(drawn) else rows, (self.n_screened, space.n_dims))
        near = np.resize(rows, (self.n_starts, space.n_dims)) if len(rows) else rows
        near = near + NEAR * generator.standard_normal(near.shape)
        return valid(space, np.concatenate([np.clip(points, low, high) for points in (drawn, rows, near)]))

    def _chosen(self, points: np.ndarray, best_first: np.ndarray) -> np.ndarray:
        """Places of the starts among points: the best, then the others that are farthest from any better one.

        Where a function has several minima, each has a point near it without a better one nearby.
        """
        half, ordered = (self.n_starts + 1) // 2, points[best_first]
        apart = np.empty(len(points))
        for first in range(0, len(points), CHUNK):  # the matrix of all distances may not fit
            part = cdist(ordered[first : first + CHUNK], ordered[: first + CHUNK])
            part[np.triu_indices(len(part), first, part.shape[1])] = np.inf  # what is no better does not count
            apart[first : first + CHUNK] = part.min(axis=1)
        alone = half + np.argsort(-apart[half:], kind="stable")[: self.n_starts - half]
        return np.concatenate([best_first[:half], best_first[alone]])


def distinct(points: np.ndarray, others: np.ndarray, distance: float) -> np.ndarray:
    """Which of the points, (n, d), are farther than `distance` from all of the others, (m, d)."""
    if len(others) == 0:
        return np.ones(len(points), dtype=bool)
    return (np.linalg.norm(points[:, None] - others[None], axis=-1) > distance).all(axis=1)
