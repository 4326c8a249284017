"""The search for a Gaussian process's hyperparameters: the maximum of their posterior, by BFGS from several starts.

The posterior has many modes. Many draws are judged on few rows, the best are followed for a few steps on some more, and
the best of their ends to the end on all. Each search begins with the curvature that the Fisher information of few rows
lets expect. Notation: theta = log (l: (d,), s2, e), as in `likelihood`.

Source of the priors on lengthscales: Hvarfner, Hellsten & Nardi (2024), arXiv:2402.02229, section 4.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np

from surrogate_core.blas import blas_threads
from surrogate_core.parallel import FEW_ROWS, in_threads
from surrogate_core.surrogates.derivatives import joint_log_likelihood
from surrogate_core.surrogates.few_rows import FewRows
from surrogate_core.surrogates.likelihood import log_likelihood
from surrogate_core.surrogates.training import Training
from surrogate_core.surrogates.trust_region import Losses, descend

Prior = Literal["dimension_scaled", "flat"]
Likelihoods = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Of theta, (S, d + 2): log likelihoods, (S,), and their gradients; -inf and 0 where there is none."""

# Bounds of l, s2 and e in unit-cube and standardized coordinates. The least noise keeps K well conditioned.
BOUNDS = ((5e-3, 1e4), (1e-3, 1e5), (1e-8, 1.0))
SCREENED, SPREAD = 4, 1.5  # draws a start, and how far they are from the prior in log units
LEAST_CURVATURE = 1e-3  # of a start, where neither prior nor data has any
CLOSE, CLOSER = 1e-2, 1e-3  # nats that a step must promise on some rows, and on all
FEWEST, FEW, SOME, LARGE = 50, 100, 500, 1000  # rows on which draws are judged and starts are followed at first
BY_PAIRS = 200  # rows up to which `FewRows` is faster
FIRST_STEPS, MORE_STEPS = 12, 60
# Numbers, 4 MB. Once glibc's malloc got an array of this size back, it keeps what smaller ones leave. Given back to the
# system, the matrices of each likelihood would be faulted in anew, which takes a quarter of the time at n = 500.
KEPT = 2**19
NOISE_ALONE = 0.5 * (1 + np.log(2 * np.pi))  # nats a row that are lost where nothing is learned
LITTLE = 0.1  # nats a row above which something was
LINE, MIDDLING = np.linspace(-3, 3, 9), 0.3  # in log units from the prior's lengthscales, and the noise there
APART = 0.05  # in log units: ends that are nearer are one mode


