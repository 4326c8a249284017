"""Fitted surrogates from Prefect's result store, for library users: a fit is made once, whatever process asks."""

import hashlib
from pathlib import Path

import jax
import numpy as np
from jax import Array
from prefect.results import ResultStore

from surrogate_core.dataset import Dataset
from surrogate_core.surrogates.base import FittedSurrogate, Surrogate
from surrogate_core.surrogates.files import surrogate_files, surrogate_from_files
from tasks.caching import CacheMiss, FilesSerializer, ResultStorage
from tasks.inputs import code_digest
from tasks.keys import MODEL
from tasks.machine import machine
from tasks.records import MAX_BYTES
from tasks.settings import canonical
from tasks.workspace import RESULTS, home_of


def fit_surrogate(
    dataset: Dataset,
    spec: Surrogate,
    key: Array | None = None,
    *,
    folder: str | Path | None = None,
    max_bytes: int = MAX_BYTES,
) -> FittedSurrogate:
    """`spec.fit(dataset, key)`, or, where that has been done before, what came of it, bit for bit.

    Known by the content of the dataset, spec, key, the sources of this package, its libraries' versions and the CPU. It
    needs no Prefect server and no flow; in a task of a flow of your own it is the same.

    Args:
        dataset: to learn.
        spec: of the surrogate.
        key: a `jax.random.key`; without one, `jax.random.key(0)`.
        folder: of the store; by default the result cache of the project in the working folder, `.surrogate/results`.
        max_bytes: of the store, from which the least recently used goes first.

    Raises:
        ValueError: the data does not suit the spec.
    """
    root = Path.cwd()
    key = jax.random.key(0) if key is None else key
    parts = {
        "dataset": dataset.digest,
        "surrogate": spec.to_config(),
        "key": [str(jax.random.key_impl(key)), np.asarray(jax.random.key_data(key)).tolist()],
        "code": code_digest(root),
        "machine": machine(),
    }
    name = f"fit_surrogate-{hashlib.sha256(canonical(parts)).hexdigest()}"
    where = home_of(root) / RESULTS if folder is None else Path(folder)
    storage = ResultStorage(basepath=str(where), max_bytes=max_bytes, outs=(MODEL,))
    store = ResultStore(result_storage=storage, serializer=FilesSerializer(), cache_result_in_memory=False)
    try:
        files = store.read(name).result
    except CacheMiss:
        fitted = spec.fit(dataset, key)
        store.write({f"{MODEL}/{path}": content for path, content in surrogate_files(fitted).items()}, name)
        return fitted
    return surrogate_from_files({path.removeprefix(f"{MODEL}/"): content for path, content in files.items()})
