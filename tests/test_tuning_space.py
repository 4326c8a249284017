"""Specs of search spaces: what they mean, how many designs they have, and how mistakes in them are told."""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import optuna
import orjson
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from ruamel.yaml import YAML

from surrogate_core.tuning.identity import param_signature, trial_key
from surrogate_core.tuning.parameters import round_to_step, step_decimals
from surrogate_core.tuning.space import TuningSpace, estimate_search_space, expand_parameters

EVERYTHING = """
learning_rate: {type: loguniform, low: 1.0e-4, high: 0.1}
dropout: {type: float, low: 0, high: 0.5, step: 0.05}
momentum: {type: float, low: 0, high: 1}
rate: {type: float, low: 0.001, high: 1, log: true}
decay: {type: float, low: 0.1, high: 0.9, step: 0.2, log: true}
layers: {type: int, low: 1, high: 8, log: true}
units: {type: int, low: 8, high: 64, step: 8}
depth: {type: int, low: 1, high: 3}
hidden: {type: categorical, values: [[32, 32], [64], {a: [1, null]}]}
n_starts: {type: grid, values: [4, 16, 8]}
short: [1, 2]
seed: {type: fixed, value: {any: [thing, null]}}
also: 0
type: {type: grid, values: [a parameter that is called type]}
output: {scale: {type: int, low: 1, high: 2}, deeper: {still: [true, false]}, nothing: {}}
kind:
  type: branches
  branches:
    network:
      width: {type: int, low: 8, high: 64}
      mode: {type: branches, branches: {fast: , slow: {patience: [1, 2]}}}
    forest: {trees: [10, 100]}
    none:
"""
FINITE = {
    "kernel": ["a", "b"],
    "step": {"type": "float", "low": 0, "high": 0.3, "step": 0.1},
    "inner": {"n": {"type": "int", "low": 1, "high": 3}, "fixed": 0},
    "kind": {
        "type": "branches",
        "branches": {
            "network": {"width": [8, 16], "mode": {"type": "branches", "branches": {"x": {"y": [1, 2]}, "z": {}}}},
            "forest": None,
        },
    },
}


def of(what: Any) -> TuningSpace:
    return TuningSpace({"x": what})


def values_of(what: Any) -> list[Any]:
    return [design["x"] for design in expand_parameters({"x": what})]


# Spaces for laws

FLOATS = st.floats(-9, 9).map(lambda x: x if abs(x) > 1e-299 else 0.0)  # of smaller ones a signature knows nothing


def distinct(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=1, max_size=4, unique_by=trial_key)


leaf_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | FLOATS | st.text("ab/.=", max_size=2),
    lambda items: st.lists(items, max_size=2) | st.dictionaries(st.text("ab", max_size=1), items, max_size=2),
    max_leaves=3,
)


@st.composite
def stepped(draw: st.DrawFn) -> dict[str, Any]:
    """As people write them: high may lie between two steps."""
    digits = draw(st.integers(0, 8))
    low, step, n = draw(st.integers(-999, 999)), draw(st.integers(1, 99)), draw(st.integers(0, 4))
    high = low + step * n + draw(st.integers(0, step - 1))
    spec = {"low": low / 10**digits, "high": high / 10**digits, "step": step / 10**digits}
    return {"type": "float", **spec, "log": low > 0 and draw(st.booleans())}


@st.composite
def whole(draw: st.DrawFn) -> dict[str, Any]:
    low, step = draw(st.integers(-999, 999)), draw(st.integers(1, 99))
    spec = {"low": low, "high": low + draw(st.integers(0, 4 * step)), "step": step}
    return {"type": "int", **spec, "log": low > 0 and draw(st.booleans())}


names = st.text("abc ", min_size=1, max_size=2)
leaves = st.one_of(
    leaf_values.map(lambda value: {"type": "fixed", "value": value}),
    distinct(leaf_values).map(lambda values: {"type": "grid", "values": values}),
    distinct(FLOATS | st.integers(-9, 9)),
    distinct(leaf_values).map(lambda values: {"type": "categorical", "values": values}),
    stepped(),
    whole(),
)


@st.composite
def finite_specs(draw: st.DrawFn, depth: int = 2) -> dict[str, Any]:
    spec: dict[str, Any] = draw(st.dictionaries(names, leaves, max_size=3))
    if depth:
        for name, what in draw(st.dictionaries(st.sampled_from("de"), finite_specs(depth - 1), max_size=1)).items():
            spec[name] = what
        if draw(st.booleans()):
            kinds = draw(
                st.lists(st.sampled_from(["k", 1, 2.5, True, None, "x.y=z"]), min_size=1, max_size=3, unique=True)
            )
            inner = {kind: draw(finite_specs(depth - 1)) for kind in kinds}
            spec[f"branch{depth}"] = {
                "type": "branches",
                "branches": {k: renamed(s, f"{depth}") for k, s in inner.items()},
            }
    return spec


def renamed(spec: dict[str, Any], mark: str) -> dict[str, Any]:
    """Names that are not beside those outside."""
    return {name + mark: what for name, what in spec.items()}