@dataclass(frozen=True, eq=False)
class Posterior:
    """Normal priors on theta, of these means and precisions, within bounds; precision 0 is flat."""

    mean: np.ndarray
    precision: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def losses(self, likelihoods: Likelihoods, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Negative log posteriors of theta, (S, d + 2), up to the prior's constant, and their gradients."""
        values, gradients = likelihoods(theta)
        off = theta - self.mean
        pull = np.where(np.isfinite(values)[:, None], self.precision * off, 0.0)
        return self.of_prior(theta) - values, pull - gradients

    def of_prior(self, theta: np.ndarray) -> np.ndarray:
        """(S,) of the prior alone."""
        return np.asarray(0.5 * (theta - self.mean) ** 2 @ self.precision)


@dataclass(frozen=True, eq=False)
class Found:
    """What was found.

    Args:
        modes: (S, d + 2) distinct ends of searches, the most probable first. losses: (S,) of theirs.
        n_evaluations: of the likelihood of some rows or all. told: what went wrong.
    """

    modes: np.ndarray
    losses: np.ndarray
    n_evaluations: int
    told: tuple[str, ...] = ()


def posterior(d: int, prior: Prior) -> Posterior:
    """The priors for d variables.

    Lengthscales as in the paper. The noise prior is our own, lower and so wide that it says little: a simulator has
    none, and the paper's LogNormal(-4, 1) keeps that from being found.
    """
    scaled = np.sqrt(2) + np.log(d) / 2 if prior == "dimension_scaled" else np.log(0.5)
    mean = np.array([*[scaled] * d, 0.0, np.log(1e-4)])
    deviation = np.array([*[np.sqrt(3)] * d, 1.0, 5.0])
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
        max_iterations: steps on all rows.
        generator: draws.
    """
    np.empty(KEPT)
    n, n_evaluations = len(rows.z), 0
    order = generator.permutation(n)

    def some_rows(size: int) -> Training:
        return rows if n <= size and rows.slopes is None else rows.take(np.sort(order[:size]))

    few = FewRows(kernel, some_rows(FEWEST))

    def losses_on(some: Training) -> Losses:
        likelihoods = _likelihoods(kernel, some)

        def losses(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            nonlocal n_evaluations
            n_evaluations += len(theta)
            return of.losses(likelihoods, theta)

        return losses

    def follow(starts: np.ndarray, some: Training, steps: int, gain: float = CLOSE) -> tuple[np.ndarray, np.ndarray]:
        with blas_threads(FEW):
            B = few.information(starts) * (some.n_values / few.rows.n_values)
        B += np.diag(np.maximum(of.precision, LEAST_CURVATURE))
        return descend(losses_on(some), starts, B, of.low, of.high, steps, gain)

    def follow_with_line(starts: np.ndarray, some: Training, steps: int, gain: float) -> tuple[np.ndarray, np.ndarray]:
        """`follow`, and where the ends say little more than noise would, also from the best of a line of theta.

        So they do where the starts come of few rows and the variables are many. Derivatives tell more, and add nothing.
        """
        ends, values = follow(starts, some, steps, gain)
        if n_starts < 2 or some.slopes is not None or values.min() <= (NOISE_ALONE - LITTLE) * some.n_values:
            return ends, values
        line = np.tile([*of.mean[:-2], 0.0, np.log(MIDDLING)], (len(LINE), 1))
        line[:, :-2] += LINE[:, None]
        line = np.clip(line, of.low, of.high)
        best = np.argmin(losses_on(some)(line)[0])
        end, value = follow(line[[best]], some, steps, gain)
        return np.concatenate([ends, end]), np.append(values, value)

    starts = np.clip(given[:n_starts], of.low, of.high)
    with blas_threads(FEW):
        if (n_drawn := n_starts - len(starts)) > 0:
            drawn = of.mean + generator.standard_normal((SCREENED * n_drawn, len(of.mean))) * SPREAD
            drawn = np.clip(drawn, of.low, of.high)
            n_evaluations += len(drawn)
            best_first = np.argsort(of.of_prior(drawn) - few.log_likelihoods(drawn), kind="stable")
            starts = np.concatenate([starts, drawn[best_first[:n_drawn]]])
        if len(starts) > 1 and rows.n_values > FEW:
            starts = _two(*follow(starts, some_rows(FEW), FIRST_STEPS))
    if n > LARGE and len(starts) > 1:
        starts = _two(*follow_with_line(starts, some_rows(SOME), MORE_STEPS, CLOSE))[:1]
    is_one_by_one = len(starts) == 1 or rows.n_values < FEW_ROWS
    with blas_threads(n) if is_one_by_one else nullcontext():
        ends, values = follow_with_line(starts, rows, max_iterations, CLOSER)
    if not np.isfinite(values.min()):
        told = ("no hyperparameters could be learned",)
        return Found(np.clip(given[:1], of.low, of.high), np.array([np.nan]), n_evaluations, told)
    modes = _modes(ends, values)
    return Found(ends[modes], values[modes], n_evaluations)


def _likelihoods(kernel: str, rows: Training) -> Likelihoods:
    if rows.slopes is None and len(rows.z) <= BY_PAIRS:
        return FewRows(kernel, rows).with_gradients
    one = log_likelihood if rows.slopes is None else joint_log_likelihood

    def of_each(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = in_threads(lambda at: one(kernel, at, rows), theta, n_rows=rows.n_values)
        return np.array([value for value, _ in found]), np.array([gradient for _, gradient in found])

    return of_each


def _two(ends: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The best end, and that of the first start, which does not depend on few rows' judgement, or else the second best.

    Ends of one mode count once.
    """
    best, *others = _modes(ends, values)
    return ends[[best, *sorted(others, key=lambda one: one != 0)[:1]]]


def _modes(ends: np.ndarray, values: np.ndarray) -> list[int]:
    """Which ends to keep, the best first, so that each mode is there once."""
    modes: list[int] = []
    for one in np.argsort(values, kind="stable"):
        if np.isfinite(values[one]) and all(np.abs(ends[one] - ends[other]).max() > APART for other in modes):
            modes.append(int(one))
    return modes or [0]
