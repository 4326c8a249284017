"""When two trials are the same: a key that is equal for equal parameters, and a signature for nearly equal ones.

Parameters are JSON values: None, booleans, numbers, strings, and lists and dicts of them. The rule of what is equal:
the order of a dict's items does not count; a numpy scalar is the Python value it holds, a tuple or an array is a list,
an enum is its value, a UUID its text, and what is a subclass of a JSON type is of that type; 0.0 is -0.0 and NaN is
NaN. All else is told apart: 1, 1.0, True and "1", None and NaN, 0.1 and numpy's float32 of it, the keys 1 and "1".

Equal keys have equal signatures at every precision. Floats count as the nearest decimal fraction, to within rounding
errors, so two that are within half a unit of the same one are merged, and the lower the precision, the more these are.
It is no ladder, though: 0.449 and 0.451 are 0.45 to two decimals, 0.4 and 0.5 to one, and 0 to none.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping
from enum import Enum
from hashlib import blake2b
from typing import Any
from uuid import UUID

import numpy as np
import orjson

MAX_CACHED, KEPT = 5000, 4000
"""Signatures that are remembered, and how many of the last ones stay when there are more."""
FINEST = 300
"""Decimals that a signature can tell apart at most."""
_OPTIONS = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_AS_IT_IS = {str, int, bool, type(None)}


def trial_key(params: Mapping[str, Any]) -> str:
    """The canonical text of parameters: equal for equal ones, and for no others.

    It is their JSON, with keys in order; what JSON cannot tell apart (NaN, infinities, keys that are no strings) is
    written as no JSON is. Nothing is cached: writing it takes less than looking it up would.

    Raises:
        TypeError: a value is none of those above.
        ValueError: values are nested in themselves, or too deeply.
    """
    text = _json(params)
    if text is None or ((b"null" in text or b"-0.0" in text) and not _is_told(params)):
        return _canonical(params, None)
    return text.decode()


def param_signature(params: Mapping[str, Any], precision: int = 10) -> str:
    """A short name of parameters, 32 hexadecimal digits: that of all whose floats round to the same decimals.

    Args:
        params: as of `trial_key`.
        precision: decimals that count, from 0 to 300.

    Raises:
        TypeError, ValueError: as of `trial_key`; or precision is out of its range.
    """
    if type(precision) is not int or not 0 <= precision <= FINEST:
        raise ValueError(f"precision: expected an integer from 0 to {FINEST}, got {precision!r}")
    text = _json(params)
    if text is None or (b"null" in text and not _is_told(params)):
        return _digest(_canonical(params, precision).encode())
    place = precision, text.decode()  # orjson's own bytes hold on to a kilobyte
    signature = _signatures.get(place)
    if signature is None:
        rounded = orjson.dumps(_rounded(params, precision, 10.0**precision), _plain, _OPTIONS)
        signature = _signatures[place] = _digest(rounded)
        if len(_signatures) > MAX_CACHED:
            _trim()
    return signature


_signatures: dict[tuple[int, str], str] = {}
_trimming = threading.Lock()


def _trim() -> None:
    with _trimming:
        if len(_signatures) > MAX_CACHED:
            for oldest in list(_signatures)[:-KEPT]:
                del _signatures[oldest]


def _digest(text: bytes) -> str:
    return blake2b(text, digest_size=16).hexdigest()


def _json(params: Any) -> bytes | None:
    """As orjson writes it; None where it cannot."""
    try:
        return orjson.dumps(params, _plain, _OPTIONS)
    except TypeError:
        return None


def _is_told(value: Any) -> bool:
    """Whether a null of orjson is a None, and no zero of it has a sign."""
    kind = type(value)
    if kind is float:
        return math.isfinite(value) and (value != 0.0 or math.copysign(1.0, value) > 0.0)
    if kind is dict:
        value = value.values()
    elif kind is not list and kind is not tuple:
        return kind in _AS_IT_IS or _is_told(_plain(value))
    for item in value:  # noqa: SIM110 - a generator takes three times as long
        if type(item) not in _AS_IT_IS and not _is_told(item):
            return False
    return True


def _rounded(value: Any, precision: int, scale: float) -> Any:
    """What a value counts as, with its floats rounded.

    A float below 2^51 is rounded to an integer by adding 1.5 * 2^52, whose last digit is 1, and taking it off again:
    `round` to decimals takes several times as long. No zero comes out of it with a sign.
    """
    kind = type(value)
    if kind is dict:
        return {
            key: item
            if (kind := type(item)) in _AS_IT_IS
            else (item * scale + _UNIT - _UNIT) / scale
            if kind is float and -_EXACT < item * scale < _EXACT
            else _rounded(item, precision, scale)
            for key, item in value.items()
        }
    if kind is list or kind is tuple:
        return [item if type(item) in _AS_IT_IS else _rounded(item, precision, scale) for item in value]
    if kind is float:
        return (value * scale + _UNIT - _UNIT) / scale if -_EXACT < value * scale < _EXACT else round(value, precision)
    return value if kind in _AS_IT_IS else _rounded(_plain(value), precision, scale)


_EXACT, _UNIT = 2.0**51, 1.5 * 2.0**52


def _plain(value: Any) -> Any:
    """What a value counts as, of those that orjson leaves to others, or does not round."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, UUID):
        return str(value)
    for kind, held in _HELD_BY.items():
        if isinstance(value, kind):
            return held(value)
    if isinstance(value, np.generic | np.ndarray) and value.dtype.char in _HELD:
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list | tuple):
        return list(value)
    raise TypeError(f"expected a JSON value, got {type(value).__name__}")


