"""Our surrogates, and the Gaussian process against scikit-learn, BoTorch and SMT: time, memory, losses in one table.

    python -m benchmarks.surrogates [--quick] [--only 200,hartmann6,ours,sklearn] [--fresh]

Each row is a process of its own, one at a time, with the threads that the library uses by default and without JAX's
persistent cache of compiled programs. Finished rows are kept, so a run that was stopped goes on; `--fresh` starts anew.
Peers come with `make peers`; without them their rows are left out.
"""

import argparse
import inspect
import platform
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import psutil

from benchmarks.best_where import draw
from benchmarks.designs import ENGINE, PROBLEMS, WARM, design
from benchmarks.peers import PEERS, SMT, BoTorch, ScikitLearn, scikit_learns
from benchmarks.rows import ROOT, alone, journal, row, sources
from benchmarks.verdicts import REQUIRED
from tasks.machine import machine

LARGE = 2000  # rows at which scikit-learn takes minutes a fit: there is one such row with all peers
LARGE_WITH_PEERS = "hartmann6"
QUICK = ("50", "branin", "hartmann6", "ours", "flat", "sklearn", "botorch")
LIMIT = 3600  # seconds a row may take

HEAD = (
    "problem      d    n  peer      fit s: cold   warm  mean ms  gradient ms      RMSE      NLPD  cover  MB fit    all"
    "  busy  log likelihood"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints versions, the peers' code, a row each, and what was required."""
    parser = argparse.ArgumentParser(prog="benchmarks.surrogates", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small part, in about a minute")
    parser.add_argument("--only", type=_words, default=(), help="sizes, problems and peers, with commas between them")
    parser.add_argument("--fresh", action="store_true", help="forget the rows that are there")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that the row's process is ended too
    missing = [name for name, peer in PEERS.items() if not peer.is_there()]
    _print_about(missing)
    about = (sources(ROOT / "surrogate_core", ROOT / "benchmarks"), machine(), _versions())
    rows = {}
    print(HEAD)
    with journal("surrogates", about, asked.fresh) as done:
        for problem, n, peer in _wanted(QUICK if asked.quick else asked.only, missing):
            try:
                told = row(done, f"{peer}/{problem}/{n}", partial(_measure, peer, problem, n))
            except subprocess.SubprocessError as error:
                print(f"{problem:11s} {'':2s} {n:4d}  {peer:8s}  {_reason(error)}", flush=True)
                continue
            rows[problem, n, peer] = told
            print(_line(problem, n, peer, told), flush=True)
    path = draw(rows)
    print(f"\nwhich surrogate is best where: {path}" if path else "")
    print("ratio of theirs to ours, the median over rows                     at least reached")
    for required in REQUIRED:
        print(required.verdict(rows))


def _words(text: str) -> tuple[str, ...]:
    words, known = text.split(","), (*map(str, WARM), *PROBLEMS, *PEERS)
    if unknown := [word for word in words if word not in known]:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}, got {unknown[0]!r}")
    return tuple(words)


def _wanted(only: Sequence[str], missing: Sequence[str]) -> Iterator[tuple[str, int, str]]:
    """Problem, n and peer of each row; of sizes, problems and peers, one that is not restricted may be any."""
    sizes, problems, peers = (
        [one for one in group if not set(only) & set(group) or one in only]
        for group in (tuple(map(str, WARM)), PROBLEMS, tuple(PEERS))
    )
    for n in map(int, sizes):
        for problem in problems:
            for peer in peers:
                is_left_out = (
                    peer in missing
                    or (problem in ENGINE and ("smt" in missing or n == LARGE))  # of which there are 1056 rows
                    or (peer == "slopes" and problem not in ENGINE)
                    or (n == LARGE and peer == "smt")  # hours
                    or (n == LARGE and peer in ("sklearn", "botorch") and problem != LARGE_WITH_PEERS)
                )
                if not is_left_out:
                    yield problem, n, peer


def _measure(peer: str, problem: str, n: int) -> dict[str, Any]:
    data = design(problem, n)  # evaluated here, so that the other process only reads it
    began, busy, own = time.perf_counter(), _busy_s(), _own_s()
    told = alone("benchmarks.one_fit", peer, problem, n, limit=LIMIT)
    others = max(0.0, _busy_s() - busy - (_own_s() - own)) / (time.perf_counter() - began)
    return {"d": data.space.n_dims, "others": others, **told}


def _busy_s() -> float:
    """CPU seconds that all processes of the machine ever used."""
    times = psutil.cpu_times()
    return sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))


def _own_s() -> float:
    times = psutil.Process().cpu_times()
    return times.user + times.system + times.children_user + times.children_system


def _reason(error: subprocess.SubprocessError) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"failed: {(error.stderr.strip().splitlines() or [f'exit status {error.returncode}'])[-1]}"
    return f"stopped after {LIMIT} s"


def _line(problem: str, n: int, peer: str, told: dict[str, Any]) -> str:
    likelihood = f"{told['likelihood']:15.2f}" if "likelihood" in told else ""
    is_scaled = "~" if PEERS[peer].n_gradients < 10_000 else " "
    return (
        f"{problem:11s} {told['d']:2d} {n:4d}  {peer:8s} {told['fit_cold']:12.3f} {told['fit']:6.3f}"
        f" {1e3 * told['mean']:8.1f} {is_scaled}{1e3 * told['gradient']:11.1f}"
        f" {told['rmse']:9.3g} {told['nlpd']:9.3f} {told['coverage']:6.3f} {told['fit_mb']:7.0f} {told['peak_mb']:6.0f}"
        f" {told['others']:5.2f}{likelihood}"
    )


def _versions() -> dict[str, str]:
    packages = [
        "jax",
        "numpy",
        "scipy",
        *sorted({peer.package for peer in PEERS.values() if peer.is_there()} - {"jax"}),
    ]
    return {name: version(name) for name in [*packages, *(["torch"] if BoTorch.is_there() else [])]}


def _print_about(missing: Sequence[str]) -> None:
    print(
        f"{platform.machine()}, {machine()['threads']} CPUs; " + ", ".join(f"{k} {v}" for k, v in _versions().items())
    )
    if missing:
        print(f"left out: {', '.join(missing)}, which `pip install -e .[bench]` (make peers) brings")
    print("ours: GPSurrogate(); flat: prior='flat'; slopes: ours with the derivatives of the data; network, forest and")
    print("hybrid: NeuralSurrogate(), RandomForestSurrogate() and HybridSurrogate(). Peers:\n")
    for maker in (scikit_learns, ScikitLearn.fit, BoTorch.fit, SMT.fit):
        print(textwrap.dedent(inspect.getsource(maker)))
    print(
        "Fits: the first of a process, compilation included, and the median of those to other designs after it. Mean\n"
        "and gradient of 10,000 points: the median of three calls after a first; ~: of 50 points, scaled. Losses on\n"
        "2,000 fresh points (the engine: all other rows), NLPD and coverage of 95 % with the noise that is modelled.\n"
        "MB: how far the first fits, and all that is timed, raise the peak of the process. Log likelihood: that of\n"
        f"scikit-learn's model. At n = {LARGE} peers are there on {LARGE_WITH_PEERS} alone, and SMT, which would take\n"
        "hours, is not. A first call of over 200 s is the only one. busy: CPUs that other processes used meanwhile;\n"
        "much more than 0 spoils a row, above all of libraries whose threads spin.\n"
    )


if __name__ == "__main__":
    main()
