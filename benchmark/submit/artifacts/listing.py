"""The entries `artifacts` and `excerpt` of `submission.yaml`.

    artifacts:
      probes.data:
        sha256: 7f1c...
        size: 1679800
        urls: [hf:org/name/probes.data@main, https://host/7f1c...]
    excerpt:
      shown: ff3c...
      held_out: ff18...
      arrays: [model.probe, ...]

An artifact is a file of the submission that is not in its folder. The excerpt is what ranking needs of the samples and of
`probes.data`, so that a row has the same figures wherever its artifacts are.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from benchmark.artifacts import (
    CAUSAL_EVIDENCE,
    DESCRIPTION,
    DETAIL_EVIDENCE,
    FIGURES,
    MAX_BYTES,
    MAX_FILES,
    MAX_FOLDER_BYTES,
    MAX_OTHER_BYTES,
    PROBES,
    REACH_EVIDENCE,
    READINGS,
    ROTATION_EVIDENCE,
    SAMPLES,
)
from benchmark.errors import SubmissionError
from benchmark.files import MAX_YAML_BYTES, parse_yaml, read_bytes, sanitize
from benchmark.models.json_files import TRAINING_FILE
from benchmark.submit.artifacts.locations import check_location
from benchmark.submit.screening import WEIGHT_FILE

EVIDENCE_FILES = (
    SAMPLES, PROBES, READINGS, ROTATION_EVIDENCE, CAUSAL_EVIDENCE, DETAIL_EVIDENCE, REACH_EVIDENCE,
)  # fmt: skip
OTHER_FILES = ("tokenizer.json", TRAINING_FILE)
"""Files of a model that may be artifacts besides weights; its configuration stays in the folder, where it is screened."""
MAX_URLS, MAX_ARRAYS, MAX_TASKS = 50, 100, 100_000
ENTRY = b"artifacts"
_FIGURE = re.compile(rf"{FIGURES}/[A-Za-z0-9][A-Za-z0-9._-]{{0,79}}\.(png|svg)", re.ASCII)


def size_limit(name: str) -> int:
    """Largest size in bytes of an artifact of this name."""
    return MAX_FOLDER_BYTES if WEIGHT_FILE.fullmatch(name) else MAX_BYTES.get(name, MAX_OTHER_BYTES)


def is_artifact_name(name: str) -> bool:
    """Whether a file of this name, as a path in the submission's folder, may be an artifact."""
    return name in EVIDENCE_FILES or name in OTHER_FILES or bool(WEIGHT_FILE.fullmatch(name) or _FIGURE.fullmatch(name))


def _check_name(name: str) -> str:
    if not is_artifact_name(name):
        raise ValueError(
            f"{sanitize(name)} is no artifact; expected weights, samples, evidence, {', '.join(OTHER_FILES)} or "
            f"{FIGURES}/NAME.png"
        )
    return name


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Artifact(_Entry):
    """A file outside of the repository.

    Attributes:
        sha256: SHA-256 of its bytes.
        size: number of its bytes.
        urls: addresses from which it can be had, in the order in which they are tried; see `locations`.
    """

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=1, le=MAX_FOLDER_BYTES)]
    urls: Annotated[list[Annotated[str, AfterValidator(check_location)]], Field(max_length=MAX_URLS)] = []


def _check_artifacts(artifacts: dict[str, Artifact]) -> dict[str, Artifact]:
    for name, artifact in artifacts.items():
        if artifact.size > size_limit(name):
            raise ValueError(f"{name}: {artifact.size:,} bytes; at most {size_limit(name):,} are read")
    total = sum(artifact.size for artifact in artifacts.values())
    if total > MAX_FOLDER_BYTES:
        raise ValueError(
            f"{total:,} bytes in all; at most {MAX_FOLDER_BYTES:,}: put the weights on a hub, model: hf:..."
        )
    return artifacts


Artifacts = Annotated[
    dict[Annotated[str, AfterValidator(_check_name)], Artifact],
    Field(max_length=MAX_FILES),
    AfterValidator(_check_artifacts),
]
_ARTIFACTS: TypeAdapter[dict[str, Artifact]] = TypeAdapter(Artifacts)
Bits = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2})+$", max_length=MAX_TASKS // 4)]


class Excerpt(_Entry):
    """What ranking needs of artifacts.

    Attributes:
        shown, held_out: the solved test tasks, one bit per task as `numpy.packbits` packs them, in hexadecimal digits.
        arrays: names of the arrays of `probes.data`; empty for a model without hidden states.
    """

    shown: Bits
    held_out: Bits
    arrays: Annotated[
        list[Annotated[str, StringConstraints(pattern=r"^[\w.-]{1,80}$")]], Field(max_length=MAX_ARRAYS)
    ] = []

    def solved(self, metric: str, tasks: int) -> np.ndarray:
        """bool [N], the solved tasks by the metric `shown` or `held_out`.

        Raises:
            SubmissionError: it is of another number of tasks.
        """
        packed = np.frombuffer(bytes.fromhex(getattr(self, metric)), np.uint8)
        if len(packed) != -(-tasks // 8):
            raise SubmissionError(
                f"{DESCRIPTION}: excerpt.{metric}: {len(packed)} bytes; expected those of {tasks:,} tasks"
            )
        return np.unpackbits(packed, count=tasks).astype(bool)


def pack_solved(solved: np.ndarray) -> str:
    """The hexadecimal digits of solved tasks, bool [N]."""
    return np.packbits(solved).tobytes().hex()


def listed_artifacts(folder: Path) -> dict[str, Artifact]:
    """The artifacts that a folder lists, by file name; empty for a run, and for a submission that holds all of its files.

    Raises:
        SubmissionError: `submission.yaml` or its entry `artifacts` is invalid.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        return {}
    content = read_bytes(path, MAX_YAML_BYTES)
    return _parse(content) if ENTRY in content else {}


def is_stored_outside(folder: Path, name: str) -> bool:
    """Whether a file is not in a folder, but listed there as an artifact; errors as of `listed_artifacts`."""
    return not (folder / name).is_file() and name in listed_artifacts(folder)


def read_description(folder: Path) -> dict[str, Any]:
    """The entries of `submission.yaml`, not yet checked; not to be altered. Equal contents are parsed once, for a while.

    Raises:
        SubmissionError: it cannot be read.
    """
    return _parse_entries(read_bytes(folder / DESCRIPTION, MAX_YAML_BYTES))


@lru_cache(maxsize=64)
def _parse_entries(content: bytes) -> dict[str, Any]:
    return parse_yaml(content, DESCRIPTION)


@lru_cache(maxsize=2048)
def _parse(content: bytes) -> dict[str, Artifact]:
    try:
        return _ARTIFACTS.validate_python(_parse_entries(content).get(ENTRY.decode(), {}))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(["artifacts", *(sanitize(part).strip("'") for part in first["loc"])])
        message = " ".join(first["msg"].removeprefix("Value error, ").split())
        raise SubmissionError(f"{DESCRIPTION}: {field}: {message}; see docs/artifacts.md") from error
