"""What a pool and its workers say to each other: pieces of work, answers, and what a crew of workers can do."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

SUCCEEDED, RAISED, INVALID_MODEL, OUT_OF_MEMORY, STORAGE_FAILED, WORKER_DIED, NODE_LOST, TIMED_OUT = CALL_STATUSES = (
    "done", "raised", "invalid model", "out of memory", "storage", "worker died", "node lost", "deadline",
)  # fmt: skip
STARTING = "starting"
"""Outcome of a worker's call that did a part of its start; `Answer.value` is what comes next."""


@dataclass(frozen=True)
class CallResult:
    """What came of a call: `value` if it is `DONE`, else why not, in words."""

    status: str
    value: Any = None
    why: str = ""


@dataclass(frozen=True)
class WorkItem:
    """Something to compute and commit.

    Attributes:
        name: of it, for messages.
        kind: of the worker that computes it.
        held: key of what a worker holds for it, such as a model; who holds it already is preferred.
        work: what it holds, made there by `work.prepare()`; sent once.
        call: what to compute of it, small.
        commit: takes the value in the driver.
        told: hears of retries: cause and reason.
    """

    name: str
    kind: str
    held: Hashable
    work: Any
    call: Any
    commit: Callable[[Any], None]
    told: Callable[[str, str], None] = lambda cause, why: None


class Executor(Protocol):
    """Workers, and calls in flight. Handles and calls are opaque to the pool.

    One that computes a piece in `call` itself, so that nothing can end it, has a true attribute `computes_in_call`.
    """

    def start_worker(self, kind: str) -> tuple[Any, Any]:
        """A new worker of a kind; its handle, and the call that ends when it is ready, or `STARTING`."""
        ...

    def continue_start(self, handle: Any, resend: bool = False) -> Any:
        """The next call of a worker whose last one ended with `STARTING`; `again` if it was not answered for long."""
        ...

    def submit(self, handle: Any, item: WorkItem, batch_scale: float) -> Any:
        """Start to compute a piece, with this share of its batch."""
        ...

    def wait(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """The calls that have ended, after at most so long."""
        ...

    def result(self, call: Any) -> CallResult:
        """What came of a call that has ended."""
        ...

    def stop_worker(self, handle: Any) -> None:
        """End a worker, whatever it does."""
        ...

    def capacity_message(self) -> str:
        """Why workers may not start, in words, for messages."""
        ...


TASKS, EVALUATION, FIT = KINDS = ("tasks", "evaluation", "fit")
