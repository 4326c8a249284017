"""The optimizers against scipy's and BoTorch's: many starts, log expected improvement, and local convergence; designs
from data alone (`benchmarks.offline`), and how often verdicts on designs are right (`benchmarks.trust`).

    python -m benchmarks.optimizers [starts] [acquisition] [local] [offline] [trust] [--quick] [--fresh]

Each row of the first three is a process of its own; finished rows are kept, so a run that was stopped goes on. BoTorch
comes with `make peers`; without it its rows are left out.
"""

import importlib.util
import inspect
import os
import platform
import resource
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from importlib.metadata import version
from multiprocessing import get_context
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from benchmarks import offline, trust
from benchmarks.rows import FOLDER, ROOT, alone, journal, judged, options, row, sources
from surrogate_core import (
    Dataset,
    GPSurrogate,
    GradientDescentOptimizer,
    LBFGSOptimizer,
    MultiStartOptimizer,
    TrustRegionOptimizer,
    load_surrogate,
)
from surrogate_core.acquisition import Form, Weights, acquisition
from surrogate_core.optimizers.loop import follow
from surrogate_core.optimizers.search import Aim
from surrogate_core.problems.analytic import _A6 as A6
from surrogate_core.problems.analytic import _ALPHA as ALPHA
from surrogate_core.problems.analytic import _P6 as P6
from surrogate_core.problems.analytic import branin, hartmann6, levy, rosenbrock, sphere
from surrogate_core.problems.problem import Problem
from surrogate_core.sampling import sample
from surrogate_core.surrogates.base import FittedSurrogate
from tasks.machine import machine

N_ROWS, N_STARTS, N_ITERATIONS = 200, 1000, 100
TOLERANCE, MIN_REDUCTION = 1e-5, 2.2e-9  # scipy's defaults
REPEATS = 5
FITTED = {"rosenbrock": rosenbrock, "levy": levy}  # in ten variables
N_RESTARTS, N_RAW = 16, 1024
SEEDS = range(10)
LOCAL_SEEDS = 20
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
LIMIT = 1200
HAS_BOTORCH = importlib.util.find_spec("botorch") is not None


def fit_of(problem: str) -> FittedSurrogate:
    """A Gaussian process on 200 Sobol points of ten variables, fitted once and read from a folder after that."""
    folder = FOLDER / "optimizers" / f"{problem}-{sources(ROOT / 'surrogate_core')}"
    if not (folder / "model.json").is_file():
        made = FITTED[problem](10)
        X = made.space.decode(sample("sobol", N_ROWS, 10, 0))
        dataset = Dataset(X, np.array([made(made.space.params(x)) for x in X]), made.space)
        GPSurrogate().fit(dataset).save(folder)
    return load_surrogate(folder)


def weights_of(fitted: FittedSurrogate) -> Weights:
    """Improvement is on the least prediction at a row."""
    from surrogate_core.acquisition import Goal

    return Goal("log_expected_improvement").weights(fitted)


