"""A count of what has changed in a set, in memory that all processes share: whether what was read of it still holds.

    n_begun    raised before a change takes effect, by who holds the lock under which the set is changed
    n_ended    raised to the same once it has, or once it is sure that it never will

What is read of the set, after `n_ended` was, holds all of so many changes; it is the set as it is for as long as
`n_begun` is no more than that. A process that is killed between a beginning and its end leaves the two unequal, so that
nobody trusts what was read before until the next change has ended.
"""

from __future__ import annotations

import mmap
import os

_SIZE = 16  # two integers, each of which is read and written at once


class Changes:
    """The count in a file, and the changes of one thread of a process.

    Args:
        path: of the file.

    Attributes:
        counts: `n_begun` and `n_ended`.
    """

    def __init__(self, path: str) -> None:
        fd = os.open(path, os.O_RDWR)
        try:
            self.counts = memoryview(mmap.mmap(fd, _SIZE)).cast("Q")
        finally:
            os.close(fd)
        self._last = 0  # of our own

    @staticmethod
    def are_at(path: str) -> bool:
        try:
            return os.stat(path).st_size >= _SIZE
        except FileNotFoundError:
            return False

    @staticmethod
    def begin_at(path: str) -> None:
        """Makes the file, unless another has; written, as a page without room on the disk is deadly to who maps it."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if os.fstat(fd).st_size < _SIZE:
                os.write(fd, bytes(_SIZE))
        finally:
            os.close(fd)

    @property
    def n_begun(self) -> int:
        return self.counts[0]

    @property
    def n_ended(self) -> int:
        return self.counts[1]

    def begin(self) -> int:
        """The number of a change that is about to take effect, which is true to SQL: an integer, and not 0."""
        counts = self.counts  # of which the second is the greater one, or any beyond such integers, if damaged
        counts[0] = self._last = max(counts) % (2**63 - 1) + 1
        return self._last

    def end(self) -> None:
        """What we began has taken effect, or never will; so has, then, all that others began before."""
        if self.counts[1] < self._last:
            self.counts[1] = self._last
