"""The surrogates that are compared: ours, and peers at their documented defaults.

All get the same points of the unit cube, U: (n, d), and the same values y: (n,).
"""

from abc import ABC, abstractmethod
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np

from benchmarks.designs import N_TIMED, Design

CHUNK = 1000  # points that are predicted at once where a whole set of 10,000 takes a peer longer
ONE_SIGMA = 0.6826894921370859  # the probability of a standard deviation to either side
N_STARTS = 8  # of ours by default, and so of scikit-learn's


class Peer(ABC):
    """A way to fit and what it fitted."""

    package: ClassVar[str]
    modules: ClassVar[tuple[str, ...]]  # imported before the clock starts
    n_gradients: ClassVar[int] = N_TIMED  # points whose gradients are timed

    @abstractmethod
    def fit(self, design: Design, i: int) -> Any:
        """Fits training design i."""

    def points(self, design: Design, U: np.ndarray) -> np.ndarray:
        """U as the following take them."""
        return U

    @abstractmethod
    def mean(self, U: np.ndarray) -> np.ndarray:
        """(n,)"""

    @abstractmethod
    def gradient(self, U: np.ndarray) -> np.ndarray:
        """(n, d) of the mean."""

    @abstractmethod
    def predictive(self, U: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of observations, noise included where it is modelled."""

    def about(self, design: Design) -> dict[str, Any]:
        """What else is told of the fit."""
        return {}

    @classmethod
    def is_there(cls) -> bool:
        return find_spec(cls.package.replace("-", "_").replace("scikit_learn", "sklearn")) is not None


class Ours(Peer):
    package = "jax"
    modules: ClassVar[tuple[str, ...]] = ("surrogate_core.surrogates.files",)
    kind = "gaussian_process"
    options: ClassVar[dict[str, Any]] = {}
    has_slopes = False

    def fit(self, design: Design, i: int) -> None:
        import jax

        from surrogate_core import Dataset
        from surrogate_core.surrogates.files import SURROGATES

        G = design.G[i] if self.has_slopes and design.G is not None else None
        dataset = Dataset(design.space.decode(design.U[i]), design.y[i], design.space, gradients=G)
        self.fitted = SURROGATES[self.kind](**self.options).fit(dataset, jax.random.key(i))

    def points(self, design: Design, U: np.ndarray) -> np.ndarray:
        return design.space.decode(U)

    def mean(self, X: np.ndarray) -> np.ndarray:
        return self.fitted.predict(X)

    def gradient(self, X: np.ndarray) -> np.ndarray:
        return self.fitted.gradient(X)

    def predictive(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low, high = self.fitted.interval(X, ONE_SIGMA)
        return self.mean(X), (high - low) / 2

    def about(self, design: Design) -> dict[str, Any]:
        """The log marginal likelihood by scikit-learn's function, at our hyperparameters."""
        told = self.fitted.diagnostics
        theta = np.log([told["output_scale"], *told["lengthscales"].values(), told["noise"]])
        judge = scikit_learns(design.space.n_dims, optimizer=None).fit(design.U[0], design.y[0])
        return {"likelihood": float(judge.log_marginal_likelihood(theta)), "told": told}


class OursFlat(Ours):
    """Without priors, as scikit-learn has none: its objective is theirs."""

    options: ClassVar[dict[str, Any]] = {"prior": "flat", "kernel": "matern52"}


class OursSlopes(Ours):
    """With the derivatives of the data."""

    has_slopes = True


class OursOther(Ours):
    """A surrogate that has no likelihood."""

    def about(self, design: Design) -> dict[str, Any]:
        return {"told": self.fitted.diagnostics}


class OursNetwork(OursOther):
    modules = ("surrogate_core.surrogates.files", "optax")
    kind = "neural_network"


class OursForest(OursOther):
    modules = ("surrogate_core.surrogates.files", "sklearn.ensemble")
    kind = "random_forest"


class OursHybrid(OursOther):
    modules = ("surrogate_core.surrogates.files", "sklearn.ensemble", "optax")
    kind = "hybrid"


class ScikitLearn(Peer):
    package = "scikit-learn"
    modules = ("sklearn.gaussian_process",)

    def fit(self, design: Design, i: int) -> None:
        self.model = scikit_learns(design.space.n_dims, n_restarts_optimizer=N_STARTS - 1, random_state=i)
        self.model.fit(design.U[i], design.y[i])

    def mean(self, U: np.ndarray) -> np.ndarray:
        return self.model.predict(U)

    def mean_in_chunks(self, U: np.ndarray) -> np.ndarray:
        return np.concatenate([self.model.predict(part) for part in np.split(U, len(U) // CHUNK)])

    def gradient(self, U: np.ndarray) -> np.ndarray:
        """By forward differences: there is no other."""
        h, mean = 1e-6, self.mean(U)
        return np.column_stack([(self.mean(U + h * e) - mean) / h for e in np.eye(U.shape[1])])

    def predictive(self, U: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.model.predict(U, return_std=True)

    def about(self, design: Design) -> dict[str, Any]:
        return {"likelihood": float(self.model.log_marginal_likelihood_value_), "told": str(self.model.kernel_)}


class BoTorch(Peer):
    package = "botorch"
    modules = ("botorch.models", "botorch.models.transforms", "botorch.fit", "gpytorch.mlls")

    def fit(self, design: Design, i: int) -> None:
        import torch
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from botorch.models.transforms import Normalize
        from gpytorch.mlls import ExactMarginalLogLikelihood

        U, y = torch.tensor(design.U[i]), torch.tensor(design.y[i])[:, None]  # of doubles; y is standardized by default
        self.model = SingleTaskGP(U, y, input_transform=Normalize(d=U.shape[1]))
        fit_gpytorch_mll(ExactMarginalLogLikelihood(self.model.likelihood, self.model))

    def mean(self, U: np.ndarray) -> np.ndarray:
        import torch
        from gpytorch.settings import skip_posterior_variances

        parts = torch.tensor(U).split(CHUNK)  # several times faster than all at once
        with torch.no_grad(), skip_posterior_variances():
            return torch.cat([self.model.posterior(part).mean for part in parts]).numpy().ravel()

    def gradient(self, U: np.ndarray) -> np.ndarray:
        import torch
        from gpytorch.settings import skip_posterior_variances

        parts = [part.clone().requires_grad_() for part in torch.tensor(U).split(CHUNK)]
        with skip_posterior_variances():
            slopes = [torch.autograd.grad(self.model.posterior(part).mean.sum(), part)[0] for part in parts]
        return torch.cat(slopes).numpy()

    def predictive(self, U: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import torch

        with torch.no_grad():
            told = [self.model.posterior(part, observation_noise=True) for part in torch.tensor(U).split(CHUNK)]
            mean, variance = (torch.cat([getattr(t, name) for t in told]) for name in ("mean", "variance"))
        return mean.numpy().ravel(), variance.sqrt().numpy().ravel()


class SMT(Peer):
    package = "smt"
    modules = ("smt.surrogate_models",)
    n_gradients = 50  # a point takes tens of milliseconds: the time of these is scaled up

    def fit(self, design: Design, i: int) -> None:
        from smt.surrogate_models import KRG

        self.model = KRG(theta0=[1e-2] * design.space.n_dims, print_global=False)
        self.model.set_training_values(design.U[i], design.y[i])
        self.model.train()

    def mean(self, U: np.ndarray) -> np.ndarray:
        parts = np.split(U, len(U) // CHUNK)  # several times faster than all at once
        return np.concatenate([self.model.predict_values(part) for part in parts]).ravel()

    def gradient(self, U: np.ndarray) -> np.ndarray:
        return np.hstack([self.model.predict_derivatives(U, j) for j in range(U.shape[1])])

    def predictive(self, U: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        variance = self.model.predict_variances(U).ravel()
        return self.model.predict_values(U).ravel(), np.sqrt(np.maximum(variance, 0.0))


PEERS: dict[str, type[Peer]] = {
    "ours": Ours,
    "flat": OursFlat,
    "slopes": OursSlopes,
    "network": OursNetwork,
    "forest": OursForest,
    "hybrid": OursHybrid,
    "sklearn": ScikitLearn,
    "botorch": BoTorch,
    "smt": SMT,
}


def scikit_learns(d: int, **options: Any) -> Any:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    kernel = ConstantKernel() * Matern(np.ones(d), nu=2.5) + WhiteKernel()
    return GaussianProcessRegressor(kernel, normalize_y=True, **options)
