"""The measurement of planning ahead and of the paper's semantic content with its floors (docs/reproduction.md).

Items: the programs that the model writes for the probe tasks with its states; the numbers of rows that the probes of each
offset get right; the losses from which `reach` follows. Not one of the measurements that a run makes unless told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmark.errors import ModelError
from benchmark.probing.protocol import STANDARD, Protocol
from benchmark.probing.written.ahead import probe_ahead
from benchmark.probing.written.content import OFFSETS, check_states, probe_content, too_few_programs
from benchmark.probing.written.content_labels import ContentLabels, WrittenPrograms, label_content
from benchmark.probing.written.figures import AHEAD_ITEM, ReachFigures, conclude_reach, content_item
from benchmark.runner.measurement_record import ReachRecord
from benchmark.runner.measurements.measurement import Collector, Conclusion, ReadItem, states_skip_reason
from benchmark.runner.plan import Job
from benchmark.runner.probe_answers import answer_probe_tasks
from benchmark.tasks.suite import Suite, probe_tasks

ANSWERS_ITEM = "answers"
VERSION = 2
_SEPARATOR = b"\0"


def pack_texts(texts: Sequence[str]) -> np.ndarray:
    """uint8 array of texts, the inverse of `unpack_texts`."""
    return np.frombuffer(_SEPARATOR.join(text.encode() for text in texts), np.uint8)


def unpack_texts(packed: np.ndarray) -> list[str]:
    """The texts of an array."""
    return [part.decode() for part in packed.tobytes().split(_SEPARATOR)]


@dataclass(frozen=True)
class ReachMeasurement:
    """See `Measurement`.

    Attributes:
        protocol: settings of the probes.
    """

    protocol: Protocol = STANDARD
    name = "reach"
    version = VERSION
    record_type = ReachRecord

    def settings(self, job: Job) -> str:
        """See `Measurement.settings`."""
        return self.protocol.digest()

    def skip_reason(self, job: Job) -> str | None:
        """See `Measurement.skip_reason`."""
        return states_skip_reason(job)

    def phases(self, job: Job) -> Sequence[Sequence[str]]:
        """See `Measurement.phases`."""
        return [[ANSWERS_ITEM], [*map(content_item, OFFSETS), AHEAD_ITEM]]

    def is_complete(self, job: Job, read: ReadItem, num_phases: int) -> bool:
        """See `Measurement.is_complete`."""
        return False

    def open(self, job: Job) -> Collector:
        """See `Measurement.open`."""
        return ReachCollector(job, self.protocol)

    def conclude(self, job: Job, read: ReadItem) -> Conclusion:
        """See `Measurement.conclude`."""
        unofficial = [] if self.protocol == STANDARD else ["the settings of the probes are not the standard ones"]
        evidence: dict[str, np.ndarray] = {}
        try:
            written = parse_written(unpack_texts(read(ANSWERS_ITEM)["texts"]), job.suite)
        except ModelError as error:
            figures = conclude_reach(None, self.protocol, {}, str(error))
            return Conclusion({"written": figures}, {}, unofficial)
        reason = too_few_programs(written, self.protocol)
        if not reason:
            for item in (*map(content_item, OFFSETS), AHEAD_ITEM):
                evidence |= {f"{item}.{name}": array for name, array in read(item).items()}
        figures = conclude_reach(written, self.protocol, evidence, reason)
        return Conclusion({"written": figures}, evidence, unofficial)

    def format_card(self, record: ReachRecord) -> str:
        """See `Measurement.format_card`."""
        return format_reach(record.written)


def parse_written(texts: Sequence[str], suite: Suite) -> WrittenPrograms | None:
    """The programs that a model wrote for the probe tasks of a suite; None if no text is one."""
    return WrittenPrograms.from_texts(texts, probe_tasks(replace(suite, batch=1, tasks=1, sha256="")))


def format_reach(figures: ReachFigures) -> str:
    """The figures as text for a terminal."""
    if figures.reason:
        return f"reach      not measured: {figures.reason}"
    lines = [f"reach      {figures.reach} words beyond the next one"]
    lines += [
        f"ahead +{part.offset}   skill {part.skill.value:+.3f}, token history {part.history:+.3f}, delta "
        f"{part.delta.value:+.3f} [{part.delta.low:+.3f}, {part.delta.high:+.3f}], {part.rows:,} rows"
        for part in figures.ahead
    ]
    lines += [
        f"content    {figure.frame}, {figure.source}, {figure.depth}: {100 * figure.content.value:.1f} "
        f"[{100 * figure.content.low:.1f}, {100 * figure.content.high:.1f}]"
        for figure in figures.content
        if figure.offset == 0 and figure.depth
    ]
    return "\n".join(lines)


class ReachCollector:
    """See `Collector`."""

    def __init__(self, job: Job, protocol: Protocol) -> None:
        self.job, self.protocol = job, protocol
        self.labelled: tuple[WrittenPrograms, ContentLabels, np.ndarray] | None = None

    def collect(self, item: str, read: ReadItem, batch_scale: float) -> dict[str, np.ndarray]:
        """See `Collector.collect`."""
        if item == ANSWERS_ITEM:
            batch = max(1, int(self.job.suite.batch * batch_scale))
            texts, states = answer_probe_tasks(replace(self.job, suite=replace(self.job.suite, batch=batch)))
            return {"texts": pack_texts(texts), "states": states}
        written, labels, states = self._labelled(read)
        if item == AHEAD_ITEM:
            return vars(probe_ahead(written, labels, [states], self.protocol))
        offset = int(item.removeprefix(content_item(0)[:-1]))
        return vars(probe_content(written, labels, states, offset, self.protocol))

    def _labelled(self, read: ReadItem) -> tuple[WrittenPrograms, ContentLabels, np.ndarray]:
        if self.labelled is None:
            answers = read(ANSWERS_ITEM)
            written = parse_written(unpack_texts(answers["texts"]), self.job.suite)
            reason = too_few_programs(written, self.protocol)
            if reason or written is None:
                raise ModelError(reason)
            labels = label_content(written, self.protocol, OFFSETS)
            check_states(labels, answers["states"])
            self.labelled = written, labels, answers["states"]
        return self.labelled
