"""Result of a verification: completed checks, and the entries that differ from the recomputed values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints

from benchmark.errors import BenchmarkError
from benchmark.runner.record import Record
from benchmark.submit.artifacts.sources import format_missing
from benchmark.submit.schema import Digest, Submission

_SCALARS = (str, int, bool, type(None))


class Sample(BaseModel, extra="forbid", frozen=True, strict=True):
    """A line of `samples.jsonl.gz`.

    `sample` is set in the stage `sampled` only; `outcome`, `shown`, `held_out` and `exact` in the stage `test` only.
    """

    stage: Literal["test", "generated", "constrained", "sampled"]
    task: Annotated[int, Field(ge=0, lt=10**6)]
    prompt: Digest
    text: Annotated[str, StringConstraints(max_length=10_000)]
    tokens: Annotated[int, Field(ge=0, lt=10**6)]
    finished: bool
    raw: Annotated[str, StringConstraints(max_length=20_000)] | None = None
    sample: Annotated[int, Field(ge=0, lt=10**4)] | None = None
    outcome: Literal["solved", "empty", "unparsable", "step limit", "wrong output"] | None = None
    shown: bool | None = None
    held_out: bool | None = None
    exact: bool | None = None


@dataclass(frozen=True)
class Mismatch:
    """An entry whose claimed value is not the recomputed one.

    Attributes:
        entry: path of the entry, such as `accuracy.shown.value`.
        claimed: value that the submission states.
        recomputed: value that verification computes; None if the entry has no counterpart.
    """

    entry: str
    claimed: Any
    recomputed: Any


@dataclass
class VerificationReport:
    """Content of a submission, and the result of its verification.

    Attributes:
        submission: `submission.yaml`.
        record: `record.json`.
        samples: lines of `samples.jsonl.gz`.
        checks: completed checks, one line per check.
        mismatches: entries with a recomputed value that differs; empty if the submission verifies.
        missing: artifacts that could not be had, and why, by file name.
        unverified: what could therefore not be checked.
    """

    submission: Submission
    record: Record
    samples: list[Sample]
    checks: list[str] = field(default_factory=list)
    mismatches: list[Mismatch] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    unverified: list[str] = field(default_factory=list)

    def lacks(self, name: str, checks: str) -> bool:
        """Whether an artifact could not be had; if so, note the checks that are left out for that."""
        if name in self.missing and checks not in self.unverified:
            self.unverified.append(checks)
        return name in self.missing

    def describe_missing(self) -> str:
        """Which artifacts could not be had and what was therefore not verified, in a phrase; empty if there are none."""
        if not self.missing:
            return ""
        return f"{format_missing(self.missing)}, so not verified: {'; '.join(self.unverified)}"

    def compare(self, entry: str, claimed: Any, recomputed: Any, tolerance: float = 0.0) -> None:
        """Add the mismatches of two values, entry by entry.

        Args:
            entry: path of the entry.
            claimed, recomputed: scalars, mappings or dataclasses; nested values are compared recursively.
            tolerance: largest absolute difference of two floats that counts as equal.
        """
        # Samples have hundreds of thousands of entries, nearly all of them equal scalars.
        if claimed.__class__ is recomputed.__class__ and claimed.__class__ in _SCALARS and claimed == recomputed:
            return
        self.mismatches += find_mismatches(entry, claimed, recomputed, tolerance)


def find_mismatches(entry: str, claimed: Any, recomputed: Any, tolerance: float = 0.0) -> Iterator[Mismatch]:
    """Yield every entry in which two nested values differ; arguments as for `VerificationReport.compare`."""
    claimed, recomputed = (
        vars(value) if hasattr(value, "__dataclass_fields__") else value for value in (claimed, recomputed)
    )
    if isinstance(claimed, Mapping) and isinstance(recomputed, Mapping):
        for name in sorted(claimed.keys() | recomputed.keys()):
            yield from find_mismatches(f"{entry}.{name}", claimed.get(name), recomputed.get(name), tolerance)
    elif isinstance(claimed, float) and isinstance(recomputed, float):
        if not abs(claimed - recomputed) <= tolerance:
            yield Mismatch(entry, claimed, recomputed)
    elif claimed != recomputed:
        yield Mismatch(entry, claimed, recomputed)


class IncompleteVerificationError(BenchmarkError):
    """Artifacts of a submission could not be had, so that a part of it is not verified."""


def raise_on_missing(report: VerificationReport) -> None:
    """Raise `IncompleteVerificationError` if artifacts could not be had."""
    if report.missing:
        raise IncompleteVerificationError(
            f"verified in part, {len(report.checks)} kinds of entry: {report.describe_missing()}; use --fetch, or --artifacts "
            "with a folder or address that has them"
        )
