"""Stacking: a convex combination of surrogates of other kinds, weighted by what they predict of rows left out.

Notation: w: (K,) weights; m_k, v_k: member k's mean and variance of z; P: (n, K) predictions of rows left out.

Sources: Wolpert (1992), Neural Networks 5, 241; that weights are >= 0 is from Breiman (1996), Mach. Learn. 24, 49. That
they sum to 1 keeps the mean of the data where no member knows anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, NamedTuple, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.optimize import nnls

from surrogate_core.dataset import Dataset
from surrogate_core.parallel import in_threads
from surrogate_core.precision import float64
from surrogate_core.surrogates.base import Estimate, FittedSurrogate, Surrogate
from surrogate_core.surrogates.errors import NOISE, learned_errors, variance
from surrogate_core.surrogates.gaussian_process import GPSurrogate
from surrogate_core.surrogates.neural_network import NeuralSurrogate
from surrogate_core.surrogates.output import AnyArray, Output, log_slope
from surrogate_core.surrogates.random_forest import RandomForestSurrogate
from surrogate_core.surrogates.support import Support, support_of
from surrogate_core.surrogates.training import Training, training

MEMBERS: dict[str, type[Surrogate]] = {
    spec.kind: spec for spec in (GPSurrogate, NeuralSurrogate, RandomForestSurrogate)
}
LEAST_WEIGHT = 0.02  # of a member that is kept
FEWEST = 4  # places below which nothing is left out
GROWN = 1.25  # times as many rows, after which what was learned by leaving rows out is learned anew
PRIOR = np.array([1.0, 1.0])  # of the weights of the members' own variance and of that between them
SUM = 1e4  # weight of the equation that the weights sum to 1


@dataclass(frozen=True)
class HybridSurrogate(Surrogate):
    """A weighted mean of other surrogates; the weights are those that predict rows left out best.

    Its uncertainty is a weighted sum of the members' own variance and of that between them; these weights, too, are
    what rows left out tell. Members that would hardly count are dropped.

    Args:
        transform: of the output, as of every surrogate, but for "auto"; members learn what it makes of the output.
        members: surrogates of other kinds, their names, or mappings with a `kind`.
        folds: in which rows are left out.

    Raises:
        ValueError: a value is out of its range.
    """

    kind: ClassVar[str] = "hybrid"
    chunk: ClassVar[int] = min(member.chunk for member in MEMBERS.values())
    searched: ClassVar[Mapping[str, Sequence[Any]]] = {"transform": ("standardize", "log")}

    members: tuple[Any, ...] = (GPSurrogate(), NeuralSurrogate(), RandomForestSurrogate())
    folds: int = 5

    def __post_init__(self) -> None:
        self._check_transform(auto=False)
        self._check_range("folds", 2, np.inf, whole=True)
        if not isinstance(self.members, list | tuple) or not self.members:
            raise ValueError(f"members: expected at least one surrogate, got {self.members!r}")
        object.__setattr__(self, "members", tuple(_member(one) for one in self.members))

    @property
    def state_type(self) -> type:
        of: type = _state_type(tuple(member.state_type for member in self.members))
        return of

    @float64
    def fit(self, dataset: Dataset, key: Array | None = None, start: FittedSurrogate | None = None) -> FittedSurrogate:
        key = jax.random.key(0) if key is None else key
        rows, learned, told = self._learned(dataset)
        n = len(rows.z)
        starts: list[FittedSurrogate | None]
        known = start.diagnostics.get("cross_validated", 0) if start is not None and start.asked == self else 0
        if start is not None and isinstance(start.spec, HybridSurrogate) and n <= GROWN * known:
            kept, before, n = start.spec, start.state, known
            stacked = Stacked(before.weights, before.c, before.noise, start.diagnostics["members"])
            parts = zip(kept.members, before.members, strict=True)
            starts = [FittedSurrogate(spec, dataset.space, state) for spec, state in parts]
        else:
            kept, stacked = self._stacked(rows, learned, key)
            starts = [None] * len(kept.members)
        fits = in_threads(
            lambda k: kept.members[k].fit(learned, jax.random.fold_in(key, k), starts[k]),
            range(len(starts)),
            n_rows=len(rows.z),
        )
        weighted = list(zip(stacked.w, fits, strict=True))
        relevance = np.sum([w / np.asarray(fit.spec.support(fit.state).scale) for w, fit in weighted], axis=0)
        support = support_of(rows, dataset.space.n_choices, relevance)
        kept = replace(kept, members=tuple(fit.spec for fit in fits))
        of, (w, c, e, _) = kept.state_type, stacked
        states = get_type_hints(of)["members"](*(fit.state for fit in fits))
        state = of(states, w, c, np.float64(e), support, rows.output)
        diagnostics = {
            "n_rows": len(rows.each),
            "n_places": len(rows.z),
            "cross_validated": n,
            "members": stacked.told,
            "fallbacks": told + [f"{fit.spec.kind}: {one}" for fit in fits for one in fit.diagnostics["fallbacks"]],
            "lengthscales": dict(zip(dataset.space.names, support.scale.tolist(), strict=True)),
            "error_weights": dict(zip(("own", "between"), np.asarray(c).tolist(), strict=True)),
            "noise": float(e),
        }
        return FittedSurrogate(kept, dataset.space, state, diagnostics, self)

    def estimate(self, n_samples: int, n_dims: int, derivatives: bool = False) -> Estimate:
        parts = [member.estimate(n_samples, n_dims, derivatives) for member in self.members]
        memory, seconds, once = (sum(part) for part in zip(*parts, strict=True))
        return Estimate(0.6 * memory, (self.folds + 1) * seconds, once)

    def latent(self, state: Any, u: Array) -> tuple[Array, Array]:
        parts = zip(self.members, state.members, strict=True)
        told = [_read(of.output, *spec.latent(of, u)) for spec, of in parts]
        m, v = (jnp.stack(part) for part in zip(*told, strict=True))
        return state.weights @ m, variance(_signals(jnp, state.weights, m, v), state.c)

    @property
    def traced(self) -> "HybridSurrogate":
        return HybridSurrogate(self.transform, tuple(member.traced for member in self.members))

    def to_config(self) -> dict[str, Any]:
        members = [member.to_config() for member in self.members]
        return {"kind": self.kind, "transform": self.transform, "members": members, "folds": self.folds}

    def _learned(self, dataset: Dataset) -> tuple[Training, Dataset, list[str]]:
        """The rows, in an order of their own, and as members learn them: z for y."""
        dataset = dataset.in_order
        rows, ok = training(dataset, self.transform), dataset.ok
        slope = np.exp(log_slope(self.transform, rows.output, ok.y))
        gradients = None
        if ok.gradients is not None and rows.slopes is not None:
            gradients = np.where(np.isfinite(rows.slopes[rows.place]), ok.gradients * slope[:, None], np.nan)
        known = rows.known[rows.place]
        noise = None if np.isnan(known).all() else np.sqrt(known)
        return rows, Dataset(ok.X, rows.each, ok.space, gradients=gradients, noise=noise), list(rows.told)

    def _stacked(self, rows: Training, learned: Dataset, key: Array) -> tuple["HybridSurrogate", "Stacked"]:
        """The members to keep, and what rows left out tell of them."""
        n, K = len(rows.z), len(self.members)
        if n < FEWEST:
            w = np.full(K, 1 / K)
            return self, Stacked(w, PRIOR, NOISE, _told(self.members, w, [None] * K))
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        fold = rng.permutation(np.arange(n) % min(self.folds, n))
        _, first = np.unique(rows.place, return_index=True)
        m, v = np.zeros((K, n)), np.zeros((K, n))

        def left_out(job: tuple[int, int]) -> None:
            k, number = job
            out = fold == number
            fitted = self.members[k].fit(learned.take(~out[rows.place]), jax.random.fold_in(key, K + number))
            told = fitted.predictive(learned.X[first[out]])
            m[k, out], v[k, out] = _read(fitted.state.output, told.m, told.v)

        in_threads(left_out, [(k, number) for number in range(fold.max() + 1) for k in range(K)], n_rows=n)
        weight = rows.weight
        w = convex_weights(m.T, rows.z, weight)
        kept = np.flatnonzero(w >= LEAST_WEIGHT)
        told = _told(self.members, w, [float(np.sqrt(np.mean((rows.z - one) ** 2))) for one in m])
        m, v = m[kept], v[kept]
        w = convex_weights(m.T, rows.z, weight)
        c, e = learned_errors(rows.z - w @ m, _signals(np, w, m, v).T, weight, PRIOR)
        return replace(self, members=tuple(self.members[k] for k in kept)), Stacked(w, c, e, told)


class Stacked(NamedTuple):
    """What rows left out tell: w, weights of the members; c, e: of `errors`; told: of each member."""

    w: AnyArray
    c: AnyArray
    e: AnyArray
    told: list[dict[str, Any]]


def convex_weights(P: np.ndarray, z: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(K,) >= 0 of sum 1 with the least weighted sum of squares of z - P w."""
    root = np.sqrt(weight)
    size = SUM * np.linalg.norm(root[:, None] * P) + 1.0
    A = np.vstack([root[:, None] * P, np.full(P.shape[1], size)])
    w, _ = nnls(A, np.append(root * z, size))
    return np.asarray(w / w.sum())


