"""The executor of one process, and the session in which any worker holds what it computes with."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmark.cluster.pool import DONE, INVALID, MEMORY, RAISED, STORAGE, Answer, Piece
from benchmark.errors import ModelError, StorageError
from karel_env.command import was_interrupted

Compute = Callable[[Any, float], list[Any]]


ENDED = "the model's own code ended the process ({}); expected it to return or to raise an error"


class Desk:
    """Where a worker keeps what it holds, one thing at a time, and answers calls."""

    def __init__(self) -> None:
        self.held: object = None
        self.compute: Compute | None = None

    def answer(self, held: object, work: Any, call: Any, share: float) -> Answer:
        """The answer to a call; what goes wrong is put in words, since an exception may not survive the way back."""
        try:
            if self.compute is None or self.held != held:
                self.compute = None
                self.compute, self.held = work.begin(), held
            return Answer(DONE, self.compute(call, share))
        except StorageError as problem:
            return Answer(STORAGE, why=str(problem))
        except KeyboardInterrupt:
            if was_interrupted():
                raise
            return Answer(INVALID, why=ENDED.format("KeyboardInterrupt"))
        except (SystemExit, GeneratorExit) as problem:
            return Answer(INVALID, why=ENDED.format(f"{type(problem).__name__}: {problem}"))
        except BaseException as problem:
            shortage = _shortage(problem)
            if shortage is not None:
                return Answer(MEMORY, why=str(shortage) or "no memory")
            if isinstance(problem, ModelError):
                return Answer(INVALID, why=str(problem))
            last = traceback.extract_tb(problem.__traceback__)[-1]
            place = f"{Path(last.filename).name}:{last.lineno}"
            return Answer(RAISED, why=f"{type(problem).__name__} at {place}: {problem}")


SHORTAGES = ("out of memory", "allocate memory", "not enough memory", "bad_alloc")
"""Words by which libraries say that memory is short, in errors of other kinds."""


def _shortage(problem: BaseException) -> BaseException | None:
    """The error among this one and those behind it that says that memory is short; a loader may have put its own around it."""
    cause: BaseException | None = problem
    while cause is not None:
        if isinstance(cause, MemoryError) or getattr(cause, "errno", None) == errno.ENOMEM:
            return cause
        if isinstance(cause, (RuntimeError, OSError)) and any(words in str(cause) for words in SHORTAGES):
            return cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


class SerialCrew:
    """One worker: this process. A call is answered before it returns, so no deadline can end it."""

    computes_in_call = True

    def hire(self, kind: str) -> tuple[Desk, list[Answer]]:
        """See `Crew`."""
        return Desk(), [Answer(DONE)]

    def continue_start(self, handle: Desk, again: bool = False) -> list[Answer]:
        """See `Crew`."""
        return [Answer(DONE)]

    def call(self, handle: Desk, piece: Piece, share: float) -> list[Answer]:
        """See `Crew`."""
        return [handle.answer(piece.held, piece.work, piece.call, share)]

    def wait(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """See `Crew`."""
        return list(calls)

    def answer(self, call: list[Answer]) -> Answer:
        """See `Crew`."""
        return call[0]

    def dismiss(self, handle: Desk) -> None:
        """See `Crew`."""
        handle.compute = None

    def shortage(self) -> str:
        """See `Crew`."""
        return "this process is the only worker"
