"""A pool of the threads of a Dask cluster: one that is there, by its scheduler's address, or one on this machine."""

from __future__ import annotations

import asyncio
import logging
import math
import multiprocessing
import os
import pickle
import sys
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from surrogate_core.output_log import OutputLog
from surrogate_core.process_pool import ProcessPool
from surrogate_core.worker import Outcome, attempt, call_many, failure
from surrogate_core.worker_pool import START_SECONDS, WorkerPool, pickled

if TYPE_CHECKING:
    from distributed import Client, Future

ANSWER_SECONDS = 30.0
"""In which a scheduler answers, and a stopped worker is back."""
LOOK_SECONDS = 0.5
"""Between two looks at which workers are there."""


class ClusterNotFound(ConnectionError):
    """There is no Dask scheduler at the address, or it has no workers."""

    def __init__(self, address: str | None, error: Exception | str) -> None:
        why = str(error) or "no answer"
        super().__init__(f"address: expected a Dask scheduler that answers and has workers, got {address!r} ({why})")


class DaskPool(WorkerPool["DaskThread"]):
    """Calls by Dask's workers, each of which is handed a call when it has a thread free for it.

    Which worker makes a call is decided here, not by the scheduler: that would make a call whose worker has died again,
    up to three times, so that nobody knew how often an expensive function was called.

    Args:
        function: what it imports must be there for the workers, and so must this package.
        n_workers: how many calls at a time; None for as many as the cluster has threads.
        address: of the scheduler; None for a cluster that ends with the pool, of `n_workers` processes here.
        timeout: seconds after which a call is given up; its worker is restarted, or, without a nanny, asked no more.
        output: where a cluster on this machine prints; None for this process's standard error.
    """

    patience = 25.0  # its messages take some 8 ms a chunk

    def __init__(
        self,
        function: Callable[[Any], Any],
        n_workers: int | None,
        address: str | None,
        timeout: float | None,
        output: OutputLog | None,
    ) -> None:
        super().__init__(pickled(function), timeout)
        self._most = n_workers or math.inf
        self._address = address
        self._cluster = None if address else ProcessPool(_cluster_of, 1, None, output)
        self._name = uuid4().hex
        self._client: Client | None = None
        self._spoken: SimpleQueue[DaskThread] = SimpleQueue()
        self._n_threads: dict[str, int] = {}
        self._looked = self._seen = -math.inf
        self._dismissed: set[str] = set()

    def _hire(self, n: int) -> None:
        client = self._connected()
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._look(client)
        for address, n_threads in self._n_threads.items():
            n_known = sum(worker.address == address for worker in self._workers)
            for _ in range(n_known, n_threads):
                if len(self._workers) < min(self._most, n):
                    worker = DaskThread(client, address, self._name, self._spoken.put, self._start_deadline)
                    worker.fetch(self._pickled)
                    self._workers.append(worker)

    def _connected(self) -> Client:
        from distributed import Client

        if self._client is None:
            if self._cluster is not None:
                started = self._cluster.run([self._most])[0]
                if started.status != "ok":
                    raise ClusterNotFound(None, started.reason)
                self._address = started.value
            try:
                with ThreadPoolExecutor(1) as thread:  # here, an event loop may be running
                    thread.submit(asyncio.run, _greet(self._address)).result()
                self._client = Client(self._address, timeout=ANSWER_SECONDS, set_as_default=False)
            except (OSError, ValueError) as error:
                raise ClusterNotFound(self._address, error) from error
            self._seen = time.monotonic()
        return self._client

    def _look(self, client: Client) -> None:
        """See which workers are there."""
        try:
            found = client.nthreads()
        except OSError as error:
            raise ClusterNotFound(self._address, error) from error
        self._n_threads = {address: n for address, n in found.items() if address not in self._dismissed}
        self._looked = time.monotonic()
        if self._n_threads:
            self._seen = self._looked
        elif self._looked - self._seen > START_SECONDS:
            raise ClusterNotFound(self._address, f"no worker for {START_SECONDS:g} s")
        for worker in self._workers:
            if worker.address not in found:
                worker.is_gone = True
                self._spoken.put(worker)

    def _answering(self, seconds: float) -> Collection[DaskThread]:
        spoken: set[DaskThread] = set()
        with suppress(Empty):
            spoken.add(self._spoken.get(timeout=min(seconds, LOOK_SECONDS)))
            while True:
                spoken.add(self._spoken.get_nowait())
        if not self._is_connected:
            raise ClusterNotFound(self._address, "it has ended")
        return spoken

    @property
    def _is_connected(self) -> bool:
        return self._client is not None and self._client.status == "running"

    def _stop(self, workers: Sequence[DaskThread]) -> None:
        addresses, restarted = {worker.address for worker in workers}, list[str]()
        client = self._connected()
        with suppress(OSError, KeyError):  # those that are gone by now
            known = client.scheduler_info(n_workers=-1)["workers"]
            restarted = [address for address in addresses if address in known and known[address]["nanny"]]
            self._dismissed |= addresses.difference(restarted)
            client.restart_workers(restarted, timeout=ANSWER_SECONDS, raise_for_error=False)
        self._looked = -math.inf
        for worker in self._workers:
            if worker.address in restarted and worker not in workers:
                worker.is_gone = worker.is_blameless = True
                self._spoken.put(worker)

    def _abandon(self, workers: Sequence[DaskThread]) -> None:
        if self._cluster is not None:
            self.close()
        elif self._is_connected:
            self._stop(workers)

    def close(self) -> None:
        is_connected, client, self._client = self._is_connected, self._client, None
        if client is not None:
            if is_connected:
                client.run(_forget, self._name, on_error="ignore")
            client.close()
            if self._cluster is not None:
                self._cluster.run([None])
                self._cluster.close()
            self._workers, self._n_threads, self._looked = [], {}, -math.inf