def _read(output: Output, m: AnyArray, v: AnyArray) -> tuple[AnyArray, AnyArray]:
    """A member's m and v in the hybrid's z, which is what it learned for y."""
    return output.shift + output.scale * m, (output.scale * output.calibration) ** 2 * v


def _signals(xp: Any, w: AnyArray, m: AnyArray, v: AnyArray) -> AnyArray:
    """(2, ...): the variance of members, m and v: (K, ...), and that between them."""
    return xp.stack([w @ v, w @ (m - w @ m) ** 2])


def _told(members: Sequence[Surrogate], w: np.ndarray, rmse: Sequence[float | None]) -> list[dict[str, Any]]:
    parts = zip(members, w.tolist(), rmse, strict=True)
    return [{"surrogate": str(spec), "weight": weight, "left_out_rmse": error} for spec, weight, error in parts]


def _member(given: Any) -> Surrogate:
    config = {"kind": given} if isinstance(given, str) else given
    if isinstance(config, Mapping):
        kind, values = config.get("kind"), {name: value for name, value in config.items() if name != "kind"}
        if kind not in list(MEMBERS):
            raise ValueError(f"members: expected a kind of {', '.join(MEMBERS)}, got {kind!r}")
        try:
            given = MEMBERS[kind](**values)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise ValueError(f"members: {kind}: {error}") from error
    if not isinstance(given, Surrogate) or given.kind not in MEMBERS:
        raise ValueError(f"members: expected surrogates of the kinds {', '.join(MEMBERS)}, got {given!r}")
    if given.transform != "standardize":
        raise ValueError(f"members: expected the transform standardize, for the hybrid has its own, got {given}")
    return given


@cache
def _state_type(members: tuple[type, ...]) -> Any:
    """A NamedTuple for members' states of these types."""
    states: Any = NamedTuple("States", [(f"member{k}", state) for k, state in enumerate(members)])  # type: ignore[misc]
    own = {"members": states, "weights": AnyArray, "c": AnyArray, "noise": AnyArray}
    return NamedTuple("HybridState", [*own.items(), ("support", Support), ("output", Output)])
