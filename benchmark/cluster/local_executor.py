"""The executor of one process, and the session in which any worker holds what it computes with."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmark.cluster.executor import SUCCEEDED, INVALID_MODEL, OUT_OF_MEMORY, RAISED, STORAGE_FAILED, CallResult, WorkItem
from benchmark.errors import ModelError, StorageError
from karel_env.command import was_interrupted

ComputeFn = Callable[[Any, float], list[Any]]


PROCESS_ENDED = "the model's own code ended the process ({}); expected it to return or to raise an error"


class WorkerSession:
    """Where a worker keeps what it holds, one thing at a time, and answers calls."""

    def __init__(self) -> None:
        self.held: object = None
        self.compute: ComputeFn | None = None

    def run(self, held: object, work: Any, call: Any, batch_scale: float) -> CallResult:
        """The answer to a call; what goes wrong is put in words, since an exception may not survive the way back."""
        try:
            if self.compute is None or self.held != held:
                self.compute = None
                self.compute, self.held = work.prepare(), held
            return CallResult(SUCCEEDED, self.compute(call, share))
        except StorageError as problem:
            return CallResult(STORAGE_FAILED, message=str(problem))
        except KeyboardInterrupt:
            if was_interrupted():
                raise
            return CallResult(INVALID_MODEL, message=PROCESS_ENDED.format("KeyboardInterrupt"))
        except (SystemExit, GeneratorExit) as problem:
            return CallResult(INVALID_MODEL, message=PROCESS_ENDED.format(f"{type(problem).__name__}: {problem}"))
        except BaseException as problem:
            shortage = _find_memory_error(problem)
            if shortage is not None:
                return CallResult(OUT_OF_MEMORY, message=str(shortage) or "no memory")
            if isinstance(problem, ModelError):
                return CallResult(INVALID_MODEL, message=str(problem))
            last = traceback.extract_tb(problem.__traceback__)[-1]
            place = f"{Path(last.filename).name}:{last.lineno}"
            return CallResult(RAISED, message=f"{type(problem).__name__} at {place}: {problem}")


MEMORY_ERROR_PHRASES = ("out of memory", "allocate memory", "not enough memory", "bad_alloc")
"""Words by which libraries say that memory is short, in errors of other kinds."""


def _find_memory_error(problem: BaseException) -> BaseException | None:
    """The error among this one and those behind it that says that memory is short; a loader may have put its own around it."""
    cause: BaseException | None = problem
    while cause is not None:
        if isinstance(cause, MemoryError) or getattr(cause, "errno", None) == errno.ENOMEM:
            return cause
        if isinstance(cause, (RuntimeError, OSError)) and any(words in str(cause) for words in MEMORY_ERROR_PHRASES):
            return cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


class LocalExecutor:
    """One worker: this process. A call is answered before it returns, so no deadline can end it."""

    computes_in_call = True

    def start_worker(self, kind: str) -> tuple[WorkerSession, list[CallResult]]:
        """See `Crew`."""
        return WorkerSession(), [CallResult(SUCCEEDED)]

    def continue_start(self, handle: WorkerSession, resend: bool = False) -> list[CallResult]:
        """See `Crew`."""
        return [CallResult(SUCCEEDED)]

    def submit(self, handle: WorkerSession, item: WorkItem, batch_scale: float) -> list[CallResult]:
        """See `Crew`."""
        return [handle.run(item.affinity_key, item.work, item.payload, share)]

    def wait(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """See `Crew`."""
        return list(calls)

    def result(self, call: list[CallResult]) -> CallResult:
        """See `Crew`."""
        return call[0]

    def stop_worker(self, handle: WorkerSession) -> None:
        """See `Crew`."""
        handle.compute = None

    def capacity_message(self) -> str:
        """See `Crew`."""
        return "this process is the only worker"
