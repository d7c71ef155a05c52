"""The card of full detail, as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from benchmark.causal.detail.detail_evidence import STEERED
from benchmark.causal.detail.detail_verdict import DetailResult, MoveDetail
from benchmark.causal.report import format_estimate
from benchmark.statistics import Estimate


def format_detail(sites: Sequence[str], detail: DetailResult) -> str:
    """Verdict, edits by site with their controls, doses, whole programs, displacement."""
    lines = [f"verdict    {detail.verdict}: {detail.reason}"]
    if detail.site is None:
        return lines[0]
    rows = [
        [f"{edit.name}, {condition}", *(_value(share) for share in shares), _value(edit.clamped) if condition == STEERED else ""]
        for edit in detail.edits
        for condition, shares in edit.by_site.items()
    ]  # fmt: skip
    lines += [
        f"natural    {format_estimate(detail.natural)}  unedited next word",
        f"power      {detail.power} of 20 planted users would be found",
        f"doses      {', '.join(f'{dose}: {_value(share)}' for dose, share in detail.doses.items())}",
        "programs   " + ", ".join(f"{name}: {format_estimate(share)}" for name, share in detail.programs.items()),
        "",
        tabulate(rows, headers=[f"{detail.pairs} pairs", *sites, "natural range"], tablefmt="github", disable_numparse=True),
    ]  # fmt: skip
    if detail.subspaces:
        trained = [
            [part.rank, sites[part.site], part.semantics, format_estimate(part.train), format_estimate(part.test)]
            for part in detail.subspaces
        ]
        lines += ["", tabulate(trained, headers=["rank", "site", "semantics", "train", "test"], tablefmt="github")]
    else:
        lines += ["", f"no subspace was trained: {detail.no_subspaces}"]
    if detail.moves is not None:
        lines += ["", *_move_lines(sites, detail.moves)]
    return "\n".join(lines)


def _move_lines(sites: Sequence[str], moves: MoveDetail) -> list[str]:
    by_site = ", ".join(f"{name} {_value(share)}" for name, share in zip(sites, moves.by_site, strict=True))
    controls = ", ".join(f"{name} {format_estimate(share)}" for name, share in moves.controls.items())
    return [
        f"displacement, {moves.pairs} pairs of {moves.tasks} tasks: {by_site}",
        f"at {sites[moves.site]}: {format_estimate(moves.steered)}, strict {format_estimate(moves.strict)}, natural range "
        f"{format_estimate(moves.clamped)}",
        f"controls: {controls}",
    ]


def _value(share: Estimate | None) -> str:
    return "-" if share is None else f"{share.value:.3f}"
