"""A table of evaluations that a user has, CSV or parquet, as a dataset; types and bounds are inferred on request.

Every message begins with the field that is to be mended: `data`, `columns.NAME` or `space.NAME`.
"""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from surrogate_core.dataset import Dataset
from surrogate_core.measurement import LARGEST
from surrogate_core.space import GRADIENT, RESERVED, Categorical, Float, Integer, SearchSpace, Value, Variable
from surrogate_core.table_file import NO_NUMBER, check_type, has_commas, is_nameless, load, values

MOST_CHOICES = 20
"""Distinct texts beyond which a column is taken for a remark or an identifier."""
MOST_ROWS = 4_000
"""That an exact Gaussian process takes: each of its matrices has 128 MB then, and a fit factorizes hundreds."""
LARGEST_WHOLE = 2**53  # beyond it floats skip whole numbers
LOG_RATIO = 1e3  # of the greatest to the least value of a positive column, from which its logarithm is looked at
_TRUE = {True: "true", False: "false"}


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are.

    Args:
        output: the values to be optimized.
        inputs: the variables; None for those of the space, or all columns that are nothing else.
        status: where it is none of `ok`, the row has failed; blank is ok where no row says so. None for a column named
            "status", "Status" or alike, if there is one.
        ok: of `status`; upper and lower case are the same, as are texts with and without space around.
        failed: values of `output` that say that the row has failed, such as -999.
        noise: standard deviations of the output; None for a column named "noise", if there is one.
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
    table, commas = load(path)
    found = _found(table, columns, space)
    names = _inputs(table, found, space)
    read = {name: values(table, name) for name in names}
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
    if len(X) > MOST_ROWS:
        raise ValueError(
            f"data: expected at most {MOST_ROWS:,} rows, which a Gaussian process can take, got {len(X):,} in "
            f"{path.name}; thin the table"
        )

    y, status, reason = _outcomes(table, found, kept)
    broken = (status == "ok") & ~space.is_feasible(X)
    status[broken], reason[broken] = "infeasible", "a known constraint is not met"
    measured = np.isfinite(y)
    noise = None if found.noise is None else _noise(table, found.noise, kept, measured)
    gradients = _gradients(table, found, names, kept, measured)
    said = [f"{len(table)} rows of {path.name}"]
    said += [f"{n_incomplete} without all inputs left out"] * (n_incomplete > 0)
    said += [f"{(~within).sum()} outside the space left out"] * int(not within.all())
    n_nameless = sum(is_nameless(name) and name not in names for name in table.column_names)
    said += [f"{n_nameless} column{'s' * (n_nameless > 1)} without a name left out"] * (
        n_nameless > 0 and inferred and not columns.inputs
    )
    states = values(table, found.status) if found.status else []
    n_blank = sum(states[i] is None for i in kept[status == "ok"]) if states else 0
    said += [f"{n_blank} with a blank {found.status} taken for ok"] * (n_blank > 0)
    used = [name for name in commas if name in {*names, found.output, found.noise, *found.gradients.values()}]
    said += [f"decimal commas in {', '.join(used)}"] * bool(used)
    told = {"rows": ", ".join(said)}
    kinds = [f"{name} {_told(variable)}" for name, variable in zip(names, space.variables, strict=True)] * inferred
    kinds += [f"{found.noise} standard deviation of {found.output}"] * (found.noise != columns.noise)
    if kinds:
        told["inferred"] = "; ".join(kinds)
    return Dataset(X, sign * y, space, status, reason, None if gradients is None else sign * gradients, noise, told)


def _found(table: pa.Table, columns: Columns, space: SearchSpace | None) -> Columns:
    """The same columns, with those of the status and the noise that are known by their names."""
    taken = {columns.output, columns.status, columns.noise, *columns.gradients.values(), *(columns.inputs or ())}
    free = [name for name in table.column_names if name not in taken and (space is None or name not in space.names)]
    states = sorted((name for name in free if name.strip().lower() == "status"), key=lambda name: name != "status")
    return replace(
        columns,
        status=columns.status or (states[0] if states else None),
        noise=columns.noise or ("noise" if "noise" in free else None),
    )


