"""The search for a Gaussian process's hyperparameters: the maximum of their posterior, by L-BFGS from several starts.

The posterior has many modes. Many draws are judged on few rows, the best are followed for a few steps on these, and the
best of their ends to the end on all. Notation: theta = log (l: (d,), s2, e), as in `likelihood`.

Source of the priors on lengthscales: Hvarfner, Hellsten & Nardi (2024), arXiv:2402.02229, section 4.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from scipy.optimize import minimize

from surrogate_core.blas import blas_threads
from surrogate_core.parallel import in_threads
from surrogate_core.surrogates.derivatives import joint_log_likelihood
from surrogate_core.surrogates.likelihood import log_likelihood
from surrogate_core.surrogates.training import Training

Prior = Literal["dimension_scaled", "flat"]

# Bounds of l, s2 and e in unit-cube and standardized coordinates. The least noise keeps K well conditioned.
BOUNDS = ((5e-3, 1e4), (1e-3, 1e5), (1e-8, 1.0))
SCREENED, SPREAD = 8, 1.5  # draws a start, and how far they are from the prior in log units
FTOL, GTOL = 1e-8, 1e-4  # relative change of the loss, and its slope, at which a start has arrived
FEWEST, FEW, SOME, LARGE = 50, 100, 500, 1000  # rows on which draws are judged and starts are followed at first
FIRST_STEPS, MORE_STEPS = 15, 60
APART = 0.05  # in log units: ends that are nearer are one mode
WALL = 1e25  # loss where K is not positive definite
MARGIN, NEAR, LONG = 10.0, 0.3, 5.0  # a rival farther behind, or as near but for lengthscales that are long, has lost


@dataclass(frozen=True, eq=False)
class Posterior:
    """Normal priors on theta, of these means and precisions, within bounds; precision 0 is flat."""

    mean: np.ndarray
    precision: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def loss(self, kernel: str, theta: np.ndarray, rows: Training) -> tuple[float, np.ndarray]:
        """Negative log posterior, up to the prior's constant, and its gradient."""
        of_rows = log_likelihood if rows.slopes is None else joint_log_likelihood
        value, gradient = of_rows(kernel, theta, rows)
        if not np.isfinite(value):  # not positive definite here: a wall that the line search steps back from
            return WALL, np.zeros_like(theta)
        off = theta - self.mean
        return float(0.5 * off @ (self.precision * off) - value), self.precision * off - gradient


@dataclass(frozen=True, eq=False)
class Found:
    """The hyperparameters, their loss, where each start came to, and what it took."""

    theta: np.ndarray
    loss: float
    ends: list[float]
    n_evaluations: int
    told: tuple[str, ...] = ()


def posterior(d: int, prior: Prior) -> Posterior:
    """The priors for d variables.

    Lengthscales as in the paper. The noise prior is our own, lower and wider: a simulator has none, and the paper's
    LogNormal(-4, 1) keeps it from being found. With that centre, even as wide as ours, intervals from few rows are
    better, but on problems without noise the designs that are found are worse.
    """
    scaled = np.sqrt(2) + np.log(d) / 2 if prior == "dimension_scaled" else np.log(0.5)
    mean = np.array([*[scaled] * d, 0.0, np.log(1e-4)])
    deviation = np.array([*[np.sqrt(3)] * d, 1.0, 3.0])
    precision = deviation**-2.0 if prior == "dimension_scaled" else np.zeros(d + 2)
    low, high = np.log([*[BOUNDS[0]] * d, BOUNDS[1], BOUNDS[2]]).T
    return Posterior(mean, precision, low, high)


def search(
    kernel: str,
    rows: Training,
    of: Posterior,
    given: list[np.ndarray],
    n_starts: int,
    max_iterations: int,
    generator: np.random.Generator,
) -> Found:
    """The most probable theta.

    Args:
        kernel: of the process.
        rows: to be learned.
        of: the posterior less the likelihood.
        given: starts to follow whatever they are worth, the first of them what is taken if nothing can be computed.
        n_starts: how many to follow; those that are not given are the best of many draws.
        max_iterations: L-BFGS-B iterations on all rows.
        generator: draws.
    """
    calls = 0

    def loss(theta: np.ndarray, some: Training) -> tuple[float, np.ndarray]:
        nonlocal calls
        calls += 1
        return of.loss(kernel, theta, some)

    def follow(start: np.ndarray, some: Training, steps: int) -> Any:
        bounds = list(zip(of.low, of.high, strict=True))
        options = {"maxiter": steps, "ftol": FTOL, "gtol": GTOL}
        return minimize(loss, start, some, jac=True, method="L-BFGS-B", bounds=bounds, options=options)

    n = len(rows.z)
    order = generator.permutation(n)

    def some_rows(size: int) -> Training:
        return rows if n <= size and rows.slopes is None else rows.take(np.sort(order[:size]))

    starts = [np.clip(start, of.low, of.high) for start in given[:n_starts]]
    if (n_drawn := n_starts - len(starts)) > 0:
        drawn = of.mean + generator.standard_normal((SCREENED * n_drawn, len(of.mean))) * SPREAD
        drawn, few = np.clip(drawn, of.low, of.high), some_rows(FEWEST)
        with blas_threads(FEWEST):
            values = [loss(theta, few)[0] for theta in drawn]
        starts += [drawn[i] for i in np.argsort(values, kind="stable")[:n_drawn]]
    if len(starts) > 1:
        starts = _modes(in_threads(partial(follow, some=some_rows(FEW), steps=FIRST_STEPS), starts, n_rows=FEW))
        if n > LARGE:
            starts = _modes(in_threads(partial(follow, some=some_rows(SOME), steps=MORE_STEPS), starts[:2]))[:1]
    with blas_threads(n):
        best = follow(starts[0], rows, max_iterations)
        ends = [float(best.fun)]
        for rival in starts[1:2]:
            end = follow(rival, rows, FIRST_STEPS)
            if end.fun < best.fun + MARGIN and (end.fun < best.fun or _are_apart(end.x, best.x)):
                end = follow(end.x, rows, max_iterations)
            ends.append(float(end.fun))
            best = min(best, end, key=lambda one: float(one.fun))
    if best.fun >= WALL:
        return Found(np.clip(given[0], of.low, of.high), np.nan, [], calls, ("no hyperparameters could be learned",))
    return Found(best.x, float(best.fun), ends, calls)


def _modes(ends: list[Any]) -> list[np.ndarray]:
    """Where searches ended, the best first, each mode once."""
    modes: list[np.ndarray] = []
    for end in sorted(ends, key=lambda end: float(end.fun)):
        if all(np.abs(end.x - other).max() > APART for other in modes):
            modes.append(end.x)
    return modes


def _are_apart(theta: np.ndarray, other: np.ndarray) -> bool:
    """Whether lengthscales differ that matter."""
    l, of_other = (np.minimum(one[:-2], np.log(LONG)) for one in (theta, other))
    return bool(np.abs(l - of_other).max() > NEAR)
