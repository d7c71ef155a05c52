"""Check many submissions: rows of one suite together, in several processes, and their output in the order of the folders.

What depends on a suite only (its tasks, its labels) takes longer to compute than a row takes to check, and is kept for the
last suites. So rows are checked suite by suite, whatever their names.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import TextIOBase
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

from benchmark.artifacts import MAX_BYTES, RECORD
from benchmark.errors import BenchmarkError, SubmissionError
from benchmark.files import read_json, sanitize

PIECE_ROWS = 8
"""About so many rows of a suite are handed to a process at once, since it may have to draw the suite for them."""
Check = Callable[[Path], str]


@dataclass
class FolderOutput:
    """What the check of one folder printed, as (is standard error, text), and its exit code."""

    exit_code: int = 0
    texts: list[tuple[bool, str]] = field(default_factory=list)

    def show(self) -> None:
        """Print it."""
        for is_error, text in self.texts:
            stream = sys.stderr if is_error else sys.stdout
            stream.write(text)
            stream.flush()


class _Recorder(TextIOBase):
    """A stream that stores what is written to it."""

    def __init__(self, texts: list[tuple[bool, str]], is_error: bool) -> None:
        self.texts, self.is_error = texts, is_error

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.texts.append((self.is_error, text))
        return len(text)


def check_folder(folder: Path, check: Check) -> int:
    """Run a check on a folder and print its result in one line; returns the exit code."""
    try:
        print(f"{folder.name}: {check(folder)}", flush=True)
    except BenchmarkError as error:
        print(f"error: {sanitize(folder.name)[1:-1]}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except Exception as error:  # an error in one folder must not stop the others
        message = f"{type(error).__name__}: {sanitize(str(error))}"
        print(f"error: {sanitize(folder.name)[1:-1]}: cannot be checked ({message})", file=sys.stderr, flush=True)
        return SubmissionError.exit_code
    return 0


def check_in_order(folders: Sequence[Path], check: Check) -> int:
    """Check folders one after the other, and print at once; returns the largest exit code."""
    return max((check_folder(folder, check) for folder in folders), default=0)


def check_by_suite(folders: Sequence[Path], check: Check, workers: int) -> int:
    """Check folders suite by suite, in several processes, and print in their order as far as all before are checked.

    Args:
        folders: folders of submissions.
        check: returns the text of the result of a folder, and raises `BenchmarkError`; it may print.
        workers: number of processes; with one, this process.

    Returns:
        The largest exit code.

    Raises:
        BenchmarkError: a process was killed.
    """
    pieces = split_by_suite(folders)
    outputs: dict[int, FolderOutput] = {}
    exit_code = num_shown = 0
    for indices, checked in _check_pieces(folders, pieces, check, min(workers, len(pieces))):
        outputs |= dict(zip(indices, checked, strict=True))
        while num_shown in outputs:
            output = outputs.pop(num_shown)
            output.show()
            exit_code = max(exit_code, output.exit_code)
            num_shown += 1
    return exit_code


def split_by_suite(folders: Sequence[Path]) -> list[list[int]]:
    """Indices of folders in pieces of one suite, suites in the order in which they first come."""
    return split_groups([_suite_name(folder) for folder in folders], PIECE_ROWS)


def split_groups(names: Sequence[str], piece_size: int) -> list[list[int]]:
    """Indices of items in pieces of about `piece_size` of one name, names in the order in which they first come."""
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        groups.setdefault(name, []).append(index)
    pieces = []
    for indices in groups.values():
        num_pieces = max(1, round(len(indices) / piece_size))
        bounds = [len(indices) * part // num_pieces for part in range(num_pieces + 1)]
        pieces += [indices[start:stop] for start, stop in pairwise(bounds)]
    return pieces


def _suite_name(folder: Path) -> str:
    """The name of a submission's suite as its record says; empty if it says none, which the check of the folder reports."""
    try:
        return str(read_json(folder / RECORD, MAX_BYTES[RECORD])["suite"]["name"])
    except (BenchmarkError, OSError, LookupError, TypeError):
        return ""


def _check_pieces(
    folders: Sequence[Path], pieces: Sequence[Sequence[int]], check: Check, workers: int
) -> Iterator[tuple[Sequence[int], list[FolderOutput]]]:
    """Yield the indices and the outputs of each piece once it is checked."""
    if workers <= 1:
        for indices in pieces:
            for index in indices:
                yield [index], _check_piece([folders[index]], check)
        return
    # Forked, so that nothing is imported again and the check needs no pickling.
    executor = ProcessPoolExecutor(workers, get_context("fork"), _set_check, (check,))
    num_left = len(folders)
    try:
        futures = {executor.submit(_check_piece, [folders[i] for i in indices]): indices for indices in pieces}
        for future in as_completed(futures):
            checked = future.result()
            num_left -= len(checked)
            yield futures[future], checked
    except BrokenProcessPool as error:
        raise BenchmarkError(
            f"a process that checked submissions was killed, perhaps for memory; {num_left:,} of {len(folders):,} are left, "
            "use --workers 1"
        ) from error
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


_check: Check | None = None
"""The check of a forked process."""


def _set_check(check: Check) -> None:
    global _check
    _check = check


def _check_piece(folders: Sequence[Path], check: Check | None = None) -> list[FolderOutput]:
    """Check the folders of a piece and record what is printed."""
    check = check or _check
    assert check is not None
    outputs = []
    for folder in folders:
        output = FolderOutput()
        with redirect_stdout(_Recorder(output.texts, False)), redirect_stderr(_Recorder(output.texts, True)):
            output.exit_code = check_folder(folder, check)
        outputs.append(output)
    return outputs


def usable_cores() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
