"""Error handling of every command: an expected failure prints one line and returns the documented exit code.

Exit codes: 0 done, 1 run incomplete, 2 usage, 3 invalid model or submission, 4 verification mismatch. An
unexpected error shows its traceback.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

from benchmark.errors import BenchmarkError, ModelError, StorageError, UsageError, is_panic, panic_message
from karel_env import command as shared
from karel_env.command import Explanation, shown

OUT_OF_MEMORY = "out of memory; free some, or use --dtype bfloat16, and run the same command again"
INTERRUPTED = "interrupted; nothing is kept of what was computed, the same command begins anew"
INTERRUPTED_KEPT = "interrupted; what is computed is kept, run the same command again to continue"
STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE)
"""Failures of the machine. Errors of a path (missing, no folder, not permitted) are usage errors."""
NOISY_LOGGERS = ("torchao", "torch.utils._pytree", "accelerate.big_modeling")
"""Loggers that warn of kernels unavailable on this machine and of offloaded weights; transformers imports torchao wherever it is installed."""


@dataclass
class _CommandState:
    """What the end of the current command says: old spellings of options with the new ones, and whether results are kept."""

    renamed: dict[str, str] = field(default_factory=dict)
    keeps_results: bool = False


_current: ContextVar[_CommandState | None] = ContextVar("current", default=None)


def run_command(command: Callable[[], int]) -> int:
    """Run a command and return its exit code; an expected failure prints one line to standard error.

    Notes on old spellings of options come last, so that a failure stays one line.
    """
    silence_libraries()
    state = _CommandState()

    def command_with_notes() -> int:
        exit_code = command()
        for old, new in state.renamed.items():
            print(f"note: {old} is now {new}; the next release drops the old spelling", file=sys.stderr)
        return exit_code

    token = _current.set(state)
    try:
        return shared.run_command(command_with_notes, explain)
    finally:
        _current.reset(token)


def note_renamed(old: str, new: str) -> None:
    """Have the current command end with a note that an option has a new spelling."""
    state = _current.get()
    if state is not None:
        state.renamed[old] = new


def note_results_kept() -> None:
    """Have the current command say, if it is interrupted, that the same command continues."""
    state = _current.get()
    if state is not None:
        state.keeps_results = True


def check_folder(folder: Path, option: str) -> None:
    """Check that a folder exists or can be made, and is writable; makes nothing.

    Raises:
        UsageError: the path is no folder, or cannot be made or written to.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists() or path.is_symlink())
    if not existing.is_dir():
        raise UsageError(f"{option} {shown(folder, 300)}: {shown(existing, 300)} is a file; expected a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(
            f"{option} {shown(folder, 300)}: {shown(existing, 300)} cannot be written to; choose another folder"
        )


def make_folder(folder: Path, option: str) -> None:
    """Make the folder of an option unless it exists, and check that it is writable.

    Raises:
        UsageError: the path is no folder, or cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno in STORAGE_ERRORS:
            raise
        reason = "is a file" if folder.is_file() else error.strerror
        raise UsageError(
            f"{option} {shown(folder, 300)}: {reason}; expected a folder that can be written to"
        ) from error


def explain(problem: BaseException) -> Explanation | None:
    """The message and exit code of an expected failure; None for an unexpected error."""
    if isinstance(problem, BenchmarkError):
        return str(problem), problem.exit_code
    if isinstance(problem, KeyboardInterrupt):
        state = _current.get()
        return INTERRUPTED_KEPT if state is not None and state.keeps_results else INTERRUPTED, BenchmarkError.exit_code
    if isinstance(problem, MemoryError):
        return OUT_OF_MEMORY, BenchmarkError.exit_code
    if isinstance(problem, SystemExit):
        return (
            f"the model's own code ended the process (SystemExit: {shown(problem.code)}); expected it to return or to "
            "raise an error",
            ModelError.exit_code,
        )
    if is_panic(problem):
        return panic_message(problem), ModelError.exit_code
    if isinstance(problem, OSError):
        return _explain_path(problem)
    if isinstance(problem, RuntimeError) and is_out_of_memory(problem):
        return OUT_OF_MEMORY, ModelError.exit_code
    return None


def is_out_of_memory(problem: RuntimeError) -> bool:
    """Whether a RuntimeError of torch reports an out-of-memory condition."""
    return "out of memory" in str(problem) or "can't allocate memory" in str(problem)


def _explain_path(problem: OSError) -> Explanation | None:
    if problem.errno in STORAGE_ERRORS:
        where = f"{shown(problem.filename, 300)}: " if problem.filename else ""
        return (
            f"{where}{problem.strerror}; make room, and run the same command again: what is committed is kept",
            StorageError.exit_code,
        )
    if problem.filename is None or problem.strerror is None:
        return None
    return (
        f"{shown(problem.filename, 300)}: {problem.strerror}; give a path that this command can use",
        UsageError.exit_code,
    )


def silence_libraries() -> None:
    """Have libraries report errors only, and draw no progress bars of their own.

    `transformers` if it is loaded: commands import it when they need it, and call this again then.
    """
    # tqdm reads it when it is imported; transformers draws bars by tqdm itself where it converts GGUF files.
    os.environ.setdefault("TQDM_DISABLE", "1")
    loaded = sys.modules.get("transformers.utils.logging")
    if loaded is not None:
        loaded.set_verbosity_error()
        loaded.disable_progress_bar()
    # What one library deprecates in another is nothing that a user can change.
    for name in ("transformers", "peft"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=rf"{name}\.")
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
