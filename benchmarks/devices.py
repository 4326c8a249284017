"""Fits and multi-start on the CPU and, where JAX has one, on an accelerator.

    python -m benchmarks.devices

Each device is a process of its own. A Gaussian process is fitted by LAPACK on the CPU in either.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from benchmarks.rows import alone, options
from surrogate_core import Dataset, GPSurrogate, MultiStartOptimizer, NeuralSurrogate, SearchSpace
from surrogate_core.sampling import sample

LIMIT = 1200  # seconds that a device may take
WIDE = NeuralSurrogate(hidden_layers=(256, 256), n_epochs=20)
SMALL_STARTS, MANY_STARTS = MultiStartOptimizer(n_starts=64), MultiStartOptimizer(n_starts=4096, n_screened=4096)


def data(n: int, d: int) -> Dataset:
    """Rows of a smooth function."""
    X = sample("sobol", n, d, seed=0)
    return Dataset(X, np.sin(6 * X[:, 0]) + X[:, 1:].sum(axis=1) ** 2, SearchSpace.from_bounds([(0, 1)] * d))


def works() -> dict[str, Callable[[], Any]]:
    """What is timed."""
    few, many = data(256, 6), data(16_384, 10)
    process, network = GPSurrogate().fit(few), NeuralSurrogate().fit(few)
    return {
        "fit: network, 256 rows": lambda: NeuralSurrogate().fit(few),
        "fit: network of 2 x 256, 16384 rows": lambda: WIDE.fit(many),
        "fit: Gaussian process, 256 rows": lambda: GPSurrogate().fit(few),
        "64 starts: Gaussian process": lambda: SMALL_STARTS.optimize(process),
        "4096 starts: Gaussian process": lambda: MANY_STARTS.optimize(process),
        "64 starts: network": lambda: SMALL_STARTS.optimize(network),
        "4096 starts: network": lambda: MANY_STARTS.optimize(network),
    }


def measured() -> dict[str, float]:
    """Seconds of each on this process's device, the less of two after one that compiles."""
    told = {}
    for name, work in works().items():
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - began)
        told[name] = min(seconds[1:])
    return told


def main(arguments: Sequence[str] = ()) -> None:
    """Prints a row each, with the ratio."""
    if list(arguments) == ["here"]:
        print(json.dumps(measured()))
        return
    options("benchmarks.devices", arguments)
    platforms = list(dict.fromkeys(["cpu", jax.default_backend()]))
    print(f"jax {version('jax')}; {', '.join(f'{one.platform} {one.device_kind}' for one in jax.devices())}")
    told = {one: alone("benchmarks.devices", "here", limit=LIMIT, JAX_PLATFORMS=one) for one in platforms}
    print(f"{'seconds':40s}" + "".join(f"{one:>10s}" for one in platforms))
    for name, own in told["cpu"].items():
        others = "".join(f"{told[one][name]:10.3f}  {own / told[one][name]:5.1f} times" for one in platforms[1:])
        print(f"{name:40s}{own:10.3f}{others}")
    if len(platforms) == 1:
        print("JAX has no accelerator here")


if __name__ == "__main__":
    main(sys.argv[1:])
