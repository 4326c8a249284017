"""A Gaussian process on many rows, of which some, the inducing points, stand for all; numpy and LAPACK.

What all rows tell of the values u at M inducing points is kept, and what u leaves open of a row is taken for noise. Of
all such approximations this one has the greatest evidence lower bound (ELBO), which hyperparameters maximize in turn.

Notation: theta as in `likelihood`; Z: inducing points, rows themselves; D: (n,) noise of each row; Kuu = L L', Kuf:
covariances of u with itself and with the rows; A = L^-1 Kuf D^-1/2: (M, n); y = D^-1/2 z; S = (I + A A')^-1;
c = S A y: (M,); r = y - A' c. The posterior is that of an exact process that saw u with some noise: its mean is
k(., Z) a with a = L^-T c, its variance s2 - |R k(Z, .)|^2 with R'R = L^-T (I - S) L^-1.

Sources: Titsias (2009), AISTATS, PMLR 5, 567, eqs. 9 and 10; that the points are those which the others leave most open
is from Burt, Rasmussen & van der Wilk (2020), JMLR 21(131), section 4.2, here some at a time.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from surrogate_core.blas import blas_threads
from surrogate_core.parallel import in_threads
from surrogate_core.surrogates.kernels import KERNELS
from surrogate_core.surrogates.likelihood import BLOCK, inverse_factor, noise_of, of_repeats
from surrogate_core.surrogates.training import Training

NUGGET = 1e-9  # part of s2 on Kuu's diagonal
ROUGH = 1e-5  # of matern12, whose k is rounded as the root of r2 is
SHARE = 2048  # rows of which covariances are held at once, by each thread
PART = 8192  # rows of a thread, however many threads there are
CHOSEN_AT_ONCE, AMONG = 32, 128  # points, of so many that are drawn


class SparsePosterior(NamedTuple):
    """a: (M,); R: (M, M); s: (M,): R (u + noise) has been seen, and s is the variance of R times that noise."""

    a: np.ndarray
    R: np.ndarray
    s: np.ndarray


def inducing_points(
    kernel: str, theta: np.ndarray, rows: Training, M: int, first: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Which rows stand for all, in ascending order.

    Args:
        kernel: of the process.
        theta: (d + 2,).
        rows: to choose from.
        M: how many; fewer where these leave nothing open, and all where there are no more.
        first: some that are chosen in any case.
        generator: draws those that are compared, by what the points so far leave open.
    """
    F = rows.F / np.exp(theta[rows.group])
    n = len(F)
    if n <= M:
        return np.arange(n)
    nugget = ROUGH if kernel == "matern12" else NUGGET
    chosen, done = first[:M], 0
    left_open, W = np.ones(n), np.zeros((M, n))
    with blas_threads(M):
        while True:
            new = chosen[done:]
            G = covariances(kernel, F[new], F) - W[:done, new].T @ W[:done]
            own = G[:, new]
            own.flat[:: len(new) + 1] += nugget
            W[done : len(chosen)] = inverse_factor(own, 1.0)[0] @ G
            left_open = np.maximum(left_open - np.sum(W[done : len(chosen)] ** 2, axis=0), nugget)
            left_open[chosen] = 0.0
            done = len(chosen)
            if done == M or left_open.max() <= nugget:
                return np.sort(chosen)
            drawn = generator.choice(n, min(AMONG, n - done), replace=False, p=left_open / left_open.sum())
            C = covariances(kernel, F[drawn], F[drawn]) - W[:done, drawn].T @ W[:done, drawn]
            chosen = np.append(chosen, drawn[_most_open(C, min(CHOSEN_AT_ONCE, M - done, len(drawn)), nugget)])


def _most_open(C: np.ndarray, n: int, nugget: float) -> list[int]:
    """n in turn that have the greatest variance given those before, of a covariance: pivots of its Cholesky factor."""
    C, pivots = C.copy(), []
    for _ in range(n):
        p = int(np.argmax(C.diagonal()))
        pivots.append(p)
        C -= np.outer(C[p], C[p]) / max(C[p, p], nugget)
        C[p, p] = -np.inf
    return pivots


