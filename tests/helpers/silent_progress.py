"""A progress display for runs of tests."""

from __future__ import annotations


class Silent:
    """A progress display that keeps the lines it is to print."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def start(self, description: str, total: int | None, completed: int = 0) -> None: ...

    def advance(self, steps: int, description: str | None = None) -> None: ...

    def write(self, message: str) -> None:
        self.lines.append(message)
