"""All figures of the programs that a model wrote, from the sums that a measurement stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from benchmark.probing.protocol import Protocol
from benchmark.probing.written.ahead import AheadFigure, AheadLosses, ahead_figures, reach_of
from benchmark.probing.written.content import OFFSETS, ContentFigure, ContentHits, content_figures, too_few_programs
from benchmark.probing.written.content_labels import WrittenPrograms, label_content

AHEAD_ITEM = "ahead"
"""Prefix of the arrays of `AheadLosses`."""


@dataclass(frozen=True)
class ReachFigures:
    """Figures on the programs that the model wrote.

    Attributes:
        reason: why nothing could be measured; empty if it was.
        programs, distinct: number of valid programs and of distinct ones.
        reach: largest number of words beyond the next one up to which the states hold the rotation; None if not measured.
        ahead: rotation at each offset.
        content: semantic content of the paper with its floors, now and ahead.
    """

    reason: str
    programs: int
    distinct: int
    reach: int | None = None
    ahead: list[AheadFigure] = field(default_factory=list)
    content: list[ContentFigure] = field(default_factory=list)


def content_item(offset: int) -> str:
    """Name of the item of an offset."""
    return f"content-{offset}"


def conclude_reach(
    written: WrittenPrograms | None, protocol: Protocol, evidence: Mapping[str, np.ndarray], reason: str = ""
) -> ReachFigures:
    """Every figure, from the model's programs and the evidence; `reason` tells why there is no evidence."""
    counts = (0, 0) if written is None else (len(written.programs), written.num_distinct)
    reason = reason or too_few_programs(written, protocol)
    if reason or written is None:
        return ReachFigures(reason, *counts)
    labels = label_content(written, protocol, OFFSETS)
    content: list[ContentFigure] = []
    for offset in OFFSETS:
        name = content_item(offset)
        hits = ContentHits(evidence[f"{name}.by_unit"], evidence[f"{name}.by_seed"])
        content += content_figures(written, labels, hits, offset, protocol)
    losses = AheadLosses(evidence[f"{AHEAD_ITEM}.by_unit"], evidence[f"{AHEAD_ITEM}.by_seed"])
    ahead = ahead_figures(written, labels, losses, protocol)
    return ReachFigures("", *counts, reach_of(ahead), ahead, content)
