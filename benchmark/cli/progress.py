"""Progress of a command on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class RichProgress:
    """Progress bars on a console, one a stage."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self.bars = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
        self.console = console
        self.shown: TaskID | None = None

    def start(self, description: str, total: int | None, completed: int = 0) -> None:
        """See `View`."""
        if self.shown is not None:
            self.bars.stop_task(self.shown)
        self.shown = self.bars.add_task(what, total=total, completed=done)

    def advance(self, steps: int, description: str | None = None) -> None:
        """See `View`."""
        if self.shown is not None:
            self.bars.update(self.shown, advance=steps, description=what)

    def write(self, message: str) -> None:
        """See `View`."""
        self.console.print(message, style="dim", markup=False)

    @contextmanager
    def shown_while(self) -> Iterator[None]:
        """Draws the bars within."""
        with self.bars:
            yield
