"""Data of one row's page as plain values for the template: figures, charts, heat maps, provenance.

Letters: `S` semantics, `F` features.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.artifacts import CAUSAL_EVIDENCE, MAX_BYTES, PROBES, READINGS, SAMPLES
from benchmark.board.comparison import TEST_LINE, load_recorded_suite
from benchmark.board.drawing.charts import Chart, ChartPoint, ChartSeries, lay_out_chart
from benchmark.board.measurements import UNDEFINED, format_skill
from benchmark.board.player import SEMANTICS_BY_NAME, build_player_readings, build_player_tasks, describe_semantics
from benchmark.board.ranking import LeaderboardRow, RankedRow
from benchmark.board.sections.decoding import decoding_rows
from benchmark.board.tables import format_p, format_percent
from benchmark.errors import SubmissionError
from benchmark.files import read_json, read_rows
from benchmark.models.json_files import TRAINING_FILE
from benchmark.probing.control_gap import overall_skill
from benchmark.probing.diagnostics import CONTROL_LABELS
from benchmark.probing.figure_data import LAYER_MAPS, format_range, select_budget_curve, select_layer_map
from benchmark.probing.protocol import STANDARD
from benchmark.probing.readout import load_readout
from benchmark.probing.state_source import RunEvidence
from benchmark.probing.verdict import load_blind_set
from benchmark.runner.folder import read_probes
from benchmark.runner.record import Record
from benchmark.runner.redaction import redact_paths
from benchmark.statistics import Estimate
from benchmark.submit.artifacts.sources import find_file, missing_files
from benchmark.tasks.stage import TEST
from benchmark.tasks.suite import Suite
from karel_env.features import FEATURES, PRIMARY
from karel_env.screen import valid_alternatives

if TYPE_CHECKING:
    from benchmark.board.measured_sections import MeasuredSection

NUM_SHADES = 5
"""Number of colour steps of a heat map on each side of 0."""


@dataclass(frozen=True)
class HeatMapCell:
    """One cell of a heat map: text, shade (-`NUM_SHADES` to `NUM_SHADES`), and whether it is greyed out."""

    text: str
    shade: int
    is_muted: bool = False


@dataclass(frozen=True)
class HeatMap:
    """Cells by row and column; None for a missing measurement."""

    title: str
    note: str
    corner: str
    columns: list[str]
    rows: list[tuple[str, list[HeatMapCell | None]]]


@dataclass(frozen=True)
class RowPage:
    """Data of one row's page.

    Attributes:
        ranked_row: the row.
        figures, outcomes, features: tables as lists of cells.
        charts, maps: charts and heat maps.
        provenance, declared: pairs of name and value.
        command: shell command that recomputes the row.
        player_data: JSON data of the player.
        missing_readings_reason: why there are no probe readings; empty if there are.
        summary: what was found, in sentences.
        sections: what is measured besides accuracy under later protocols.
    """

    ranked_row: RankedRow
    figures: list[tuple[str, str, int]]
    outcomes: list[tuple[str, int]]
    features: list[dict[str, str]]
    charts: list[Chart]
    maps: list[HeatMap]
    provenance: list[tuple[str, str]]
    declared: list[tuple[str, str]]
    command: str
    player_data: dict[str, Any]
    missing_readings_reason: str
    summary: list[str]
    sections: list[MeasuredSection]


def build_row_page(folder: Path, ranked_row: RankedRow) -> RowPage:
    """Build the page data of one row.

    Args:
        folder: folder of the submission.
        ranked_row: its row.
    """
    # SciPy and the compiler are loaded where a page is built, not where help is printed.
    from benchmark.board.measured_sections import build_measured_sections
    from benchmark.board.sections.reach_section import reach_sections

    record = ranked_row.row.record
    suite = load_recorded_suite(record)
    maps, readings = [], None
    missing_readings_reason = (
        "It was evaluated without its hidden states."
        if record.model.parameters
        else f"{ranked_row.row.name} is not a neural network and has no hidden states."
    )
    if record.meaning is not None:
        probe_set, _ = load_blind_set(suite, record.protocol)
        if (probes := find_file(folder, PROBES)).is_file():
            maps.append(_semantics_map(probes.parent, record))
        readings = load_readout(find_file(folder, READINGS).parent, probe_set)
        missing_readings_reason = "" if readings else "Probe readings per step were not stored for this row."
    maps += _layer_maps(record)
    missing = missing_files(folder)
    samples = [] if SAMPLES in missing else read_rows(find_file(folder, SAMPLES), MAX_BYTES[SAMPLES], TEST_LINE)
    player_data = {
        "tasks": build_player_tasks(suite, [row for row in samples if row["stage"] == TEST]),
        "blind": build_player_readings(suite, readings) if readings else None,
        "steering": _steering_data(folder, ranked_row.row, suite),
    }
    return RowPage(
        ranked_row, _figure_rows(record), list(record.accuracy.failures.items()), _feature_rows(record),
        _charts(folder, record), maps, _provenance_rows(record), _declared_rows(ranked_row.row), _rerun_command(record), player_data, missing_readings_reason,
        [*_summary(ranked_row.row), *describe_missing_files(folder.name, missing)], [*build_measured_sections(folder, ranked_row.row.measurements), *reach_sections(folder)],
    )  # fmt: skip


def _summary(entry: LeaderboardRow) -> list[str]:
    """What a row shows: a sentence in words, then sentences with figures on solves, represents, uses, merges."""
    from benchmark.board.measured_sections import describe_measurements
    from benchmark.board.sections.row_sentence import row_sentence

    accuracy = entry.record.accuracy
    solves = (
        f"Its programs solve {format_percent(accuracy.shown)}% of the tasks on the shown examples and "
        f"{format_percent(accuracy.held_out)}% on held-out ones."
    )
    return [row_sentence(entry), solves, *describe_measurements(entry.measurements)]


def describe_missing_files(folder: str, missing: Sequence[str]) -> list[str]:
    """A sentence for artifacts that were not at hand when a page was built; none if there are no such artifacts."""
    if not missing:
        return []
    return [
        f"Not at hand when this page was built, and listed by SHA-256 in submission.yaml: {', '.join(missing)}. What needs them "
        f"(programs, players, maps) is left out; the figures are those of its records. karel-bench submit fetch {folder} gets them."
    ]


def _steering_data(folder: Path, entry: LeaderboardRow, suite: Suite) -> dict[str, Any] | None:
    """Data of the player of edits; None if nothing was edited."""
    from benchmark.board.steering_player import build_steering_player
    from benchmark.runner.measurement_record import UsesRecord, read_measurement
    from benchmark.runner.measurements.uses import pair_settings

    uses = read_measurement(UsesRecord, folder) if entry.measurements.uses else None
    if uses is None or uses.use.site is None or not find_file(folder, CAUSAL_EVIDENCE).is_file():
        return None
    # A run that is smaller than an official one, whose page is a preview, has fewer pairs.
    settings = None if uses.official else pair_settings(suite)
    return build_steering_player(folder, suite, uses.sites[uses.use.site], settings)


def _figure_rows(record: Record) -> list[tuple[str, str, int]]:
    """Rows of (name, value with interval, n)."""
    accuracy = record.accuracy
    shares: list[tuple[str, Estimate | None]] = [
        (f"{name.replace('_', '-')} %", getattr(accuracy, name))
        for name in ("shown", "held_out", "both", "exact", "valid")
    ]
    shares += [
        (f"sc {depth} %", estimate) for depth, estimate in (record.content.arithmetic if record.content else {}).items()
    ]
    shares += decoding_rows(record)
    rows = [(name, format_percent(e), e.n) for name, e in shares if e]
    if record.meaning:
        primary = record.meaning.features[PRIMARY]
        rows += [
            (name, format_skill(e), e.n)
            for name, e in (("skill", primary.skill), ("gap", primary.gap), ("delta", primary.delta))
        ]
    return rows


def _feature_rows(record: Record) -> list[dict[str, str]]:
    """One table row per feature of the robot's state."""
    if record.meaning is None:
        return []
    return [
        {
            "feature": name + (" (degenerate)" if feature_result.degenerate else ""),
            "skill": format_skill(feature_result.skill),
            "alternatives": f"{feature_result.skill_alternatives:+.3f}",
            "gap": format_skill(feature_result.gap),
            **{f"gap, {control}": format_skill(gap) for control, gap in feature_result.control_gaps.items()},
            "delta": format_skill(feature_result.delta),
            "p Holm": format_p(feature_result.p_holm),
            "alternatives used": str(len(feature_result.alternatives)),
        }
        for name, feature_result in record.meaning.features.items()
    ]


