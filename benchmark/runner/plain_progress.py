"""Progress of a command as plain lines, for log files, continuous integration and notebooks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, RLock, Thread

from rich.console import Console

MIN_SECONDS, MAX_SECONDS, MIN_SHARE = 5.0, 30.0, 0.05
"""A line follows the one before after `MIN_SHARE` more of the stage or `MAX_SECONDS`, but not before `MIN_SECONDS`."""
TICK_SECONDS = 1.0


class PlainProgress:
    """Prints a line when a stage starts and while it goes on; see `runner.stages.Progress`.

    Args:
        console: where to print; each line is flushed.
        clock: seconds, as `time.monotonic` gives them.
        announces_stages: whether a stage is announced at once when it starts, rather than when the next line is due.
    """

    def __init__(
        self, console: Console, clock: Callable[[], float] = time.monotonic, announces_stages: bool = True
    ) -> None:
        self.console, self.clock, self.announces_stages = console, clock, announces_stages
        self.lock = RLock()
        self.began = self.stage_began = clock()
        self.line_time = self.began - MAX_SECONDS
        self.description = ""
        self.total: int | None = None
        self.completed = self.stage_completed = self.line_completed = 0

    def start(self, description: str, total: int | None = None, completed: int = 0) -> None:
        """See `Progress`."""
        with self.lock:
            self.description, self.total = description, total
            self.completed = self.stage_completed = self.line_completed = completed
            self.stage_began = self.clock()
            if self.announces_stages:
                self._print_line(self.stage_began)

    def advance(self, steps: int, description: str | None = None) -> None:
        """See `Progress`."""
        with self.lock:
            self.completed += steps
            self.description = description or self.description
            self.tick()

    def write(self, message: str) -> None:
        """See `Progress`."""
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def tick(self) -> None:
        """Print a line if one is due."""
        with self.lock:
            now = self.clock()
            waited = now - self.line_time
            if not self.description or waited < MIN_SECONDS:
                return
            share = (self.completed - self.line_completed) / self.total if self.total else 0.0
            if share >= MIN_SHARE or waited >= MAX_SECONDS:
                self._print_line(now)

    @contextmanager
    def displayed(self) -> Iterator[None]:
        """Print lines that are due while the context lasts, also while nothing calls `advance`."""
        is_over = Event()

        def tick_until_over() -> None:
            while not is_over.wait(TICK_SECONDS):
                self.tick()

        thread = Thread(target=tick_until_over, daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def _print_line(self, now: float) -> None:
        self.line_time, self.line_completed = now, self.completed
        line = f"{format_duration(now - self.began)} {self.description}"
        if self.total:
            line += f": {self.completed:,} of {self.total:,} ({self.completed / self.total:.0%})"
        elif self.completed:
            line += f": {self.completed:,} done"
        advanced = self.completed - self.stage_completed
        if self.total and advanced > 0 and self.completed < self.total:
            seconds_left = (now - self.stage_began) / advanced * (self.total - self.completed)
            line += f", about {format_duration(seconds_left)} left of this stage"
        self.write(line)


def can_redraw(console: Console) -> bool:
    """Whether bars can be drawn: the console writes to a terminal that can move its cursor.

    Variables that ask for colours, which continuous integration sets, make no terminal of a file.
    """
    return console.file.isatty() and not console.is_dumb_terminal


def format_duration(seconds: float) -> str:
    """Hours, minutes and seconds, such as 0:02:09."""
    minutes, remainder = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{remainder:02d}"
