"""Predictions that are remembered: values of functions of points, in memory, bounded, safe among threads."""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Literal, get_args

import numpy as np

CacheType = Literal["lru", "lfu", "ttl"]


class SurrogateCache:
    """Values by point and operation.

    A value is known by the bytes of the point, its type and shape, the operation and the model: a point that differs in
    its last bit is another one, unless points are rounded.

    Args:
        max_size: entries that are kept.
        policy: which entry goes when there are more: `lru` the one that was not asked for longest; `lfu` the one that
            was asked for least, where what was asked for long ago counts less and less (LFU with dynamic ageing:
            Arlitt et al. 2000, Performance Evaluation Review 27(4), 3); `ttl` the oldest, and none lives longer than
            `ttl`.
        ttl: seconds that an entry lives, with policy `ttl`.
        decimals: points are rounded to so many; None for not at all.
        model: what tells the values of one model from those of another, such as a digest of it.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> cache = SurrogateCache(max_size=2)
        >>> cache.set(np.array([1.0, 2.0]), "predict", 3.0)
        >>> cache.get(np.array([1.0, 2.0]), "predict"), cache.get(np.array([1.0, 2.5]), "predict")
        (3.0, None)
        >>> cache.statistics["hits"], cache.statistics["misses"]
        (1, 1)
    """

    def __init__(
        self,
        max_size: int = 1000,
        policy: CacheType = "lru",
        *,
        ttl: float = 3600.0,
        decimals: int | None = None,
        model: Hashable = None,
    ):
        if not isinstance(max_size, int) or isinstance(max_size, bool) or max_size < 1:
            raise ValueError(f"max_size: expected an integer >= 1, got {max_size!r}")
        if policy not in get_args(CacheType):
            known = ", ".join(map(repr, get_args(CacheType)))
            raise ValueError(f"policy: expected one of {known}, got {policy!r}")
        if not ttl > 0:
            raise ValueError(f"ttl: expected a number of seconds > 0, got {ttl!r}")
        if decimals is not None and (not isinstance(decimals, int) or isinstance(decimals, bool)):
            raise ValueError(f"decimals: expected None or an integer, got {decimals!r}")
        self.max_size = max_size
        self.policy = policy
        self.ttl = ttl
        self.decimals = decimals
        self.model = model
        self._entries = _entries(policy, max_size, ttl)
        self._hits = self._misses = self._evictions = 0
        self._lock = threading.Lock()

    def get(self, x: Any, operation: str) -> Any:
        """What was set for a point and an operation; None where that is not known."""
        return self.get_key(self.key(x, operation))

    def set(self, x: Any, operation: str, value: Any) -> None:
        """Remembers a value; of an array a copy that nobody can write to."""
        self.set_key(self.key(x, operation), value)

    def key(self, x: Any, operation: str) -> Hashable:
        """What a value is known by."""
        x = np.asarray(x)
        if self.decimals is not None:
            x = np.round(x, self.decimals) + 0.0  # -0.0 is 0.0
        return self.model, operation, x.dtype.char, x.shape, x.tobytes()

    def get_key(self, key: Hashable) -> Any:
        """As `get`, for whoever has made the key already."""
        with self._lock:
            value = self._entries.get(key)
            if value is None:
                self._misses += 1
            else:
                self._hits += 1
            return value

    def set_key(self, key: Hashable, value: Any) -> None:
        """As `set`, for whoever has made the key already."""
        if isinstance(value, np.ndarray):
            value = value.copy()
            value.flags.writeable = False
        with self._lock:
            self._evictions += self._entries.set(key, value)

    def clear(self) -> None:
        """Forgets all values; the statistics go on."""
        with self._lock:
            self._entries = _entries(self.policy, self.max_size, self.ttl)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def statistics(self) -> dict[str, Any]:
        """`hits`, `misses`, `hit_rate`, `evictions`, `size` and `max_size`."""
        with self._lock:
            asked = self._hits + self._misses
            return {
                "hits": self._hits,
                "misses": self._misses,
                "hit_rate": self._hits / asked if asked else 0.0,
                "evictions": self._evictions,
                "size": len(self._entries),
                "max_size": self.max_size,
            }


class _Entries(ABC):
    """Values by key, of which the least valuable goes when there are more than `max_size`."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size

    @abstractmethod
    def get(self, key: Hashable) -> Any: ...

    @abstractmethod
    def set(self, key: Hashable, value: Any) -> int:
        """Returns how many others went."""

    @abstractmethod
    def __len__(self) -> int: ...


class _LRU(_Entries):
    def __init__(self, max_size: int) -> None:
        super().__init__(max_size)
        self._values: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable) -> Any:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def set(self, key: Hashable, value: Any) -> int:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._max_size:
            self._values.popitem(last=False)
            return 1
        return 0

    def __len__(self) -> int:
        return len(self._values)


class _TTL(_Entries):
    """Oldest first, as every entry lives equally long."""

    def __init__(self, max_size: int, ttl: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(max_size)
        self._ttl = ttl
        self._clock = clock
        self._values: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()

    def get(self, key: Hashable) -> Any:
        until, value = self._values.get(key, (math.inf, None))
        if self._clock() >= until:
            del self._values[key]
            return None
        return value

    def set(self, key: Hashable, value: Any) -> int:
        now, n_before = self._clock(), len(self._values)
        n_new = key not in self._values
        self._values[key] = now + self._ttl, value
        self._values.move_to_end(key)
        while self._values:
            oldest = next(iter(self._values))
            if len(self._values) <= self._max_size and self._values[oldest][0] > now:
                break
            del self._values[oldest]
        return n_before + n_new - len(self._values)

    def __len__(self) -> int:
        return len(self._values)


class _LFU(_Entries):
    """An entry is worth how often it was asked for, plus what the last one that went was worth when it came in."""

    def __init__(self, max_size: int) -> None:
        super().__init__(max_size)
        self._values: dict[Hashable, list[Any]] = {}  # count, worth, tick, value
        self._heap: list[tuple[float, int, Hashable]] = []  # void with an older tick than the entry's
        self._age = 0.0
        self._ticks = itertools.count()

    def get(self, key: Hashable) -> Any:
        entry = self._values.get(key)
        if entry is None:
            return None
        self._used(key, entry)
        return entry[3]

    def set(self, key: Hashable, value: Any) -> int:
        entry = self._values.get(key)
        n_gone = 0
        if entry is None:
            if len(self._values) >= self._max_size:
                self._evict()
                n_gone = 1
            entry = self._values[key] = [0, 0.0, 0, value]
        entry[3] = value
        self._used(key, entry)
        return n_gone

    def _used(self, key: Hashable, entry: list[Any]) -> None:
        entry[0] += 1
        entry[1], entry[2] = entry[0] + self._age, next(self._ticks)
        heapq.heappush(self._heap, (entry[1], entry[2], key))
        if len(self._heap) > 4 * self._max_size + 64:
            self._heap = [(worth, tick, key) for key, (_, worth, tick, _) in self._values.items()]
            heapq.heapify(self._heap)

    def _evict(self) -> None:
        while True:
            worth, tick, key = heapq.heappop(self._heap)
            entry = self._values.get(key)
            if entry is not None and entry[2] == tick:
                self._age = worth
                del self._values[key]
                return

    def __len__(self) -> int:
        return len(self._values)


def _entries(policy: CacheType, max_size: int, ttl: float) -> _Entries:
    if policy == "ttl":
        return _TTL(max_size, ttl)
    return _LRU(max_size) if policy == "lru" else _LFU(max_size)
