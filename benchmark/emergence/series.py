"""Series of checkpoints: which models an argument names, and the training step, tasks and tokens of each.

A series is a folder of `karel-bench train` (`checkpoints/step-N`), an output folder of a `transformers` Trainer
(`checkpoint-N`), or specs of `--model`: `path:FOLDER/checkpoint-{100,200}`, `hf:org/name@{step100,step200}`,
`py:module:{early,late}`. Arguments that name one model each are one series together, as a shell expands braces itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.cli.model_spec import expand_models, read_model
from benchmark.errors import UsageError
from benchmark.models.checkpoint import Checkpoint, open_checkpoint
from benchmark.models.interface import DEFAULT_LOAD_OPTIONS, LoadOptions, ModelSpec, folder_order
from benchmark.models.json_files import CONFIG_FILE, TRAINER_FILE, TRAINING_FILE

LAYOUTS = ("checkpoints/step-*", "checkpoint-*")
"""Where the checkpoints of a training are: of `karel-bench train`, of a Trainer."""
STEP_IN_NAME = re.compile(r"(?:step|checkpoint|iter(?:ation)?)[-_]?(\d+)", re.IGNORECASE)
TOKENS_IN_NAME = re.compile(r"tokens[-_]?(\d+)([kmbt]?)", re.IGNORECASE)
TOKEN_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


@dataclass(frozen=True)
class Moment:
    """When a checkpoint was saved.

    Attributes:
        step: training step; None if nothing tells it.
        tasks, tokens: tasks and tokens seen; None if unknown.
    """

    step: int | None = None
    tasks: int | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class SeriesCheckpoint:
    """A checkpoint of a series.

    Attributes:
        checkpoint: its files.
        step: training step, or if `is_ordinal` its number in the series, from 0.
        tasks, tokens: tasks and tokens seen; None if unknown.
        is_ordinal: whether nothing tells the training step.
    """

    checkpoint: Checkpoint
    step: int
    tasks: int | None = None
    tokens: int | None = None
    is_ordinal: bool = False


def list_series(
    arguments: Sequence[str], loading: LoadOptions = DEFAULT_LOAD_OPTIONS
) -> dict[str, list[SeriesCheckpoint]]:
    """The series that arguments name, by name, each in order of training.

    Raises:
        UsageError: an argument names no checkpoints, two series have one name, or a step occurs twice in a series.
        ModelError: a checkpoint cannot be opened.
    """
    specs_of = _specs_of_series(arguments)
    return {name: open_series(name, specs, loading) for name, specs in specs_of.items()}


def _specs_of_series(arguments: Sequence[str]) -> dict[str, list[str]]:
    series: dict[str, list[str]] = {}
    single: list[str] = []
    for text in arguments:
        folder = Path(text.removeprefix("path:"))
        specs = [f"path:{path}" for path in list_saved(folder)]
        if not specs:
            if folder.is_dir() and not (folder / CONFIG_FILE).is_file():
                raise UsageError(
                    f"RUN {text}: no checkpoints/step-N or checkpoint-N in it, and no model; expected a folder of python -m "
                    "baselines.train, an output folder of a Trainer, or a spec such as path:FOLDER/checkpoint-{100,200}"
                )
            specs = expand_models(text)
            if len(specs) == 1:
                single += specs
                continue
        name = series_name(text)
        if name in series:
            raise UsageError(f"RUN {text}: a second series of the name {name}; rename one, results are stored by name")
        series[name] = specs
    if single:
        series.setdefault(series_name(single[0]), []).extend(single)
    return series


def list_saved(folder: Path) -> list[Path]:
    """The checkpoints that a training saved in its folder, in order of their numbers."""
    for layout in LAYOUTS:
        saved = [path for path in folder.glob(layout) if path.is_dir() and not path.name.endswith(".new")]
        if saved:
            return sorted(saved, key=folder_order)
    return []


def series_name(text: str) -> str:
    """Name of a series: that of the folder that holds it, of the hub model, or of the module.

    A folder of training gives its own name, a spec of checkpoints that of the folder around them.
    """
    scheme, _, target = (f"path:{text}" if Path(text).is_dir() else read_model(text)).partition(":")
    if scheme == "path":
        path = Path(target)
        parent = path if list_saved(path) else path.parent
        if parent.name == "checkpoints":
            parent = parent.parent
        return parent.resolve().name
    name = target.partition("@")[0] if scheme == "hf" else target.partition(":")[0]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)


def open_series(name: str, specs: Sequence[str], loading: LoadOptions = DEFAULT_LOAD_OPTIONS) -> list[SeriesCheckpoint]:
    """The checkpoints of a series, in order of training.

    Where a checkpoint has no step, the order of `specs` is that of training for all.
    """
    checkpoints = [open_checkpoint(ModelSpec.parse(spec), loading) for spec in specs]
    moments = [read_moment(spec, checkpoint) for spec, checkpoint in zip(specs, checkpoints, strict=True)]
    steps = [moment.step for moment in moments]
    if None in steps:
        return [SeriesCheckpoint(checkpoint, number, is_ordinal=True) for number, checkpoint in enumerate(checkpoints)]
    if len(set(steps)) < len(steps):
        twice = next(step for step in steps if steps.count(step) > 1)
        raise UsageError(f"RUN {name}: two checkpoints of step {twice}; expected one series, of distinct steps")
    pairs = zip(checkpoints, moments, strict=True)
    rows = [SeriesCheckpoint(checkpoint, m.step or 0, m.tasks, m.tokens) for checkpoint, m in pairs]
    return sorted(rows, key=lambda row: row.step)


def read_moment(spec: str, checkpoint: Checkpoint) -> Moment:
    """When a checkpoint was saved, by its own files, else by the name in its spec.

    Raises:
        UsageError: a file that tells it is damaged.
    """
    if not checkpoint.is_custom and checkpoint.has_hidden_states:
        if (checkpoint.folder / TRAINING_FILE).is_file():
            return _moment_of_file(checkpoint.folder / TRAINING_FILE, "step", "tasks_seen", "tokens_seen")
        if (checkpoint.folder / TRAINER_FILE).is_file():
            moment = _moment_of_file(checkpoint.folder / TRAINER_FILE, "global_step", "", "num_input_tokens_seen")
            # A Trainer counts tokens only where its arguments say so, and writes 0 otherwise.
            return moment if moment.tokens else replace(moment, tokens=None)
    parsed = ModelSpec.parse(spec)
    return moment_of_name({"hf": parsed.revision, "path": Path(parsed.target).name}.get(parsed.scheme, parsed.target))


def moment_of_name(name: str) -> Moment:
    """When a checkpoint of a name such as `checkpoint-300` or `step1000-tokens4B` was saved."""
    step, tokens = STEP_IN_NAME.search(name), TOKENS_IN_NAME.search(name)
    return Moment(
        int(step[1]) if step else None,
        None,
        int(tokens[1]) * TOKEN_UNITS[tokens[2].lower()] if tokens else None,
    )


def _moment_of_file(path: Path, step: str, tasks: str, tokens: str) -> Moment:
    try:
        entries: Mapping[str, Any] = json.loads(path.read_bytes())
        counts = [int(entries[name]) if name and name in entries else None for name in (step, tasks, tokens)]
        if counts[0] is None:
            raise KeyError(step)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        expected = ", ".join(name for name in (step, tasks, tokens) if name)
        raise UsageError(f"{path}: {error}; expected {expected}") from error
    return Moment(*counts)
