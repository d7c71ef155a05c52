"""Keep a cache within its size: the entries that were used least recently go first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path


def remove_oldest(entries: Iterable[tuple[float, int, Path]], max_bytes: int, remove: Callable[[Path], bool]) -> None:
    """Remove entries, the oldest first, until at most `max_bytes` are left.

    Args:
        entries: time of the last use, size in bytes and path of each.
        max_bytes: size that is left.
        remove: removes an entry; returns whether its bytes are gone.
    """
    ordered = sorted(entries)
    excess = sum(size for _, size, _ in ordered) - max_bytes
    for _, size, path in ordered:
        if excess <= 0:
            return
        if remove(path):
            excess -= size
