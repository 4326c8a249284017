"""The fit of a Gaussian process to more rows than an exact one takes: hyperparameters, inducing points, posterior.

Hyperparameters are searched exactly on some rows, then followed up the evidence lower bound of more; rows that are held
out tell which of both serve better, how far off the posterior is, and what accuracy it costs beside an exact fit to as
many rows as that can take. In the end they are learned, too.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from surrogate_core.blas import blas_threads
from surrogate_core.surrogates.errors import learned_errors, variance
from surrogate_core.surrogates.few_rows import FewRows
from surrogate_core.surrogates.hyperparameters import CLOSER, FEWEST, LARGE, LEAST_CURVATURE, Found, Posterior, search
from surrogate_core.surrogates.inducing import (
    SparsePosterior,
    covariances,
    factor_of,
    inducing_points,
    lower_bound,
    posterior,
    predicted,
    triangle,
)
from surrogate_core.surrogates.likelihood import factorize
from surrogate_core.surrogates.support import EDGE, edge_of
from surrogate_core.surrogates.training import Training
from surrogate_core.surrogates.trust_region import descend

HELD_OUT = 512  # rows, and no more than an eighth
CANDIDATES = 8192  # rows whose bound is maximized, and of which inducing points are chosen
BEST = 32  # rows that are inducing points in any case: where designs are sought
FOLLOWED = 512  # inducing points by which the bound is maximized
STEPS = 30  # of that
LEAST_NOISE = 1e-8  # part of s2, below which the bound's gradient is lost in rounding
RAISED = np.log(10) * np.arange(0, 9, 2)  # noise of which the search of the bound begins with the best
ENOUGH = 8  # held-out rows that tell how far off a posterior is


@dataclass(frozen=True, eq=False)
class ManyRows:
    """What was fitted.

    Args:
        theta: (d + 2,) hyperparameters.
        points: (M,) which rows are the inducing points.
        posterior: by what all rows tell of them.
        calibration: of the posterior's standard deviations.
        noise: variance of observations, not calibrated.
        edge: the distance from an inducing point below which EDGE of the other rows are.
        told: diagnostics.
    """

    theta: np.ndarray
    points: np.ndarray
    posterior: SparsePosterior
    calibration: float
    noise: float
    edge: float
    told: dict[str, Any]


def fit_many_rows(
    kernel: str,
    rows: Training,
    of: Posterior,
    given: list[np.ndarray],
    n_starts: int,
    max_iterations: int,
    n_inducing: int,
    n_exact: int,
    generator: np.random.Generator,
) -> tuple[Found, ManyRows]:
    """The exact search on some rows, and the fit to all.

    Args:
        kernel, rows, of, given, n_starts, max_iterations, generator: as of `hyperparameters.search`.
        n_inducing: M.
        n_exact: rows of the exact fit that accuracy is compared with.
    """
    best, rest = np.split(np.argsort(rows.z, kind="stable"), [BEST])
    held, rest = np.split(generator.permutation(rest), [min(HELD_OUT, len(rest) // 8)])
    others = np.concatenate([best, rest])
    exactly = rows.take(np.sort(others[:LARGE]))
    candidates = np.sort(others[:CANDIDATES])
    some, first = rows.take(candidates), np.searchsorted(candidates, best)

    found = search(kernel, exactly, of, given, n_starts, max_iterations, generator)
    followed, bound = _followed(kernel, some, of, found.modes[0], first, min(n_inducing, FOLLOWED), generator)
    told: dict[str, Any] = {"negative_bound": bound}
    theta, chosen_by = followed, "bound"
    if len(held) >= ENOUGH:
        densities = {}
        for name, one in (("bound", followed), ("exact", found.modes[0])):
            trial = _Fit(kernel, one, rows, candidates[inducing_points(kernel, one, some, FOLLOWED, first, generator)])
            densities[name] = _off(rows, held, *trial.at(held, trial.seen(trial.told_by(candidates))))[2]
        chosen_by = max(densities, key=densities.__getitem__)
        theta = followed if chosen_by == "bound" else found.modes[0]
    points = candidates[inducing_points(kernel, theta, some, n_inducing, first, generator)]
    fit = _Fit(kernel, theta, rows, points)
    triangles = [fit.told_by(part) for part in (others, held) if len(part)]
    calibration, noise = 1.0, float(np.exp(theta[-1]))
    if len(held) >= ENOUGH:
        m, v = fit.at(held, fit.seen(triangles[0]))
        told["accuracy"] = {
            "held_out_rows": len(held),
            "rmse": _rms(rows.z[held] - m),
            **_compared(kernel, rows, held, np.sort(others[:n_exact]), found.modes[0], fit),
        }
        if np.isnan(rows.known).all():
            calibration, noise, _ = _off(rows, held, m, v)
    told |= {"n_inducing": len(points), "hyperparameters_by": chosen_by, "jitter": fit.jitter, "noise": noise}
    far = cKDTree(fit.F[points]).query(np.delete(fit.F, points, axis=0))[0]
    edge = float(np.quantile(far, EDGE)) if len(far) else edge_of(fit.F)
    return found, ManyRows(theta, points, fit.seen(*triangles), calibration, noise, edge, told)


class _Fit:
    """Of some rows, by hyperparameters and inducing points."""

    def __init__(self, kernel: str, theta: np.ndarray, rows: Training, points: np.ndarray):
        self.kernel, self.theta, self.rows, self.points = kernel, theta, rows, points
        self.F = rows.F / np.exp(theta[rows.group])
        self.L_inverse, self.jitter = factor_of(kernel, theta, self.F[points])

    def told_by(self, places: np.ndarray) -> np.ndarray:
        return triangle(self.kernel, self.theta, self.rows.take(np.sort(places)), self.F[self.points], self.L_inverse)

    def seen(self, *triangles: np.ndarray) -> SparsePosterior:
        return posterior(self.L_inverse, triangles)

    def at(self, places: np.ndarray, seen: SparsePosterior) -> tuple[np.ndarray, np.ndarray]:
        """m and v of z at some rows."""
        return predicted(self.kernel, self.theta, self.F[places], self.F[self.points], seen)


def _off(rows: Training, held: np.ndarray, m: np.ndarray, v: np.ndarray) -> tuple[float, float, float]:
    """By what held-out rows tell deviations to be multiplied, their noise, and their mean log density with both."""
    r = rows.z[held] - m
    c, e = learned_errors(r, v[:, None], rows.weight[held], np.ones(1))
    v = variance(v[:, None], c) + e / rows.weight[held]
    return float(np.sqrt(c[0])), e, float(-0.5 * np.mean(np.log(2 * np.pi * v) + r**2 / v))


def _compared(
    kernel: str, rows: Training, held: np.ndarray, learned: np.ndarray, theta: np.ndarray, fit: _Fit
) -> dict[str, Any]:
    """Errors at held-out rows of an exact fit to some of the others, and of the sparse one to the same."""
    some, l = rows.take(learned), np.exp(theta[rows.group])
    a = factorize(kernel, theta, some).a
    with blas_threads(len(learned)):
        exact = covariances(kernel, rows.F[held] / l, some.F / l) @ a * np.exp(theta[-2])
    m, _ = fit.at(held, fit.seen(fit.told_by(learned)))
    return {
        "exact_rows": len(learned),
        "rmse_exact": _rms(rows.z[held] - exact),
        "rmse_sparse_of_exact_rows": _rms(rows.z[held] - m),
    }


def _followed(
    kernel: str,
    rows: Training,
    of: Posterior,
    start: np.ndarray,
    first: np.ndarray,
    M: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, float]:
    """Hyperparameters of the greatest bound times the prior, from a start, and the negative logarithm there."""
    points = inducing_points(kernel, start, rows, M, first, generator)
    low = of.low.copy()
    low[-1] = max(low[-1], start[-2] + np.log(LEAST_NOISE))
    of = replace(of, low=np.minimum(low, of.high))

    def likelihoods(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, gradients = zip(*(lower_bound(kernel, one, rows, points) for one in theta), strict=True)
        return np.array(values), np.array(gradients)

    def losses(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return of.losses(likelihoods, theta)

    starts = np.tile(start, (len(RAISED), 1))
    starts[:, -1] += RAISED * (of.low[-1] < of.high[-1])
    starts = np.unique(np.clip(starts, of.low, of.high), axis=0)
    best = starts[[np.argmin(losses(starts)[0])]]
    few = FewRows(kernel, rows.take(np.unique(np.linspace(0, len(rows.z) - 1, FEWEST).astype(int))))
    with blas_threads(FEWEST):
        B = few.information(best) * (len(rows.z) / len(few.rows.z))
    B += np.diag(np.maximum(of.precision, LEAST_CURVATURE))
    ends, values = descend(losses, best, B, of.low, of.high, STEPS, CLOSER * len(rows.z))
    return ends[0], float(values[0])


def _rms(r: np.ndarray) -> float:
    return float(np.sqrt(np.mean(r**2)))
