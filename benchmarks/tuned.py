"""Quality check: surrogates as tuning leaves them against the default one, on ten problems that chose no default.

    python -m benchmarks.tuned [--quick] [--fresh]

None of the problems is in the library or in another benchmark, and none was run before tuning's rules were settled, on
problems of the library and on others; but one rule, that the champion is not its own challenger, is what a first run
(five won, none lost) showed the want of. Their formulas are those of S. Surjanovic & D. Bingham, Virtual Library of
Simulation Experiments (2013), which names the papers; four have noise, that of their sources or added here. Rows are a
Latin hypercube of 20 d, at most 150: `tune` learns from what `collect` and `optimize` evaluated. The default is
`GPSurrogate()`. Tuning searches what `tune.space: null` does by 24 trials; its champion is the default, unless a
challenger is better on folds that it was not chosen by. Both are fitted to all rows and judged by the mean negative log
density (NLPD) that they give to 2,000 fresh observations, noise included; their root mean squared errors of these are
shown.

Noise: the paired standard error of the difference, over the observations of all seeds, or between the means of seeds,
whichever is greater: observations that one fit predicts are not independent. Tuning wins on a problem where it is
better by more than that, and loses where it is worse by more; where the default stays champion the two are one, a tie.
A density of zero is a loss. Finished rows are kept, so a run that was stopped goes on.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks.rows import ROOT, journal, judged, options, row, sources
from surrogate_core import Dataset, GPSurrogate, SearchSpace
from surrogate_core.execution import ExecutorSpec
from surrogate_core.sampling import sample
from surrogate_core.surrogates.base import FittedSurrogate, Surrogate
from surrogate_core.surrogates.files import SURROGATES
from surrogate_core.tuning.champion import Duel, complexity, duel, one_standard_error
from surrogate_core.tuning.study import StudySpec, search
from surrogate_core.validation.cross_validation import Folds
from tasks.machine import machine

N_TEST, SEEDS, FOLDS, N_TRIALS, BATCH = 2000, (0, 1, 2), 5, 24, 4
KINDS = tuple(kind for kind, surrogate in SURROGATES.items() if surrogate.searched)
DEFAULT = GPSurrogate()
HEAD = (
    "problem            seed   d    n   NLPD: default     tuned   better by    +-"
    "   RMSE: default     tuned    s  champion: advantage of the challenger on other folds, p"
)


@dataclass(frozen=True)
class Case:
    """A function of (n, d) points in its bounds, and the standard deviation of the noise of what is observed."""

    f: Callable[[np.ndarray], np.ndarray]
    bounds: Sequence[tuple[float, float]]
    noise: float
    source: str


def bump(X: np.ndarray) -> np.ndarray:
    return np.asarray(X[:, 0] * np.exp(-(X**2).sum(axis=1)))


def webster(X: np.ndarray) -> np.ndarray:
    return np.asarray(X[:, 0] ** 2 + X[:, 1] ** 3)


def exponential(X: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.asarray(100 * np.exp(-2 / X ** np.array([1.75, 1.5, 1.25])).sum(axis=1))


def zhou(X: np.ndarray) -> np.ndarray:
    def density(Z: np.ndarray) -> np.ndarray:
        return np.asarray((2 * np.pi) ** (-Z.shape[1] / 2) * np.exp(-(Z**2).sum(axis=1) / 2))

    return 10.0 ** X.shape[1] / 2 * (density(10 * (X - 1 / 3)) + density(10 * (X - 2 / 3)))


def park(X: np.ndarray) -> np.ndarray:
    """Written as x sqrt(1 + b / x^2) = sqrt(x^2 + b), which knows the edge x = 0."""
    x, y, z, w = X.T
    return np.asarray((np.sqrt(x**2 + (y + z**2) * w) - x) / 2 + (x + 3 * w) * np.exp(1 + np.sin(z)))


def park_2(X: np.ndarray) -> np.ndarray:
    x, y, z, w = X.T
    return np.asarray(2 / 3 * np.exp(x + y) - w * np.sin(z) + z)


def curved_8(X: np.ndarray) -> np.ndarray:
    x, y, z = X.T[:3]
    bent = 4 * (x - 2 + 8 * y - 8 * y**2) ** 2 + (3 - 4 * y) ** 2 + 16 * np.sqrt(z + 1) * (2 * z - 1) ** 2
    return np.asarray(bent + np.log1p(np.cumsum(X[:, 2:], axis=1)[:, 1:]) @ np.arange(4, 9))


def flood(X: np.ndarray) -> np.ndarray:
    Q, K, Zv, Zm, Hd, Cb, L, B = X.T
    H = (Q / (B * K * np.sqrt((Zm - Zv) / L))) ** 0.6
    return np.asarray(Zv + H - Hd - Cb)


def loeppky(X: np.ndarray) -> np.ndarray:
    x, y, z = X.T[:3]
    return np.asarray(X[:, :7] @ [6, 4, 5.5, 1, 0.5, 0.2, 0.1] + 3 * x * y + 2.2 * x * z + 1.4 * y * z)


def linkletter(X: np.ndarray) -> np.ndarray:
    return np.asarray(np.sin(X[:, 0]) + np.sin(5 * X[:, 1]))


UNIT = (0.0, 1.0)
RIVER = [
    (500.0, 3000.0),
    (15.0, 55.0),
    (49.0, 51.0),
    (54.0, 56.0),
    (7.0, 9.0),
    (55.0, 55.5),
    (4990.0, 5010.0),
    (295.0, 305.0),
]
CASES: Mapping[str, Case] = {
    "bump": Case(
        bump, [(-2.0, 6.0)] * 2, 0.001, "Gramacy & Lee (2008), J. Am. Stat. Assoc. 103, 1119; noise of theirs"
    ),
    "webster": Case(
        webster, [(1.0, 10.0), (-1.0, 5.0)], 5.0, "Webster et al. (1996), MIT Joint Program Report 4; noise added"
    ),
    "exponential": Case(exponential, [UNIT] * 3, 0.0, "Dette & Pepelyshev (2010), Technometrics 52, 421"),
    "zhou": Case(zhou, [UNIT] * 3, 0.0, "Zhou (1998), PhD thesis; An & Owen (2001), J. Complexity 17, 588"),
    "park": Case(park, [UNIT] * 4, 0.0, "Park (1991), PhD thesis; Cox et al. (2001), CSDA 37, 77, function 1"),
    "park_2": Case(park_2, [UNIT] * 4, 0.0, "the same, function 2"),
    "curved_8": Case(curved_8, [UNIT] * 8, 0.0, "Dette & Pepelyshev (2010), highly curved function"),
    "flood": Case(flood, RIVER, 0.0, "Iooss & Lemaitre (2015), Uncertainty Management in Simulation-Optimization, 101"),
    "loeppky": Case(loeppky, [UNIT] * 10, 0.5, "Loeppky et al. (2013), Technometrics 55, 68; noise added"),
    "linkletter": Case(
        linkletter, [UNIT] * 10, 0.05, "Linkletter et al. (2006), Technometrics 48, 478; noise of theirs"
    ),
}


def data(name: str, seed: int) -> tuple[Dataset, Dataset]:
    """Rows to learn from, and fresh ones."""
    case, d = CASES[name], len(CASES[name].bounds)
    space, rng = SearchSpace.from_bounds(list(case.bounds)), np.random.default_rng([seed, 1])

    def observed(U: np.ndarray) -> Dataset:
        X = space.decode(U)
        return Dataset(X, case.f(X) + case.noise * rng.standard_normal(len(X)), space)

    n = min(20 * d, 150)
    return observed(sample("latin_hypercube", n, d, seed)), observed(rng.random((N_TEST, d)))


def tuned(dataset: Dataset, seed: int, kinds: Sequence[str] = KINDS) -> tuple[Surrogate, Duel]:
    """The challenger of a search of these kinds, by the rules of the stage `tune`, and what it did to the default."""

    def spec_of(params: Mapping[str, Any]) -> Surrogate:
        return SURROGATES[params["kind"]](**{name: value for name, value in params.items() if name != "kind"})

    folds = Folds(dataset, FOLDS, seed)
    grids = {kind: {name: list(values) for name, values in SURROGATES[kind].searched.items()} for kind in kinds}
    study = search(
        lambda params, step: folds.nlpd(spec_of(params), step),
        {"kind": {"type": "branches", "branches": grids}},
        StudySpec(n_trials=N_TRIALS, batch=BATCH, seed=seed, n_steps=FOLDS),
        executor=ExecutorSpec("threads"),
        first=[{"kind": DEFAULT.kind, **{name: getattr(DEFAULT, name) for name in grids[DEFAULT.kind]}}],
    )
    chosen = one_standard_error(study.trials, lambda trial: complexity(spec_of(trial.params), DEFAULT, dataset))
    challenger = spec_of(chosen.params)
    return challenger, duel(DEFAULT, challenger, dataset, FOLDS, seed)


def measure(name: str, seed: int, kinds: Sequence[str]) -> dict[str, Any]:
    """Both surrogates' errors, and by how much tuning is better; None where that is not finite."""
    train, test = data(name, seed)
    began = time.perf_counter()
    challenger, fought = tuned(train, seed, kinds)
    champion = challenger if fought.is_won else DEFAULT
    took = time.perf_counter() - began
    default = told(DEFAULT.fit(train, jax.random.key(seed)), test)
    chosen = default if champion == DEFAULT else told(champion.fit(train, jax.random.key(seed)), test)
    with np.errstate(invalid="ignore"):
        better = chosen[0] - default[0]
    finite = bool(np.isfinite(better).all())
    return {
        "d": test.n_dims,
        "n": train.n_samples,
        "nlpd": [float(-one.mean()) if np.isfinite(one).all() else None for one, _ in (default, chosen)],
        "rmse": [rmse for _, rmse in (default, chosen)],
        "better": float(better.mean()) if finite else None,
        "error": float(better.std(ddof=1) / np.sqrt(N_TEST)) if finite else None,
        "challenger": str(challenger),
        "duel": [fought.advantage, fought.standard_error, fought.p_value],
        "is_default": not fought.is_won,
        "tuning": took,
    }


