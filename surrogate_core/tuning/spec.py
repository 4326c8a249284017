"""Specs of search spaces, as params.yaml holds them, checked and made into what they mean."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from reprlib import repr as shown
from typing import Any

import numpy as np
import orjson

from surrogate_core.tuning.identity import trial_key
from surrogate_core.tuning.parameters import BRANCH, Branches, Continuous, Fixed, Listed, Node, Section, Stepped

LARGEST = 2**53
"""Integer of a range: up to it samplers, which compute with floats, tell all apart."""


def parse_space(spec: Any, path: str) -> Section:
    if not isinstance(spec, Mapping):
        raise ValueError(f"{path}: expected names and what they may be, got {shown(spec)}")
    nodes: dict[str, Node] = {}
    for key, what in spec.items():
        if not isinstance(key, str) or not key or set(key) & set(f".={BRANCH}"):
            raise ValueError(f"{path}: expected names that are texts without '.', '=' and '{BRANCH}', got {key!r}")
        nodes[key] = _node(what, f"{path}.{key}")
    beside = set(nodes)
    for key, node in nodes.items():
        if isinstance(node, Branches):
            for branch, section in node.sections.items():
                if both := beside & section.names:
                    where = f"{path}.{key}.branches.{branch}"
                    raise ValueError(f"{where}: expected names that are not beside {key}, got {min(both)!r}")
            beside |= node.keys(key)
    return Section(nodes)


def _node(what: Any, path: str) -> Node:
    what = _held(what)
    if isinstance(what, list | tuple):
        return _of_list(what, path)
    if not isinstance(what, Mapping):
        return Fixed(_value(what, path))
    kind = what.get("type", what)
    if isinstance(kind, Mapping | list | tuple):  # there is none, or it is a parameter with that name
        if not {"low", "high"} - {name for name, item in what.items() if isinstance(item, int | float)}:
            raise ValueError(f"{path}.type: expected float, int or loguniform, as it has low and high, got none")
        return parse_space(what, path)
    if not isinstance(kind, str) or kind not in _LEAVES:
        close = get_close_matches(str(kind), _LEAVES, 1)
        hint = f"; did you mean {close[0]}?" if close else "; a fixed value is {type: fixed, value: ...}"
        raise ValueError(f"{path}.type: expected one of {', '.join(_LEAVES)}, got {shown(kind)}{hint}")
    make, needed, optional = _LEAVES[kind]
    given = {name: value for name, value in what.items() if name != "type" and (name in needed or value is not None)}
    for name in given:
        if name not in needed + optional:
            raise ValueError(f"{path}: expected {', '.join(needed + optional)}, as it is {kind}, got {name!r}")
    for name in needed:
        if name not in given:
            raise ValueError(f"{path}.{name}: expected it, as {kind} needs one, got none")
    return make(given, path)


def _fixed(given: Mapping[str, Any], path: str) -> Node:
    return Fixed(_value(given["value"], f"{path}.value"))


def _values(listed: Any, path: str) -> list[Any]:
    listed = _held(listed)
    if not isinstance(listed, list | tuple) or not listed:
        raise ValueError(f"{path}: expected a list of at least one value, got {shown(listed)}")
    values = [_value(value, f"{path}[{i}]") for i, value in enumerate(listed)]
    known: set[str] = set()
    for value in values:
        if (key := trial_key(value)) in known:
            raise ValueError(f"{path}: expected distinct values, got {shown(value)} twice")
        known.add(key)
    return values


def _of_list(listed: Any, path: str) -> Node:
    values = _values(listed, path)
    return Listed(values, ordered=all(isinstance(value, int | float) and type(value) is not bool for value in values))


def _grid(given: Mapping[str, Any], path: str) -> Node:
    return _of_list(given["values"], f"{path}.values")


def _categorical(given: Mapping[str, Any], path: str) -> Node:
    return Listed(_values(given["values"], f"{path}.values"), ordered=False)


def _branches(given: Mapping[str, Any], path: str) -> Node:
    branches, path = given["branches"], f"{path}.branches"
    if not isinstance(branches, Mapping) or not branches:
        raise ValueError(f"{path}: expected a space for each value, got {shown(branches)}")
    sections: dict[Any, Section] = {}
    for key, spec in branches.items():
        branch = _value(key, path)
        if isinstance(branch, tuple) or BRANCH in str(branch) or str(branch) in map(str, sections):
            raise ValueError(f"{path}: expected distinct texts or numbers without '{BRANCH}', got {branch!r}")
        sections[branch] = parse_space({} if spec is None else spec, f"{path}.{branch}")
    return Branches(sections)


def _range(given: Mapping[str, Any], path: str, whole: bool) -> Node:
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise ValueError(f"{path}.log: expected true or false, got {shown(log)}")
    low, high = (_number(given[name], f"{path}.{name}", whole) for name in ("low", "high"))
    if low > high:
        raise ValueError(f"{path}.low: expected at most high = {high!r}, got {low!r}")
    if log and low <= 0:
        raise ValueError(f"{path}.low: expected a number > 0, as it is logarithmic, got {low!r}")
    if not math.isfinite(high - low):
        raise ValueError(f"{path}.high: expected a finite distance from low = {low!r}, got {high!r}")
    if not whole and "step" not in given:
        return Continuous(low, high, log)
    step = _number(given.get("step", 1), f"{path}.step", whole)
    least = 1 if whole else 4 * math.ulp(max(abs(low), abs(high)))
    if step < least:
        expected = f"at least {least:.2g}, which tells numbers of that size apart" if step > 0 else "a number > 0"
        raise ValueError(f"{path}.step: expected {expected}, got {step!r}")
    return Stepped(low, high, step, log)


def _number(value: Any, path: str, whole: bool) -> float:
    value, most = _held(value), LARGEST if whole else sys.float_info.max
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= most
    if not is_number or (whole and value % 1):
        expected = "an integer of at most 2**53 in size" if whole else "a finite number"
        raise ValueError(f"{path}: expected {expected}, got {shown(value)}")
    return int(value) if whole else float(value)


def _held(value: Any) -> Any:
    """A numpy value as Python's."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def _value(value: Any, path: str) -> Any:
    """A value that a design, and a line of a journal, may have."""
    value = _held(value)
    if isinstance(value, list | tuple):
        items = [_value(item, f"{path}[{i}]") for i, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, Mapping):
        if others := [key for key in value if not isinstance(key, str)]:
            raise ValueError(f"{path}: expected names that are texts, got {shown(others[0])}")
        return {key: _value(item, f"{path}.{key}") for key, item in value.items()}
    if value is None or isinstance(value, bool | int | str | float):
        value = float(value) if isinstance(value, float) else value
        try:
            if orjson.dumps(value) != b"null" or value is None:
                return value
        except TypeError:  # more than 64 bits, or no Unicode
            pass
    raise ValueError(f"{path}: expected a text, a finite number of 64 bits, true, false or null, got {shown(value)}")


_LEAVES: dict[str, tuple[Callable[[Mapping[str, Any], str], Node], list[str], list[str]]] = {
    "fixed": (_fixed, ["value"], []),
    "grid": (_grid, ["values"], []),
    "float": (lambda given, path: _range(given, path, whole=False), ["low", "high"], ["step", "log"]),
    "int": (lambda given, path: _range(given, path, whole=True), ["low", "high"], ["step", "log"]),
    "loguniform": (lambda given, path: _range({**given, "log": True}, path, whole=False), ["low", "high"], []),
    "categorical": (_categorical, ["values"], []),
    "branches": (_branches, ["branches"], []),
}
