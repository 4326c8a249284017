"""The search space: what is encoded comes back, what is decoded is valid, and mistakes are told with their shapes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tolerances import DIFFERENCES, ROUNDING

from surrogate_core import Categorical, Float, Integer, SearchSpace
from surrogate_core.constraints import ConstraintFailed
from surrogate_core.space import Variable

units = st.floats(0, 1)


@st.composite
def continuous_floats(draw: st.DrawFn) -> Float:
    if draw(st.booleans()):
        low = draw(st.floats(1e-6, 1e6))
        return Float(low, low * draw(st.floats(1.01, 1e6)), log=True)
    low = draw(st.floats(-1e6, 1e6))
    return Float(low, low + draw(st.floats(1e-2, 1e6)))


@st.composite
def stepped_floats(draw: st.DrawFn) -> Float:
    """Bounds that are decimal fractions, as people write them; the last level may lie below the upper bound."""
    digits = draw(st.integers(0, 3))
    low, step = draw(st.integers(-2000, 2000)), draw(st.integers(1, 50))
    high = low + step * draw(st.integers(2, 40)) + draw(st.integers(0, step - 1))
    return Float(low / 10**digits, high / 10**digits, step=step / 10**digits)


@st.composite
def integers(draw: st.DrawFn) -> Integer:
    if draw(st.booleans()):
        low = draw(st.integers(1, 1000))
        return Integer(low, low + draw(st.integers(1, 10_000)), log=True)
    low = draw(st.integers(-1000, 1000))
    step = draw(st.integers(1, 20))
    return Integer(low, low + draw(st.integers(step, 1000)), step=step)


@st.composite
def categoricals(draw: st.DrawFn) -> Categorical:
    kinds = st.text("abc", max_size=3), st.integers(-9, 9), st.floats(-9, 9), st.booleans()
    return Categorical(tuple(draw(st.lists(st.one_of(kinds), min_size=2, max_size=5, unique=True))))


numbers = continuous_floats() | stepped_floats() | integers()
variables = numbers | categoricals()
spaces = st.dictionaries(st.text("abcxyz_", min_size=1, max_size=4), variables, min_size=1, max_size=4).map(SearchSpace)


def of(variable: Variable) -> SearchSpace:
    return SearchSpace({"x": variable})


def levels(variable: Variable) -> np.ndarray:
    """The values of a stepped or categorical variable in X, counted without rounding's help."""
    if isinstance(variable, Categorical):
        return np.arange(len(variable.choices))
    step = variable.step or 1
    n = int((variable.high - variable.low) / step + 1e-6) + 1
    return variable.low + step * np.arange(n)


@given(variables, units)
@example(Float(0, 0.3, step=0.1), 1.0)  # 3 * 0.1 is above 0.3
def test_a_decoded_value_is_within_the_bounds_and_on_a_step(variable: Variable, u: float) -> None:
    x = of(variable).decode([u])[0]
    assert variable.low <= x <= variable.high
    if isinstance(variable, Integer | Categorical) or variable.step is not None:
        assert np.abs(levels(variable) - x).min() <= ROUNDING * max(abs(variable.low), abs(variable.high))


@given(variables, st.floats(-5, 5))
def test_coordinates_beyond_the_cube_are_clipped(variable: Variable, u: float) -> None:
    space = of(variable)
    assert space.decode([u]) == space.decode([min(max(u, 0.0), 1.0)])


@given(continuous_floats(), units)
def test_a_continuous_variable_comes_back_from_either_side(variable: Float, u: float) -> None:
    space = of(variable)
    x = space.decode([u])
    # An offset costs digits: those of a bound beside the width.
    lost = max(abs(variable.low), abs(variable.high)) / (variable.high - variable.low)
    assert space.encode(x)[0] == pytest.approx(u, abs=ROUNDING * (1 + lost))
    assert space.decode(space.encode(x)) == pytest.approx(x, rel=ROUNDING, abs=ROUNDING * abs(variable.high))