def told(fitted: FittedSurrogate, test: Dataset) -> tuple[np.ndarray, float]:
    """The log density of each observation, and the root mean squared error."""
    expected = fitted.predictive(test.X)
    return expected.log_density(test.y), float(np.sqrt(np.mean((expected.mean - test.y) ** 2)))


def of_problem(rows: Sequence[Mapping[str, Any]]) -> tuple[str, float, float]:
    """Whether tuning wins, loses or ties on the seeds of a problem, by how much it is better, and the noise of that."""
    if all(one["is_default"] for one in rows):
        return "tie", 0.0, 0.0
    if any(one["better"] is None for one in rows):
        return "loss", -np.inf, np.nan
    better, errors = (np.array([one[name] for one in rows]) for name in ("better", "error"))
    noise = np.sqrt((errors**2).sum()) / len(rows)
    if len(rows) > 1:
        noise = max(noise, better.std(ddof=1) / np.sqrt(len(rows)))
    mean = float(better.mean())
    if abs(mean) <= noise * (1 + 1e-9):  # a single seed that differs makes them equal, up to rounding
        return "tie", mean, float(noise)
    return "win" if mean > 0 else "loss", mean, float(noise)


def verdict(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A line a problem, and those of what is required."""
    lines, found = [], []
    for name, of_seeds in rows.items():
        which, mean, noise = of_problem(of_seeds)
        found.append(which)
        stays = sum(one["is_default"] for one in of_seeds)
        why = f"; the default stays champion on {stays} of {len(of_seeds)} seeds" * (stays > 0)
        lines.append(f"{name:18s} {which:4s} better by {mean:.3f} +- {noise:.3f}{why}")
    n, wins, losses, ties = len(found), *(found.count(which) for which in ("win", "loss", "tie"))
    enough = n == len(CASES)
    lines.append(judged(f"tuned loses by more than noise on {losses} of {n}: 0", losses == 0 if enough else None))
    told = f"tuned wins by more than noise on {wins} of {n}, {ties} are ties: most"
    lines.append(judged(told, 2 * wins > n if enough else None))
    return "\n".join(lines)


def main(arguments: Sequence[str] = ()) -> None:
    """Prints a row a problem and seed, and what was required."""
    asked = options("benchmarks.tuned", arguments)
    kinds = (DEFAULT.kind,) if asked.quick else KINDS
    about = (sources(ROOT / "surrogate_core", ROOT / "benchmarks"), machine(), kinds)
    print(HEAD)
    rows: dict[str, list[dict[str, Any]]] = {}
    with journal("tuned", about, asked.fresh) as done:
        for name in list(CASES)[: 3 if asked.quick else None]:
            for seed in SEEDS[: 1 if asked.quick else None]:
                one = row(done, f"{name}/{seed}", partial(measure, name, seed, kinds))
                rows.setdefault(name, []).append(one)
                print(_line(name, seed, one), flush=True)
    print(verdict(rows))


def _line(name: str, seed: int, one: Mapping[str, Any]) -> str:
    nlpd, rmse = ([np.inf if value is None else value for value in one[key]] for key in ("nlpd", "rmse"))
    better, error = (np.nan if one[key] is None else one[key] for key in ("better", "error"))
    advantage, doubt, p_value = one["duel"]
    said = f"{'default' if one['is_default'] else 'tuned'}: {advantage:.2f} +- {doubt:.2f}, p {p_value:.2g}"
    return (
        f"{name:18s} {seed:4d} {one['d']:3d} {one['n']:4d} {nlpd[0]:15.3f} {nlpd[1]:9.3f} {better:11.3f} {error:6.3f}"
        f" {rmse[0]:15.4g} {rmse[1]:9.4g} {one['tuning']:4.0f}  {said} by {one['challenger']}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
