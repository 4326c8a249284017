"""A design from data alone, where nothing more can be measured: how far from the data it may be is learned from them.

The minimizer of a prediction lies where the prediction errs most to its favour. So the goal is the mean plus kappa
times what is not known there (`acquisition`, "conservative"), with the kappa that would have served: the best part of
the data is held out, each kappa leads from the rest to a design, and the surrogate of all rows judges these. How wrong
that of the rest was about the best part widens the interval that is promised. Where improvement on the best row is not
all but sure, that row is recommended.

After Trabucco et al. (2021), "Conservative objective models for effective offline model-based optimization",
arXiv:2107.06882; that the strength is chosen by held-out best rows is ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from scipy.special import ndtr

from surrogate_core.acquisition import Goal, Weights
from surrogate_core.dataset import Dataset
from surrogate_core.optimizers.multi_start import MultiStartOptimizer
from surrogate_core.optimizers.optimize import N_ROWS, optimize, rows_of
from surrogate_core.optimizers.result import OptimizationResult
from surrogate_core.optimizers.search import Aim
from surrogate_core.surrogates.base import FittedSurrogate, Surrogate
from surrogate_core.surrogates.output import from_latent, to_latent

STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0)
PARTS = (0.1, 0.2, 0.4)  # of the rows, the best, that are held out
DOUBT = 0.5  # standard deviations that are added to what the surrogate of all rows thinks of a design
TOLD_BY = 0.2  # that of them whose errors widen the interval
FEWEST = 8  # rows that must be left
UNKNOWN = 1.0  # the strength where rows are too few to hold any out
SIDE = 1.959963984540054  # standard deviations of a 95 % interval


@dataclass(frozen=True, eq=False)
class Strength:
    """How conservative to be.

    Args:
        kappa: the strength that is chosen.
        scores: (K,) of each of STRENGTHS, in standardized units: what the surrogate of all rows thinks of the designs
            it led to, the mean plus DOUBT standard deviations, averaged over PARTS; the least is best. Empty where rows
            are too few.
        errors: (k,) standardized errors of the best rows, by a surrogate that had not seen them.
    """

    kappa: float
    scores: np.ndarray
    errors: np.ndarray


@dataclass(frozen=True, eq=False)
class Recommendation:
    """A design that nobody has measured, or the best row.

    Args:
        x: (d,) in the problem's units.
        stays: whether it is the best row, as improvement is not sure enough.
        promised, lower, upper: of `found.x`: the prediction and the 95 % interval of a measurement, in the problem's
            units; of the best row, where that is recommended, its value.
        probability: that a measurement at `found.x` is below the best row.
        strength: how conservative the search was, and why.
        found: the design of the search.
        fitted: the surrogate of all rows.
    """

    x: np.ndarray
    stays: bool
    promised: float
    lower: float
    upper: float
    probability: float
    strength: Strength
    found: OptimizationResult
    fitted: FittedSurrogate


def recommend(
    spec: Surrogate,
    dataset: Dataset,
    optimizer: MultiStartOptimizer | None = None,
    *,
    kappa: float | None = None,
    confidence: float = 0.8,
    seed: int = 0,
) -> Recommendation:
    """One design from data alone.

    Args:
        spec: the surrogate.
        dataset: at least one ok row.
        optimizer: of the search; by default `MultiStartOptimizer()`.
        kappa: how conservative to be; by default as the data tells.
        confidence: the probability of an improvement, below which the best row is recommended.
        seed: fixes every bit.

    Raises:
        ValueError: there is nothing to fit, or a number is out of its range.
    """
    if not 0 <= confidence <= 1:
        raise ValueError(f"confidence: expected a number in [0, 1], got {confidence!r}")
    optimizer = optimizer or MultiStartOptimizer()
    rows = dataset.ok
    fitted = spec.fit(rows, jax.random.key(seed))
    strength = learned_strength(fitted, rows, optimizer, seed)
    chosen = strength.kappa if kappa is None else kappa
    found = optimize(optimizer, fitted, goal=Goal("conservative", kappa=chosen), seed=seed)
    expected = fitted.predictive(found.x)
    below, above = _sides(strength.errors)
    edges = expected.m + np.array([below, above]) * expected.s
    output, transform = fitted.state.output, fitted.spec.transform
    lower, upper = np.sort(from_latent(transform, output, edges))
    best = rows.best_index
    least = to_latent(transform, output, rows.y[[best]])[0]
    probability = float(ndtr((least - expected.m) / expected.s))
    if probability < confidence or found.violation > 0:
        value = float(rows.y[best])
        return Recommendation(rows.X[best], True, value, value, value, probability, strength, found, fitted)
    told = (found.fun, float(lower), float(upper), probability)
    return Recommendation(found.x, False, *told, strength, found, fitted)


def learned_strength(
    fitted: FittedSurrogate, rows: Dataset, optimizer: MultiStartOptimizer, seed: int, parts: Sequence[float] = PARTS
) -> Strength:
    """Which strength would have led to the best part of the rows, had it not been there.

    Args:
        fitted: to all rows.
        rows: all of them ok.
        optimizer: of the searches.
        seed: of fits and searches.
        parts: of the rows that are held out, each in its turn.
    """
    order = np.argsort(rows.y, kind="stable")
    scores, errors = np.zeros(len(STRENGTHS)), np.empty(0)
    usable = [part for part in parts if 1 <= int(part * len(order)) <= len(order) - FEWEST]
    goals = [Weights(kappa, 0.0, kappa) for kappa in STRENGTHS]
    judge = Aim(fitted, "bound", [Weights(DOUBT, 0.0, 0.0)])
    for part in usable:
        best, others = np.split(order, [int(part * len(order))])
        without = fitted.spec.fit(rows.take(np.sort(others)), jax.random.key(seed))
        aim = Aim(without, "conservative", goals)
        ends, _ = optimizer.search(aim, rows_of(without, aim.box)[:N_ROWS], seed)
        led_to = np.array([of_goal.U[0] for of_goal in ends])
        scores += judge.values(led_to, np.zeros(len(goals), dtype=int)) / len(usable)
        if part == TOLD_BY:
            errors = without.predictive(rows.X[best]).standardized_error(rows.y[best])
    if not usable:
        return Strength(UNKNOWN, np.empty(0), errors)
    return Strength(STRENGTHS[int(np.argmin(scores))], scores, errors)


def _sides(errors: np.ndarray) -> tuple[float, float]:
    """Ends of a 95 % interval in standard deviations: the normal ones, or farther where the best rows were."""
    if len(errors) < 2 or not np.isfinite(errors).all():
        return -SIDE, SIDE
    off, spread = errors.mean(), errors.std(ddof=1)
    return float(min(-SIDE, off - SIDE * spread)), float(max(SIDE, off + SIDE * spread))
