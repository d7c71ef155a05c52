"""What tables show of `represents.json`, `uses.json` and `reach.json`: verdict and figure of each measurement besides accuracy.

Only entries that tables need are read, so that the board loads neither SciPy nor the compiler. A record is shown only if it
is official, fits the row's `record.json`, and its evidence is beside it; `submit verify` computes the figures again.
"""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmark.artifacts import (
    CAUSAL_EVIDENCE,
    MAX_BYTES,
    REACH_EVIDENCE,
    REACH_RECORD,
    REPRESENTS_RECORD,
    ROTATION_EVIDENCE,
    USES_RECORD,
    known_version,
)
from benchmark.errors import BenchmarkError
from benchmark.files import read_bytes, sanitize
from benchmark.runner.record import Record, SuiteEntry
from benchmark.statistics import Estimate
from benchmark.submit.artifacts.listing import listed_artifacts
from benchmark.tasks.prompt_template import TRAINED

SCHEMA_VERSION = 1
"""Newest schema of the records; a test compares it with the one that is written."""
NOT_APPLICABLE = "N/A"
UNDEFINED = "-"
REPRESENTS, USES, MERGES = "represents", "uses", "merges"
MEASUREMENT_COLUMNS = (REPRESENTS, USES, MERGES)


class _Entry(BaseModel):
    """Entries that tables need; others are ignored, numbers are finite."""

    # Built where a file is read, so that a board without such files starts faster.
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, defer_build=True)


class _ModelDigest(_Entry):
    digest: str


class MeasurementSummary(_Entry):
    """What every record holds."""

    schema_version: Annotated[int, known_version(SCHEMA_VERSION)]
    version: int
    official: bool
    unofficial: list[str]
    model: _ModelDigest
    suite: SuiteEntry
    track: str = TRAINED
    evidence_sha256: str | None


class RotationSummary(_Entry):
    """Verdict of protocol 4 and delta on unseen prefixes with its 95% interval."""

    verdict: Literal["REPRESENTS", "RECORD-ONLY", "INCONCLUSIVE", "NOTHING READ"]
    reason: str
    delta: Estimate


class RepresentsSummary(MeasurementSummary):
    """`represents.json`."""

    few_programs: bool = False
    rotation: RotationSummary


class UseScoreSummary(_Entry):
    """Use on strict pairs with its 95% interval, and the margin that decides."""

    use: Estimate
    margin: Estimate


class UseSummary(_Entry):
    """Verdict of the causal measurement; `strict` is None if it is N/A."""

    verdict: Literal["USES", "NOT SHOWN", "N/A"]
    reason: str
    strict: UseScoreSummary | None = None


class MergeSummary(_Entry):
    """The figure and its floor; None where they are not defined."""

    merges: Estimate | None
    floor: Estimate | None


class UsesSummary(MeasurementSummary):
    """`uses.json`."""

    use: UseSummary
    merges: MergeSummary | None


class AheadSummary(_Entry):
    """Rotation so many words beyond the next one: skill, that of the token history, and delta; 95% intervals."""

    offset: int
    skill: Estimate
    history: float
    delta: Estimate


class WrittenSummary(_Entry):
    """Figures on the programs that the model wrote; `reach` is None if it could not be measured."""

    reason: str
    programs: int
    distinct: int
    reach: int | None
    ahead: list[AheadSummary]


class ReachSummary(MeasurementSummary):
    """`reach.json`."""

    written: WrittenSummary


