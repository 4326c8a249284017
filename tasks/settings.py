"""params.yaml, parsed once into frozen, typed `Settings`; a mistake is one line: path, expectation, what came."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, Strict, TypeAdapter
from pydantic.dataclasses import dataclass as checked
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from surrogate_core.acquisition import Name
from surrogate_core.execution import ExecutorSpec, Kind
from surrogate_core.optimizers.multi_start import MultiStartOptimizer
from surrogate_core.optimizers.registry import LOCAL
from surrogate_core.problems.black_box import BlackBox
from surrogate_core.sampling import Sampling
from surrogate_core.surrogates.base import Surrogate
from surrogate_core.surrogates.files import SURROGATES
from surrogate_core.tuning.space import TuningSpace
from tasks.errors import BadInput
from tasks.gates import Gates
from tasks.parsing import (
    SECTION,
    AtLeastTwo,
    Count,
    Number,
    Positive,
    Seed,
    Text,
    member,
    plain,
    said,
    validated,
)
from tasks.problem import KINDS, Problem, check_problem
from tasks.tune import Tune, workers


@checked(frozen=True, config=SECTION)
class Collect:
    n_samples: AtLeastTwo = 32
    sampling: Sampling = "sobol"
    seed: Seed = 0


@checked(frozen=True, config=SECTION)
class Fit:
    surrogate: dict[str, Any] = Field(default_factory=lambda: {"kind": "gaussian_process"})
    seed: Seed = 0
    memory_budget_mb: Positive | None = None

    @property
    def spec(self) -> Surrogate:
        return parse_spec(self.surrogate)


@checked(frozen=True, config=SECTION)
class Validate:
    folds: AtLeastTwo = 5
    seed: Seed = 0
    gradient_evaluations: Annotated[int, Strict(), Field(ge=0)] = 0
    recalibrate: Annotated[bool, Strict()] = True
    learning_curve: Annotated[bool, Strict()] = True


@checked(frozen=True, config=SECTION)
class Optimize:
    rounds: Count = 4
    evaluations_per_round: Count = 8
    n_starts: Annotated[int, Strict(), Field(ge=1, le=512)] = 16
    optimizer: dict[str, Any] = Field(default_factory=lambda: {"kind": "lbfgs"})
    goal: Literal["auto", Name] = "auto"
    kappa: Annotated[Number, Field(ge=0)] | None = None
    seed: Seed = 0

    def goal_name(self, is_offline: bool) -> Name:
        """Of the goal. With a black box, which tells at once where the prediction errs, the mean itself goes first."""
        if self.goal != "auto":
            return self.goal
        return "conservative" if is_offline else "mean"

    @property
    def multi_start(self) -> MultiStartOptimizer:
        """Of many starts, each of which the optimizer follows."""
        local = member(LOCAL, "kind", self.optimizer, "optimize.optimizer")
        return MultiStartOptimizer(n_starts=self.n_starts, optimizer=local)


@checked(frozen=True, config=SECTION)
class Execution:
    executor: Kind = "processes"
    n_workers: Count | None = None
    address: Text | None = None
    cache_mb: Positive = 1000

    @property
    def spec(self) -> ExecutorSpec:
        try:
            return ExecutorSpec(self.executor, self.n_workers, self.address)
        except ValueError as error:
            raise BadInput(f"execution.{error}") from error

    @property
    def n_threads(self) -> int | None:
        """At most so many fits at a time; None for one on each usable CPU. No result depends on it."""
        if self.executor == "dask":  # whose threads are elsewhere
            return None
        return 1 if self.executor == "serial" else self.n_workers


@checked(frozen=True, config=SECTION)
class Reporting:
    figure: Text | None = None

    @property
    def figure_maker(self) -> Callable[[Mapping[str, Mapping[str, Any]]], Any] | None:
        """Draws designs: called with name to parameters, returns a matplotlib Figure.

        Raises:
            BadInput: there is no function of that name.
        """
        if self.figure is None:
            return None
        try:
            return BlackBox(self.figure).resolve()
        except ValueError as error:
            raise BadInput(f"report.figure: {error}") from error


@checked(frozen=True, config=SECTION)
class Settings:
    problem: Problem
    collect: Collect = Collect()
    fit: Fit = Fit()
    validate: Validate = Validate()
    gates: Gates = Field(default_factory=Gates)
    optimize: Optimize = Optimize()
    tune: Tune = Tune()
    execution: Execution = Execution()
    report: Reporting = Reporting()

    @property
    def tune_space(self) -> TuningSpace:
        """What `tune` searches."""
        return self.tune.space_of_specs(self.fit.spec)

    def subset(self, paths: Sequence[str]) -> dict[str, Any]:
        """The values at dotted paths, JSON-able, as a stage reads them."""
        return {path: reduce(getitem, path.split("."), asdict(self)) for path in paths}

    @property
    def digest(self) -> str:
        """Of all that can change a result."""
        content = {name: value for name, value in asdict(self).items() if name not in ("execution", "report")}
        return hashlib.sha256(canonical(content)).hexdigest()


def canonical(content: Mapping[str, Any]) -> bytes:
    """JSON that is equal for equal settings: the order of keys counts where it is that of X or of a grid alone."""

    def ordered(path: str, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        items = {key: ordered(f"{path}.{key}", inner) for key, inner in value.items()}
        return list(items.items()) if path.endswith(".space") or ".tune.space." in path else items

    return orjson.dumps(ordered("", content), option=orjson.OPT_SORT_KEYS)


FAST = "SURROGATE_FAST"
_SHORT = {
    "collect": {"n_samples": 16},
    "validate": {"folds": 3, "gradient_evaluations": 4, "learning_curve": False},
    "optimize": {"rounds": 2, "evaluations_per_round": 2, "n_starts": 4},
    "tune": {"n_trials": 4, "evaluations": 2},
}
"""The most of each that there is in a trial run."""


def is_fast() -> bool:
    """Whether everything is to be shortened, for a trial run."""
    return os.environ.get(FAST, "") not in ("", "0")


def load_settings(path: Path, overrides: Sequence[str] = ()) -> Settings:
    """Reads a settings file and applies `section.key=value` overrides; another problem takes the place of the file's.

    With SURROGATE_FAST=1 all numbers that cost time are cut to a few.

    Raises:
        BadInput: the file can't be read, or something in it is not as expected.
    """
    try:
        settings = parse_settings(load_content(path, overrides))
        return _shortened(settings) if is_fast() else settings
    except RecursionError as error:
        raise BadInput(f"{path}: expected sections of plain values, got one that is nested too deeply") from error


def _shortened(settings: Settings) -> Settings:
    return replace(settings, **{name: shortened(name, getattr(settings, name)) for name in _SHORT})


def shortened(name: str, section: Any) -> Any:
    """A section of that name as it is in a trial run."""
    return replace(section, **{key: min(getattr(section, key), most) for key, most in _SHORT[name].items()})


def load_content(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The plain values of a settings file with overrides.

    Raises:
        BadInput: the file cannot be read, or is no mapping.
    """
    yaml = YAML(typ="safe", pure=True)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: expected a readable settings file, got {error.strerror}") from error
    except (YAMLError, ValueError) as error:  # a date that is none, text that is not UTF-8
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        problem = str(getattr(error, "problem", error)).splitlines()[0]
        raise BadInput(f"{path}: expected YAML, got {problem}{line}") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path}: expected sections such as problem: and collect:, got {said(content)}")
    _make_way(content, {override.partition("=")[0] for override in overrides})
    for override in overrides:
        _override(content, override, yaml)
    return content


