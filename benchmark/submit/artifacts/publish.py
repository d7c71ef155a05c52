"""Split a submission into a light folder for the repository and its artifacts, each named by its SHA-256."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmark.artifacts import DESCRIPTION, MAX_FOLDER_BYTES, PROBES, SAMPLES, STATUS
from benchmark.errors import SubmissionError, UsageError
from benchmark.files import read_bytes, read_yaml
from benchmark.submit.artifacts.excerpt import make_excerpt
from benchmark.submit.artifacts.listing import Artifact, is_artifact_name
from benchmark.submit.artifacts.locations import check_location, is_web, join_location
from benchmark.submit.artifacts.sources import NO_SOURCES, Sources, complete_folder
from benchmark.submit.report import VerificationReport, raise_on_missing
from benchmark.submit.schema import Submission, validate_schema
from benchmark.submit.screening import WEIGHT_FILE
from benchmark.submit.verify import validate

ARTIFACTS_FOLDER, SUBMISSIONS_FOLDER = "artifacts", "submissions"
SMALL_BYTES = 32_000
"""A file of at most so many bytes stays in the folder, unless it is samples, `probes.data` or weights."""
ALWAYS_OUTSIDE = (SAMPLES, PROBES)
MAX_LIGHT_BYTES = 300_000
"""Largest size of a new row in the repository."""


@dataclass(frozen=True)
class Publication:
    """What was written.

    Attributes:
        folder: the light folder.
        artifacts_folder: the folder of the artifacts.
        artifacts: what `submission.yaml` lists, by name.
        light_bytes, full_bytes: size of the light folder, and of the submission with everything.
    """

    folder: Path
    artifacts_folder: Path
    artifacts: dict[str, Artifact]
    light_bytes: int
    full_bytes: int


def publish(folder: Path, output_dir: Path, bases: Sequence[str] = (), sources: Sources = NO_SOURCES) -> Publication:
    """Write the light folder and the artifacts of a submission, which itself stays as it is.

    Args:
        folder: folder of the submission, with its files or with artifacts that can be had.
        output_dir: `artifacts/` and `submissions/NAME/` are written below it.
        bases: addresses below which the artifacts will be, each under its SHA-256: `https://HOST/PATH`, or
            `hf:org/name@REVISION`.
        sources: where artifacts that the submission already lists may be had from.

    Raises:
        UsageError: the light folder exists, or an address has another form.
        SubmissionError: the submission is invalid.
        IncompleteVerificationError: an artifact that it lists cannot be had.
    """
    target, artifacts_folder = output_dir / SUBMISSIONS_FOLDER / folder.resolve().name, output_dir / ARTIFACTS_FOLDER
    if target.exists():
        raise UsageError(f"{target}: there already; remove it, or give another --output-dir")
    for base in bases:
        check_base(base)
    report = validate(folder, sources=sources)
    raise_on_missing(report)
    with complete_folder(folder, report.submission.artifacts) as complete:
        names = sorted(path.relative_to(complete).as_posix() for path in complete.rglob("*") if path.is_file())
        outside = {name for name in names if is_outside(name, (complete / name).stat().st_size)}
        artifacts_folder.mkdir(parents=True, exist_ok=True)
        target.mkdir(parents=True)
        try:
            artifacts = {
                name: _write_artifact(complete / name, artifacts_folder, bases, report.submission.artifacts.get(name))
                for name in names
                if name in outside
            }
            for name in names:
                if name not in outside and name not in (STATUS, DESCRIPTION):
                    (target / name).parent.mkdir(exist_ok=True)
                    shutil.copyfile(complete / name, target / name)
            _write_description(complete, target, report, artifacts)
        except BaseException:
            shutil.rmtree(target)
            raise
        full_bytes = sum((complete / name).stat().st_size for name in names)
    light_bytes = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return Publication(target, artifacts_folder, artifacts, light_bytes, full_bytes)


def is_outside(name: str, size: int) -> bool:
    """Whether a file of a submission becomes an artifact."""
    if not size or not is_artifact_name(name):
        return False
    return size > SMALL_BYTES or name in ALWAYS_OUTSIDE or bool(WEIGHT_FILE.fullmatch(name))


def check_base(base: str) -> str:
    """Return an address below which artifacts will be; raises `UsageError` for other forms than a URL or a repository."""
    try:
        if not is_web(base):
            raise ValueError(f"{base!r} is no address")
        check_location(join_location(base, "0" * 64))
    except ValueError as error:
        reason = str(error).partition("; ")[0]
        raise UsageError(f"--url: {reason}; expected https://HOST/PATH or hf:org/name@REVISION") from error
    return base


def _write_artifact(path: Path, artifacts_folder: Path, bases: Sequence[str], listed: Artifact | None) -> Artifact:
    """Copy a file under its SHA-256; addresses that are already listed come after the new ones."""
    content = read_bytes(path, MAX_FOLDER_BYTES)
    digest = hashlib.sha256(content).hexdigest()
    copy = artifacts_folder / digest
    if not copy.is_file() or copy.read_bytes() != content:
        copy.write_bytes(content)
    urls = [join_location(base, digest) for base in bases] + (listed.urls if listed else [])
    return Artifact(sha256=digest, size=len(content), urls=list(dict.fromkeys(urls)))


def _write_description(source: Path, target: Path, report: VerificationReport, artifacts: dict[str, Artifact]) -> None:
    """Write `submission.yaml` with the artifacts, and the excerpt if samples or `probes.data` are among them."""
    entries: dict[str, Any] = read_yaml(source / DESCRIPTION)
    entries.pop("excerpt", None)
    entries["artifacts"] = {name: artifact.model_dump() for name, artifact in artifacts.items()}
    if SAMPLES in artifacts or PROBES in artifacts:
        entries["excerpt"] = make_excerpt(report, source).model_dump()
    validate_schema(Submission, entries, DESCRIPTION)
    text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=100)
    (target / DESCRIPTION).write_text(text, encoding="utf-8")
    if read_yaml(target / DESCRIPTION) != entries:
        raise SubmissionError(f"{DESCRIPTION}: an entry is read back as another value; quote it in the source folder")
