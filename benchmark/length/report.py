"""The results of models at several lengths as JSON, tables and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmark.length.measurement import HISTORY, MODEL, UNTRAINED, LengthResult
from benchmark.length.skills import ACCURACY, GAP, SKILL, SURPLUS

Content = Mapping[str, Any]
"""The JSON values of one model, see `to_json`."""
DIGITS = 4
LOWEST = -0.25
"""Lower end of the vertical axis of the figure; skills below it are drawn there."""
COLUMNS = {
    f"{MODEL} {SKILL}": "skill", "record " + SKILL: "executed record", SURPLUS: "surplus", f"{MODEL} {GAP}": "gap",
    f"{UNTRAINED} {SKILL}": "untrained copy", f"{HISTORY} {SKILL}": "token history",
}  # fmt: skip
CARRIED_COLUMNS = {f"{MODEL} carried {SKILL}": "skill", f"{MODEL} carried {ACCURACY}": "accuracy"}


def to_json(result: LengthResult) -> dict[str, Any]:
    """All results; numbers are rounded, of the pairs for *use* only the counts and the scores of strict pairs are kept."""
    content = asdict(result)
    content["prefixes"] = {
        str(factor): {
            "words": prefix.words,
            "verdict": prefix.use.verdict,
            "reason": prefix.use.reason,
            "solved": prefix.solved,
            "natural": None if prefix.use.natural is None else asdict(prefix.use.natural),
            "strict": None if prefix.use.strict is None else asdict(prefix.use.strict),
            "every": None if prefix.use.every is None else asdict(prefix.use.every),
            "merges": None if prefix.merges is None else asdict(prefix.merges),
            "dropped": prefix.use.dropped,
        }
        for factor, prefix in result.prefixes.items()
    }
    content["tasks"] = {str(factor): entry for factor, entry in content["tasks"].items()}
    rounded: dict[str, Any] = _round(content)
    return rounded


def _round(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, Mapping):
        return {key: _round(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_round(entry) for entry in value]
    return value


def format_content(content: Content) -> str:
    """The tables of one model, from the values of `to_json`."""
    parts = [
        f"{content['programs']:,} blind programs; intervals at 95% over prompts and probe seeds",
        "Probes trained on programs of the same length\n\n" + _rotation_table(content),
    ]
    if content["carried"] is not None:
        parts.append(f"Probes trained on the first {content['base']} words\n\n" + _carried_table(content))
    if content["tasks"]:
        parts.append("Tasks by length of the reference, share solved\n\n" + _task_table(content))
    if content["prefixes"]:
        parts.append("Use and merges after longer prefixes\n\n" + _prefix_table(content))
    parts += [f"{name}: {reason}" for name, reason in content["reasons"].items()]
    return "\n\n".join(parts)


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def _rotation_table(content: Content) -> str:
    rows = []
    for curve in content["rotation"]:
        for stretch in curve["stretches"]:
            row = {"program": f"{curve['words']} words", "words": f"{stretch['first']} to {stretch['last']}"}
            rows.append(row | {title: _interval(stretch["figures"][name]) for name, title in COLUMNS.items()})
    return _table(rows)


def _carried_table(content: Content) -> str:
    rows = []
    for stretch in content["carried"]["stretches"]:
        row = {"words": f"{stretch['first']} to {stretch['last']}"}
        rows.append(row | {title: _interval(stretch["figures"][name]) for name, title in CARRIED_COLUMNS.items()})
    return _table(rows)


def _task_table(content: Content) -> str:
    rows = []
    for entry in content["tasks"].values():
        beyond = entry["beyond"]
        rows.append({
            "reference": f"{entry['words']} words", "shown": _interval(entry["shown"]),
            "held out": _interval(entry["held_out"]), "a short program is enough": _interval_of(entry["within"]),
            f"none of {content['base']} words is": _interval_of(beyond), "answers longer": _interval_of(entry["longer"]),
            "mean words": "" if entry["mean_words"] is None else f"{entry['mean_words']:.1f}",
        })  # fmt: skip
    return _table(rows)


def _prefix_table(content: Content) -> str:
    rows = []
    for entry in content["prefixes"].values():
        strict, merges = entry["strict"] or {}, entry["merges"] or {}
        rows.append({
            "prefix": f"{entry['words']} words", "verdict": entry["verdict"],
            "solved": "" if entry["solved"] is None else f"{entry['solved']:.3f}", "natural": _interval(entry["natural"]),
            "strict pairs": str(strict.get("pairs", "")), "steered": _interval(strict.get("steered")),
            "margin": _interval(strict.get("margin")), "merges": _merges(merges),
            "floor": _interval(merges.get("floor")), "note": entry["reason"],
        })  # fmt: skip
    return _table(rows)


def _merges(merges: Mapping[str, Any]) -> str:
    """The figure, or why there is none: other states are continued alike too."""
    if merges and merges["merges"] is None:
        return f"not defined, TV of other states {merges['other']:.3f}"
    return _interval(merges.get("merges"))


def _interval(estimate: Mapping[str, float] | None) -> str:
    return "" if estimate is None else f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def _interval_of(estimate: Mapping[str, float] | None) -> str:
    """An interval with its number of tasks."""
    return "" if estimate is None else f"{_interval(estimate)} of {estimate['n']}"


def draw_curves(contents: Sequence[Content], path: Path) -> None:
    """Draw skill by word, a panel per model, with the intervals of the model and of its record; writes a PNG or SVG file."""
    from matplotlib.figure import Figure

    columns = min(2, len(contents))
    rows = -(-len(contents) // columns)
    figure = Figure(figsize=(4.4 * columns, 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axis, content in zip(axes, contents, strict=False):
        _draw_model(axis, content)
    for axis in axes[len(contents) :]:
        axis.set_visible(False)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    for axis in axes[max(0, len(contents) - columns) : len(contents)]:
        axis.set_xlabel("word", fontsize=9)
        axis.tick_params(labelbottom=True)
    for axis in axes[: len(contents) : columns]:
        axis.set_ylabel("skill of rotation", fontsize=9)
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_model(axis: Any, content: Content) -> None:
    """Draw the curves of one model: the longest programs, and the carried probes."""
    curve = content["rotation"][-1]
    lines = [
        (curve, f"{MODEL} {SKILL}", "model, probes of the same length", "-", "C0"),
        (content["carried"], f"{MODEL} carried {SKILL}", f"model, probes of {content['base']} words", "-", "C1"),
        (curve, f"record {SKILL}", "executed record", "--", "C2"),
        (curve, f"{HISTORY} {SKILL}", "token history", ":", "C7"),
        (curve, f"{UNTRAINED} {SKILL}", "untrained copy", "-.", "C3"),
    ]
    for source, name, label, style, color in lines:
        if source is None:
            continue
        words = [entry["first"] for entry in source["by_word"]]
        estimates = [entry["figures"][name] for entry in source["by_word"]]
        axis.plot(words, [max(e["value"], LOWEST) for e in estimates], style, color=color, lw=1.3, label=label)
        if name not in (f"{HISTORY} {SKILL}", f"{UNTRAINED} {SKILL}"):
            low, high = ([max(e[end], LOWEST) for e in estimates] for end in ("low", "high"))
            axis.fill_between(words, low, high, color=color, alpha=0.15, lw=0)
    axis.axvline(content["base"] + 0.5, color="grey", lw=0.8)
    axis.set_ylim(LOWEST, 1.03)
    axis.set_title(content["name"], fontsize=9)
