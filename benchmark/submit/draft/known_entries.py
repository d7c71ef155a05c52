"""What is known of a model for `submission.yaml`, and where it is written: rows of the board, files of the model, its card.

Every entry comes with its source, so that who submits can check it; nothing is guessed. An entry that no source tells is
left out, and becomes a question (`questions`).
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.artifacts import DESCRIPTION, RECORD
from benchmark.errors import BenchmarkError
from benchmark.files import read_json, read_yaml
from benchmark.models.interface import ModelSpec
from benchmark.models.json_files import CONFIG_FILE, TRAINER_FILE, TRAINING_FILE
from benchmark.runner.record import Record
from benchmark.runner.redaction import redact_paths
from benchmark.submit.draft.model_card import NO_CARD, ModelCard, fetch_model_card, read_model_card
from benchmark.submit.draft.questions import ALTERNATIVES, AUTHORS, DATA, FAMILY, LICENCE, find_questions
from benchmark.tasks.prompt_template import FEWSHOT

GIT_SECONDS = 5
MAX_TRAINER_BYTES = 64_000_000


@dataclass(frozen=True)
class KnownEntry:
    """The value of an entry, and the source that tells it."""

    value: Any
    source: str


@dataclass(frozen=True)
class ModelFiles:
    """What the run knows of the files of its model.

    Attributes:
        spec: the model spec of the run.
        folder: the folder of the files; None if they are not on this machine.
    """

    spec: ModelSpec
    folder: Path | None


def find_known_entries(record: Record, files: ModelFiles, submissions: Path, runs: Path) -> dict[str, KnownEntry]:
    """The entries that the authors of a submission would otherwise write, by path, such as `training.data`.

    Args:
        record: the record of the run.
        files: the files of its model.
        submissions: folder of all submissions.
        runs: folder in which the run folder is.
    """
    card = _read_card(files)
    entries = {
        **_training_entries(files.folder, record, card), **_card_entries(card), **_owner_entries(files, card),
        **_family_entry(files, submissions), **_entries_of_same_model(record, submissions),
    }  # fmt: skip
    count = count_models(runs, record)
    entries["attempts"] = KnownEntry(count, f"models with a finished official run on {record.suite.name} in {runs}")
    return entries


def _read_card(files: ModelFiles) -> ModelCard:
    if files.folder is not None and (card := read_model_card(files.folder)) != NO_CARD:
        return card
    return fetch_model_card(files.spec) if files.spec.scheme == "hf" else NO_CARD


def _card_entries(card: ModelCard) -> dict[str, KnownEntry]:
    entries = {AUTHORS: list(card.authors), LICENCE: card.licence}
    return {path: KnownEntry(value, "the model card") for path, value in entries.items() if value}


def _owner_entries(files: ModelFiles, card: ModelCard) -> dict[str, KnownEntry]:
    """The authors where the card names none: the owner on the hub, or for files of one's own the name in git."""
    if card.authors or files.spec.scheme == "baseline":
        return {}
    if files.spec.scheme == "hf":
        return {AUTHORS: KnownEntry([files.spec.target.partition("/")[0]], "the model's owner on the hub")}
    name = git_user_name()
    return {AUTHORS: KnownEntry([name], "git config user.name")} if name else {}


