"""A deep ensemble of multilayer perceptrons, whose spread is calibrated by the rows that its members hold out.

Notation: E: members; n: rows; P: parameters of a member; F: (n, M) features (`training`).

Source: Lakshminarayanan et al. (2017), arXiv:1612.01474; that members hold out different rows is cross-validation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from surrogate_core.dataset import Dataset
from surrogate_core.optimizers.gradient_descent import SCHEDULES
from surrogate_core.parallel import in_threads
from surrogate_core.precision import float64
from surrogate_core.space import SearchSpace
from surrogate_core.surrogates.base import Estimate, FittedSurrogate, Surrogate
from surrogate_core.surrogates.errors import NOISE, farness, learned_errors, variance
from surrogate_core.surrogates.network import (
    ACTIVATIONS,
    Design,
    Learner,
    Rows,
    begun,
    best_weights,
    initial_weights,
    inputs,
    layers,
    train,
    value,
    values,
)
from surrogate_core.surrogates.output import AnyArray, Output
from surrogate_core.surrogates.support import Support, bucket, extrapolation, neighbours, padded, support_of
from surrogate_core.surrogates.training import Training, columns, features_at, training

SHARE = 4  # members that one thread trains, however many threads there are
FOLDS = 8  # into which the rows are parted, of which each member holds out one
FEWEST = 5  # rows below which nothing is held out
COMMON = 1000  # rows from which on all members hold out the same, a tenth
MOST_HELD = 2048
N_STEPS = 6000  # of training by default, within these numbers of epochs
EPOCHS = (20, 1000)
BATCHES = (32, 1024)
SHORTER = 4  # how many times fewer epochs a fit has that goes on from another
MOST_PERMUTED = 512  # rows by which the relevance of the variables is told
PRIOR = np.array([1.0, 0.3])  # of the weights of the spread and of the distance


class NetworkState(NamedTuple):
    """What predicts.

    weights: (E, P); group, choice: (M,) of each feature; c: (2,) weights of the signals; noise: variance of z.
    """

    weights: AnyArray
    group: AnyArray
    choice: AnyArray
    support: Support
    c: AnyArray
    noise: AnyArray
    output: Output


@dataclass(frozen=True)
class NeuralSurrogate(Surrogate):
    """An ensemble of neural networks.

    Its uncertainty is a weighted sum of the spread of the members and of the distance from the data; the weights are
    what the errors at held-out rows tell. Derivatives in the data are matched too.

    Args:
        transform: of the output, as of every surrogate, but for "auto".
        hidden_layers: the width of each.
        activation: "silu", "gelu", "tanh" or "relu"; what is followed by its gradient had better be smooth.
        ensemble_size: members.
        n_epochs: of training; by default as many as make 6,000 steps, from 20 to 1,000.
        batch_size: rows a step; by default about twice the root of their number, from 32 to 1,024.
        learning_rate: of AdamW (Loshchilov & Hutter 2019), as the schedule's first or largest.
        schedule: "cosine", "constant", "exponential", "linear", "one_cycle" or "warmup_cosine", over the epochs.
        weight_decay: of AdamW, a step, in units of the rate.
        dropout_rate: the share of hidden units left out in each step.
        patience: epochs without a better prediction of the held-out rows, after which a member has ended; by default
            none ends early. Whichever, the weights of the best epoch are kept.
        gradient_weight: of the squared errors of derivatives, in units of their mean square, beside those of values.
        conservative_weight: how much it counts that the prediction falls where ten steps down its own gradient lead:
            so that it promises less where no data is (Trabucco et al. 2021, arXiv:2107.06882, eq. 3).

    Raises:
        ValueError: a value is out of its range.
    """

    kind: ClassVar[str] = "neural_network"
    State: ClassVar[type] = NetworkState
    chunk: ClassVar[int] = 512
    searched: ClassVar[Mapping[str, Sequence[Any]]] = {
        "hidden_layers": ((32, 32, 32), (64, 64)),
        "activation": ("silu", "tanh"),
        "learning_rate": (0.02, 0.005),
        "transform": ("standardize", "log"),
    }

    hidden_layers: tuple[int, ...] = (32, 32, 32)
    activation: str = "silu"
    ensemble_size: int = 8
    n_epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float = 0.02
    schedule: str = "cosine"
    weight_decay: float = 1e-4
    dropout_rate: float = 0.0
    patience: int | None = None
    gradient_weight: float = 1.0
    conservative_weight: float = 0.0

    def __post_init__(self) -> None:
        self._check_transform(auto=False)
        layers = self.hidden_layers
        if isinstance(layers, list | tuple | np.ndarray):
            layers = tuple(w.item() if isinstance(w, np.integer) else w for w in layers)
            object.__setattr__(self, "hidden_layers", layers)
        if not isinstance(layers, tuple) or not layers or not all(type(w) is int and 1 <= w <= 4096 for w in layers):
            raise ValueError(f"hidden_layers: expected integers from 1 to 4096, at least one, got {layers!r}")
        for name, known in (("activation", ACTIVATIONS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in list(known):
                raise ValueError(f"{name}: expected one of {', '.join(sorted(known))}, got {getattr(self, name)!r}")
        for name in ("n_epochs", "batch_size", "patience"):
            if getattr(self, name) is not None:
                self._check_range(name, 1, np.inf, whole=True)
        self._check_range("ensemble_size", 1, 1024, whole=True)
        self._check_range("learning_rate", 1e-6, 1.0)
        self._check_range("dropout_rate", 0.0, 0.9)
        for name in ("weight_decay", "gradient_weight", "conservative_weight"):
            self._check_range(name, 0.0, 1e6)

    @float64
    def fit(self, dataset: Dataset, key: Array | None = None, start: FittedSurrogate | None = None) -> FittedSurrogate:
        key = jax.random.key(0) if key is None else key
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        rows = training(dataset, self.transform)
        held = _held_out(len(rows.z), self.ensemble_size, rng)
        weights = initial_weights(rows.F.shape[1], self.hidden_layers, self.ensemble_size, rng)
        N = bucket(len(rows.z))
        n_epochs = limit = self.epochs(N)
        if start is not None and isinstance(start.state, NetworkState):
            before = np.asarray(start.state.weights)
            if before.shape == weights.shape and before.any():  # nothing goes on from weights that are all 0
                weights, limit = before, -(-n_epochs // SHORTER)
        losses = np.zeros((0, self.ensemble_size))
        if rows.z.any():
            rates = self.rates(limit, n_epochs)
            learner = begun(self.hidden_layers, weights, rows.F.shape[1])
            learner, losses = self.trained(learner, prepared(rows, dataset.space.n_choices, held, N), key, rates)
            weights = best_weights(learner)
        else:  # nothing to learn: exactly the one value there is
            weights = np.zeros_like(weights)
        told = {
            "n_rows": len(rows.each),
            "n_places": len(rows.z),
            "epochs": int(np.isfinite(losses).any(axis=1).sum()),
            "held_out_loss": np.sqrt(np.nanmin(losses, axis=0)).tolist() if losses.size and held.any() else [],
            "fallbacks": list(rows.told),
        }
        return self.judged(dataset.space, rows, held, weights, rng, told)

    def fit_parquet(
        self,
        path: str | Path,
        memory_budget_mb: float = 512.0,
        space: SearchSpace | None = None,
        target: str = "objective",
        key: Array | None = None,
        progress: Callable[[int, int, float], None] | None = None,
    ) -> FittedSurrogate:
        """Learns a parquet file that may be larger than memory, a chunk of rows at a time.

        Args:
            path: of the file. Rows in it that are sorted had better be in several row groups.
            memory_budget_mb: by how much the process may grow, in MiB.
            space: of its columns; by default what a file of `Dataset.to_bytes` tells.
            target: the column of outputs. Columns `status`, `noise` and `gradient.NAME` are read if they are there.
            key: a `jax.random.key`, which fixes every bit; without one, `jax.random.key(0)`.
            progress: called with the rows learned so far, how many there will be, and the error of the rows held out.

        Raises:
            ValueError: the file is not as expected, has fewer than 1,000 ok rows, or the budget is too small.
        """
        from surrogate_core.surrogates.streaming import fit_parquet

        return fit_parquet(self, path, memory_budget_mb, space, target, key, progress)

    def epochs(self, n: int) -> int:
        """Of training with n rows."""
        return self.n_epochs or int(np.clip(-(-N_STEPS * self.batch(n) // n), *EPOCHS))

    def batch(self, n: int) -> int:
        """Rows a step of n rows."""
        return min(n, self.batch_size or int(np.clip(2 ** round(np.log2(2 * n**0.5)), *BATCHES)))

    def rates(self, n: int, n_epochs: int | None = None) -> np.ndarray:
        """(n_epochs,) by the schedule of n epochs, and 0 after these."""
        number = np.arange(n_epochs or n)
        by_schedule = jax.vmap(SCHEDULES[self.schedule](self.learning_rate, n))(number)
        return np.where(number < n, np.asarray(by_schedule, dtype=float), 0.0)

    def trained(
        self, learner: Learner, rows: Rows, key: Array, rates: np.ndarray, patience: int | None = None
    ) -> tuple[Learner, np.ndarray]:
        """The ensemble after as many epochs as rates, and (epochs, E) held-out losses; members in shares to threads."""
        design = Design(
            self.hidden_layers,
            self.activation,
            self.dropout_rate,
            self.weight_decay,
            self.gradient_weight,
            self.conservative_weight,
            self.batch(len(rows.z)),
        )
        limit = np.int64(patience or self.patience or np.iinfo(np.int64).max)

        @float64
        def trained_share(members: np.ndarray) -> tuple[Learner, np.ndarray]:
            own = {name: getattr(rows, name)[members] for name in ("train", "held", "judged")}
            begin = jax.tree.map(lambda leaf: leaf[members], learner)
            share_key = jax.random.fold_in(key, int(members[0]))
            end, held = train(design, begin, rows._replace(**own), share_key, rates, limit)
            return jax.tree.map(np.asarray, end), np.asarray(held)

        E = len(learner.since)
        done = in_threads(trained_share, np.split(np.arange(E), range(SHARE, E, SHARE)))
        learners, losses = zip(*done, strict=True)
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *learners), np.concatenate(losses, axis=1)

    def judged(
        self,
        space: SearchSpace,
        rows: Training,
        held: np.ndarray,
        weights: np.ndarray,
        rng: np.random.Generator,
        told: dict[str, Any],
    ) -> FittedSurrogate:
        """The fitted surrogate of trained weights, its uncertainty learned from what members predict of held-out rows.

        Args:
            space: of the points.
            rows: that were learned and held out.
            held: (E, n) which rows each member has not learned.
            weights: (E, P).
            rng: of the permutations that tell the relevance of variables.
            told: diagnostics so far.
        """
        group, choice = columns(space.n_choices)

        def members(U: np.ndarray) -> np.ndarray:
            F = features_at(np, U, space.n_choices, group, choice)
            x = inputs(padded(F, bucket(len(F))))
            return np.asarray(values(self.hidden_layers, self.activation, weights, x))[:, : len(F)]

        support = support_of(rows, space.n_choices, _relevance(members, rows.U, rng))
        is_judged = np.flatnonzero(held.any(axis=0))
        c, e = PRIOR, NOISE
        if len(is_judged):
            own = held[:, is_judged]
            r = rows.z[is_judged] - np.sum(members(rows.U[is_judged]) * own, axis=0) / own.sum(axis=0)
            distance, other = neighbours(rows, support)
            # At a row the members that know it agree; halfway to the next row none does.
            between = np.where(space.n_choices > 0, rows.U, (rows.U + rows.U[other]) / 2)[is_judged]
            spread = _spread(np, members(rows.U[is_judged] if own.all() else between))
            S = np.column_stack([spread, farness(np, distance[is_judged])])
            c, e = learned_errors(r, S, rows.weight[is_judged], PRIOR)
        state = NetworkState(weights, group, choice, support, c, np.float64(e), rows.output)
        told |= {
            "held_out_rows": len(is_judged),
            "lengthscales": dict(zip(space.names, support.scale.tolist(), strict=True)),
            "error_weights": dict(zip(("spread", "distance"), c.tolist(), strict=True)),
            "noise": float(e),
        }
        return FittedSurrogate(self, space, state, told)

    def estimate(self, n_samples: int, n_dims: int, derivatives: bool = False) -> Estimate:
        N, E = bucket(n_samples), self.ensemble_size
        sizes = layers(n_dims, self.hidden_layers)
        P, widths = sum((a + 1) * b for a, b in sizes), 1 + sum(a for a, _ in sizes)
        held = bucket(min(n_samples // (10 if n_samples >= COMMON else FOLDS), MOST_HELD))
        visits = self.epochs(N) * (n_samples + held) * (1 + 20 * (self.conservative_weight > 0))
        memory = 200 + 8e-6 * E * (12 * P + 14 * held * widths + 4 * N)
        return Estimate(memory, 0.1 + 2e-10 * visits * E * P, once_s=3.0)

    def latent(self, state: NetworkState, u: Array) -> tuple[Array, Array]:
        x = inputs(features_at(jnp, u, state.support.n_choices, state.group, state.choice))
        f = jax.vmap(lambda w: value(self.hidden_layers, self.activation, w, x))(state.weights)
        signals = jnp.stack([_spread(jnp, f), farness(jnp, extrapolation(state.support, u))])
        return jnp.mean(f), variance(signals, state.c)

    @property
    def traced(self) -> "NeuralSurrogate":
        return NeuralSurrogate(transform=self.transform, hidden_layers=self.hidden_layers, activation=self.activation)


def prepared(rows: Training, n_choices: np.ndarray, held: np.ndarray, N: int) -> Rows:
    """Rows for training, padded to N; held: (E, n)."""
    E, n = held.shape
    group, choice = columns(n_choices)
    V = bucket(int(held.sum(axis=1).max()))
    places, judged = np.zeros((E, V), dtype=int), np.zeros((E, V))
    for e, own in enumerate(held):
        at = np.flatnonzero(own)
        places[e, : len(at)], judged[e, : len(at)] = at, 1.0
    slopes = None if rows.slopes is None else padded(rows.slopes, N)
    return Rows(
        U=padded(rows.U, N),
        z=padded(rows.z, N),
        weight=padded(rows.weight, N),
        slopes=slopes,
        steepness=np.float64(1.0 if slopes is None else np.nanmean(rows.slopes**2) or 1.0),  # type: ignore[operator]
        n=np.int64(n),
        n_choices=n_choices,
        group=group,
        choice=choice,
        train=padded((~held).T.astype(float), N).T,
        held=places,
        judged=judged,
    )


def _held_out(n: int, n_members: int, rng: np.random.Generator) -> np.ndarray:
    """(E, n) which rows each member holds out: the same of very many, else each a part of its own in turn."""
    held = np.zeros((n_members, n), dtype=bool)
    if n >= COMMON:
        held[:, rng.permutation(n)[: min(n // 10, MOST_HELD)]] = True
    elif n >= FEWEST:
        folds = min(FOLDS, n)
        for e in range(n_members):
            if e % folds == 0:
                fold = rng.permutation(np.arange(n) % folds)
            held[e] = fold == e % folds
    return held


def _relevance(members: Callable[[np.ndarray], np.ndarray], U: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(d,) root mean square by which the mean changes where a variable's values are permuted."""
    if len(U) > MOST_PERMUTED:
        U = U[np.sort(rng.choice(len(U), MOST_PERMUTED, replace=False))]
    f = members(U).mean(axis=0)
    told = []
    for j in range(U.shape[1]):
        mixed = U.copy()
        mixed[:, j] = rng.permutation(mixed[:, j])
        told.append(np.sqrt(np.mean((members(mixed).mean(axis=0) - f) ** 2)))
    return np.array(told)


def _spread(xp: Any, f: AnyArray) -> AnyArray:
    """Among members, the first axis; 0 of a single one."""
    return xp.sum((f - xp.mean(f, axis=0)) ** 2, axis=0) / max(len(f) - 1, 1)
