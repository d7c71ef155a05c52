"""Folder of a submission: its name and date, the files that it may contain, and their digest.

`screen_folder` runs before any other reader: it accepts regular files with known names and bounded sizes only.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from benchmark.artifacts import (
    CAUSAL_EVIDENCE,
    DETAIL_EVIDENCE,
    FIGURES,
    INDEX_FILE,
    MAX_BYTES,
    MAX_FILES,
    MAX_FOLDER_BYTES,
    MAX_OTHER_BYTES,
    MODEL_FILES,
    PROBES,
    REACH_EVIDENCE,
    REACH_RECORD,
    REPRESENTS_RECORD,
    ROTATION_EVIDENCE,
    STATUS,
    USES_DETAIL_RECORD,
    USES_RECORD,
)
from benchmark.errors import SubmissionError
from benchmark.files import read_bytes, read_json, read_tensor_header, sanitize
from benchmark.submit.artifacts.listing import listed_artifacts
from benchmark.submit.artifacts.sources import is_listed_content
from benchmark.submit.screening import WEIGHT_FILE, check_image, check_index, screen_model_file

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
CLOCK_SKEW = timedelta(days=1)
"""Largest accepted difference between two clocks."""
MAX_DATE_OFFSET = timedelta(days=31)
"""Largest time by which the date of a folder may precede the start of its run."""
EARLIEST = datetime(2024, 1, 1, tzinfo=UTC)
TENSOR_FILES = {PROBES, CAUSAL_EVIDENCE, DETAIL_EVIDENCE, ROTATION_EVIDENCE, REACH_EVIDENCE}
"""Files in the format of safetensors besides the weights."""
MEASUREMENT_FILES = {
    USES_RECORD, CAUSAL_EVIDENCE, USES_DETAIL_RECORD, DETAIL_EVIDENCE, REPRESENTS_RECORD, ROTATION_EVIDENCE, REACH_RECORD,
    REACH_EVIDENCE,
}  # fmt: skip
"""Files that can be added to a submission whose other files stay as they are."""
DATED_NAME = re.compile(r"(\d{4}-\d\d-\d\d)_.+", re.ASCII)


def screen_folder(folder: Path, is_proposed: bool = False) -> list[Path]:
    """Screen the files of a submission; artifacts that are not in its folder are left out.

    Args:
        folder: folder of the submission.
        is_proposed: whether the submission comes from a pull request, and thus must not contain `status.json`.

    Returns:
        Paths of the accepted files.

    Raises:
        SubmissionError: a file is refused; the message names it.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise SubmissionError(f"{sanitize(str(folder))}: no folder; expected submissions/NAME")
    if not NAME_PATTERN.fullmatch(folder.resolve().name):
        raise SubmissionError(f"{sanitize(folder.name)}: a folder's name has letters, digits, '.', '_' and '-' only")
    check_folder_date(folder.resolve().name)
    files = _list_files(folder, "") + (_list_files(folder, FIGURES) if (folder / FIGURES).is_dir() else [])
    if len(files) > MAX_FILES:
        raise SubmissionError(f"{len(files):,} files; a submission has at most {MAX_FILES}")
    total = sum(path.stat().st_size for path in files)
    if total > MAX_FOLDER_BYTES:
        raise SubmissionError(
            f"{total:,} bytes in all; at most {MAX_FOLDER_BYTES:,}: put the weights on a hub, model: hf:..."
        )
    if is_proposed and (folder / STATUS).exists():
        raise SubmissionError(f"{STATUS}: only the verification writes it; remove it")
    for path in files:
        _screen_file(path)
    if (folder / INDEX_FILE).exists():
        names = {path.name for path in files} | listed_artifacts(folder).keys()
        check_index(read_json(folder / INDEX_FILE, MAX_OTHER_BYTES), names)
    return files