def _semantics_map(folder: Path, record: Record) -> HeatMap:
    """Heat map of skill by feature and semantics, from the stored arrays."""
    probe_set, baseline = load_blind_set(load_recorded_suite(record), record.protocol)
    skill = overall_skill(RunEvidence.from_arrays(read_probes(folder)).sources["model"], baseline)
    names = [name for name in probe_set.semantics if name != CONTROL_LABELS]
    rows: list[tuple[str, list[HeatMapCell | None]]] = []
    limit = float(np.abs(skill[[probe_set.semantics.index(name) for name in names]]).max())
    for f, feature in enumerate(FEATURES):
        if record.meaning is None or feature not in record.meaning.features:
            continue
        values = [float(skill[probe_set.semantics.index(name), f]) for name in names]
        allowed = {names[0], *valid_alternatives(feature)}
        rows.append(
            (
                feature,
                [
                    HeatMapCell(f"{v:+.2f}", _shade(v, limit), n not in allowed)
                    for n, v in zip(names, values, strict=True)
                ],
            )
        )
    note = (
        f"Skill of the model's probes (0: label prior, 1: perfect); n = {len(baseline.programs):,} test programs, "
        f"{len(record.protocol.seeds)} probe seeds; intervals are in the features table. Grey italics: the semantics is not a valid "
        "alternative for that feature and is left out of the gap. Column names spell the effects of move, turn_left, "
        "turn_right, pick_marker and put_marker: m moves, l turns left, r turns right, p picks, u puts."
    )
    return HeatMap("Skill by feature and semantics", note, "feature", names, rows)


