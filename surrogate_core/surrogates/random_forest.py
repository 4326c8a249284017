"""A random forest whose splits are soft: scikit-learn grows the trees, JAX routes a point down all of them at once.

Each tree stands as a full binary tree of depth D, in which a split that it does not have sends all to the left. A point
x goes left at a split of feature f and threshold t with the probability g = 1 / (1 + exp((x_f - t) / tau)), so the
value of a node is the mixture of those of its children, and the prediction, the mean over the trees' roots, has a
gradient. As the temperature tau goes to 0 it becomes that of scikit-learn.

Notation: T: trees; D: their depth; F: (n, M) features (`training`).

Sources: Breiman (2001), "Random forests", Mach. Learn. 45, 5; the soft routing is that of Irsoy, Yildiz & Alpaydin
(2012), ICPR, "Soft decision trees"; the spread of trees and leaves that of Hutter et al. (2014), Artif. Intell. 206,
79, section 4.3.2.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from surrogate_core.dataset import Dataset
from surrogate_core.precision import float64
from surrogate_core.surrogates.base import Estimate, FittedSurrogate, Surrogate
from surrogate_core.surrogates.errors import farness, learned_errors, variance
from surrogate_core.surrogates.output import AnyArray, Output
from surrogate_core.surrogates.support import Support, extrapolation, neighbours, support_of
from surrogate_core.surrogates.training import Training, columns, features_at, training

DEEPEST = 12
MOST_JUDGED = 128  # rows whose out-of-bag errors teach the uncertainty
PRIOR = np.array([1.0, 0.1, 0.3])  # of the weights of the spread of trees, of leaves, and of the distance
PART = 8  # rows that are routed at once within a fit


class Forest(NamedTuple):
    """T trees of depth D, level by level: of the 2^l nodes of level l, those to the left of the others come first.

    feature, threshold: (T, 2^D - 1), the threshold infinite where there is no split; value, square: (T, 2^D) mean and
    mean square of z in each leaf; an early leaf stands at all places below it.
    """

    feature: AnyArray
    threshold: AnyArray
    value: AnyArray
    square: AnyArray


class ForestState(NamedTuple):
    """What predicts.

    group, choice: (M,) of each feature; c: (3,) weights of the signals; noise: variance of z.
    """

    forest: Forest
    temperature: AnyArray
    group: AnyArray
    choice: AnyArray
    support: Support
    c: AnyArray
    noise: AnyArray
    output: Output


@dataclass(frozen=True)
class RandomForestSurrogate(Surrogate):
    """A random forest with soft splits.

    Its uncertainty is a weighted sum of the spread of the trees, of the spread within leaves, and of the distance from
    the data; the weights are what out-of-bag errors tell. Derivatives in the data are not learned.

    Args:
        transform: of the output, as of every surrogate, but for "auto".
        n_estimators: trees.
        max_depth: of each; beyond 8 they cost more and bring little where splits are soft.
        min_samples_leaf: rows, at least, that a leaf has.
        max_features: the share of the variables that each split may choose from.
        temperature: of the soft splits in units of the unit cube; a split is blurred over about six times as much.

    Raises:
        ValueError: a value is out of its range.
    """

    kind: ClassVar[str] = "random_forest"
    State: ClassVar[type] = ForestState
    chunk: ClassVar[int] = 64
    searched: ClassVar[Mapping[str, Sequence[Any]]] = {
        "temperature": (0.03, 0.01, 0.1),
        "max_features": (1.0, 0.5),
        "transform": ("standardize", "log"),
    }

    n_estimators: int = 100
    max_depth: int = 8
    min_samples_leaf: int = 1
    max_features: float = 1.0
    temperature: float = 0.03

    def __post_init__(self) -> None:
        self._check_transform(auto=False)
        self._check_range("n_estimators", 1, 10_000, whole=True)
        self._check_range("max_depth", 1, DEEPEST, whole=True)
        self._check_range("min_samples_leaf", 1, np.inf, whole=True)
        self._check_range("max_features", 0.01, 1.0)
        self._check_range("temperature", 1e-6, 1.0)

    @float64
    def fit(self, dataset: Dataset, key: Array | None = None, start: FittedSurrogate | None = None) -> FittedSurrogate:
        from sklearn.ensemble import RandomForestRegressor  # takes a second to import

        seed = np.asarray(jax.random.key_data(jax.random.key(0) if key is None else key))
        rows = training(dataset, self.transform, slopes=False)
        told = list(rows.told)
        if dataset.gradients is not None:
            told.append("derivatives left out: a forest learns none")
        grown = RandomForestRegressor(
            self.n_estimators,
            max_depth=self.max_depth,
            min_samples_leaf=self.min_samples_leaf,
            max_features=float(self.max_features),  # of a whole 1 it would make a single variable
            random_state=int(np.random.default_rng(seed).integers(2**31)),
        ).fit(rows.F, rows.z, sample_weight=rows.weight)
        forest = flatten(grown.estimators_, self.max_depth)
        relevance = np.sqrt(np.bincount(rows.group, grown.feature_importances_, dataset.n_dims))
        support = support_of(rows, dataset.space.n_choices, relevance)
        c, noise, n_judged = _errors(rows, forest, self.temperature, support, grown.estimators_samples_)
        group, choice = columns(dataset.space.n_choices)
        state = ForestState(
            forest, np.float64(self.temperature), group, choice, support, c, np.float64(noise), rows.output
        )
        diagnostics = {
            "n_rows": len(rows.each),
            "n_places": len(rows.z),
            "n_leaves": int(sum(tree.get_n_leaves() for tree in grown.estimators_)),
            "depth": int(max(tree.get_depth() for tree in grown.estimators_)),
            "out_of_bag_rows": n_judged,
            "fallbacks": told,
            "lengthscales": dict(zip(dataset.space.names, support.scale.tolist(), strict=True)),
            "error_weights": dict(zip(("trees", "leaves", "distance"), c.tolist(), strict=True)),
            "noise": noise,
        }
        return FittedSurrogate(self, dataset.space, state, diagnostics)

    def estimate(self, n_samples: int, n_dims: int, derivatives: bool = False) -> Estimate:
        sorted_rows = n_samples * math.log2(n_samples + 1) * max(1.0, n_dims * self.max_features)
        memory = 110 + 3.4e-5 * self.chunk * self.n_estimators * 2**self.max_depth + 1e-3 * n_samples
        return Estimate(memory, self.n_estimators * (1.5e-3 + 3.5e-8 * sorted_rows), once_s=1.0)

    def latent(self, state: ForestState, u: Array) -> tuple[Array, Array]:
        x = features_at(jnp, u, state.support.n_choices, state.group, state.choice)
        means, squares = routed(jnp, state.forest, x, state.temperature)
        m = jnp.mean(means)
        trees = jnp.mean((means - m) ** 2)
        leaves = jnp.mean(jnp.maximum(squares - means**2, 0.0))
        signals = jnp.stack([trees, leaves, farness(jnp, extrapolation(state.support, u))])
        return m, variance(signals, state.c)

    @property
    def traced(self) -> "RandomForestSurrogate":
        return RandomForestSurrogate(transform=self.transform)


def flatten(trees: Any, depth: int) -> Forest:
    """Fitted trees of scikit-learn, none deeper than depth, as one full tree each."""
    T = len(trees)
    parts = [tree.tree_ for tree in trees]
    offset = np.cumsum([0] + [part.node_count for part in parts[:-1]])

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    left, right, feature, threshold = (joined(n) for n in ("children_left", "children_right", "feature", "threshold"))
    value, impurity = np.concatenate([part.value[:, 0, 0] for part in parts]), joined("impurity")
    of_tree = np.repeat(offset, [part.node_count for part in parts])
    is_leaf = left < 0
    down = {"left": np.where(is_leaf, np.arange(len(left)), left + of_tree), "right": right + of_tree}
    down["right"] = np.where(is_leaf, np.arange(len(left)), down["right"])
    features, thresholds = np.zeros((T, 2**depth - 1), dtype=int), np.full((T, 2**depth - 1), np.inf)
    nodes = offset[:, None]  # of each place of the level; an early leaf stands for all below it
    for level in range(depth):
        here = slice(2**level - 1, 2 ** (level + 1) - 1)
        splits = ~is_leaf[nodes]
        features[:, here] = np.where(splits, feature[nodes], 0)
        thresholds[:, here] = np.where(splits, threshold[nodes], np.inf)
        nodes = np.concatenate([down["left"][nodes], down["right"][nodes]], axis=1)
    return Forest(features, thresholds, value[nodes], (impurity + value**2)[nodes])


def routed(xp: Any, forest: Forest, x: AnyArray, temperature: AnyArray) -> tuple[AnyArray, AnyArray]:
    """(..., T) mean and mean square of z by each tree, of features (..., M): from the leaves up to the root."""
    mean, square = forest.value, forest.square
    n = mean.shape[1] // 2
    while n:
        level = slice(n - 1, 2 * n - 1)
        g = 0.5 + 0.5 * xp.tanh((forest.threshold[:, level] - x[..., forest.feature[:, level]]) / (2 * temperature))
        mean = mean[..., n:] + g * (mean[..., :n] - mean[..., n:])
        square = square[..., n:] + g * (square[..., :n] - square[..., n:])
        n //= 2
    return mean[..., 0], square[..., 0]


def _errors(
    rows: Training, forest: Forest, temperature: float, support: Support, samples: list[np.ndarray]
) -> tuple[np.ndarray, float, int]:
    """c and e that the errors of trees at rows which they have not seen teach, and of how many rows."""
    n = len(rows.z)
    out = np.ones((n, len(samples)), dtype=bool)
    for t, seen in enumerate(samples):
        out[seen, t] = False
    judged = np.flatnonzero(out.sum(axis=1) >= 2)
    if len(judged) > MOST_JUDGED:
        judged = np.sort(np.random.default_rng(0).choice(judged, MOST_JUDGED, replace=False))
    r, signals = np.zeros(len(judged)), np.zeros((len(judged), len(PRIOR)))
    for first in range(0, len(judged), PART):
        part = judged[first : first + PART]
        means, squares = routed(np, forest, rows.F[part], temperature)
        w = out[part] / out[part].sum(axis=1, keepdims=True)
        m = np.sum(w * means, axis=1)
        here = slice(first, first + len(part))
        r[here] = rows.z[part] - m
        signals[here, 0] = np.sum(w * (means - m[:, None]) ** 2, axis=1)
        signals[here, 1] = np.sum(w * np.maximum(squares - means**2, 0.0), axis=1)
    signals[:, 2] = farness(np, neighbours(rows, support)[0][judged])
    c, e = learned_errors(r, signals, rows.weight[judged], PRIOR)
    return c, e, len(judged)
