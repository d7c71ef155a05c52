"""The table of semantic content with its floors, as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from benchmark.probing.written.content import PaperContent
from benchmark.probing.written.content_labels import FRAMES
from benchmark.statistics import in_percent


def to_json(content: PaperContent) -> dict[str, Any]:
    """All figures as JSON values."""
    return asdict(content)


def format_content(content: PaperContent) -> str:
    """One table per offset: rows are sources and depths, columns the content in each frame and the accuracy by group."""
    lines = [f"{content.programs:,} valid programs, {content.distinct:,} distinct. Accuracy in percent [95% interval]."]
    for offset in dict.fromkeys(figure.offset for figure in content.figures):
        of_offset = [figure for figure in content.figures if figure.offset == offset]
        rows = []
        for source, depth in dict.fromkeys((figure.source, figure.depth) for figure in of_offset):
            row = {"source": source, "probe": depth or "-"}
            for frame in FRAMES:
                figure = content.find(source, depth, offset, frame)
                row[frame] = in_percent(figure.content)
                row |= {group: f"{100 * share:.1f}" for group, share in figure.accuracy.items()}
            rows.append(row)
        lines += ["", f"State after the word, {offset} ahead:" if offset else "State after the word:", ""]
        lines.append(tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True))
    return "\n".join(lines)
