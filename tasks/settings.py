"""params.yaml, parsed once into frozen, typed `Settings`; a mistake is one line: path, expectation, what came."""

import difflib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from datetime import date
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import orjson
from pydantic import ConfigDict, Field, Strict, TypeAdapter, ValidationError, create_model
from pydantic.dataclasses import dataclass as checked
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from surrogate_core.execution import ExecutorSpec, Kind
from surrogate_core.optimizers.multi_start import MultiStartOptimizer
from surrogate_core.problems.black_box import BlackBox
from surrogate_core.sampling import Sampling
from surrogate_core.space import VARIABLES, SearchSpace, Variable
from surrogate_core.surrogates.base import Surrogate
from surrogate_core.surrogates.files import SURROGATES
from tasks.errors import BadInput

_SECTION = ConfigDict(extra="forbid", allow_inf_nan=False)
Text = Annotated[str, Strict()]
Count = Annotated[int, Strict(), Field(ge=1)]
AtLeastTwo = Annotated[int, Strict(), Field(ge=2)]
Seed = Annotated[int, Strict(), Field(ge=0, lt=2**31)]
Number = Annotated[float, Strict()]
Positive = Annotated[float, Strict(), Field(gt=0)]


@checked(frozen=True, config=_SECTION)
class Problem:
    function: Text
    source: Text
    space: dict[str, dict[str, Any]]
    version: Annotated[int, Strict()] | Text = 1
    direction: Literal["minimize", "maximize"] = "minimize"
    timeout: Positive | None = None
    retries: Annotated[int, Strict(), Field(ge=0)] = 0

    @property
    def sign(self) -> float:
        """By which a value is multiplied to be minimized."""
        return -1.0 if self.direction == "maximize" else 1.0

    @property
    def search_space(self) -> SearchSpace:
        return parse_space(self.space)

    @property
    def black_box(self) -> BlackBox:
        return BlackBox(self.function)


@checked(frozen=True, config=_SECTION)
class Collect:
    n_samples: AtLeastTwo
    sampling: Sampling = "sobol"
    seed: Seed = 0


@checked(frozen=True, config=_SECTION)
class Fit:
    surrogate: dict[str, Any]
    seed: Seed = 0

    @property
    def spec(self) -> Surrogate:
        return parse_spec(self.surrogate)


@checked(frozen=True, config=_SECTION)
class Validate:
    folds: AtLeastTwo = 5
    seed: Seed = 0


@checked(frozen=True, config=_SECTION)
class Gates:
    on_fail: Literal["warn", "stop"] = "warn"
    min_r2: Number | None = None
    min_coverage_95: Annotated[float, Strict(), Field(ge=0, le=1)] | None = None

    @property
    def bounds(self) -> dict[str, float | None]:
        return {name: bound for name, bound in asdict(self).items() if name != "on_fail"}


@checked(frozen=True, config=_SECTION)
class Optimize:
    rounds: Count = 4
    evaluations_per_round: Count = 8
    n_starts: Annotated[int, Strict(), Field(ge=1, le=512)] = 16
    seed: Seed = 0

    @property
    def optimizer(self) -> MultiStartOptimizer:
        return MultiStartOptimizer(n_starts=self.n_starts)


@checked(frozen=True, config=_SECTION)
class Tune:
    space: dict[str, list[Any]]
    n_trials: Count = 24
    batch: Count = 4
    seed: Seed = 0
    evaluations: Count = 8


@checked(frozen=True, config=_SECTION)
class Execution:
    executor: Kind = "processes"
    n_workers: Count | None = None
    cache_mb: Positive = 1000

    @property
    def spec(self) -> ExecutorSpec:
        return ExecutorSpec(self.executor, self.n_workers)


@checked(frozen=True, config=_SECTION)
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


