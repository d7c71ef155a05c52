"""A progress display for runs of tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Silent:
    """A progress display that keeps the lines it is to print."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def start(self, description: str, total: int | None = None, completed: int = 0) -> None: ...

    def advance(self, steps: int, description: str | None = None) -> None: ...

    def write(self, message: str) -> None:
        self.lines.append(message)


class Recorded(Silent):
    """One that also keeps the stages, in order, with the steps completed and the steps in all."""

    def __init__(self) -> None:
        super().__init__()
        self.stages: dict[str, tuple[int, int | None]] = {}

    def start(self, description: str, total: int | None = None, completed: int = 0) -> None:
        self.stages[description] = completed, total

    def advance(self, steps: int, description: str | None = None) -> None:
        name = next(reversed(self.stages))
        completed, total = self.stages[name]
        self.stages[name] = completed + steps, total

    @contextmanager
    def displayed(self) -> Iterator[None]:
        yield
