"""Compute the parts of many rows that the cache lacks in several processes, before the rows are read one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context

from benchmark.board.cached.store import has_entry, is_usable, read_cached, write_cached
from benchmark.submit.check_folders import split_groups, usable_cores

PIECE_PARTS = 32
"""About so many parts of one suite are handed to a process at once, since it may have to draw the suite for them."""
MAX_WORKERS = 8
"""Each process may hold the labels of two suites, a gigabyte."""


@dataclass(frozen=True)
class CachedPart:
    """A content that depends on one row.

    Attributes:
        key: its key in the cache.
        compute: computes it.
        suite: name of the suite whose tasks or labels that takes; empty if it takes none.
        find_key: derives the key again, where the computation does not see that a file has changed since.
    """

    key: str
    compute: Callable[[], bytes]
    suite: str = ""
    find_key: Callable[[], str] | None = None

    def read(self) -> bytes:
        """The content, computed if the cache does not have it; not stored if a file changed since the key was derived."""
        content = read_cached(self.key)
        if content is None:
            content = self.compute()
            if self.find_key is None or self.find_key() == self.key:
                write_cached(self.key, content)
        return content


def compute_missing(parts: Sequence[CachedPart]) -> None:
    """Compute and store what the cache lacks, if there is work for several processes.

    What cannot be computed or stored, or was in a process that was killed, is computed where it is read, so that errors come in
    the order of the rows.
    """
    missing = [part for part in parts if not has_entry(part.key)]
    pieces = split_groups([part.suite for part in missing], PIECE_PARTS)
    workers = min(usable_cores(), len(pieces), MAX_WORKERS)
    if workers < 2 or not is_usable():
        return
    # Forked, so that nothing is imported again and no part has to be pickled.
    executor = ProcessPoolExecutor(workers, get_context("fork"), _set_parts, (missing,))
    try:
        wait([executor.submit(_compute_piece, piece) for piece in pieces])
    finally:
        executor.shutdown(cancel_futures=True)


_parts: Sequence[CachedPart] = ()
"""The missing parts, in a forked process."""


def _set_parts(parts: Sequence[CachedPart]) -> None:
    global _parts
    _parts = parts


def _compute_piece(indices: Sequence[int]) -> None:
    for index in indices:
        with suppress(Exception):
            _parts[index].read()
