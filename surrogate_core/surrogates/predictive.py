"""What a surrogate expects of observations at some points, as a distribution in the problem's units."""

from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri

from surrogate_core.surrogates.output import Output, Transform, from_latent, log_slope, moments, to_latent

LEGENDRE = np.polynomial.legendre.leggauss(48)
TAIL = 9.0  # standard deviations beyond which nothing is integrated


@dataclass(frozen=True, eq=False)
class Predictive:
    """A distribution of y for each of n points: z ~ N(m, v + e), read through the output transform.

    Args:
        transform, output: the transform and its fitted numbers, whose `calibration` stretches all deviations.
        m, v: (n,) or scalar mean and variance of the noise-free z.
        e: variance of the noise of an observation of z.
    """

    transform: Transform
    output: Output
    m: np.ndarray
    v: np.ndarray
    e: np.ndarray

    @property
    def s(self) -> np.ndarray:
        """Standard deviation of an observation of z."""
        return np.asarray(np.sqrt(self.v + self.e) * self.output.calibration)

    @property
    def mean(self) -> np.ndarray:
        """Of the noise-free function."""
        return np.asarray(self._moments[0])

    @property
    def std(self) -> np.ndarray:
        """Of the noise-free function."""
        return np.asarray(self._moments[1])

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Central interval in which an observation, noise included, falls with probability `level`."""
        half = ndtri((1 + level) / 2) * self.s
        low, high = self.m - half, self.m + half
        return from_latent(self.transform, self.output, low), from_latent(self.transform, self.output, high)

    def log_density(self, y: np.ndarray) -> np.ndarray:
        """Log of the density of observations y, noise included; -inf at a value that the transform rules out."""
        with np.errstate(invalid="ignore", divide="ignore"):
            slope = log_slope(self.transform, self.output, y)
            density = -(self.standardized_error(y) ** 2 + np.log(2 * np.pi)) / 2 - np.log(self.s) + slope
        return np.where(np.isnan(density), -np.inf, density)

    def standardized_error(self, y: np.ndarray) -> np.ndarray:
        """(z - m) / s of observations y: standard normal where calibrated; -inf at a value that is ruled out."""
        with np.errstate(invalid="ignore", divide="ignore"):
            q = (to_latent(self.transform, self.output, y) - self.m) / self.s
        return np.where(np.isnan(q), -np.inf, q)

    def cumulative(self, y: np.ndarray) -> np.ndarray:
        """P(Y <= y), noise included: uniform over many observations of a calibrated surrogate."""
        return np.asarray(ndtr(self.standardized_error(y)))

    def crps(self, y: np.ndarray) -> np.ndarray:
        """Continuous ranked probability score of observations y, in their units: the less, the better.

        The integral of (F(x) - [x >= y])^2 dx (Gneiting & Raftery 2007, JASA 102, eq. 20), by Gauss-Legendre
        quadrature on either side of y.
        """
        q, m, s = self.standardized_error(y), np.asarray(self.m)[..., None], self.s[..., None]
        inside = np.clip(q, -TAIL, TAIL)[..., None]
        nodes, weights = LEGENDRE
        total = 0.0
        for low, high, sign in ((-TAIL, inside, 1.0), (inside, TAIL, -1.0)):
            z = (high + low) / 2 + (high - low) / 2 * nodes
            x = from_latent(self.transform, self.output, m + s * z)
            by_x = np.exp(2 * log_ndtr(sign * z) - log_slope(self.transform, self.output, x)) * s
            total = total + ((high - low) / 2 * by_x) @ weights
        edge = from_latent(self.transform, self.output, (m + s * inside)[..., 0])
        return total + np.where(np.abs(q) > TAIL, np.abs(y - edge), 0.0)

    @property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        v = self.v * self.output.calibration**2
        return moments(self.transform, self.output, np.asarray(self.m), np.asarray(v), np)