@cache
def value_and_gradient(problem: str, form: Form) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """The jitted function that both we and scipy minimize."""
    fitted = fit_of(problem)
    program = jax.jit(jax.value_and_grad(acquisition(form, fitted.spec.traced)))
    weights = weights_of(fitted)

    def fun(u: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = program(u, fitted.state, weights)
        return float(value), np.asarray(slope)

    return fun


def scipys(problem: str, form: Form, starts: np.ndarray) -> list[Any]:
    """scipy's L-BFGS-B, start by start."""
    with jax.enable_x64(True):
        fun, bounds = value_and_gradient(problem, form), [(0, 1)] * starts.shape[1]
        options = {"maxiter": N_ITERATIONS, "gtol": TOLERANCE, "ftol": MIN_REDUCTION}
        found = [minimize(fun, u, jac=True, method="L-BFGS-B", bounds=bounds, options=options) for u in starts]
    return [(float(one.fun), int(one.nfev)) for one in found]


def many_starts(problem: str, form: Form) -> dict[str, Any]:
    """Our one program, scipy one by one, and scipy in a warm pool of two processes, on the same starts."""
    fitted, starts = fit_of(problem), sample("sobol", N_STARTS, 10, 7)
    objective, weights = acquisition(form, fitted.spec.traced), weights_of(fitted)
    own = Weights(*(np.full(N_STARTS, one) for one in weights))
    optimizer = LBFGSOptimizer(max_iterations=N_ITERATIONS, tolerance=TOLERANCE, min_reduction=MIN_REDUCTION)
    before, began = _peak_mb(), time.perf_counter()
    paths = follow(optimizer, objective, starts, fitted.state, own)
    cold, grown = time.perf_counter() - began, _peak_mb() - before
    ours = _median_s(lambda: follow(optimizer, objective, starts, fitted.state, own))
    scipys(problem, form, starts[:2])
    began = time.perf_counter()
    one_by_one = scipys(problem, form, starts)
    serial = time.perf_counter() - began
    halves = np.array_split(starts, 2)
    os.environ |= ONE_THREAD  # without it, two processes on two CPUs take ten times as long
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(partial(scipys, problem, form), [half[:2] for half in halves for _ in range(4)]))  # warm
        began = time.perf_counter()
        list(pool.map(partial(scipys, problem, form), [part for half in halves for part in np.array_split(half, 8)]))
        pooled = time.perf_counter() - began
    theirs = np.array([value for value, _ in one_by_one])
    return {
        "ours_s": ours,
        "cold_s": cold,
        "mb": grown,
        "serial_s": serial,
        "pool_s": pooled,
        "ours_best": float(paths.values.min()),
        "scipy_best": float(theirs.min()),
        "ours_mean": float(paths.values.mean()),
        "scipy_mean": float(theirs.mean()),
        "ours_nfev": float(paths.n_evaluations.mean()),
        "scipy_nfev": float(np.mean([n for _, n in one_by_one])),
    }


def botorchs(fitted: FittedSurrogate, seed: int) -> tuple[np.ndarray, float, float]:
    """BoTorch's optimize_acqf on the same posterior: the point, its seconds, and how far its posterior is from ours."""
    import torch
    from botorch.acquisition import LogExpectedImprovement
    from botorch.models import SingleTaskGP
    from botorch.optim import optimize_acqf
    from gpytorch.kernels import MaternKernel, ScaleKernel

    d, told = fitted.space.n_dims, fitted.diagnostics
    U = np.asarray(fitted.state.U)[np.isfinite(fitted.state.s)]
    z = targets(fitted)
    model = SingleTaskGP(
        torch.tensor(U, dtype=torch.float64),
        torch.tensor(z[:, None], dtype=torch.float64),
        covar_module=ScaleKernel(MaternKernel(nu=2.5, ard_num_dims=d)),
        outcome_transform=None,
    ).double()
    model.covar_module.base_kernel.lengthscale = torch.tensor(np.asarray(fitted.state.lengthscales))
    model.covar_module.outputscale = told["output_scale"]
    model.likelihood.noise = told["noise"]
    model.mean_module.constant.data.fill_(0.0)
    model.eval()
    acquisition_function = LogExpectedImprovement(model, best_f=weights_of(fitted).best, maximize=False)
    bounds = torch.tensor([[0.0] * d, [1.0] * d], dtype=torch.float64)
    torch.manual_seed(seed)
    began = time.perf_counter()
    point, _ = optimize_acqf(acquisition_function, bounds, q=1, num_restarts=N_RESTARTS, raw_samples=N_RAW)
    took = time.perf_counter() - began
    probe = sample("random", 200, d, 5)
    with torch.no_grad():
        mean = model.posterior(torch.tensor(probe)).mean.numpy()[:, 0]
    aim = Aim(fitted, "mean", [Weights(0.0, 0.0, 0.0)])
    apart = float(np.abs(mean - aim.values(probe, np.zeros(200, int))).max())
    return point.numpy()[0], took, apart