@given(stepped_floats() | integers() | categoricals(), st.data())
def test_a_level_comes_back_exactly_and_its_coordinate_is_inside_the_cube(
    variable: Variable, data: st.DataObject
) -> None:
    space = of(variable)
    x = space.decode([data.draw(units)])
    assert 0 < space.encode(x)[0] < 1
    assert space.decode(space.encode(x)) == x


@given(stepped_floats() | integers(), units)
def test_a_stepped_value_is_the_one_whose_bin_holds_the_coordinate(variable: Variable, u: float) -> None:
    space = of(variable)
    x = space.decode([u])
    half = (variable.step or 1) / 2
    if isinstance(variable, Integer):
        low, high = space.encode(x - half)[0], space.encode(x + half)[0]
    else:
        middle, width = space.encode(x)[0], 1 / len(levels(variable))
        low, high = middle - width / 2, middle + width / 2
    assert low - ROUNDING <= u <= high + ROUNDING


@pytest.mark.parametrize(
    ("variable", "values"),
    [
        (Float(0, 1, step=0.25), [0, 0.25, 0.5, 0.75, 1]),
        (Float(0, 1, step=0.3), [0, 0.3, 0.6, 0.9]),
        (Float(0, 0.3, step=0.1), [0, 0.1, 0.2, 0.3]),
        (Float(100000.1, 100000.4, step=0.1), [100000.1, 100000.2, 100000.3, 100000.4]),  # the width is 0.29999999999
        (Float(-0.2, 0.1, step=0.1), [-0.2, -0.1, 0, 0.1]),
        (Integer(1, 4), [1, 2, 3, 4]),
        (Integer(-3, 4, step=3), [-3, 0, 3]),
    ],
    ids=str,
)
def test_every_level_owns_an_equal_share_of_the_interval(variable: Variable, values: list[float]) -> None:
    m = len(values)
    middles_of_sevenths = (np.arange(7 * m) + 0.5) / (7 * m)
    decoded = of(variable).decode(middles_of_sevenths[:, None])[:, 0]
    assert decoded == pytest.approx(np.repeat(values, 7), rel=ROUNDING, abs=ROUNDING)


def test_one_step_may_be_the_whole_width_though_decimals_are_rounded() -> None:
    assert Float(1.1, 1.3, step=0.2).step == 0.2  # 1.3 - 1.1 is 0.19999999999999996


def test_a_logarithmic_variable_is_halfway_at_the_geometric_mean() -> None:
    assert of(Float(1e-4, 1e-2, log=True)).decode([0.5])[0] == pytest.approx(1e-3)
    decoded = of(Integer(1, 1000, log=True)).decode(np.linspace(0, 1, 2001)[:, None])
    assert np.median(decoded) == pytest.approx(np.sqrt(0.5 * 1000.5), abs=1)
    assert decoded.min() == 1
    assert decoded.max() == 1000


@given(continuous_floats() | integers(), st.floats(0.01, 0.99))
def test_the_slope_is_the_derivative_of_encode(variable: Variable, u: float) -> None:
    check_slope(variable, u)


@given(stepped_floats(), st.floats(0.01, 0.99))
def test_the_slope_is_the_derivative_of_encode_between_steps_too(variable: Float, u: float) -> None:
    """There `encode` is the continuous relaxation, as it is for integers: else a gradient is none of the prediction."""
    check_slope(variable, u)


def check_slope(variable: Variable, u: float) -> None:
    space = of(variable)
    x = space.decode([u])
    h = 1e-4 * (x if variable.log else np.array([variable.high - variable.low]))
    differences = (space.encode(x + h) - space.encode(x - h)) / (2 * h)
    rounding = float(np.finfo(float).eps * np.abs(x / h).max())
    assert space.slope(x) == pytest.approx(differences, rel=DIFFERENCES + rounding)


