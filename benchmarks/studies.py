"""The whole engine of tuning against Optuna on SQLite: what a trial costs, and how soon a study goes on.

A part of `benchmarks.tuning`, which tells what is compared.
"""

import math
import multiprocessing
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import create_trial

from benchmarks.comparing import Line, compared, folder, least
from surrogate_core.journal import Journal
from surrogate_core.tuning.guard import DuplicateGuard
from surrogate_core.tuning.samplers import Sampler
from surrogate_core.tuning.study import StudySpec, search
from surrogate_core.tuning.trials import load_trials

SPACE: dict[str, Any] = {
    "learning_rate": {"type": "loguniform", "low": 1e-4, "high": 0.1},
    "dropout": {"type": "float", "low": 0.0, "high": 0.5},
    "layers": {"type": "int", "low": 1, "high": 8},
    "width": {"type": "int", "low": 8, "high": 512, "log": True},
    "activation": {"type": "categorical", "values": ["silu", "tanh", "relu"]},
}
RANDOM = Sampler("random")
OPTUNAS: dict[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(1e-4, 0.1, log=True),
    "dropout": FloatDistribution(0.0, 0.5),
    "layers": IntDistribution(1, 8),
    "width": IntDistribution(8, 512, log=True),
    "activation": CategoricalDistribution(["silu", "tanh", "relu"]),
}


def first_value(params: Mapping[str, Any]) -> float:
    return float(params["learning_rate"])


def suggested(trial: optuna.Trial) -> float:
    value = trial.suggest_float("learning_rate", 1e-4, 0.1, log=True)
    trial.suggest_float("dropout", 0.0, 0.5)
    trial.suggest_int("layers", 1, 8)
    trial.suggest_int("width", 8, 512, log=True)
    trial.suggest_categorical("activation", ["silu", "tanh", "relu"])
    return value


def run(path: Path | None, n: int, sampler: Sampler = RANDOM, guarded: bool = False) -> None:
    """A study of the engine: without a path in memory."""
    spec = StudySpec(n_trials=n, sampler=sampler)
    if path is None:
        search(first_value, SPACE, spec)
        return
    with Journal(path) as journal:
        if guarded:
            with DuplicateGuard(path.with_suffix(".guard")) as guard:
                search(first_value, SPACE, spec, journal=journal, guard=guard)
        else:
            search(first_value, SPACE, spec, journal=journal)


def optunas(path: Path | None, sampler: BaseSampler) -> optuna.Study:
    storage = None if path is None else f"sqlite:///{path}"
    return optuna.create_study(study_name="peer", storage=storage, sampler=sampler)


def engine(quick: bool) -> Iterator[Line]:
    n, few, repeats = (200, 50, 1) if quick else (2000, 300, 2)
    n_memory, tpe = 2000, Sampler("tpe")
    same_tpe = partial(tpe.make, 0, 0, 8, False)  # Optuna's class with the options that the engine gives it
    with folder() as within:

        def new(i: int, sampler: Callable[[], Any] = lambda: RandomSampler(0)) -> tuple[Path, optuna.Study]:
            place = Path(within, f"{time.monotonic_ns()}")
            return place, optunas(place.with_suffix(".db"), sampler())

        def theirs(prepared: tuple[Path, optuna.Study], n_trials: int = n) -> None:
            prepared[1].optimize(suggested, n_trials=n_trials)

        took = least(
            repeats,
            new,
            plain=theirs,
            ours=lambda prepared: run(prepared[0].with_suffix(".jsonl"), n),
            guarded=lambda prepared: run(prepared[0].with_suffix(".guarded.jsonl"), n, guarded=True),
        )
        by_tpe = least(
            1,
            lambda i: new(i, same_tpe),
            plain=partial(theirs, n_trials=few),
            ours=lambda prepared: run(prepared[0].with_suffix(".jsonl"), few, tpe),
        )
    memory = least(
        repeats + 1,
        lambda _: optunas(None, RandomSampler(0)),
        plain=lambda study: study.optimize(suggested, n_trials=n_memory),
        ours=lambda _: run(None, n_memory),
    )
    way = "Optuna on SQLite"
    yield compared(f"overhead of {n:,} empty trials, random", way, 5, took["plain"], took["ours"], n)
    yield compared("the same with a guard", way, 5, took["plain"], took["guarded"], n)
    yield compared(
        f"overhead of {few:,} empty trials, tpe", f"{way}, same tpe", None, by_tpe["plain"], by_tpe["ours"], few
    )
    way = "Optuna in memory"
    yield compared(f"overhead of {n_memory:,}, random, in memory", way, None, memory["plain"], memory["ours"], n_memory)