def lower_bound(kernel: str, theta: np.ndarray, rows: Training, points: np.ndarray) -> tuple[float, np.ndarray]:
    """The ELBO of the rows and its gradient by theta, by which points stand for all; -inf where it has no value.

    The gradient by Kuf is L^-T ((I - S) A + c r') D^-1/2, that by Kuu L^-T (I - S - c c' - A A') L^-1 / 2; both go to
    the lengthscales as in `likelihood`. That D and s2 multiplied by one number leave A alone gives that by s2.
    """
    n, d = rows.U.shape
    s2, e = np.exp(theta[-2]), np.exp(theta[-1])
    F = rows.F / np.exp(theta[rows.group])
    Z, root = F[points], 1 / np.sqrt(noise_of(rows, e))
    y, learned = root * rows.z, np.isnan(rows.known)
    try:
        L_inverse, _ = factor_of(kernel, theta, Z)
    except ValueError:
        return -np.inf, np.zeros_like(theta)

    def first(part: slice) -> tuple[np.ndarray, ...]:
        K, H = (s2 * one * root[part] for one in with_slopes(kernel, Z, F[part]))
        A = L_inverse @ K
        return K, H, A, A @ A.T, A @ y[part]

    shares = _shares(n)
    firsts = in_threads(first, shares)
    AA, Ay = (np.sum([one[i] for one in firsts], axis=0) for i in (3, 4))
    B = AA.copy()
    B.flat[:: len(Z) + 1] += 1.0
    with blas_threads(len(Z)):
        try:
            factor = np.linalg.cholesky(B)
        except np.linalg.LinAlgError:
            return -np.inf, np.zeros_like(theta)
        S = np.linalg.inv(B)
        c = S @ Ay
        rest = np.eye(len(Z)) - S
        T, a = L_inverse.T @ rest, L_inverse.T @ c
        G = s2 * with_slopes(kernel, Z, Z)[1] * (T @ L_inverse - np.outer(a, a) - L_inverse.T @ AA @ L_inverse)
        by_Z = G.sum(axis=1) @ Z**2 - np.sum(Z * (G @ Z), axis=0)

    def second(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        part, (K, H, A, _, _) = shares[number], firsts[number]
        r = y[part] - A.T @ c
        TA = T @ A
        explained = np.sum(TA * K, axis=0)
        TA += np.multiply.outer(a, r)
        TA *= H
        f = F[part]
        return r, explained, TA.sum(axis=1), TA.sum(axis=0) @ f**2 - 2 * np.sum(Z * (TA @ f), axis=0)

    r, explained, by_points, by_F = (list(parts) for parts in zip(*in_threads(second, range(len(shares))), strict=True))
    by_f = sum(by_F) + sum(by_points) @ Z**2 + by_Z
    b = root**2
    quadratic = y @ y - c @ Ay
    left_open = s2 * b.sum() - np.trace(AA)
    half_log_det = np.log(factor.diagonal()).sum() - np.log(root).sum()
    value = -0.5 * (n * np.log(2 * np.pi) + quadratic + left_open) - half_log_det
    by_noise = 0.5 * (b * s2 - 1 - np.concatenate(explained) + np.concatenate(r) ** 2)
    extra, by_e = of_repeats(rows, e)
    by_s2 = 0.5 * (quadratic - n) - by_noise.sum()
    by_l = np.bincount(rows.group, by_f, minlength=d)
    return float(value - extra), np.array([*by_l, by_s2, by_noise[learned].sum() - by_e])


def triangle(kernel: str, theta: np.ndarray, rows: Training, Z: np.ndarray, L_inverse: np.ndarray) -> np.ndarray:
    """(M + 1, M + 1), upper, of a square that is that of (A', y): what the rows tell, without what squares would lose.

    Args:
        kernel, theta, rows: as above.
        Z: (M, D) scaled features of the inducing points.
        L_inverse: (M, M).
    """
    s2, l = np.exp(theta[-2]), np.exp(theta[rows.group])
    root = 1 / np.sqrt(noise_of(rows, np.exp(theta[-1])))

    def of_part(part: slice) -> np.ndarray:
        found = np.zeros((0, len(Z) + 1))
        for share in _shares(len(rows.z), SHARE, part):
            K = s2 * root[share, None] * covariances(kernel, rows.F[share] / l, Z)
            new = np.column_stack([K @ L_inverse.T, root[share] * rows.z[share]])
            found = _triangular(np.concatenate([found, new]))
        return found

    found = in_threads(of_part, _shares(len(rows.z), PART))
    with blas_threads(len(Z)):
        return _triangular(np.concatenate(found))


def posterior(L_inverse: np.ndarray, triangles: Sequence[np.ndarray]) -> SparsePosterior:
    """The posterior that the triangles of parts of the rows make."""
    M = len(L_inverse)
    with blas_threads(M):
        whole = _triangular(np.concatenate([np.eye(M, M + 1), *triangles]))
        _, sigma, V = np.linalg.svd(whole[:M, :M])  # sigma^2: eigenvalues of I + A A'
        c = np.linalg.solve(whole[:M, :M], whole[:M, M])
        known = np.sqrt(np.maximum(1 - sigma**-2.0, 0.0))
        return SparsePosterior(L_inverse.T @ c, known[:, None] * (V @ L_inverse), sigma**-2.0)


def factor_of(kernel: str, theta: np.ndarray, Z: np.ndarray) -> tuple[np.ndarray, float]:
    """The inverse of L, and the jitter that it took; Z: (M, D) scaled features.

    Raises:
        ValueError: no jitter makes Kuu positive definite.
    """
    s2 = np.exp(theta[-2])
    with blas_threads(len(Z)):
        K = s2 * covariances(kernel, Z, Z)
        K.flat[:: len(Z) + 1] += NUGGET * s2
        return inverse_factor(K, s2)


def predicted(
    kernel: str, theta: np.ndarray, F: np.ndarray, Z: np.ndarray, seen: SparsePosterior
) -> tuple[np.ndarray, np.ndarray]:
    """m and v of z, (n,), at scaled features (n, D)."""
    s2 = np.exp(theta[-2])
    with blas_threads(len(Z)):
        K = s2 * covariances(kernel, F, Z)
        return K @ seen.a, np.maximum(s2 - np.sum((K @ seen.R.T) ** 2, axis=1), 1e-12 * s2)


def _triangular(A: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.qr(A, mode="r"))


def _shares(n: int, size: int = SHARE, within: slice | None = None) -> list[slice]:
    """Parts of n rows, or of some of them."""
    first, end = (0, n) if within is None else (within.start, within.stop)
    return [slice(i, min(i + size, end)) for i in range(first, end, size)]


def covariances(kernel: str, A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """k between rows of scaled features, (len(A), len(B))."""
    K = np.empty((len(A), len(B)))
    for part, r2 in _squares(A, B):
        K[part] = KERNELS[kernel][0](np, r2)[0]
    return K


def with_slopes(kernel: str, A: np.ndarray, B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """k and h, as `covariances`."""
    K, H = np.empty((len(A), len(B))), np.empty((len(A), len(B)))
    for part, r2 in _squares(A, B):
        K[part], H[part] = KERNELS[kernel][0](np, r2)
    return K, H


def _squares(A: np.ndarray, B: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Squares of distances from some of A at a time."""
    squares = np.einsum("ij,ij->i", B, B)
    for i in range(0, len(A), BLOCK):
        block = A[i : i + BLOCK]
        r2 = block @ B.T
        r2 *= -2.0
        r2 += np.einsum("ij,ij->i", block, block)[:, None]
        r2 += squares
        yield slice(i, i + BLOCK), np.maximum(r2, 0.0, out=r2)