async def _greet(address: str | None) -> None:
    """Raise OSError unless a scheduler answers; a client waits for ever for what does not, such as its dashboard."""
    from distributed.comm import connect

    comm = await asyncio.wait_for(connect(address, timeout=ANSWER_SECONDS), ANSWER_SECONDS + 1)
    await comm.close()


class DaskThread:
    """A thread of one of Dask's workers, which makes one call at a time."""

    was_killed = False

    def __init__(
        self, client: Client, address: str, name: str, speak: Callable[[DaskThread], None], deadline: float
    ) -> None:
        self.address = address
        self.is_ready = self.is_gone = self.is_blameless = False
        self.task: Sequence[int] | None = None
        self.deadline = deadline
        self._client, self._name, self._speak = client, name, speak
        self._future: Future | None = None

    @property
    def is_idle(self) -> bool:
        return self.is_ready and self.task is None

    def fetch(self, pickled: bytes) -> None:
        self._submit(_fetch, pickled)

    def hand_over(self, numbers: Sequence[int], payload: bytes, deadline: float) -> None:
        self.task, self.deadline = numbers, deadline
        self._submit(_answer, payload)

    def _submit(self, function: Callable[[str, bytes], Outcome], payload: bytes) -> None:
        self._future = self._client.submit(function, self._name, payload, workers=[self.address], pure=False)
        self._future.add_done_callback(lambda _: self._speak(self))

    def receive(self) -> Outcome | None:
        """What the future has, or what became of the worker."""
        future, self._future = self._future, None
        outcome = Outcome(None, "died", "worker died: its Dask cluster has lost it")
        if future is not None and future.status in ("finished", "error"):
            try:
                outcome = future.result(timeout=ANSWER_SECONDS)
            except OSError:  # what it has said is lost with it; TimeoutError is one
                pass
            except Exception as error:  # noqa: BLE001 - such as that it has no such package
                return failure(error)
        elif self.is_blameless:
            return None
        if self.is_ready and outcome.status == "ok":
            return attempt(pickle.loads, outcome.value)
        return outcome


# What is done in other processes

_functions: dict[str, Callable[[Any], Any]] = {}


_cluster: Any = None


def _cluster_of(n_workers: int | None) -> str | None:
    """Start a cluster of so many processes, and tell its address; of None, end it."""
    from distributed import LocalCluster

    global _cluster
    if n_workers is None:
        for process in multiprocessing.active_children():
            process.kill()  # it would wait for calls under way
        logging.disable()  # Dask tells of each connection that is lost so
        _cluster.close()
        return None
    _cluster = LocalCluster(
        n_workers=n_workers,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        memory_limit=0,  # none: it would stop a worker that uses more than its share of the machine
        silence_logs=logging.ERROR,
    )
    return str(_cluster.scheduler_address)


def _fetch(name: str, pickled: bytes) -> Outcome:
    """Keep a function for calls of it."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    outcome = attempt(pickle.loads, pickled)
    _functions[name] = outcome.value
    return replace(outcome, value=None)


def _answer(name: str, payload: bytes) -> Outcome:
    if name not in _functions:
        return Outcome(None, "died", "worker died: its Dask cluster has started another in its place")
    return attempt(lambda payload: pickle.dumps(call_many(_functions[name], pickle.loads(payload))), payload)


def _forget(name: str) -> None:
    _functions.pop(name, None)