# Going on


def resuming(quick: bool) -> Iterator[Line]:
    n, repeats = (1000, 1) if quick else (10_000, 3)
    with folder() as within:
        path, by_tpe, theirs = (Path(within, name) for name in ("random.jsonl", "tpe.jsonl", "optuna.db"))
        run(path, n)
        as_if_by_tpe(path, by_tpe)
        trials = load_trials(path).values()
        optunas(theirs, RandomSampler(0)).add_trials(
            [create_trial(params=dict(one.params), distributions=OPTUNAS, value=one.value) for one in trials]
        )
        took = dict.fromkeys(("plain", "ours", "called", "tpe", "tpe_called"), math.inf)
        for _ in range(repeats):
            for name, told in (
                ("plain", alone(optuna_until_trials, theirs, n)),
                ("ours", alone(until_a_trial, path, n, "random")),
                ("called", alone(optuna_until_a_trial, theirs, "random")),
                ("tpe", alone(until_a_trial, by_tpe, n, "tpe")),
                ("tpe_called", alone(optuna_until_a_trial, theirs, "tpe")),
            ):
                took[name] = min(took[name], told)
    what = f"go on with {n:,} trials, to the next"
    yield compared(f"{what}, random", "Optuna on SQLite, to all trials", 3, took["plain"], took["ours"])
    yield compared("the same", "Optuna on SQLite, to the next", None, took["called"], took["ours"])
    yield compared(f"{what}, tpe", "Optuna on SQLite, to all trials", None, took["plain"], took["tpe"])
    yield compared("the same", "Optuna on SQLite, to the next", None, took["tpe_called"], took["tpe"])


def as_if_by_tpe(path: Path, to: Path) -> None:
    """The journal of a study with other proposals, which would have taken hours."""
    with Journal(path) as kept, Journal(to) as made:
        for key, record in kept.ended.items():
            made.end(key, {**record, "sampler": ["tpe", {}]} if key == "study" else record, math.inf)


def alone(function: Callable[..., float], *arguments: Any) -> float:
    """What a function returns that is called in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def until_a_trial(path: Path, n: int, sampler: str) -> float:
    """Seconds from opening a journal of n trials to the first call of the objective."""
    called: list[float] = []

    def objective(params: Mapping[str, Any]) -> float:
        called.append(time.perf_counter())
        return 0.0

    copied = _copied(path)
    search(first_value, SPACE, StudySpec(n_trials=1, sampler=Sampler(sampler)))  # type: ignore[arg-type]  # imports
    began = time.perf_counter()
    with Journal(copied) as journal:
        spec = StudySpec(n_trials=n + 8, sampler=Sampler(sampler))  # type: ignore[arg-type]
        search(objective, SPACE, spec, journal=journal)
    assert len(called) == 8
    return called[0] - began


def optuna_until_trials(path: Path, n: int) -> float:
    """Seconds from opening Optuna's storage to all of its n trials."""
    study, began = _opened(path)
    assert len(study.get_trials()) == n
    return time.perf_counter() - began


def optuna_until_a_trial(path: Path, sampler: str) -> float:
    """The same to the first call of the objective."""
    called: list[float] = []

    def objective(trial: optuna.Trial) -> float:
        suggested(trial)
        called.append(time.perf_counter())
        return 0.0

    study, began = _opened(path)
    if sampler == "tpe":
        study.sampler = Sampler("tpe").make(0, 0, 8, False)
    study.optimize(objective, n_trials=1)
    return called[0] - began


def _opened(path: Path) -> tuple[optuna.Study, float]:
    quiet()
    copied = _copied(path)
    optuna.create_study(storage="sqlite:///:memory:")  # imports
    began = time.perf_counter()
    return optuna.load_study(study_name="peer", storage=f"sqlite:///{copied}", sampler=RandomSampler(0)), began


def _copied(path: Path) -> Path:
    """What is opened is written, too."""
    copied = path.with_suffix(f".{time.monotonic_ns()}")
    shutil.copy(path, copied)
    return copied


def quiet() -> None:
    """Optuna's line a trial would cost it time."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", ExperimentalWarning)
