"""Where the files of a submission are had from: its folder, the cache, the user's mirrors, and the addresses that it lists.

Nothing goes over the network unless the user asks for it: `Sources.is_fetching` for the addresses that a submission lists,
or a mirror that is an address. `find_file`, by which the board reads, looks into the folder, the cache and the folders
among the mirrors of the environment only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

from benchmark.artifacts import DESCRIPTION, FIGURES, MAX_FILES, STATUS
from benchmark.errors import SubmissionError, UsageError
from benchmark.files import open_regular, sanitize
from benchmark.submit.artifacts.cache import CHUNK_BYTES, UnavailableError, file_sha256, locate, prune, store
from benchmark.submit.artifacts.listing import Artifact, listed_artifacts
from benchmark.submit.artifacts.locations import (
    check_mirror,
    is_path,
    is_web,
    join_location,
    open_below,
    path_segments,
    web_address,
)

MIRRORS_VARIABLE, SEPARATOR = "KAREL_BENCH_ARTIFACTS", ";"
MAX_REASONS = 3
FETCH_SECONDS = 1800.0
"""Time in which the artifacts of a submission must have been fetched."""
NOT_FETCHED = "not in the folder, the cache or a mirror, and not fetched"


@dataclass(frozen=True)
class Sources:
    """Where artifacts may be had from, besides the submission's folder and the cache.

    Attributes:
        mirrors: folders and addresses that the user names, which are tried first.
        is_fetching: whether the addresses that a submission lists are requested too.
    """

    mirrors: tuple[str, ...] = ()
    is_fetching: bool = False

    @staticmethod
    def of_user(mirrors: Iterable[str] = (), is_fetching: bool = False) -> Sources:
        """Mirrors of the command line, then those of the environment variable `KAREL_BENCH_ARTIFACTS`.

        Raises:
            UsageError: a mirror is neither a folder nor an accepted address.
        """
        named = tuple(check_mirror(text) for text in mirrors)
        return Sources((*named, *environment_mirrors()), is_fetching)

    @staticmethod
    def of_machine() -> Sources:
        """The folders of this machine among the mirrors of the environment; raises `UsageError` as `of_user`."""
        return Sources(tuple(mirror for mirror in environment_mirrors() if not is_web(mirror)))


NO_SOURCES = Sources()


def environment_mirrors() -> tuple[str, ...]:
    """The mirrors in `KAREL_BENCH_ARTIFACTS`, separated by semicolons.

    Raises:
        UsageError: a mirror is neither a folder nor an accepted address.
    """
    texts = filter(None, (text.strip() for text in os.environ.get(MIRRORS_VARIABLE, "").split(SEPARATOR)))
    try:
        return tuple(check_mirror(text) for text in texts)
    except UsageError as error:
        raise UsageError(f"{MIRRORS_VARIABLE}: {error}") from error


def find_file(folder: Path, name: str) -> Path:
    """The path of a file of a submission: in its folder, or, if it is an artifact that is at hand, in the cache.

    Args:
        folder: folder of the submission, or of a run.
        name: path of the file in it.

    Returns:
        The path, whose last part is that of `name`; if the file is not at hand, the path in the folder, where nothing is.

    Raises:
        SubmissionError: the listing of artifacts is invalid.
    """
    path = folder / name
    if os.path.lexists(path):
        return path
    artifact = listed_artifacts(folder).get(name)
    if artifact is None:
        return path
    cached = locate(name, artifact)
    if cached is None:
        cached, _ = _obtain_file(folder, name, artifact, Sources.of_machine())
    return cached or path


def missing_files(folder: Path) -> list[str]:
    """Names of the listed artifacts that are not at hand; as `find_file`."""
    return [name for name in listed_artifacts(folder) if not os.path.lexists(find_file(folder, name))]


def obtain(folder: Path, artifacts: Mapping[str, Artifact], sources: Sources = NO_SOURCES) -> dict[str, str]:
    """Bring the artifacts of a submission into the cache, as far as they can be had.

    Args:
        folder: folder of the submission.
        artifacts: what it lists.
        sources: where else they may be had from.

    Returns:
        The reason for each artifact that could not be had, by file name.

    Raises:
        SubmissionError: a file is in the folder, and is another than the listed one.
    """
    missing: dict[str, str] = {}
    has_stored, limits = False, _RequestLimits(time.monotonic() + FETCH_SECONDS)
    for name, artifact in artifacts.items():
        if os.path.lexists(folder / name):
            check_listed(folder / name, name, artifact)
        elif locate(name, artifact) is None:
            path, reason = _obtain_file(folder, name, artifact, sources, limits)
            has_stored |= path is not None
            if path is None:
                missing[name] = reason
    if has_stored:
        prune(in_use={artifact.sha256 for artifact in artifacts.values()})
    return missing


def check_listed(path: Path, name: str, artifact: Artifact) -> None:
    """Raise `SubmissionError` if a file is not the artifact that is listed under its name."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        is_listed = size == artifact.size and file_sha256(file) == artifact.sha256
    if not is_listed:
        raise SubmissionError(
            f"{sanitize(name)[1:-1]}: in the folder, {size:,} bytes, and not the file that {DESCRIPTION} lists under artifacts; "
            "remove one of the two"
        )


def is_listed_content(artifacts: Mapping[str, Artifact], name: str, content: bytes) -> bool:
    """Whether a file of these bytes is the artifact that is listed under its name."""
    artifact = artifacts.get(name)
    return artifact is not None and hashlib.sha256(content).hexdigest() == artifact.sha256


