"""The record of one measurement of a model besides its accuracy: figures, verdict and origin, in a JSON file of its own.

A folder has a record for each measurement that was made, beside an evidence file from which every figure can be computed
again without the model. A measurement can be added to a folder whose other files stay as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

from pydantic import ValidationError

from benchmark.artifacts import (
    CAUSAL_EVIDENCE,
    DETAIL_EVIDENCE,
    PREVIEW_EVIDENCE,
    PREVIEW_RECORD,
    REACH_EVIDENCE,
    REACH_RECORD,
    REPRESENTS_RECORD,
    ROTATION_EVIDENCE,
    USES_DETAIL_RECORD,
    USES_RECORD,
    known_version,
)
from benchmark.causal.detail.detail_verdict import DetailResult
from benchmark.causal.merges import MergeResult
from benchmark.causal.verdict import UseResult
from benchmark.errors import BenchmarkError
from benchmark.probing.version4.rotation_verdict import RotationResult
from benchmark.probing.written.figures import ReachFigures
from benchmark.runner.record import ModelEntry, Provenance, StrictModel, SuiteEntry
from benchmark.tasks.prompt_template import TRAINED

MEASUREMENT_SCHEMA_VERSION = 1


class MeasurementRecord(StrictModel):
    """What the records of all measurements hold.

    `version` is the version of the measurement; `official` tells whether the row may show it, `unofficial` why not.
    """

    FILE: ClassVar[str]
    EVIDENCE: ClassVar[str]

    schema_version: Annotated[int, known_version(MEASUREMENT_SCHEMA_VERSION)] = MEASUREMENT_SCHEMA_VERSION
    version: int
    official: bool
    unofficial: list[str]
    model: ModelEntry
    suite: SuiteEntry
    track: str = TRAINED
    evidence_sha256: str | None
    """SHA-256 of the evidence file; None if nothing could be measured."""
    provenance: Provenance

    def to_json(self) -> str:
        """The file's text."""
        return self.model_dump_json(indent=1) + "\n"


class RepresentsRecord(MeasurementRecord):
    """Do hidden states represent the state of the robot? Protocol 4 of the probes (docs/protocol4.md).

    `few_programs` tells whether the trained track was read with few programs, as the few-shot track always is.
    """

    FILE: ClassVar[str] = REPRESENTS_RECORD
    EVIDENCE: ClassVar[str] = ROTATION_EVIDENCE

    few_programs: bool = False
    rotation: RotationResult


class PreviewRecord(MeasurementRecord):
    """The verdict of `RepresentsRecord` from the first `seeds` of `planned_seeds` probe seeds; never official."""

    FILE: ClassVar[str] = PREVIEW_RECORD
    EVIDENCE: ClassVar[str] = PREVIEW_EVIDENCE

    few_programs: bool = False
    rotation: RotationResult
    seeds: int
    planned_seeds: int


class UsesRecord(MeasurementRecord):
    """Does the model use the state, and does it treat equal states alike? (docs/causal.md)

    `sites` are the names of the places of an edit; `merges` is None for a model without word probabilities.
    """

    FILE: ClassVar[str] = USES_RECORD
    EVIDENCE: ClassVar[str] = CAUSAL_EVIDENCE

    sites: list[str]
    use: UseResult
    merges: MergeResult | None


class ReachRecord(MeasurementRecord):
    """How far ahead do the states hold the rotation, and the paper's semantic content (docs/reproduction.md)."""

    FILE: ClassVar[str] = REACH_RECORD
    EVIDENCE: ClassVar[str] = REACH_EVIDENCE

    written: ReachFigures


class UsesDetailRecord(MeasurementRecord):
    """What else is known about the use of the state: other edits, sites and variables, whole programs (docs/causal.md).

    `sites` are the names of the places that were edited.
    """

    FILE: ClassVar[str] = USES_DETAIL_RECORD
    EVIDENCE: ClassVar[str] = DETAIL_EVIDENCE

    sites: list[str]
    detail: DetailResult


RecordT = TypeVar("RecordT", bound=MeasurementRecord)


def read_measurement(kind: type[RecordT], folder: Path) -> RecordT | None:
    """Read the record of a measurement from a folder; None if the folder has none.

    Raises:
        BenchmarkError: the file cannot be read, or an entry does not fit the schema.
    """
    path = folder / kind.FILE
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BenchmarkError(f"{path}: {error.strerror}; expected the record of a measurement") from error
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(str(part) for part in first["loc"]) or "the file"
        reason = first["msg"].removeprefix("Value error, ")
        raise BenchmarkError(
            f"{path}: {location}: {reason}; expected a record of schema {MEASUREMENT_SCHEMA_VERSION}, measure again"
        ) from error
