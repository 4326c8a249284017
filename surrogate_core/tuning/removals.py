"""A count of what has been removed from a set, in memory that all processes share: whether a memory of it still holds.

    n_begun    raised before a removal takes effect
    n_ended    raised to the same after it has

What was seen in the set, after the two were seen to be equal, is still there for as long as `n_begun` stays. A process
that is killed between them leaves them unequal, so that nobody remembers anything until the next removal.
"""

from __future__ import annotations

import mmap
import os

_SIZE = 16  # two integers, each of which is read and written at once


class Removals:
    """The count in a file, which those who remove must hold a lock to begin, and to make the file.

    Args:
        path: of the file.
    """

    def __init__(self, path: str) -> None:
        fd = os.open(path, os.O_RDWR)
        try:
            self._counts = memoryview(mmap.mmap(fd, _SIZE)).cast("Q")
        finally:
            os.close(fd)

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
        return self._counts[0]

    @property
    def n_settled(self) -> int:
        """How many removals there were, all of which have taken effect; -1 where one is under way."""
        n_ended = self._counts[1]  # read first: then those that have begun are no more than had ended
        return n_ended if self._counts[0] == n_ended else -1

    def begin(self) -> int:
        """The number of a removal that is about to take effect."""
        self._counts[0] = number = self._counts[0] + 1
        return number

    def end(self, number: int) -> None:
        """It has taken effect, or never will."""
        self._counts[1] = max(number, self._counts[1])
