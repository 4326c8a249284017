"""Samplers and pruners of Optuna by name, with settings for thousands of trials."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
    WilcoxonPruner,
)
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler

SamplerName = Literal["tpe", "gp", "cmaes", "qmc", "random", "grid"]
PrunerName = Literal["none", "median", "successive_halving", "hyperband", "wilcoxon"]


@dataclass(frozen=True)
class Sampler:
    """What proposes designs.

    `tpe` (tree-structured Parzen estimators; Watanabe 2023, arXiv:2304.11127) learns in every space; `gp` (Gaussian
    process, log expected improvement) needs the fewest trials and PyTorch; `cmaes` (covariance matrix adaptation) is
    for many numbers and thousands of trials; `qmc` (scrambled Sobol points) and `random` do not learn; `grid` takes
    every design in turn.

    Args:
        kind: its name.
        options: arguments of Optuna's class, in place of the settings here.

    Raises:
        ValueError: there is no such sampler or option, or a package is missing.
    """

    kind: SamplerName = "tpe"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check("sampler", self.kind, self.options, _SAMPLERS)
        if self.kind == "gp" and not find_spec("torch"):
            raise ValueError("sampler: 'gp' needs PyTorch, got none: pip install 'surrogate-lab[gp]'")
        if self.options:
            _try("sampler", self.options, lambda: self.make(0, 0, 1, False))

    @property
    def told_options(self) -> dict[str, Any]:
        """The options as JSON values; of functions and other objects their names."""
        return _told(self.options)

    @property
    def learns(self) -> bool:
        """Whether proposals depend on what was told."""
        return self.kind in ("tpe", "gp", "cmaes")

    @property
    def is_stateful(self) -> bool:
        """Whether proposals depend on more than the trials before, so that a study that goes on is replayed."""
        return self.kind in ("cmaes", "qmc")

    def make(self, seed: int, batch: int, parallel: int, has_branches: bool) -> BaseSampler:
        """Optuna's sampler.

        Args:
            seed: of the study.
            batch: the number of the proposals that it makes, which have random numbers of their own.
            parallel: trials at a time, which are proposed without knowing each other.
            has_branches: of the space.
        """
        of_batch = seed if self.is_stateful else int(np.random.SeedSequence([seed, batch]).generate_state(1)[0])
        settings: dict[str, dict[str, Any]] = {
            "tpe": {
                "multivariate": True,
                "group": has_branches,
                "constant_liar": True,
                "n_startup_trials": max(25, 5 * parallel),
                "n_ei_candidates": 48,
            },
            "gp": {"warn_independent_sampling": False},
            "cmaes": {"warn_independent_sampling": False},
            "qmc": {"scramble": True, "warn_independent_sampling": False, "warn_asynchronous_seeding": False},
        }
        options = {**settings.get(self.kind, {}), **self.options, "seed": of_batch}
        made: BaseSampler = _SAMPLERS[self.kind](**options)
        return made


@dataclass(frozen=True)
class Pruner:
    """What breaks off trials whose first steps are no good.

    `median` breaks off what is worse than the median of others at the same step, `successive_halving` and `hyperband`
    keep the best share at each of several steps, and `wilcoxon` compares step by step with the best trial (for steps
    that are as hard for every trial, such as folds).

    Args:
        kind: its name.
        options: arguments of Optuna's class, in place of the settings here.

    Raises:
        ValueError: there is no such pruner or option.
    """

    kind: PrunerName = "none"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check("pruner", self.kind, self.options, _PRUNERS)
        if self.options:
            _try("pruner", self.options, lambda: self.make(2))

    @property
    def told_options(self) -> dict[str, Any]:
        """As of a sampler."""
        return _told(self.options)

    @property
    def is_stateful(self) -> bool:
        return self.kind in ("successive_halving", "hyperband")

    def make(self, n_steps: int) -> BasePruner:
        """Optuna's pruner, of trials with so many steps."""
        settings: dict[str, dict[str, Any]] = {
            "successive_halving": {"min_resource": 1, "reduction_factor": 2},
            "hyperband": {"min_resource": 1, "max_resource": n_steps, "reduction_factor": 2},
        }
        made: BasePruner = _PRUNERS[self.kind](**{**settings.get(self.kind, {}), **self.options})
        return made

    def told(self, steps: list[float]) -> float:
        """What it is told at the last of some steps: the value so far; wilcoxon compares the steps themselves."""
        return steps[-1] if self.kind == "wilcoxon" else math.fsum(steps) / len(steps)


@contextmanager
def silent() -> Iterator[None]:
    """Within it Optuna says nothing of its studies, nor that what is used here may change: its version is pinned."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            warnings.filterwarnings("ignore", "Heartbeat of storage")  # `Joined` does what `Study.optimize` would
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


_SAMPLERS: dict[str, Callable[..., Any]] = {
    "tpe": TPESampler,
    "gp": GPSampler,
    "cmaes": CmaEsSampler,
    "qmc": QMCSampler,
    "random": RandomSampler,
    "grid": RandomSampler,  # which is never asked
}
_PRUNERS: dict[str, Callable[..., Any]] = {
    "none": NopPruner,
    "median": MedianPruner,
    "successive_halving": SuccessiveHalvingPruner,
    "hyperband": HyperbandPruner,
    "wilcoxon": WilcoxonPruner,
}

_TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "None": (type(None),),
}
_LEAST = {"n_ei_candidates": 1, "popsize": 2, "n_min_trials": 1, "interval_steps": 1}  # by option; of others 0


def _check(what: str, kind: str, options: Mapping[str, Any], known: Mapping[str, Callable[..., Any]]) -> None:
    if kind not in known:
        raise ValueError(f"{what}: expected one of {', '.join(known)}, got {kind!r}")
    taken = {
        name: getattr(one.annotation, "__name__", str(one.annotation))
        for name, one in inspect.signature(known[kind]).parameters.items()
        if name != "seed"
    }
    for name, value in options.items():
        if name not in taken:
            raise ValueError(f"{what}.{name}: expected some of {', '.join(taken) or 'none'}, as it is {kind}, got it")
        if not _suits(value, taken[name]):
            raise ValueError(f"{what}.{name}: expected {taken[name]}, got {value!r}")
        if type(value) is int and value < (least := _LEAST.get(name, 0)):
            raise ValueError(f"{what}.{name}: expected a number >= {least}, got {value}")


def _suits(value: Any, annotation: str) -> bool:
    """Whether a value is of a type that an annotation names; of types that no file can hold, objects are."""
    names = [name.strip() for name in annotation.split("|")]
    if any(type(value) in _TYPES.get(name, ()) for name in names):
        return True
    return not isinstance(value, bool | int | float | str) and any(name not in _TYPES for name in names)


def _try(what: str, options: Mapping[str, Any], make: Callable[[], Any]) -> None:
    """Raises a ValueError where Optuna's class does not take the options together."""
    try:
        with silent():
            make()
    except (ValueError, TypeError, AssertionError) as error:
        raise ValueError(f"{what}: expected options that go together, got {dict(options)} ({error})") from error


def _told(options: Mapping[str, Any]) -> dict[str, Any]:
    def told(value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        return getattr(value, "__qualname__", type(value).__qualname__)

    return {name: told(value) for name, value in options.items()}
