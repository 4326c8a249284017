"""Leave-one-out prediction of a Gaussian process in closed form: nothing is factored again.

Notation: n places with z, noise s and a = K^-1 z; L^-1 is of the fit, K^-1 = L^-T L^-1; N rows, each at a place, of
noise e. Both functions return the mean and variance of the noise-free z of each row, and its e, all (N,).

Source: Rasmussen & Williams (2006), eqs. 5.10 to 5.12.
"""

import numpy as np

from surrogate_core.surrogates.training import Training

LEAST = 1e-12  # a variance; rounding may leave less


def left_out_rows(
    rows: Training, a: np.ndarray, L_inverse: np.ndarray, s: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each row left out by itself; others that were merged with it stay.

    Its entry of the inverse covariance of all rows follows from that of its place by Woodbury's identity, with
    s = e / count: 1/e - s/e^2 + (s/e)^2 [K^-1]_ii; and its entry of a is (z - mean of the place)/e + (s/e) a_i.
    """
    n, at = len(rows.z), rows.place
    e = (s * rows.count)[at]
    share = s[at] / e
    precision = np.einsum("ij,ij->j", L_inverse[:, :n], L_inverse[:, :n])[at]
    own = (1 - share) / e + share**2 * precision
    a_own = (rows.each - rows.z[at]) / e + share * a[at]
    return rows.each - a_own / own, np.maximum(1 / own - e, LEAST), e


def left_out_places(
    rows: Training, a: np.ndarray, L_inverse: np.ndarray, s: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each place left out with its derivatives: by the block of the inverse that belongs to them, not one entry."""
    n, p = a.shape
    parts = L_inverse.reshape(len(L_inverse), -1, p)[:, :n]
    blocks = np.einsum("knp,knq->npq", parts, parts)
    unknown = np.einsum("npp->np", blocks) == 0  # a part that is not known has no say
    inverses = np.linalg.inv(blocks + np.eye(p) * unknown[:, None, :])
    off = np.einsum("nq,nq->n", inverses[:, 0], a)
    return (rows.z - off)[rows.place], np.maximum(inverses[:, 0, 0] - s, LEAST)[rows.place], s[rows.place]