def targets(fitted: FittedSurrogate) -> np.ndarray:
    """z of the rows, from the state: K a, which is z without its jitter."""
    state = fitted.state
    n = int(np.isfinite(state.s).sum())
    inverse = np.asarray(state.L_inverse)[:n, :n]
    return np.asarray(np.linalg.solve(inverse.T @ inverse, np.asarray(state.a)[:n]))


def log_improvement(problem: str, seed: int) -> dict[str, Any]:
    """Our multi-start and BoTorch's, maximizing log-EI of one posterior; values by ours."""
    fitted = fit_of(problem)
    aim = Aim(fitted, "log_expected_improvement", [weights_of(fitted)])
    optimizer = MultiStartOptimizer(n_starts=N_RESTARTS, n_screened=N_RAW)
    rows = np.empty((0, 10))
    began = time.perf_counter()
    (ends,), _ = optimizer.search(aim, rows, seed)
    cold = time.perf_counter() - began
    took = _median_s(lambda: optimizer.search(aim, rows, seed))
    told = {"ours_s": took, "cold_s": cold, "ours": -float(ends.values[0])}
    if HAS_BOTORCH:
        botorchs(fitted, seed)  # once, so that what is loaded late is loaded
        found = [botorchs(fitted, seed) for _ in range(3)]
        point, _, apart = found[0]
        value = -float(aim.values(point[None], np.zeros(1, int))[0])
        told |= {"botorch_s": float(np.median([one[1] for one in found])), "botorch": value, "apart": apart}
    return told


def _branin(x: jax.Array) -> jax.Array:
    valley = x[1] - 5.1 / (4 * np.pi**2) * x[0] ** 2 + 5 / np.pi * x[0] - 6
    return valley**2 + 10 * (1 - 1 / (8 * np.pi)) * jnp.cos(x[0]) + 10


def _levy(x: jax.Array) -> jax.Array:
    w = 1 + (x - 1) / 4
    middle = jnp.sum((w[:-1] - 1) ** 2 * (1 + 10 * jnp.sin(np.pi * w[:-1] + 1) ** 2))
    return jnp.sin(np.pi * w[0]) ** 2 + middle + (w[-1] - 1) ** 2 * (1 + jnp.sin(2 * np.pi * w[-1]) ** 2)


def _rosenbrock(x: jax.Array) -> jax.Array:
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (x[:-1] - 1) ** 2)


LOCAL: dict[str, tuple[Callable[[], Problem], Callable[[jax.Array], Any]]] = {
    "sphere10": (partial(sphere, 10), lambda x: jnp.sum(x**2)),
    "rosenbrock2": (partial(rosenbrock, 2), _rosenbrock),
    "rosenbrock10": (partial(rosenbrock, 10), _rosenbrock),
    "branin": (branin, _branin),
    "hartmann6": (hartmann6, lambda x: -ALPHA @ jnp.exp(-jnp.sum(A6 * (x - P6) ** 2, axis=1))),
    "levy4": (partial(levy, 4), _levy),
}
_HOW: dict[str, Any] = {"max_iterations": 500, "tolerance": 1e-8}
OPTIMIZERS = {
    "lbfgs": LBFGSOptimizer(**_HOW),
    "trust_region": TrustRegionOptimizer(**_HOW),
    "adam": GradientDescentOptimizer(**_HOW),
    "nesterov": GradientDescentOptimizer(
        **_HOW, rule="nesterov", schedule="constant", learning_rate=1e-3, adaptive_lr=True
    ),
}
SCIPY_LOCAL = {
    "L-BFGS-B": {"maxiter": 500, "maxfun": 100_000, "gtol": 1e-8, "ftol": 1e-12},
    "TNC": {"maxfun": 1500, "gtol": 1e-8, "ftol": 1e-12},
}


