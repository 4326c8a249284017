"""By how much the intervals of the most probable hyperparameters are too narrow where rows are few.

Few rows go with many hyperparameters, each of which says something else of the places between them. Their posterior is
sampled, and the standard deviations of the most probable ones are stretched until their Gaussian process is as near as
it can be to the predictions of all, by Kullback-Leibler divergence (Snelson & Ghahramani 2005, "Compact approximations
to Bayesian predictive distributions", ICML): the mean stays, and predicting costs what it did.

The posterior is sampled by importance, from a mixture of t distributions about its modes, as wide as the Fisher
information says, and of the prior, which keeps the weights bounded (Hesterberg 1995, Technometrics 37, 185-194).
"""

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import gammaln, logsumexp

from surrogate_core.blas import blas_threads
from surrogate_core.sampling import sample
from surrogate_core.surrogates.few_rows import FewRows
from surrogate_core.surrogates.hyperparameters import Posterior
from surrogate_core.surrogates.kernels import KERNELS
from surrogate_core.surrogates.likelihood import factorize
from surrogate_core.surrogates.training import Training, features

N_DRAWS, AT_ONCE = 256, 64
N_KEPT = 32  # of the draws, by their weights, whose predictions are computed
N_PLACES = 64  # at which predictions are compared
FREEDOM, WIDER = 5.0, 1.2  # of the t distributions, whose deviations are so many times those of the normal
EVEN, DEFENSIVE = 0.2, 0.2  # shares of the draws that modes have whatever they are worth, and that come from the prior


def stretch(
    kernel: str,
    rows: Training,
    of: Posterior,
    modes: np.ndarray,
    n_choices: np.ndarray,
    generator: np.random.Generator,
) -> float:
    """By what the standard deviations of the first mode's predictions are to be multiplied.

    Args:
        kernel: of the process.
        rows: few, learned by their values alone.
        of: the proper posterior less the likelihood.
        modes: (S, d + 2) theta of its modes, the most probable first.
        n_choices: (d,) of categorical variables, 0 of numbers.
        generator: draws.
    """
    if not (of.high > of.low).any():
        return 1.0
    F, _ = features(sample("sobol", N_PLACES, rows.U.shape[1], seed=int(generator.integers(2**32))), n_choices)
    with blas_threads(len(rows.z)):
        theta, weights = _posterior_sample(FewRows(kernel, rows), of, modes, generator)
        (own_mean, own_variance), *others = (_prediction(kernel, one, rows, F) for one in (modes[0], *theta))
    means, variances = np.array(others).transpose(1, 0, 2)
    expected = weights @ (variances + (means - own_mean) ** 2)  # squared distance from the first mode's mean
    return float(np.sqrt(np.mean(expected / own_variance)))


def _posterior_sample(
    few: FewRows, of: Posterior, modes: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """At most N_KEPT theta, (S, d + 2), and their weights, which sum to 1."""
    theta, log_density = _proposals(few, of, modes, generator)
    inside = ((theta >= of.low) & (theta <= of.high)).all(axis=1)
    theta, log_density = theta[inside], log_density[inside]
    likelihoods = [few.log_likelihoods(theta[i : i + AT_ONCE]) for i in range(0, len(theta), AT_ONCE)]
    log_weights = np.concatenate([[], *likelihoods]) - of.of_prior(theta) - log_density
    if not np.isfinite(log_weights).any():
        return modes[:1], np.ones(1)
    reached = np.cumsum(np.exp(log_weights - logsumexp(log_weights)))
    kept = np.searchsorted(reached, reached[-1] * (np.arange(N_KEPT) + 0.5) / N_KEPT)
    kept, counts = np.unique(kept, return_counts=True)
    return theta[kept], counts / N_KEPT


def _proposals(
    few: FewRows, of: Posterior, modes: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """N_DRAWS theta from the mixture, what is fixed as it is, and the log density of each."""
    free = of.high > of.low
    p, mean, deviation = int(free.sum()), of.mean[free], of.precision[free] ** -0.5
    precision = (few.information(modes) + np.diag(of.precision))[:, free][:, :, free]
    half_log_det = 0.5 * np.linalg.slogdet(precision)[1]
    evidence = few.log_likelihoods(modes) - of.of_prior(modes) - half_log_det  # Laplace's
    worth = np.exp(evidence - logsumexp(evidence))
    shares = np.append((1 - DEFENSIVE) * ((1 - EVEN) * worth + EVEN / len(modes)), DEFENSIVE)
    part = np.searchsorted(np.cumsum(shares), (np.arange(N_DRAWS) + 0.5) / N_DRAWS).clip(max=len(modes))

    normal = generator.standard_normal((N_DRAWS, p))
    wide = WIDER * np.sqrt(FREEDOM / generator.chisquare(FREEDOM, N_DRAWS))[:, None]
    drawn = mean + deviation * normal
    for one, (center, root) in enumerate(zip(modes[:, free], np.linalg.cholesky(precision), strict=True)):
        its = part == one
        drawn[its] = center + wide[its] * np.linalg.solve(root.T, normal[its].T).T

    off = drawn[:, None] - modes[:, free]
    squares = np.einsum("nsi,sij,nsj->ns", off, precision, off) / WIDER**2
    constant = gammaln((FREEDOM + p) / 2) - gammaln(FREEDOM / 2) - 0.5 * p * np.log(FREEDOM * np.pi * WIDER**2)
    of_modes = constant + half_log_det - 0.5 * (FREEDOM + p) * np.log1p(squares / FREEDOM)
    of_prior = -0.5 * np.sum(((drawn - mean) / deviation) ** 2 + np.log(2 * np.pi * deviation**2), axis=1)
    theta = np.tile(modes[0], (N_DRAWS, 1))
    theta[:, free] = drawn
    return theta, logsumexp(np.column_stack([of_modes, of_prior]), b=shares, axis=1)


def _prediction(kernel: str, theta: np.ndarray, rows: Training, F: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of observations, noise included, at features F of places."""
    d = rows.U.shape[1]
    scales, s2 = np.exp(theta[rows.group]), np.exp(theta[d])
    factors = factorize(kernel, theta, rows)
    k = s2 * KERNELS[kernel][0](np, cdist(rows.F / scales, F / scales, "sqeuclidean"))[0]
    b = factors.L_inverse @ k
    return factors.a @ k, np.maximum(s2 - np.einsum("nm,nm->m", b, b), 0.0) + np.exp(theta[d + 1])
