"""A design from data alone, where nothing more can be measured: how far from the data it may be is learned from them.

The minimizer of a prediction lies where the prediction errs most to its favour. So the goal is the mean plus kappa
times what is not known there (`acquisition`, "conservative"), with the kappa that would have served: the best part of
the data is held out, each kappa leads from the rest to a design, and the surrogate of all rows judges these. Where an
improvement on the best row is less probable than not, by the report of `trust`, that row is recommended.

After Trabucco et al. (2021), "Conservative objective models for effective offline model-based optimization",
arXiv:2107.06882; that the strength is chosen by held-out best rows is ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from surrogate_core.acquisition import Goal, Weights
from surrogate_core.dataset import Dataset
from surrogate_core.optimizers.multi_start import MultiStartOptimizer
from surrogate_core.optimizers.optimize import N_ROWS, optimize, rows_of
from surrogate_core.optimizers.result import OptimizationResult
from surrogate_core.optimizers.search import Aim
from surrogate_core.surrogates.base import FittedSurrogate, Surrogate
from surrogate_core.trust import EVEN, Trust
from surrogate_core.validation.cross_validation import held_out_r2

STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0)
PARTS = (0.1, 0.2, 0.4)  # of the rows, the best, that are held out
DOUBT = 0.5  # standard deviations that are added to what the surrogate of all rows thinks of a design
FEWEST = 8  # rows that must be left
UNKNOWN = 1.0  # the strength where rows are too few to hold any out


@dataclass(frozen=True, eq=False)
class Strength:
    """How conservative to be.

    Args:
        kappa: the strength that is chosen.
        scores: (K,) of each of STRENGTHS, in standardized units: what the surrogate of all rows thinks of the designs
            it led to, the mean plus DOUBT standard deviations, averaged over PARTS; the least is best. Empty where rows
            are too few, or the strength was given.
    """

    kappa: float
    scores: np.ndarray


@dataclass(frozen=True, eq=False)
class Recommendation:
    """A design that nobody has measured, or the best row.

    Args:
        x: (d,) in the problem's units.
        stays: whether it is the best row, as improvement is not sure enough.
        promised, lower, upper: of x: the prediction and the 95 % interval of a measurement, corrected for the
            disappointment that is to be expected, in the problem's units; of the best row its value.
        trust: how far `found.x` can be believed.
        strength: how conservative the search was, and why.
        found: the design of the search.
        fitted: the surrogate of all rows.
    """

    x: np.ndarray
    stays: bool
    promised: float
    lower: float
    upper: float
    trust: Trust
    strength: Strength
    found: OptimizationResult
    fitted: FittedSurrogate


def recommend(
    spec: Surrogate,
    dataset: Dataset,
    optimizer: MultiStartOptimizer | None = None,
    *,
    kappa: float | None = None,
    confidence: float = EVEN,
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
    Goal("conservative", kappa or 0.0)  # a mistake shows before any work
    optimizer = optimizer or MultiStartOptimizer()
    rows = dataset.ok
    fitted = spec.fit(rows, jax.random.key(seed))
    given = None if kappa is None else Strength(kappa, np.empty(0))
    strength = given or learned_strength(fitted, rows, optimizer, seed)
    found = optimize(optimizer, fitted, goal=Goal("conservative", strength.kappa), seed=seed)
    best = rows.best_index
    value = float(rows.y[best])
    told = found.trust_given(best=value, r2=held_out_r2(spec, rows, seed))
    assert told.promise is not None
    assert told.probability is not None
    if told.probability < confidence or found.violation > 0:
        return Recommendation(rows.X[best], True, value, value, value, told, strength, found, fitted)
    return Recommendation(found.x, False, *told.promise[3:], told, strength, found, fitted)


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
    scores = np.zeros(len(STRENGTHS))
    usable = [part for part in parts if 1 <= int(part * len(order)) <= len(order) - FEWEST]
    goals = [Weights(kappa, 0.0, kappa) for kappa in STRENGTHS]
    judge = Aim(fitted, "bound", [Weights(DOUBT, 0.0, 0.0)])
    for part in usable:
        _, others = np.split(order, [int(part * len(order))])
        without = fitted.spec.fit(rows.take(np.sort(others)), jax.random.key(seed))
        aim = Aim(without, "conservative", goals)
        ends, _ = optimizer.search(aim, rows_of(without, aim.box)[:N_ROWS], seed)
        led_to = np.array([of_goal.U[0] for of_goal in ends])
        scores += judge.values(led_to, np.zeros(len(goals), dtype=int)) / len(usable)
    if not usable:
        return Strength(UNKNOWN, np.empty(0))
    return Strength(STRENGTHS[int(np.argmin(scores))], scores)
