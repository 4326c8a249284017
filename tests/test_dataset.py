"""The dataset: its digest follows the content alone, its file comes back, and its rows cannot change."""

from __future__ import annotations

import io
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from surrogate_core import Categorical, Dataset, Float, Integer, SearchSpace

finite = st.floats(allow_nan=False, allow_infinity=False)
reasons = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)  # as evaluations give them: printable


@st.composite
def datasets(draw: st.DrawFn, min_rows: int = 0) -> Dataset:
    n, d = draw(st.integers(min_rows, 5)), draw(st.integers(1, 3))
    rows = draw(st.lists(st.lists(finite, min_size=d, max_size=d), min_size=n, max_size=n))
    ok = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    y = [draw(finite) if good else np.nan for good in ok]
    status = ["ok" if good else "failed" for good in ok]
    reason = ["" if good else draw(reasons) for good in ok]
    space = SearchSpace({name: Float(0, 1) for name in ("a", "b", "c")[:d]})
    known = finite | st.just(np.nan)
    gradients = draw(st.none() | st.lists(st.lists(known, min_size=d, max_size=d), min_size=n, max_size=n))
    noise = draw(st.none() | st.lists(known.map(abs), min_size=n, max_size=n))
    return Dataset(
        np.reshape(rows, (n, d)),
        np.array(y),
        space,
        np.array(status, dtype=str),
        np.array(reason, dtype=str),
        None if gradients is None else np.reshape(gradients, (n, d)),
        noise,
    )


SPACE = SearchSpace({"x": Float(-1, 3), "n": Integer(1, 9)})


def table(status: Any = None, reason: Any = None) -> Dataset:
    X = np.array([[0.5, 2], [-1, 9], [3, 1], [1.25, 4]])
    return Dataset(X, np.array([2.0, np.nan, -1.5, 7.0]), SPACE, status, reason)


def remade(dataset: Dataset, **changes: Any) -> Dataset:
    names = ("X", "y", "space", "status", "reason", "gradients", "noise")
    return Dataset(**{name: changes.get(name, getattr(dataset, name)) for name in names})


def parts(dataset: Dataset) -> list[Any]:
    """All content, with NaN as the text that it prints as."""
    return [
        dataset.X.tolist(),
        repr(dataset.y.tolist()),
        dataset.space,
        dataset.status.tolist(),
        dataset.reason.tolist(),
        None if dataset.gradients is None else dataset.gradients.tobytes(),
        None if dataset.noise is None else dataset.noise.tobytes(),
    ]


@given(datasets())
def test_a_dataset_comes_back_from_its_bytes(dataset: Dataset) -> None:
    again = Dataset.from_bytes(dataset.to_bytes())
    assert parts(again) == parts(dataset)
    assert again.digest == dataset.digest


@given(datasets())
def test_equal_content_gives_equal_bytes_and_an_equal_digest(dataset: Dataset) -> None:
    again = remade(
        dataset, X=np.asfortranarray(dataset.X), status=dataset.status.tolist(), reason=dataset.reason.tolist()
    )
    assert again.to_bytes() == dataset.to_bytes()
    assert again.digest == dataset.digest


@given(
    datasets(),
    st.fixed_dictionaries(
        {
            "compression": st.sampled_from(["none", "zstd", "gzip"]),
            "use_dictionary": st.booleans(),
            "version": st.sampled_from(["1.0", "2.6"]),
            "row_group_size": st.integers(1, 3),
            "write_statistics": st.booleans(),
        }
    ),
    st.randoms(use_true_random=False),
)
def test_the_digest_does_not_depend_on_how_the_file_is_laid_out(dataset: Dataset, layout: Any, random: Any) -> None:
    written = pq.read_table(io.BytesIO(dataset.to_bytes()))
    columns = written.column_names
    random.shuffle(columns)
    sink = io.BytesIO()
    pq.write_table(written.select(columns), sink, **layout)
    again = Dataset.from_bytes(sink.getvalue())
    assert again.digest == dataset.digest
    assert parts(again) == parts(dataset)


