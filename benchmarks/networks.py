"""The neural network against a plain training loop in JAX and scikit-learn's `MLPRegressor`; eight members against one.

    python -m benchmarks.networks

All train the same network on the same rows for as many epochs with the same batches and rate, which is constant. Ours
also holds out an eighth of the rows, by which it keeps the best weights and learns its uncertainty, within the time
that is told. The plain loop takes half a minute a fit and is run on some problems.
"""

import inspect
import itertools
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from benchmarks.designs import design
from benchmarks.rows import ROOT, journal, judged, options, row, sources
from surrogate_core import Dataset, NeuralSurrogate, SearchSpace
from tasks.machine import machine

LAYERS, EPOCHS, BATCH, RATE = (32, 32, 32), 100, 32, 0.005
ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh}
PROBLEMS = ("branin", "hartmann6", "borehole", "ackley2", "wing_weight", "coating")
LOOPED = PROBLEMS[:3]
N, SIZES, FITS = 200, (200, 1000), 3
LOOP_TIMES, SKLEARN_TIMES, EIGHT_TIMES = 100.0, 3.0, 4.0  # what is required


def plain_loop(U: np.ndarray, z: np.ndarray, activation: str, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """As tutorials have it: nothing is compiled."""
    key = jax.random.key(seed)
    sizes = (U.shape[1], *LAYERS, 1)
    params = []
    for a, b in itertools.pairwise(sizes):
        key, own = jax.random.split(key)
        params.append((jax.random.normal(own, (a, b)) * (2 / a) ** 0.5, jnp.zeros(b)))

    def predict(params: list[tuple[jax.Array, jax.Array]], x: jax.Array) -> jax.Array:
        for W, b in params[:-1]:
            x = ACTIVATIONS[activation](x @ W + b)
        W, b = params[-1]
        return (x @ W + b)[:, 0]

    def loss(params: list[tuple[jax.Array, jax.Array]], x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((predict(params, x) - y) ** 2)

    optimizer = optax.adam(RATE)
    state = optimizer.init(params)
    rng = np.random.default_rng(seed)
    x, y = jnp.asarray(U), jnp.asarray(z)
    for _ in range(EPOCHS):
        order = rng.permutation(len(U))
        for i in range(0, len(U), BATCH):
            batch = order[i : i + BATCH]
            grads = jax.grad(loss)(params, x[batch], y[batch])
            updates, state = optimizer.update(grads, state)
            params = optax.apply_updates(params, updates)
    return lambda at: np.asarray(predict(params, jnp.asarray(at)))


def scikit_learns(U: np.ndarray, z: np.ndarray, activation: str, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """At its defaults, but for what is the same for all; it never ends early."""
    model = MLPRegressor(
        hidden_layer_sizes=LAYERS,
        activation=activation,
        batch_size=BATCH,
        learning_rate_init=RATE,
        max_iter=EPOCHS,
        n_iter_no_change=EPOCHS,
        random_state=seed,
    )
    return model.fit(U, z).predict


def ours(U: np.ndarray, z: np.ndarray, activation: str, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """One member."""
    spec = NeuralSurrogate(
        hidden_layers=LAYERS,
        activation=activation,
        ensemble_size=1,
        n_epochs=EPOCHS,
        batch_size=BATCH,
        learning_rate=RATE,
        schedule="constant",
    )
    return spec.fit(_dataset(U, z), jax.random.key(seed)).predict


MAKERS = {"plain loop": plain_loop, "MLPRegressor": scikit_learns, "ours": ours}


def trained(problem: str, activation: str) -> dict[str, dict[str, float]]:
    """Seconds and RMSE of each, the median of all fits but the first, which compiles what is compiled."""
    data = design(problem, N)
    mean, scale = data.y.mean(), data.y.std()
    told = {}
    for name, make in MAKERS.items():
        if name == "plain loop" and problem not in LOOPED:
            continue
        seconds, errors = [], []
        for seed in range(FITS):
            began = time.perf_counter()
            predict = make(data.U[seed], (data.y[seed] - mean) / scale, activation, seed)
            seconds.append(time.perf_counter() - began)
            errors.append(float(np.sqrt(np.mean((predict(data.U_test) - (data.y_test - mean) / scale) ** 2))))
        told[name] = {"s": float(np.median(seconds[1:])), "rmse": float(np.mean(errors))}
    return told


def members(n: int) -> dict[str, float]:
    """Seconds of a fit of one member and of eight, at the defaults, the median of all but the first."""
    U = np.random.default_rng(0).random((FITS, n, 6))
    data = [_dataset(at, np.sin(5 * at[:, 0]) + at[:, 1] * at[:, 2]) for at in U]
    told = {}
    for size in (1, 8):
        seconds = []
        for one in data:
            began = time.perf_counter()
            NeuralSurrogate(ensemble_size=size).fit(one)
            seconds.append(time.perf_counter() - began)
        told[str(size)] = float(np.median(seconds[1:]))
    return told


def main(arguments: Sequence[str] = ()) -> None:
    """Prints the peers' code, a row each, and what was required."""
    versions = {name: version(name) for name in ("jax", "optax", "scikit-learn")}
    warnings.filterwarnings("ignore", category=ConvergenceWarning)  # it ends when it is told to
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    for maker in MAKERS.values():
        print(inspect.getsource(maker))
    asked = options("benchmarks.networks", arguments)
    about = (sources(ROOT / "surrogate_core", ROOT / "benchmarks"), machine(), versions)
    rows, ratios = [], []
    with journal("networks", about, asked.fresh) as done:
        print(f"{N} rows, {EPOCHS} epochs     seconds, and RMSE by the deviation of y: {', '.join(MAKERS)}")
        for activation in list(ACTIVATIONS)[: 1 if asked.quick else None]:
            for problem in PROBLEMS[: 1 if asked.quick else None]:
                told = row(done, f"{activation}/{problem}", partial(trained, problem, activation))
                rows.append({name: told[name] for name in MAKERS if name in told})
                figures = [f"{of['s']:8.3f} {of['rmse']:6.3f}" if of else 15 * " " for of in map(told.get, MAKERS)]
                print(f"{problem:12s} {activation:11s}", "  ".join(figures), flush=True)
        print("members   rows        1        8   times")
        for n in SIZES[: 1 if asked.quick else None]:
            two = row(done, f"members/{n}", partial(members, n))
            ratios.append(two["8"] / two["1"])
            print(f"{'':9s} {n:5d} {two['1']:8.3f} {two['8']:8.3f} {ratios[-1]:7.2f}", flush=True)
    print(verdict(rows, ratios))


def verdict(rows: Sequence[dict[str, dict[str, float]]], ratios: Sequence[float]) -> str:
    """Whether ours is as much faster as is required in the median, and no worse in the geometric mean."""
    lines = []
    for name, least in (("plain loop", LOOP_TIMES), ("MLPRegressor", SKLEARN_TIMES)):
        both = [(told[name], told["ours"]) for told in rows if name in told]
        times = np.array([theirs["s"] / own["s"] for theirs, own in both])
        worse = np.array([own["rmse"] / theirs["rmse"] for theirs, own in both])
        mean = np.exp(np.log(worse).mean())
        met = np.median(times) >= least and mean <= 1
        told = (
            f"times faster than {name:12s} {np.median(times):7.1f} ({times.min():.1f} to {times.max():.1f}, at least "
            f"{least:g}); RMSE {mean:.2f} ({worse.min():.2f} to {worse.max():.2f}) of theirs"
        )
        lines.append(judged(told, met))
    met = max(ratios) < EIGHT_TIMES
    lines.append(judged(f"8 members take {max(ratios):.2f} times as long as 1, at most {EIGHT_TIMES:g}", met))
    return "\n".join(lines)


def _dataset(U: np.ndarray, z: np.ndarray) -> Dataset:
    return Dataset(U, z, SearchSpace.from_bounds([(0.0, 1.0)] * U.shape[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
