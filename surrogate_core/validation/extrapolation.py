"""How much of the search space the data leaves to guess at."""

import numpy as np

from surrogate_core.sampling import feasible_sample
from surrogate_core.surrogates.base import FittedSurrogate


def extrapolation_share(fitted: FittedSurrogate, seed: int, n: int = 1024) -> float:
    """The share of points, uniform over the search space where its constraints are met, that lie beyond the data.

    Beyond is an extrapolation score above 1. Data that fill the space leave about 5 %, by that score's meaning; NaN
    where no point met the constraints.
    """
    X = fitted.space.decode(feasible_sample(fitted.space, "sobol", n, seed))
    return float(np.mean(fitted.extrapolation(X) > 1.0)) if len(X) else np.nan
