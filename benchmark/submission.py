"""A submission: what its folder may hold, the schema of `submission.yaml`, and its status.

    submissions/2026-11-25_gpt-laptop/
        submission.yaml     whose model, from where, trained on what, evaluated how, and what is claimed
        record.json, samples.jsonl.gz, probes.data, readings.json.gz, frame.json, figures/    of an official run
        README.md           for readers
        status.json         written by the verification alone
        config.json, tokenizer.json, *.safetensors, ...         the model, where it is small

A submission is data: `screen_folder` says whether its files may be read at all.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from benchmark.bounds import check_folder_date, known_version
from benchmark.errors import SubmissionError
from benchmark.images import check_image
from benchmark.intake import (
    TEXT_BYTES,
    YAML_BYTES,
    read_bytes,
    read_json,
    read_yaml,
    shown,
    tensor_header,
)
from benchmark.screening import INDEX, WEIGHTS, check_index, screen_model_file

DESCRIPTION, RECORD, SAMPLES, PROBES, READINGS, FRAME, README, STATUS = (
    "submission.yaml", "record.json", "samples.jsonl.gz", "probes.data", "readings.json.gz", "frame.json", "README.md",
    "status.json",
)  # fmt: skip
FIGURES = "figures"
OWN_WEIGHTS, WITHHELD = "path:.", "withheld"
UNFILLED = "FILL IN"
MODEL_FILES = {
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", INDEX, "training.json",
}  # fmt: skip
LIMITS = {DESCRIPTION: YAML_BYTES, README: TEXT_BYTES, RECORD: 4_000_000, SAMPLES: 8_000_000, PROBES: 4_000_000,
          READINGS: 200_000, FRAME: 200_000, STATUS: 64_000, "tokenizer.json": 20_000_000}  # fmt: skip
OTHER_BYTES, FOLDER_BYTES, FILES = 2_000_000, 64_000_000, 100
"""Limits of a file that `LIMITS` does not name, of a folder, and how many files it may have."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
STATUSES = SELF_REPORTED, VALIDATED, REPRODUCED, FLAGGED, WITHDRAWN = (
    "self_reported", "validated", "reproduced", "flagged", "withdrawn",
)  # fmt: skip


Model = TypeVar("Model", bound=BaseModel)


def _filled(text: str) -> str:
    if UNFILLED in text:
        raise ValueError(f"still says {UNFILLED}")
    return text


def _licence(text: str) -> str:
    try:
        return str(canonicalize_license_expression(text))
    except InvalidLicenseExpression as problem:
        raise ValueError("expected an SPDX expression, such as Apache-2.0") from problem


def _model(text: str) -> str:
    if text in (OWN_WEIGHTS, WITHHELD) or re.fullmatch(r"baseline:[a-z][a-z0-9-]*", text):
        return text
    if re.fullmatch(r"hf:[\w.-]+/[\w.-]+@[0-9a-f]{40}", text, re.ASCII):
        return text
    raise ValueError(f"expected {OWN_WEIGHTS}, hf:org/name@(40 digits of a commit), baseline:NAME or {WITHHELD}")


def _time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


def _one_line(text: str) -> str:
    if "\n" in text or "\r" in text:
        raise ValueError("expected one line")
    return text


