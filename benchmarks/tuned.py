"""Quality check: surrogates as tuning leaves them against the default one, on ten problems that chose no default.

    python -m benchmarks.tuned [--quick] [--fresh]

None of the problems is in the library, or in another benchmark. Their formulas are those of S. Surjanovic & D.
Bingham, Virtual Library of Simulation Experiments (2013), which names the papers; three have noise added here, one
has kinks and one a step. Rows are a Latin hypercube of 10 d, from 30 to 150. The default is `GPSurrogate()`. Tuning
searches what `tune.space: null` does by 24 trials; its champion is the default, unless a challenger is better beyond
doubt on folds that it was not chosen by. These rules were found on problems of the library, and on two that were here
before. Both are fitted to all rows and judged by the mean negative log density (NLPD) that they give to 2,000 fresh
observations, noise included; their root mean squared errors of these are shown.

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
from surrogate_core.sampling import sample
from surrogate_core.surrogates.base import FittedSurrogate, Surrogate
from surrogate_core.surrogates.files import SURROGATES
from surrogate_core.tuning.champion import complexity, duel, one_standard_error
from surrogate_core.tuning.study import StudySpec, search
from surrogate_core.validation.cross_validation import Folds
from tasks.machine import machine

N_TEST, SEEDS, FOLDS, N_TRIALS, BATCH = 2000, (0, 1, 2), 5, 24, 4
KINDS = tuple(kind for kind, surrogate in SURROGATES.items() if surrogate.searched)
DEFAULT = GPSurrogate()
HEAD = (
    "problem            seed   d    n   NLPD: default     tuned   better by    +-"
    "   RMSE: default     tuned    s  champion"
)


@dataclass(frozen=True)
class Case:
    """A function of (n, d) points in its bounds, and the standard deviation of the noise of what is observed."""

    f: Callable[[np.ndarray], np.ndarray]
    bounds: Sequence[tuple[float, float]]
    noise: float
    source: str


def cheng_sandu(X: np.ndarray) -> np.ndarray:
    return np.asarray(np.cos(X.sum(axis=1)) * np.exp(X.prod(axis=1)))


def ishigami(X: np.ndarray) -> np.ndarray:
    x, y, z = X.T
    return np.asarray(np.sin(x) + 7 * np.sin(y) ** 2 + 0.1 * z**4 * np.sin(x))


def franke(X: np.ndarray) -> np.ndarray:
    x, z = 9 * X.T
    peaks = 0.75 * np.exp(-((x - 2) ** 2) / 4 - (z - 2) ** 2 / 4) + 0.5 * np.exp(-((x - 7) ** 2) / 4 - (z - 3) ** 2 / 4)
    slope = 0.75 * np.exp(-((x + 1) ** 2) / 49 - (z + 1) / 10)
    return np.asarray(peaks + slope - 0.2 * np.exp(-((x - 4) ** 2) - (z - 7) ** 2))


def curved(X: np.ndarray) -> np.ndarray:
    x, y, z = X.T
    bent = 4 * (x - 2 + 8 * y - 8 * y**2) ** 2
    return np.asarray(bent + (3 - 4 * y) ** 2 + 16 * np.sqrt(z + 1) * (2 * z - 1) ** 2)


def genz_step(X: np.ndarray) -> np.ndarray:
    return np.where((X[:, :2] > 0.5).any(axis=1), 0.0, np.exp(5 * X.sum(axis=1)))


def spill(X: np.ndarray) -> np.ndarray:
    """The concentration at s = 1, t = 40.1; scaled by sqrt(4 pi), as in the source."""
    M, D, L, tau = X.T
    s, t = 1.0, 40.1
    return np.asarray(
        M / np.sqrt(D * t) * np.exp(-(s**2) / (4 * D * t))
        + M / np.sqrt(D * (t - tau)) * np.exp(-((s - L) ** 2) / (4 * D * (t - tau)))
    )


def sobol_g(X: np.ndarray) -> np.ndarray:
    a = np.array([0, 1, 4.5, 9, 99])
    return np.asarray(np.prod((np.abs(4 * X - 2) + a) / (1 + a), axis=1))


def gramacy_lee(X: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(np.sin((0.9 * (X[:, 0] + 0.48)) ** 10)) + X[:, 1] * X[:, 2] + X[:, 3])


def robot_arm(X: np.ndarray) -> np.ndarray:
    angles, L = np.cumsum(X[:, :4], axis=1), X[:, 4:]
    return np.hypot((L * np.cos(angles)).sum(axis=1), (L * np.sin(angles)).sum(axis=1))


def welch(X: np.ndarray) -> np.ndarray:
    x = dict(enumerate(X.T, 1))
    strong = 5 * x[12] / (1 + x[1]) + 5 * (x[4] - x[20]) ** 2 + x[5] + 40 * x[19] ** 3 - 5 * x[19]
    weak = {
        2: 0.05,
        3: 0.08,
        6: -0.03,
        7: 0.03,
        9: -0.09,
        10: -0.01,
        11: -0.07,
        14: -0.04,
        15: 0.06,
        17: -0.01,
        18: -0.03,
    }
    return np.asarray(strong + 0.25 * x[13] ** 2 + sum(slope * x[i] for i, slope in weak.items()))


UNIT = (0.0, 1.0)
CASES: Mapping[str, Case] = {
    "cheng_sandu": Case(cheng_sandu, [UNIT] * 2, 0.0, "Cheng & Sandu (2010), J. Comput. Phys. 229, 5"),
    "ishigami": Case(ishigami, [(-np.pi, np.pi)] * 3, 0.0, "Ishigami & Homma (1990), ISUMA '90, 398; a = 7, b = 0.1"),
    "franke": Case(franke, [UNIT] * 2, 0.05, "Franke (1979), Naval Postgraduate School NPS-53-79-003; noise added"),
    "curved": Case(curved, [UNIT] * 3, 0.0, "Dette & Pepelyshev (2010), Technometrics 52, 421, curved function"),
    "genz_step": Case(genz_step, [UNIT] * 3, 0.0, "Genz (1984), discontinuous family; a = 5, u = 0.5"),
    "spill": Case(
        spill,
        [(7.0, 13.0), (0.02, 0.12), (0.01, 3.0), (30.01, 30.295)],
        0.0,
        "Bliznyuk et al. (2008), J. Comput. Graph. Stat. 17, 270, environmental model",
    ),
    "sobol_g": Case(sobol_g, [UNIT] * 5, 0.0, "Saltelli & Sobol' (1995), Reliab. Eng. Syst. Saf. 50, 225, g-function"),
    "gramacy_lee": Case(gramacy_lee, [UNIT] * 6, 0.05, "Gramacy & Lee (2009), Technometrics 51, 130; noise of theirs"),
    "robot_arm": Case(robot_arm, [(0.0, 2 * np.pi)] * 4 + [UNIT] * 4, 0.0, "An & Owen (2001), J. Complexity 17, 588"),
    "welch": Case(welch, [(-0.5, 0.5)] * 20, 0.2, "Welch et al. (1992), Technometrics 34, 15; noise added"),
}


def data(name: str, seed: int) -> tuple[Dataset, Dataset]:
    """Rows to learn from, and fresh ones."""
    case, d = CASES[name], len(CASES[name].bounds)
    space, rng = SearchSpace.from_bounds(list(case.bounds)), np.random.default_rng([seed, 1])

    def observed(U: np.ndarray) -> Dataset:
        X = space.decode(U)
        return Dataset(X, case.f(X) + case.noise * rng.standard_normal(len(X)), space)

    n = int(np.clip(10 * d, 30, 150))
    return observed(sample("latin_hypercube", n, d, seed)), observed(rng.random((N_TEST, d)))


def tuned(dataset: Dataset, seed: int, kinds: Sequence[str] = KINDS) -> Surrogate:
    """The champion of a search of these kinds, by the rules of the stage `tune`, and by held-out rows alone."""

    def spec_of(params: Mapping[str, Any]) -> Surrogate:
        return SURROGATES[params["kind"]](**{name: value for name, value in params.items() if name != "kind"})

    folds = Folds(dataset, FOLDS, seed)
    grids = {kind: {name: list(values) for name, values in SURROGATES[kind].searched.items()} for kind in kinds}
    study = search(
        lambda params, step: folds.nlpd(spec_of(params), step),
        {"kind": {"type": "branches", "branches": grids}},
        StudySpec(n_trials=N_TRIALS, batch=BATCH, seed=seed, n_steps=FOLDS),
        first=[{"kind": DEFAULT.kind, **{name: getattr(DEFAULT, name) for name in grids[DEFAULT.kind]}}],
    )
    chosen = one_standard_error(study.trials, lambda trial: complexity(spec_of(trial.params), DEFAULT, dataset))
    challenger = spec_of(chosen.params)
    return challenger if duel(DEFAULT, challenger, dataset, FOLDS, seed).is_won else DEFAULT


def measure(name: str, seed: int, kinds: Sequence[str]) -> dict[str, Any]:
    """Both surrogates' errors, and by how much tuning is better; None where that is not finite."""
    train, test = data(name, seed)
    began = time.perf_counter()
    champion = tuned(train, seed, kinds)
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
        "champion": champion.to_config(),
        "is_default": champion == DEFAULT,
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
    return "win" if mean > noise else "loss" if mean < -noise else "tie", mean, float(noise)


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
    spec = {name: value for name, value in one["champion"].items() if name in _shown(one["champion"]["kind"])}
    said = "the default" if one["is_default"] else ", ".join(map(str, spec.values()))
    return (
        f"{name:18s} {seed:4d} {one['d']:3d} {one['n']:4d} {nlpd[0]:15.3f} {nlpd[1]:9.3f} {better:11.3f} {error:6.3f}"
        f" {rmse[0]:15.4g} {rmse[1]:9.4g} {one['tuning']:4.0f}  {said}"
    )


def _shown(kind: str) -> tuple[str, ...]:
    return ("kind", *SURROGATES[kind].searched)


if __name__ == "__main__":
    main(sys.argv[1:])