def format_missing(missing: Mapping[str, str]) -> str:
    """Which artifacts could not be had, all by name, and why, in a phrase."""
    reasons = list(dict.fromkeys(missing.values()))
    more = f"; and {len(reasons) - MAX_REASONS} more reasons" if len(reasons) > MAX_REASONS else ""
    return f"{', '.join(missing)} could not be had ({'; '.join(reasons[:MAX_REASONS])}{more})"


@contextmanager
def complete_folder(folder: Path, artifacts: Mapping[str, Artifact]) -> Iterator[Path]:
    """Within, a folder of the same name that holds the artifacts that are at hand too.

    It is the folder itself if it holds all of them, or else a temporary copy without `status.json`.
    """
    if all(os.path.lexists(folder / name) for name in artifacts):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="karel-bench-row-") as scratch:
        target = Path(scratch) / folder.resolve().name
        copy_complete(folder, artifacts, target)
        yield target


def copy_complete(folder: Path, artifacts: Mapping[str, Artifact], target: Path) -> None:
    """Copy a submission with the artifacts that are at hand into a new folder; links are not followed."""
    target.mkdir(parents=True)
    for subfolder in ("", FIGURES):
        if (folder / subfolder).is_dir() and not (folder / subfolder).is_symlink():
            for entry in islice(os.scandir(folder / subfolder), MAX_FILES + 2):
                if entry.is_file(follow_symlinks=False) and entry.name != STATUS:
                    _copy_file(Path(entry.path), target / subfolder / entry.name)
    for name in artifacts:
        path = find_file(folder, name)
        if not os.path.lexists(target / name) and path.is_file():
            _copy_file(path, target / name)


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    with open_regular(source) as file, target.open("wb") as copy:
        shutil.copyfileobj(file, copy, CHUNK_BYTES)


def _obtain_file(
    folder: Path, name: str, artifact: Artifact, sources: Sources, limits: _RequestLimits | None = None
) -> tuple[Path | None, str]:
    """Bring one artifact into the cache; returns its path, or None and why it could not be had."""
    limits = limits or _RequestLimits()
    reasons: list[str] = []
    for address, is_listed in _addresses(folder, name, artifact, sources):
        try:
            return _try_address(address, name, artifact, is_listed, limits), ""
        except (UnavailableError, SubmissionError, ValueError) as error:
            if str(error):
                reasons.append(f"{sanitize(str(address))[1:-1]}: {error}")
    more = f" and {len(reasons) - MAX_REASONS} more" if len(reasons) > MAX_REASONS else ""
    if not sources.is_fetching:
        reasons = reasons or [NOT_FETCHED]
    return None, "; ".join(reasons[:MAX_REASONS]) + more or "no address leads to it"


@dataclass(frozen=True)
class _LocalPath:
    """A path below a folder."""

    root: Path
    path: str

    def __str__(self) -> str:
        return f"{self.root.name}/{self.path}"


def _addresses(
    folder: Path, name: str, artifact: Artifact, sources: Sources
) -> Iterator[tuple[str | _LocalPath, bool]]:
    """The addresses that are tried in turn, and whether the submission chose them."""
    paths = [url for url in artifact.urls if is_path(url)]
    yield from ((_LocalPath(folder, path), True) for path in paths if path != name)
    # In a mirror, a file is under its SHA-256, or as in a folder of submissions, or as in a complete folder.
    below = dict.fromkeys([artifact.sha256, f"{folder.resolve().name}/{name}", name, *paths])
    for mirror in sorted(sources.mirrors, key=is_web):
        for path in below:
            yield (join_location(mirror, path) if is_web(mirror) else _LocalPath(Path(mirror), path)), False
    if sources.is_fetching:
        yield from ((url, True) for url in artifact.urls if not is_path(url))


@dataclass
class _RequestLimits:
    """What bounds the requests for the artifacts of a submission.

    Attributes:
        latest: when the last one must have ended, as `time.monotonic` counts.
        unreachable: hosts to which no connection could be made, and why; they are not tried again.
    """

    latest: float = float("inf")
    unreachable: dict[str, str] = field(default_factory=dict)


def _try_address(
    address: str | _LocalPath, name: str, artifact: Artifact, is_listed: bool, limits: _RequestLimits
) -> Path:
    """Store an artifact from an address.

    Raises:
        UnavailableError: it cannot be had there; without a message if there is no such file in a folder.
        SubmissionError: a part of a path is a link.
        ValueError: the address is not accepted.
    """
    if isinstance(address, _LocalPath):
        return store(name, artifact, _read_local(address))
    # The client is imported where something is requested: it takes longer than all else that a board does.
    from benchmark.submit.artifacts.download import ATTEMPTS, BrokenTransferError, UnreachableError, read_web

    request = web_address(address)
    host = urlsplit(request.url).netloc
    if time.monotonic() > limits.latest:
        raise UnavailableError(f"not requested, since the artifacts of a row may take {FETCH_SECONDS:,.0f} s")
    if host in limits.unreachable:
        raise UnavailableError(limits.unreachable[host])
    try:
        for _ in range(ATTEMPTS - 1):
            with suppress(BrokenTransferError):
                return store(name, artifact, read_web(request, artifact.size, is_listed, limits.latest))
        return store(name, artifact, read_web(request, artifact.size, is_listed, limits.latest))
    except UnreachableError as error:
        limits.unreachable[host] = str(error)
        raise


def _read_local(address: _LocalPath) -> Iterator[bytes]:
    path_segments(address.path)
    descriptor = open_below(address.root, address.path)
    if descriptor is None:
        raise UnavailableError("")
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UnavailableError("no plain file")
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