def _layer_maps(record: Record) -> list[HeatMap]:
    """Heat maps of delta of the primary feature by layer and offset, one per probe set of the full grid."""
    heat_maps = []
    for probe_set, position in LAYER_MAPS:
        cells = select_layer_map(record.grid.slices, probe_set, position) if record.grid else {}
        if not cells:
            continue
        views = sorted({view for view, _ in cells}, key=lambda view: (view == "mean", len(view), view))
        offsets = sorted({offset for _, offset in cells})
        deltas = {key: slice_result.features[PRIMARY].delta for key, slice_result in cells.items()}
        limit = max(STANDARD.margin, *(abs(delta.value) for delta in deltas.values()))
        rows = [(view, [_delta_cell(deltas.get((view, offset)), limit) for offset in offsets]) for view in views]
        note = (
            f"Delta of {PRIMARY}, ± half of its 95% interval, {probe_set} probe set at {position}; "
            f"n = {format_range(slice_result.programs for slice_result in cells.values())} programs. Grey italics: the interval contains 0."
        )
        heat_maps.append(
            HeatMap(
                f"Delta by layer and offset: {probe_set} at {position}",
                note,
                "layer",
                [f"{o:+d}" if o else "0" for o in offsets],
                rows,
            )
        )
    return heat_maps


def _delta_cell(delta: Estimate | None, limit: float) -> HeatMapCell | None:
    if delta is None:
        return None
    text = f"{delta.value:+.3f} ±{(delta.high - delta.low) / 2:.3f}"
    return HeatMapCell(text, _shade(delta.value, limit), delta.low <= 0 <= delta.high)


def _shade(value: float, limit: float) -> int:
    return round(max(-1.0, min(1.0, value / limit)) * NUM_SHADES)


