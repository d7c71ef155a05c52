"""Sections *Represents*, *Uses* and *Merges* of a row's page as plain values: verdict, tables, charts.

They are read from the complete records, of which tables show a summary (`measurements`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmark.board.drawing.charts import Chart, ChartPoint, ChartSeries, lay_out_chart
from benchmark.board.measurements import UNDEFINED, Measurements, format_skill
from benchmark.board.sections.budget_note import describe_budget
from benchmark.board.sections.detail_section import detail_tables
from benchmark.board.tables import format_p
from benchmark.causal.merges import MergeResult
from benchmark.causal.verdict import MARGIN, MIN_NATURAL_SHARE, MIN_SOLVED, USES, UseResult
from benchmark.probing.control_gap import INCONCLUSIVE, RECORD_ONLY, REPRESENTS
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.probing.version4.rotation_verdict import NOTHING_READ, RotationResult, represents_conditions
from benchmark.runner.measurement_record import RepresentsRecord, UsesRecord, read_measurement
from benchmark.statistics import Estimate

REASON_CHARS = 300
Table = list[dict[str, str]]
CONTROL_NAMES = {
    "token-history": "token history",
    "random-init": "randomly initialised copies",
    "record-places": "executed record: word at each place",
    "record-counts": "executed record: number of each word",
    "record-sums": "executed record: number of either of two words",
}
CONDITION_TEXTS = {
    "delta": "delta: gap minus the largest control gap",
    "pose delta": "pose delta: the same against the pose words",
    "arithmetic": "arithmetic: rotation minus other sums of the same words",
}
REPRESENTS_SENTENCES = {
    REPRESENTS: "Its states hold the robot's rotation, beyond any record of the words that was read from them",
    RECORD_ONLY: "Its states hold no more of the rotation than a record of the words explains",
    NOTHING_READ: "These probes read nothing from its states",
    INCONCLUSIVE: "Whether its states hold the rotation beyond a record of the words is not decided",
}


@dataclass(frozen=True)
class MeasuredSection:
    """One section of a row's page.

    Attributes:
        name: heading, also the name of the column.
        verdict, reason: the verdict and why; empty for a figure without a verdict.
        lead: what is measured, and the number of units.
        tables: captions and rows of the tables.
        charts: charts.
    """

    name: str
    verdict: str
    reason: str
    lead: str
    tables: list[tuple[str, Table]]
    charts: list[Chart]


def build_measured_sections(folder: Path, measurements: Measurements) -> list[MeasuredSection]:
    """Build the sections of the measurements that a row shows.

    Args:
        folder: folder of the submission.
        measurements: what the row shows; complete records of others are not read.

    Raises:
        BenchmarkError: a record does not fit its schema.
    """
    sections = []
    represents = read_measurement(RepresentsRecord, folder) if measurements.represents else None
    uses = read_measurement(UsesRecord, folder) if measurements.uses else None
    if represents is not None:
        sections.append(
            represents_section(
                represents.rotation, represents.version, describe_budget(represents.track, represents.few_programs)
            )
        )
    if uses is not None:
        section = uses_section(uses.use, uses.sites)
        sections.append(replace(section, tables=[*section.tables, *detail_tables(folder, uses)]))
        if uses.merges is not None:
            sections.append(merges_section(uses.merges))
    return sections


def describe_measurements(measurements: Measurements) -> list[str]:
    """Sentences that say what was found, in words."""
    sentences = []
    if measurements.represents:
        rotation = measurements.represents.rotation
        figure = f"delta {format_skill(rotation.delta)} on unseen prefixes"
        sentences.append(f"{REPRESENTS_SENTENCES[rotation.verdict]} ({figure}).")
    if measurements.uses:
        use = measurements.uses.use
        if use.strict is None:
            sentences.append(f"Whether it uses the state was not measured: {use.reason[:REASON_CHARS]}.")
        elif use.verdict == USES:
            sentences.append(
                "It uses the state: where an edit turns the robot, it writes the word that is right for the turned robot "
                f"(use {_format_share(use.strict.use)} on strict pairs)."
            )
        else:
            sentences.append(
                f"That it uses the state is not shown (use {_format_share(use.strict.use)} on strict pairs), which is not "
                "evidence that it does not."
            )
    merges = measurements.uses.merges if measurements.uses else None
    if merges and merges.merges:
        sentences.append(
            f"It continues prefixes that lead to the same state alike: merges {_format_share(merges.merges)}."
        )
    return sentences


def represents_section(result: RotationResult, version: int, budget: str = "") -> MeasuredSection:
    """The section of protocol 4; `budget` is a sentence on the programs that are read, see `describe_budget`."""
    conditions: Table = [
        {
            "condition": CONDITION_TEXTS[condition.name],
            "value [95% interval]": format_skill(condition.estimate),
            "lower end above": f"{condition.bound:g}",
            "met": UNDEFINED if condition.estimate is None else "yes" if condition.is_met else "no",
        }
        for condition in represents_conditions(result, ROTATION_STANDARD)
    ]
    sources: Table = [
        {"source of states": "the model", "gap": format_skill(result.gap)},
        *({"source of states": CONTROL_NAMES.get(name, name), "gap": f"{gap:+.3f}"}
          for name, gap in result.control_gaps.items()),
    ]  # fmt: skip
    figures: Table = [
        {"figure": name, "value": value}
        for name, value in (
            ("skill of rotation", format_skill(result.skill)),
            ("mean skill of the marker alternatives", f"{result.skill_alternatives:+.3f}"),
            ("gap to the pose-word alternatives", UNDEFINED if result.pose_gap is None else f"{result.pose_gap:+.3f}"),
            ("surplus over the best executed record", f"{result.surplus:+.3f}"),
            ("skill of the word and count heads", f"{result.head_skill:+.3f}"),
            ("turn count: rotation minus the number of turns", format_skill(result.turn_count)),
            ("labels read as well as rotation, p", format_p(result.p_rand)),
            *((f"delta of {name}, all rows [90% interval]", format_skill(estimate))
              for name, estimate in result.delta90_all.items()),
        )
    ]  # fmt: skip
    return MeasuredSection(
        "Represents",
        result.verdict,
        result.reason[:REASON_CHARS],
        f"Protocol {version}: do the states hold the robot's net rotation beyond a record of the words? Figures are on "
        f"{result.unseen_rows:,} rows with prefixes that the probes were not trained on (n = {result.delta.n:,} groups of "
        f"prompts). REPRESENTS needs all three conditions. {budget}".rstrip(),
        [("Conditions of REPRESENTS", conditions), ("Gap of the model and of each control", sources), ("Other figures", figures)],
        [_curve_chart(result)] if result.curve else [],
    )  # fmt: skip


def _curve_chart(result: RotationResult) -> Chart:
    lines = (
        ("model", [(part.position + 1, part.skill, part.rows) for part in result.curve]),
        ("its executed record", [(part.position + 1, part.record_skill, part.rows) for part in result.curve]),
    )
    series = [
        ChartSeries(
            name,
            kind,
            [ChartPoint(x, y, f"{name}: skill {y:.3f} after word {x}, {rows:,} rows") for x, y, rows in points],
            True,
        )
        for kind, (name, points) in enumerate(lines)
    ]
    names = {float(part.position + 1): str(part.position + 1) for part in result.curve}
    return lay_out_chart("Skill of rotation by word", "word of the program", "skill, all rows", series, x_names=names)


def uses_section(use: UseResult, sites: Sequence[str]) -> MeasuredSection:
    """The section of the causal measurement."""
    tables: list[tuple[str, Table]] = []
    charts: list[Chart] = []
    lead = (
        "The net rotation is edited in the states, and the next word is compared with the word that is right for the turned "
        "robot. Strict pairs decide: there, a look-up from the turn and the words does not give the right word."
    )
    if use.strict is not None and use.every is not None:
        strict, every = use.strict, use.every
        conditions = ["steered", *dict.fromkeys((*strict.controls, *every.controls))]
        scores = [{"steered": score.steered, **score.controls} for score in (strict, every)]
        headings = [
            f"{name}: {score.pairs:,} pairs, {score.tasks:,} tasks"
            for name, score in (("strict", strict), ("all", every))
        ]
        tables += [
            ("Share of pairs in which the right word was written", [
                {"edit": name if name == "steered" else f"control: {name}",
                 **{heading: _format_share(score.get(name)) for heading, score in zip(headings, scores, strict=True)}}
                for name in conditions
            ]),
            ("Conditions of USES, and other figures", _use_figures(use, sites)),
        ]  # fmt: skip
        charts.append(_site_chart(use, sites))
    if use.dropped:
        tables.append(
            (
                "Candidates that are not used",
                [{"reason": reason[:REASON_CHARS], "number": f"{count:,}"} for reason, count in use.dropped.items()],
            )
        )
    return MeasuredSection("Uses", use.verdict, use.reason[:REASON_CHARS], lead, tables, charts)


def _use_figures(use: UseResult, sites: Sequence[str]) -> Table:
    assert use.strict is not None
    strict = use.strict
    rows = [
        (f"margin: steered minus the largest control ({strict.largest})", _format_share(strict.margin), f"lower end above {MARGIN:g}"),
        ("share of the effect with later activations in their natural range", _format_part(use.clamped), f"at least {MIN_NATURAL_SHARE:g}"),
        ("share of prefixes that it solves unedited", _format_part(use.solved), f"at least {MIN_SOLVED:g}"),
        ("use: (steered minus the largest control that was run) / natural", _format_share(strict.use), UNDEFINED),
        ("natural: accuracy of the unedited next word", _format_share(use.natural), UNDEFINED),
        ("best of the six words is the argmax of the vocabulary", _format_part(use.is_argmax), UNDEFINED),
        ("place of the edit, selected on other tasks", sites[use.site] if use.site is not None else UNDEFINED, UNDEFINED),
    ]  # fmt: skip
    return [{"figure": name, "value [95% interval]": value, "needed": needed} for name, value, needed in rows]


def _site_chart(use: UseResult, sites: Sequence[str]) -> Chart:
    points = [
        ChartPoint(i, share, f"{name}: right word in {share:.3f} of strict choose pairs")
        for i, (name, share) in enumerate(zip(sites, use.by_site, strict=True))
    ]
    names, label = name_sites(sites)
    return lay_out_chart(
        "Right words by place of the edit",
        label,
        "share of strict choose pairs",
        [ChartSeries("steered", 0, points, True)],
        levels=[(1.0, "")],
        x_names=dict(enumerate(names)),
    )


def name_sites(sites: Sequence[str]) -> tuple[list[str], str]:
    """Short names of sites and the label of their axis: the number where all but the last have one, `all` for all."""
    stems = {re.sub(r" \d+$", "", name) for name in sites if not name.startswith("all ")}
    if len(stems) != 1:
        return list(sites), "place of the edit"
    return ["all" if name.startswith("all ") else name.rpartition(" ")[2] for name in sites], stems.pop()


def merges_section(merges: MergeResult) -> MeasuredSection:
    """The section of merges, which has no verdict."""
    rows = [
        ("merges: 1 - TV(same state) / TV(other state)", _format_share(merges.merges)),
        ("floor: the same for states that are equal under an alternative semantics only", _format_share(merges.floor)),
        ("agreement with the exact distribution", _format_part(merges.agreement)),
        ("mean total variation, same state", _format_part(merges.same)),
        ("mean total variation, other state", _format_part(merges.other)),
    ]
    lead = (
        "Does it continue two prefixes alike that lead to the same state? No hidden states are involved; "
        f"n = {merges.pairs:,} pairs of prefixes of the same state."
    )
    table = [{"figure": name, "value [95% interval]": value} for name, value in rows]
    return MeasuredSection("Merges", "", "", lead, [("Figures", table)], [])


def _format_share(estimate: Estimate | None) -> str:
    if estimate is None:
        return UNDEFINED
    value, low, high = (round(part, 3) + 0.0 for part in (estimate.value, estimate.low, estimate.high))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _format_part(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.3f}"
