"""The performance toolkit against doing without: pools, batches, caches, the profiler, streaming, and a cold start.

`--quick` takes smaller sizes, about two minutes; all of it takes about five. Each row is measured in this run, on this
machine, beside what it is compared with. Finished rows are kept, so a run that was stopped goes on; `--fresh` starts
anew.

Two things are not reached on two cores of 2024. A fit from Prefect's cache is ten times as fast, not twenty: to fit a
Gaussian process to 300 rows takes 0.3 s, and to ask Prefect, and read, check and write the files 0.03 s. And from a
cold start processes would make 100,000 calls of 10 us a little sooner than they are made by the automatic choice, which
does not know how long a function takes to import there, and stays with what cannot lose a second.
"""

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.rows import ROOT, alone, journal, judged, options, row, sources
from surrogate_core import Dataset, GPSurrogate, MultiStartOptimizer, NeuralSurrogate, SearchSpace
from surrogate_core.execution import ExecutorSpec, Pool, open_pool
from surrogate_core.performance import ProfiledOptimizer, SurrogateCache, VectorizedSurrogate, enable_caching
from surrogate_core.performance.profiler import Level
from surrogate_core.surrogates.base import FittedSurrogate
from tasks.machine import machine

SLEEP, SHORT = 0.1, 10e-6
BOUNDS = [(-1.0, 1.0)] * 10
N_STARTS = 4096  # a search of 0.7 s; what a profile costs at least, half a millisecond, shorter ones feel more
LIMIT = 900.0  # seconds of a row in a process of its own
Line = tuple[str, str, str, bool | None]
"""What, against what, the figures, and whether what is required is reached; None where nothing is."""


def sleep(x: np.ndarray) -> float:
    time.sleep(SLEEP)
    return float(x[0])


def short(x: np.ndarray) -> float:
    end = time.perf_counter() + SHORT
    while time.perf_counter() < end:
        pass
    return float(x[0])


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@cache
def fitted(kind: str) -> FittedSurrogate:
    X = np.random.default_rng(0).uniform(-1, 1, (200, 10))
    y = np.sin(3 * X[:, 0]) + (X[:, 1:] ** 2).sum(axis=1)
    spec = GPSurrogate() if kind == "GP" else NeuralSurrogate(n_epochs=50)
    return spec.fit(Dataset(X, y, SearchSpace.from_bounds(BOUNDS)))


# Many calls


def pool_of_sleeps(kind: str, n: int) -> dict[str, float]:
    """Seconds until a pool is warm, and then of n sleeps by two workers."""
    X: Any = np.zeros((n, 2))
    with open_pool(sleep, ExecutorSpec(kind, 2)) as pool:  # type: ignore[arg-type]
        start = seconds(lambda: pool.run(X[:4]))
        return {"start": start - 2 * SLEEP, "s": seconds(lambda: pool.run(X))}


def sleeps(kind: str, quick: bool) -> Iterator[Line]:
    n, many = (40, 100) if quick else (100, 500)
    few = pool_of_sleeps(kind, n)
    serial = seconds(lambda: [sleep(np.zeros(2)) for _ in range(n)])
    told = f"{serial / few['s']:.2f}x ({serial:.1f} s against {few['s']:.2f} s; start {few['start']:.1f} s)"
    yield f"collect {n} of 100 ms, {kind}, 2 workers", "serial: 1.9x", told, serial >= 1.9 * few["s"]
    ideal, took = many * SLEEP / 2, pool_of_sleeps(kind, many)["s"]
    yield (
        f"collect {many} of 100 ms, {kind}",
        "ideal: 1.05",
        f"{took / ideal:.3f} of {ideal:.0f} s",
        took <= 1.05 * ideal,
    )


def short_calls(quick: bool) -> Iterator[Line]:
    n = 20_000 if quick else 100_000
    X = np.random.default_rng(0).uniform(size=(n, 3))
    took: dict[str, list[float]] = {}
    cold = {kind: seconds(lambda: _from_cold(kind, X)) for kind in ("auto", "serial", "processes")}  # noqa: B023
    with (
        multiprocessing.get_context("spawn").Pool(2) as peer,
        open_pool(short, ExecutorSpec("processes", 2)) as ours,
        open_pool(short, ExecutorSpec("auto", 2)) as auto,
        open_pool(short, ExecutorSpec("serial")) as serial,
    ):
        by: dict[str, Callable[[], Any]] = {"Pool.map": lambda: peer.map(short, X)}
        by |= {"processes": partial(_all, ours, X), "auto": partial(_all, auto, X), "serial": partial(_all, serial, X)}
        for work in by.values():
            work()  # warm
        for _ in range(3):
            for name, work in by.items():
                took.setdefault(name, []).append(seconds(work))
    s = {name: min(times) for name, times in took.items()}
    what = f"collect {n} of 10 us, 2 processes, warm"
    told = f"{s['processes'] / s['Pool.map']:.2f} ({s['processes']:.2f} s against {s['Pool.map']:.2f} s)"
    yield what, "multiprocessing.Pool.map: 1.0", told, s["processes"] <= s["Pool.map"]
    best = min(s[name] for name in ("Pool.map", "processes", "serial"))
    told = f"{s['auto'] / best:.2f} of the best ({s['auto']:.2f} s; serial {s['serial']:.2f} s)"
    yield f"collect {n} of 10 us, the automatic choice", "the best, warm: 1.1", told, s["auto"] <= 1.1 * best
    best = min(cold.values())
    told = f"{cold['auto'] / best:.2f} ({', '.join(f'{kind} {s:.2f} s' for kind, s in cold.items())})"
    yield "the same with the pool's start", "the best: 1.1", told, cold["auto"] <= 1.1 * best


