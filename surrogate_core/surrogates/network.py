"""Training of an ensemble of multilayer perceptrons: its members in one `vmap`, all epochs in one `scan`.

Members that are trained together see the same batches; they differ in their first weights, in the rows that each holds
out, and in their dropout. Each keeps the weights at which the values of its own held-out rows were predicted best, and
has ended when these have not been predicted better for a while.

Notation: E: members; N: rows, padded to a bucket; M: features; P: parameters of a member, one flat vector, or its
parts: W and b of each layer; f: a member's output; x: (M,) features; u: (d,) the unit-cube point; g: (d,) known
derivatives by u.

Sources: Lakshminarayanan et al. (2017), arXiv:1612.01474 (deep ensembles); Loshchilov & Hutter (2019),
arXiv:1711.05101 (AdamW); Srivastava et al. (2014), JMLR 15, 1929 (dropout); Czarnecki et al. (2017), arXiv:1706.04859,
eq. 1 (values and gradients matched together); Trabucco et al. (2021), arXiv:2107.06882, eq. 3 (the conservative term).
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from surrogate_core.surrogates.output import AnyArray
from surrogate_core.surrogates.training import features_at

ACTIVATIONS = {"gelu": jax.nn.gelu, "relu": jax.nn.relu, "tanh": jnp.tanh, "silu": jax.nn.silu}
DESCENT_STEPS = 10  # of the adversary of the conservative term
DESCENT_RATE = 0.05  # the length of its steps in unit-cube units, times the root of d


class Design(NamedTuple):
    """What a compiled program of training depends on, beside the shapes of its arrays; fields of `NeuralSurrogate`."""

    hidden_layers: tuple[int, ...]
    activation: str
    dropout_rate: float
    weight_decay: float
    gradient_weight: float
    conservative_weight: float
    batch_size: int


class Rows(NamedTuple):
    """What is learned: rows in no special order, of which the first n are rows and the others padding.

    U: (N, d); z: (N,); weight: (N,); slopes: (N, d), NaN where unknown, or None; steepness: their mean square;
    n_choices, group, choice: of features; train: (E, N) 1 where a member learns a row, else 0; held: (E, V) the rows
    that a member is judged by, filled up with any; judged: (E, V) 1 where that is one, else 0.
    """

    U: AnyArray
    z: AnyArray
    weight: AnyArray
    slopes: AnyArray
    steepness: AnyArray
    n: AnyArray
    n_choices: AnyArray
    group: AnyArray
    choice: AnyArray
    train: AnyArray
    held: AnyArray
    judged: AnyArray


class Learner(NamedTuple):
    """An ensemble on its way, its weights in parts: slopes by one flat vector would be put together in every step.

    weights: (E, ...) each; rule: AdamW's moments; best, best_loss: (E, ...) each and (E,) of the held-out rows; since:
    (E,) epochs since then.
    """

    weights: Any
    rule: Any
    best: Any
    best_loss: AnyArray
    since: AnyArray


def initial_weights(n_features: int, sizes: Sequence[int], n_members: int, rng: np.random.Generator) -> np.ndarray:
    """(E, P): each layer's weights uniform with the variance 1 / inputs, its biases with a third of it.

    LeCun et al. (1998), "Efficient BackProp", eq. 16; biases that differ spread the units over the box.
    """
    parts = []
    for a, b in layers(n_features, sizes):
        edge = np.sqrt(3 / a)
        parts += [rng.uniform(-edge, edge, (n_members, a * b)), rng.uniform(-1, 1, (n_members, b)) / np.sqrt(a)]
    return np.concatenate(parts, axis=1)


def begun(sizes: Sequence[int], weights: np.ndarray, n_features: int) -> Learner:
    """Before the first epoch, of weights (E, P)."""
    E, parts = len(weights), _parts(sizes, weights, n_features)
    rule = jax.tree.map(np.asarray, _first_moments(parts))
    return Learner(parts, rule, parts, np.full(E, np.inf), np.zeros(E, dtype=int))


def best_weights(learner: Learner) -> np.ndarray:
    """(E, P)."""
    E = len(learner.since)
    return np.concatenate([np.reshape(part, (E, -1)) for part in jax.tree.leaves(learner.best)], axis=1)


def value(sizes: tuple[int, ...], activation: str, weights: Array, x: Array, keep: Any = None) -> Array:
    """f of features x, (M,), by one member's weights, (P,); keep: for each hidden layer what its outputs are times."""
    return _output(activation, _parts(sizes, weights, len(x)), x, keep)


def _parts(sizes: Sequence[int], weights: AnyArray, M: int) -> list[tuple[AnyArray, AnyArray]]:
    """W and b of each layer, of weights (..., P)."""
    parts, at = [], 0
    for a, b in layers(M, sizes):
        W, bias = weights[..., at : at + a * b], weights[..., at + a * b : at + a * b + b]
        parts.append((W.reshape(*W.shape[:-1], a, b), bias))
        at += a * b + b
    return parts


def _output(activation: str, parts: list[tuple[AnyArray, AnyArray]], x: Array, keep: Any) -> Array:
    for layer, (W, bias) in enumerate(parts):
        x = x @ W + bias
        if layer < len(parts) - 1:
            x = ACTIVATIONS[activation](x)
            x = x if keep is None else x * keep[layer]
    return x[0]


@partial(jax.jit, static_argnums=(0, 1))
def values(sizes: tuple[int, ...], activation: str, weights: Array, features: Array) -> Array:
    """(E, n) f of each member, at features (n, M)."""
    return jax.vmap(lambda w: jax.vmap(lambda x: value(sizes, activation, w, x))(features))(weights)


def inputs(features: AnyArray) -> AnyArray:
    """Features as a network takes them: so near 0 that the first functions are smooth."""
    return features - 0.5


