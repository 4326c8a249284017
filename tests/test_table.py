"""Tables that users bring: what is what in them, what is inferred, and every mistake told with its column and row."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from surrogate_core import Categorical, Dataset, Float, Integer, SearchSpace
from surrogate_core.table import Columns, read_table

Y = Columns("y")
Write = Callable[..., Path]


@pytest.fixture
def csv(tmp_path: Path) -> Write:
    def write(*lines: str, name: str = "my.csv") -> Path:
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


def test_types_and_bounds_are_inferred_and_said(csv: Write) -> None:
    path = csv(
        "x,n,span,kind,on,y",
        "0.5,1,0.001,b,true,1",
        "1.5,7,20,a,false,2.5",
        "0.75,3,1,b,true,-3",
    )
    dataset = read_table(path, Y)
    assert dataset.space == SearchSpace(
        {
            "x": Float(0.5, 1.5),
            "n": Integer(1, 7),
            "span": Float(0.001, 20, log=True),
            "kind": Categorical(["a", "b"]),
            "on": Categorical([False, True]),
        }
    )
    assert dataset.X.tolist() == [[0.5, 1, 0.001, 1, 1], [1.5, 7, 20, 0, 0], [0.75, 3, 1, 1, 1]]
    assert dataset.y.tolist() == [1, 2.5, -3]
    assert dataset.metadata["rows"] == "3 rows of my.csv"
    assert dataset.metadata["inferred"] == (
        "x float 0.5 to 1.5; n integer 1 to 7; span float 0.001 to 20, logarithmic; kind categorical a, b; "
        "on categorical False, True"
    )


@pytest.mark.parametrize("name", ["my.parquet", "my.csv", "my.tsv", "my.txt"])
def test_the_kind_of_file_does_not_matter(name: str, csv: Write, tmp_path: Path) -> None:
    table = {"x": [0.5, 1.5, 1.0], "kind": ["a", "b", "a"], "y": [1.0, None, 3.0]}
    separator = {"my.tsv": "\t", "my.txt": ";"}.get(name, ",")
    if name.endswith("parquet"):
        pq.write_table(pa.table(table), tmp_path / name)
    else:
        rows = [["" if v is None else str(v) for v in row] for row in zip(*table.values(), strict=True)]
        csv(*(separator.join(row) for row in [list(table), *rows]), name=name)
    dataset = read_table(tmp_path / name, Y)
    assert dataset.X.tolist() == [[0.5, 0], [1.5, 1], [1.0, 0]]
    assert dataset.status.tolist() == ["ok", "failed", "ok"]
    assert dataset.reason.tolist() == ["", "no value", ""]


def test_maximized_values_are_turned_round_with_their_gradients(csv: Write) -> None:
    path = csv("a,b,y,dy,e", "1,2,5,0.5,0.1", "2,4,6,,0.2")
    dataset = read_table(path, Columns("y", ["a", "b"], noise="e", gradients={"b": "dy"}), sign=-1.0)
    assert dataset.y.tolist() == [-5, -6]
    assert dataset.noise.tolist() == [0.1, 0.2]
    assert dataset.gradients[0].tolist()[1] == -0.5
    assert np.isnan(dataset.gradients[:, 0]).all()
    assert np.isnan(dataset.gradients[1, 1])


@pytest.mark.parametrize(
    ("columns", "failed"),
    [
        (Columns("y", ["x"]), [1, 3]),  # a column named status is one
        (Columns("y", ["x"], ok=["ok", "done"]), [1]),
        (Columns("y", ["x"], status="state"), [0, 1, 2, 3]),
        (Columns("y", ["x"], status="state", ok=[1]), [0, 2]),
        (Columns("y", ["x"], status="state", ok=["1", 0]), []),
        (Columns("y", ["x"], ok=["ok", "done", "crashed"], failed=[7, "nan"]), [2]),
    ],
    ids=str,
)
def test_a_row_fails_by_its_status_or_a_mark(columns: Columns, failed: list[int], csv: Write) -> None:
    path = csv("x,y,status,state", "1,5,ok,0", "2,6,crashed,1", "3,7,ok,0", "4,8,done,1")
    dataset = read_table(path, columns)
    assert np.flatnonzero(dataset.status == "failed").tolist() == failed
    assert all(dataset.reason[failed])


def test_a_mark_may_be_a_text_in_the_column_of_values(csv: Write) -> None:
    dataset = read_table(csv("x,y", "1,5", "2,FAIL", "3,-999", "4,"), Columns("y", failed=["FAIL", -999]))
    assert dataset.reason.tolist() == ["", "marked as failed by FAIL", "marked as failed by -999", "no value"]


def test_rows_that_cannot_be_placed_are_left_out_and_said(csv: Write) -> None:
    path = csv("x,z,y", "1,1,5", ",2,6", "3,3,7", "9,4,8")
    space = SearchSpace({"x": Float(0, 5), "z": Float(0, 5)}, ["x + z <= 5"])
    dataset = read_table(path, Y, space)
    assert dataset.space is space
    assert dataset.X.tolist() == [[1, 1], [3, 3]]
    assert dataset.status.tolist() == ["ok", "infeasible"]
    assert dataset.metadata == {"rows": "4 rows of my.csv, 1 without all inputs left out, 1 outside the space left out"}


def test_the_table_is_read_back_from_the_datasets_file(csv: Write) -> None:
    dataset = read_table(csv("x,k,y", "1,a,5", "2,b,6"), Y)
    again = Dataset.from_bytes(dataset.to_bytes())
    assert again.digest == dataset.digest
    assert again.metadata == dataset.metadata
    assert again.space == dataset.space


HEAD = "x,z,y"


@pytest.mark.parametrize(
    ("lines", "columns", "message"),
    [
        ([HEAD, "1,2,3", "2,3,4"], Columns("w"), "columns.output: expected one of the columns x, z, y, got 'w'"),
        (["x,yield", "1,2", "2,3"], Columns("yeld"), "got 'yeld'; did you mean 'yield'?"),
        ([HEAD, "1,2,3", "2,3,4"], Columns("y", ["x", "q"]), "columns.inputs: .*got 'q'"),
        (
            [HEAD, "1,2,3", "2,3,4"],
            Columns("y", ["x", "x"]),
            "columns.inputs: expected distinct columns, got 'x' twice",
        ),
        ([HEAD, "1,2,3", "2,3,4"], Columns("y", ["x", "y"]), "columns that are nothing else, got 'y'"),
        ([HEAD, "1,2,3", "2,3,4"], Columns("y", noise="s"), "columns.noise: expected one of the columns"),
        (
            [HEAD, "1,2,3", "2,3,4"],
            Columns("y", ["x"], gradients={"z": "z"}),
            "columns.gradients: expected inputs, got 'z'",
        ),
        ([HEAD, "1,2,3", "abc,3,4"], Y, "columns.inputs: column 'x', row 2: expected a number, got 'abc'"),
        (
            [HEAD, "1,2,3", "2,3,high"],
            Y,
            "columns.output: column 'y', row 2: expected a number, got 'high'; if it says",
        ),
        (
            [HEAD, "1,2,3", "2,3,1e300"],
            Y,
            "column 'y', row 2: expected a number of magnitude up to 1e\\+100, got 1e\\+300",
        ),
        ([HEAD, "1,2,3", "-1e300,3,4"], Y, "column 'x', row 2: expected a number of magnitude up to 1e\\+100, got -1e"),
        ([HEAD, "1,2,3", "inf,3,4"], Y, "column 'x', row 2: expected a number of magnitude up to 1e\\+100, got inf"),
        (["x,x,y", "1,2,3", "2,3,4"], Y, "data: expected distinct columns, got 'x' twice in my.csv"),
        ([HEAD], Y, "data: expected at least two rows, got 0 in my.csv"),
        ([HEAD, "1,2,3"], Y, "data: expected at least two rows, got 1 in my.csv"),
        (
            [HEAD, "1,7,3", "2,7,4"],
            Y,
            "columns.inputs: expected columns that vary, got 7 in every row of 'z'; name the",
        ),
        ([HEAD, ",7,3", ",8,4"], Y, "data: expected rows with a value of x, z, got none in my.csv"),
        (["y", "1", "2"], Y, "columns.inputs: expected at least one column beside 'y', got none"),
        ([HEAD, "1,2,3", "2,3"], Y, "data: expected a table, got my.csv: .*Expected 3 columns, got 2"),
        ([""], Y, "data: expected a table, got my.csv"),
        (["id,y", *(f"run{i},1" for i in range(30))], Y, "at most 20 distinct texts, got 30 texts in column 'id'"),
        (["x,y,e", "1,2,low", "2,3,4"], Columns("y", ["x"], noise="e"), "columns.noise: column 'e', row 1: .*'low'"),
    ],
    ids=str,
)
def test_a_mistake_is_told_with_its_field_column_and_row(
    lines: list[str], columns: Columns, message: str, csv: Write
) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        read_table(csv(*lines), columns)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        (Float(10, 20), "space: expected rows of my.csv within its bounds, got none"),
        (Integer(0, 9), "column 'x', row 1: expected a whole number, got 1.5"),
        (Categorical(["a", "b"]), "column 'x', row 1: expected one of 'a', 'b', got 1.5"),
    ],
    ids=str,
)
def test_a_space_holds_the_table_to_it(variable: Any, message: str, csv: Write) -> None:
    path = csv("x,y", "1.5,3", "2.5,4")
    with pytest.raises(ValueError, match=re.escape(message)):
        read_table(path, Y, SearchSpace({"x": variable}))
    with pytest.raises(ValueError, match=r"space.w: expected one of the columns x, y, got 'w'"):
        read_table(path, Y, SearchSpace({"w": Float(0, 1)}))
    with pytest.raises(ValueError, match=r"columns.inputs: expected the variables of the space, w, x, got x"):
        read_table(path, Columns("y", ["x"]), SearchSpace({"w": Float(0, 1), "x": Float(0, 9)}))


@pytest.mark.parametrize(
    ("name", "content"), [("my.xls", b"x"), ("my.parquet", b"PAR1"), ("my.csv", b"\xff\xfe,\n1,2")]
)
def test_a_file_that_is_no_table_is_told(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"^data: expected .*{name}") as raised:
        read_table(tmp_path / name, Y)
    assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(ValueError, match=r"^data: expected a table, got .*nowhere.csv' \(No such file"):
        read_table(tmp_path / "nowhere.csv", Y)
