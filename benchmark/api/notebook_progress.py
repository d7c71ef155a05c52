"""Progress of a run in a notebook: a bar per stage and the last messages, redrawn in one place. It needs no widgets."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from benchmark.runner.plain_progress import StagePace, format_duration

REFRESH_SECONDS = 0.25
NUM_MESSAGES = 3
Show = Callable[[str], Callable[[str], None]]
"""Shows HTML, and returns what replaces it."""


def current_shell() -> Any:
    """The running IPython shell; None outside of IPython."""
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None else None


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    return hasattr(current_shell(), "kernel")


def is_interactive() -> bool:
    """Whether somebody types at a prompt: Python's own or IPython's."""
    return hasattr(sys, "ps1") or current_shell() is not None


def show_html(html: str) -> Callable[[str], None]:
    """Show HTML in the output of a cell; returns what replaces it."""
    from IPython.display import HTML, display  # type: ignore[import-not-found, unused-ignore]

    handle = display(HTML(html), display_id=True)
    return lambda changed: handle.update(HTML(changed))


class NotebookProgress:
    """Shows the current stage as a bar with its counts and times; see `runner.stages.Progress`.

    Args:
        show: shows HTML, and returns what replaces it.
        clock: seconds, as `time.monotonic` gives them.
    """

    def __init__(self, show: Show = show_html, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.began, self.drawn = clock, clock(), -REFRESH_SECONDS
        self.description, self.completed = "starting", 0
        self.total: int | None = None
        self.pace = StagePace(self.began)
        self.messages: list[str] = []
        self.replace = show(self._render())

    def start(self, description: str, total: int | None = None, completed: int = 0) -> None:
        """See `Progress`."""
        self.description, self.total = description, total
        self.completed = completed
        self.pace = StagePace(self.clock())
        self._draw()

    def advance(self, steps: int, description: str | None = None) -> None:
        """See `Progress`."""
        self.completed += steps
        self.pace.advance(self.clock(), steps)
        self.description = description or self.description
        if self.clock() - self.drawn >= REFRESH_SECONDS or self.completed == self.total:
            self._draw()

    def write(self, message: str) -> None:
        """See `Progress`."""
        self.messages = [*self.messages, message][-NUM_MESSAGES:]
        self._draw()

    @contextmanager
    def displayed(self) -> Iterator[None]:
        """Show the bar while the context lasts, and what was computed afterwards."""
        yield
        self.description, self.total = "finished", None
        self._draw()

    def _draw(self) -> None:
        self.drawn = self.clock()
        self.replace(self._render())

    def _render(self) -> str:
        now = self.clock()
        counts = f"{self.completed:,} of {self.total:,}" if self.total else ""
        remaining = self.pace.seconds_left(now, self.total - self.completed) if self.total else 0.0
        times = f"{format_duration(now - self.began)} so far" + (
            f", about {format_duration(remaining)} left" if remaining else ""
        )
        label = " · ".join(filter(None, (self.description, counts, times)))
        bar = (
            f'<progress value="{self.completed}" max="{self.total}" style="width:24em"></progress> '
            if self.total
            else ""
        )
        lines = "".join(f"<div><small>{escape(message)}</small></div>" for message in self.messages)
        return f'<div role="status">{bar}{escape(label)}{lines}</div>'
