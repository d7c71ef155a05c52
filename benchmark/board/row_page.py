"""What the page of one row shows, as plain values for the template: figures, charts, heat maps, provenance.

Letters: `S` semantics, `F` features.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.artifacts import LIMITS, PROBES, SAMPLES
from benchmark.board.charts import Chart, Point, Series, chart
from benchmark.board.comparison import load_probe_set, load_recorded_suite
from benchmark.board.player import MEANINGS, meaning_of, played_readings, played_tasks
from benchmark.board.ranking import LeaderboardRow, RankedRow
from benchmark.board.tables import UNDEFINED, percent, points
from benchmark.errors import SubmissionError
from benchmark.files import read_json, read_rows
from benchmark.probing.diagnostics import CONTROL
from benchmark.probing.figure_data import MAPS, budget_points, map_cells, span_of
from benchmark.probing.protocol import STANDARD
from benchmark.probing.readout import read_readings
from benchmark.probing.state_source import evidence_of
from benchmark.runner.folder import read_probes
from benchmark.runner.record import Record
from benchmark.runner.redaction import without_paths
from benchmark.statistics import Estimate
from benchmark.tasks.stage import TEST
from karel_env.features import FEATURES, PRIMARY
from karel_env.screen import valid_alternatives

SHADES = 5
"""Steps of a heat map's colour on each side of 0."""


@dataclass(frozen=True)
class Cell:
    """One place of a heat map: its words, its shade (-`SHADES` to `SHADES`), and whether its interval contains 0."""

    words: str
    shade: int
    unclear: bool = False


@dataclass(frozen=True)
class HeatMap:
    """Cells by row and column; None where nothing was measured."""

    title: str
    note: str
    corner: str
    columns: list[str]
    rows: list[tuple[str, list[Cell | None]]]


@dataclass(frozen=True)
class RowPage:
    """One row.

    Attributes:
        ranked: the row.
        figures, outcomes, features: tables as lists of cells.
        charts, maps: what is drawn.
        provenance, declared: names and values.
        command: that computes the row again.
        plays: what the player needs, JSON.
        unread: why there are no readings; empty where there are.
    """

    ranked: RankedRow
    figures: list[tuple[str, str, int]]
    outcomes: list[tuple[str, int]]
    features: list[dict[str, str]]
    charts: list[Chart]
    maps: list[HeatMap]
    provenance: list[tuple[str, str]]
    declared: list[tuple[str, str]]
    command: str
    plays: dict[str, Any]
    unread: str


def row_page(folder: Path, ranked: RankedRow) -> RowPage:
    """Everything about one row.

    Args:
        folder: of the submission.
        ranked: its row.
    """
    record = ranked.entry.record
    suite = load_recorded_suite(record)
    maps, readings = [], None
    unread = f"{ranked.entry.name} is no network, so there are no hidden states to read."
    if record.meaning is not None:
        probe_set, _ = load_probe_set(suite, record.protocol)
        if (folder / PROBES).is_file():
            maps.append(_semantics_map(folder, record))
        readings = read_readings(folder, probe_set)
        unread = "" if readings else "What the probes read step by step was not stored for this row."
    maps += _layer_maps(record)
    samples = [row for row in read_rows(folder / SAMPLES, LIMITS[SAMPLES]) if row["stage"] == TEST]
    plays = {"tasks": played_tasks(suite, samples), "blind": played_readings(suite, readings) if readings else None}
    return RowPage(
        ranked, _figures(record), list(record.accuracy.failures.items()), _features(record),
        _charts(folder, record), maps, _provenance(record), _declared(ranked.entry), _command(record), plays, unread,
    )  # fmt: skip


def _figures(record: Record) -> list[tuple[str, str, int]]:
    """Name, value with interval, n."""
    accuracy = record.accuracy
    shares: list[tuple[str, Estimate | None]] = [
        (f"{name.replace('_', '-')} %", getattr(accuracy, name))
        for name in ("shown", "held_out", "both", "exact", "valid")
    ]
    shares += [
        (f"sc {depth} %", found) for depth, found in (record.content.arithmetic if record.content else {}).items()
    ]
    rows = [(name, percent(e), e.n) for name, e in shares if e]
    if record.meaning:
        facing = record.meaning.features[PRIMARY]
        rows += [
            (name, points(e), e.n)
            for name, e in (("skill", facing.skill), ("gap", facing.gap), ("delta", facing.delta))
        ]
    return rows