@given(spaces, st.data())
def test_many_points_are_converted_as_each_of_them(space: SearchSpace, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.lists(units, min_size=space.n_dims, max_size=space.n_dims), min_size=1, max_size=3))
    X = space.decode(rows)
    assert X.shape == (len(rows), space.n_dims)
    for convert, points in ((space.decode, rows), (space.encode, X), (space.slope, X)):
        together = convert(points)
        assert together.dtype == np.float64
        for row, point in zip(together, points, strict=True):
            assert convert(point).tolist() == row.tolist()


@given(spaces, st.data())
def test_parameters_have_the_names_and_types_that_a_black_box_expects(space: SearchSpace, data: st.DataObject) -> None:
    x = space.decode(data.draw(st.lists(units, min_size=space.n_dims, max_size=space.n_dims)))
    params = space.params(x)
    assert tuple(params) == space.names
    for value, place, variable in zip(params.values(), x.tolist(), space.variables, strict=True):
        if isinstance(variable, Categorical):
            assert repr(value) == repr(variable.choices[int(place)])
        else:
            assert value == place
            assert type(value) is (int if isinstance(variable, Integer) else float)
    assert space.point(params).tolist() == x.tolist()


def test_the_choices_of_a_categorical_variable_own_equal_shares_and_have_no_slope() -> None:
    space = of(Categorical(["a", "b", "c"]))
    assert space.decode([[0.0], [0.33], [0.34], [0.66], [0.67], [1.0]])[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert space.encode([[0], [1], [2]])[:, 0] == pytest.approx([1 / 6, 1 / 2, 5 / 6])
    assert space.slope([[0], [1], [2]]).tolist() == [[0]] * 3
    assert space.bounds.tolist() == [[0, 2]]
    assert space.n_choices.tolist() == [3]
    assert of(X).n_choices.tolist() == [0]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"x": 0.5}, "params: expected x, k, got x$"),
        ({"x": 0.5, "k": "a", "y": 1}, "params: expected x, k, got x, k, y"),
        ({"x": 0.5, "k": "c"}, "k: expected one of 'a', 'b', got 'c'"),
        ({"x": "a", "k": "a"}, "x: expected a number, got 'a'"),
        ({"x": True, "k": "a"}, "x: expected a number, got True"),
    ],
    ids=str,
)
def test_a_point_of_wrong_parameters_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SearchSpace({"x": X, "k": Categorical(["a", "b"])}).point(params)


@given(spaces)
def test_a_space_comes_back_from_its_config_by_way_of_json(space: SearchSpace) -> None:
    again = SearchSpace.from_config(orjson.loads(orjson.dumps(space.to_config())))
    assert again == space
    assert hash(again) == hash(space)
    assert again.to_config() == space.to_config()
    assert again.bounds.tolist() == space.bounds.tolist()


def test_numbers_of_numpy_are_bounds_like_others() -> None:
    made = SearchSpace({"x": Float(np.float64(0), np.float64(1)), "n": Integer(np.int64(1), np.int64(4))})
    assert (
        orjson.loads(orjson.dumps(made.to_config())) == SearchSpace({"x": Float(0, 1), "n": Integer(1, 4)}).to_config()
    )


def test_equal_spaces_have_equal_configs() -> None:
    whole, real = SearchSpace({"x": Float(0, 1)}), SearchSpace({"x": Float(0.0, 1.0)})
    assert whole == real
    assert orjson.dumps(whole.to_config()) == orjson.dumps(real.to_config())


X, Y = Float(0, 1), Float(0, 2)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"x": X}, {"y": X}),
        ({"x": X}, {"x": Y}),
        ({"x": X, "y": Y}, {"y": Y, "x": X}),
        ({"x": X}, {"x": X, "y": Y}),
        ({"x": Float(1, 2)}, {"x": Float(1, 2, log=True)}),
        ({"x": Float(1, 3)}, {"x": Float(1, 3, step=1)}),
        ({"x": Float(1, 3)}, {"x": Integer(1, 3)}),
        ({"x": Integer(1, 3)}, {"x": Integer(1, 3, step=2)}),
        ({"x": Categorical(["a", "b"])}, {"x": Categorical(["b", "a"])}),
        ({"x": Categorical([0, 1])}, {"x": Categorical([False, True])}),
        ({"x": Categorical([0, 1])}, {"x": Categorical([0.0, 1.0])}),
    ],
    ids=str,
)
def test_spaces_that_differ_are_not_equal(one: dict[str, Variable], other: dict[str, Variable]) -> None:
    assert SearchSpace(one) == SearchSpace(dict(one))
    assert hash(SearchSpace(one)) == hash(SearchSpace(dict(one)))
    assert SearchSpace(one) != SearchSpace(other)
    assert SearchSpace(one) != one


