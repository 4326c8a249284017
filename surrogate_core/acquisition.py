"""What is minimized over the unit cube: the surrogate's prediction, and how far its uncertainty is explored."""

from typing import Any

import numpy as np
from jax import Array

from surrogate_core.surrogates.base import Surrogate


def lower_confidence_bound(spec: Surrogate, state: Any, u: Array, kappa: Array) -> Array:
    """A monotone function of the predicted mean, less kappa standard deviations of the standardized output.

    Source: Srinivas et al. (2010), arXiv:0912.3995, eq. 6. At kappa 0 its minimizer is that of `predict`.
    """
    mean, std = spec.standardized(state, u)
    return mean - kappa * std


def exploration_weights(n: int) -> np.ndarray:
    """Kappas for a batch of n: 0, which follows the prediction alone, then quantiles of an exponential distribution.

    Source: Hutter, Hoos & Leyton-Brown (2012), "Parallel algorithm configuration", section 4: kappa ~ Exp(1) gives a
    batch whose members explore to different degrees. Quantiles in place of draws fix it without a seed.
    """
    quantiles = np.arange(n) / n
    return -np.log1p(-quantiles)