def _features(record: Record) -> list[dict[str, str]]:
    """A row a feature of the probed state."""
    if record.meaning is None:
        return []
    return [
        {
            "feature": name + (" (degenerate)" if one.degenerate else ""),
            "skill": points(one.skill),
            "alternatives": f"{one.skill_alternatives:+.3f}",
            "gap": points(one.gap),
            **{f"gap of {control}": points(gap) for control, gap in one.control_gaps.items()},
            "delta": points(one.delta),
            "p Holm": f"{one.p_holm:.2g}",
            "of alternatives": str(len(one.alternatives)),
        }
        for name, one in record.meaning.features.items()
    ]


def _semantics_map(folder: Path, record: Record) -> HeatMap:
    """Skill by feature and semantics, from the stored arrays."""
    probe_set, tested = load_probe_set(load_recorded_suite(record), record.protocol)
    evidence = evidence_of(read_probes(folder))["model"]
    skill = 1 - evidence.probe.sum(-1, dtype=np.float64) / tested.prior.sum(-1)
    names = [name for name in probe_set.semantics if name != CONTROL]
    rows: list[tuple[str, list[Cell | None]]] = []
    limit = float(np.abs(skill[[probe_set.semantics.index(name) for name in names]]).max())
    for f, feature in enumerate(FEATURES):
        if record.meaning is None or feature not in record.meaning.features:
            continue
        values = [float(skill[probe_set.semantics.index(name), f]) for name in names]
        allowed = {names[0], *valid_alternatives(feature)}
        rows.append(
            (
                feature,
                [Cell(f"{v:+.2f}", _shade(v, limit), n not in allowed) for n, v in zip(names, values, strict=True)],
            )
        )
    note = (
        f"Skill of the model's probes (0: prior, 1: all); n = {len(tested.programs):,} test programs, "
        f"{len(record.protocol.seeds)} probe seeds; intervals are in the table of features. Grey italics: no control for that "
        "feature, left out of the gap. A column's name spells what move, turn_left, turn_right, pick_marker and put_marker "
        "do: m moves, l turns left, r turns right, p picks, u puts."
    )
    return HeatMap("Skill by feature and semantics", note, "feature", names, rows)


def _layer_maps(record: Record) -> list[HeatMap]:
    """Delta of the primary feature by layer and offset, one for each probe set that the full grid has it for."""
    found = []
    for probe_set, position in MAPS:
        cells = map_cells(record.grid.slices, probe_set, position) if record.grid else {}
        if not cells:
            continue
        views = sorted({view for view, _ in cells}, key=lambda view: (view == "mean", len(view), view))
        offsets = sorted({offset for _, offset in cells})
        deltas = {key: one.features[PRIMARY].delta for key, one in cells.items()}
        limit = max(STANDARD.margin, *(abs(delta.value) for delta in deltas.values()))
        rows = [(view, [_delta_cell(deltas.get((view, offset)), limit) for offset in offsets]) for view in views]
        note = (
            f"Delta of {PRIMARY}, ± half of its 95% interval, {probe_set} probe set at {position}; "
            f"n = {span_of(one.programs for one in cells.values())} programs. Grey italics: the interval contains 0."
        )
        found.append(
            HeatMap(
                f"Delta by layer and offset: {probe_set} at {position}",
                note,
                "layer",
                [f"{o:+d}" if o else "0" for o in offsets],
                rows,
            )
        )
    return found


def _delta_cell(delta: Estimate | None, limit: float) -> Cell | None:
    if delta is None:
        return None
    words = f"{delta.value:+.3f} ±{(delta.high - delta.low) / 2:.3f}"
    return Cell(words, _shade(delta.value, limit), delta.low <= 0 <= delta.high)


def _shade(value: float, limit: float) -> int:
    return round(max(-1.0, min(1.0, value / limit)) * SHADES)


