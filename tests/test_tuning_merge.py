"""Merging: what one mapping sets over another, with no more copied than must be and neither changed."""

from __future__ import annotations

import collections
import copy
import types
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surrogate_core.tuning.merge import copied, deep_merge

names = st.sampled_from("abcd")
values = st.recursive(
    st.none() | st.integers(0, 9) | st.lists(st.integers(0, 9), max_size=2),
    lambda items: st.dictionaries(names, items, max_size=3),
    max_leaves=12,
)
mappings = st.dictionaries(names, values, max_size=4)


def plainly(base: dict[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """The same by recursion, with everything copied."""
    merged = copy.deepcopy(base)
    for key, value in override.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = plainly(merged[key], value) if both else copy.deepcopy(value)
    return merged


@given(mappings, mappings)
def test_it_is_what_recursion_and_copies_would_make_and_changes_neither(base: Any, override: Any) -> None:
    before = copy.deepcopy((base, override))
    merged = deep_merge(base, override)
    assert merged == plainly(base, override)
    assert list(merged) == [*base, *(key for key in override if key not in base)], "in base's order"
    assert (base, override) == before


@given(mappings, mappings)
def test_what_is_merged_again_is_the_same(base: Any, override: Any) -> None:
    merged = deep_merge(base, override)
    assert deep_merge(merged, override) == merged
    assert deep_merge(base, {}) == base
    assert deep_merge({}, override) == override


@given(mappings, mappings, mappings)
def test_the_last_of_three_counts_most(a: Any, b: Any, c: Any) -> None:
    assert deep_merge(deep_merge(a, b), c) == plainly(plainly(a, b), c)


def test_nothing_is_copied_that_need_not_be() -> None:
    base = {"same": {"x": [1]}, "empty": {"y": {}}, "changed": {"kept": {"z": [2]}, "one": 1}, "list": [3]}
    override = {"changed": {"one": 2, "new": {"w": [4]}}, "empty": {}, "other": {"v": 5}}
    merged = deep_merge(base, override)
    assert merged["same"] is base["same"]
    assert merged["list"] is base["list"]
    assert merged["empty"] is base["empty"], "nothing is set over it"
    assert merged["changed"]["kept"] is base["changed"]["kept"]  # type: ignore[index]
    assert merged["changed"]["new"] is override["changed"]["new"]
    assert merged["other"] is override["other"]
    assert merged["changed"] is not base["changed"]


def test_one_dict_in_both_places_is_itself() -> None:
    shared = {"x": {"y": 1}}
    merged = deep_merge({"a": shared, "b": shared}, {"a": shared, "b": {"x": {"y": 2}}})
    assert merged == {"a": {"x": {"y": 1}}, "b": {"x": {"y": 2}}}
    assert shared == {"x": {"y": 1}}


@pytest.mark.parametrize(
    ("base", "override", "merged"),
    [
        ({"a": {"x": 1}}, {"a": 2}, {"a": 2}),
        ({"a": 1}, {"a": {"x": 2}}, {"a": {"x": 2}}),
        ({"a": {"x": 1}}, {"a": None}, {"a": None}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"x": {"y": 1, "z": 2}}}, {"a": {"x": {"y": 3}}}, {"a": {"x": {"y": 3, "z": 2}}}),
        ({1: {"x": 1}}, {1: {"y": 2}, "1": 3}, {1: {"x": 1, "y": 2}, "1": 3}),
        ({"a": collections.OrderedDict(x=1)}, {"a": {"y": 2}}, {"a": {"x": 1, "y": 2}}),
        (types.MappingProxyType({"a": {"x": 1}}), types.MappingProxyType({"a": {"y": 2}}), {"a": {"x": 1, "y": 2}}),
    ],
    ids=str,
)
def test_dicts_are_merged_and_all_else_is_replaced(base: Any, override: Any, merged: dict[str, Any]) -> None:
    assert deep_merge(base, override) == merged


def nested(levels: int, value: int) -> dict[str, Any]:
    made: dict[str, Any] = {"value": value}
    for _ in range(levels):
        made = {"below": made, "value": value}
    return made


def test_nesting_has_no_limit() -> None:
    levels = 50_000
    merged = deep_merge(nested(levels, 1), {"below": nested(levels - 2, 2)})
    values = []
    while merged:
        values.append(merged["value"])
        merged = merged.get("below", {})
    assert values == [1, *[2] * (levels - 1), 1]
    depth, made = 0, copied(nested(levels, 1))
    while made := made.get("below"):
        depth += 1
    assert depth == levels


def test_a_copy_shares_no_list_and_no_dict() -> None:
    value = {"a": [1, {"b": (2, [3])}], "c": "d"}
    made = copied(value)
    assert made == value
    made["a"][1]["b"][1].append(4)
    made["a"].append(5)
    made["c"] = "e"
    assert value == {"a": [1, {"b": (2, [3])}], "c": "d"}
    assert copied(value["a"]) == value["a"]
    assert copied("text") == "text"
