"""Cached parts of a row: its status's digest, its description, its solved tasks, and whether its arrays give its verdict."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from benchmark.artifacts import DESCRIPTION, MAX_BYTES, MAX_FOLDER_BYTES, PROBES, README, SAMPLES, STATUS
from benchmark.board.cached.store import cache_key, cached, cached_digest, content_digest, read_cached, write_cached
from benchmark.board.comparison import read_solved_tasks
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
    if is_stored_outside(folder, SAMPLES):
        return read_solved_tasks(folder, record)[HELD_OUT]
    digest = content_digest(folder / SAMPLES, MAX_BYTES[SAMPLES])
    if digest != record.samples_sha256:
        return read_solved_tasks(folder, record)[HELD_OUT]
    tasks = record.suite.tasks
    content = cached(
        cache_key("solved", digest, tasks),
        lambda: np.packbits(read_solved_tasks(folder, record)[HELD_OUT]).tobytes(),
    )
    return np.unpackbits(np.frombuffer(content, np.uint8), count=tasks).astype(bool)


def check_stored_verdict(folder: Path, record: Record) -> None:
    """`verify.check_stored_verdict`, once per record and arrays; what does not fit is computed again each time.

    Arrays that are an artifact and not at hand are not checked.

    Raises:
        VerificationError: the arrays are missing or give other values than the record.
    """
    if record.meaning is None:
        return
    key, path = None, find_file(folder, PROBES)
    if path.is_file():
        key = cache_key("verdict", content_digest(path, MAX_BYTES[PROBES]), record.to_json())
        if read_cached(key) is not None:
            return
    elif PROBES in listed_artifacts(folder):
        return
    verify.check_stored_verdict(path.parent, record)
    if key is not None:
        write_cached(key, b"")


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
