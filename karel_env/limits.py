"""What an execution can be limited to, and what an illegal action does; for options too, so nothing compiled is imported."""

from __future__ import annotations

MODES = ("noop", "crash", "turn180")
"""What an illegal action does: nothing, end the execution, or turn the robot around."""
MAX_EVENTS = 1000
"""Budget of events of an execution if none is given."""
EVENT_LIMIT = 30_000
"""Largest budget of events, and largest count of markers that a limit can be."""
