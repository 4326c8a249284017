"""Training of a neural network on a parquet file larger than memory: a chunk of rows at a time, in random order.

A first pass counts the rows and draws some of them, which tell the output's transform, are held out, and stand for the
data afterwards. In each epoch row groups are read in a new order, several side by side, so that rows of one chunk come
from all over the file; only a file of one sorted row group is not mixed.

Notation: n: ok rows; V: rows held out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from jax import Array

from surrogate_core.dataset import Dataset, values_of
from surrogate_core.precision import float64
from surrogate_core.space import GRADIENT, SearchSpace
from surrogate_core.surrogates.base import FittedSurrogate
from surrogate_core.surrogates.network import begun, best_weights, initial_weights
from surrogate_core.surrogates.neural_network import COMMON, MOST_HELD, NeuralSurrogate, prepared
from surrogate_core.surrogates.support import BEST_ROWS, MOST_ROWS, bucket
from surrogate_core.surrogates.training import Training, training

SIDE_BY_SIDE = 8  # row groups, at most, that a chunk's rows come from
READING = 2.0  # MB that reading a column of a row group takes: a page and a dictionary, as large as writers make them
BUFFER = 2**16  # bytes of each column that are read at once
USED = 0.85  # of the memory budget, which estimates keep
LEAST_CHUNK, MOST_CHUNK = 1024, 2**17
MOST_MEMORY = 2**20  # MiB that more than which makes no difference
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class ParquetRows:
    """The rows of a parquet file, of which few are in memory.

    Args:
        path: of the file.
        space: of its columns; by default that which a file of `Dataset.to_bytes` tells.
        target: the column of the outputs; one named `status`, if there is one, tells which rows are ok.
    """

    path: Path
    space: SearchSpace
    target: str

    @classmethod
    def of(cls, path: str | Path, space: SearchSpace | None, target: str) -> "ParquetRows":
        """Looks at a file.

        Raises:
            ValueError: it is no parquet file, or has not all columns.
        """
        try:
            file = pq.ParquetFile(path)
            about = (file.schema_arrow.metadata or {}).get(b"surrogate")
            if space is None:
                if about is None:
                    raise ValueError(f"space: expected one for {path}, whose columns tell none")
                space = SearchSpace.from_config(orjson.loads(about)["space"])
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"path: expected a parquet file, got {path}: {error}") from error
        names = file.schema_arrow.names
        if missing := [name for name in (*space.names, target) if name not in names]:
            raise ValueError(f"path: expected the columns {', '.join(missing)} in {path}, got none")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"path: expected each column once in {path}, got {', '.join(twice)} several times")
        return cls(Path(path), space, target)

    @property
    def n_rows(self) -> int:
        return int(pq.read_metadata(self.path).num_rows)

    @property
    def tells_derivatives(self) -> bool:
        return any(name.startswith(GRADIENT) for name in pq.read_schema(self.path).names)

    def chunks(
        self, size: int, side_by_side: int, rng: np.random.Generator | None = None
    ) -> Iterator[tuple[np.ndarray, Dataset]]:
        """Numbers of rows in the file and the rows, up to so many at a time, read from so many row groups side by side.

        With a generator, row groups are in random order.
        """
        file = pq.ParquetFile(self.path)
        first = np.cumsum([0, *(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))])
        order = np.arange(file.num_row_groups)
        if rng is not None:
            rng.shuffle(order)
        at_once = size // max(1, min(side_by_side, len(order)))
        waiting = [self._rows(int(i), int(first[i]), at_once) for i in order]
        read: list[tuple[np.ndarray, pa.Table]] = []
        while waiting:
            streams, waiting = waiting[:side_by_side], waiting[side_by_side:]
            for stream in list(streams):
                part = next(stream, None)
                if part is None:
                    streams.remove(stream)
                    continue
                if sum(len(numbers) for numbers, _ in [*read, part]) > size:
                    yield self._joined(read)
                    read = []
                read.append(part)
            waiting = streams + waiting
        if read:
            yield self._joined(read)

    def _rows(self, group: int, first: int, size: int) -> Iterator[tuple[np.ndarray, pa.Table]]:
        file = pq.ParquetFile(self.path, buffer_size=BUFFER, pre_buffer=False)
        known, derivatives = file.schema_arrow.names, [GRADIENT + name for name in self.space.names]
        columns = [*self.space.names, self.target]
        columns += [name for name in ("status", "noise", *derivatives) if name in known]
        for batch in file.iter_batches(size, row_groups=[group], columns=columns, use_threads=False):
            yield np.arange(first, first + batch.num_rows), pa.Table.from_batches([batch])
            first += batch.num_rows

    def _joined(self, read: list[tuple[np.ndarray, pa.Table]]) -> tuple[np.ndarray, Dataset]:
        numbers, tables = zip(*read, strict=True)
        table = pa.concat_tables(tables)
        made = Dataset(**values_of(table, self.space, self.target), space=self.space)
        if "status" in table.column_names:
            made = replace(made, status=np.array(table["status"].to_pylist(), dtype=str))
        return np.concatenate(numbers), made


@float64
def fit_parquet(
    spec: NeuralSurrogate,
    path: str | Path,
    memory_budget_mb: float,
    space: SearchSpace | None,
    target: str,
    key: Array | None,
    progress: Progress | None,
) -> FittedSurrogate:
    """`NeuralSurrogate.fit_parquet`."""
    key = jax.random.key(0) if key is None else key
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    rows = ParquetRows.of(path, space, target)
    size, side_by_side = _chunk(spec, rows.space.n_dims, memory_budget_mb)
    n, numbers, drawn, best = _drawn(rows, size, side_by_side, rng)
    if n < COMMON:
        raise ValueError(f"path: expected {COMMON} ok rows or more in {path}, got {n}; fit takes as few")
    V = min(n // 10, MOST_HELD)
    sample = drawn.take(np.arange(V, drawn.n_samples)).append(best)
    known = training(sample, spec.transform)
    held_out = training(drawn.take(np.arange(V)), spec.transform, known.output)

    n_choices, N = rows.space.n_choices, bucket(size + V)
    weights = initial_weights(known.F.shape[1], spec.hidden_layers, spec.ensemble_size, rng)
    is_flat = not known.z.any()  # nothing to learn: exactly the one value there is
    learner = begun(spec.hidden_layers, np.zeros_like(weights) if is_flat else weights, known.F.shape[1])
    n_epochs = spec.epochs(n)
    rates = spec.rates(-(-n_epochs * n // size))
    patience = None if spec.patience is None else spec.patience * -(-n // size)
    seen, epoch, losses = 0, -1, np.full(spec.ensemble_size, np.nan)
    for epoch in range(0 if is_flat else n_epochs):
        for number, (at, chunk) in enumerate(rows.chunks(size, side_by_side, rng)):
            chunk = chunk.take(~np.isin(at, numbers[:V])).ok
            if not chunk.n_samples:
                continue
            learned, held = _beside(training(chunk, spec.transform, known.output), held_out, spec.ensemble_size)
            step = jax.random.fold_in(jax.random.fold_in(key, epoch), number)
            rate = rates[min(seen // size, len(rates) - 1), None]
            learner, loss = spec.trained(learner, prepared(learned, n_choices, held, N), step, rate, patience)
            seen += chunk.n_samples
            losses = np.fmin(losses, loss[-1])
            if progress is not None:
                progress(seen, n_epochs * (n - V), float(np.sqrt(losses.mean())))
        if not np.isfinite(loss).any():  # every member has ended
            break
    judged, held = _beside(known, held_out, spec.ensemble_size)
    diagnostics = {
        "n_rows": n,
        "chunk_rows": size,
        "epochs": epoch + 1,
        "held_out_loss": np.sqrt(losses).tolist(),
        "fallbacks": list(known.told),
    }
    return spec.judged(rows.space, judged, held, best_weights(learner), rng, diagnostics)


def _chunk(spec: NeuralSurrogate, d: int, memory_budget_mb: float) -> tuple[int, int]:
    """Rows of a chunk and the row groups they come from: for what the budget leaves beside the training of a few."""
    fixed, stream = spec.estimate(MOST_ROWS + MOST_HELD, d).memory_mb, READING * (d + 1)
    row = 8 * (45 * d + 10 * spec.ensemble_size + 100) / 2**20  # with the copies that sorting and merging makes
    least = (fixed + stream + LEAST_CHUNK * row) / USED
    if not isinstance(memory_budget_mb, int | float) or not memory_budget_mb >= least:
        raise ValueError(f"memory_budget_mb: expected a number of {least:.0f} or more, got {memory_budget_mb!r}")
    spare = USED * min(memory_budget_mb, MOST_MEMORY) - fixed
    side_by_side = int(np.clip(spare / 2 / stream, 1, SIDE_BY_SIDE))
    return int(min((spare - side_by_side * stream) / row, MOST_CHUNK)), side_by_side


def _drawn(
    rows: ParquetRows, size: int, side_by_side: int, rng: np.random.Generator
) -> tuple[int, np.ndarray, Dataset, Dataset]:
    """How many rows are ok; some of them at random, their numbers first; and those of the others that are best."""
    n, keys = 0, np.empty(0)
    drawn, best = _Numbered.none(rows.space), _Numbered.none(rows.space)
    for numbers, chunk in rows.chunks(size, side_by_side):
        new = _Numbered(numbers[chunk.status == "ok"], chunk.ok)
        n += len(new.numbers)
        keys = np.append(keys, rng.random(len(new.numbers)))
        kept = np.argsort(keys)[: MOST_ROWS + MOST_HELD]
        drawn, keys = drawn.append(new).take(kept), keys[kept]
        best = best.append(new)
        best = best.take(np.argsort(best.rows.y, kind="stable")[:BEST_ROWS])
    return n, drawn.numbers, drawn.rows, best.take(~np.isin(best.numbers, drawn.numbers)).rows


class _Numbered(NamedTuple):
    """Rows and their numbers in the file."""

    numbers: np.ndarray
    rows: Dataset

    @classmethod
    def none(cls, space: SearchSpace) -> "_Numbered":
        return cls(np.empty(0, dtype=int), Dataset(np.empty((0, space.n_dims)), np.empty(0), space))

    def append(self, other: "_Numbered") -> "_Numbered":
        return _Numbered(np.append(self.numbers, other.numbers), self.rows.append(other.rows))

    def take(self, rows: np.ndarray) -> "_Numbered":
        return _Numbered(self.numbers[rows], self.rows.take(rows))


def _beside(learned: Training, held_out: Training, n_members: int) -> tuple[Training, np.ndarray]:
    """Both together, and which of them every member holds out, (E, n)."""

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(one, name) for one in (learned, held_out)])

    slopes = None
    if learned.slopes is not None or held_out.slopes is not None:
        both = [np.full_like(one.U, np.nan) if one.slopes is None else one.slopes for one in (learned, held_out)]
        slopes = np.concatenate(both)
    both_parts = replace(
        learned,
        U=joined("U"),
        z=joined("z"),
        count=joined("count"),
        known=joined("known"),
        F=joined("F"),
        slopes=slopes,
    )
    return both_parts, np.tile(np.arange(len(both_parts.z)) >= len(learned.z), (n_members, 1))