_HELD_BY: dict[type, Callable[[Any], Any]] = {str: str.__str__, int: int.__int__, float: float.__float__}
"""What there is of a subclass's value, whatever it makes of it."""
_HELD = "?bBhHiIlLqQefdUO"
"""Of numpy's types those whose values Python has as well; it has no long double."""


def _canonical(params: Any, precision: int | None) -> str:
    """The same text as orjson's where that tells everything; floats are rounded, if there is a precision."""
    try:
        return _text(params, "params", precision)
    except RecursionError:
        raise ValueError("params: expected values nested less deeply, and not in themselves, got such") from None


def _text(value: Any, path: str, precision: int | None) -> str:
    kind = type(value)
    if kind is float:
        if not math.isfinite(value):
            return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
        return orjson.dumps(value + 0.0 if precision is None else _rounded(value, precision, 10.0**precision)).decode()
    if kind is str:
        return _quoted(value)
    if kind is bool or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if kind is int:
        return str(value) if value.bit_length() <= 64 else hex(value)  # which has no limit of digits
    if kind is list or kind is tuple:
        return f"[{','.join([_text(item, f'{path}[{i}]', precision) for i, item in enumerate(value)])}]"
    if kind is dict:
        items = [(*_name(key, path, precision), _text(item, f"{path}.{key}", precision)) for key, item in value.items()]
        return f"{{{','.join([f'{name}:{item}' for _, name, item in sorted(items)])}}}"
    try:
        plain = _plain(value)
    except TypeError as error:
        raise TypeError(f"{path}: {error}") from None
    return _text(plain, path, precision)


def _name(key: Any, path: str, precision: int | None) -> tuple[str, str]:
    """By what a key is sorted, as orjson does it, and how it is written."""
    if isinstance(key, str):
        return str.__str__(key), _quoted(str.__str__(key))
    written = _text(key, f"a key of {path}", precision)
    return written, written


def _quoted(text: str) -> str:
    try:
        return orjson.dumps(text).decode()
    except TypeError:  # lone surrogates: these are escaped, and nothing else that orjson does not escape
        return json.dumps(text, ensure_ascii=False).encode(errors="backslashreplace").decode()
