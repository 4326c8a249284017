"""One row of `benchmarks.large`: `python -m benchmarks.one_large MODEL PROBLEM N D` prints it as JSON."""

import json
import sys
import time
from typing import Any

import jax
import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from benchmarks.large import HGB, N_TEST, data, specs
from benchmarks.one_fit import peak_mb
from surrogate_core import Dataset
from surrogate_core.surrogates import files  # noqa: F401 - imports are no part of what is measured


def one_large(model: str, problem: str, n: int, d: int) -> dict[str, Any]:
    """Seconds, by how much the process has grown, and losses."""
    space, X, y = data(problem, n + N_TEST, d)
    X, y, at, true = X[:n], y[:n], X[n:], y[n:]
    scale = float(y.std())
    jax.jit(lambda x: x + 1)(np.ones(1))  # starts JAX
    before, began = peak_mb(), time.perf_counter()
    if model == HGB:
        fitted = HistGradientBoostingRegressor(random_state=0).fit(X, y)
        told: dict[str, Any] = {"s": time.perf_counter() - began}
    else:
        fitted = specs()[model].fit(Dataset(X, y, space))
        told = {"s": time.perf_counter() - began}
        low, high = fitted.interval(at)
        told |= {
            "coverage": float(np.mean((low <= true) & (true <= high))),
            "nlpd": float(np.log(1 / scale) - fitted.log_density(at, true).mean()),
            "accuracy": fitted.diagnostics.get("accuracy"),
        }
        fitted.gradient(at[:1000])
    rmse = float(np.sqrt(np.mean((fitted.predict(at) - true) ** 2)) / scale)
    return {**told, "rmse": rmse, "mb": peak_mb() - before}


if __name__ == "__main__":
    print(json.dumps(one_large(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