# Constraints

MIXED = SearchSpace(
    {"x": X, "y": Y, "n": Integer(1, 8), "size": Categorical([10, 2.5]), "kind": Categorical(["a", "b"])}
)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("x + y - 2.5", 0.5 + 1.5 - 2.5),
        ("x + 2 * y <= 3", 0.5 + 3 - 3),
        ("x + 2 * y >= 3", 3 - 3.5),
        ("1 <= x + y <= 1.5", 0.5),
        ("n ** 2 / 4 - x % 0.3", 4 - 0.2),
        ("-(x - 1) + sqrt(n) * abs(-y)", 0.5 + 3),
        ("max(x, y, n) - min(x, 0.1)", 3.9),
        ("exp(log(y)) + log10(100) + cos(pi)", 1.5 + 2 - 1),
        ("size * n <= 40", 0.0),
        ("n ** -2", 1 / 16),
        ("3", 3.0),
    ],
)
def test_an_expression_is_arithmetic_over_the_variables(expression: str, value: float) -> None:
    space = SearchSpace(dict(zip(MIXED.names, MIXED.variables, strict=True)), [expression])
    x = [0.5, 1.5, 4, 0, 1]
    assert space.violation(x) == pytest.approx(value, abs=ROUNDING)
    assert space.violation([x, x]) == pytest.approx([value, value], abs=ROUNDING)
    assert space.is_feasible(x) == (value <= 0)


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ("x +", "expected an expression such as"),
        ("x = 1", "expected an expression such as"),
        ("x < 1", "only <= and >= compare"),
        ("(x <= 1) + 1", "only <= and >= compare, and only the whole"),
        ("z <= 1", "expected numeric variables of the space, got 'z' in 'z <= 1'"),
        ("kind <= 1", "expected numeric variables of the space, got 'kind'"),
        ("x <= 'a'", "'a' is no number"),
        ("x <= True", "True is no number"),
        ("x.real", "attribute is not arithmetic"),
        ("x[0]", "subscript is not arithmetic"),
        ("__import__('os').system('true')", "expected one of the functions abs, sqrt"),
        ("open(x)", "expected one of the functions abs, sqrt"),
        ("min(x, key=y)", "expected one of the functions"),
        ("x if y else n", "ifexp is not arithmetic"),
        ("sqrt(x, y) <= 1", "sqrt takes one argument"),
        ("x + log <= 1", "expected numeric variables of the space, got 'log' in"),
        ("x <= 1" + "0" * 400, "a number is beyond 1e+100"),
        ("x" + " + x" * 20_000, "expected an expression such as"),
        ("", "expected an expression such as"),
        (3, "expected an expression or a function, got 3"),
    ],
    ids=str,
)
def test_a_constraint_that_is_none_is_told_with_its_place(constraint: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"constraints\[1\]: ") as raised:
        SearchSpace(dict(zip(MIXED.names, MIXED.variables, strict=True)), ["x <= 1", constraint])
    assert message in str(raised.value)


def of_two(x: float, y: float) -> list[float]:
    return [x - 0.5, y - 1.0]


def test_a_constraint_may_be_a_function_or_its_name() -> None:
    for constraint in (of_two, f"{__name__}:of_two"):
        space = SearchSpace({"x": X, "y": Y}, [constraint, "x + y <= 1.2"])
        assert space.is_feasible([[0.4, 0.7], [0.6, 0.1], [0.1, 1.1], [0.4, 0.9]]).tolist() == [
            True,
            False,
            False,
            False,
        ]
        assert space.violation([0.4, 0.7]) == pytest.approx(-0.1)