@given(datasets(min_rows=2), st.data())
def test_the_digest_changes_with_any_value(dataset: Dataset, data: st.DataObject) -> None:
    n, d = dataset.X.shape
    row, column = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, d - 1))
    X, y = dataset.X.copy(), dataset.y.copy()
    status, reason = dataset.status.tolist(), dataset.reason.tolist()
    X[row, column] = np.nextafter(X[row, column], 0 if X[row, column] else 1)
    y[row] = 1.0 if dataset.status[row] == "failed" else np.nextafter(y[row], 0 if y[row] else 1)
    status[row] = "failed"
    reason[row] += "!"
    names = list(dataset.space.names)
    changed = [
        remade(dataset, X=X),
        remade(dataset, y=y, status=["ok" if np.isfinite(v) else "failed" for v in y]),
        remade(dataset, reason=reason),
        remade(dataset, space=SearchSpace({name: Float(0, 2) for name in names})),
        remade(dataset, space=SearchSpace({f"{name}2": Float(0, 1) for name in names})),
        remade(dataset, space=SearchSpace({name: Float(0, 1, step=0.5) for name in names})),
        dataset.take(range(n - 1)),
        dataset.append(dataset),
    ]
    if dataset.status[row] == "ok":
        changed.append(remade(dataset, status=status))
        changed.append(remade(dataset, status=["infeasible" if i == row else s for i, s in enumerate(dataset.status)]))
    for name, shape in (("gradients", (n, d)), ("noise", (n,))):
        given_already = getattr(dataset, name)
        other = np.zeros(shape) if given_already is None else np.where(np.isnan(given_already), 0.5, given_already)
        other[row] = np.where(other[row] == 1, 2, 1)
        changed += [remade(dataset, **{name: other})] + [remade(dataset, **{name: None})] * (given_already is not None)
    digests = {dataset.digest, *(other.digest for other in changed)}
    assert len(digests) == 1 + len(changed)


@given(datasets(min_rows=2))
def test_the_digest_changes_with_the_order_of_the_rows(dataset: Dataset) -> None:
    backwards = dataset.take(range(dataset.n_samples)[::-1])
    assume(parts(backwards) != parts(dataset))
    assert backwards.digest != dataset.digest


def test_the_digest_tells_columns_from_rows() -> None:
    space = SearchSpace.from_bounds([(0, 1)] * 2)
    wide = Dataset([[1.0, 2.0]], [np.nan], space)
    assert wide.digest != Dataset([[1.0], [2.0]], [np.nan] * 2, SearchSpace.from_bounds([(0, 1)])).digest


def test_the_digest_tells_which_column_is_which_variable() -> None:
    one, other = (Dataset([[0.2, 0.7]], [1.0], SearchSpace({n: Float(0, 1) for n in names})) for names in ("ab", "ba"))
    assert one.space != other.space
    assert one.digest != other.digest


def test_equal_spaces_give_an_equal_digest() -> None:
    one, other = (Dataset([[0.5]], [1.0], SearchSpace({"x": Float(low, high)})) for low, high in ((0, 1), (0.0, 1.0)))
    assert one.space == other.space
    assert one.digest == other.digest


def test_bounds_of_numpy_can_be_digested_and_written() -> None:
    X = np.array([[0.25], [0.5]])
    dataset = Dataset(X, [1.0, 2.0], SearchSpace({"x": Float(X.min(), X.max())}))
    assert Dataset.from_bytes(dataset.to_bytes()).digest == dataset.digest


@pytest.mark.parametrize(
    "others", [("a", "c"), ("a", "b", "c"), ("b", "a"), (0, 1), (0.0, 1.0), (False, True)], ids=str
)
def test_the_digest_changes_with_any_choice_and_its_type(others: tuple[Any, ...]) -> None:
    made = [Dataset([[0.0]], [1.0], SearchSpace({"k": Categorical(c)})) for c in (("a", "b"), others, (0, True))]
    assert len({dataset.digest for dataset in made}) == 3
    for dataset in made:
        assert Dataset.from_bytes(dataset.to_bytes()).space == dataset.space


def test_the_digest_changes_with_a_constraint() -> None:
    plain, bound = (Dataset([[0.5]], [1.0], SearchSpace({"x": Float(0, 1)}, c)) for c in ([], ["x <= 1"]))
    assert plain.digest != bound.digest
    assert Dataset.from_bytes(bound.to_bytes()).space == bound.space


def test_infeasible_rows_keep_their_value_and_are_never_the_best() -> None:
    dataset = Dataset([[0.0], [1.0], [2.0]], [-5.0, 1.0, np.nan], status=["infeasible", "ok", "pending"])
    again = Dataset.from_bytes(dataset.to_bytes())
    assert again.y[:2].tolist() == [-5.0, 1.0]
    assert np.isnan(again.y[2])
    assert again.best_index == 1
    assert again.ok.X.tolist() == [[1.0]]


def test_rows_without_gradients_and_noise_go_with_rows_that_have_them() -> None:
    plain = table()
    rich = remade(plain, gradients=np.ones((4, 2)), noise=[0.1] * 4)
    together = plain.append(rich).append(plain)
    assert np.isnan(together.gradients[[0, 11]]).all()
    assert (together.gradients[4:8] == 1).all()
    assert together.noise.tolist()[4:8] == [0.1] * 4
    assert plain.append(plain).noise is None
    assert together.take([4, 5]).digest == rich.take([0, 1]).digest
    assert together.take([0, 1]).digest == plain.take([0, 1]).digest  # what nobody has is not there


