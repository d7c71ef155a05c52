"""The interface between the pool and its workers: work items, call results, and what an executor of workers does."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

SUCCEEDED, RAISED, INVALID_MODEL, OUT_OF_MEMORY, STORAGE_FAILED, WORKER_DIED, NODE_LOST, TIMED_OUT = CALL_STATUSES = (
    "done", "raised", "invalid model", "out of memory", "storage", "worker died", "node lost", "deadline",
)  # fmt: skip
STARTING = "starting"
"""Status of a start call that did one part of a worker's start; `CallResult.value` describes the next part."""


@dataclass(frozen=True)
class CallResult:
    """The result of one call of a worker.

    Attributes:
        status: one of `CALL_STATUSES`, or `STARTING`.
        value: the value, if the status is `SUCCEEDED`.
        message: the reason, if it is not.
    """

    status: str
    value: Any = None
    message: str = ""


@dataclass(frozen=True)
class WorkItem:
    """One unit of work: computed by a worker, committed by the driver.

    Attributes:
        name: name of the item in messages.
        kind: kind of worker that computes it, one of `KINDS`.
        affinity_key: key of the state that a worker prepares for it, such as a loaded model; a worker that has prepared
            this key already is preferred.
        work: object whose `prepare()` builds that state in the worker; sent once per key.
        payload: small argument that says what to compute with that state.
        commit: called with the value in the driver.
        on_retry: called with the status and the message whenever the item is computed again or given up.
        size: number of tasks that it computes, if items of its key take about as long per task; 0 if the time of other items
            says nothing of it, as where some are read from a cache.
    """

    name: str
    kind: str
    affinity_key: Hashable
    work: Any
    payload: Any
    commit: Callable[[Any], None]
    on_retry: Callable[[str, str], None] = lambda status, message: None
    size: int = 0


class Executor(Protocol):
    """Starts workers and runs calls on them. Handles and calls are opaque to the pool.

    An executor that computes an item inside `submit`, so that no deadline can end it, has a true attribute
    `computes_in_call`. One whose workers of every kind are equal has a true attribute `serves_all_kinds`: the pool then
    starts no worker for another kind of item.
    """

    def start_worker(self, kind: str) -> tuple[Any, Any]:
        """Start a worker of a kind; returns its handle and its first start call."""
        ...

    def continue_start(self, handle: Any, resend: bool = False) -> Any:
        """Return the next start call of a worker whose last one returned `STARTING`.

        Args:
            handle: the worker.
            resend: whether the last result may be lost, so that the worker is to return it again.
        """
        ...

    def submit(self, handle: Any, item: WorkItem, batch_scale: float) -> Any:
        """Start to compute an item with this fraction of its batch size; returns the call."""
        ...

    def wait(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """Return the calls that have ended, after at most `seconds`."""
        ...

    def result(self, call: Any) -> CallResult:
        """Return the result of a call that has ended."""
        ...

    def stop_worker(self, handle: Any) -> None:
        """Stop a worker at once."""
        ...

    def capacity_message(self) -> str:
        """Describe requested and free resources, for the message that no worker started."""
        ...


TASKS, EVALUATION, FIT = KINDS = ("tasks", "evaluation", "fit")
