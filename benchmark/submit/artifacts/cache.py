"""The cache of artifacts in the user's cache folder: content-addressed, bounded, safe for several processes and damage.

An artifact is `SHA-256/NAME`. It is written under another name, hashed while it is written, and renamed only if it is the
expected one; it is hashed again whenever it is used, so that a torn or altered file counts as missing. If the folder cannot
be written to, artifacts are kept in a temporary folder until the process ends.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from multiprocessing.util import Finalize
from pathlib import Path
from typing import BinaryIO

from benchmark.errors import BenchmarkError, SubmissionError
from benchmark.files import open_regular
from benchmark.installation.bounded_cache import remove_oldest
from benchmark.runner.evidence_cache import cache_folder as evidence_folder
from benchmark.submit.artifacts.listing import Artifact

FOLDER_NAME, PARTIAL_PREFIX = "artifacts", ".partial-"
LIMIT_VARIABLE = "KAREL_BENCH_ARTIFACT_BYTES"
MAX_CACHE_BYTES = 2_000_000_000
STALE_SECONDS = 3600.0
"""A partial file that was not written to for so long is of a process that was killed."""
CHUNK_BYTES = 1 << 20


class UnavailableError(BenchmarkError):
    """An artifact could not be had from one address; the message says why."""


def cache_folder() -> Path:
    """`karel-bench/artifacts` in `XDG_CACHE_HOME`, by default in `~/.cache`."""
    return evidence_folder().parent / FOLDER_NAME


def cache_limit() -> int:
    """Largest size of the cache in bytes: `KAREL_BENCH_ARTIFACT_BYTES`, by default 2 GB."""
    text = os.environ.get(LIMIT_VARIABLE, "")
    return int(text) if text.isdecimal() else MAX_CACHE_BYTES


def locate(name: str, artifact: Artifact) -> Path | None:
    """The cached file of an artifact, whose bytes are what they should be; None if there is none."""
    for root in _roots():
        path = root / artifact.sha256 / Path(name).name
        try:
            with open_regular(path) as file:
                if os.fstat(file.fileno()).st_size != artifact.size:
                    continue
                digest = file_sha256(file)
        except (SubmissionError, OSError):
            continue
        if digest == artifact.sha256:
            with suppress(OSError):
                os.utime(path)  # the time of its last use, by which `prune` goes
            return path
    return None


def file_sha256(file: BinaryIO) -> str:
    """SHA-256 of an open file from where it is read."""
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def store(name: str, artifact: Artifact, chunks: Iterable[bytes]) -> Path:
    """Write an artifact to the cache while its bytes come, and return its path.

    Args:
        name: path of the file in the submission's folder.
        artifact: its size and SHA-256.
        chunks: its bytes; no more than its size are read, and a byte.

    Raises:
        UnavailableError: the bytes are others, or cannot be written.
    """
    root = _writable_root()
    partial = root / f"{PARTIAL_PREFIX}{uuid.uuid4().hex}"
    try:
        with partial.open("xb") as file:
            for chunk in checked(artifact, chunks):
                file.write(chunk)
        path = root / artifact.sha256 / Path(name).name
        _move(partial, path)
    except OSError as error:
        raise UnavailableError(f"cannot be stored in {root} ({error.strerror})") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return path


def _move(partial: Path, path: Path) -> None:
    """Rename a complete file; another process may delete its folder meanwhile, while that is empty."""
    if path.parent.is_symlink() or path.parent.is_file():
        path.parent.unlink()
    path.parent.mkdir(exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    try:
        partial.replace(path)
    except FileNotFoundError:
        path.parent.mkdir(exist_ok=True)
        partial.replace(path)


def checked(artifact: Artifact, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Pass bytes on, and raise after the last ones unless they are those of an artifact.

    Raises:
        UnavailableError: they have another size or SHA-256.
    """
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        size += len(chunk)
        if size > artifact.size:
            raise UnavailableError(f"more than {artifact.size:,} bytes")
        digest.update(chunk)
        yield chunk
    if size != artifact.size:
        raise UnavailableError(f"{size:,} bytes, not {artifact.size:,}")
    if digest.hexdigest() != artifact.sha256:
        raise UnavailableError("another SHA-256")


def prune(limit: int | None = None, in_use: Collection[str] = ()) -> None:
    """Delete the artifacts that were used longest ago, until at most `limit` bytes are left, and partial files of killed
    processes.

    Args:
        limit: bytes; None for `cache_limit`.
        in_use: SHA-256 of artifacts that stay.
    """
    limit = cache_limit() if limit is None else limit
    files: list[tuple[float, int, Path]] = []
    with suppress(OSError, RuntimeError):
        for entry in os.scandir(cache_folder()):
            if entry.name.startswith(PARTIAL_PREFIX):
                with suppress(OSError):
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE_SECONDS:
                        Path(entry.path).unlink()
            elif entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    files += [
                        (
                            file.stat(follow_symlinks=False).st_mtime,
                            file.stat(follow_symlinks=False).st_size,
                            Path(file.path),
                        )
                        for file in os.scandir(entry.path)
                    ]

    def remove(path: Path) -> bool:
        if path.parent.name in in_use:
            return False
        try:
            path.unlink(missing_ok=True)
        except OSError:
            return False
        with suppress(OSError):
            path.parent.rmdir()
        return True

    remove_oldest(files, limit, remove)


_session_folders: list[Path] = []
"""The temporary folder of this process, or of the one that it was forked from, once it was needed."""


def _roots() -> list[Path]:
    """The cache, unless the user has no home folder, and the temporary folder, if there is one."""
    try:
        return [cache_folder(), *_session_folders]
    except RuntimeError:
        return list(_session_folders)


def _writable_root() -> Path:
    """The cache, if a file can be created in it, or a temporary folder."""
    try:
        root = cache_folder()
        root.mkdir(parents=True, exist_ok=True)
        descriptor, probe = tempfile.mkstemp(prefix=PARTIAL_PREFIX, dir=root)
        os.close(descriptor)
        Path(probe).unlink()
    except (OSError, RuntimeError):
        return _session_folder()
    return root


def _session_folder() -> Path:
    if not _session_folders:
        path = Path(tempfile.mkdtemp(prefix="karel-bench-artifacts-"))
        # Also called where a forked worker ends, which atexit is not, and by no process forked from this one.
        Finalize(None, shutil.rmtree, args=(path, True), exitpriority=0)
        _session_folders.append(path)
    return _session_folders[0]
