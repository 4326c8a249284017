"""Tables that users bring: what is what in them, what is inferred, and every mistake told with its column and row."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from surrogate_core import Categorical, Dataset, Float, Integer, SearchSpace
from surrogate_core.table import MOST_ROWS, Columns, read_table

Y = Columns("y")
Write = Callable[..., Path]


@pytest.fixture
def csv(tmp_path: Path) -> Write:
    def write(*lines: str, name: str = "my.csv") -> Path:
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture
def parquet(tmp_path: Path) -> Callable[..., Path]:
    def write(**columns: Any) -> Path:
        pq.write_table(pa.table(columns), tmp_path / "my.parquet")
        return tmp_path / "my.parquet"

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


def test_a_status_is_compared_without_case_and_space(csv: Write) -> None:
    dataset = read_table(csv("x,y,Status", "1,5,OK", "2,6, ok ", "3,7,Ok", "4,8,No"), Y)
    assert dataset.space.names == ("x",)
    assert dataset.status.tolist() == ["ok", "ok", "ok", "failed"]
    assert read_table(csv("x,y,Status", "1,5,true", "2,6,false"), Y).status.tolist() == ["ok", "failed"]
    asked = read_table(csv("x,y,Status", "1,5,OK", "2,6,No"), Columns("y", ["x", "Status"]))
    assert asked.space.names == ("x", "Status")


def test_no_state_is_ok_where_there_are_states(csv: Write) -> None:
    assert read_table(csv("x,y", "1,5", "2,6"), Columns("y", ok=[])).status.tolist() == ["ok", "ok"]
    for columns in (Columns("y", ok=[]), Columns("y", status="status", ok=[])):
        with pytest.raises(ValueError, match=r"^columns.ok: expected values of column 'status' that say .*got none$"):
            read_table(csv("x,y,status", "1,5,ok", "2,6,ok"), columns)


def test_a_column_that_marks_failures_alone_says_ok_by_a_blank(csv: Write) -> None:
    dataset = read_table(csv("x,y,status", "1,5,", "2,6,failed", "3,7,"), Y)
    assert dataset.status.tolist() == ["ok", "failed", "ok"]
    assert dataset.metadata["rows"].endswith(", 2 with a blank status taken for ok")
    dataset = read_table(csv("x,y,status", "1,5,ok", "2,6,failed", "3,7,"), Y)
    assert dataset.reason.tolist() == ["", "status failed", "status blank"]


def test_numbers_of_every_width_are_read(parquet: Write) -> None:
    path = parquet(
        big=pa.array([0, 2**64 - 1], pa.uint64()),
        small=pa.array([1, 2], pa.uint8()),
        price=pa.array([Decimal("0.50"), Decimal("1.25")]),
        half=pa.array(np.array([0.5, 1], dtype=np.float16)),
        kind=pa.array(["a", "b"]).dictionary_encode(),
        word=pa.array(["c", "d"], pa.string_view()),
        y=pa.array([Decimal("2.5"), Decimal("3.5")]),
    )
    dataset = read_table(path, Y)
    assert dataset.space == SearchSpace(
        {
            "big": Float(0, 2.0**64),
            "small": Integer(1, 2),
            "price": Float(0.5, 1.25),
            "half": Float(0.5, 1),
            "kind": Categorical(["a", "b"]),
            "word": Categorical(["c", "d"]),
        }
    )
    assert dataset.y.tolist() == [2.5, 3.5]


DAY = datetime.date(2024, 1, 1)


@pytest.mark.parametrize(
    ("values", "kind"),
    [([[1.0], [2.0]], "list<.*double>"), ([{"a": 1}, {"a": 2}], "struct<a: int64>"), ([DAY, DAY], "date32.day.")],
    ids=str,
)
def test_a_used_column_of_another_type_is_told(values: list[Any], kind: str, parquet: Write) -> None:
    path = parquet(x=[1, 2], odd=values, y=[3, 4])
    assert read_table(path, Columns("y", ["x"])).n_samples == 2
    told = f"expected numbers, texts or booleans in column 'odd', got {kind}"
    for columns, field in ((Y, "inputs"), (Columns("odd", ["x"]), "output"), (Columns("y", ["x"], "odd"), "status")):
        with pytest.raises(ValueError, match=rf"^columns.{field}: {told}"):
            read_table(path, columns)


def test_nan_is_a_missing_value(parquet: Write) -> None:
    path = parquet(x=[1.0, np.nan, 3.0], y=[1.0, 2.0, np.nan], e=[np.nan, 0.1, np.nan])
    dataset = read_table(path, Columns("y", noise="e"))
    assert dataset.X.tolist() == [[1], [3]]
    assert dataset.reason.tolist() == ["", "no value"]
    assert dataset.noise is None
    assert dataset.metadata["rows"] == "3 rows of my.parquet, 1 without all inputs left out"


def test_noise_and_gradients_of_rows_without_a_value_do_not_matter(csv: Write) -> None:
    path = csv("x,y,e,dy", "1,2,0.1,1", "2,,-1,inf", "3,4,None,2")
    dataset = read_table(path, Columns("y", noise="e", gradients={"x": "dy"}))
    assert dataset.noise.tolist()[0] == 0.1
    assert np.isnan(dataset.noise[1:]).all()
    assert dataset.gradients[[0, 2], 0].tolist() == [1, 2]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_decimal_commas_are_read_where_commas_do_not_part_fields(separator: str, csv: Write) -> None:
    lines = [("x", "n", "y"), ("0,5", "1", "-1,5e1"), ("None", "2", "7"), (" ", "2", "8"), ("2", "3", "2,25")]
    dataset = read_table(csv(*map(separator.join, lines)), Y)
    assert dataset.space == SearchSpace({"x": Float(0.5, 2), "n": Integer(1, 3)})
    assert dataset.y.tolist() == [-15, 2.25]
    assert dataset.metadata["rows"].endswith(", decimal commas in x, y")


@pytest.mark.parametrize(
    ("separator", "number"),
    [(",", '"0,5"'), (",", '"1,000"'), (";", "1,000.5"), (";", "1.000,5"), (";", "1,500"), ("\t", "-12,150")],
    ids=str,
)
@pytest.mark.parametrize("place", [0, 1])
def test_commas_in_numbers_are_told_where_they_cannot_be_read(
    place: int, separator: str, number: str, csv: Write
) -> None:
    rows = [["1", "2"], ["3", "4"]]
    for row, value in zip(rows, (number, number.replace("5", "7").replace("1", "2")), strict=True):
        row[place] = value
    role = ["inputs: column 'x'", "output: column 'y'"][place]
    shown = re.escape(repr(number.strip('"')))
    hint = "write it with a decimal point and no commas"
    with pytest.raises(ValueError, match=rf"^columns.{role}, row 1: expected a number, got {shown}; {hint}$"):
        read_table(csv("x,y".replace(",", separator), *map(separator.join, rows)), Columns("y", ["x"]))


def test_choices_with_commas_in_them_stay_choices(csv: Write) -> None:
    assert read_table(csv("x,y", '"1,2",1', "none,2"), Y).space == SearchSpace({"x": Categorical(["1,2", "none"])})


def test_columns_without_a_name_are_left_out_and_said(csv: Write, tmp_path: Path) -> None:
    dataset = read_table(csv(",x,Unnamed: 3,y,", "0,1,a,5,", "1,2,b,6,"), Y)
    assert dataset.space.names == ("x",)
    assert dataset.metadata["rows"] == "2 rows of my.csv, 3 columns without a name left out"
    asked = read_table(csv("x,Unnamed: 3,y", "1,a,5", "2,b,6"), Columns("y", ["x", "Unnamed: 3"]))
    assert asked.space.names == ("x", "Unnamed: 3")
    assert asked.metadata["rows"] == "2 rows of my.csv"
    one = read_table(csv("x,y,", "1,5,", "2,6,"), Y)
    assert one.metadata["rows"] == "2 rows of my.csv, 1 column without a name left out"


def test_none_is_a_choice_among_texts_and_missing_among_numbers(csv: Write) -> None:
    path = csv("kind,x,y", "None,1,1", "none,2,None", "a,None,3", "n/a,4,4", ",5,5", "NaN,6,6", "a,7,7")
    dataset = read_table(path, Columns("y", ["kind", "x"]))
    assert dataset.space == SearchSpace({"kind": Categorical(["None", "a", "none"]), "x": Integer(1, 7)})
    assert dataset.reason.tolist() == ["", "no value", ""]
    marked = read_table(csv("x,y", "1,None", "2,FAIL", "3,4"), Columns("y", failed=["FAIL"]))
    assert marked.reason.tolist() == ["no value", "marked as failed by FAIL", ""]


def test_a_file_that_is_not_in_utf_8_is_told(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    line = r"^data: expected a table in UTF-8, got other bytes in {}; save it as UTF-8$"
    path.write_bytes("x,k,y\n1,Größe,2\n2,b,3\n".encode("latin-1"))
    with pytest.raises(ValueError, match=line.format("column 'k'")):
        read_table(path, Y)
    assert read_table(path, Columns("y", ["x"])).n_samples == 2
    path.write_bytes("x,y\n1,2\n2,3\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"^data: expected a table in UTF-8, got one in UTF-16 in my.csv; save it as"):
        read_table(path, Y)
    path.write_bytes("Größe,y\n1,2\n2,3\n".encode("latin-1"))
    with pytest.raises(ValueError, match=line.format("my.csv")):
        read_table(path, Y)


def test_more_rows_than_a_gaussian_process_takes_are_refused(parquet: Write) -> None:
    x = np.arange(MOST_ROWS + 1.0)
    path = parquet(x=x, y=x)
    line = (
        "data: expected at most 4,000 rows, which a Gaussian process can take, got 4,001 in my.parquet; thin the table"
    )
    with pytest.raises(ValueError, match=f"^{line}$"):
        read_table(path, Y)
    assert read_table(path, Y, SearchSpace({"x": Float(1, MOST_ROWS)})).n_samples == MOST_ROWS


def test_a_column_named_noise_is_the_noise_and_said(csv: Write) -> None:
    dataset = read_table(csv("x,noise,y", "1,0.1,5", "2,,6"), Y)
    assert dataset.space.names == ("x",)
    assert dataset.noise.tolist()[0] == 0.1
    assert dataset.metadata["inferred"] == "x integer 1 to 2; noise standard deviation of y"
    again = read_table(csv("x,noise,y", "1,0.1,5", "2,,6"), Y, SearchSpace({"x": Float(0, 5)}))
    assert again.metadata["inferred"] == "noise standard deviation of y"
    assert read_table(csv("x,noise", "1,0.1", "2,3"), Columns("noise")).noise is None


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
        (
            ["x,y,e", "1,2,0", "2,3,-1"],
            Columns("y", noise="e"),
            "columns.noise: column 'e', row 2: .*0 to 1e.100, got -1",
        ),
        (["x,y,e", "1,2,inf", "2,3,1"], Columns("y", noise="e"), "columns.noise: column 'e', row 1: .*, got inf"),
        (
            ["x,y,d", "1,2,1", "2,3,-inf"],
            Columns("y", gradients={"x": "d"}),
            "columns.gradients.x: column 'd', row 2: expected a number of magnitude up to 1e.100, got -inf",
        ),
        (["x,y", '" ",1', '"0,5",2'], Y, "columns.inputs: column 'x', row 1: expected a number, got ' '"),
        (
            ["x,noise,y", "1,loud,3", "2,low,4"],
            Y,
            "columns.noise: column 'noise', row 1: expected a standard deviation",
        ),
        (["x,reason,y", "1,a,3", "2,b,4"], Y, "columns.inputs: expected names other than .*, got 'reason'; rename the"),
        (["x,noise,y", "1,2,3", "2,3,4"], Columns("y", ["x", "noise"]), "columns.inputs: expected names .*got 'noise'"),
        (["gradient.x,y", "1,3", "2,4"], Y, "columns.inputs: expected names other than .*, got 'gradient.x'"),
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