def test_failed_rows_have_no_value_and_keep_their_reason() -> None:
    dataset = table(reason=["", "it broke", "", ""])
    assert dataset.status.tolist() == ["ok", "failed", "ok", "ok"]
    hidden = Dataset([[0.0], [1.0]], [1.0, 5.0], status=["ok", "failed"])
    assert np.isnan(hidden.y[1])
    again = Dataset.from_bytes(dataset.to_bytes())
    assert np.isnan(again.y[1])
    assert again.reason.tolist() == ["", "it broke", "", ""]


def test_what_was_evaluated_can_be_told_from_what_failed() -> None:
    dataset = table()
    assert dataset.ok.y.tolist() == [2.0, -1.5, 7.0]
    assert dataset.ok.X.tolist() == [[0.5, 2], [3, 1], [1.25, 4]]
    assert dataset.ok.ok.digest == dataset.ok.digest
    assert (dataset.n_samples, dataset.n_dims) == (4, 2)


def test_the_best_row_is_the_first_of_the_least_values() -> None:
    assert table().best_index == 2
    assert Dataset([[0.0], [1.0], [2.0]], [np.nan, 3.0, 3.0]).best_index == 1
    with pytest.raises(ValueError, match="expected at least one ok row, got none"):
        _ = Dataset([[0.0], [1.0]], [np.nan, np.nan]).best_index


@given(datasets(min_rows=1), st.data())
def test_rows_are_taken_in_the_order_given(dataset: Dataset, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, dataset.n_samples - 1), max_size=5))
    taken = dataset.take(np.array(rows, dtype=int))
    assert taken.X.tolist() == [dataset.X[row].tolist() for row in rows]
    assert taken.reason.tolist() == [dataset.reason[row] for row in rows]
    assert taken.space == dataset.space


@given(datasets(min_rows=1), st.integers(0, 5))
def test_parts_that_are_appended_make_the_whole_again(dataset: Dataset, at: int) -> None:
    at = min(at, dataset.n_samples)
    together = dataset.take(range(at)).append(dataset.take(range(at, dataset.n_samples)))
    assert together.digest == dataset.digest


def test_rows_of_another_space_are_not_appended() -> None:
    other = Dataset([[0.0, 1.0]], [1.0], SearchSpace({"x": Float(-1, 3), "n": Integer(1, 8)}))
    with pytest.raises(ValueError, match=r"expected rows of the same space .*high=9.* got .*high=8"):
        table().append(other)


def test_without_a_space_the_bounds_are_those_of_the_data() -> None:
    dataset = Dataset([[0.0, 7.0], [2.0, 7.0]], [1.0, 2.0])
    assert dataset.space.bounds[0].tolist() == [0, 2]
    low, high = dataset.space.bounds[1]  # a constant column: it has some width
    assert low <= 7 <= high


def test_rows_cannot_be_changed() -> None:
    dataset = table()
    with pytest.raises(FrozenInstanceError):
        dataset.y = np.zeros(4)  # type: ignore[misc]
    for name in ("X", "y", "status", "reason"):
        for rows in (dataset, dataset.ok, dataset.take([0, 2]), dataset.append(dataset)):
            with pytest.raises(ValueError, match="read-only"):
                getattr(rows, name)[0] = getattr(rows, name)[1]