@dataclass(frozen=True)
class Measurements:
    """The measurements of one row that are shown; None for one that is missing or ignored.

    Attributes:
        represents, uses: the records.
        ignored: a line for each file that is not shown.
        reach: the figures of the record on programs that the model wrote.
    """

    represents: RepresentsSummary | None = None
    uses: UsesSummary | None = None
    ignored: tuple[str, ...] = ()
    reach: WrittenSummary | None = None

    @property
    def estimates(self) -> dict[str, Estimate | None]:
        """Figures with intervals, by the name they have in JSON and CSV."""
        strict = self.uses.use.strict if self.uses else None
        merges = self.uses.merges if self.uses else None
        return {
            "represents_delta": self.represents.rotation.delta if self.represents else None,
            "use": strict.use if strict else None,
            "use_margin": strict.margin if strict else None,
            "merges": merges.merges if merges else None,
            "merges_floor": merges.floor if merges else None,
            "reach_delta": self.reach.ahead[0].delta if self.reach and self.reach.ahead else None,
        }

    @property
    def verdicts(self) -> dict[str, str | None]:
        """Verdicts and their reasons, by the name they have in JSON and CSV."""
        rotation = self.represents.rotation if self.represents else None
        use = self.uses.use if self.uses else None
        return {
            REPRESENTS: rotation.verdict if rotation else None,
            f"{REPRESENTS}_reason": rotation.reason if rotation else None,
            USES: use.verdict if use else None,
            f"{USES}_reason": use.reason if use else None,
        }

    @property
    def has_few_programs(self) -> bool:
        """Whether *Represents* was read from fewer programs than in other rows of the trained track."""
        return self.represents is not None and self.represents.few_programs

    @property
    def comparable(self) -> Measurements:
        """What is compared with other rows: without a *Represents* that was read from few programs."""
        return replace(self, represents=None) if self.has_few_programs else self

    def note(self, column: str) -> str:
        """What a cell of `MEASUREMENT_COLUMNS` says besides verdict and figure; empty for most."""
        return "few programs" if column == REPRESENTS and self.has_few_programs else ""

    def figure(self, column: str) -> Estimate | None:
        """The figure of a column of `MEASUREMENT_COLUMNS`."""
        return self.estimates[{REPRESENTS: "represents_delta", USES: "use", MERGES: "merges"}[column]]


NO_MEASUREMENTS = Measurements()
SummaryT = TypeVar("SummaryT", bound=MeasurementSummary)


def read_measurements(folder: Path, record: Record) -> Measurements:
    """Read the measurements of a submission that its row may show.

    Args:
        folder: folder of the submission.
        record: its record.

    Raises:
        BenchmarkError: a file cannot be read, or an entry does not fit the schema.
    """
    represents = _read_summary(RepresentsSummary, folder / REPRESENTS_RECORD)
    uses = _read_summary(UsesSummary, folder / USES_RECORD)
    ignored = []
    if represents is not None:
        problem = find_misfit(represents, folder / ROTATION_EVIDENCE, record, is_measured=True)
        if problem:
            ignored.append(f"{folder.name}/{REPRESENTS_RECORD} is not shown: {problem}")
            represents = None
    if uses is not None:
        is_measured = uses.use.verdict != NOT_APPLICABLE or uses.merges is not None
        problem = find_misfit(uses, folder / CAUSAL_EVIDENCE, record, is_measured)
        if problem:
            ignored.append(f"{folder.name}/{USES_RECORD} is not shown: {problem}")
            uses = None
    reach = _read_summary(ReachSummary, folder / REACH_RECORD)
    if reach is not None:
        problem = find_misfit(reach, folder / REACH_EVIDENCE, record, is_measured=not reach.written.reason)
        if problem:
            ignored.append(f"{folder.name}/{REACH_RECORD} is not shown: {problem}")
            reach = None
    return Measurements(represents, uses, tuple(ignored), reach.written if reach else None)


def read_measurements_of_run(folder: Path, record: Record) -> Measurements:
    """Read the measurements of a run for its own page: as `read_measurements`, though they need not be official."""
    represents, uses = (
        _read_summary(RepresentsSummary, folder / REPRESENTS_RECORD),
        _read_summary(UsesSummary, folder / USES_RECORD),
    )
    official = {"official": True}
    if represents is not None and find_misfit(
        represents.model_copy(update=official), folder / ROTATION_EVIDENCE, record, is_measured=True
    ):
        represents = None
    if uses is not None:
        is_measured = uses.use.verdict != NOT_APPLICABLE or uses.merges is not None
        if find_misfit(uses.model_copy(update=official), folder / CAUSAL_EVIDENCE, record, is_measured):
            uses = None
    return Measurements(represents, uses)


