"""One row, in a process of its own: `python -m benchmarks.one_fit PEER PROBLEM N` prints it as JSON.

Imports are done before the clock starts, compilation is not: the first fit of the process is the cold one.
"""

import json
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from benchmarks.designs import N_TIMED, design
from benchmarks.peers import PEERS

PATIENCE = 200.0  # seconds after which a call is not repeated: its only time is then both the cold and the warm one
LEAST = 1e-6  # of y's standard deviation: a claim of less is taken as that, which is kind to who makes it


def one_fit(peer: str, problem: str, n: int) -> dict[str, Any]:
    """Times, losses and memory of a peer."""
    data, kind = design(problem, n), PEERS[peer]
    for module in kind.modules:
        import_module(module)
    before = peak_mb()
    models = [kind() for _ in data.U]
    cold, warm = _clock(models, lambda model, i: model.fit(data, i))
    model = models[0]
    timed = [model.points(data, U) for U in data.timed]
    told = {"fit_cold": cold, "fit": warm, "fit_mb": peak_mb() - before}
    told["mean_cold"], told["mean"] = _clock(timed, lambda U, _: model.mean(U))
    if hasattr(model, "mean_in_chunks"):
        told["mean_in_chunks"] = _clock(timed, lambda U, _: model.mean_in_chunks(U))[1]
    by_one = N_TIMED / kind.n_gradients
    told["gradient"] = by_one * _clock(timed, lambda U, _: model.gradient(U[: kind.n_gradients]))[1]
    told["peak_mb"] = peak_mb() - before
    mean, std = model.predictive(model.points(data, data.U_test))
    std = np.maximum(std, LEAST * data.y_test.std())
    off = data.y_test - mean
    told["rmse"] = float(np.sqrt(np.mean(off**2)))
    told["nlpd"] = float(-norm.logpdf(off, scale=std).mean())
    told["coverage"] = float(np.mean(np.abs(off) <= norm.ppf(0.975) * std))
    return told | model.about(data)


def _clock(items: Any, work: Callable[[Any, int], Any]) -> tuple[float, float]:
    """Seconds of the first call, and the median of those of the others."""
    seconds: list[float] = []
    for i, item in enumerate(items):
        if seconds and seconds[0] > PATIENCE:
            break
        began = time.perf_counter()
        work(item, i)
        seconds.append(time.perf_counter() - began)
    return seconds[0], statistics.median(seconds[1:] or seconds)


def peak_mb() -> float:
    """Most memory that the process ever held; not what getrusage says where it counts the parent's in, as on Linux."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # hyperparameters that are close to their bounds
    print(json.dumps(one_fit(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