def test_what_a_dataset_was_made_of_stays_the_callers_own() -> None:
    given_arrays = {
        "X": np.array([[0.5], [0.7]]),
        "y": np.array([1.0, 2.0]),
        "status": np.array(["ok", "ok"]),
        "reason": np.array(["a", "b"]),
    }
    dataset = Dataset(**given_arrays)
    before = dataset.digest, parts(dataset)
    for name, array in given_arrays.items():
        assert array.flags.writeable, name
        array[0] = array[1]
    assert (dataset.digest, parts(dataset)) == before
    assert remade(dataset).digest == dataset.digest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"X": np.zeros((3, 2)), "y": np.zeros(4)},
            r"X of shape \(n, d\) and y of shape \(n,\), got \(3, 2\) and \(4,\)",
        ),
        ({"X": np.zeros((3, 2)), "y": np.zeros((3, 1))}, r"got \(3, 2\) and \(3, 1\)"),
        ({"X": np.zeros((3, 2, 1)), "y": np.zeros(3)}, r"got \(3, 2, 1\) and \(3,\)"),
        ({"X": np.zeros((3, 0)), "y": np.zeros(3)}, r"got \(3, 0\) and \(3,\)"),
        ({"X": np.zeros(3), "y": np.zeros(3)}, r"got \(1, 3\) and \(3,\)|got \(3,\) and \(3,\)"),
        ({"X": np.empty((0, 2)), "y": []}, "dataset: expected"),  # and no space, whose bounds the data cannot give
        ({"X": [[0.0], [np.nan]], "y": [0, 0]}, "expected finite X, got 1 values"),
        ({"X": [[0.0], [np.inf]], "y": [0, 0]}, "expected finite X, got 1 values"),
        ({"X": [[0.0], [1.0]], "y": [0, 0], "status": ["ok"]}, "expected 2 statuses and reasons, got 1 and 2"),
        ({"X": [[0.0], [1.0]], "y": [0, 0], "reason": [""] * 3}, "expected 2 statuses and reasons, got 2 and 3"),
        ({"X": [[0.0], [1.0]], "y": [0, 0], "status": ["ok", "done"]}, r"one of \('ok', .*\), got done"),
        ({"X": [[0.0], [1.0]], "y": [0, np.nan], "status": ["ok", "ok"]}, "expected a finite y in every ok row"),
        ({"X": [[0.0], [1.0]], "y": [0, np.inf], "status": ["ok", "ok"]}, "expected a finite y in every ok row"),
        ({"X": [[0.0], [1.0]], "y": [0, 0], "space": SPACE}, "expected 2 columns as in the space, got 1"),
        ({"X": [[0.0], [1.0]], "y": [0, 0], "gradients": [1, 2]}, r"gradients of shape \(2, 1\), got \(2,\)"),
        ({"X": [[0.0], [1.0]], "y": [0, 0], "gradients": [[1], [np.inf]]}, "finite gradients, got infinity"),
        ({"X": [[0.0], [1.0]], "y": [0, 0], "noise": [1]}, r"noise of shape \(2,\), got \(1,\)"),
        ({"X": [[0.0], [1.0]], "y": [0, 0], "noise": [1, -0.5]}, "noise >= 0, got -0.5"),
    ],
    ids=str,
)
def test_what_does_not_fit_together_is_refused_with_its_shapes(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dataset(**arguments)


def parquet(columns: dict[str, Any], about: Any = None) -> bytes:
    sink = io.BytesIO()
    metadata = None if about is None else {"surrogate": orjson.dumps(about)}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), sink)
    return sink.getvalue()


OURS = {"x": [0.5], "objective": [1.0], "status": ["ok"], "reason": [""]}
ABOUT = {"schema": 2, "space": SearchSpace({"x": Float(0, 1)}).to_config()}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PAR1",
        b"x,objective\n0.5,1.0\n",
        b"\x80\x04N.",
        parquet(OURS),
        parquet(OURS, []),
        parquet(OURS, {}),
        parquet(OURS, {**ABOUT, "space": []}),
        parquet(OURS, {**ABOUT, "space": {}}),
        parquet(OURS, {**ABOUT, "space": {"variables": [["x", {"type": "categorical"}]], "constraints": []}}),
        parquet(
            OURS, {**ABOUT, "space": {"variables": [["x", {"type": "float", "low": 2, "high": 1}]], "constraints": []}}
        ),
        parquet(
            OURS, {**ABOUT, "space": {"variables": [["x", {"type": "float", "low": "", "high": 1}]], "constraints": []}}
        ),
        parquet({**OURS, "status": ["done"]}, ABOUT),
        parquet({**OURS, "status": [None]}, ABOUT),
        parquet({**OURS, "x": ["a"]}, ABOUT),
        parquet({**OURS, "x": [None]}, ABOUT),
        parquet({name: OURS[name] for name in ("x", "objective", "status")}, ABOUT),
    ],
)
def test_a_foreign_file_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        Dataset.from_bytes(content)


def test_a_file_of_our_kind_is_read() -> None:
    digest = Dataset([OURS["x"]], [1.0], SearchSpace.from_config(ABOUT["space"])).digest
    assert Dataset.from_bytes(parquet(OURS, {**ABOUT, "digest": digest})).y.tolist() == [1.0]


def test_a_file_of_a_later_schema_is_refused() -> None:
    with pytest.raises(ValueError, match="schema"):
        Dataset.from_bytes(parquet(OURS, {**ABOUT, "schema": 3}))


def test_a_file_that_was_cut_short_is_refused() -> None:
    content = table().to_bytes()
    for n in range(0, len(content), 7):
        with pytest.raises(ValueError, match=r"\S"):
            Dataset.from_bytes(content[:n])


def test_a_damaged_byte_is_found_or_changes_nothing() -> None:
    dataset = table()
    content = dataset.to_bytes()
    believed, other_errors = [], []
    for i in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[i] ^= 0x55
        try:
            if Dataset.from_bytes(bytes(damaged)).digest != dataset.digest:
                believed.append(i)
        except ValueError:
            pass
        except Exception as error:  # noqa: BLE001 - the kinds that should have been a ValueError are collected
            other_errors.append(type(error).__name__)
    assert not other_errors
    assert not believed