Line = Annotated[
    str, StringConstraints(min_length=1, max_length=300), AfterValidator(_one_line), AfterValidator(_filled)
]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Count = Annotated[int, Field(ge=0, le=10**15)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[float, Field(ge=0, le=1e10)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Evaluation(_Strict):
    """How the record was made."""

    command: Line
    commit: Commit
    hardware: Line
    seconds: Amount


class Training(_Strict):
    """What the model was trained on.

    `seeds` are those of generated tasks; `alternative_semantics_seen` is null where it is not known, as of most
    pretrained models.
    """

    command: Line | None = None
    data: Line | None = None
    suite: Line | None = None
    tasks: Count | None = None
    seeds: Annotated[list[Seed], Field(max_length=1000)] = []
    minutes: Amount | None = None
    threads: Count | None = None
    processes: Count | None = None
    hardware: Line | None = None
    alternative_semantics_seen: bool | None


class Claims(_Strict):
    """Numbers that the authors state elsewhere, as shares; verification holds them to 0.0005."""

    shown: Share | None = None
    held_out: Share | None = None
    exact: Share | None = None
    valid: Share | None = None
    skill: Annotated[float, Field(ge=-100, le=1)] | None = None
    delta: Annotated[float, Field(ge=-100, le=100)] | None = None
    verdict: Literal["REPRESENTS", "RECORD-ONLY", "INCONCLUSIVE"] | None = None


class Submission(_Strict):
    """`submission.yaml`.

    Attributes:
        name: of the row.
        family: of the model, such as `llama`.
        model: `path:.` (the weights in this folder), `hf:org/name@COMMIT`, `baseline:NAME`, or `withheld`.
        digest: SHA-256 over the model's files, as a run computes and records it.
        parameters: number of stored weights.
        evaluation, training, claimed: see there.
        authors: who answers for it.
        licence: of the weights, as an SPDX expression.
        attempts: how many models were evaluated on this suite's test set before this one was chosen, itself counted.
        url: where to read on.
    """

    name: Name
    family: Line
    model: Annotated[Line, AfterValidator(_model)]
    digest: Digest
    parameters: Count
    evaluation: Evaluation
    training: Training
    authors: Annotated[list[Line], Field(min_length=1, max_length=50)]
    licence: Annotated[Line, AfterValidator(_licence)]
    attempts: Annotated[int, Field(ge=1, le=10**6)]
    claimed: Claims = Claims()
    url: Annotated[Line, StringConstraints(pattern=r"^https://[!-~]+$")] | None = None


class Rerun(_Strict):
    """What was generated again with the weights."""

    share: Annotated[float, Field(gt=0, le=1)]
    shards: Annotated[int, Field(ge=1)]
    samples: Annotated[int, Field(ge=1)]
    processor: Line


class Audit(_Strict):
    """Accuracy on the public suite and on tasks whose seed comes from the weights."""

    seed: Seed
    tasks: Count
    public: Share
    audit: Share
    difference: float
    low: float
    high: float


class Status(_Strict):
    """`status.json`: what the verification found, and of which bytes.

    `files` is `files_digest` of the folder then, `source` that of the code that checked.
    """

    schema_version: Annotated[Literal[1], known_version(1)] = 1
    status: Literal["self_reported", "validated", "reproduced", "flagged", "withdrawn"]
    reason: Line | None = None
    checked: Annotated[list[Line], Field(max_length=100)] = []
    rerun: Rerun | None = None
    audit: Audit | None = None
    files: Digest
    source: Digest
    at: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$"), AfterValidator(_time)]


def read_submission(folder: Path) -> Submission:
    """A folder's `submission.yaml`; raises `SubmissionError` naming the first entry that does not fit."""
    return checked(Submission, read_yaml(folder / DESCRIPTION), DESCRIPTION)


def read_status(folder: Path) -> Status | None:
    """A folder's status, None if nobody has checked it; `self_reported` where its files were changed afterwards.

    A flagged or withdrawn submission stays so whatever is changed.
    """
    if not os.path.lexists(folder / STATUS):
        return None
    status = checked(Status, read_json(folder / STATUS, LIMITS[STATUS]), STATUS)
    if status.status in (VALIDATED, REPRODUCED) and files_digest(folder) != status.files:
        return status.model_copy(update={"status": SELF_REPORTED, "reason": "files were changed after the check"})
    return status


def checked(schema: type[Model], found: Any, where: str) -> Model:
    """What was read, as its schema; raises `SubmissionError` naming the first entry that does not fit."""
    try:
        return schema.model_validate(found)
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False)[0]
        place = ".".join(shown(part).strip("'") for part in first["loc"]) or "the file"
        says = " ".join(first["msg"].removeprefix("Value error, ").split())
        raise SubmissionError(f"{where}: {place}: {says}; see docs/submitting.md") from problem


def screen_folder(folder: Path, incoming: bool = False) -> list[Path]:
    """The files of a submission, once none is of a kind that may not be read.

    Args:
        folder: of the submission.
        incoming: it comes from outside, so it may not bring a status.

    Raises:
        SubmissionError: on the first file that is refused.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise SubmissionError(f"{shown(str(folder))}: no folder; expected submissions/NAME")
    if not NAME.fullmatch(folder.resolve().name):
        raise SubmissionError(f"{shown(folder.name)}: a folder's name has letters, digits, '.', '_' and '-' only")
    check_folder_date(folder.resolve().name)
    files = _files(folder, "") + (_files(folder, FIGURES) if (folder / FIGURES).is_dir() else [])
    if len(files) > FILES:
        raise SubmissionError(f"{len(files):,} files; a submission has at most {FILES}")
    total = sum(path.stat().st_size for path in files)
    if total > FOLDER_BYTES:
        raise SubmissionError(
            f"{total:,} bytes in all; at most {FOLDER_BYTES:,}: put the weights on a hub, model: hf:..."
        )
    if incoming and (folder / STATUS).exists():
        raise SubmissionError(f"{STATUS}: only the verification writes it; remove it")
    for path in files:
        _screen_file(path)
    if (folder / INDEX).exists():
        check_index(read_json(folder / INDEX, OTHER_BYTES), {path.name for path in files})
    return files


def _files(folder: Path, below: str) -> list[Path]:
    """The plain files of a folder or of its figures; what is neither is refused."""
    found = []
    with os.scandir(folder / below) as listing:
        entries = list(islice(listing, FILES + 2))
    if len(entries) > FILES + 1:
        raise SubmissionError(f"more than {FILES} files; a submission has at most {FILES}")
    for entry in sorted(entries, key=lambda one: one.name):
        inside = f"{below}/{entry.name}" if below else entry.name
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            raise SubmissionError(f"{shown(inside)}: a link; a submission holds plain files")
        if stat.S_ISDIR(mode):
            if inside != FIGURES:
                raise SubmissionError(f"{shown(inside)}: a folder; the only one in a submission is {FIGURES}")
            continue
        if not stat.S_ISREG(mode):
            raise SubmissionError(f"{shown(inside)}: neither a file nor a folder")
        found.append(Path(entry.path))
        if len(found) > FILES:
            raise SubmissionError(f"more than {FILES} files; a submission has at most {FILES}")
    return found


def _screen_file(path: Path) -> None:
    name = path.name
    if path.parent.name == FIGURES and NAME.fullmatch(name):
        if path.suffix not in (".png", ".svg"):
            raise SubmissionError(f"{FIGURES}/{shown(name)}: expected .png or .svg")
        return check_image(f"{FIGURES}/{name}", read_bytes(path, OTHER_BYTES))
    known = name in LIMITS or name in MODEL_FILES
    if not known and not WEIGHTS.fullmatch(name):
        raise SubmissionError(f"{shown(name)}: no file of a submission; docs/submitting.md lists them")
    if WEIGHTS.fullmatch(name) or name == PROBES:
        size, limit = path.stat().st_size, LIMITS.get(name, FOLDER_BYTES)
        if size > limit:
            raise SubmissionError(f"{name}: {size:,} bytes; at most {limit:,} are read")
        tensor_header(path)
    elif name in MODEL_FILES:
        screen_model_file(name, read_json(path, LIMITS.get(name, OTHER_BYTES)))
    return None


def files_digest(folder: Path) -> str:
    """SHA-256 over name and content of every file of a submission, its status left out."""
    whole = hashlib.sha256()
    for path in own_files(folder):
        content = read_bytes(path, FOLDER_BYTES)
        whole.update(path.relative_to(folder).as_posix().encode() + b"\0" + hashlib.sha256(content).digest())
    return whole.hexdigest()


def own_files(folder: Path) -> list[Path]:
    """The files of a submission, its status left out, by name; raises as `screen_folder` does on links and the like."""
    files = _files(folder, "") + (_files(folder, FIGURES) if (folder / FIGURES).is_dir() else [])
    return sorted(path for path in files if path.name != STATUS)
