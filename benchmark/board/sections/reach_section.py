"""The section *Ahead* of a row's page: how far ahead the states hold the rotation, and the paper's semantic content."""

from __future__ import annotations

from pathlib import Path

from benchmark.artifacts import RECORD
from benchmark.board.measured_sections import MeasuredSection, Table
from benchmark.board.measurements import UNDEFINED, MeasurementSummary, find_misfit, format_skill
from benchmark.probing.written.content import MODEL, ContentFigure
from benchmark.probing.written.figures import ReachFigures
from benchmark.runner.measurement_record import ReachRecord, read_measurement
from benchmark.runner.record import read_record
from benchmark.statistics import in_percent

DEPTH_NAMES = {"": UNDEFINED, "linear": "linear", "mlp1": "one hidden layer"}


def reach_sections(folder: Path) -> list[MeasuredSection]:
    """The section of a submission; none if it has no official record that fits its `record.json`.

    Raises:
        BenchmarkError: a record does not fit its schema.
    """
    record = read_measurement(ReachRecord, folder)
    if record is None:
        return []
    summary = MeasurementSummary.model_validate(record.model_dump())
    misfit = find_misfit(
        summary, folder / ReachRecord.EVIDENCE, read_record(folder / RECORD), not record.written.reason
    )
    return [] if misfit else [reach_section(record.written)]


def reach_section(figures: ReachFigures) -> MeasuredSection:
    """The section of the figures."""
    lead = (
        "On the programs that it wrote itself, before each word: does it hold the rotation after later words, which are not "
        "written yet, beyond what follows from the state one word earlier? The token history has the words so far and the "
        "shown worlds. Semantic content is the accuracy of the paper's probes; below the token history it shows no state. "
        f"n = {figures.programs:,} programs, {figures.distinct:,} distinct."
    )
    if figures.reason:
        return MeasuredSection("Ahead", "", figures.reason, lead, [], [])
    ahead: Table = [
        {
            "words beyond the next one": f"+{part.offset}",
            "skill [95% interval]": format_skill(part.skill),
            "token history": f"{part.history:+.3f}",
            "delta [95% interval]": format_skill(part.delta),
            "rows": f"{part.rows:,}",
        }
        for part in figures.ahead
    ]
    tables = [(f"Rotation ahead: reach {figures.reach}", ahead)]
    for offset in dict.fromkeys(figure.offset for figure in figures.content):
        caption = "Semantic content (%)" if not offset else f"Semantic content (%), {offset} ahead"
        tables.append((caption, _content_rows([figure for figure in figures.content if figure.offset == offset])))
    return MeasuredSection("Ahead", f"reach {figures.reach}", "", lead, tables, [])


def _content_rows(figures: list[ContentFigure]) -> Table:
    rows: Table = []
    for source, depth in dict.fromkeys((figure.source, figure.depth) for figure in figures):
        of_source = [figure for figure in figures if (figure.source, figure.depth) == (source, depth)]
        row = {"source": "the model" if source == MODEL else source, "probe": DEPTH_NAMES.get(depth, depth)}
        for figure in of_source:
            row[figure.frame] = in_percent(figure.content)
            row |= {group: f"{100 * share:.1f}" for group, share in figure.accuracy.items()}
        rows.append(row)
    return rows
