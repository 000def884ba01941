"""What the page needs again, within a number of bytes."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from torch import Tensor


class Shelf:
    """Values kept for the next time; what was least recently used is let go first.

    Args:
        limit: bytes of all arrays and tensors in the values, each counted once however many
            values share it. The newest value stays, whatever its size.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any:
        """The value, now the most recently used, or None."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: Hashable, value: Any) -> None:
        """Keep a value, and let go of others for it."""
        with self._lock:
            self._kept[key] = value
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and nbytes(self._kept) > self.limit:
                self._kept.popitem(last=False)

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept."""
        with self._lock:
            return nbytes(self._kept)


def nbytes(value: object, seen: set[int] | None = None) -> int:
    """Bytes of the tensors, arrays and byte strings that a value holds, each counted once.

    Looks into dataclasses (also at what they have computed and kept), mappings and sequences.
    """
    seen = set() if seen is None else seen
    while isinstance(value, np.ndarray) and isinstance(value.base, np.ndarray):
        value = value.base  # of which it is a view
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, Tensor):
        storage = value.untyped_storage()  # several views may share it
        counted = storage.data_ptr() in seen
        seen.add(storage.data_ptr())
        return 0 if counted else storage.nbytes()
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(nbytes(part, seen) for part in value.values())
    if isinstance(value, list | tuple):
        return sum(nbytes(part, seen) for part in value)
    if dataclasses.is_dataclass(value):
        return sum(nbytes(part, seen) for part in list(vars(value).values()))
    return 0
