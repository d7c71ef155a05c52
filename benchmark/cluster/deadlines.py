"""How long a work item may take before its worker counts as hung: derived from the times of items with the same key, and from
an estimate."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from benchmark.cluster.executor import WorkItem

MIN_DEADLINE, MIN_TASKS_DEADLINE, DEADLINE_FACTOR = 1800.0, 120.0, 20.0
"""Smallest deadline in seconds; smallest one of an item that covers tasks, after another one of its key; and the multiple of
the longest time so far, or of the estimate."""


@dataclass
class _Durations:
    """Longest time of an item so far, and longest time per task, in seconds; None if no item had tasks."""

    item: float = 0.0
    task: float | None = None


class Deadlines:
    """Deadlines of work items.

    Args:
        fixed: seconds per item; None derives them from the times of completed items.
    """

    def __init__(self, fixed: float | None = None) -> None:
        self.fixed = fixed
        self.durations: dict[Hashable, _Durations] = {}
        self.estimates: dict[Hashable, float] = {}

    def expect(self, affinity_key: Hashable, seconds: float) -> None:
        """Set a rough estimate of the time of an item with a key, for as long as no item tells it better."""
        self.estimates[affinity_key] = seconds

    def add(self, item: WorkItem, seconds: float) -> None:
        """Record the time of a completed item."""
        durations = self.durations.setdefault(item.affinity_key, _Durations())
        durations.item = max(durations.item, seconds)
        if item.size:
            durations.task = max(durations.task or 0.0, seconds / item.size)

    def timeout(self, item: WorkItem, growth: float = 1.0) -> float:
        """Seconds that an item may take; a derived deadline is multiplied by `growth`."""
        if self.fixed is not None:
            return self.fixed
        durations = self.durations.get(item.affinity_key, _Durations())
        if item.size and durations.task is not None:
            return max(MIN_TASKS_DEADLINE, DEADLINE_FACTOR * max(durations.item, durations.task * item.size)) * growth
        # Another item may have come from a cache, which tells nothing of one that does not.
        expected = max(durations.item, self.estimates.get(item.affinity_key, 0.0))
        return max(MIN_DEADLINE, DEADLINE_FACTOR * expected) * growth
