"""The model card of a series on the hub: `README.md` with the hub's metadata at its top."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from benchmark.emergence.point import CurvePoint
from benchmark.emergence.series import SeriesCheckpoint
from benchmark.installation.project import REPOSITORY, project_urls
from benchmark.models.architecture import REGISTERING_MODULES
from benchmark.models.json_files import CONFIG_FILE, TRAINING_FILE, read_json
from benchmark.statistics import Estimate, in_percent

TAGS = ("karel", "program-synthesis", "training-dynamics", "interpretability")
PROJECT = "Karel semantics benchmark"
LIBRARY, TASK = "transformers", "text-generation"


def revision_of(moment: SeriesCheckpoint) -> str:
    """The revision of a checkpoint, `step-N`."""
    return f"step-{moment.step}"


def write_card(
    repository: str,
    licence: str,
    moment: SeriesCheckpoint,
    series: Sequence[SeriesCheckpoint],
    points: Mapping[int, CurvePoint],
) -> str:
    """The card of one revision.

    Args:
        repository: `org/name`.
        licence: identifier of the licence, as the hub spells it.
        moment: the checkpoint of the revision.
        series: all checkpoints, in order of training.
        points: points of checkpoints by step; empty if there are none.
    """
    folder = moment.checkpoint.folder
    config, training = read_json(folder / CONFIG_FILE), _read_training(folder)
    metadata = {"license": licence, "library_name": LIBRARY, "pipeline_tag": TASK, "tags": list(TAGS)}
    parts = [
        f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---\n",
        f"# {repository.partition('/')[2]}\n",
        _describe(config, training, moment, series),
        f"## Loading\n\n{_loading(repository, str(config.get('model_type', '')), moment)}",
        f"## Revisions\n\n`main` is the last checkpoint.\n\n{_revisions(series, points)}",
    ]
    last = points.get(series[-1].step)
    if last is not None:
        parts.append(f"## Figures of the last checkpoint\n\n{_figures(last)}")
    return "\n".join(parts)


def _read_training(folder: Path) -> dict[str, Any]:
    path = folder / TRAINING_FILE
    return json.loads(path.read_bytes()) if path.is_file() else {}


def _describe(
    config: Mapping[str, Any], training: Mapping[str, Any], moment: SeriesCheckpoint, series: Sequence[SeriesCheckpoint]
) -> str:
    """What the model is, what it was trained on, and which checkpoint this is."""
    name = next(iter(config.get("architectures") or []), "A causal language model")
    recipe = training.get("recipe", {})
    lines = [f"{name} of {moment.checkpoint.parameters:,} parameters, one checkpoint per revision."]
    if recipe.get("suite"):
        lines.append(
            f"Trained from random weights on generated tasks of the suite `{recipe['suite']}` of the {_project()}: worlds before "
            f"and after, then a program; training seed {recipe.get('seed')}. No data set was used."
        )
    lines.append(
        f"This revision: step {moment.step} of {series[-1].step}{_seen(moment)}."
        + (" The full settings and the loss are in `training.json`." if training else "")
    )
    return "\n".join(lines) + "\n"


def _project() -> str:
    """The project's name, with its address where it has one."""
    url = project_urls().get(REPOSITORY, "")
    return f"[{PROJECT}]({url})" if url else PROJECT


def _seen(moment: SeriesCheckpoint) -> str:
    counts = [
        f"{count:,} {name}" for count, name in ((moment.tasks, "tasks"), (moment.tokens, "tokens")) if count is not None
    ]
    return f", after {' and '.join(counts)}" if counts else ""


def _loading(repository: str, model_type: str, moment: SeriesCheckpoint) -> str:
    """How to load the revision, in Python and by the benchmark."""
    module = REGISTERING_MODULES.get(model_type)
    registering = f"import {module}  # of the benchmark; registers the architecture\n" if module else ""
    return (
        f"```python\n{registering}from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{repository}", revision="{revision_of(moment)}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{repository}", revision="{revision_of(moment)}")\n```\n\n'
        f"    python -m benchmark.run --model hf:{repository}@{revision_of(moment)}\n"
    )


def _revisions(series: Sequence[SeriesCheckpoint], points: Mapping[int, CurvePoint]) -> str:
    """A row per checkpoint: training so far, and the figures of its point."""
    rows = []
    for moment in series:
        row: dict[str, str] = {"revision": f"`{revision_of(moment)}`"}
        if moment.tasks is not None:
            row["tasks"] = f"{moment.tasks:,}"
        if points:
            point = points.get(moment.step)
            row["solved, %"] = "" if point is None else in_percent(point.accuracy.shown)
            for name in ("delta", "use", "merges"):
                row[name] = "" if point is None else _interval(point.figure(name))
        rows.append(row)
    table = tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
    note = f"\n\nFigures with 95% intervals, as the {_project()} defines them." if points else ""
    return f"{table}{note}\n"


def _figures(point: CurvePoint) -> str:
    """The figures of a point, each with its n."""
    accuracy = point.accuracy
    lines = [
        f"solved on all shown examples: {in_percent(accuracy.shown)}% of {accuracy.shown.n:,} test tasks",
        f"solved on all held-out examples: {in_percent(accuracy.held_out)}% of {accuracy.held_out.n:,}",
    ]
    if point.rotation is not None:
        rotation = point.rotation
        lines.append(
            f"represents the robot's rotation: {rotation.verdict}, delta {_interval(rotation.delta)}, n = {rotation.delta.n} "
            f"groups of prompts, {rotation.seeds} probe seeds"
        )
    if point.use is not None:
        margin = point.use.margin
        figures = "" if margin is None else f", margin {_interval(margin)}, n = {margin.n} tasks"
        lines.append(f"uses it: {point.use.verdict}{figures}")
    if point.merges is not None and point.merges.merges is not None:
        merges = point.merges.merges
        lines.append(f"merges equal states: {_interval(merges)}, n = {merges.n} tasks")
    return "\n".join(f"- {line}" for line in lines) + "\n"


def _interval(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"
