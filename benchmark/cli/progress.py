"""Progress display of a command: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from benchmark.runner.plain_progress import PlainProgress, StagePace, can_redraw, format_duration


def open_progress(console: Console) -> RichProgress | PlainProgress:
    """The progress display that suits a console."""
    return RichProgress(console) if can_redraw(console) else PlainProgress(console)


@contextmanager
def show_progress() -> Iterator[RichProgress | PlainProgress]:
    """Show progress on standard error while the context lasts; what goes to standard output is printed after it."""
    progress = open_progress(Console(stderr=True, highlight=False))
    with progress.displayed():
        yield progress


class TimeLeftColumn(ProgressColumn):
    """Time left by the pace of the stage; that of rich knows none where a step takes longer than 30 s."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """The time, or dashes where it cannot be told."""
        pace: StagePace = task.fields["pace"]
        seconds = pace.seconds_left(task.get_time(), int(task.remaining)) if task.remaining else 0.0
        return Text(format_duration(seconds) if seconds else "-:--:--", style="progress.remaining")


class RichProgress:
    """Progress bars on a console, one per stage; see `runner.stages.Progress`."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self.bars = Progress(*columns, TimeElapsedColumn(), TimeLeftColumn(), console=console)
        self.console = console
        self.current: TaskID | None = None

    def start(self, description: str, total: int | None = None, completed: int = 0) -> None:
        """See `Progress`."""
        self._finish()
        self.current = self.bars.add_task(description, total=total, completed=completed, pace=self._begin_pace())

    def advance(self, steps: int, description: str | None = None) -> None:
        """See `Progress`."""
        if self.current is not None:
            self.pace.advance(self.bars.get_time(), steps)
            self.bars.update(self.current, advance=steps, description=description)

    def write(self, message: str) -> None:
        """See `Progress`."""
        self.console.print(message, style="dim", markup=False)

    @contextmanager
    def displayed(self) -> Iterator[None]:
        """Draw the bars while the context lasts."""
        with self.bars:
            yield
            self._finish()

    def _begin_pace(self) -> StagePace:
        """The pace of the stage that starts now, which `advance` counts from here on."""
        self.pace = StagePace(self.bars.get_time())
        return self.pace

    def _finish(self) -> None:
        if self.current is None:
            return
        self.bars.stop_task(self.current)
        if self.bars.tasks[self.current].total is None:
            # A bar of unknown length would go on moving.
            self.bars.update(self.current, total=1, completed=1)
