"""Where the evidence cache of a run is, and how large it may get: a value that workers get with their job."""

from __future__ import annotations

from dataclasses import dataclass

NO_CACHE = "none"
DEFAULT_CACHE_BYTES = 2_000_000_000


@dataclass(frozen=True)
class CacheSettings:
    """Settings of the cache of evidence; no part of a run's identity, since results do not depend on them.

    Attributes:
        folder: the folder; empty for the one in the user's cache folder, `NO_CACHE` for no cache.
        max_bytes: size above which the least recently used entries are removed.
    """

    folder: str = ""
    max_bytes: int = DEFAULT_CACHE_BYTES


DEFAULT_CACHE = CacheSettings()
