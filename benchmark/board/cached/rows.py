"""Cached parts of a row: its status's digest, its description, its solved tasks, and whether its arrays give its verdict."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from benchmark.artifacts import DESCRIPTION, MAX_BYTES, MAX_FOLDER_BYTES, PROBES, README, SAMPLES, STATUS
from benchmark.board.cached.in_processes import CachedPart, compute_missing
from benchmark.board.cached.store import cache_key, cached, cached_digest, content_digest
from benchmark.board.comparison import read_solved_tasks
from benchmark.errors import BenchmarkError
from benchmark.files import MAX_YAML_BYTES, read_bytes, read_yaml
from benchmark.runner.record import Record
from benchmark.submit import verify
from benchmark.submit.artifacts.listing import is_stored_outside, listed_artifacts
from benchmark.submit.artifacts.sources import find_file
from benchmark.submit.folder import files_digest, submission_files
from benchmark.submit.schema import SELF_REPORTED, Submission, read_status, validate_schema

HELD_OUT = "held_out"
WEIGHT_SUFFIXES = {".safetensors", ".bin"}


def verification_status(folder: Path) -> str:
    """Verification status of a submission; `self_reported` if never verified or if files changed since."""
    status = read_status(folder, _files_digest)
    return status.status if status else SELF_REPORTED


def _files_digest(folder: Path) -> str:
    """`files_digest`: weights are not read again while they are as they were."""
    return cached_digest("files", submission_files(folder), lambda: files_digest(folder))


def read_submission(folder: Path) -> Submission:
    """`schema.read_submission`, whose YAML is parsed once per content."""
    path = folder / DESCRIPTION
    key = cache_key("description", read_bytes(path, MAX_YAML_BYTES).hex())
    content = cached(key, lambda: json.dumps(read_yaml(path)).encode())
    return validate_schema(Submission, json.loads(content), DESCRIPTION)


def read_held_out(folder: Path, record: Record) -> np.ndarray:
    """bool [N], test tasks solved on the held-out examples; errors as of `read_solved_tasks`."""
    part = _held_out_part(folder, record)
    if part is None:
        return read_solved_tasks(folder, record)[HELD_OUT]
    return np.unpackbits(np.frombuffer(part.read(), np.uint8), count=record.suite.tasks).astype(bool)


def _held_out_part(folder: Path, record: Record) -> CachedPart | None:
    """`read_held_out` as packed bits; None if the samples are elsewhere or are not those of the record."""
    if is_stored_outside(folder, SAMPLES):
        return None
    digest = content_digest(folder / SAMPLES, MAX_BYTES[SAMPLES])
    if digest != record.samples_sha256:
        return None
    return CachedPart(
        cache_key("solved", digest, record.suite.tasks),
        lambda: np.packbits(read_solved_tasks(folder, record)[HELD_OUT]).tobytes(),
    )


def prepare_held_out(rows: Iterable[tuple[Path, Record]]) -> None:
    """Fill the cache for `read_held_out` of folders with their records; errors are left to it."""
    parts = []
    for folder, record in rows:
        with suppress(BenchmarkError, OSError):
            parts.append(_held_out_part(folder, record))
    compute_missing([part for part in parts if part is not None])


def check_stored_verdicts(rows: Sequence[tuple[Path, Record]]) -> None:
    """`verify.check_stored_verdict` of folders with their records, suite by suite, once per record and arrays.

    What does not fit is computed again each time. Arrays that are an artifact and not at hand are not checked.

    Raises:
        VerificationError: the arrays are missing or give other values than the record.
    """
    parts = [_verdict_part(*row) for row in sorted(rows, key=lambda row: row[1].suite.name)]
    present = [part for part in parts if part is not None]
    compute_missing(present)
    for part in present:
        part.read()


def _verdict_part(folder: Path, record: Record) -> CachedPart | None:
    """The check of a row's verdict, whose content is empty; None if there is nothing to check."""
    path = find_file(folder, PROBES)
    if record.meaning is None or (not path.is_file() and PROBES in listed_artifacts(folder)):
        return None

    def find_key() -> str:
        # Without arrays the check fails, so that nothing is stored.
        digest = content_digest(path, MAX_BYTES[PROBES]) if path.is_file() else ""
        return cache_key("verdict", digest, record.to_json())

    return CachedPart(find_key(), lambda: _check_verdict(path.parent, record), record.suite.name, find_key)


def _check_verdict(folder: Path, record: Record) -> bytes:
    verify.check_stored_verdict(folder, record)
    return b""


def page_inputs_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of the files that a row's page may show: all but weights, status and pictures.

    Of artifacts, which `submission.yaml` lists by SHA-256, those that are at hand count by their name.
    """
    with os.scandir(folder) as listing:
        paths = sorted(
            Path(entry.path)
            for entry in listing
            if entry.is_file(follow_symlinks=False)
            and Path(entry.name).suffix not in WEIGHT_SUFFIXES
            and entry.name not in (STATUS, README)
        )
    digests = lambda: json.dumps([[path.name, content_digest(path, MAX_FOLDER_BYTES)] for path in paths])  # noqa: E731
    in_folder = cached_digest("page inputs", paths, digests)
    at_hand = [name for name in listed_artifacts(folder) if find_file(folder, name).is_file()]
    return cache_key("page inputs", in_folder, at_hand) if at_hand else in_folder