def parse_settings(content: Mapping[str, Any]) -> Settings:
    """Typed settings of plain values.

    Raises:
        BadInput: a key is unknown or missing, or a value is not as expected.
    """
    settings: Settings = validated(TypeAdapter(Settings), plain(content, ""), "", Settings)
    settings = replace(settings, tune=replace(settings.tune, seed=settings.tune.fixed_seed))
    check_problem(settings.problem, settings.execution.executor)
    # Parsed here, so that a mistake shows before any work.
    _ = settings.execution.spec, settings.fit.spec, settings.optimize.multi_start
    goal = settings.optimize.goal_name(settings.problem.is_offline)
    if settings.optimize.kappa is not None and goal not in ("cautious", "exploring", "conservative"):
        raise BadInput(f"optimize.kappa: expected null, as the goal {goal} has none, got {settings.optimize.kappa:g}")
    if not settings.problem.is_offline and settings.collect.n_samples < 2 * settings.validate.folds:
        needed = f"2 * validate.folds = {2 * settings.validate.folds}"
        raise BadInput(f"collect.n_samples: expected an integer >= {needed}, got {settings.collect.n_samples}")
    settings.tune.checked(settings.tune_space, settings.validate.folds)
    _ = workers(settings.execution.spec, settings.tune_space)
    for name, own in (("direction", "minimize"), ("steps", 1), ("timeout", None)):
        if (got := getattr(settings.tune, name)) != own:
            own = "null" if own is None else own
            raise BadInput(f"tune.{name}: expected {own} but for an objective of your own, got {got}")
    return settings


def parse_spec(config: Mapping[str, Any], path: str = "fit.surrogate") -> Surrogate:
    """A surrogate spec of plain values."""
    return member(SURROGATES, "kind", config, path)


_PROBLEMS_OWN = ("source", "space", "constraints", "columns", "version", "direction", "own_folder", "shift")


def _make_way(content: dict[str, Any], overridden: set[str]) -> None:
    """Drops what describes the file's own problem where one of another kind is asked for: problem.name=borehole."""
    kinds = {kind for kind in KINDS if f"problem.{kind}" in overridden}
    given = content.get("problem")
    if not kinds or not isinstance(given, dict) or kinds & given.keys():
        return
    content["problem"] = {k: v for k, v in given.items() if k not in (*KINDS, *_PROBLEMS_OWN)}
    if isinstance(content.get("report"), dict):
        content["report"].pop("figure", None)


def _override(content: dict[str, Any], override: str, yaml: YAML) -> None:
    path, separator, value = override.partition("=")
    keys = path.split(".")
    if not separator or not all(keys):
        raise BadInput(f"-S: expected section.key=value, got {override!r}")
    section: Any = content
    for key in keys[:-1]:
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            raise BadInput(f"{path}: expected {key} to be a section, got {said(section)}")
    try:
        section[keys[-1]] = yaml.load(value)
    except (YAMLError, ValueError) as error:
        raise BadInput(f"-S {path}: expected a YAML value, got {value!r}") from error