def _charts(folder: Path, record: Record) -> list[Chart]:
    found = []
    budgets = budget_points(record.grid.slices) if record.grid else []
    if len(budgets) > 1:
        x = [float(one.budget) for one in budgets]
        readings = [one.features[PRIMARY] for one in budgets]
        lines = {
            "model, original": [r.skill for r in readings],
            "model, alternatives": [r.alternatives for r in readings],
        }
        if all("recorder" in r.controls for r in readings):
            lines["recorder, original"] = [r.controls["recorder"][0] for r in readings]
        found.append(
            chart(
                f"Skill of {PRIMARY} by label budget", "programs that a probe is trained on (log scale)", "skill",
                [
                    Series(name, kind, [Point(a, b, f"{name}: {b:+.3f} at {a:,.0f} programs") for a, b in zip(x, line, strict=True)], True)
                    for kind, (name, line) in enumerate(lines.items())
                ],
                logarithmic=True,
            )
        )  # fmt: skip
        deltas = [Point(a, r.delta.value, f"delta {points(r.delta)} at {a:,.0f} programs, n = {r.delta.n:,}", across=r.delta)
                  for a, r in zip(x, readings, strict=True)]  # fmt: skip
        found.append(
            chart(f"Delta of {PRIMARY} by label budget", "programs that a probe is trained on (log scale)", "delta",
                  [Series("delta, 95% interval", 0, deltas, True)], logarithmic=True,
                  levels=[(record.protocol.margin, f"margin {record.protocol.margin:g}")])
        )  # fmt: skip
    log = training_log(folder)
    if len(log) > 1:
        curve = [Point(step, loss, f"step {step:,.0f}: loss {loss:.3f}") for step, loss in log]
        found.append(
            chart("Training loss, as declared", "step", "loss, nats a token", [Series("loss", 0, curve, True)])
        )
    return found


def training_log(folder: Path) -> list[tuple[float, float]]:
    """(step, loss) of a submission's `training.json`; empty where there is none, or none that can be read."""
    try:
        log = read_json(folder / "training.json")["log"]
        found = [(float(entry["step"]), float(entry["loss"])) for entry in log if "loss" in entry]
    except (SubmissionError, ValueError, TypeError, KeyError):
        return []
    return found if np.isfinite(found).all() else []


def _provenance(record: Record) -> list[tuple[str, str]]:
    p, model = record.provenance, record.model
    rows = [
        ("model", model.spec), ("digest of its files", model.digest), ("parameters", f"{model.parameters:,}"),
        ("computed in", f"{model.dtype} on {model.device}"),
        ("suite", f"{record.suite.name} v{record.suite.version}, seed {record.suite.seed}"), ("test set, SHA-256", record.suite.sha256),
        ("protocol", f"v{record.protocol.version}, probe seeds {', '.join(map(str, record.protocol.seeds))}"),
        ("samples, SHA-256", record.samples_sha256), ("source, SHA-256", p.source), ("commit", p.commit or UNDEFINED),
        ("started", p.started), ("finished", p.finished), ("worker seconds", f"{sum(p.seconds.values()):,.0f}"),
        ("machine", f"{p.hardware}, {p.platform}"), ("Python", p.python),
        ("packages", ", ".join(f"{name} {version}" for name, version in p.packages.items() if version)),
        ("products of probes", p.products),
    ]  # fmt: skip
    return [(name, without_paths(str(value))) for name, value in rows]


def _declared(entry: LeaderboardRow) -> list[tuple[str, str]]:
    """The submission's own words, nested entries as `a.b`."""

    def flat(value: Any, name: str) -> list[tuple[str, str]]:
        if isinstance(value, dict):
            return [pair for key, inner in value.items() for pair in flat(inner, f"{name}.{key}" if name else str(key))]
        text = ", ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
        return [(name, without_paths(text) if text else UNDEFINED)]

    return flat(entry.declared.model_dump(exclude_none=True), "")


def _command(record: Record) -> str:
    words = ["python", "-m", "benchmark.run", "--model", without_paths(record.model.spec), "--suite", record.suite.name]
    if record.grid:
        words += ["--grid", "full" if record.grid.whole else "layers"]
    for option, value, usual in (("--dtype", record.model.dtype, "float32"), ("--device", record.model.device, "cpu")):
        words += [option, value] if value != usual else []
    lines = [f"git checkout {shlex.quote(record.provenance.commit)}"] if record.provenance.commit else []
    return "\n".join([*lines, shlex.join(words)])


def meanings(plays: dict[str, Any]) -> dict[str, str]:
    """What each semantics of a row's readings says, in words."""
    return (
        {one["name"]: meaning_of(MEANINGS[one["name"]]) for one in plays["blind"]["semantics"]}
        if plays["blind"]
        else {}
    )
