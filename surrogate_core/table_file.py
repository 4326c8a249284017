"""The file of a table that a user has, CSV or parquet, and its columns as plain values.

A missing value is an empty cell, one of `_MISSING`, or NaN; in a column of numbers also `NO_NUMBER`, which among texts
is a choice like others.
"""

import re
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

NO_NUMBER = ("None", "none")
_MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "#N/A")
_NAMELESS = re.compile(r"\s*|Unnamed: \d+|__index_level_\d+__")  # the latter are what pandas makes of an index
_DECIMAL_COMMA = r"^[-+]?\d+(,\d+)?([eE][-+]?\d+)?$"
_THOUSANDS = r"^[-+]?[1-9]\d{0,2},\d{3}$"  # may be that, or have three decimals
_COMMAS = re.compile(r"[-+]?(\d+,\d+([eE][-+]?\d+)?|\d{1,3}(,\d{3})+(\.\d+)?|\d{1,3}(\.\d{3})+,\d+)")
_UTF8 = "save it as UTF-8"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")  # begin such a file


def load(path: Path) -> tuple[pa.Table, list[str]]:
    """A table of at least two rows, and the names of its columns whose decimal commas were read as points.

    Raises:
        ValueError: the file cannot be read, or is no table.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"data: expected a table, got {str(path)!r} ({error.strerror})") from error
    try:
        if path.suffix.lower() == ".parquet":
            # Not read_table: its threads now and then abort a process that ends right after.
            table = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False).read(use_threads=False)
            commas: list[str] = []
        elif content.startswith(_UTF16):
            raise ValueError(f"data: expected a table in UTF-8, got one in UTF-16 in {path.name}; {_UTF8}")
        elif path.suffix.lower() in (".csv", ".tsv", ".txt"):
            table, commas = _read_csv(content)
        else:
            raise ValueError(f"data: expected a .csv or .parquet file, got {path.name!r}")
        names = Counter(table.column_names)
    except UnicodeDecodeError as error:
        raise ValueError(f"data: expected a table in UTF-8, got other bytes in {path.name}; {_UTF8}") from error
    except pa.ArrowException as error:
        raise ValueError(f"data: expected a table, got {path.name}: {str(error).splitlines()[0]}") from error
    if twice := [name for name, n in names.items() if n > 1 and not is_nameless(name)]:
        raise ValueError(f"data: expected distinct columns, got {twice[0]!r} twice in {path.name}")
    if table.num_rows < 2:
        raise ValueError(f"data: expected at least two rows, got {table.num_rows} in {path.name}")
    return table, commas


def is_nameless(name: str) -> bool:
    """Whether a column is one that nobody named: the row numbers that pandas writes, or what a trailing comma makes."""
    return _NAMELESS.fullmatch(name) is not None


def has_commas(text: str) -> bool:
    """Whether a text is a number written with commas, which is 0,5 or 1,000."""
    return _COMMAS.fullmatch(text.strip()) is not None


def check_type(table: pa.Table, name: str, where: str) -> None:
    """Raise ValueError unless a column holds numbers, texts or booleans."""
    kind = table.schema.field(name).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise ValueError(f"data: expected a table in UTF-8, got other bytes in column {name!r}; {_UTF8}")
    if not any(fits(kind) for fits in _PLAIN):
        hint = "; name the inputs without it" if where == "columns.inputs" else ""
        raise ValueError(f"{where}: expected numbers, texts or booleans in column {name!r}, got {kind}{hint}")


def values(table: pa.Table, name: str) -> list[Any]:
    """A column's numbers, texts and booleans; None where one is missing."""
    return [_plain(value) for value in table[name].to_pylist()]


_PLAIN = (
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_boolean,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_null,
)


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    return None if value != value else value  # NaN is not itself


def _read_csv(content: bytes) -> tuple[pa.Table, list[str]]:
    header = content.partition(b"\n")[0]
    delimiter = max(b",", b";", b"\t", key=header.count).decode()
    table, commas = _parsed(content, delimiter, [*_MISSING, *NO_NUMBER]), []
    for i, kind in enumerate(table.schema.types):
        if pa.types.is_string(kind) and delimiter != ",":
            texts = pc.utf8_trim_whitespace(table.column(i))
            texts = pc.if_else(pc.equal(texts, ""), None, texts)
            with_commas = texts.filter(pc.match_substring(texts, ","))
            ambiguous = pc.all(pc.match_substring_regex(with_commas, _THOUSANDS)).as_py()
            if pc.all(pc.match_substring_regex(texts, _DECIMAL_COMMA)).as_py() and not ambiguous:
                name, numbers = table.column_names[i], pc.cast(pc.replace_substring(texts, ",", "."), pa.float64())
                table = table.set_column(i, name, numbers)
                commas.append(name)
    if choices := [i for i, kind in enumerate(table.schema.types) if pa.types.is_string(kind)]:
        again = _parsed(content, delimiter, list(_MISSING))
        for i in choices:
            table = table.set_column(i, table.column_names[i], again.column(i))
    return table, commas


def _parsed(content: bytes, delimiter: str, missing: list[str]) -> pa.Table:
    return csv.read_csv(
        pa.BufferReader(content),
        csv.ReadOptions(use_threads=False),
        csv.ParseOptions(delimiter=delimiter),
        csv.ConvertOptions(null_values=missing, strings_can_be_null=True, quoted_strings_can_be_null=True),
    )
