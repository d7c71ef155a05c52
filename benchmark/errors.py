"""The exceptions of the benchmark, with their exit codes.

    BenchmarkError              1, run incomplete
    ├── StorageError            1, the disk is full, or a worker does not see the folder
    ├── ItemsFailed             1, work items were given up (3 if the model caused every failure)
    ├── UsageError              2, an invalid option, suite or value
    ├── ModelError              3, the model cannot be used
    ├── SubmissionError         3, the submission is refused
    └── VerificationError       4, recomputed and stored figures differ

A message is one line: what was received, what was expected, what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping

MAX_REASONS = 5


class BenchmarkError(Exception):
    """The run cannot continue; results already computed stay in its folder."""

    exit_code = 1


class StorageError(BenchmarkError):
    """The run folder cannot be written to, or is not seen by a worker."""


class ItemsFailed(BenchmarkError):
    """Work items that were given up after retries.

    Args:
        reasons: reason per item name.
        invalid: whether every item failed with a `ModelError`.
    """

    def __init__(self, reasons: Mapping[str, str], invalid: bool = False) -> None:
        self.reasons = dict(reasons)
        lines = group_by_reason(reasons)
        named = "; ".join(lines[:MAX_REASONS])
        suffix = f"; and {len(lines) - MAX_REASONS} more reasons" if len(lines) > MAX_REASONS else ""
        retry = "fix the model" if invalid else "run the same command again to retry them"
        noun = "item" if len(reasons) == 1 else "items"
        super().__init__(f"{len(reasons)} {noun} failed ({named}{suffix}); no record is written, {retry}")
        if invalid:
            self.exit_code = ModelError.exit_code


class UsageError(BenchmarkError):
    """The command asks for something that does not exist or does not fit."""

    exit_code = 2


class ModelError(BenchmarkError):
    """The model cannot be loaded or cannot take the suite."""

    exit_code = 3


class SubmissionError(BenchmarkError):
    """A file of a submission is invalid."""

    exit_code = 3


class VerificationError(BenchmarkError):
    """A recomputed figure or digest differs from the stored one."""

    exit_code = 4


def is_panic(error: BaseException) -> bool:
    """Whether native code of tokenizers or safetensors has panicked, which is no `Exception`."""
    return not isinstance(error, Exception) and type(error).__name__ == "PanicException"


def panic_message(error: BaseException) -> str:
    """Return one line on a panic."""
    reason = " ".join(str(error).split())[:200]
    return f"native code that reads the model's files panicked ({reason}); save the tokenizer and the weights again"


def group_by_reason(reasons: Mapping[str, str]) -> list[str]:
    """One line per distinct reason, with the name or the number of the items that failed for it; most frequent first."""
    names_by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names_by_reason.setdefault(" ".join(reason.split())[:300], []).append(name)
    ordered = sorted(names_by_reason.items(), key=lambda entry: -len(entry[1]))
    return [f"{names[0] if len(names) == 1 else f'{len(names)} items'}: {reason}" for reason, names in ordered]
