"""The executor that runs in the driver's process, and the session that every worker runs its calls in."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

from benchmark.cluster.executor import (
    INVALID_MODEL,
    OUT_OF_MEMORY,
    RAISED,
    STORAGE_FAILED,
    SUCCEEDED,
    CallResult,
    WorkItem,
)
from benchmark.errors import ModelError, StorageError, is_panic, panic_message
from karel_env.command import was_interrupted

ComputeFn = Callable[[Any, float], list[Any]]
"""Computes a payload with a fraction of the batch size."""

PROCESS_ENDED = "the model's own code ended the process ({}); expected it to return or to raise an error"


class WorkerSession:
    """The state of a worker: the compute function of one affinity key at a time, such as a loaded model."""

    def __init__(self) -> None:
        self.affinity_key: Hashable = None
        self.compute: ComputeFn | None = None

    def run(self, affinity_key: Hashable, work: Any, payload: Any, batch_scale: float) -> CallResult:
        """Compute a payload; prepares `work` first if another key is loaded.

        Errors become results with a message, since an exception object may not survive pickling.
        """
        try:
            if self.compute is None or self.affinity_key != affinity_key:
                self.compute = None
                self.compute, self.affinity_key = work.prepare(), affinity_key
            return CallResult(SUCCEEDED, self.compute(payload, batch_scale))
        except StorageError as error:
            return CallResult(STORAGE_FAILED, message=str(error))
        except KeyboardInterrupt:
            if was_interrupted():
                raise
            return CallResult(INVALID_MODEL, message=PROCESS_ENDED.format("KeyboardInterrupt"))
        except (SystemExit, GeneratorExit) as error:
            return CallResult(INVALID_MODEL, message=PROCESS_ENDED.format(f"{type(error).__name__}: {error}"))
        except BaseException as error:
            memory_error = _find_memory_error(error)
            if memory_error is not None:
                return CallResult(OUT_OF_MEMORY, message=str(memory_error) or "no memory")
            if isinstance(error, ModelError):
                return CallResult(INVALID_MODEL, message=str(error))
            if is_panic(error):
                return CallResult(INVALID_MODEL, message=panic_message(error))
            last_frame = traceback.extract_tb(error.__traceback__)[-1]
            location = f"{Path(last_frame.filename).name}:{last_frame.lineno}"
            return CallResult(RAISED, message=f"{type(error).__name__} at {location}: {error}")


MEMORY_ERROR_PHRASES = ("out of memory", "allocate memory", "not enough memory", "bad_alloc")
"""Phrases in errors of other types by which libraries report that memory is short."""


def _find_memory_error(error: BaseException) -> BaseException | None:
    """Return the first out-of-memory error in the chain of causes of an error, since a loader may have wrapped it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or getattr(cause, "errno", None) == errno.ENOMEM:
            return cause
        if isinstance(cause, (RuntimeError, OSError)) and any(phrase in str(cause) for phrase in MEMORY_ERROR_PHRASES):
            return cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


class LocalExecutor:
    """Runs items in this process, as its only worker. `submit` returns when the item is computed, so no deadline applies."""

    computes_in_call = True

    def start_worker(self, kind: str) -> tuple[WorkerSession, list[CallResult]]:
        """See `Executor`."""
        return WorkerSession(), [CallResult(SUCCEEDED)]

    def continue_start(self, handle: WorkerSession, resend: bool = False) -> list[CallResult]:
        """See `Executor`."""
        return [CallResult(SUCCEEDED)]

    def submit(self, handle: WorkerSession, item: WorkItem, batch_scale: float) -> list[CallResult]:
        """See `Executor`."""
        return [handle.run(item.affinity_key, item.work, item.payload, batch_scale)]

    def wait(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """See `Executor`."""
        return list(calls)

    def result(self, call: list[CallResult]) -> CallResult:
        """See `Executor`."""
        return call[0]

    def stop_worker(self, handle: WorkerSession) -> None:
        """See `Executor`."""
        handle.compute = None

    def capacity_message(self) -> str:
        """See `Executor`."""
        return "this process is the only worker"
