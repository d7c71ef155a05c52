"""Schemas of a submission: `submission.yaml` and `status.json`.

    submissions/2026-11-25_gpt-laptop/
        submission.yaml     authors, location of the model, training data, evaluation command, claimed numbers
        record.json, samples.jsonl.gz, probes.data, readings.json.gz, frame.json, figures/    files of an official run
        README.md           description
        status.json         written by the verification only
        config.json, tokenizer.json, *.safetensors, ...         files of the model, up to 64 MB

Samples, evidence, weights and figures may be outside of the folder: `artifacts` lists them, see docs/artifacts.md.
A submission is data: `folder.screen_folder` decides whether its files may be read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from benchmark.artifacts import (
    DESCRIPTION,
    MAX_BYTES,
    SAMPLES,
    STATUS,
    known_version,
)
from benchmark.errors import SubmissionError
from benchmark.files import (
    read_json,
    sanitize,
)
from benchmark.submit.artifacts.listing import Artifacts, Excerpt, read_description
from benchmark.submit.draft.questions import is_question
from benchmark.submit.folder import files_digest

LOCAL_WEIGHTS, WITHHELD = "path:.", "withheld"
OLD_PLACEHOLDER = "FILL IN"
"""What earlier versions of `submit new` wrote for an entry that is not known."""
STATUSES = SELF_REPORTED, VALIDATED, REPRODUCED, FLAGGED, WITHDRAWN = (
    "self_reported", "validated", "reproduced", "flagged", "withdrawn",
)  # fmt: skip


ModelT = TypeVar("ModelT", bound=BaseModel)


def _check_answered(text: str) -> str:
    if OLD_PLACEHOLDER in text:
        raise ValueError(f"still says {OLD_PLACEHOLDER}")
    if is_question(text):
        raise ValueError("still a question; write the answer")
    return text


def _check_licence(text: str) -> str:
    try:
        return str(canonicalize_license_expression(text))
    except InvalidLicenseExpression as error:
        raise ValueError("expected an SPDX expression, such as Apache-2.0") from error


def _check_model(text: str) -> str:
    if text in (LOCAL_WEIGHTS, WITHHELD) or re.fullmatch(r"baseline:[a-z][a-z0-9-]*", text):
        return text
    if re.fullmatch(r"hf:[\w.-]+/[\w.-]+@[0-9a-f]{40}", text, re.ASCII):
        return text
    raise ValueError(f"expected {LOCAL_WEIGHTS}, hf:org/name@(40 digits of a commit), baseline:NAME or {WITHHELD}")


def _check_time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


def _check_one_line(text: str) -> str:
    if "\n" in text or "\r" in text:
        raise ValueError("expected one line")
    return text


Line = Annotated[
    str,
    StringConstraints(min_length=1, max_length=300),
    AfterValidator(_check_one_line),
    AfterValidator(_check_answered),
]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Count = Annotated[int, Field(ge=0, le=10**15)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Quantity = Annotated[float, Field(ge=0, le=1e10)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Evaluation(_Strict):
    """Command, commit, hardware and duration of the evaluation."""

    command: Line
    commit: Commit
    hardware: Line
    seconds: Quantity


class Training(_Strict):
    """Training data and cost of the model.

    `seeds` are the seeds of generated tasks; `alternative_semantics_seen` is null if unknown, as for most pretrained models.
    """

    command: Line | None = None
    data: Line | None = None
    suite: Line | None = None
    tasks: Count | None = None
    seeds: Annotated[list[Seed], Field(max_length=1000)] = []
    minutes: Quantity | None = None
    threads: Count | None = None
    processes: Count | None = None
    hardware: Line | None = None
    alternative_semantics_seen: bool | None


class Claims(_Strict):
    """Numbers that the authors report elsewhere, as fractions; verification compares them with a tolerance of 0.0005."""

    shown: Fraction | None = None
    held_out: Fraction | None = None
    exact: Fraction | None = None
    valid: Fraction | None = None
    skill: Annotated[float, Field(ge=-100, le=1)] | None = None
    delta: Annotated[float, Field(ge=-100, le=100)] | None = None
    verdict: Literal["REPRESENTS", "RECORD-ONLY", "INCONCLUSIVE"] | None = None


class Submission(_Strict):
    """`submission.yaml`.

    Attributes:
        name: name of the row.
        family: family of the model, such as `llama`.
        model: `path:.` (the weights in this folder), `hf:org/name@COMMIT`, `baseline:NAME`, or `withheld`.
        digest: SHA-256 of the model's files, as in the record.
        parameters: number of stored weights.
        evaluation, training, claimed: see the classes.
        authors: names of the authors.
        licence: licence of the weights, as an SPDX expression.
        attempts: number of models evaluated on the test set of this suite before this one was chosen, including this one.
        url: page with more information.
        artifacts: files that are not in the folder, by name.
        excerpt: what ranking needs of them.
    """

    name: Name
    family: Line
    model: Annotated[Line, AfterValidator(_check_model)]
    digest: Digest
    parameters: Count
    evaluation: Evaluation
    training: Training
    authors: Annotated[list[Line], Field(min_length=1, max_length=50)]
    licence: Annotated[Line, AfterValidator(_check_licence)]
    attempts: Annotated[int, Field(ge=1, le=10**6)]
    claimed: Claims = Claims()
    url: Annotated[Line, StringConstraints(pattern=r"^https://[!-~]+$")] | None = None
    artifacts: Artifacts = {}
    excerpt: Excerpt | None = None

    @model_validator(mode="after")
    def _check_excerpt(self) -> Submission:
        if SAMPLES in self.artifacts and self.excerpt is None:
            raise ValueError(f"artifacts lists {SAMPLES}, so expected an excerpt; submit publish writes both")
        return self


class Rerun(_Strict):
    """Result of a rerun: fraction of the shards, number of shards and of samples, and the processor."""

    share: Annotated[float, Field(gt=0, le=1)]
    shards: Annotated[int, Field(ge=1)]
    samples: Annotated[int, Field(ge=1)]
    processor: Line


class Audit(_Strict):
    """Accuracy on the public suite and on the audit suite, and the interval of their difference."""

    seed: Seed
    tasks: Count
    public: Fraction
    audit: Fraction
    difference: float
    low: float
    high: float


class Status(_Strict):
    """`status.json`: result of the verification.

    `files` is the `files_digest` of the verified folder, `source` the digest of the verifying source.
    """

    schema_version: Annotated[Literal[1], known_version(1)] = 1
    status: Literal["self_reported", "validated", "reproduced", "flagged", "withdrawn"]
    reason: Line | None = None
    checked: Annotated[list[Line], Field(max_length=100)] = []
    rerun: Rerun | None = None
    audit: Audit | None = None
    files: Digest
    source: Digest
    at: Annotated[
        str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$"), AfterValidator(_check_time)
    ]


def read_submission(folder: Path) -> Submission:
    """Read `submission.yaml` of a folder; raises `SubmissionError` that names the first invalid entry."""
    return validate_schema(Submission, read_description(folder), DESCRIPTION)


def read_status(folder: Path, digest: Callable[[Path], str] = files_digest) -> Status | None:
    """Read `status.json` of a folder; None if there is none.

    The status is `self_reported` if the files changed after the verification; flagged and withdrawn submissions keep theirs.

    Args:
        folder: folder of the submission.
        digest: computes `files_digest`, or reads it from where it was stored.
    """
    if not os.path.lexists(folder / STATUS):
        return None
    status = validate_schema(Status, read_json(folder / STATUS, MAX_BYTES[STATUS]), STATUS)
    if status.status in (VALIDATED, REPRODUCED) and digest(folder) != status.files:
        return status.model_copy(update={"status": SELF_REPORTED, "reason": "files were changed after the check"})
    return status


def validate_schema(schema: type[ModelT], content: Any, file_name: str) -> ModelT:
    """Validate the content of a file with a pydantic model.

    Args:
        schema: class of the model.
        content: parsed content of the file.
        file_name: name of the file in messages.

    Raises:
        SubmissionError: an entry is invalid; the message names the first one.
    """
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(sanitize(part).strip("'") for part in first["loc"]) or "the file"
        message = " ".join(first["msg"].removeprefix("Value error, ").split())
        raise SubmissionError(f"{file_name}: {field}: {message}; see docs/submitting.md") from error
