"""A cache of bytes per key in the user's cache folder: content-addressed, safe for several processes and against damage.

A file is named by the SHA-256 of everything that its content depends on, the source of the package included; it is written
under another name and renamed, and begins with the SHA-256 of the rest, so that a torn or altered file counts as missing.
A folder that cannot be written to is no cache; nothing fails.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from benchmark.environment import package_versions, source_digest
from benchmark.errors import StorageError, SubmissionError
from benchmark.files import gunzip_bounded, read_bytes
from benchmark.installation.bounded_cache import remove_oldest
from benchmark.installation.paths import SOURCE_ROOT
from benchmark.runner import evidence_cache
from benchmark.runner.store import open_folder

DIGEST_BYTES = 64
LEVEL = 1
"""Level of compression: a row's page shrinks sevenfold, and is unpacked in less than a millisecond."""
MAX_ENTRY_BYTES = 64_000_000
MAX_CACHE_BYTES = 2_000_000_000
SETTLED_NS = 2_000_000_000
"""A file that changed later than so long ago may change again without a new time, so that its times do not name its content."""
_DATA_SUFFIXES = {".yaml", ".json", ".html", ".css", ".js", ".safetensors", ".data"}
_PACKAGES = ("numpy", "scipy", "numba", "pydantic", "jinja2", "markupsafe", "safetensors")


def cache_folder() -> Path:
    """`karel-bench/board` in `XDG_CACHE_HOME`, by default in `~/.cache`."""
    return evidence_cache.cache_folder().parent / "board"


@cache
def code_digest() -> str:
    """SHA-256 over the source and the data of the packages, and the versions of the libraries."""
    digest = hashlib.sha256(source_digest(("",)).encode())
    for package in ("benchmark", "karel_env"):
        for path in sorted((SOURCE_ROOT / package).rglob("*")):
            if path.suffix in _DATA_SUFFIXES and path.is_file():
                digest.update(path.relative_to(SOURCE_ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    versions = {"python": sys.version, **package_versions(_PACKAGES)}
    digest.update(json.dumps(versions, sort_keys=True).encode())
    return digest.hexdigest()


def cache_key(kind: str, *parts: Any) -> str:
    """Key of what depends on these parts, which are plain values, and on nothing else but the code."""
    return hashlib.sha256(json.dumps([kind, code_digest(), *parts]).encode()).hexdigest()


def read_cached(key: str) -> bytes | None:
    """The content of a key; None if it is not there, torn or altered."""
    try:
        stored = (cache_folder() / key).read_bytes()
        if hashlib.sha256(stored[DIGEST_BYTES:]).hexdigest().encode() != stored[:DIGEST_BYTES]:
            return None
        return gunzip_bounded(stored[DIGEST_BYTES:], key, MAX_ENTRY_BYTES)
    except (OSError, RuntimeError, SubmissionError):
        return None


def write_cached(key: str, content: bytes) -> None:
    """Store the content of a key, if the folder can be written to."""
    if len(content) > MAX_ENTRY_BYTES:
        return
    compressor = zlib.compressobj(LEVEL, wbits=31)
    packed = compressor.compress(content) + compressor.flush()
    folder = cache_folder()
    with suppress(OSError, StorageError, RuntimeError):
        folder.mkdir(parents=True, exist_ok=True)
        _replace_file(folder, key, hashlib.sha256(packed).hexdigest().encode() + packed)


def _replace_file(folder: Path, name: str, content: bytes) -> None:
    """Write a file under another name and rename it; its digest makes up for what is not flushed to the disk."""
    temporary = f".{name}.{os.getpid()}"
    with open_folder(folder) as descriptor:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(temporary, flags, 0o666, dir_fd=descriptor), "wb") as file:
            file.write(content)
        os.replace(temporary, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)


def has_entry(key: str) -> bool:
    """Whether there is a file for a key, which may be damaged."""
    with suppress(OSError, RuntimeError):
        return (cache_folder() / key).is_file()
    return False


def is_usable() -> bool:
    """Whether the cache can be written to."""
    with suppress(OSError, RuntimeError):
        cache_folder().mkdir(parents=True, exist_ok=True)
        return os.access(cache_folder(), os.W_OK | os.X_OK)
    return False


def cached(key: str, compute: Callable[[], bytes]) -> bytes:
    """The content of a key, computed and stored if it is not there."""
    content = read_cached(key)
    if content is None:
        content = compute()
        write_cached(key, content)
    return content


def prune(limit: int = MAX_CACHE_BYTES) -> None:
    """Delete the files that were written first, until at most `limit` bytes are left."""
    with suppress(OSError):
        files = [(entry.stat().st_mtime, entry.stat().st_size, Path(entry)) for entry in os.scandir(cache_folder())]
        remove_oldest(files, limit, _remove)


def _remove(path: Path) -> bool:
    path.unlink(missing_ok=True)
    return True


def file_signature(paths: Iterable[Path]) -> list[list[Any]] | None:
    """What tells whether files are as they were: name, device, inode, size and times of each, as Git's index does.

    Returns:
        The signature, as plain values; None if a file is too new for its times to tell, or cannot be looked at.
    """
    signature = []
    now = time.time_ns()
    for path in paths:
        try:
            entry = path.stat(follow_symlinks=False)
        except OSError:
            return None
        if now - max(entry.st_mtime_ns, entry.st_ctime_ns) < SETTLED_NS:
            return None
        signature.append([str(path), entry.st_dev, entry.st_ino, entry.st_size, entry.st_mtime_ns, entry.st_ctime_ns])
    return signature


def cached_digest(kind: str, paths: Iterable[Path], compute: Callable[[], str]) -> str:
    """A digest of files, computed again only if one of them changed.

    Args:
        kind: which digest.
        paths: all files that it is computed from.
        compute: computes it.
    """
    signature = file_signature(paths)
    if signature is None:
        return compute()
    # Signed before the files are read: a file that changes meanwhile has another signature the next time.
    return cached(cache_key(kind, signature), lambda: compute().encode()).decode()


def content_digest(path: Path, limit: int) -> str:
    """SHA-256 of a file of at most `limit` bytes."""
    return hashlib.sha256(read_bytes(path, limit)).hexdigest()