def broken(x: float) -> float:
    return {}["x"]  # type: ignore[no-any-return, index]


def test_a_function_that_gives_no_number_is_told_with_the_point() -> None:
    space = SearchSpace({"x": X}, [broken])
    with pytest.raises(ConstraintFailed, match=r"a number of broken, got KeyError: 'x' at {'x': 0\.5}"):
        space.violation([0.5])


@pytest.mark.parametrize("returned", [True, None, [False, True], "1"], ids=repr)
def test_a_constraint_function_says_how_far_it_is_met_not_whether(returned: Any) -> None:
    space = SearchSpace({"x": X}, [lambda x: returned])
    with pytest.raises(
        ConstraintFailed, match=rf"TypeError: it is met where it is <= 0, and returned {re.escape(repr(returned))} at"
    ):
        space.violation([0.5])


def test_letters_that_look_alike_are_one() -> None:
    micro, mu = "\u00b5", "\u03bc"  # Python makes the second of the first
    assert SearchSpace({micro: X}, [f"{micro} <= 0.5"]).is_feasible([[0.4], [0.6]]).tolist() == [True, False]
    assert SearchSpace({micro: X}, [f"{mu} <= 0.5"]).is_feasible([0.6]) == False  # noqa: E712


def test_a_point_at_which_a_constraint_is_no_number_does_not_meet_it() -> None:
    space = SearchSpace({"x": Float(-1, 1)}, ["sqrt(x) <= 5", "x <= 1"])
    assert space.is_feasible([[-0.5], [0.5]]).tolist() == [False, True]
    assert space.violation([-0.5]) == np.inf


def test_without_constraints_every_point_is_feasible() -> None:
    assert of(X).is_feasible([[0.1], [7.0]]).all()
    assert of(X).is_feasible(np.empty((0, 1))).shape == (0,)
    assert SearchSpace({"x": X}, ["x <= 1"]).is_feasible(np.empty((0, 1))).shape == (0,)


def test_constraints_belong_to_the_space_and_come_back_from_its_config() -> None:
    space = SearchSpace({"x": X}, ["x <= 1", "package.module:name"])
    again = SearchSpace.from_config(orjson.loads(orjson.dumps(space.to_config())))
    assert again == space
    assert hash(again) == hash(space)
    assert space != of(X) != SearchSpace({"x": X}, ["x <= 0.5"])
    with pytest.raises(ValueError, match=r"expected an expression or 'package.module:name', got of_two"):
        SearchSpace({"x": X, "y": Y}, [of_two]).to_config()


def test_bounds_make_real_variables() -> None:
    space = SearchSpace.from_bounds([(-5, 5), (0, 1)])
    assert space == SearchSpace({"x1": Float(-5, 5), "x2": Float(0, 1)})
    assert space.n_dims == 2
    assert space.bounds.tolist() == [[-5, 5], [0, 1]]


