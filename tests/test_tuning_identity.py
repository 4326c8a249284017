"""Keys of trials: equal for equal parameters by the stated rule and for no others, and signatures by rounding."""

from __future__ import annotations

import collections
import datetime
import enum
import json
import math
import threading
import tracemalloc
import types
import uuid
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from surrogate_core.tuning import identity
from surrogate_core.tuning.identity import FINEST, KEPT, MAX_CACHED, param_signature, trial_key

texts = st.text(max_size=4) | st.sampled_from(
    ["null", "-0.0", "NaN", "true", "1", "a", "a!", 'a"', "\\ud800", "\ud800"]
)
numbers = st.integers() | st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([0.0, -0.0, -0.05, 1.0])
scalars = st.none() | st.booleans() | numbers | texts
keys = texts | st.integers(-2, 2) | st.booleans() | st.none() | st.floats(allow_nan=False)


def nested(scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def containers(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        lists = st.lists(items, max_size=3)
        return lists | lists.map(tuple) | st.dictionaries(keys, items, max_size=3)

    return st.recursive(scalars, containers, max_leaves=8)


params = st.dictionaries(texts, nested(scalars), max_size=4)


class Colour(enum.Enum):
    RED = 0.12345678901234
    NONE = None


class Level(enum.IntEnum):
    LOW = 1


class Kind(enum.StrEnum):
    FOREST = "forest"


class Loud(str):
    def __str__(self) -> str:
        return self.upper()


class Half(float):
    pass


Pair = collections.namedtuple("Pair", "x y")
NAN = math.nan


@st.composite
def alike(draw: st.DrawFn, value: Any) -> Any:
    """The value, or one that is easily taken for it."""
    if isinstance(value, dict):
        return {key: draw(alike(item)) for key, item in draw(st.permutations(list(value.items())))}
    if isinstance(value, list | tuple):
        return draw(st.sampled_from([list, tuple]))(draw(alike(item)) for item in value)
    forms = [value]
    if isinstance(value, float):
        forms += [-value, np.float64(value), repr(value), *([int(value)] if math.isfinite(value) else [None])]
    elif isinstance(value, bool):
        forms += [np.bool_(value), int(value), str(value).lower()]
    elif isinstance(value, int):
        forms += [float(value), value != 0, str(value), *([np.int64(value)] if abs(value) < 2**63 else [])]
    elif isinstance(value, str):
        forms += [np.str_(value), Loud(value)]
    else:
        forms += [math.nan, "null"]
    return draw(st.sampled_from(forms))


def form(value: Any) -> Any:
    """What tells a value from others by the rule, spelled out."""
    if isinstance(value, str):
        return "str", "".join(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return "dict", frozenset((form(key), form(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return "list", tuple(map(form, value))
    if isinstance(value, float):
        return "float", "nan" if value != value else value + 0.0
    return type(value).__name__, value


@settings(max_examples=300)
@given(params.flatmap(lambda one: st.tuples(st.just(one), alike(one))))
@example(({"a": 0.0, "a!": 1}, {"a": -0.0, "a!": 1}))  # a quoted " sorts after !
def test_keys_are_equal_just_where_the_rule_says_so(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    one, other = pair
    assert (trial_key(one) == trial_key(other)) == (form(one) == form(other))


@settings(max_examples=300)
@given(st.lists(params, min_size=2, max_size=9))
def test_different_parameters_have_different_keys(many: list[dict[str, Any]]) -> None:
    assert len({trial_key(one) for one in many}) == len({form(one) for one in many})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.float64(0.1), 0.1),
        (np.float64("nan"), NAN),
        (np.float64("-inf"), -math.inf),
        (np.float64(-0.0), 0.0),
        (np.float32(0.5), 0.5),
        (np.float16(0.25), 0.25),
        (np.int8(3), 3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.str_("a\0"), "a\0"),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(0.5), 0.5),
        (np.array([NAN, 1.0]), [NAN, 1.0]),
        (np.array([1, None, "a"], dtype=object), [1, None, "a"]),
        ((1, (2, 3)), [1, [2, 3]]),
        (Pair(1, 2), [1, 2]),
        (collections.OrderedDict(b=1, a=2), {"a": 2, "b": 1}),
        (collections.defaultdict(int, a=1), {"a": 1}),
        (types.MappingProxyType({"a": None}), {"a": None}),
        (Colour.RED, 0.12345678901234),
        (Colour.NONE, None),
        (Level.LOW, 1),
        (Kind.FOREST, "forest"),
        (Loud("a"), "a"),
        (Half(0.5), 0.5),
        (uuid.UUID(int=1), str(uuid.UUID(int=1))),
        (-0.0, 0.0),
        (-NAN, NAN),
        (0.1 + 0.2, 0.30000000000000004),
        ({np.int64(1): 0}, {1: 0}),
        ({np.str_("a"): 0}, {"a": 0}),
        ({Loud("a"): 0}, {"a": 0}),
        ({Kind.FOREST: 0}, {"forest": 0}),
        ({Level.LOW: 0}, {1: 0}),
    ],
    ids=repr,
)
@pytest.mark.parametrize("beside", [{}, {"none": None}, {"nan": NAN}, {"zero": -0.0}, {"z\x01": {1: 2}}], ids=repr)
def test_what_counts_as_one_value_has_one_key_and_one_signature(one: Any, other: Any, beside: dict[str, Any]) -> None:
    this, that = {"a": one, **beside}, {**beside, "a": other}
    assert trial_key(this) == trial_key(that)
    for precision in (0, 3, 10, FINEST):
        assert param_signature(this, precision) == param_signature(that, precision)


APART = [
    None, "null", NAN, "NaN", math.inf, -math.inf, "Infinity", 1e308,
    1, 1.0, True, "1", "1.0", "true", 0, 0.0, False, "0", "-0.0", "", [], {}, [[]], [None], [NAN], "[]", "{}",
    2**53, 2.0**53, 2**53 + 1, 2**63, 2**64, 2**64 + 1, -(2**63), -(2**63) - 1, 10**30, 10**30 + 1, 1e30, 10**5000,
    0.1, 0.1 + 1e-17 + 2e-17, 5e-324, np.float32(0.1), [1, 2], [2, 1], [[1], 2], [12], "[1,2]",
    {"a": 1}, {"a": 1.0}, {"b": 1}, {1: 1}, {"1": 1}, {1.0: 1}, {True: 1}, {"true": 1}, {None: 1}, {"null": 1},
    {NAN: 1}, {"NaN": 1}, {"a": {"b": 1}}, {"a": 1, "b": 1}, {'a":1,"b': 1}, "\ud800", "\\ud800",
    "é\ud800", "\\u00e9\ud800", "\ud83d\ude00\ud800", "\U0001f600\ud800",
    "\ud83d\ude00", "\U0001f600", "\x00", "\\u0000", "\u2028", "a\n", "a\\n",
]  # fmt: skip


def test_all_else_is_told_apart() -> None:
    assert len({trial_key({"a": value}) for value in APART}) == len(APART)
    assert len({trial_key({"a": [value, None]}) for value in APART}) == len(APART)


def test_enums_as_keys_do_not_hide_what_they_are_equal_to() -> None:
    assert trial_key({Colour.NONE: 1, None: 2}) != trial_key({None: 2})


@pytest.mark.parametrize(
    "plain",
    [
        {"a": 1, "b": {"c": [1.5, "x", True]}},
        {"depth": None, "kernel": ["a", None]},
        {"offset": -0.05, "name": "-0.0", "other": "null"},
        {"a": np.float64(0.5), "b": np.arange(3), "c": Level.LOW},
    ],
    ids=str,
)
def test_what_json_tells_is_written_by_the_fast_path_alone(plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_canonical", None)
    if any(isinstance(value, np.ndarray) for value in plain.values()):
        assert trial_key(plain) == '{"a":0.5,"b":[0,1,2],"c":1}'
    else:
        assert json.loads(trial_key(plain)) == plain


@pytest.mark.parametrize(
    "value", [NAN, math.inf, -0.0, 2**64, "\ud800", {1: 2}, np.float32("nan"), [None, NAN]], ids=repr
)
def test_the_rest_takes_the_other_path(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_canonical", lambda params, precision: "canonical")
    assert trial_key({"a": value}) == "canonical"


@pytest.mark.parametrize(
    ("value", "where", "name"),
    [
        ({1, 2}, "params.a", "set"),
        (b"1", "params.a", "bytes"),
        (1j, "params.a", "complex"),
        (np.complex128(1), "params.a", "complex128"),
        (datetime.date(2024, 1, 1), "params.a", "date"),
        (datetime.datetime(2024, 1, 1), "params.a", "datetime"),
        (np.datetime64("2024-01-01"), "params.a", "datetime64"),
        (np.timedelta64(1, "s"), "params.a", "timedelta64"),
        (np.longdouble(0.1), "params.a", "longdouble"),
        (np.zeros(2, dtype="i4,f8"), "params.a", "ndarray"),
        ([1, {"b": ...}], r"params.a\[1\].b", "ellipsis"),
        (collections.OrderedDict(b=[{1}]), r"params.a.b\[0\]", "set"),
        (np.array([{1}], dtype=object), r"params.a\[0\]", "set"),
        ({b"b": 1}, "a key of params.a", "bytes"),
        ({frozenset(): 1}, "a key of params.a", "frozenset"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("function", [trial_key, param_signature])
def test_what_is_no_json_value_is_refused_with_its_place(function: Any, value: Any, where: str, name: str) -> None:
    with pytest.raises(TypeError, match=f"^{where}: expected a JSON value, got {name}$"):
        function({"a": value})


def in_itself() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["a"] = [value]
    return value


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize("value", [in_itself(), deep(100_000)], ids=["in itself", "deep"])
@pytest.mark.parametrize("function", [trial_key, param_signature])
def test_what_is_nested_in_itself_or_too_deeply_is_refused(function: Any, value: Any) -> None:
    with pytest.raises(ValueError, match="params: expected values nested less deeply, and not in themselves"):
        function(value)


def test_nesting_deeper_than_orjson_writes_is_told_apart() -> None:
    assert trial_key(deep(300)) != trial_key(deep(301))
    assert param_signature(deep(300)) != param_signature(deep(301))


def test_nothing_is_kept_of_keys() -> None:
    trial_key({"a": -1, "b": {"c": [0.5]}})
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for i in range(5000):
            trial_key({"a": i, "b": {"c": [0.5 * i, None, NAN]}})
        assert tracemalloc.get_traced_memory()[0] - before < 50_000
    finally:
        tracemalloc.stop()


# Signatures


precisions = st.integers(0, 20)


@given(params.flatmap(lambda one: st.tuples(st.just(one), alike(one))), precisions)
def test_equal_keys_have_equal_signatures_at_every_precision(
    pair: tuple[dict[str, Any], dict[str, Any]], precision: int
) -> None:
    one, other = pair
    signature = param_signature(one, precision)
    assert len(signature) == 32
    assert int(signature, 16) >= 0
    assert param_signature(one, precision) == signature, "as it is remembered"
    if trial_key(one) == trial_key(other):
        assert param_signature(other, precision) == signature


@given(st.floats(), st.floats(-1e6, 1e6), st.floats(-9, 9), precisions)
@example(1.5 * 2**51, 0.5, 0.0, 1)
@example(2.0**51 + 0.5, 1.0, 1e300, 0)
@example(-0.0, 0.0, -1e-20, 10)
@example(math.nan, -0.04, 0.5, 1)
def test_a_float_is_signed_by_its_rounded_value_anywhere(a: float, b: float, c: float, precision: int) -> None:
    """The path that is remembered and the one that tells NaN from None agree."""

    def signatures(a: float, b: float, c: float) -> list[str]:
        plain = {"a": a, "b": [b, {"c": (c,)}]}
        beside = {**plain, "n": None, "x": np.float64(b)}
        return [param_signature(plain, precision), param_signature(beside, precision)]

    rounded = [decimal(value, precision) for value in (a, b, c)]
    assert signatures(a, b, c) == signatures(*rounded)


def decimal(value: float, precision: int) -> float:
    """A value to so many decimals, where it has as many."""
    return round(value * 10.0**precision) / 10.0**precision if abs(value) * 10.0**precision < 2**50 else value


@given(st.integers(-(10**6), 10**6), st.floats(-0.49, 0.49), st.integers(0, 9))
def test_floats_within_half_a_unit_of_a_decimal_are_merged(whole: int, off: float, precision: int) -> None:
    def signature(units: float) -> str:
        return param_signature({"a": {"b": [units / 10**precision]}}, precision)

    assert signature(whole + off) == signature(whole)
    assert signature(whole + off) != signature(whole + 1 + off)


def test_lower_precision_merges_more() -> None:
    values = np.linspace(0, 1, 5000).tolist()
    counts = [len({param_signature({"x": value}, precision) for value in values}) for precision in (0, 1, 2, 3, 10)]
    assert counts == [2, 11, 101, 1001, 5000]


def test_it_is_no_ladder() -> None:
    """What is merged at one precision may be apart at a lower one, as the middle of 0.45 is a border of 0.4 and 0.5."""
    one, other = {"x": 0.449}, {"x": 0.451}
    assert [param_signature(one, k) == param_signature(other, k) for k in (3, 2, 1, 0)] == [False, True, False, True]


def test_integers_texts_and_structure_are_not_rounded() -> None:
    apart = [1, 1.0, True, "1.0", 2**53, 2**53 + 1, None, NAN, [1.0], {"b": 1.0}, {"b": 1}, 10**20, 10**20 + 1]
    assert len({param_signature({"a": value}, 0) for value in apart}) == len(apart)


def test_the_default_precision_is_ten() -> None:
    assert param_signature({"x": 0.1 + 0.2}) == param_signature({"x": 0.3}) == param_signature({"x": 0.3}, 10)
    assert param_signature({"x": 1e-9}) != param_signature({"x": 2e-9})


def test_rounding_reaches_as_far_as_floats_do() -> None:
    assert param_signature({"x": 1e-299}, FINEST) != param_signature({"x": 2e-299}, FINEST)
    assert param_signature({"x": 1.7e308}, FINEST) != param_signature({"x": 1.6e308}, FINEST)
    assert param_signature({"x": 5e-324}, FINEST) == param_signature({"x": 0.0}, FINEST), "and no further"


@pytest.mark.parametrize("precision", [-1, FINEST + 1, 1.0, True, None, "10"], ids=repr)
def test_a_precision_that_is_none_is_refused(precision: Any) -> None:
    with pytest.raises(ValueError, match=r"^precision: expected an integer from 0 to 300, got "):
        param_signature({"a": 1.0}, precision)


def test_signatures_are_remembered_within_a_bound() -> None:
    assert (MAX_CACHED, KEPT) == (5000, 4000)
    identity._signatures.clear()
    for i in range(MAX_CACHED + 1):
        param_signature({"bound": i}, i % 3)
    kept = [(i % 3, trial_key({"bound": i})) for i in range(MAX_CACHED + 1)][-KEPT:]
    assert list(identity._signatures) == kept, "the last ones, whatever their precision"
    for i in range(2 * MAX_CACHED):
        param_signature({"again": i})
        assert KEPT <= len(identity._signatures) <= MAX_CACHED


def test_what_is_remembered_is_not_rounded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    given_before = {"again": 0.5, "b": {"depth": None}}
    expected = param_signature(given_before)
    monkeypatch.setattr(identity, "_rounded", None)
    assert param_signature({"b": {"depth": None}, "again": np.float64(0.5)}) == expected


def test_threads_may_share_it() -> None:
    """More than there is room for, by four at once, of which each has what it would have alone."""
    told: list[list[str]] = []

    def work() -> None:
        told.append([param_signature({"thread": i / 7}) for i in range(MAX_CACHED + 500)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 4
    assert all(one == told[0] for one in told)
    assert len(set(told[0])) == MAX_CACHED + 500
    assert len(identity._signatures) <= MAX_CACHED
