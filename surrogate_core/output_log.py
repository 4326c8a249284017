"""What workers print, in a file of bounded size: a black box that prints gigabytes fills no disk and no terminal."""

import os
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

MAX_BYTES = 1_000_000


class OutputLog:
    """Appends to a file; what was written before the last `max_bytes` or so is dropped.

    Args:
        path: the file, made when something is written; its predecessor, `path` with `.old`, is replaced now and then.
        max_bytes: at which a new file is begun.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._lock = threading.Lock()

    def follow(self, reader: Connection) -> None:
        """Writes all that comes through a pipe, in a thread of its own, until its other end is closed."""
        threading.Thread(target=self._follow, args=(reader,), daemon=True).start()

    def is_there(self) -> bool:
        """Whether something was written, also at the moment at which a new file is begun."""
        with self._lock:
            return self.path.exists()

    def _follow(self, reader: Connection) -> None:
        with reader:
            while data := os.read(reader.fileno(), 1 << 16):
                with suppress(OSError), self._lock:  # a full disk stops no worker
                    self._write(data)

    def _write(self, data: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size >= self._max_bytes:
            os.replace(self.path, self.path.with_name(self.path.name + ".old"))
        with self.path.open("ab") as file:
            file.write(data)