def replaying(raw: Mapping[str, Any]) -> Callable[[str, BaseDistribution], Any]:
    rest = dict(raw)

    def ask(name: str, distribution: BaseDistribution) -> Any:
        proposed = rest.pop(name)
        assert distribution._contains(distribution.to_internal_repr(proposed)), (name, distribution, proposed)
        return proposed

    return ask


@settings(max_examples=200)
@given(finite_specs())
@example(FINITE)
@example({"x": {"type": "float", "low": -0.7, "high": 0.7, "step": 0.1}})
@example({"x": {"type": "float", "low": 0.1, "high": 0.9, "step": 0.1, "log": True}})
@example({"x": {"type": "float", "low": 0, "high": 1 - 0.7, "step": 0.1}})
@example({"x": {"type": "float", "low": 0, "high": 0.7 - 0.4, "step": 0.1, "log": False}})
@example({"x": {"type": "float", "low": 0.1, "high": 0.7 - 0.4, "step": 0.1, "log": True}})
@example({"x": {"type": "float", "low": 0.1 + 0.2, "high": 3, "step": 0.1 + 0.2}})
@example({"x": [1e-300, 2e-300, 1, 1.0, True]})
def test_the_designs_are_distinct_as_many_as_estimated_and_each_comes_back_from_its_raw_values(spec: Any) -> None:
    assume(spec)
    space = TuningSpace(spec)
    assume(space.estimate.n_designs <= 500)
    designs = list(space.expand())
    assert len(designs) == space.estimate.n_designs == len({trial_key(design) for design in designs})
    assert len({param_signature(design, space.precision) for design in designs}) == len(designs)
    for design in designs:
        raw = space.raw(design)
        assert trial_key(space.propose(replaying(raw))) == trial_key(design)
        assert set(raw) <= set(space.leaves)
        assert orjson.loads(orjson.dumps(raw)) == raw, "as a journal has it"
        assert trial_key(orjson.loads(orjson.dumps(design))) == trial_key(design)


@settings(max_examples=50, deadline=None)
@given(finite_specs(), st.integers(0, 2**31))
@example(YAML(typ="safe").load(EVERYTHING), 0)
def test_what_is_proposed_is_of_the_space_and_comes_back(spec: Any, seed: int) -> None:
    assume(spec)
    space = TuningSpace(spec)
    rng = np.random.default_rng(seed)
    for _ in range(3):
        asked: dict[str, Any] = {}

        def ask(name: str, distribution: BaseDistribution) -> Any:
            assert name not in asked, "once"  # noqa: B023
            asked[name] = drawn(distribution, rng)  # noqa: B023
            return asked[name]  # noqa: B023

        design = space.propose(ask)
        raw = space.raw(design)
        assert list(raw) == list(asked), "in the order they are asked for"
        assert trial_key(space.propose(replaying(raw))) == trial_key(design)
        assert set(space.labels(design)) == set(raw)


