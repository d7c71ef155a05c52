"""What a verification finds: what was compared, and where a submission says something else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints

from benchmark.runner.record import Record
from benchmark.submit.schema import Digest, Submission


class Sample(BaseModel, extra="forbid", frozen=True, strict=True):
    """A line of `samples.jsonl.gz`; `sample` is of `sampled` alone, the last four of `test`."""

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
    """An entry, what the submission says, and what is found."""

    entry: str
    said: Any
    found: Any


@dataclass
class VerificationReport:
    """What verification found.

    Attributes:
        checked: what was compared, a line each.
        differences: none if the submission is what it says.
    """

    submission: Submission
    record: Record
    samples: list[Sample]
    checked: list[str] = field(default_factory=list)
    mismatches: list[Mismatch] = field(default_factory=list)

    def compare(self, entry: str, said: Any, found: Any, tolerance: float = 0.0) -> None:
        """Note where two values differ, entry by entry."""
        self.mismatches += find_mismatches(entry, said, found, tolerance)


def find_mismatches(entry: str, said: Any, found: Any, tolerance: float = 0.0) -> Iterator[Mismatch]:
    """Where two nested values differ; floats by more than a tolerance."""
    said, found = (vars(value) if hasattr(value, "__dataclass_fields__") else value for value in (said, found))
    if isinstance(said, Mapping) and isinstance(found, Mapping):
        for name in sorted(said.keys() | found.keys()):
            yield from find_mismatches(f"{entry}.{name}", said.get(name), found.get(name), tolerance)
    elif isinstance(said, float) and isinstance(found, float):
        if not abs(said - found) <= tolerance:
            yield Mismatch(entry, said, found)
    elif said != found:
        yield Mismatch(entry, said, found)
