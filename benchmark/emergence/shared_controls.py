"""States and fits of untrained copies that training runs of one architecture share: folders in the cache of `--cache`.

A folder is used under its lock. A process that finds it locked computes the controls in its own folder instead, so that
nothing waits and no two processes write to one folder.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from benchmark.errors import BenchmarkError
from benchmark.installation.bounded_cache import remove_oldest
from benchmark.installation.cache_settings import NO_CACHE, CacheSettings
from benchmark.runner.folder import RunFolder

PREFIX, LOCK = "controls-", "lock"


@contextmanager
def open_controls(own: Path, settings: CacheSettings, key: str) -> Iterator[RunFolder]:
    """Open the folder of the controls while the context lasts: that of the cache if one is named, else `own`.

    Args:
        own: folder of this evaluation alone.
        settings: the cache; folders beyond its size are removed afterwards, the least recently used first.
        key: SHA-256 of everything that the controls depend on.
    """
    if settings.folder in ("", NO_CACHE):
        yield RunFolder(own)
        return
    cache, name = Path(settings.folder), f"{PREFIX}{key}"
    with ExitStack() as stack:
        try:
            folder = RunFolder(cache / name)
            stack.enter_context(folder.lock())
        except BenchmarkError:
            folder = RunFolder(own)
        yield folder
    remove_unused(cache, settings.max_bytes, name)


def remove_unused(cache: Path, max_bytes: int, current: str) -> None:
    """Remove the folders that were used least recently, but neither `current` nor those in use, until `max_bytes` are left."""
    folders = []
    for path in cache.glob(f"{PREFIX}*"):
        with suppress(OSError):
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            # The lock is written whenever a process takes it.
            folders.append(((path / LOCK).stat().st_mtime_ns, size, path))
    remove_oldest(folders, max_bytes, lambda path: path.name != current and _remove_folder(path))


def _remove_folder(path: Path) -> bool:
    """Remove a folder that no process uses; returns whether it is gone."""
    with suppress(BenchmarkError, OSError), RunFolder(path).lock():
        removed = path.with_name(f".removed-{uuid.uuid4().hex}")
        path.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)
        return True
    return False
