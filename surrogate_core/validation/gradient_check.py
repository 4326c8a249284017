"""How to spend evaluations of the true function on a check of the gradient: at which points, and how far apart.

Notation: h: (d,) steps in unit-cube coordinates; sigma: standard deviation of a value's noise.
"""

from itertools import zip_longest

import numpy as np

from surrogate_core.dataset import Dataset
from surrogate_core.sampling import feasible_sample
from surrogate_core.space import SearchSpace
from surrogate_core.surrogates.base import FittedSurrogate
from surrogate_core.surrogates.output import from_latent, log_slope

STEPS = (1e-3, 0.25)  # the least and greatest h: below, a simulator's own tolerances; above, no derivative
BEND = 0.02  # unit-cube distance over which third derivatives are told
BEST = 0.25  # the part of the rows that are the better ones
DRAWN = 16  # points for each that is wanted, among which those where the data is are looked for


def points_within(budget: int, space: SearchSpace) -> int:
    """At how many points so many evaluations pay for a gradient."""
    n_numbers = int(np.sum(space.n_choices == 0))
    return max(budget, 0) // (2 * n_numbers) if n_numbers else 0


def step_lengths(fitted: FittedSurrogate, X: np.ndarray) -> np.ndarray:
    """h by which a central difference around points errs least, (d,), by what the surrogate has learned.

    It errs by h^2 |f'''| / 6 as the function bends and by sigma / (sqrt(2) h) as its values are noisy, together least
    at h = (3 sigma / (sqrt(2) |f'''|))^(1/3). The third derivatives are those of the predicted mean, by second
    differences of its gradient: root mean squares over the points.

    Args:
        fitted: the surrogate.
        X: (n, d) points in the problem's units, at least one.
    """
    space, d = fitted.space, fitted.space.n_dims
    U = np.clip(space.encode(X), BEND, 1 - BEND)
    shift = np.concatenate([np.zeros((1, d)), BEND * np.eye(d), -BEND * np.eye(d)])
    around = space.decode((U[:, None, :] + shift).reshape(-1, d))
    slope = space.slope(around)
    by_u = fitted.gradient(around) / np.where(slope > 0, slope, np.inf)
    at, ahead, behind = np.split(by_u.reshape(len(U), 2 * d + 1, d), [1, d + 1], axis=1)
    third = np.diagonal(ahead + behind - 2 * at, axis1=1, axis2=2) / BEND**2
    bend = np.sqrt(np.mean(third**2, axis=0))
    sigma = np.sqrt(np.mean(noise_at(fitted, X) ** 2))
    balance = 3 / np.sqrt(2) * sigma
    straight = bend * STEPS[1] ** 3 <= balance
    return np.where(straight, STEPS[1], np.maximum(np.cbrt(balance / np.where(straight, 1.0, bend)), STEPS[0]))


def noise_at(fitted: FittedSurrogate, X: np.ndarray) -> np.ndarray:
    """The learned sigma of values at points, (n,) in the problem's units."""
    p = fitted.predictive(X)
    y = from_latent(p.transform, p.output, p.m)
    return np.sqrt(p.e) * p.output.calibration * np.exp(-log_slope(p.transform, p.output, y))


def points_to_check(fitted: FittedSurrogate, dataset: Dataset, n: int, seed: int) -> np.ndarray:
    """Up to n points for a check of the gradient, (q, d) in the problem's units.

    Every other is spread over the part of the space where the data is, for the surrogate claims nothing beyond it. The
    others lie between two of the better rows: there a descent passes and ends, where gradients are small and their
    direction is harder to get right. Rows, where the mean is pinned, come last: a design of the same seed is where the
    points that are spread would be.
    """
    space, rows = dataset.space, dataset.ok
    drawn = space.decode(feasible_sample(space, "sobol", DRAWN * max(n, 1), seed))
    spread = drawn[np.argsort(np.maximum(fitted.extrapolation(drawn), 1.0), kind="stable")]  # those beyond come last
    better = space.encode(rows.X[np.argsort(rows.y, kind="stable")[: max(2, round(BEST * rows.n_samples))]])
    rng = np.random.default_rng(seed)
    a, b = better[rng.integers(len(better), size=(2, DRAWN * n))]
    u = np.where(space.n_choices > 0, a, a + rng.uniform(0.2, 0.8, (len(a), 1)) * (b - a))
    between = space.decode(u)
    queues = [_new_first(X, dataset) for X in (spread, between[space.is_feasible(between)])]
    mixed = dict.fromkeys(x for pair in zip_longest(*queues) for x in pair if x is not None)
    return np.array(list(mixed)[:n]).reshape(-1, space.n_dims)


def _new_first(X: np.ndarray, dataset: Dataset) -> list[tuple[float, ...]]:
    """Points of which those that are rows come last, else in their order."""
    known = {tuple(x) for x in dataset.X.tolist()}
    return sorted((tuple(x) for x in X.tolist()), key=known.__contains__)
