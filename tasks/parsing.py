"""Plain values into typed ones; a mistake is one line: path, expectation, what came."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import date
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, Strict, TypeAdapter, ValidationError, create_model
from pydantic_core import ErrorDetails

from tasks.errors import BadInput

SECTION = ConfigDict(extra="forbid", allow_inf_nan=False)
Text = Annotated[str, Strict()]
Count = Annotated[int, Strict(), Field(ge=1)]
AtLeastTwo = Annotated[int, Strict(), Field(ge=2)]
Seed = Annotated[int, Strict(), Field(ge=0, lt=2**31)]
Number = Annotated[float, Strict()]
Positive = Annotated[float, Strict(), Field(gt=0)]


def member(union: Mapping[str, type], tag: str, config: Mapping[str, Any], path: str) -> Any:
    """One of a union of frozen dataclasses, told apart by a tag; its own checks become mistakes with a path."""
    rest = dict(config)
    kind = rest.pop(tag, None)
    if not isinstance(kind, str) or kind not in union:
        raise BadInput(f"{path}.{tag}: expected one of {', '.join(union)}, got {kind!r}")
    cls = union[kind]
    hints = get_type_hints(cls)
    for name in rest.keys() & hints.keys():
        if isinstance(rest[name], list) and _is_tuple(hints[name]):  # YAML and JSON know no tuple
            rest[name] = tuple(rest[name])
    shape: dict[str, Any] = {
        f.name: (hints[f.name], ... if f.default is MISSING and f.default_factory is MISSING else f.default)
        for f in fields(cls)
    }
    model = validated(
        TypeAdapter(create_model(cls.__name__, __config__={**SECTION, "strict": True}, **shape)), rest, path, cls
    )
    try:
        return cls(**dict(model))
    except ValueError as error:
        raise BadInput(f"{path}.{error}") from error


def _is_tuple(hint: Any) -> bool:
    """Whether a type, or a member of a union, is a tuple."""
    return get_origin(hint) is tuple or any(_is_tuple(member) for member in get_args(hint))


def plain(value: Any, path: str) -> Any:
    """The value with text for keys, if it is made of what JSON can hold (and dates, which no setting takes)."""
    if isinstance(value, Mapping):
        made = {str(key): plain(inner, f"{path}.{key}".lstrip(".")) for key, inner in value.items()}
        if len(made) < len(value):
            raise BadInput(f"{path}: expected distinct keys, got {said(list(value))}")
        return made
    if isinstance(value, list):
        return [plain(inner, path) for inner in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise BadInput(f"{path}: expected an integer of at most 64 bits, got {said(value)}")
    if value is not None and not isinstance(value, bool | int | float | str | date):
        raise BadInput(f"{path}: expected a plain value, got {said(value)}")
    return value


def validated(adapter: TypeAdapter[Any], content: Any, path: str, shape: type) -> Any:
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
    "tuple_type": "a list",
    "sequence_str": "a list",
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
        return f"{where}: {unknown(keys[-1], *_known(shape, keys[:-1]))}"
    if kind.startswith("missing"):
        return f"{where}: expected a value, got none"
    a = "an integer" if _hint(shape, keys) is int else "a number"
    expected = _EXPECTED.get(kind, mistake["msg"]).format(a=a, **mistake.get("ctx", {}))
    return f"{where}: expected {expected}, got {said(got)}"


def _known(shape: Any, keys: Sequence[str]) -> tuple[list[str], str, str]:
    """What `unknown` is to be told of a section: one that is no dataclass knows by itself."""
    for key in keys:
        shape = get_type_hints(shape)[key]
    names = [f.name for f in fields(shape)] if is_dataclass(shape) else list(shape.KEYS)
    return names, "key", getattr(shape, "EXPECTED", "")


def _hint(shape: Any, keys: Sequence[str]) -> Any:
    """The type that a setting is declared with, less its constraints."""
    for key in keys:
        if not is_dataclass(shape):
            return None
        shape = get_type_hints(shape)[key]
    return next((kind for kind in (int, float) if kind in (shape, *get_args(shape))), None)


def unknown(name: str, known: Sequence[str], what: str = "key", expected: str = "") -> str:
    """What is said of a name that is none of those known, which `expected` sums up where they are many."""
    near = difflib.get_close_matches(name, known, n=1)
    expected = expected or f"one of {', '.join(known)}"
    return f"unknown {what}; " + (f"did you mean {near[0]}?" if near else f"expected {expected}")


def said(value: Any) -> str:
    value = list(value) if isinstance(value, tuple) else value  # as it was written
    return "nothing" if value is None else f"{value!r}"[:80]
