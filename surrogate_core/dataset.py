"""Evaluations as a table: points in the problem's units, what came of each, and the space they were drawn from.

X: (n, d); y: (n,), NaN where there is no value. Everything minimizes: y is turned round before it gets here.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from surrogate_core.space import GRADIENT, SearchSpace

SCHEMA = 2
STATUSES = ("ok", "failed", "infeasible", "pending")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows of evaluations; immutable.

    Args:
        X: (n, d) points in the problem's units.
        y: (n,) values to be minimized; NaN where there is none.
        space: the search space; without one, real variables between the least and greatest value of each column.
        status: (n,) "ok", "failed", "infeasible" (measured, but a constraint is not met) or "pending" (proposed and not
            evaluated); by default ok where y is finite, else failed.
        reason: (n,) why a row is not ok, else "".
        gradients: (n, d) measured derivatives of y, NaN where there are none; None where no row has any.
        noise: (n,) standard deviations of y's measurement, NaN where unknown; None where no row's is known.
        metadata: where the rows are from: JSON values, for people.

    Raises:
        ValueError: the shapes do not fit together, or an ok row is not finite.
    """

    X: np.ndarray
    y: np.ndarray
    space: SearchSpace = None  # type: ignore[assignment] # never None once made
    status: np.ndarray = None  # type: ignore[assignment]
    reason: np.ndarray = None  # type: ignore[assignment]
    gradients: np.ndarray | None = None
    noise: np.ndarray | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        X, y = np.array(self.X, dtype=float, ndmin=2), np.array(self.y, dtype=float, ndmin=1)
        if X.ndim != 2 or y.ndim != 1 or len(X) != len(y) or X.shape[1] == 0:
            raise ValueError(f"dataset: expected X of shape (n, d) and y of shape (n,), got {X.shape} and {y.shape}")
        if not np.isfinite(X).all():
            raise ValueError(f"dataset: expected finite X, got {np.count_nonzero(~np.isfinite(X))} values that are not")
        status = np.where(np.isfinite(y), "ok", "failed") if self.status is None else np.array(self.status, dtype=str)
        reason = np.full(len(y), "") if self.reason is None else np.array(self.reason, dtype=str)
        if not (status.shape == reason.shape == y.shape):
            raise ValueError(f"dataset: expected {len(y)} statuses and reasons, got {len(status)} and {len(reason)}")
        if unknown := set(status) - set(STATUSES):
            raise ValueError(f"dataset: expected the status of a row to be one of {STATUSES}, got {sorted(unknown)[0]}")
        if not np.isfinite(y[status == "ok"]).all():
            raise ValueError("dataset: expected a finite y in every ok row, got NaN or infinity")
        if self.space is None and not len(X):
            raise ValueError("dataset: expected a space where there are no rows to take bounds from, got none")
        space = _space_of(X) if self.space is None else self.space
        if space.n_dims != X.shape[1]:
            raise ValueError(f"dataset: expected {space.n_dims} columns as in the space, got {X.shape[1]}")
        measured = (status == "ok") | ((status == "infeasible") & np.isfinite(y))
        gradients, noise = _known(self.gradients, X.shape, "gradients"), _known(self.noise, y.shape, "noise")
        if noise is not None and (noise < 0).any():
            raise ValueError(f"dataset: expected noise >= 0, got {np.nanmin(noise):g}")
        values = {"X": X, "y": np.where(measured, y, np.nan), "space": space, "status": status, "reason": reason}
        values |= {"gradients": gradients, "noise": noise}
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            object.__setattr__(self, name, value)

    @property
    def n_samples(self) -> int:
        return len(self.y)

    @property
    def n_dims(self) -> int:
        return self.X.shape[1]

    @property
    def ok(self) -> "Dataset":
        """The rows that were evaluated."""
        return self if self._are_all_ok else self._ok

    @cached_property
    def _are_all_ok(self) -> bool:
        return bool((self.status == "ok").all())

    @cached_property
    def _ok(self) -> "Dataset":  # never this table itself, which would keep it in memory until a garbage collection
        return self.take(np.flatnonzero(self.status == "ok"))

    @property
    def in_order(self) -> "Dataset":
        """The same rows, sorted by X and y: whatever is drawn from them does not depend on the order they came in."""
        return self.take(np.lexsort((self.y, *self.X.T[::-1])))

    @property
    def best_index(self) -> int:
        """Row of the least value.

        Raises:
            ValueError: no row is ok.
        """
        if not (self.status == "ok").any():
            raise ValueError("dataset: expected at least one ok row, got none")
        return int(np.argmin(np.where(self.status == "ok", self.y, np.inf)))

    def take(self, rows: Sequence[int] | np.ndarray) -> "Dataset":
        """The given rows, in the given order."""
        parts: dict[str, Any] = {name: getattr(self, name)[rows] for name in _COLUMNS}
        parts |= {name: given[rows] for name in _OPTIONAL if (given := getattr(self, name)) is not None}
        return Dataset(space=self.space, metadata=self.metadata, **parts)

    def append(self, other: "Dataset") -> "Dataset":
        """These rows, then the other's; the metadata is that of these.

        Raises:
            ValueError: the spaces differ.
        """
        if other.space != self.space:
            raise ValueError(f"dataset: expected rows of the same space {self.space}, got {other.space}")
        together = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in _COLUMNS}
        for name, of in _OPTIONAL.items():
            parts = [getattr(one, name) for one in (self, other)]
            if any(part is not None for part in parts):
                blank = [np.full_like(getattr(one, of), np.nan) for one in (self, other)]
                filled = [b if part is None else part for part, b in zip(parts, blank, strict=True)]
                together[name] = np.concatenate(filled)
        return Dataset(space=self.space, metadata=self.metadata, **together)

    @cached_property
    def digest(self) -> str:
        """sha256 of the content, whatever file it came from."""
        optional = {name: given for name in _OPTIONAL if (given := getattr(self, name)) is not None}
        text = {"space": self.space.to_config(), "status": self.status.tolist(), "reason": self.reason.tolist()}
        header = [SCHEMA, text, self.X.shape, list(optional), dict(self.metadata)]
        content = hashlib.sha256(orjson.dumps(header, option=orjson.OPT_SORT_KEYS))
        for array in (self.X, self.y, *optional.values()):
            content.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return content.hexdigest()

    def to_table(self) -> pa.Table:
        """The columns as they are written."""
        columns: dict[str, Any] = {name: self.X[:, i] for i, name in enumerate(self.space.names)}
        columns |= {"objective": pa.array(self.y, from_pandas=True), "status": self.status, "reason": self.reason}
        if self.noise is not None:
            columns["noise"] = pa.array(self.noise, from_pandas=True)
        if self.gradients is not None:
            for i, name in enumerate(self.space.names):
                columns[GRADIENT + name] = pa.array(self.gradients[:, i], from_pandas=True)
        return pa.table(columns)

    def about(self, **more: Any) -> dict[str, bytes]:
        """What is written beside the columns, and by what they are known as a dataset."""
        about = {"schema": SCHEMA, "space": self.space.to_config(), "metadata": dict(self.metadata), **more}
        return {"surrogate": orjson.dumps(about, option=orjson.OPT_SORT_KEYS)}

    def to_bytes(self) -> bytes:
        """The table as parquet; equal content gives equal bytes."""
        sink = io.BytesIO()
        pq.write_table(self.to_table().replace_schema_metadata(self.about(digest=self.digest)), sink)
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Dataset":
        """The inverse of `to_bytes`.

        Raises:
            ValueError: not a parquet file, or not one of ours.
        """
        try:
            # Not read_table: its threads now and then abort a process that ends right after.
            table = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False).read(use_threads=False)
            about = orjson.loads((table.schema.metadata or {})[b"surrogate"])
            space = SearchSpace.from_config(about["space"])
            values = values_of(table, space, "objective")
            status, reason = table["status"].to_pylist(), table["reason"].to_pylist()
        except (pa.ArrowException, OSError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"dataset: expected a parquet table written by this project, got {error}") from error
        if about.get("schema") != SCHEMA:
            raise ValueError(f"dataset: expected a table of schema {SCHEMA}, got {about.get('schema')!r}")
        texts = {"status": np.array(status, dtype=str), "reason": np.array(reason, dtype=str)}
        made = cls(**values, **texts, space=space, metadata=about.get("metadata", {}))
        if about.get("digest", made.digest) != made.digest:  # what was streamed has none
            raise ValueError("dataset: expected the content that was written, got a table whose digest does not agree")
        return made


