"""Detect rows that duplicate or imitate another row: by name, weights, samples and evidence."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from benchmark.artifacts import MAX_BYTES, RECORD
from benchmark.board.ranking import describe_prompts
from benchmark.files import read_json, sanitize
from benchmark.review.fingerprint import Fingerprint, compare_evidence, compare_samples, compare_weights
from benchmark.review.lookalike import imitates_ascii, skeleton
from benchmark.runner.record import Record
from benchmark.submit.schema import Submission, read_submission, validate_schema

DATE_LENGTH = len("2026-11-25_")


@dataclass(frozen=True)
class SubmissionRow:
    """A submission with the data for the comparison with others.

    Attributes:
        folder: name of the folder.
        declared: `submission.yaml`.
        record: `record.json`.
        fingerprint: fingerprint of the files.
    """

    folder: str
    declared: Submission
    record: Record
    fingerprint: Fingerprint

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of the row: that in `submission.yaml`, and that of the folder after the date."""
        return frozenset({self.declared.name, self.folder[DATE_LENGTH:]} - {""})

    @cached_property
    def authors(self) -> frozenset[str]:
        """Authors, normalised in case and width."""
        return frozenset(unicodedata.normalize("NFKC", author).casefold() for author in self.declared.authors)

    @property
    def table(self) -> tuple[str, int, int, str]:
        """Key of the leaderboard table: suite, suite version, protocol version, track with its prompts."""
        record = self.record
        return record.suite.name, record.suite.version, record.protocol.version, describe_prompts(record)

    def may_share_content(self, second: SubmissionRow) -> bool:
        """Whether both rows may have the same content: same authors, different tables of the leaderboard."""
        return self.authors == second.authors and self.table != second.table


@dataclass
class Overlap:
    """Result of the comparison of a row with others: refusals and notes, one line per entry."""

    refusals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_row(folder: Path) -> SubmissionRow:
    """Read a row for comparison; raises `SubmissionError` if `submission.yaml` or `record.json` is invalid."""
    record = validate_schema(Record, read_json(folder / RECORD, MAX_BYTES[RECORD]), RECORD)
    return SubmissionRow(folder.name, read_submission(folder), record, Fingerprint(folder))


def find_overlap(row: SubmissionRow, existing_rows: Sequence[SubmissionRow]) -> Overlap:
    """Compare a proposed row with other rows.

    Args:
        row: proposed row.
        existing_rows: rows of other folders.

    Returns:
        Refusals for duplicated content and imitated names; notes for content that the same authors share across tables.
    """
    overlap = Overlap()
    for name in sorted({*row.names, row.declared.family}):
        if imitates_ascii(name):
            overlap.refusals.append(
                f"name or family {sanitize(name)} reads as {sanitize(skeleton(name))}; write it in one script"
            )
    for existing in existing_rows:
        _compare_names(row, existing, overlap)
        shared_content = list(_list_shared_content(row, existing))
        if not shared_content:
            continue
        line = f"{', '.join(shared_content)} as {sanitize(existing.folder)} of {sanitize(existing.declared.authors[0])}"
        if row.may_share_content(existing):
            overlap.notes.append(f"{line}, in another table by the same authors")
        else:
            overlap.refusals.append(f"{line}; a row appears on the board once, under its existing name")
    overlap.refusals += _find_lookalikes(
        "family", row.declared.family, [existing.declared.family for existing in existing_rows]
    )
    for author in row.declared.authors:
        overlap.refusals += _find_lookalikes(
            "author", author, [name for existing in existing_rows for name in existing.declared.authors]
        )
    return overlap


def find_colliding_folder(folder: str, folders: Iterable[str]) -> str | None:
    """Return the first folder with a name that reads like this one or collides with it on a file system, or None."""
    folder_skeleton = skeleton(folder, labels=True)
    return next(
        (
            candidate
            for candidate in sorted(folders)
            if candidate != folder and skeleton(candidate, labels=True) == folder_skeleton
        ),
        None,
    )


def _compare_names(row: SubmissionRow, existing: SubmissionRow, overlap: Overlap) -> None:
    for name in sorted(row.names):
        for existing_name in sorted(existing.names):
            if skeleton(name, labels=True) != skeleton(existing_name, labels=True):
                continue
            if name == existing_name and row.may_share_content(existing):
                overlap.notes.append(
                    f"name {sanitize(name)} as {sanitize(existing.folder)}, in another table by the same authors"
                )
            else:
                overlap.refusals.append(
                    f"name {sanitize(name)} reads as {sanitize(existing_name)} of {sanitize(existing.folder)}; choose another"
                )


def _list_shared_content(row: SubmissionRow, existing: SubmissionRow) -> Iterator[str]:
    fingerprint, existing_fingerprint = row.fingerprint, existing.fingerprint
    weights = (
        "the same"
        if row.declared.digest == existing.declared.digest
        else compare_weights(fingerprint, existing_fingerprint)
    )
    if weights:
        yield f"{weights} weights"
    if row.table[:2] != existing.table[:2]:
        return
    if row.table[3] == existing.table[3] and (samples := compare_samples(fingerprint, existing_fingerprint)):
        yield f"{samples} samples"
    if evidence := compare_evidence(fingerprint, existing_fingerprint):
        yield f"{evidence} evidence"


def _find_lookalikes(field_name: str, text: str, existing_texts: Iterable[str]) -> list[str]:
    """Return one refusal if a text reads like an existing one with another spelling, else an empty list."""
    for existing in sorted(set(existing_texts)):
        if text != existing and skeleton(text) == skeleton(existing):
            return [
                f"{field_name} {sanitize(text)} reads as {sanitize(existing)}; write it in the same way, or choose another"
            ]
    return []
