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


class StagePace:
    """The time that is left of a stage, by the time that its completed steps have taken.

    Args:
        now: when the stage begins, in seconds.
    """

    def __init__(self, now: float) -> None:
        self.began = self.advanced_at = now
        self.num_steps = self.last_steps = 0

    def advance(self, now: float, steps: int) -> None:
        """Count steps that were completed at the same time."""
        if steps:
            self.advanced_at, self.last_steps = now, steps
            self.num_steps += steps

    def seconds_left(self, now: float, steps_left: int) -> float:
        """Seconds until the end of the stage; 0 if it cannot be told, as by steps that took no time since a cache had them.

        Between two calls of `advance` the time falls, until as many steps as those of the last call would be completed.
        """
        if not self.num_steps:
            return 0.0
        step_seconds = (self.advanced_at - self.began) / self.num_steps
        waited = now - self.advanced_at
        left = max(step_seconds * steps_left - waited, step_seconds * (steps_left - self.last_steps))
        return left if left >= 1 else 0.0


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
        self.began = clock()
        self.pace = StagePace(self.began)
        self.line_time = self.began - MAX_SECONDS
        self.description = ""
        self.total: int | None = None
        self.completed = self.line_completed = 0

    def start(self, description: str, total: int | None = None, completed: int = 0) -> None:
        """See `Progress`."""
        with self.lock:
            self.description, self.total = description, total
            self.completed = self.line_completed = completed
            self.pace = StagePace(self.clock())
            if self.announces_stages:
                self._print_line(self.pace.began)

    def advance(self, steps: int, description: str | None = None) -> None:
        """See `Progress`."""
        with self.lock:
            self.completed += steps
            self.pace.advance(self.clock(), steps)
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
        seconds_left = self.pace.seconds_left(now, self.total - self.completed) if self.total else 0.0
        if seconds_left:
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
