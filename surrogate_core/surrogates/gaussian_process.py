"""Gaussian process regression with one lengthscale a dimension (ARD), fitted by maximum a posteriori.

Notation: U: (N, d) unit-cube places, padded from n to N; l: (d,) lengthscales; s2: output scale; e: noise variance;
K = s2 k + noise; L L' = K; a = K^-1 z. With derivatives in the data, a and L have a part for each of those of a place
after that of its value: a: (N, 1 + d). Padded and unknown parts of a and of L's inverse are 0.

Source: Rasmussen & Williams, "Gaussian Processes for Machine Learning" (2006), eqs. 2.25 and 2.26.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from surrogate_core.dataset import Dataset
from surrogate_core.precision import float64
from surrogate_core.space import SearchSpace
from surrogate_core.surrogates.base import Estimate, FittedSurrogate, Surrogate
from surrogate_core.surrogates.derivatives import joint_factors
from surrogate_core.surrogates.hyperparameter_uncertainty import stretch
from surrogate_core.surrogates.hyperparameters import BOUNDS, FEW, LARGE, Found, Posterior, Prior, posterior, search
from surrogate_core.surrogates.kernels import SMOOTH, Kernel, choice_at, covariance, slope
from surrogate_core.surrogates.leaving_out import left_out_places, left_out_rows
from surrogate_core.surrogates.likelihood import factorize, noise_of
from surrogate_core.surrogates.many_rows import fit_many_rows
from surrogate_core.surrogates.output import AnyArray, Output
from surrogate_core.surrogates.predictive import Predictive
from surrogate_core.surrogates.support import Support, bucket, edge_of, padded
from surrogate_core.surrogates.training import Training, training

OutputScale = Literal["learned", "unit"]
Fixed = Literal["length_scale", "noise_level"]
NOISY = 0.1  # noise of a start, without which noise is taken for a wiggly function where rows are few
SUMMED = 3  # variables up to which squared differences are summed faster than a matrix product gives them
SPARSER = ((1000, 512), (500, 256))  # max_exact and n_inducing of those that take less memory
MAX_DERIVATIVES = 3200  # values and derivatives together that are learned exactly


class GPState(NamedTuple):
    """What predicts.

    `categories` are the columns of categorical variables, of which a program knows the number; `s` is the noise
    variance of each place, infinite where there is none. Where inducing points stand for the places, `L_inverse` and
    `s` are their R and s (`inducing`).
    """

    U: AnyArray
    n_choices: AnyArray
    categories: AnyArray
    s: AnyArray
    a: AnyArray
    L_inverse: AnyArray
    lengthscales: AnyArray
    output_scale: AnyArray
    noise: AnyArray
    edge: AnyArray
    is_sparse: AnyArray
    output: Output


@dataclass(frozen=True)
class GPSurrogate(Surrogate):
    """Gaussian process regression, exact where rows are not too many.

    A field that is "auto" is chosen at the fit by the leave-one-out density of the data.

    Args:
        transform: of the output: "standardize", "log" for positive values that span magnitudes, "yeo_johnson" for
            skewed values of any sign, or "auto".
        kernel: "matern52", "matern32", "matern12", "rbf" or "auto", which also chooses `output_scale`; "matern" is
            "matern52".
        prior: on the logarithms of the hyperparameters: "dimension_scaled" (Hvarfner et al. 2024) or "flat".
        length_scale: the first start's lengthscales in unit-cube units, one or one a variable; by default the prior's
            mode.
        noise_level: the first start's noise variance in standardized units; by default the prior's mode.
        fixed: which of "length_scale" and "noise_level" stay what they are given as.
        output_scale: the variance of the process in standardized units: "learned", or "unit" for 1.
        n_starts: starts of the hyperparameter search: one from the prior's mode, one from there with much noise, the
            others the best of many draws.
        max_iterations: steps of the search on all rows, a start.
        max_exact: places up to which the fit is exact; of more, inducing points stand for all.
        n_inducing: how many.

    Raises:
        ValueError: a value is out of its range.
    """

    kind: ClassVar[str] = "gaussian_process"
    State: ClassVar[type] = GPState
    searched: ClassVar[Mapping[str, Sequence[Any]]] = {
        "kernel": ("matern52", "matern32", "matern12", "rbf"),
        "prior": ("dimension_scaled", "flat"),
        "transform": ("standardize", "log", "yeo_johnson"),
    }

    kernel: Kernel = "matern52"
    prior: Prior = "dimension_scaled"
    length_scale: float | tuple[float, ...] | None = None
    noise_level: float | None = None
    fixed: tuple[Fixed, ...] = ()
    output_scale: OutputScale = "learned"
    n_starts: int = 8
    max_iterations: int = 200
    max_exact: int = 3000
    n_inducing: int = 1024

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.generic | np.ndarray):  # as a model's file can hold it
                value = value.tolist()
            if isinstance(value, list):
                value = tuple(value)
            object.__setattr__(self, field.name, value)
        self._check_transform(auto=True)
        known = {"kernel": Kernel, "prior": Prior, "output_scale": OutputScale}
        for name, among in known.items():
            if getattr(self, name) not in get_args(among):
                raise ValueError(f"{name}: expected one of {', '.join(get_args(among))}, got {getattr(self, name)!r}")
        for name in ("n_starts", "max_iterations", "max_exact", "n_inducing"):
            self._check_range(name, 1, np.inf, whole=True)
        for name, (low, high) in (("length_scale", BOUNDS[0]), ("noise_level", BOUNDS[2])):
            value = getattr(self, name)
            for one in value if isinstance(value, tuple) else (value,):
                if one is not None and not low <= one <= high:
                    raise ValueError(f"{name}: expected a number from {low:g} to {high:g}, got {one!r}")
        for name in self.fixed:
            if name not in get_args(Fixed):
                raise ValueError(f"fixed: expected some of {', '.join(get_args(Fixed))}, got {name!r}")
            if getattr(self, name) is None:
                raise ValueError(f"{name}: expected a number, as it is fixed, got none")

    @float64
    def fit(self, dataset: Dataset, key: Array | None = None, start: FittedSurrogate | None = None) -> FittedSurrogate:
        seed = np.asarray(jax.random.key_data(jax.random.key(0) if key is None else key))
        if "auto" not in (self.transform, self.kernel):
            return self._fit(dataset, seed, start)
        rows = dataset.ok
        if rows.n_samples <= self.max_exact:
            return self._choose(dataset, seed, start)
        some = np.random.default_rng(seed).permutation(rows.n_samples)[: min(self.max_exact, LARGE)]
        chosen = self._choose(rows.in_order.take(some), seed, None)
        fitted = chosen.spec.fit(dataset, key, start)
        diagnostics = fitted.diagnostics | {"leave_one_out_density": chosen.diagnostics["leave_one_out_density"]}
        return FittedSurrogate(fitted.spec, fitted.space, fitted.state, diagnostics, self)

    def leave_one_out(self, fitted: FittedSurrogate, dataset: Dataset) -> Predictive | None:
        """What the rows that were fitted are expected to be by all others, with the hyperparameters of all.

        In closed form (Rasmussen & Williams, eqs. 5.10 to 5.12); with a row, its derivatives are left out.

        Args:
            fitted: a fit of this spec.
            dataset: what it was fitted to.

        Returns:
            The distributions of the ok rows, (n,), each with the noise of its row; None where inducing points stand
            for them.

        Raises:
            ValueError: it was fitted to something else.
        """
        state, transform = fitted.state, fitted.spec.transform
        if state.is_sparse:
            return None
        rows = training(dataset, transform, state.output, slopes=state.a.ndim == 2)
        n = len(rows.z)
        if n != int(np.isfinite(state.s).sum()) or not np.array_equal(rows.U, state.U[:n]):
            raise ValueError(f"leave_one_out: expected the dataset that was fitted, got another of {n} places")
        of_rows = left_out_rows if state.a.ndim == 1 else left_out_places
        return Predictive(transform, state.output, *of_rows(rows, state.a[:n], state.L_inverse, state.s[:n]))

    def estimate(self, n_samples: int, n_dims: int, derivatives: bool = False) -> Estimate:
        n, N = min(n_samples, self.max_exact), n_samples * (1 + n_dims)
        tried = (1 + 2 * (self.transform == "auto")) * (1 + 4 * (self.kernel == "auto"))
        if derivatives and n == n_samples and N <= MAX_DERIVATIVES:
            return Estimate(40 + 0.4 * N, tried * (1 + 1.5e-9 * N**3))
        few, many = min(n, LARGE), n if n > LARGE else 0
        memory = 35 + (90 + 4.6e-5 * many**2 if many else 4e-4 * min(few, 800) ** 2)
        seconds = 0.05 + tried * (0.2e-6 * self.n_starts * few**2 + 3e-11 * n_dims * many**3)
        if n_samples > self.max_exact:
            M = min(self.n_inducing, n_samples)
            memory = max(memory, 400 + 1.3e-4 * M**2 + 2e-3 * n_samples)
            seconds += 4 + 2e-6 * min(n_samples, 8192) * min(M, 512) + 1.2e-10 * n_samples * M**2
        return Estimate(memory, seconds)

    def within(self, memory_mb: float) -> list["GPSurrogate"]:
        sizes = [(max_exact, M) for max_exact, M in SPARSER if max_exact < self.max_exact]
        return [replace(self, max_exact=max_exact, n_inducing=min(M, self.n_inducing)) for max_exact, M in sizes]

    def latent(self, state: GPState, u: Array) -> tuple[Array, Array]:
        k, s2 = self.covariances(state, u), state.output_scale
        b = state.L_inverse @ k
        return k @ state.a.ravel(), jnp.maximum(s2 - b @ b, 1e-12 * s2)

    def covariances(self, state: GPState, u: Array) -> Array:
        """Of the value at u with all that was learned: (N,), or (N (1 + d),) with derivatives."""
        l, s2 = state.lengthscales, state.output_scale
        scale = jnp.where(state.n_choices > 0, 0.0, 1 / l)
        A, b = (state.U - 0.5) * scale, (u - 0.5) * scale
        if len(l) <= SUMMED:
            r2 = sum((A[:, j] - b[j]) ** 2 for j in range(len(l)))
        else:
            r2 = jnp.maximum(jnp.sum(A**2, axis=1) + b @ b - 2 * A @ b, 0.0)
        for c in range(len(state.categories)):
            j = state.categories[c]
            m = state.n_choices[j]
            r2 = r2 + (choice_at(u[j], m) != choice_at(state.U[:, j], m)) / l[j] ** 2
        k = s2 * covariance(self.kernel, r2)
        if state.a.ndim == 2:
            h = s2 * slope(self.kernel, r2)
            k = jnp.concatenate([k[:, None], h[:, None] * (b - A) * scale], axis=1).ravel()
        return k

    def support(self, state: GPState) -> Support:
        return Support(state.U, jnp.isfinite(state.s), state.n_choices, state.lengthscales, state.edge)

    @property
    def traced(self) -> "GPSurrogate":
        return GPSurrogate(transform=self.transform, kernel=self.kernel)

    def _choose(self, dataset: Dataset, seed: np.ndarray, start: FittedSurrogate | None) -> FittedSurrogate:
        """The best of what "auto" leaves open by leave-one-out density: the transform, then the kernel, then the scale.

        Each transform is searched from many starts, what comes after from the best so far.
        """
        spec: GPSurrogate = replace(
            self,
            transform="standardize" if self.transform == "auto" else self.transform,
            kernel="matern52" if self.kernel == "auto" else self.kernel,
        )
        best = spec._fit(dataset, seed, start)
        scores = {_said(spec): spec._score(best, dataset)}
        options: dict[str, tuple[Any, ...]] = {}
        if self.transform == "auto":
            options["transform"] = ("log", "yeo_johnson")
        if self.kernel == "auto":
            options |= {"kernel": ("matern32", "matern12", "rbf"), "output_scale": get_args(OutputScale)}
        for name, values in options.items():
            for value in values:
                tried = replace(spec, **{name: value})
                if _said(tried) in scores:
                    continue
                try:
                    fitted = tried._fit(dataset, seed, start if name == "transform" else best)
                except ValueError:  # the values do not suit the transform
                    continue
                score = tried._score(fitted, dataset)
                if score > max(scores.values()):
                    spec, best = tried, fitted
                scores[_said(tried)] = score
        diagnostics = {**best.diagnostics, "leave_one_out_density": scores}
        return FittedSurrogate(spec, best.space, best.state, diagnostics, self)

    def _score(self, fitted: FittedSurrogate, dataset: Dataset) -> float:
        """Mean leave-one-out log density; its sum is exact, so that no order of the rows changes a choice."""
        y = dataset.ok.y
        told = self.leave_one_out(fitted, dataset)
        assert told is not None  # the fit is exact
        return math.fsum(told.log_density(y)) / len(y)

    def _fit(self, dataset: Dataset, seed: np.ndarray, start: FittedSurrogate | None) -> FittedSurrogate:
        rows = training(dataset, self.transform, slopes=self.kernel in SMOOTH)
        told = list(rows.told)
        if dataset.gradients is not None and self.kernel not in SMOOTH:
            told.append(f"derivatives left out: {self.kernel} has none")
        if rows.slopes is not None and rows.slopes.size + len(rows.z) > MAX_DERIVATIVES:
            told.append(f"derivatives left out: with {rows.slopes.size + len(rows.z)} values, above {MAX_DERIVATIVES}")
            rows = training(dataset, self.transform, slopes=False)
        of, first = self._posterior(rows)
        noisy = np.append(first[:-1], np.log(NOISY))
        given, n_starts = [first, noisy], self.n_starts
        if start is not None and isinstance(start.state, GPState) and start.state.U.shape[1] == rows.U.shape[1]:
            before = start.state
            theta = np.log([*before.lengthscales, before.output_scale, before.noise])
            given, n_starts = [theta, first], min(n_starts, 2)
        generator = np.random.default_rng(seed)
        if len(rows.z) > self.max_exact:
            if rows.slopes is not None:
                told.append("derivatives left out: inducing points learn values alone")
            return self._sparse(dataset, replace(rows, slopes=None), of, given, n_starts, generator, told)
        found = search(self.kernel, rows, of, given, n_starts, self.max_iterations, generator)
        if rows.slopes is None and len(rows.z) <= FEW and self.prior != "flat" and not found.told:
            wider = stretch(self.kernel, rows, of, found.modes, dataset.space.n_choices, generator)
            rows = replace(rows, output=rows.output._replace(calibration=rows.output.calibration * wider))
        return self._fitted(dataset, rows, found, told)

    def _posterior(self, rows: Training) -> tuple[Posterior, np.ndarray]:
        """The priors within what is fixed, and the first start."""
        d = rows.U.shape[1]
        of = posterior(d, self.prior)
        first, low, high = of.mean.copy(), of.low.copy(), of.high.copy()
        if self.length_scale is not None:
            if isinstance(self.length_scale, tuple) and len(self.length_scale) != d:
                raise ValueError(f"length_scale: expected one number or {d}, got {len(self.length_scale)}")
            first[:d] = np.log(self.length_scale)
        if self.noise_level is not None:
            first[d + 1] = np.log(self.noise_level)
        all_known = not np.isnan(rows.known).any()
        if all_known:  # a new observation's noise is as theirs on average
            first[d + 1] = np.log(np.clip(rows.known.mean(), *BOUNDS[2]))
        fixed = np.zeros(d + 2, dtype=bool)
        fixed[:d] = "length_scale" in self.fixed
        fixed[d] = self.output_scale == "unit"
        fixed[d + 1] = "noise_level" in self.fixed or all_known
        low[fixed] = high[fixed] = first[fixed]
        return replace(of, low=low, high=high), first

    def _sparse(
        self,
        dataset: Dataset,
        rows: Training,
        of: Posterior,
        given: list[np.ndarray],
        n_starts: int,
        generator: np.random.Generator,
        told: list[str],
    ) -> FittedSurrogate:
        limits = self.max_iterations, self.n_inducing, self.max_exact
        found, many = fit_many_rows(self.kernel, rows, of, given, n_starts, *limits, generator)
        output = rows.output._replace(calibration=rows.output.calibration * many.calibration)
        Z, learned = replace(rows.take(many.points), output=output), many.posterior
        state = self._state(dataset.space, Z, many.theta, learned.a, learned.R, learned.s, many.edge)
        state = state._replace(noise=np.float64(many.noise / many.calibration**2), is_sparse=np.asarray(True))
        diagnostics = self._told(rows, state, dataset.space, found, told) | many.told
        return FittedSurrogate(self, dataset.space, state, diagnostics)

    def _fitted(self, dataset: Dataset, rows: Training, found: Found, told: list[str]) -> FittedSurrogate:
        theta, loss = found.modes[0], found.losses[0]
        factors = (factorize if rows.slopes is None else joint_factors)(self.kernel, theta, rows)
        if factors.jitter:
            told.append(f"a jitter of {factors.jitter:g} on the diagonal")
        lengthscales = np.exp(theta[: rows.U.shape[1]])
        s, edge = noise_of(rows, np.exp(theta[-1])), edge_of(rows.F / lengthscales[rows.group])
        state = self._state(dataset.space, rows, theta, factors.a, factors.L_inverse, s, edge)
        diagnostics = self._told(rows, state, dataset.space, found, told) | {
            "negative_log_posterior": None if np.isnan(loss) else float(loss),
            "jitter": factors.jitter,
        }
        return FittedSurrogate(self, dataset.space, state, diagnostics)

    def _state(
        self,
        space: SearchSpace,
        places: Training,
        theta: np.ndarray,
        a: np.ndarray,
        L_inverse: np.ndarray,
        s: np.ndarray,
        edge: float,
    ) -> GPState:
        n, d = places.U.shape
        N = bucket(n)
        return GPState(
            U=padded(places.U, N),
            n_choices=space.n_choices,
            categories=np.flatnonzero(space.n_choices),
            s=np.append(s, np.full(N - n, np.inf)),
            a=padded(a, N),
            L_inverse=padded(L_inverse, *(N * (1 + d if a.ndim == 2 else 1),) * 2),
            lengthscales=np.exp(theta[:d]),
            output_scale=np.exp(theta[d]),
            noise=np.exp(theta[d + 1]),
            edge=np.float64(edge),
            is_sparse=np.asarray(False),
            output=places.output,
        )

    def _told(
        self, rows: Training, state: GPState, space: SearchSpace, found: Found, told: list[str]
    ) -> dict[str, Any]:
        return {
            "n_rows": len(rows.each),
            "n_places": len(rows.z),
            "modes": found.losses[np.isfinite(found.losses)].tolist(),
            "likelihoods": found.n_evaluations,
            "fallbacks": [*told, *found.told],
            "lengthscales": dict(zip(space.names, state.lengthscales.tolist(), strict=True)),
            "output_scale": float(state.output_scale),
            "noise": float(state.noise),
            "stretch": float(state.output.calibration),
        }


def _said(spec: GPSurrogate) -> str:
    return f"{spec.transform}, {spec.kernel}, {spec.output_scale} scale"