@partial(jax.jit, static_argnums=0)
def train(
    design: Design, learner: Learner, rows: Rows, key: Array, rates: Array, patience: Array
) -> tuple[Learner, Array]:
    """Epochs as many as rates, of which one whose rate is 0 is left out.

    Returns:
        The ensemble, and (epochs, E) mean squared errors of the rows held out, NaN where nothing was done.
    """

    def epoch(learner: Learner, now: tuple[Array, Array]) -> tuple[Learner, Array]:
        number, rate = now
        is_on = (rate > 0) & jnp.any(learner.since < patience)
        nothing = jnp.full(len(learner.since), jnp.nan)
        return jax.lax.cond(
            is_on,
            lambda: _epoch(design, learner, rows, jax.random.fold_in(key, number), rate, patience),
            lambda: (learner, nothing),
        )

    return jax.lax.scan(epoch, learner, (jnp.arange(len(rates)), rates))


def _epoch(
    design: Design, learner: Learner, rows: Rows, key: Array, rate: Array, patience: Array
) -> tuple[Learner, Array]:
    B, N, E = design.batch_size, len(rows.z), len(learner.since)
    shuffle, dropout = jax.random.split(key)
    # The rows in a new order, then the padding.
    order = jnp.argsort(jnp.where(jnp.arange(N) < rows.n, jax.random.uniform(shuffle, (N,)), 2.0))
    order = jnp.concatenate([order, jnp.full(-N % B, N - 1)])
    rule = _rule(design.weight_decay)

    def step(i: Array, carried: tuple[Any, Any]) -> tuple[Any, Any]:
        weights, state = carried
        batch = jax.lax.dynamic_slice(order, (i * B,), (B,))
        real = (i * B + jnp.arange(B) < rows.n) * rows.train[:, batch]
        keys = jax.random.split(jax.random.fold_in(dropout, i), E) if design.dropout_rate else None
        slope = jax.grad(partial(_loss, design, rows), argnums=1)
        slopes = jax.vmap(slope, in_axes=(None, 0, 0, 0 if design.dropout_rate else None))(batch, weights, real, keys)
        moves, state = jax.vmap(rule.update)(slopes, state, weights)
        return jax.tree.map(lambda w, move: w - rate * move, weights, moves), state

    n_steps = (rows.n + B - 1) // B
    weights, state = jax.lax.fori_loop(0, n_steps, step, (learner.weights, learner.rule))
    judge = partial(_loss, design._replace(conservative_weight=0.0), rows._replace(slopes=None))
    held = jax.vmap(judge)(rows.held, weights, rows.judged)
    active = learner.since < patience
    better = active & ((held < learner.best_loss) | ~jnp.any(rows.judged > 0))  # who holds out nothing keeps the last
    since = jnp.where(better, 0, learner.since + active)
    best = jax.vmap(lambda is_better, *both: jax.tree.map(partial(jnp.where, is_better), *both))(
        better, weights, learner.best
    )
    told = Learner(weights, state, best, jnp.where(better, held, learner.best_loss), since)
    return told, held


def _loss(design: Design, rows: Rows, batch: Array, parts: Any, share: Array, key: Array | None = None) -> Array:
    """Of one member on some rows; share: (B,) what part of each counts; dropout by the key."""
    w = share * rows.weight[batch]
    w = w / jnp.maximum(w.sum(), 1e-300)
    keep = _kept(design, len(batch), key)

    def f(u: Array, keep: Any) -> Array:
        x = inputs(features_at(jnp, u, rows.n_choices, rows.group, rows.choice))
        return _output(design.activation, parts, x, keep)

    U = rows.U[batch]
    if rows.slopes is None:
        y = jax.vmap(f)(U, keep)
        loss = w @ (y - rows.z[batch]) ** 2
    else:
        y, by_u = jax.vmap(jax.value_and_grad(f))(U, keep)
        g = rows.slopes[batch]
        known = jnp.isfinite(g)
        off = jnp.where(known, by_u - jnp.where(known, g, 0.0), 0.0)
        loss = w @ (y - rows.z[batch]) ** 2 + design.gradient_weight * (w @ jnp.mean(off**2, axis=1)) / rows.steepness
    if design.conservative_weight:
        below = jax.vmap(lambda u: f(jax.lax.stop_gradient(_descended(lambda at: f(at, None), u)), None))(U)
        loss = loss + design.conservative_weight * (w @ (y - below))
    return loss


def _descended(f: Callable[[Array], Array], u: Array) -> Array:
    """Where steps of one length down the prediction lead within the box: what an optimizer would make of it."""

    def step(_: int, at: Array) -> Array:
        slope = jax.grad(f)(at)
        size = jnp.sqrt(jnp.sum(slope**2) + 1e-30)
        return jnp.clip(at - DESCENT_RATE * len(u) ** 0.5 * slope / size, 0.0, 1.0)

    return jax.lax.fori_loop(0, DESCENT_STEPS, step, u)


def _kept(design: Design, n: int, key: Array | None) -> Any:
    """For each hidden layer, (n, width), what its outputs are multiplied by: 0 of the share that is dropped."""
    if key is None or not design.dropout_rate:
        return None
    p = 1 - design.dropout_rate
    keys = jax.random.split(key, len(design.hidden_layers))
    return [jax.random.bernoulli(k, p, (n, b)) / p for k, b in zip(keys, design.hidden_layers, strict=True)]


@jax.jit
def _first_moments(weights: Any) -> Any:
    return jax.vmap(_rule(0.0).init)(weights)


def _rule(weight_decay: float) -> optax.GradientTransformation:
    return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(weight_decay))


def layers(n_features: int, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Inputs and outputs of each layer."""
    widths = (n_features, *sizes, 1)
    return list(itertools.pairwise(widths))