def _from_cold(kind: str, X: np.ndarray) -> None:
    with open_pool(short, ExecutorSpec(kind, 2)) as pool:  # type: ignore[arg-type]
        _all(pool, X)


def _all(pool: Pool, X: Any) -> None:
    pool.run_chunks(X, lambda _: None, lambda *_: None)


# Predictions


def vectorized(kind: str, quick: bool) -> Iterator[Line]:
    n = 1000 if quick else 5000
    surrogate, X = fitted(kind), np.random.default_rng(1).uniform(-1, 1, (n, 10))
    batched = VectorizedSurrogate(surrogate, batch_size=1000)
    surrogate.predict(X[0]), batched.predict(X)  # warm
    one_by_one = seconds(lambda: [surrogate.predict(x) for x in X])
    together = min(seconds(lambda: batched.predict(X)) for _ in range(5))
    told = f"{one_by_one / together:.0f}x ({one_by_one:.2f} s against {1e3 * together:.1f} ms)"
    yield f"predict {n} points, d = 10, vectorized, {kind}", "one by one: 100x", told, one_by_one >= 100 * together


def cached(quick: bool) -> Iterator[Line]:
    n = 500 if quick else 3000
    surrogate, rng = fitted("GP"), np.random.default_rng(2)
    distinct = rng.uniform(-1, 1, (n // 10, 10))
    trace = [distinct[i] for i in (*range(len(distinct)), *rng.integers(0, len(distinct), n - len(distinct)))]
    remembering = enable_caching(surrogate, max_size=10_000)
    surrogate.predict(trace[0])
    plain = seconds(lambda: [surrogate.predict(x) for x in trace])
    with_cache = seconds(lambda: [remembering.predict(x) for x in trace])
    store = SurrogateCache(10_000)
    store.set(trace[0], "predict", 1.0)
    lookup = seconds(lambda: [store.get(trace[0], "predict") for _ in range(10_000)]) / 10_000
    told = f"{plain / with_cache:.1f}x ({1e6 * plain / n:.0f} us a point without); a lookup {1e6 * lookup:.1f} us"
    yield f"{n} predictions, 90 % repeats, batch 1", "jitted call: 5x", told, plain >= 5 * with_cache


def pattern_search(predict: Callable[[np.ndarray], Any], x: np.ndarray, n_steps: int) -> None:
    """Compass search: the neighbours along each axis, a step that is halved where none is better."""
    step, best = 0.25, float(predict(x))
    for _ in range(n_steps):
        around = [x + sign * step * axis for axis in np.eye(len(x)) for sign in (1, -1)]
        values = [float(predict(point)) for point in around]
        if min(values) < best:
            x, best = around[int(np.argmin(values))], min(values)
        else:
            step /= 2


def neighbours(quick: bool) -> Iterator[Line]:
    surrogate, told = fitted("GP"), []
    starts = np.random.default_rng(3).uniform(-0.5, 0.5, (2 if quick else 10, 10))
    for ahead in (False, True):
        smart = enable_caching(surrogate, "lru", 10_000, neighbours=ahead)
        pattern_search(smart.predict, starts[0], 2)  # warm
        smart = enable_caching(surrogate, "lru", 10_000, neighbours=ahead)
        began = time.perf_counter()
        for x in starts:
            pattern_search(smart.predict, x, 20)
        took = time.perf_counter() - began
        found = smart.cache.statistics
        told.append(f"hit rate {found['hit_rate']:.2f}, {took:.2f} s")
    yield "pattern search, neighbours precomputed", "lru alone", f"{told[1]}; lru alone: {told[0]}", None


# The profiler


def overhead(level: Level, most: float, quick: bool) -> Iterator[Line]:
    """Of pairs that take turns, since what else the machine does changes by the second."""
    base, ratios = MultiStartOptimizer(n_starts=N_STARTS, n_screened=N_STARTS), []
    profiled = ProfiledOptimizer(base, level)
    for optimizer in (base, profiled):
        optimizer.optimize(fitted("GP"), bounds=BOUNDS)
    for i in range(6 if quick else 30):
        pair = [(base, 0), (profiled, 1)][:: 1 if i % 2 else -1]
        took = {which: seconds(lambda: one.optimize(fitted("GP"), bounds=BOUNDS)) for one, which in pair}  # noqa: B023
        ratios.append(took[1] / took[0])
    cost = 100 * (statistics.median(ratios) - 1)
    spread = np.quantile(100 * (np.array(ratios) - 1), (0.25, 0.75))
    told = f"{cost:+.1f} % (quartiles {spread[0]:+.1f} to {spread[1]:+.1f}, {len(ratios)} pairs)"
    required = f"{most:g} %" if most < 100 else "whatever"
    yield (
        f"search from {N_STARTS} starts, profiled at {level}",
        f"no profiler: {required}",
        told,
        None if most >= 100 else cost <= most,
    )


# Memory


def streaming(quick: bool) -> Iterator[Line]:
    n = 200_000 if quick else 1_000_000
    whole = alone("benchmarks.one_performance", "whole", n, limit=LIMIT)
    streamed = alone("benchmarks.one_performance", "streamed", n, limit=LIMIT)
    part = streamed["mb"] / whole["mb"]
    told = (
        f"{100 * part:.1f} % ({streamed['mb']:.0f} MB, {streamed['s']:.0f} s; {whole['mb']:.0f} MB, {whole['s']:.0f} s)"
    )
    yield f"{n:,} rows, d = 50, streamed: peak memory", "in memory: 15 %", told, part <= 0.15


# Runs


def cache_and_start(quick: bool) -> Iterator[Line]:
    """In a folder of its own: a first run, another seed with compiled code and without, and the first again."""
    with TemporaryDirectory() as folder:
        for name in ("params.yaml", "dvc.yaml"):
            (Path(folder) / name).write_bytes((ROOT / name).read_bytes())
        n = 40 if quick else 300
        settings = ("problem.name=hartmann6", f"collect.n_samples={n}", "tune.n_trials=4", "tune.evaluations=4")
        first, again = (_run(folder, settings) for _ in range(2))
        warm = _run(folder, (*settings, "collect.seed=1"))
        cold = _run(folder, (*settings, "collect.seed=2"), compiled=False)
    for stage in ("fit", "validate"):
        made, served = (one["stages"][stage]["wall_s"] for one in (first, again))
        ratio = made / served
        told = f"{ratio:.0f}x ({made:.2f} s against {1e3 * served:.0f} ms)"
        yield f"{stage} from Prefect's cache, {n} rows", "doing it: 20x, 100 ms", told, ratio >= 20 and served < 0.1
    told = (
        f"{again['seconds']['until_ready']:.1f} s, with the server's own start {first['seconds']['until_ready']:.1f} s"
    )
    yield "surrogate run: start to first work, server up", "-", told, None
    wall, compiled = (
        [sum(stage[name] for stage in one["stages"].values()) for one in (warm, cold)]
        for name in ("wall_s", "compile_s")
    )
    each = [f"stages {s:.1f} s, {c:.1f} s of it compiling" for s, c in zip(wall, compiled, strict=True)]
    told = f"{wall[1] / wall[0]:.2f}x ({'; '.join(each)})"
    yield "second run, new seed, compilation cache", "without", told, None


def _run(folder: str, settings: Sequence[str], compiled: bool = True) -> dict[str, Any]:
    """What `surrogate run --json` tells, with the code that earlier runs have compiled or without."""
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": str(compiled).lower()}
    command = [sys.executable, "-m", "flows", "run", "--json", *(f"-S{one}" for one in settings)]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=LIMIT, check=True)
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


def lines(quick: bool) -> Iterator[tuple[str, Callable[[], Iterator[Line]]]]:
    for kind in ("threads", "processes", "dask"):
        yield f"sleeps/{kind}", partial(sleeps, kind, quick)
    yield "short", partial(short_calls, quick)
    for kind in ("network", "GP"):
        yield f"vectorized/{kind}", partial(vectorized, kind, quick)
    yield "cached", partial(cached, quick)
    yield "neighbours", partial(neighbours, quick)
    levels: Sequence[tuple[Level, float]] = (("basic", 2), ("detailed", 5), ("full", np.inf))
    for level, most in levels:
        yield f"overhead/{level}", partial(overhead, level, most, quick)
    yield "runs", partial(cache_and_start, quick)
    yield "streaming", partial(streaming, quick)


def main(arguments: Sequence[str] = ()) -> None:
    """Prints a row each."""
    asked = options("benchmarks.performance", arguments)
    about = (
        sources(ROOT / "surrogate_core", ROOT / "tasks", ROOT / "flows", ROOT / "benchmarks"),
        machine(),
        asked.quick,
    )
    print(f"{'what':52s} {'against: at least or at most':32s} reached")
    with journal("performance", about, asked.fresh) as done:
        for key, make in lines(asked.quick):
            told = row(done, key, lambda: {"lines": [list(line) for line in make()]})  # noqa: B023
            for what, against, figures, reached in told["lines"]:
                print(judged(f"{what:52s} {against:32s} {figures}", reached), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
