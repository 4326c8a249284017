"""Evaluations as a table: points in the problem's units, what came of each, and the space they were drawn from.

X: (n, d); y: (n,), NaN where an evaluation failed. Everything minimizes: y is turned round before it gets here.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from surrogate_core.space import SearchSpace

SCHEMA = 1
STATUSES = ("ok", "failed")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows of evaluations; immutable.

    Args:
        X: (n, d) points in the problem's units.
        y: (n,) values to be minimized; NaN where the status is not ok.
        space: the search space; without one, real variables between the least and greatest value of each column.
        status: (n,) "ok" or "failed"; by default ok where y is finite.
        reason: (n,) why a row failed, else "".

    Raises:
        ValueError: the shapes do not fit together, or an ok row is not finite.
    """

    X: np.ndarray
    y: np.ndarray
    space: SearchSpace = None  # type: ignore[assignment] # never None once made
    status: np.ndarray = None  # type: ignore[assignment]
    reason: np.ndarray = None  # type: ignore[assignment]

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
        values = {"X": X, "y": np.where(status == "ok", y, np.nan), "space": space, "status": status, "reason": reason}
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

    @cached_property
    def ok(self) -> "Dataset":
        """The rows that were evaluated."""
        return self if (self.status == "ok").all() else self.take(np.flatnonzero(self.status == "ok"))

    @property
    def best_index(self) -> int:
        """Row of the least value.

        Raises:
            ValueError: no row is ok.
        """
        if not (self.status == "ok").any():
            raise ValueError("dataset: expected at least one ok row, got none")
        return int(np.nanargmin(self.y))

    def take(self, rows: Sequence[int] | np.ndarray) -> "Dataset":
        """The given rows, in the given order."""
        return Dataset(self.X[rows], self.y[rows], self.space, self.status[rows], self.reason[rows])

    def append(self, other: "Dataset") -> "Dataset":
        """These rows, then the other's.

        Raises:
            ValueError: the spaces differ.
        """
        if other.space != self.space:
            raise ValueError(f"dataset: expected rows of the same space {self.space}, got {other.space}")
        together = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in _COLUMNS}
        return Dataset(space=self.space, **together)

    @cached_property
    def digest(self) -> str:
        """sha256 of the content, whatever file it came from."""
        space = list(self.space.to_config().items())  # in order: it is that of the columns
        text = {"space": space, "status": self.status.tolist(), "reason": self.reason.tolist()}
        content = hashlib.sha256(orjson.dumps([SCHEMA, text, self.X.shape], option=orjson.OPT_SORT_KEYS))
        for array in (self.X, self.y):
            content.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return content.hexdigest()

    def to_bytes(self) -> bytes:
        """The table as parquet; equal content gives equal bytes."""
        columns: dict[str, Any] = {name: self.X[:, i] for i, name in enumerate(self.space.names)}
        columns |= {"objective": pa.array(self.y, from_pandas=True), "status": self.status, "reason": self.reason}
        about = {"schema": SCHEMA, "space": self.space.to_config(), "digest": self.digest}
        metadata = {"surrogate": orjson.dumps(about)}
        sink = io.BytesIO()
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), sink)
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
            X = np.column_stack([table[name].to_numpy() for name in space.names])
            y = table["objective"].to_numpy()
            status, reason = table["status"].to_pylist(), table["reason"].to_pylist()
        except (pa.ArrowException, OSError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"dataset: expected a parquet table written by this project, got {error}") from error
        if about.get("schema") != SCHEMA:
            raise ValueError(f"dataset: expected a table of schema {SCHEMA}, got {about.get('schema')!r}")
        made = cls(X, y, space, np.array(status, dtype=str), np.array(reason, dtype=str))
        if about.get("digest") != made.digest:
            raise ValueError("dataset: expected the content that was written, got a table whose digest does not agree")
        return made


_COLUMNS = ("X", "y", "status", "reason")


def _space_of(X: np.ndarray) -> SearchSpace:
    low, high = X.min(axis=0), X.max(axis=0)
    # A constant column has no width of its own.
    return SearchSpace.from_bounds([(a, b if b > a else a + 1.0) for a, b in zip(low, high, strict=True)])
