"""A pool of spawned processes: never forked, for a fork hangs once JAX has started."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from multiprocessing.connection import wait
from typing import Any

from surrogate_core.output_log import OutputLog
from surrogate_core.worker import GRACE, WorkerProcess
from surrogate_core.worker_pool import WorkerPool, pickled


class ProcessPool(WorkerPool[WorkerProcess]):
    def __init__(
        self, function: Callable[[Any], Any], n_workers: int, timeout: float | None, output: OutputLog | None
    ) -> None:
        super().__init__(pickled(function), timeout)
        self._n_workers = n_workers
        self._output = output

    def _hire(self, n: int) -> None:
        while len(self._workers) < min(self._n_workers, n):
            self._workers.append(WorkerProcess(self._pickled, self._output, self._start_deadline))

    def _answering(self, seconds: float) -> Collection[WorkerProcess]:
        answering = wait([worker.connection for worker in self._workers], seconds)
        return [worker for worker in self._workers if worker.connection in answering]

    def _stop(self, workers: Sequence[WorkerProcess]) -> None:
        for worker in workers:
            worker.kill()

    def close(self) -> None:
        for worker in self._workers:
            worker.connection.close()  # at which an idle worker ends
        deadline = time.monotonic() + GRACE
        for worker in self._workers:
            if worker.is_idle:
                worker.let_end(deadline - time.monotonic())
            worker.kill()