def _read_summary(kind: type[SummaryT], path: Path) -> SummaryT | None:
    if not path.exists():
        return None
    try:
        return kind.model_validate_json(read_bytes(path, MAX_BYTES[path.name]))
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BenchmarkError(
            f"{path}: {location}: {first['msg'].removeprefix('Value error, ')}; expected a record of schema "
            f"{SCHEMA_VERSION}, measure again"
        ) from error


def find_misfit(summary: MeasurementSummary, evidence: Path, record: Record, is_measured: bool) -> str:
    """The reason for which a row does not show a measurement; empty if it does.

    Args:
        summary: the record of the measurement.
        evidence: path of its evidence file, which may be an artifact instead.
        record: the record of the run beside it.
        is_measured: whether the record has figures, which need evidence.
    """
    if not summary.official:
        return f"not official ({sanitize('; '.join(summary.unofficial))[1:-1]})"
    if summary.model.digest != record.model.digest:
        return f"it is of model {sanitize(summary.model.digest[:12])}, record.json of {record.model.digest[:12]}"
    suites = [(suite.name, suite.version, suite.seed, suite.sha256) for suite in (summary.suite, record.suite)]
    if suites[0] != suites[1]:
        return f"it is of suite {sanitize(summary.suite.name)} v{summary.suite.version}, record.json of another"
    if summary.track != record.track:
        return f"it is of track {sanitize(summary.track)}, record.json of {record.track}"
    if not is_measured and summary.evidence_sha256 is None:
        return ""
    artifact = None if evidence.is_file() else listed_artifacts(evidence.parent).get(evidence.name)
    if artifact is not None:
        is_same = artifact.sha256 == summary.evidence_sha256
        return "" if is_same else f"{evidence.name} is listed with another SHA-256 than it says"
    if not evidence.is_file():
        return f"its evidence {evidence.name} is missing"
    digest = hashlib.sha256(read_bytes(evidence, MAX_BYTES[evidence.name])).hexdigest()
    return "" if digest == summary.evidence_sha256 else f"{evidence.name} has another SHA-256 than it says"


def shorten_reason(reason: str, width: int) -> str:
    """The first clause of a reason, without its subject and cut at a word."""
    return textwrap.shorten(reason.partition(";")[0].removeprefix("the model "), width, placeholder=" ...")


def format_skill(estimate: Estimate | None) -> str:
    """Format a skill or a difference of skills with its 95% interval; `-` if undefined."""
    if estimate is None:
        return UNDEFINED
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def format_figure(estimate: Estimate | None, digits: int = 3) -> str:
    """Format a figure with its 95% interval, such as `.912 [.879, .942]`; empty if undefined."""
    if estimate is None:
        return ""
    value, low, high = (
        f"{round(part, digits) + 0.0:.{digits}f}" for part in (estimate.value, estimate.low, estimate.high)
    )
    return re.sub(r"\b0\.", ".", f"{value} [{low}, {high}]")


def measurement_cells(
    measurements: Measurements, digits: int = 3, reason_width: int = 40, escape: Callable[[str], str] = str
) -> dict[str, str]:
    """Text of each column of `MEASUREMENT_COLUMNS`: verdict and figure; `-` if not measured.

    Args:
        measurements: those of the row.
        digits: decimal digits of figures.
        reason_width: characters of the reason for N/A.
        escape: applied to verdict and reason, which are text of the submission.
    """
    cells = {}
    for column in MEASUREMENT_COLUMNS:
        verdict = measurements.verdicts.get(column) or ""
        figure = format_figure(measurements.figure(column), digits)
        if verdict == NOT_APPLICABLE:
            figure = f"({escape(shorten_reason(measurements.verdicts[f'{column}_reason'] or '', reason_width))})"
        text = " ".join(filter(None, (escape(verdict), figure))) or UNDEFINED
        cells[column] = ", ".join(filter(None, (text, measurements.note(column))))
    return cells


def measured_columns(rows: Sequence[Measurements]) -> list[str]:
    """The columns of `MEASUREMENT_COLUMNS` in which a row has a verdict or a figure."""
    return [
        column
        for column in MEASUREMENT_COLUMNS
        if any(row.verdicts.get(column) or row.figure(column) is not None for row in rows)
    ]
