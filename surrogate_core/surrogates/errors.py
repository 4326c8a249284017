"""How uncertain a prediction is, as held-out rows tell: for surrogates that have no likelihood of their own.

The variance of what is not known at a point is v = t / (1 + t / WIDEST), t = c . s: signals s, such as the spread of an
ensemble, each with a weight c >= 0, and no more than if nothing were known. Observations have a noise e on top. c and e
are those under which the errors of predictions of rows that were not learned are likeliest; where rows are few, a prior
speaks.

Notation: n: held-out rows; k: signals; r: (n,) errors of the mean; S: (n, k).

Source: the scaling of variances by held-out rows is that of Laves et al. (2020), MIDL, PMLR 121, 393, here of each part
of them.
"""

import numpy as np
from scipy.optimize import minimize

from surrogate_core.blas import one_blas_thread
from surrogate_core.surrogates.output import AnyArray

NOISE = 1e-3  # the prior's median of e; z has variance 1
STARTS = (NOISE, 0.05, 0.5)  # of e: what is noise, and what is not known, may be told apart in several ways
LEAST, MOST = 1e-10, 1e4  # of c and e
VAGUE, VAGUER = 2.0, 4.0  # standard deviations of the prior, of the logarithms of c and e
WIDEST = 9.0  # v far from all data: z has variance 1
FLOOR = 1e-12  # of v, so that its root has a derivative


def learned_errors(r: np.ndarray, S: np.ndarray, weight: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, float]:
    """c, (k,), and e.

    Args:
        r: (n,) errors of z.
        S: (n, k) signals.
        weight: (n,) of each row: its noise is e / weight.
        prior: (k,) medians of c.

    The objective is -2 log of the posterior: normal errors, log-normal priors.
    """
    median = np.log(np.append(prior, NOISE))
    width = np.append(np.full(len(prior), VAGUE), VAGUER)
    T = np.column_stack([S, 1 / weight])

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        parts = T * np.exp(theta)
        off = (theta - median) / width
        v = variance(S, np.exp(theta[:-1])) + parts[:, -1]
        by_v = (1 - r**2 / v) / v
        parts[:, :-1] /= (1 + parts[:, :-1].sum(axis=1, keepdims=True) / WIDEST) ** 2
        return float(np.sum(np.log(v) + r**2 / v) + off @ off), parts.T @ by_v + 2 * off / width

    bounds = [(np.log(LEAST), np.log(MOST))] * len(median)
    starts = [np.append(median[:-1], np.log(e)) for e in STARTS]
    with one_blas_thread():
        ends = [minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds) for start in starts]
    *c, e = np.exp(min(ends, key=lambda end: end.fun).x)
    return np.array(c), float(e)


def variance(S: AnyArray, c: AnyArray) -> AnyArray:
    """v of signals (..., k)."""
    t = S @ c
    return t / (1 + t / WIDEST) + FLOOR


def farness(xp: AnyArray, extrapolation: AnyArray) -> AnyArray:
    """The signal that a distance from the data is: 0 at a row, growing ever more slowly beyond the edge of the data."""
    return xp.log1p(extrapolation**2)