def _inputs(table: pa.Table, columns: Columns, space: SearchSpace | None) -> list[str]:
    others = [("output", columns.output), ("status", columns.status), ("noise", columns.noise)]
    others += [(f"gradients.{name}", column) for name, column in columns.gradients.items()]
    for role, name in others:
        if name is not None:
            _must_have(table, name, f"columns.{role}")
    taken = {name for _, name in others}
    rest = [name for name in table.column_names if name not in taken and not is_nameless(name)]
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
    if reserved := [name for name in names if name in RESERVED or name.startswith(GRADIENT)]:
        raise ValueError(
            f"columns.inputs: expected names other than {', '.join(sorted(RESERVED))} and {GRADIENT}*, got "
            f"{reserved[0]!r}; rename the column, or name the inputs without it"
        )
    used = [(f"columns.{role}", name) for role, name in others if name is not None]
    for where, name in [*used, *(("columns.inputs", name) for name in names)]:
        check_type(table, name, where)
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
        if (numeric and len(numeric) < len(texts)) or all(has_commas(text) for text in texts if text.strip()):
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
    if all(isinstance(value, int) for value in values) and -LARGEST_WHOLE <= low <= high <= LARGEST_WHOLE:
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
                raise ValueError(f"expected a number, got {value!r}{_hint(value)}")
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


def _hint(value: Any) -> str:
    return "; write it with a decimal point and no commas" if isinstance(value, str) and has_commas(value) else ""


def _outcomes(table: pa.Table, columns: Columns, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    read = values(table, columns.output)
    good = {_state(value) for value in columns.ok}
    states = values(table, columns.status) if columns.status else None
    if states and not good:
        raise ValueError(f"columns.ok: expected values of column {columns.status!r} that say a row is ok, got none")
    if states and not any(_state(state) in good for state in states):  # a column that marks failures alone
        good.add(_state(None))
    bad = {_text(value) for value in columns.failed}
    y, status, reason = np.full(len(rows), np.nan), np.full(len(rows), "failed", dtype="<U10"), [""] * len(rows)
    for place, i in enumerate(rows):
        value, number = read[i], _number(read[i])
        if states and _state(states[i]) not in good:
            reason[place] = f"status {'blank' if states[i] is None else states[i]}"
        elif value is None or value in NO_NUMBER or (number is not None and np.isnan(number)):
            reason[place] = "no value"
        elif _text(value) in bad or _text(number) in bad:
            reason[place] = f"marked as failed by {value}"
        elif number is None:
            raise ValueError(
                f"columns.output: column {columns.output!r}, row {i + 1}: expected a number, got {value!r}"
                f"{_hint(value) or '; if it says that the row has failed, name it in columns.failed'}"
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


def _state(value: Any) -> str:
    """By which states are compared: OK, Ok and " ok " are the same."""
    return _text(value).strip().lower()


def _numbers(table: pa.Table, name: str, where: str, rows: np.ndarray, least: float, what: str) -> np.ndarray:
    """A column's values in the given rows, from `least` to LARGEST; NaN where one is missing."""
    numbers = []
    read = values(table, name)
    for i in rows:
        value, number = read[i], _number(read[i])
        if value is None or value in NO_NUMBER:
            number = np.nan
        elif number is None:
            raise ValueError(f"{where}: column {name!r}, row {i + 1}: expected {what}, got {value!r}{_hint(value)}")
        elif not least <= number <= LARGEST:
            raise ValueError(f"{where}: column {name!r}, row {i + 1}: expected {what}, got {number:g}")
        numbers.append(number)
    return np.array(numbers)


def _noise(table: pa.Table, name: str, rows: np.ndarray, measured: np.ndarray) -> np.ndarray:
    noise = np.full(len(rows), np.nan)
    what = f"a standard deviation from 0 to {LARGEST:g}"
    noise[measured] = _numbers(table, name, "columns.noise", rows[measured], 0.0, what)
    return noise


def _gradients(
    table: pa.Table, columns: Columns, names: list[str], rows: np.ndarray, measured: np.ndarray
) -> np.ndarray | None:
    if not columns.gradients:
        return None
    gradients = np.full((len(rows), len(names)), np.nan)
    what = f"a number of magnitude up to {LARGEST:g}"
    for name, column in columns.gradients.items():
        where = f"columns.gradients.{name}"
        gradients[measured, names.index(name)] = _numbers(table, column, where, rows[measured], -LARGEST, what)
    return gradients
