"""The interface between a measurement and what runs it: named items of work, and figures from their stored arrays.

Items are computed by workers and committed like shards, so a run that was stopped continues, and every number of workers
gives the same bytes. Figures are computed in the driver from the committed arrays only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from benchmark.runner.measurement_record import MeasurementRecord
from benchmark.runner.plan import Job
from benchmark.tasks.prompt_template import TRAINED

ReadItem = Callable[[str], dict[str, np.ndarray]]
"""Returns the committed arrays of an item; raises `ModelError` with the reason if the model does not allow to compute it."""


@dataclass(frozen=True)
class Conclusion:
    """What a measurement concludes.

    Attributes:
        entries: entries of its record besides those of `MeasurementRecord`.
        evidence: arrays from which they can be computed again; empty if nothing could be measured.
        unofficial: reasons of the measurement itself why a leaderboard must not show it.
    """

    entries: Mapping[str, Any]
    evidence: Mapping[str, np.ndarray]
    unofficial: Sequence[str] = field(default_factory=tuple)


class Collector(Protocol):
    """Computes items on a worker; holds the model between them."""

    def collect(self, item: str, read: ReadItem, batch_scale: float) -> dict[str, np.ndarray]:
        """Compute the arrays of an item.

        Args:
            item: its name.
            read: reads items of earlier phases.
            batch_scale: fraction of the batch size, below 1 after an out-of-memory failure.

        Raises:
            ModelError: the model does not allow it; the message is stored as the item's result.
        """
        ...


class Measurement(Protocol):
    """A measurement; instances are pickled and sent to workers."""

    @property
    def name(self) -> str:
        """Its name, as an option value and as the beginning of its items' names in the store."""
        ...

    @property
    def version(self) -> int:
        """Version of what is measured."""
        ...

    @property
    def record_type(self) -> type[MeasurementRecord]:
        """Class of its record."""
        ...

    def settings(self, job: Job) -> str:
        """Settings of a run that its job does not tell, as text; items of other settings are computed again."""
        ...

    def skip_reason(self, job: Job) -> str | None:
        """Why runs such as this one have no record of this measurement; None if they do, even if it is not applicable."""
        ...

    def phases(self, job: Job) -> Sequence[Sequence[str]]:
        """Names of the items by phase; an item reads items of earlier phases only."""
        ...

    def is_complete(self, job: Job, read: ReadItem, num_phases: int) -> bool:
        """Whether the items of the first `num_phases` phases are enough, so that later ones are left out."""
        ...

    def open(self, job: Job) -> Collector:
        """Prepare to compute items on a worker; loads no model yet."""
        ...

    def conclude(self, job: Job, read: ReadItem) -> Conclusion:
        """Compute the entries of the record; never fails because of the model."""
        ...

    def format_card(self, record: Any) -> str:
        """Its record as text for a terminal."""
        ...


def states_skip_reason(job: Job) -> str | None:
    """Why a run has no measurement of the states of a model that was trained on the suite; None if it does."""
    if not job.reads_states:
        return "no hidden states are read"
    if job.generation.track != TRAINED:
        return f"track {job.generation.track}; the measurement is of models that were trained on the suite"
    return None