def drawn(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[rng.integers(len(distribution.choices))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = distribution.low, distribution.high
    if isinstance(distribution, IntDistribution):
        return int(rng.integers(low, high, endpoint=True))
    return float(rng.uniform(low, high))


# What each leaf means


def test_everything_there_is_may_be_nested_in_a_yaml_file() -> None:
    space = TuningSpace(YAML(typ="safe").load(EVERYTHING))
    first = space.propose(lambda name, what: what.choices[0] if isinstance(what, CategoricalDistribution) else what.low)
    assert first == {
        "learning_rate": 1e-4,
        "dropout": 0.0,
        "momentum": 0.0,
        "rate": 0.001,
        "decay": 0.1,
        "layers": 1,
        "units": 8,
        "depth": 1,
        "hidden": [32, 32],
        "n_starts": 4,
        "short": 1,
        "seed": {"any": ["thing", None]},
        "also": 0,
        "type": "a parameter that is called type",
        "output": {"scale": 1, "deeper": {"still": True}, "nothing": {}},
        "kind": "network",
        "width": 8,
        "mode": "fast",
    }
    assert space.estimate.continuous == ("learning_rate", "momentum", "rate")
    assert set(space.leaves) >= {"output.deeper.still", "kind", "kind=network/width", "kind=network/mode=slow/patience"}
    assert not {"seed", "also"} & set(space.leaves), "there is nothing to propose"


@pytest.mark.parametrize(
    ("what", "values"),
    [
        ({"type": "fixed", "value": [1, {"a": None}]}, [[1, {"a": None}]]),
        ("text", ["text"]),
        (None, [None]),
        ({"type": "grid", "values": [16, 4, 8]}, [16, 4, 8]),
        ([0.5, 1, "a", None, [1], {"b": 2}], [0.5, 1, "a", None, [1], {"b": 2}]),
        ((1, 2), [1, 2]),
        (np.arange(3), [0, 1, 2]),
        ({"type": "categorical", "values": [[32, 32], [64], {"a": 1}]}, [[32, 32], [64], {"a": 1}]),
        ({"type": "grid", "values": [1, 1.0, True, "1"]}, [1, 1.0, True, "1"]),
        ({"type": "int", "low": 1, "high": 3}, [1, 2, 3]),
        ({"type": "int", "low": -5, "high": 6, "step": 5}, [-5, 0, 5]),
        ({"type": "int", "low": 1, "high": 4, "log": True}, [1, 2, 3, 4]),
        ({"type": "int", "low": 2, "high": 9, "step": 3, "log": True}, [2, 5, 8]),
        ({"type": "int", "low": 3, "high": 3}, [3]),
        ({"type": "int", "low": 1.0, "high": 1e1, "step": 9.0}, [1, 10]),
        ({"type": "int", "low": 2**53 - 1, "high": 2**53}, [2**53 - 1, 2**53]),
        ({"type": "int", "low": np.int64(1), "high": np.float64(2)}, [1, 2]),
        ({"type": "float", "low": 0, "high": 0.3, "step": 0.1}, [0.0, 0.1, 0.2, 0.3]),
        ({"type": "float", "low": 0, "high": 0.35, "step": 0.1}, [0.0, 0.1, 0.2, 0.3]),
        ({"type": "float", "low": 0.05, "high": 0.4, "step": 0.1}, [0.05, 0.15, 0.25, 0.35]),
        ({"type": "float", "low": 0, "high": 3e-7, "step": 1e-7}, [0.0, 1e-7, 2e-7, 3e-7]),
        ({"type": "float", "low": 1, "high": 2, "step": 0.5, "log": True}, [1.0, 1.5, 2.0]),
        ({"type": "float", "low": 0, "high": 1, "step": 2}, [0.0]),
        ({"type": "float", "low": 0.5, "high": 0.5}, [0.5]),
        ({"type": "loguniform", "low": 0.5, "high": 0.5}, [0.5]),
        ({"type": "float", "low": 1, "high": 2, "step": 1, "log": None}, [1.0, 2.0]),
        ({"y": [1, 2], "z": 0}, [{"y": 1, "z": 0}, {"y": 2, "z": 0}]),
        ({}, [{}]),
        ({"type": {"type": "grid", "values": ["a"]}}, [{"type": "a"}]),
    ],
    ids=str,
)
def test_a_leaf_has_these_values(what: Any, values: list[Any]) -> None:
    assert [trial_key(value) for value in values_of(what)] == [trial_key(value) for value in values]
    assert of(what).estimate.n_designs == len(values)


def test_expansion_is_the_grid_the_last_name_changing_fastest() -> None:
    kinds = [{"kind": "network", "width": w, **mode} for w in (8, 16) for mode in
             ({"mode": "x", "y": 1}, {"mode": "x", "y": 2}, {"mode": "z"})] + [{"kind": "forest"}]  # fmt: skip
    expected = [
        {"kernel": kernel, "step": step, "inner": {"n": n, "fixed": 0}, **kind}
        for kernel, step, n, kind in itertools.product("ab", (0.0, 0.1, 0.2, 0.3), (1, 2, 3), kinds)
    ]
    assert list(expand_parameters(FINITE)) == expected
    assert [list(design) for design in expand_parameters(FINITE)] == [list(design) for design in expected]
    assert estimate_search_space(FINITE).n_designs == len(expected) == 2 * 4 * 3 * 7


def test_expansion_is_lazy() -> None:
    spec = {f"x{i}": {"type": "int", "low": 0, "high": 2**50} for i in range(100)}
    assert next(expand_parameters(spec)) == dict.fromkeys(spec, 0)
    assert list(itertools.islice(expand_parameters(spec), 3))[2] == {**dict.fromkeys(spec, 0), "x99": 2}


def test_expansion_of_a_continuous_space_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^space\.a\.b: expected a grid, an int or a float with a step, got a contin"):
        expand_parameters({"a": {"b": {"type": "float", "low": 0, "high": 1}}})


# Steps


@given(st.integers(-(10**6), 10**6), st.integers(0, 10**4), st.integers(1, 9999), st.integers(0, 9))
@example(1, 2, 1, 1)  # 0.1 + 2 * 0.1 is 0.30000000000000004
@example(-291, 97, 3, 1)  # -29.1 + 97 * 0.3 is below 0
def test_steps_are_exact_decimals(low: int, k: int, step: int, digits: int) -> None:
    scale = Decimal(10) ** -digits
    what = {"low": float(low * scale), "high": float((low + k * step) * scale), "step": float(step * scale)}
    space = of({"type": "float", **what})
    assert space.estimate.n_designs == k + 1
    last = space.propose(lambda name, distribution: k)["x"]
    assert last == float((low + k * step) * scale)
    assert math.copysign(1, last) > 0 or last < 0, "no zero has a sign"


@pytest.mark.parametrize(
    ("step", "decimals"),
    [
        (1, 0), (1.0, 0), (2, 0), (10.0, 0), (1e22, 0), (1e300, 0), (0.1, 1), (0.5, 1), (2.5, 1), (0.25, 2), (0.05, 2),
        (0.125, 3), (0.001, 3), (1e-7, 7), (2.5e-8, 9), (1.5e-7, 8), (1e-20, 20), (0.1 + 0.2, 17), (100.5, 1),
        (1 / 3, 16), (0.3, 1), (0.30000000000000004, 17), (5e-324, 324),
    ],
)  # fmt: skip
def test_decimals_of_a_step_are_those_it_is_written_with(step: float, decimals: int) -> None:
    assert step_decimals(step) == decimals
    assert step_decimals(step) == decimals, "as it is remembered"


@given(st.integers(1, 10**15), st.integers(0, 30))
def test_decimals_of_a_step_end_where_its_zeros_begin(whole: int, digits: int) -> None:
    zeros = len(str(whole)) - len(str(whole).rstrip("0"))
    assert step_decimals(float(f"{whole}e-{digits}")) == max(0, digits - zeros)


def test_decimals_of_common_steps_are_known_in_advance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surrogate_core.tuning.parameters._decimals", None)
    common = [1, 0.5, 0.25, 0.2, 0.1, 0.05, 0.025, 0.02, 0.01, 0.005, 0.001, 1e-4, 1e-5, 1e-6]
    assert [step_decimals(step) for step in common] == [0, 1, 2, 1, 1, 2, 3, 2, 2, 3, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("value", "step", "rounded"),
    [(0.1 + 0.2, 0.1, 0.3), (1.1 + 2.2, 0.05, 3.3), (0.07 * 3, 0.01, 0.21), (-0.01, 0.1, 0.0), (2.4, 1, 2.0)],
)
def test_a_value_is_rounded_to_the_decimals_of_a_step(value: float, step: float, rounded: float) -> None:
    assert repr(round_to_step(value, step)) == repr(rounded)


# How many


MANY = {str(i): {"type": "int", "low": 1, "high": 1000} for i in range(200)}


@pytest.mark.parametrize(
    ("spec", "n_designs", "shown", "kind"),
    [
        ({"x": [1, 2], "y": {"z": ["a", "b", "c"]}}, 6, "6 designs", "discrete"),
        ({"x": 1}, 1, "1 design", "discrete"),
        (FINITE, 168, "168 designs", "discrete"),
        ({"x": {"type": "float", "low": 0, "high": 1}, "y": [1, 2]}, math.inf, "continuous in x", "continuous"),
        ({"x": {"type": "loguniform", "low": 1, "high": 2}}, math.inf, "continuous in x", "continuous"),
        ({"x": {"type": "float", "low": 1, "high": 1}}, 1, "1 design", "discrete"),
        (
            {"k": {"type": "branches", "branches": {"a": {"x": {"type": "float", "low": 0, "high": 1}}, "b": {}}}},
            math.inf,
            "continuous in k=a/x",
            "continuous",
        ),
        (
            {n: {"type": "float", "low": 0, "high": 1} for n in "abcd"},
            math.inf,
            "continuous in a, b, c, ...",
            "continuous",
        ),
        ({"x": {"type": "int", "low": 1, "high": 10**6}}, 10**6, "1000000 designs", "very large"),
        ({str(i): [0, 1] for i in range(20)}, 2**20, "1048576 designs", "very large"),
        ({str(i): {"type": "float", "low": 0, "high": 1} for i in range(20)}, math.inf, None, "very large"),
        (
            MANY,
            10**600,
            "1.00e+600 designs",
            "very large",
        ),
        (MANY | {"c": {"type": "float", "low": 0, "high": 1}}, math.inf, "continuous in c", "very large"),
        (
            {"k": {"type": "branches", "branches": {"a": MANY, "b": {"c": {"type": "float", "low": 0, "high": 1}}}}},
            math.inf,
            "continuous in k=b/c",
            "very large",
        ),
        (
            {"c": {"type": "float", "low": 0, "high": 1}} | MANY,
            math.inf,
            "continuous in c",
            "very large",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_space_says_how_many_designs_it_has(spec: Any, n_designs: float, shown: str | None, kind: str) -> None:
    estimate = estimate_search_space(spec)
    assert estimate.n_designs == n_designs
    assert shown is None or str(estimate) == shown
    assert estimate.kind == kind
    least, most = estimate.workers
    assert 1 <= least <= most


def test_parameters_of_all_branches_are_counted_and_fixed_ones_are_not() -> None:
    assert estimate_search_space(FINITE).n_parameters == len(["kernel", "step", "n", "kind", "width", "mode", "y"])
    assert estimate_search_space({"x": 1, "k": {"type": "branches", "branches": {"a": {"y": 2}}}}).n_parameters == 0


@pytest.mark.parametrize("n_trials", [7, 1000])
def test_a_space_smaller_than_the_trials_asked_for_is_warned_of(n_trials: int) -> None:
    with pytest.warns(UserWarning, match=f"^space: 6 designs are fewer than the {n_trials} trials asked for"):
        assert estimate_search_space({"x": [1, 2], "y": [1, 2, 3]}, n_trials).n_designs == 6
    with pytest.warns(UserWarning, match=r"^space: 1 design is fewer than the"):
        estimate_search_space({"x": 1}, n_trials)


@pytest.mark.parametrize("n_trials", [None, 0, 5, 6])
def test_a_space_that_is_large_enough_is_not(n_trials: int | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate_search_space({"x": [1, 2], "y": [1, 2, 3]}, n_trials)
        estimate_search_space({"x": {"type": "float", "low": 0, "high": 1}}, 10**9)


@pytest.mark.parametrize(
    ("what", "precision"),
    [
        ([1, 2, "a"], 10),
        ({"type": "float", "low": 0, "high": 1}, 10),
        ({"type": "float", "low": -1e300, "high": 1}, 10),
        ({"type": "float", "low": 0, "high": 1e-9}, 17),
        ({"type": "loguniform", "low": 1e-4, "high": 1}, 12),
        ({"type": "loguniform", "low": 1e-9, "high": 1}, 17),
        ({"type": "loguniform", "low": 5e-324, "high": 1}, 300),
        ({"type": "float", "low": 0, "high": 1e-11, "step": 1e-12}, 12),
        ([1e-12, 2e-12], 12),
        ({"type": "categorical", "values": [{"jitter": [1e-14]}, {"jitter": [2e-14]}]}, 14),
        ({"type": "fixed", "value": 1e-14}, 10),
    ],
    ids=str,
)
def test_precision_tells_all_values_apart(what: Any, precision: int) -> None:
    assert of(what).precision == precision


# Raw values


def test_a_grid_of_numbers_is_ordered_for_samplers_and_a_categorical_is_not() -> None:
    choice = {"type": "categorical", "values": [8, 2]}
    space = TuningSpace({"grid": [8, 2, 4.5], "mixed": [8, "a"], "flags": [True, False], "choice": choice})
    kinds = {name: type(leaf.distribution) for name, leaf in space.leaves.items()}
    assert kinds == {
        "grid": IntDistribution,
        "mixed": CategoricalDistribution,
        "flags": CategoricalDistribution,
        "choice": CategoricalDistribution,
    }
    assert [space.leaves["grid"].value(i) for i in range(3)] == [2, 4.5, 8]


@pytest.mark.parametrize(
    ("what", "proposed", "value"),
    [
        ({"type": "float", "low": 1, "high": 2, "step": 0.25, "log": True}, 1.37, 1.25),
        ({"type": "float", "low": 1, "high": 2, "step": 0.4, "log": True}, 2.0, 1.8),
        ({"type": "int", "low": 1, "high": 9, "step": 5, "log": True}, 9, 6),
        ({"type": "int", "low": 1, "high": 9, "step": 5}, 1, 6),
        ({"type": "float", "low": 0, "high": 1}, 1, 1.0),
    ],
    ids=str,
)
def test_a_proposal_by_the_logarithm_goes_to_the_nearest_step(what: Any, proposed: float, value: float) -> None:
    made = of(what).propose(lambda name, distribution: proposed)["x"]
    assert trial_key(made) == trial_key(value)


def test_names_of_branches_not_taken_are_not_asked_for() -> None:
    asked: list[str] = []

    def ask(name: str, distribution: BaseDistribution) -> Any:
        asked.append(name)
        return 1 if name == "kind" else 0

    assert TuningSpace(FINITE).propose(ask) == {
        "kernel": "a",
        "step": 0.0,
        "inner": {"n": 1, "fixed": 0},
        "kind": "forest",
    }
    assert asked == ["kernel", "step", "inner.n", "kind"]


@pytest.mark.parametrize(
    ("spec", "has"),
    [
        (FINITE, True),
        ({"x": [1, 2], "y": {"z": [1, 2]}}, False),
        ({"deep": {"k": {"type": "branches", "branches": {"a": {"x": [1, 2]}, "b": {}}}}}, True),
        ({"k": {"type": "branches", "branches": {"a": {}, "b": {"fixed": 1}}}}, False),
    ],
    ids=["nested", "none", "deep", "of nothing"],
)
def test_a_space_knows_whether_what_is_asked_depends_on_a_branch(spec: Any, has: bool) -> None:
    assert TuningSpace(spec).has_branches is has


def test_labels_are_the_values_in_one_row() -> None:
    design = {"kernel": "b", "step": 0.2, "inner": {"n": 3, "fixed": 0}, "kind": "network", "width": 8, "mode": "z"}
    assert TuningSpace(FINITE).labels(design) == {
        "kernel": "b",
        "step": 0.2,
        "inner.n": 3,
        "kind": "network",
        "kind=network/width": 8,
        "kind=network/mode": "z",
    }


@pytest.mark.parametrize(
    ("what", "given_value", "value"),
    [
        ({"type": "float", "low": 0, "high": 1}, 1, 1.0),
        ({"type": "float", "low": 0, "high": 1, "step": 0.1}, 0.1 + 0.2, 0.3),
        ({"type": "float", "low": 0, "high": 1, "step": 0.1, "log": False}, np.float64(0.3), 0.3),
        ({"type": "float", "low": 0, "high": 0.7 - 0.4, "step": 0.1}, 0.3, 0.3),
        ({"type": "int", "low": 0, "high": 9}, 3.0, 3),
        ({"type": "int", "low": 0, "high": 9}, np.int64(3), 3),
        ({"type": "int", "low": 1, "high": 9, "log": True}, 3.0, 3),
        ({"type": "categorical", "values": [[1, 2], [3]]}, (1, 2), [1, 2]),
        ([0.0, 1.0], -0.0, 0.0),
        ({"type": "fixed", "value": [1]}, np.array([1]), [1]),
    ],
    ids=str,
)
def test_a_design_may_have_values_as_people_write_them(what: Any, given_value: Any, value: Any) -> None:
    space = of(what)
    assert trial_key(space.propose(replaying(space.raw({"x": given_value})))["x"]) == trial_key(value)


NETWORK = {"kernel": "a", "step": 0.1, "inner": {"n": 1, "fixed": 0}, "kind": "network", "width": 8, "mode": "z"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": "z"}, "kernel: expected one of ['a', 'b'], got 'z'"),
        ({"kernel": None}, "kernel: expected one of ['a', 'b'], got None"),
        ({"kernel": ...}, "kernel: expected one of ['a', 'b'], got none"),
        ({"step": 0.15}, "step: expected a number from 0.0 to 0.3 in steps of 0.1, got 0.15"),
        ({"step": 0.4}, "step: expected a number from 0.0 to 0.3 in steps of 0.1, got 0.4"),
        ({"step": -0.1}, "step: expected a number from 0.0 to 0.3 in steps of 0.1, got -0.1"),
        ({"step": math.nan}, "step: expected a number from 0.0 to 0.3 in steps of 0.1, got nan"),
        ({"step": "0.1"}, "step: expected a number from 0.0 to 0.3 in steps of 0.1, got '0.1'"),
        ({"step": False}, "step: expected a number from 0.0 to 0.3 in steps of 0.1, got False"),
        ({"inner": 3}, "inner: expected a mapping, got 3"),
        ({"inner": ...}, "inner: expected a mapping, got none"),
        ({"inner": {"n": 1}}, "inner.fixed: expected 0, got none"),
        ({"inner": {"n": 1, "fixed": 1}}, "inner.fixed: expected 0, got 1"),
        ({"inner": {"n": 2.5, "fixed": 0}}, "inner.n: expected an integer from 1 to 3, got 2.5"),
        ({"inner": {"n": 10**400, "fixed": 0}}, "inner.n: expected an integer from 1 to 3, got 1000"),
        ({"inner": {"n": math.inf, "fixed": 0}}, "inner.n: expected an integer from 1 to 3, got inf"),
        ({"inner": {"n": 1, "fixed": 0, "m": 0}}, "inner.m: expected no such name in the space, got one"),
        ({"kind": "network/"}, "kind: expected one of ['network', 'forest'], got 'network/'"),
        ({"kind": ["forest"]}, "kind: expected one of ['network', 'forest'], got ['forest']"),
        ({"width": 9}, "kind=network/width: expected one of [8, 16], got 9"),
        ({"width": ...}, "kind=network/width: expected one of [8, 16], got none"),
        ({"y": 1}, "y: expected no such name in the space, got one"),
        ({"kind": "forest"}, "mode: expected no such name in the space, got one"),
    ],
    ids=str,
)
def test_a_design_that_is_none_of_the_space_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    design = {name: value for name, value in {**NETWORK, **change}.items() if value is not ...}
    with pytest.raises(ValueError, match="expected") as raised:
        TuningSpace(FINITE).raw(design)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", [-0.1, -0.1 + 1e-8, 0.4, 0.35])
def test_a_step_beyond_the_range_is_none_of_it(value: float) -> None:
    with pytest.raises(ValueError, match=r"^x: expected a number from 0\.0 to 0\.3 in steps of 0\.1, got "):
        of({"type": "float", "low": 0, "high": 0.35, "step": 0.1}).raw({"x": value})


def test_who_changes_a_design_changes_no_other() -> None:
    spec = {
        "x": {"type": "categorical", "values": [{"a": [1]}]},
        "y": {"type": "fixed", "value": [[2]]},
        "z": [[3], [4]],
    }
    before = copy.deepcopy(spec)
    space = TuningSpace(spec)
    for make in (lambda: next(space.expand()), lambda: space.propose(lambda name, distribution: 0)):
        design = make()
        design["x"].pop("a")
        design["y"][0].append(5)
        design["z"].append(6)
        assert make() == {"x": {"a": [1]}, "y": [[2]], "z": [3]}
    assert spec == before


def test_optuna_proposes_what_comes_back() -> None:
    space = TuningSpace(YAML(typ="safe").load(EVERYTHING))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(50):
        trial = study.ask()
        design = space.propose(lambda name, distribution: trial._suggest(name, distribution))  # noqa: B023
        assert trial_key(space.propose(replaying(space.raw(design)))) == trial_key(design)
        study.enqueue_trial(space.raw(design))
        again = study.ask()
        assert trial_key(space.propose(lambda name, what: again._suggest(name, what))) == trial_key(design)  # noqa: B023


# Mistakes


def test_equal_specs_have_one_key() -> None:
    assert TuningSpace({"x": [1, 2], "y": 0}).key == TuningSpace({"y": 0, "x": (1, 2)}).key
    assert TuningSpace({"x": [1, 2]}).key != TuningSpace({"x": [2, 1]}).key


def float_spec(**given_values: Any) -> dict[str, Any]:
    return {"type": "float", "low": 0.0, "high": 1.0, **given_values}


def int_spec(**given_values: Any) -> dict[str, Any]:
    return {"type": "int", "low": 1, "high": 9, **given_values}


def branches(**spaces: Any) -> dict[str, Any]:
    return {"type": "branches", "branches": spaces}


KINDS = "expected one of fixed, grid, float, int, loguniform, categorical, branches"
NAMES = "expected names that are texts without '.', '=' and '/'"
BESIDE = "expected names that are not beside"
SPACE = "expected names and what they may be"
LIST = "expected a list of at least one value"
VALUE = "expected a text, a finite number of 64 bits, true, false or null"
INTEGER = "expected an integer of at most 2**53 in size"
BRANCHES = "expected distinct texts or numbers without '/'"
MISTAKES: list[tuple[Any, str]] = [
    (3, f"space: {SPACE}, got 3"),
    (None, f"space: {SPACE}, got None"),
    ([1], f"space: {SPACE}, got [1]"),
    ({}, "space: expected at least one name, got none"),
    ({1: 2}, f"space: {NAMES}, got 1"),
    ({True: 2}, f"space: {NAMES}, got True"),
    ({"": 2}, f"space: {NAMES}, got ''"),
    ({"a.b": 2}, f"space: {NAMES}, got 'a.b'"),
    ({"a": {"b/c": 2}}, f"space.a: {NAMES}, got 'b/c'"),
    ({"a=b": 2}, f"space: {NAMES}, got 'a=b'"),
    ({"x": {"type": "flaot", "low": 0}}, f"space.x.type: {KINDS}, got 'flaot'; did you mean float?"),
    ({"x": {"type": 3}}, f"space.x.type: {KINDS}, got 3; a fixed value is {{type: fixed, value: ...}}"),
    ({"x": {"type": None, "low": 0}}, f"space.x.type: {KINDS}, got None; a fixed value is "),
    ({"x": {"low": 0, "high": 1}}, "space.x.type: expected float, int or loguniform, as it has low and high, got none"),
    ({"x": {"type": "float", "low": 0}}, "space.x.high: expected it, as float needs one, got none"),
    ({"x": {"type": "fixed"}}, "space.x.value: expected it, as fixed needs one, got none"),
    (
        {"x": {"type": "loguniform", "low": 1, "high": 2, "step": 1}},
        "space.x: expected low, high, as it is loguniform, got 'step'",
    ),
    ({"x": float_spec(hgih=3)}, "space.x: expected low, high, step, log, as it is float, got 'hgih'"),
    ({"x": {"type": "grid", "values": 3}}, f"space.x.values: {LIST}, got 3"),
    ({"x": {"type": "grid", "values": "ab"}}, f"space.x.values: {LIST}, got 'ab'"),
    ({"x": {"type": "grid", "values": None}}, f"space.x.values: {LIST}, got None"),
    ({"x": []}, f"space.x: {LIST}, got []"),
    ({"x": {"type": "categorical", "values": []}}, f"space.x.values: {LIST}, got []"),
    ({"x": [1, 2, 1]}, "space.x: expected distinct values, got 1 twice"),
    ({"x": [0.0, -0.0]}, "space.x: expected distinct values, got -0.0 twice"),
    ({"x": [[1], (1,)]}, "space.x: expected distinct values, got (1,) twice"),
    ({"x": [1, math.nan]}, f"space.x[1]: {VALUE}, got nan"),
    ({"x": [1, 2**64]}, f"space.x[1]: {VALUE}, got 184467"),
    ({"x": {1, 2}}, f"space.x: {VALUE}, got {{1, 2}}"),
    ({"x": {"type": "fixed", "value": {"a": [b"1"]}}}, "space.x.value.a[0]: expected a text, a finite number"),
    ({"x": {"type": "fixed", "value": "\ud800"}}, "space.x.value: expected a text, a finite number"),
    ({"x": {"type": "categorical", "values": [{1: 2}]}}, "space.x.values[0]: expected names that are texts, got 1"),
    ({"output": {"scale": float_spec(low="0")}}, "space.output.scale.low: expected a finite number, got '0'"),
    ({"x": float_spec(low=None)}, "space.x.low: expected a finite number, got None"),
    ({"x": float_spec(low=True)}, "space.x.low: expected a finite number, got True"),
    ({"x": float_spec(low=-math.inf)}, "space.x.low: expected a finite number, got -inf"),
    ({"x": float_spec(high=math.nan)}, "space.x.high: expected a finite number, got nan"),
    ({"x": float_spec(high=10**400)}, "space.x.high: expected a finite number, got 1000"),
    ({"x": float_spec(low=2)}, "space.x.low: expected at most high = 1.0, got 2.0"),
    (
        {"x": float_spec(low=-1e308, high=1e308)},
        "space.x.high: expected a finite distance from low = -1e+308, got 1e+308",
    ),
    ({"x": float_spec(log=True)}, "space.x.low: expected a number > 0, as it is logarithmic, got 0.0"),
    ({"x": float_spec(log="yes")}, "space.x.log: expected true or false, got 'yes'"),
    ({"x": float_spec(log=1)}, "space.x.log: expected true or false, got 1"),
    ({"x": float_spec(step=0)}, "space.x.step: expected a number > 0, got 0.0"),
    ({"x": float_spec(step=-0.1)}, "space.x.step: expected a number > 0, got -0.1"),
    (
        {"x": float_spec(step=1e-17)},
        "space.x.step: expected at least 8.9e-16, which tells numbers of that size apart, got 1e-17",
    ),
    ({"x": float_spec(step="0.1")}, "space.x.step: expected a finite number, got '0.1'"),
    ({"x": int_spec(low=1.5)}, f"space.x.low: {INTEGER}, got 1.5"),
    ({"x": int_spec(high=2**53 + 1)}, f"space.x.high: {INTEGER}, got 9007199254740993"),
    ({"x": int_spec(high=math.nan)}, f"space.x.high: {INTEGER}, got nan"),
    ({"x": int_spec(low=10)}, "space.x.low: expected at most high = 9, got 10"),
    ({"x": int_spec(step=0)}, "space.x.step: expected a number > 0, got 0"),
    ({"x": int_spec(low=0, log=True)}, "space.x.low: expected a number > 0, as it is logarithmic, got 0"),
    (
        {"x": {"type": "loguniform", "low": 0, "high": 1}},
        "space.x.low: expected a number > 0, as it is logarithmic, got 0.0",
    ),
    ({"k": {"type": "branches", "branches": {}}}, "space.k.branches: expected a space for each value, got {}"),
    ({"k": {"type": "branches", "branches": ["a"]}}, "space.k.branches: expected a space for each value, got ['a']"),
    ({"k": branches(a=0)}, f"space.k.branches.a: {SPACE}, got 0"),
    ({"k": branches(a=[])}, f"space.k.branches.a: {SPACE}, got []"),
    ({"k": branches(**{"a/b": {}})}, f"space.k.branches: {BRANCHES}, got 'a/b'"),
    ({"k": {"type": "branches", "branches": {1: {}, "1": {}}}}, f"space.k.branches: {BRANCHES}"),
    ({"k": {"type": "branches", "branches": {(1,): {}}}}, f"space.k.branches: {BRANCHES}"),
    ({"k": {"type": "branches", "branches": {math.nan: {}}}}, "space.k.branches: expected a text, a finite number"),
    ({"k": branches(a={"k": [1]})}, f"space.k.branches.a: {BESIDE} k, got 'k'"),
    ({"k": branches(a={"x": [1]}), "x": 1}, f"space.k.branches.a: {BESIDE} k, got 'x'"),
    ({"k": branches(a={"x": 1}), "l": branches(a={"x": 1})}, f"space.l.branches.a: {BESIDE} l, got 'x'"),
    ({"k": branches(a={"m": branches(b={"x": 1})}), "x": 1}, f"space.k.branches.a: {BESIDE} k, got 'x'"),
    ({"k": branches(a={"m": branches(b={"m": 1})})}, f"space.k.branches.a.m.branches.b: {BESIDE} m, got 'm'"),
]


@pytest.mark.parametrize(("spec", "message"), MISTAKES, ids=lambda value: str(value)[:60])
def test_a_mistake_is_told_in_one_line_with_its_place(spec: Any, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as raised:
        TuningSpace(spec)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 250


def test_the_path_is_the_one_given() -> None:
    with pytest.raises(ValueError, match=r"^tune\.space\.x\.low: expected a finite number, got 'a'$"):
        TuningSpace({"x": float_spec(low="a")}, "tune.space")
    with pytest.raises(ValueError, match=r"^tune\.space\.x: expected a grid"):
        TuningSpace({"x": float_spec()}, "tune.space").expand()


def endless() -> dict[str, Any]:
    spec: dict[str, Any] = {}
    spec["a"] = spec
    return spec


def endless_value() -> dict[str, Any]:
    value: list[Any] = []
    value.append(value)
    return {"x": {"type": "fixed", "value": value}}


@pytest.mark.parametrize("make", [endless, endless_value])
def test_a_space_in_itself_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="space: expected spaces nested less deeply, and not in themselves"):
        TuningSpace(make())


def test_branches_may_share_names_among_themselves() -> None:
    space = TuningSpace({"k": branches(a={"x": [1, 2]}, b={"x": float_spec(step=0.5)})})
    assert list(space.expand()) == [
        {"k": "a", "x": 1},
        {"k": "a", "x": 2},
        *({"k": "b", "x": x} for x in (0.0, 0.5, 1.0)),
    ]
    assert list(space.leaves) == ["k", "k=a/x", "k=b/x"]


@pytest.mark.parametrize("kinds", [[1, 2], [True, False], [1.5, None], ["a.b", "c=d"]], ids=str)
def test_branches_may_be_of_any_scalars_as_yaml_reads_them(kinds: list[Any]) -> None:
    space = TuningSpace({"k": {"type": "branches", "branches": {kind: {"x": [1, 2]} for kind in kinds}}})
    assert [design["k"] for design in space.expand()] == [kinds[0], kinds[0], kinds[1], kinds[1]]
    for design in space.expand():
        assert space.propose(replaying(space.raw(design))) == design


def test_many_names_are_no_matter() -> None:
    space = TuningSpace({f"x{i}": [0, 1] for i in range(3000)})
    design = next(space.expand())
    assert space.propose(replaying(space.raw(design))) == design