def _charts(folder: Path, record: Record) -> list[Chart]:
    charts = []
    budgets = select_budget_curve(record.grid.slices) if record.grid else []
    if len(budgets) > 1:
        x = [float(slice_result.budget) for slice_result in budgets]
        readings = [slice_result.features[PRIMARY] for slice_result in budgets]
        lines = {
            "model, original": [r.skill for r in readings],
            "model, alternatives": [r.alternatives for r in readings],
        }
        if all("recorder" in r.controls for r in readings):
            lines["recorder, original"] = [r.controls["recorder"][0] for r in readings]
        charts.append(
            lay_out_chart(
                f"Skill of {PRIMARY} by label budget", "training programs per probe (log scale)", "skill",
                [
                    ChartSeries(name, kind, [ChartPoint(a, b, f"{name}: {b:+.3f} at {a:,.0f} programs") for a, b in zip(x, line, strict=True)], True)
                    for kind, (name, line) in enumerate(lines.items())
                ],
                logarithmic=True,
            )
        )  # fmt: skip
        deltas = [ChartPoint(a, r.delta.value, f"delta {format_skill(r.delta)} at {a:,.0f} programs, n = {r.delta.n:,}", y_interval=r.delta)
                  for a, r in zip(x, readings, strict=True)]  # fmt: skip
        charts.append(
            lay_out_chart(f"Delta of {PRIMARY} by label budget", "training programs per probe (log scale)", "delta",
                  [ChartSeries("delta, 95% interval", 0, deltas, True)], logarithmic=True,
                  levels=[(record.protocol.margin, f"margin {record.protocol.margin:g}")])
        )  # fmt: skip
    log = read_training_log(folder)
    if len(log) > 1:
        curve = [ChartPoint(step, loss, f"step {step:,.0f}: loss {loss:.3f}") for step, loss in log]
        charts.append(
            lay_out_chart(
                "Training loss, as declared", "step", "loss, nats per token", [ChartSeries("loss", 0, curve, True)]
            )
        )
    return charts


def read_training_log(folder: Path) -> list[tuple[float, float]]:
    """Read (step, loss) pairs from a submission's `training.json`; empty if the file is missing or invalid."""
    try:
        log = read_json(folder / TRAINING_FILE)["log"]
        losses = [(float(entry["step"]), float(entry["loss"])) for entry in log if "loss" in entry]
    except (SubmissionError, ValueError, TypeError, KeyError):
        return []
    return losses if np.isfinite(losses).all() else []


def _provenance_rows(record: Record) -> list[tuple[str, str]]:
    p, model = record.provenance, record.model
    rows = [
        ("model", model.spec), ("digest of model files", model.digest), ("parameters", f"{model.parameters:,}"),
        ("computed in", f"{model.dtype} on {model.device}"),
        ("suite", f"{record.suite.name} v{record.suite.version}, seed {record.suite.seed}"), ("test set, SHA-256", record.suite.sha256),
        ("protocol", f"v{record.protocol.version}, probe seeds {', '.join(map(str, record.protocol.seeds))}"),
        ("samples, SHA-256", record.samples_sha256), ("source, SHA-256", p.source), ("commit", p.commit or UNDEFINED),
        ("started", p.started), ("finished", p.finished), ("worker seconds", f"{sum(p.seconds.values()):,.0f}"),
        ("machine", f"{p.hardware}, {p.platform}"), ("Python", p.python),
        ("packages", ", ".join(f"{name} {version}" for name, version in p.packages.items() if version)),
        ("probe matmul precision", p.products),
    ]  # fmt: skip
    return [(name, redact_paths(str(value))) for name, value in rows]


def _declared_rows(entry: LeaderboardRow) -> list[tuple[str, str]]:
    """Fields of `submission.yaml`, nested keys as `a.b`."""

    def flat(value: Any, name: str) -> list[tuple[str, str]]:
        if isinstance(value, dict):
            return [pair for key, inner in value.items() for pair in flat(inner, f"{name}.{key}" if name else str(key))]
        text = ", ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
        return [(name, redact_paths(text) if text else UNDEFINED)]

    return flat(entry.declared.model_dump(exclude_none=True, exclude={"artifacts", "excerpt"}), "")


def _rerun_command(record: Record) -> str:
    argv = ["python", "-m", "benchmark.run", "--model", redact_paths(record.model.spec), "--suite", record.suite.name]
    if record.grid:
        argv += ["--detail", "full" if record.grid.is_full else "layers"]
    for option, value, default in (
        ("--dtype", record.model.dtype, "float32"),
        ("--device", record.model.device, "cpu"),
    ):
        argv += [option, value] if value != default else []
    lines = [f"git checkout {shlex.quote(record.provenance.commit)}"] if record.provenance.commit else []
    return "\n".join([*lines, shlex.join(argv)])


def describe_row_semantics(player_data: dict[str, Any]) -> dict[str, str]:
    """Description of each semantics in a row's readings, by name."""
    return (
        {
            semantics["name"]: describe_semantics(SEMANTICS_BY_NAME[semantics["name"]])
            for semantics in player_data["blind"]["semantics"]
        }
        if player_data["blind"]
        else {}
    )
