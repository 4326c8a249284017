"""A table of evaluations that a user has, CSV or parquet, as a dataset; types and bounds are inferred on request.

Every message begins with the field that is to be mended: `data`, `columns.NAME` or `space.NAME`.
"""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from surrogate_core.dataset import Dataset
from surrogate_core.measurement import LARGEST
from surrogate_core.space import Categorical, Float, Integer, SearchSpace, Value, Variable

MOST_CHOICES = 20
"""Distinct texts beyond which a column is taken for a remark or an identifier."""
LOG_RATIO = 1e3  # of the greatest to the least value of a positive column, from which its logarithm is looked at
_MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "#N/A"]
_TRUE = {True: "true", False: "false"}


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are.

    Args:
        output: the values to be optimized.
        inputs: the variables; None for those of the space, or all columns that are nothing else.
        status: where it is none of `ok`, the row has failed; None for a column named "status", if there is one.
        ok: of `status`.
        failed: values of `output` that say that the row has failed, such as -999.
        noise: standard deviations of the output.
        gradients: input to column of the output's derivative.
    """

    output: str
    inputs: Sequence[str] | None = None
    status: str | None = None
    ok: Sequence[Value] = ("ok", True)
    failed: Sequence[Value] = ()
    noise: str | None = None
    gradients: Mapping[str, str] = field(default_factory=dict)


def read_table(path: Path, columns: Columns, space: SearchSpace | None = None, sign: float = 1.0) -> Dataset:
    """Reads a table.

    Args:
        path: a .csv (or .tsv, .txt; fields parted by commas, semicolons or tabs) or .parquet file.
        columns: what is what.
        space: the variables; without it, types and bounds are those of the columns: whole numbers are integers, texts
            and booleans are choices, and positive numbers over three magnitudes are on a logarithmic scale.
        sign: -1 turns a problem that maximizes round.

    Returns:
        One row for each of the file that has all inputs, within the space. It is failed without a value, and infeasible
        where it does not meet the constraints. `metadata` says what was made of the file, in lines for people.

    Raises:
        ValueError: the file cannot be read, or a column is missing or not as expected.
    """
    table = _load(path)
    names = _inputs(table, columns, space)
    read = {name: table[name].to_pylist() for name in names}
    complete = np.array([all(v is not None for v in row) for row in zip(*read.values(), strict=True)], dtype=bool)
    n_incomplete = int((~complete).sum())
    if not complete.any():
        raise ValueError(f"data: expected rows with a value of {', '.join(names)}, got none in {path.name}")
    kept = np.flatnonzero(complete)
    inferred = space is None
    if space is None:
        space = SearchSpace({name: _inferred(name, [read[name][i] for i in kept]) for name in names})
    pairs = zip(names, space.variables, strict=True)
    X = np.column_stack([_column(name, variable, read[name], kept) for name, variable in pairs])
    within = ((space.bounds[:, 0] <= X) & (space.bounds[:, 1] >= X)).all(axis=1)
    X, kept = X[within], kept[within]
    if not len(X):
        raise ValueError(f"space: expected rows of {path.name} within its bounds, got none")

    y, status, reason = _outcomes(table, columns, names, kept)
    broken = (status == "ok") & ~space.is_feasible(X)
    status[broken], reason[broken] = "infeasible", "a known constraint is not met"
    noise = None if columns.noise is None else _numbers(table, columns.noise, "columns.noise", kept)
    said = [f"{len(table)} rows of {path.name}"]
    said += [f"{n_incomplete} without all inputs left out"] * (n_incomplete > 0)
    said += [f"{(~within).sum()} outside the space left out"] * int(not within.all())
    told = {"rows": ", ".join(said)}
    if inferred:
        kinds = [f"{name} {_told(variable)}" for name, variable in zip(names, space.variables, strict=True)]
        told["inferred"] = "; ".join(kinds)
    gradients = _gradients(table, columns, names, kept, sign)
    return Dataset(X, sign * y, space, status, reason, gradients, noise, told)


def _load(path: Path) -> pa.Table:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"data: expected a table, got {str(path)!r} ({error.strerror})") from error
    try:
        if path.suffix.lower() == ".parquet":
            # Not read_table: its threads now and then abort a process that ends right after.
            table = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False).read(use_threads=False)
        elif path.suffix.lower() in (".csv", ".tsv", ".txt"):
            header = content.partition(b"\n")[0]
            delimiter = max(b",", b";", b"\t", key=header.count).decode()
            table = csv.read_csv(
                pa.BufferReader(content),
                csv.ReadOptions(use_threads=False),
                csv.ParseOptions(delimiter=delimiter),
                csv.ConvertOptions(null_values=_MISSING, strings_can_be_null=True, quoted_strings_can_be_null=True),
            )
        else:
            raise ValueError(f"data: expected a .csv or .parquet file, got {path.name!r}")
        names = Counter(table.column_names)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"data: expected a table, got {path.name}: {str(error).splitlines()[0]}") from error
    if twice := [name for name, n in names.items() if n > 1]:
        raise ValueError(f"data: expected distinct columns, got {twice[0]!r} twice in {path.name}")
    if table.num_rows < 2:
        raise ValueError(f"data: expected at least two rows, got {table.num_rows} in {path.name}")
    return table


def _inputs(table: pa.Table, columns: Columns, space: SearchSpace | None) -> list[str]:
    others = [("output", columns.output), ("status", columns.status), ("noise", columns.noise)]
    others += [(f"gradients.{name}", column) for name, column in columns.gradients.items()]
    for role, name in others:
        if name is not None:
            _must_have(table, name, f"columns.{role}")
    taken = {name for _, name in others} | ({"status"} if columns.status is None else set())
    rest = [name for name in table.column_names if name not in taken]
    names = list(columns.inputs or (space.names if space is not None else rest))
    for name in names:
        _must_have(table, name, "columns.inputs" if columns.inputs or space is None else f"space.{name}")
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise ValueError(f"columns.inputs: expected distinct columns, got {twice[0]!r} twice")
    if clash := [name for name in names if name in {name for _, name in others}]:
        raise ValueError(f"columns.inputs: expected columns that are nothing else, got {clash[0]!r}")
    if not names:
        raise ValueError(f"columns.inputs: expected at least one column beside {columns.output!r}, got none")
    if space is not None and set(names) != set(space.names):
        raise ValueError(
            f"columns.inputs: expected the variables of the space, {', '.join(space.names)}, got {', '.join(names)}"
        )
    if unknown := [name for name in columns.gradients if name not in names]:
        raise ValueError(f"columns.gradients: expected inputs, got {unknown[0]!r}")
    return names if space is None else list(space.names)


def _must_have(table: pa.Table, name: str, where: str) -> None:
    if name not in table.column_names:
        near = difflib.get_close_matches(name, table.column_names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{where}: expected one of the columns {', '.join(table.column_names)}, got {name!r}{hint}")


def _inferred(name: str, values: list[Any]) -> Variable:
    texts = {value for value in values if isinstance(value, str)}
    if texts:
        numeric = [text for text in texts if _number(text) is not None]
        if numeric and len(numeric) < len(texts):
            _column(name, Float(0, 1), values, np.arange(len(values)))  # tells which is no number
        if len(texts) > MOST_CHOICES:
            raise ValueError(
                f"columns.inputs: expected numbers or at most {MOST_CHOICES} distinct texts, got {len(texts)} texts in "
                f"column {name!r}; name the inputs without it"
            )
    distinct = sorted(set(values), key=str)
    if len(distinct) < 2:
        raise ValueError(
            f"columns.inputs: expected columns that vary, got {distinct[0]!r} in every row of {name!r}; name the "
            "inputs without it"
        )
    if all(isinstance(value, bool | str) for value in values):
        return Categorical(tuple(distinct))
    numbers = _column(name, Float(0, 1), values, np.arange(len(values)))
    low, high = numbers.min(), numbers.max()
    log = bool(low > 0 and high / low >= LOG_RATIO)
    if all(isinstance(value, int) for value in values):
        return Integer(int(low), int(high), log=log)
    return Float(low, high, log=log)


def _told(variable: Variable) -> str:
    if isinstance(variable, Categorical):
        return f"{variable.kind} {', '.join(map(str, variable.choices))}"
    return f"{variable.kind} {variable.low:g} to {variable.high:g}{', logarithmic' if variable.log else ''}"


def _column(name: str, variable: Variable, values: list[Any], rows: np.ndarray) -> np.ndarray:
    made = []
    for i in rows:
        value = values[i]
        try:
            if isinstance(variable, Categorical):
                made.append(variable.column(value))
                continue
            number = _number(value)
            if number is None:
                raise ValueError(f"expected a number, got {value!r}")
            if not abs(number) <= LARGEST:
                raise ValueError(f"expected a number of magnitude up to {LARGEST:g}, got {number:g}")
            if isinstance(variable, Integer) and not number.is_integer():
                raise ValueError(f"expected a whole number, got {number:g}")
            made.append(number)
        except ValueError as error:
            raise ValueError(f"columns.inputs: column {name!r}, row {i + 1}: {error}") from error
    return np.array(made)


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _outcomes(
    table: pa.Table, columns: Columns, inputs: list[str], rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values = table[columns.output].to_pylist()
    told = columns.status or ("status" if "status" in {*table.column_names} - {*inputs} else None)
    good = {_text(value) for value in columns.ok}
    states = table[told].to_pylist() if told else [columns.ok[0]] * len(values)
    bad = {_text(value) for value in columns.failed}
    y, status, reason = np.full(len(rows), np.nan), np.full(len(rows), "failed", dtype="<U10"), [""] * len(rows)
    for place, i in enumerate(rows):
        value, number = values[i], _number(values[i])
        if _text(states[i]) not in good:
            reason[place] = f"status {states[i]}"
        elif value is None or (number is not None and np.isnan(number)):
            reason[place] = "no value"
        elif _text(value) in bad or _text(number) in bad:
            reason[place] = f"marked as failed by {value}"
        elif number is None:
            raise ValueError(
                f"columns.output: column {columns.output!r}, row {i + 1}: expected a number, got {value!r}; if it says "
                "that the row has failed, name it in columns.failed"
            )
        elif abs(number) > LARGEST:
            raise ValueError(
                f"columns.output: column {columns.output!r}, row {i + 1}: expected a number of magnitude up to "
                f"{LARGEST:g}, got {number:g}; if it says that the row has failed, name it in columns.failed"
            )
        else:
            y[place], status[place] = number, "ok"
    return y, status, np.array(reason, dtype=str).astype("<U200")


def _text(value: Any) -> str:
    """By which values are compared: 1 and 1.0 are the same mark, true is what YAML and CSV make of it."""
    if isinstance(value, bool):
        return _TRUE[value]
    return f"{value:.15g}" if isinstance(value, int | float) else str(value)


def _numbers(table: pa.Table, name: str, where: str, rows: np.ndarray) -> np.ndarray:
    numbers = []
    for i, value in enumerate(table[name].to_pylist()):
        number = _number(value)
        if value is not None and number is None:
            raise ValueError(f"{where}: column {name!r}, row {i + 1}: expected a number, got {value!r}")
        numbers.append(np.nan if number is None else number)
    return np.array(numbers)[rows]


def _gradients(table: pa.Table, columns: Columns, names: list[str], rows: np.ndarray, sign: float) -> np.ndarray | None:
    if not columns.gradients:
        return None
    gradients = np.full((len(rows), len(names)), np.nan)
    for name, column in columns.gradients.items():
        gradients[:, names.index(name)] = sign * _numbers(table, column, f"columns.gradients.{name}", rows)
    return gradients