def _list_files(folder: Path, subfolder: str) -> list[Path]:
    """List the regular files of a folder or of its figures; raise `SubmissionError` on links and other entries."""
    paths = []
    with os.scandir(folder / subfolder) as listing:
        entries = list(islice(listing, MAX_FILES + 2))
    if len(entries) > MAX_FILES + 1:
        raise SubmissionError(f"more than {MAX_FILES} files; a submission has at most {MAX_FILES}")
    for entry in sorted(entries, key=lambda item: item.name):
        relative_path = f"{subfolder}/{entry.name}" if subfolder else entry.name
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            raise SubmissionError(f"{sanitize(relative_path)}: a link; a submission holds plain files")
        if stat.S_ISDIR(mode):
            if relative_path != FIGURES:
                raise SubmissionError(f"{sanitize(relative_path)}: a folder; the only one in a submission is {FIGURES}")
            continue
        if not stat.S_ISREG(mode):
            raise SubmissionError(f"{sanitize(relative_path)}: neither a file nor a folder")
        paths.append(Path(entry.path))
        if len(paths) > MAX_FILES:
            raise SubmissionError(f"more than {MAX_FILES} files; a submission has at most {MAX_FILES}")
    return paths


def _screen_file(path: Path) -> None:
    name = path.name
    if path.parent.name == FIGURES and NAME_PATTERN.fullmatch(name):
        if path.suffix not in (".png", ".svg"):
            raise SubmissionError(f"{FIGURES}/{sanitize(name)}: expected .png or .svg")
        return check_image(f"{FIGURES}/{name}", read_bytes(path, MAX_OTHER_BYTES))
    is_known = name in MAX_BYTES or name in MODEL_FILES
    if not is_known and not WEIGHT_FILE.fullmatch(name):
        raise SubmissionError(f"{sanitize(name)}: no file of a submission; docs/submitting.md lists them")
    if WEIGHT_FILE.fullmatch(name) or name in TENSOR_FILES:
        size, limit = path.stat().st_size, MAX_BYTES.get(name, MAX_FOLDER_BYTES)
        if size > limit:
            raise SubmissionError(f"{name}: {size:,} bytes; at most {limit:,} are read")
        read_tensor_header(path)
    elif name in MODEL_FILES:
        screen_model_file(name, read_json(path, MAX_BYTES.get(name, MAX_OTHER_BYTES)))
    return None


def files_digest(folder: Path, without: Collection[str] = ()) -> str:
    """Compute a SHA-256 over the name and content of every file of a submission except `status.json` and `without`.

    An artifact that is in the folder as it is listed counts by its listing, so that the digest is the same without it.
    """
    digest, artifacts = hashlib.sha256(), listed_artifacts(folder)
    for path in submission_files(folder):
        if path.name in without:
            continue
        name, content = path.relative_to(folder).as_posix(), read_bytes(path, MAX_FOLDER_BYTES)
        if name not in artifacts or not is_listed_content(artifacts, name, content):
            digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return digest.hexdigest()


def submission_files(folder: Path) -> list[Path]:
    """List the files of a submission except `status.json`, sorted; raises `SubmissionError` on links and other entries."""
    files = _list_files(folder, "") + (_list_files(folder, FIGURES) if (folder / FIGURES).is_dir() else [])
    return sorted(path for path in files if path.name != STATUS)


def check_folder_date(name: str) -> datetime:
    """Parse the date at the start of a folder name.

    Raises:
        SubmissionError: the name has no date, or the date is in the future or before 2024.
    """
    match = DATED_NAME.fullmatch(name)
    try:
        day = datetime.fromisoformat(match[1]).replace(tzinfo=UTC) if match else None
    except ValueError:
        day = None
    if day is None:
        raise SubmissionError(f"{sanitize(name)}: no date; expected a folder named such as 2026-11-25_my-llama")
    if not EARLIEST <= day <= datetime.now(UTC) + CLOCK_SKEW:
        raise SubmissionError(
            f"{sanitize(name)}: {day:%Y-%m-%d} is yet to come or long past; expected the day of the run"
        )
    return day


def check_dates(name: str, started: str) -> None:
    """Refuse a folder with a date that precedes its run by more than `MAX_DATE_OFFSET`.

    Args:
        name: name of the folder.
        started: start of the run, as accepted by `check_record.check_times`.

    Raises:
        SubmissionError: the date is too early.
    """
    day = check_folder_date(name)
    if day < datetime.fromisoformat(started) - MAX_DATE_OFFSET:
        raise SubmissionError(
            f"{sanitize(name)}: dated more than {MAX_DATE_OFFSET.days} days before its run started ({started[:10]})"
        )
