"""Optimization in rounds: the surrogate proposes, the true function answers, the surrogate learns.

One look at a surrogate promises what it cannot keep, for its optimum lies where it knows least. Each round
evaluates the minimizer of a goal, such as the prediction, beside points that explore; what is promised of each is put
on record.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np
from jax import Array

from surrogate_core.acquisition import Goal, Weights, exploration_weights
from surrogate_core.dataset import Dataset
from surrogate_core.optimizers.multi_start import MultiStartOptimizer, distinct
from surrogate_core.optimizers.search import Aim
from surrogate_core.performance.profiler import timed
from surrogate_core.surrogates.base import FittedSurrogate, Surrogate
from surrogate_core.surrogates.predictive import Predictive

N_ROW_STARTS = 16  # how many of the best rows the optimizer may start from
FRESH = 1e-3  # unit-cube distance from every earlier row below which a point is one that is known
FAR = 100.0  # standard deviations beyond which an error is as good as infinite
APART = 0.03  # and from the other points of its round


@dataclass(frozen=True, eq=False)
class Round:
    """What one round proposed and what was measured, all (q,).

    Args:
        rows: of the proposals.
        expected: of each, before anything was measured.
        kappa: how far each explored.
        extrapolation: how far each was from the data then, 1 at its edge.
    """

    rows: Dataset
    expected: Predictive
    kappa: np.ndarray
    extrapolation: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        """(q,) standardized errors of what was expected, NaN of proposals without a value, all within +-FAR."""
        off = np.clip(self.expected.standardized_error(self.rows.y), -FAR, FAR)
        return np.where(self.rows.status == "ok", off, np.nan)


@dataclass(frozen=True, eq=False)
class Refinement:
    """All rounds, and the surrogate fitted to everything that was measured."""

    rounds: tuple[Round, ...]
    fitted: FittedSurrogate

    @property
    def evaluations(self) -> Dataset:
        """The new rows, in the order they were proposed."""
        rows = self.rounds[0].rows
        for later in self.rounds[1:]:
            rows = rows.append(later.rows)
        return rows


def refine(
    fitted: FittedSurrogate,
    dataset: Dataset,
    evaluate: Callable[[int, np.ndarray], Dataset],
    optimizer: MultiStartOptimizer,
    *,
    batches: Sequence[int],
    seed: int,
    calibration: float = 1.0,
    goal: Goal | None = None,
) -> Refinement:
    """Proposes, evaluates and fits again, once a batch.

    Args:
        fitted: the surrogate of the first round; later rounds fit again what was asked for, and standardize once a
            value such as a negative one has ruled out its transform.
        dataset: all rows so far, at least one of them ok.
        evaluate: rows of points, (q, d) in the problem's units, of the round whose number is given.
        optimizer: finds where the surrogate is least.
        batches: how many points each round evaluates; at least one round.
        seed: fixes every bit, whoever evaluates.
        calibration: by which standard deviations are multiplied in what is promised, and in the surrogate that is
            returned. Proposals do without: it was learned all over the space, and the search is drawn to one place.
        goal: of the first proposal of each round; by default the mean.

    Raises:
        ValueError: there is no batch.
    """
    if not batches:
        raise ValueError("batches: expected at least one round, got none")
    done: list[Round] = []
    for number, n in enumerate(batches):
        X, kappa = propose(fitted, dataset, optimizer, n, seed + number, goal)
        told = fitted.recalibrated(calibration)
        rows = evaluate(number, X)
        done.append(Round(rows, told.predictive(X), kappa, told.extrapolation(X)))
        dataset = dataset.append(rows)
        if rows.ok.n_samples == 0:  # nothing was learned
            continue
        key = jax.random.fold_in(jax.random.key(seed), number)
        fitted = fit_or_standardize(fitted.asked, dataset, key, fitted)
    return Refinement(tuple(done), fitted.recalibrated(calibration))


@timed("fit")
def fit_or_standardize(
    spec: Surrogate, dataset: Dataset, key: Array, start: FittedSurrogate | None = None
) -> FittedSurrogate:
    """Fits the spec, or, where a new value has ruled out its transform, the same with `standardize`."""
    try:
        return spec.fit(dataset, key, start)
    except ValueError:
        if spec.transform == "standardize":
            raise
        return replace(spec, transform="standardize").fit(dataset, key)


@timed("propose")
def propose(
    fitted: FittedSurrogate,
    dataset: Dataset,
    optimizer: MultiStartOptimizer,
    n: int,
    seed: int,
    goal: Goal | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The points to evaluate next, the first of them the minimizer of the goal, by default of the prediction.

    A point whose nearest row failed is passed over where there is another: failures have regions of their own.

    Returns:
        X: (q, d) in the problem's units, with q <= n: a discrete space may have fewer that are new.
        kappa: (q,) how far each explores; below 0 where the goal is cautious.
    """
    goal = goal or Goal()
    known = dataset.space.encode(dataset.X)
    by_value = np.resize(np.argsort(dataset.ok.y, kind="stable"), N_ROW_STARTS)  # a fixed number: one program for any n
    best = dataset.space.encode(dataset.ok.X[by_value])
    chosen, weights = np.empty((0, dataset.n_dims)), []
    for kappa, valid in _candidates(fitted, optimizer, best, n, seed, goal):
        fresh = distinct(valid, known, FRESH) & distinct(valid, chosen, APART)
        new = np.flatnonzero(fresh & dataset.space.is_feasible(dataset.space.decode(valid)))
        if len(new):
            promising = new[_is_promising(valid[new], dataset)]
            chosen = np.vstack([chosen, valid[promising[0] if len(promising) else new[0]]])
            weights.append(kappa)
    return dataset.space.decode(chosen), np.array(weights)


def _candidates(
    fitted: FittedSurrogate, optimizer: MultiStartOptimizer, rows: np.ndarray, n: int, seed: int, goal: Goal
) -> Iterator[tuple[float, np.ndarray]]:
    """For each of n proposals how far it explores, and valid points, (m, d), the best for it first."""
    kappas = exploration_weights(n)
    kappas[0] -= goal.weights(fitted).kappa
    weights = [Weights(kappa=-kappa, best=0.0, beyond=0.0) for kappa in kappas]
    parts = [Aim(fitted, "bound", weights)]
    if goal.form not in ("mean", "bound"):  # another program
        parts = [Aim(fitted, goal.form, [goal.weights(fitted)])]
        parts += [Aim(fitted, "bound", weights[1:])] if n > 1 else []
    number = 0
    for aim in parts:
        found, screened = optimizer.search(aim, rows, seed)
        for of, (ends, others) in enumerate(zip(found, screened, strict=True)):
            values = np.concatenate([ends.values, aim.values(others, np.full(len(others), of))])
            yield kappas[number], np.concatenate([ends.U, others])[np.argsort(values, kind="stable")]
            number += 1


def _is_promising(points: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Which unit-cube points, (n, d), are no closer to a row that failed or is infeasible than to one that is ok."""
    useless = (dataset.status == "failed") | (dataset.status == "infeasible")
    if not useless.any():
        return np.ones(len(points), dtype=bool)

    def nearest(rows: np.ndarray) -> np.ndarray:
        others = dataset.space.encode(dataset.X[rows])
        return np.linalg.norm(points[:, None] - others[None], axis=-1).min(axis=1)

    return nearest(dataset.status == "ok") <= nearest(useless)