def git_user_name() -> str:
    """The name under which git commits; empty if none is set or git is missing."""
    try:
        process = subprocess.run(
            ["git", "config", "user.name"], capture_output=True, text=True, check=True, timeout=GIT_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return " ".join(process.stdout.split())[:200]


def _family_entry(files: ModelFiles, submissions: Path) -> dict[str, KnownEntry]:
    """The family of the rows with the same architecture, else the architecture's own name."""
    architecture = read_architecture(files.folder)
    if not architecture:
        return {}
    families = Counter(
        str(entries["family"])
        for folder, entries in _read_descriptions(submissions)
        if read_architecture(folder) == architecture and "family" in entries
    )
    if len(families) == 1:
        (family,) = families
        return {FAMILY: KnownEntry(family, f"rows with the model type {architecture} in their config.json")}
    return {FAMILY: KnownEntry(architecture, "the model type in config.json")}


def read_architecture(folder: Path | None) -> str:
    """The entry `model_type` of a folder's `config.json`; empty if there is none."""
    try:
        name = read_json(folder / CONFIG_FILE).get("model_type", "") if folder is not None else ""
    except (BenchmarkError, AttributeError):
        return ""
    return name if isinstance(name, str) and len(name) <= 80 and name.isprintable() else ""


def _read_descriptions(submissions: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folders and descriptions of all submissions that can be read."""
    for path in sorted(submissions.glob(f"*/{DESCRIPTION}")):
        try:
            yield path.parent, read_yaml(path)
        except BenchmarkError:
            continue


def _entries_of_same_model(record: Record, submissions: Path) -> dict[str, KnownEntry]:
    """What a row of the same weights, or of the same baseline, declares: a model in another table is described as it was."""
    for folder, description in _read_descriptions(submissions):
        spec = record.model.spec
        is_same_baseline = spec.startswith("baseline:") and description.get("model") == spec
        if not (is_same_baseline or description.get("digest") == record.model.digest) or find_questions(description):
            continue
        training = description.get("training")
        entries = {path: description.get(path) for path in (FAMILY, AUTHORS, LICENCE)}
        entries |= {f"training.{name}": value for name, value in training.items()} if isinstance(training, dict) else {}
        if is_same_baseline and "training.suite" in entries:
            entries["training.suite"] = record.suite.name  # A baseline is trained on the suite that it is evaluated on.
        source = f"{folder.name}, a row of the same model"
        return {
            path: KnownEntry(value, source)
            for path, value in entries.items()
            if value is not None or path == ALTERNATIVES
        }
    return {}


def _training_entries(folder: Path | None, record: Record, card: ModelCard) -> dict[str, KnownEntry]:
    """The entry `training`: from `training.json` of `baselines.train`, `trainer_state.json` of transformers, or the card."""
    if folder is not None and (folder / TRAINING_FILE).is_file():
        return {
            f"training.{name}": KnownEntry(value, TRAINING_FILE) for name, value in read_own_training(folder).items()
        }
    entries = {}
    if record.track == FEWSHOT:
        entries[ALTERNATIVES] = KnownEntry(None, "the few-shot track: not trained for these tasks, so unknown")
    if card.datasets:
        steps = describe_steps(folder)
        data = ", ".join(card.datasets) + (f"; {steps}" if steps else "")
        entries[DATA] = KnownEntry(data[:300], "the model card" + (f" and {TRAINER_FILE}" if steps else ""))
    return entries


def read_own_training(folder: Path) -> dict[str, Any]:
    """The entry `training` of a model that `baselines.train` has trained, which trains under the original semantics."""
    training = read_json(folder / TRAINING_FILE)
    recipe, command = training.get("recipe", {}), training.get("command")
    entries = {
        "command": redact_paths(command) if isinstance(command, str) else command, "suite": recipe.get("suite"), "tasks": training.get("tasks_seen"),
        "seeds": [recipe["seed"]] if "seed" in recipe else [], "minutes": training.get("minutes"),
        "threads": training.get("threads"), "processes": training.get("processes"), "hardware": training_hardware(training),
        "alternative_semantics_seen": False if recipe.get("suite") else None,
    }  # fmt: skip
    return {name: value for name, value in entries.items() if value is not None}


def training_hardware(training: dict[str, Any]) -> str | None:
    """The GPU on which a model was trained, or the processor."""
    device = str(training.get("device", "cpu"))
    return training.get("processor") if device.startswith("cpu") else device


def describe_steps(folder: Path | None) -> str:
    """Steps and epochs of a training by transformers' `Trainer`; empty if there is no `trainer_state.json`."""
    try:
        state = read_json(folder / TRAINER_FILE, MAX_TRAINER_BYTES) if folder is not None else {}
        parts = []
        if isinstance(state.get("global_step"), int):
            parts.append(f"{state['global_step']:,} steps")
        if isinstance(state.get("epoch"), int | float):
            parts.append(f"{state['epoch']:g} epochs")
    except (BenchmarkError, AttributeError):
        return ""
    return ", ".join(parts)


def count_models(runs: Path, record: Record) -> int:
    """Number of models with a finished official run on the suite in a folder of runs, at least 1."""
    digests = {record.model.digest}
    for path in runs.glob(f"*/{RECORD}"):
        try:
            entries = json.loads(path.read_bytes())
            suite = entries["suite"]
            if entries["official"] and (suite["name"], suite["version"]) == (record.suite.name, record.suite.version):
                digests.add(str(entries["model"]["digest"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return len(digests)