def values_of(table: pa.Table, space: SearchSpace, target: str) -> dict[str, Any]:
    """X, y, and gradients and noise as far as they are there, of a table whose columns have the names of `to_bytes`.

    Args:
        table: of the rows.
        space: names the columns of X.
        target: the column of y.

    Raises:
        ValueError: there is no such column, or it does not hold numbers.
    """

    def numbers(name: str) -> np.ndarray:
        if name not in table.column_names:
            raise ValueError(f"{name}: expected a column of numbers, got none")
        try:
            return np.asarray(table[name].to_numpy().astype(float))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: expected a column of numbers, got {table[name].type}: {error}") from error

    values = {"X": np.column_stack([numbers(name) for name in space.names]), "y": numbers(target)}
    known, unknown = set(table.column_names), np.full(table.num_rows, np.nan)
    derivatives = [GRADIENT + name for name in space.names]
    if known & set(derivatives):
        values["gradients"] = np.column_stack([numbers(name) if name in known else unknown for name in derivatives])
    if "noise" in known:
        values["noise"] = numbers("noise")
    return values


_COLUMNS = ("X", "y", "status", "reason")
_OPTIONAL = {"gradients": "X", "noise": "y"}  # and what each has the shape of


def _known(given: Any, shape: tuple[int, ...], name: str) -> np.ndarray | None:
    """An optional array, None where nothing in it is known."""
    if given is None:
        return None
    array = np.array(given, dtype=float)
    if array.shape != shape:
        raise ValueError(f"dataset: expected {name} of shape {shape}, got {array.shape}")
    if np.isinf(array).any():
        raise ValueError(f"dataset: expected finite {name}, got infinity")
    return None if np.isnan(array).all() else array


def _space_of(X: np.ndarray) -> SearchSpace:
    low, high = X.min(axis=0), X.max(axis=0)
    # A constant column has no width of its own.
    return SearchSpace.from_bounds([(a, b if b > a else a + 1.0) for a, b in zip(low, high, strict=True)])