def test_a_space_does_not_change_with_the_mapping_it_was_made_of() -> None:
    given_variables: dict[str, Variable] = {"x": X}
    space = SearchSpace(given_variables)
    given_variables["y"] = Y
    assert space.names == ("x",)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (Float, {"low": 1, "high": 1}, r"low: expected a finite number below high, got low 1(\.0)? and high 1(\.0)?$"),
        (Float, {"low": 2, "high": 1}, "low: .*got low 2.* and high 1"),
        (Float, {"low": float("nan"), "high": 1}, "low: .*got low nan"),
        (Float, {"low": 0, "high": float("inf")}, "low: .*high inf"),
        (Float, {"low": 0, "high": 1, "log": True}, "low: expected a number above 0 with log: true, got 0"),
        (Float, {"low": -1, "high": 1, "log": True}, "low: .*got -1"),
        (Float, {"low": 0, "high": 1, "step": 0}, r"step: expected a number in \(0, 1\], got 0"),
        (Float, {"low": 0, "high": 1, "step": -0.1}, "step: .*got -0.1"),
        (Float, {"low": 0, "high": 1, "step": 1.5}, "step: .*got 1.5"),
        (Float, {"low": 0, "high": 1, "step": float("nan")}, "step: .*got nan"),
        (Float, {"low": 1, "high": 2, "log": True, "step": 0.1}, "step: expected none with log: true"),
        (Integer, {"low": 1.9, "high": 4}, "low: expected a whole number, got 1.9"),
        (Integer, {"low": 3, "high": 3}, "low: .*got low 3.* and high 3"),
        (Integer, {"low": 4, "high": 3}, "low: .*got low 4.* and high 3"),
        (Integer, {"low": 0, "high": 3, "log": True}, "low: expected a number above 0 with log: true, got 0"),
        (Integer, {"low": 0, "high": 3, "step": 0}, "step: expected an integer >= 1 .*got 0"),
        (Integer, {"low": 1, "high": 9, "log": True, "step": 2}, "step: .*got 2"),
        (Integer, {"low": 0, "high": 3, "step": 9}, "step: .*got 9"),
        (Categorical, {"choices": ["a"]}, r"choices: expected at least two, all distinct, got \['a'\]"),
        (Categorical, {"choices": ["a", "b", "a"]}, "choices: .*all distinct"),
        (Categorical, {"choices": [1, True]}, "choices: .*all distinct"),
        (Categorical, {"choices": "ab"}, "choices: expected a list, got 'ab'"),
        (Categorical, {"choices": 3}, "choices: expected a list, got 3"),
        (Categorical, {"choices": ["a", None]}, "choices: expected texts, numbers or booleans, got None"),
        (Categorical, {"choices": [0.5, float("nan")]}, "choices: expected texts, numbers or booleans, got nan"),
        (SearchSpace, {"variables": {"gradient.x": X}}, "space: .*got 'gradient.x'"),
        (SearchSpace, {"variables": {}}, "space: expected at least one variable, got none"),
        (SearchSpace, {"variables": {"objective": X}}, "space: expected names other than .*got 'objective'"),
        (SearchSpace, {"variables": {"x": X, "status": X}}, "space: .*got 'status'"),
        (SearchSpace, {"variables": {"reason": X}}, "space: .*got 'reason'"),
        (
            SearchSpace.from_bounds,
            {"bounds": [(0, 1), (2, 1)]},
            r"bounds\[1\]: expected a pair low < high, got \(2, 1\)",
        ),
        (SearchSpace.from_bounds, {"bounds": [(0, 1, 2)]}, r"bounds\[0\]: .*got \(0, 1, 2\)"),
        (SearchSpace.from_bounds, {"bounds": [3]}, r"bounds\[0\]: .*got 3"),
        (SearchSpace.from_bounds, {"bounds": [("a", "b")]}, r"bounds\[0\]: .*got \('a', 'b'\)"),
        (SearchSpace.from_bounds, {"bounds": []}, "space: expected at least one variable"),
    ],
    ids=str,
)
def test_a_mistake_is_told_with_what_was_given(make: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)


@pytest.mark.parametrize("shape", [(), (3,), (4, 3), (2, 2, 2), (0,)])
@pytest.mark.parametrize("method", ["encode", "decode", "slope"])
def test_points_of_a_wrong_shape_are_refused_with_their_shape(method: str, shape: tuple[int, ...]) -> None:
    space = SearchSpace({"x": X, "y": Y})
    with pytest.raises(ValueError, match=r"expected shape \(2,\) or \(n, 2\), got ") as raised:
        getattr(space, method)(np.full(shape, 0.5))
    assert str(raised.value).endswith(f"got {shape}")


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 2)])
def test_parameters_of_anything_but_one_point_are_refused_with_its_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected shape \(2,\), got ") as raised:
        SearchSpace({"x": X, "y": Y}).params(np.full(shape, 0.5))
    assert str(raised.value).endswith(f"got {shape}")