def convergence(name: str) -> dict[str, Any]:
    """How many of 20 random starts end within 1e-6 of the known least value, and what they take in the median."""
    make, traced = LOCAL[name]
    problem = make()
    (low, high), d = problem.space.bounds.T, problem.space.n_dims

    def objective(u: jax.Array, _: Any, __: Any) -> jax.Array:
        return traced(low + u * (high - low))

    starts = sample("random", LOCAL_SEEDS, d, 0)
    told: dict[str, Any] = {}

    def tell(peer: str, values: Any, n_iterations: Any, n_evaluations: Any) -> None:
        close = int((np.asarray(values) - problem.minimum < 1e-6).sum())
        told[peer] = [close, float(np.median(n_iterations)), float(np.median(n_evaluations))]

    for peer, optimizer in OPTIMIZERS.items():
        paths = follow(optimizer, objective, starts)
        tell(peer, paths.values, paths.n_iterations, paths.n_evaluations)
    with jax.enable_x64(True):
        program = jax.jit(jax.value_and_grad(objective))
        of_source = [problem(problem.space.params(x)) for x in problem.space.decode(starts)]
        assert np.allclose([program(u, 0, 0)[0] for u in starts], of_source, rtol=1e-9)

        def fun(u: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope = program(u, 0, 0)
            return float(value), np.asarray(slope)

        bounds = [(0, 1)] * d
        for method in ("L-BFGS-B", "TNC"):
            options = SCIPY_LOCAL[method]
            found = [minimize(fun, u, jac=True, method=method, bounds=bounds, options=options) for u in starts]
            tell(method, *([getattr(one, name) for one in found] for name in ("fun", "nit", "nfev")))
    return {"peers": told}


PARTS: dict[str, tuple[Callable[..., dict[str, Any]], list[tuple[Any, ...]]]] = {
    "starts": (many_starts, [(problem, form) for problem in FITTED for form in ("mean", "log_expected_improvement")]),
    "acquisition": (log_improvement, [(problem, seed) for problem in FITTED for seed in SEEDS]),
    "local": (convergence, [(name,) for name in LOCAL]),
}


OTHERS: dict[str, Callable[[Sequence[str]], None]] = {"offline": offline.main, "trust": trust.main}
"""Parts that are benchmarks of their own."""


def main(arguments: Sequence[str] = ()) -> None:
    """Prints versions, the peers' code, and a table a part."""
    asked = options("benchmarks.optimizers", arguments, (*PARTS, *OTHERS))
    versions = {name: version(name) for name in ("jax", "scipy", *(["botorch", "torch"] if HAS_BOTORCH else []))}
    print(f"{platform.machine()}, {machine()['threads']} CPUs; " + ", ".join(f"{k} {v}" for k, v in versions.items()))
    for maker in (scipys, botorchs):
        print(textwrap.dedent(inspect.getsource(maker)))
    about = (sources(ROOT / "surrogate_core", ROOT / "benchmarks"), machine(), versions)
    with journal("optimizers", about, asked.fresh) as done:
        for part in asked.parts:
            if part in OTHERS:
                OTHERS[part](["--quick"] * asked.quick + ["--fresh"] * asked.fresh)
                print()
                continue
            print(HEADS[part])
            rows = {}
            for arguments_of in PARTS[part][1][: 1 if asked.quick else None]:
                key = "/".join(map(str, (part, *arguments_of)))
                rows[arguments_of] = told = row(done, key, partial(_alone, part, *arguments_of))
                print(LINES[part](arguments_of, told), flush=True)
            if part in VERDICTS:
                print(VERDICTS[part](list(rows.values())))
            print()


def _alone(part: str, *arguments: Any) -> dict[str, Any]:
    """A row, made in a process of its own."""
    try:
        return alone("benchmarks.optimizers_row", part, *arguments, limit=LIMIT)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{part} {arguments}: {error.stderr.strip() or error.returncode}") from error


def measure(part: str, *arguments: str) -> dict[str, Any]:
    """The row of a part whose arguments are told as text."""
    make, known = PARTS[part]
    return make(*next(one for one in known if list(map(str, one)) == list(arguments)))


HEADS = {
    "starts": f"{N_STARTS} starts, at most {N_ITERATIONS} iterations, n = {N_ROWS}, d = 10; seconds, warm\n"
    "problem     minimized                  ours  (first   MB)   scipy  ratio    pool  ratio   least: ours        scipy"
    "   mean: ours     scipy   calls a start",
    "acquisition": f"log expected improvement, {N_RESTARTS} starts of {N_RAW} points\n"
    "problem     seed     ours s  (first)  BoTorch s  ratio        ours     BoTorch  posteriors apart",
    "local": f"of {LOCAL_SEEDS} random starts within 1e-6 of the least value; median iterations, evaluations",
}


def _starts_line(of: tuple[Any, ...], told: dict[str, Any]) -> str:
    return (
        f"{of[0]:11s} {of[1]:24s} {told['ours_s']:6.3f} ({told['cold_s']:5.1f} {told['mb']:5.0f})"
        f" {told['serial_s']:7.2f} {told['serial_s'] / told['ours_s']:6.1f}"
        f" {told['pool_s']:7.2f} {told['pool_s'] / told['ours_s']:6.1f}"
        f" {told['ours_best']:13.8f} {told['scipy_best']:12.8f} {told['ours_mean']:12.5f} {told['scipy_mean']:9.5f}"
        f"   {told['ours_nfev']:.1f} {told['scipy_nfev']:.1f}"
    )


def _acquisition_line(of: tuple[Any, ...], told: dict[str, Any]) -> str:
    line = f"{of[0]:11s} {of[1]:4d} {told['ours_s']:10.4f} {told['cold_s']:8.1f}"
    if "botorch" not in told:
        return f"{line} {'':27s} {told['ours']:11.6f}"
    return (
        f"{line} {told['botorch_s']:10.3f} {told['botorch_s'] / told['ours_s']:6.1f} {told['ours']:11.6f}"
        f" {told['botorch']:11.6f} {told['apart']:12.1e}"
    )


def _local_line(of: tuple[Any, ...], told: dict[str, Any]) -> str:
    return f"{of[0]:13s} " + "  ".join(
        f"{peer} {m:2.0f} ({nit:.0f}, {nfev:.0f})" for peer, (m, nit, nfev) in told["peers"].items()
    )


LINES: dict[str, Callable[[tuple[Any, ...], dict[str, Any]], str]] = {
    "starts": _starts_line,
    "acquisition": _acquisition_line,
    "local": _local_line,
}


def starts_verdict(rows: list[dict[str, Any]]) -> str:
    """Whether every row is as fast as required, and as good."""
    serial, pool = (min(told[f"{peer}_s"] / told["ours_s"] for told in rows) for peer in ("serial", "pool"))
    good = all(told["ours_best"] <= told["scipy_best"] + 1e-9 * abs(told["scipy_best"]) for told in rows)
    told = "on all" if good else "NOT on all"
    return judged(
        f"least ratios: scipy {serial:.1f} (20), pool {pool:.1f} (10); least value as good {told}",
        serial >= 20 and pool >= 10 and good,
    )


def acquisition_verdict(rows: list[dict[str, Any]]) -> str:
    """Whether the median seed is as fast as required, and eight of ten as good."""
    rows = [told for told in rows if "botorch" in told]
    if not rows:
        return "no rows of BoTorch"
    ratio = float(np.median([told["botorch_s"] / told["ours_s"] for told in rows]))
    good = sum(told["ours"] >= told["botorch"] - 1e-6 * abs(told["botorch"]) for told in rows)
    is_met = ratio >= 5 and good >= 0.8 * len(rows)
    return judged(f"median ratio to BoTorch {ratio:.1f} (5); value as good on {good} of {len(rows)} (80 %)", is_met)


VERDICTS: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "starts": starts_verdict,
    "acquisition": acquisition_verdict,
}


def _median_s(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(sys.argv[1:])