@checked(frozen=True, config=_SECTION)
class Settings:
    problem: Problem
    collect: Collect
    fit: Fit
    tune: Tune
    validate: Validate = Validate()
    gates: Gates = Gates()
    optimize: Optimize = Optimize()
    execution: Execution = Execution()
    report: Reporting = Reporting()

    @property
    def tune_space(self) -> dict[str, list[Any]]:
        """`tune.space` with values as a spec holds them: 1 is 1.0 where a number is asked for."""
        specs = {
            name: [parse_spec({**self.fit.surrogate, name: value}, "tune.space") for value in values]
            for name, values in self.tune.space.items()
        }
        return {name: [getattr(spec, name) for spec in made] for name, made in specs.items()}

    def subset(self, paths: Sequence[str]) -> dict[str, Any]:
        """The values at dotted paths, JSON-able, as a stage reads them."""
        return {path: reduce(getitem, path.split("."), asdict(self)) for path in paths}

    @property
    def digest(self) -> str:
        """Of all that can change a result."""
        content = {name: value for name, value in asdict(self).items() if name not in ("execution", "report")}
        return hashlib.sha256(canonical(content)).hexdigest()


def canonical(content: Mapping[str, Any]) -> bytes:
    """JSON that is equal for equal settings: the order of keys counts within a `space` alone, where it is that of X."""

    def ordered(name: str, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        items = {key: ordered(key, inner) for key, inner in value.items()}
        return list(items.items()) if name == "space" else items

    return orjson.dumps(ordered("", content), option=orjson.OPT_SORT_KEYS)


def load_settings(path: Path, overrides: Sequence[str] = ()) -> Settings:
    """Reads a settings file and applies `section.key=value` overrides.

    Raises:
        BadInput: the file can't be read, or something in it is not as expected.
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
        raise BadInput(f"{path}: expected sections such as problem: and collect:, got {_said(content)}")
    for override in overrides:
        _override(content, override, yaml)
    return parse_settings(content)


def parse_settings(content: Mapping[str, Any]) -> Settings:
    """Typed settings of plain values.

    Raises:
        BadInput: a key is unknown or missing, or a value is not as expected.
    """
    settings: Settings = _validated(TypeAdapter(Settings), _plain(content, ""), "", Settings)
    settings.problem.search_space  # noqa: B018 - each is parsed here, so that a mistake shows before any work
    spec = settings.fit.spec
    known = [f.name for f in fields(spec)]
    if settings.collect.n_samples < 2 * settings.validate.folds:
        needed = f"2 * validate.folds = {2 * settings.validate.folds}"
        raise BadInput(f"collect.n_samples: expected an integer >= {needed}, got {settings.collect.n_samples}")
    if settings.problem.timeout is not None and settings.execution.executor != "processes":
        raise BadInput(
            "execution.executor: expected 'processes', which alone can stop a call after problem.timeout, got "
            f"{settings.execution.executor!r}; or set problem.timeout to null"
        )
    if not settings.tune.space:
        raise BadInput("tune.space: expected at least one field of fit.surrogate with its values, got none")
    for name, values in settings.tune.space.items():
        if name not in known:
            raise BadInput(f"tune.space.{name}: {_unknown(name, known)}")
        if not values:
            raise BadInput(f"tune.space.{name}: expected a list of distinct values, got {values!r}")
    for name, values in settings.tune_space.items():
        if len(set(values)) < len(values):
            raise BadInput(f"tune.space.{name}: expected a list of distinct values, got {values!r}")
    return settings


def parse_space(config: Mapping[str, Mapping[str, Any]], path: str = "problem.space") -> SearchSpace:
    """A search space of plain values."""
    variables: dict[str, Variable] = {}
    for name, given in config.items():
        if not name.isidentifier():
            raise BadInput(f"{path}.{name}: expected a name that can be a keyword, got {name!r}")
        variables[name] = _member(VARIABLES, "type", given, f"{path}.{name}")
    try:
        return SearchSpace(variables)
    except ValueError as error:
        raise BadInput(f"{path}: {str(error).removeprefix('space: ')}") from error


def parse_spec(config: Mapping[str, Any], path: str = "fit.surrogate") -> Surrogate:
    """A surrogate spec of plain values."""
    return _member(SURROGATES, "kind", config, path)


def _member(union: Mapping[str, type], tag: str, config: Mapping[str, Any], path: str) -> Any:
    """One of a union of frozen dataclasses, told apart by a tag; its own checks become mistakes with a path."""
    rest = dict(config)
    kind = rest.pop(tag, None)
    if not isinstance(kind, str) or kind not in union:
        raise BadInput(f"{path}.{tag}: expected one of {', '.join(union)}, got {kind!r}")
    cls = union[kind]
    hints = get_type_hints(cls)
    shape: dict[str, Any] = {
        f.name: (hints[f.name], ... if f.default is MISSING and f.default_factory is MISSING else f.default)
        for f in fields(cls)
    }
    model = _validated(
        TypeAdapter(create_model(cls.__name__, __config__={**_SECTION, "strict": True}, **shape)), rest, path, cls
    )
    try:
        return cls(**dict(model))
    except ValueError as error:
        raise BadInput(f"{path}.{error}") from error


def _plain(value: Any, path: str) -> Any:
    """The value with text for keys, if it is made of what JSON can hold (and dates, which no setting takes)."""
    if isinstance(value, Mapping):
        plain = {str(key): _plain(inner, f"{path}.{key}".lstrip(".")) for key, inner in value.items()}
        if len(plain) < len(value):
            raise BadInput(f"{path}: expected distinct keys, got {_said(list(value))}")
        return plain
    if isinstance(value, list):
        return [_plain(inner, path) for inner in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise BadInput(f"{path}: expected an integer of at most 64 bits, got {_said(value)}")
    if value is not None and not isinstance(value, bool | int | float | str | date):
        raise BadInput(f"{path}: expected a plain value, got {_said(value)}")
    return value


def _validated(adapter: TypeAdapter[Any], content: Any, path: str, shape: type) -> Any:
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        # An unknown key first: it is often why another one is missing.
        mistakes = sorted(error.errors(), key=lambda mistake: mistake["type"] not in _UNKNOWN)
        raise BadInput(_line(mistakes[0], content, path, shape)) from error


_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_EXPECTED = {
    "int_type": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "list_type": "a list",
    "dataclass_type": "a mapping",
    "model_type": "a mapping",
    "literal_error": "{expected}",
    "greater_than_equal": "{a} >= {ge:.15g}",
    "greater_than": "{a} > {gt:.15g}",
    "less_than_equal": "{a} <= {le:.15g}",
    "less_than": "{a} < {lt:.15g}",
}


def _line(mistake: ErrorDetails, content: Any, path: str, shape: type) -> str:
    kind, got = mistake["type"], mistake["input"]
    keys: list[str] = []
    for key in mistake["loc"]:  # pydantic names the members of a union of types there too, which no user wrote
        if isinstance(content, Mapping) and (key in content or kind.startswith("missing")):
            keys.append(str(key))
            content = content.get(key)
    where = ".".join([path, *keys] if path else keys)
    if kind in _UNKNOWN:
        return f"{where}: {_unknown(keys[-1], _known(shape, keys[:-1]))}"
    if kind.startswith("missing"):
        return f"{where}: expected a value, got none"
    a = "an integer" if _hint(shape, keys) is int else "a number"
    expected = _EXPECTED.get(kind, mistake["msg"]).format(a=a, **mistake.get("ctx", {}))
    return f"{where}: expected {expected}, got {_said(got)}"


def _known(shape: Any, keys: Sequence[str]) -> list[str]:
    for key in keys:
        shape = get_type_hints(shape)[key]
    return [f.name for f in fields(shape)]


def _hint(shape: Any, keys: Sequence[str]) -> Any:
    """The type that a setting is declared with, less its constraints."""
    for key in keys:
        if not is_dataclass(shape):
            return None
        shape = get_type_hints(shape)[key]
    return next((kind for kind in (int, float) if kind in (shape, *get_args(shape))), None)


def _unknown(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; expected one of {', '.join(known)}"


def _said(value: Any) -> str:
    return "nothing" if value is None else f"{value!r}"[:80]


def _override(content: dict[str, Any], override: str, yaml: YAML) -> None:
    path, separator, value = override.partition("=")
    keys = path.split(".")
    if not separator or not all(keys):
        raise BadInput(f"-S: expected section.key=value, got {override!r}")
    section: Any = content
    for key in keys[:-1]:
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            raise BadInput(f"{path}: expected {key} to be a section, got {_said(section)}")
    try:
        section[keys[-1]] = yaml.load(value)
    except (YAMLError, ValueError) as error:
        raise BadInput(f"-S {path}: expected a YAML value, got {value!r}") from error
