"""Create the folder of a submission from a finished run: copied files, `submission.yaml` with the known entries, README."""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmark.artifacts import DESCRIPTION, FIGURES, FRAME, MODEL_FILES, PROBES, READINGS, README, RECORD, SAMPLES
from benchmark.errors import ModelError, SubmissionError, UsageError
from benchmark.files import read_json
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.runner.folder import RunFolder
from benchmark.runner.record import Record
from benchmark.runner.redaction import redact_json_paths, redact_paths
from benchmark.submit.check_record import read_submitted_record
from benchmark.submit.folder import MEASUREMENT_FILES, NAME_PATTERN, screen_folder
from benchmark.submit.schema import LOCAL_WEIGHTS, PLACEHOLDER, WITHHELD
from benchmark.submit.screening import WEIGHT_FILE

TRAINING_FILE = "training.json"


def scaffold(
    run: Path, submissions: Path, name: str, authored_entries: Mapping[str, Any], is_withheld: bool = False
) -> Path:
    """Create the folder of a submission.

    Args:
        run: folder of a finished official run.
        submissions: folder of all submissions.
        name: name of the submission; the date on which the run finished is prepended.
        authored_entries: entries of `submission.yaml` that the authors provide; missing ones are set to `FILL IN`.
        is_withheld: whether the weights are not published.

    Returns:
        Path of the new folder.

    Raises:
        UsageError: the name is invalid, or the folder exists.
        SubmissionError: the run is not finished or not official.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise UsageError(f"{name!r}: a name has letters, digits, '.', '_' and '-', at most 80")
    if not (run / RECORD).is_file():
        raise SubmissionError(f"{run}: no {RECORD}; give the folder that a finished python -m benchmark.run names")
    record = read_submitted_record(run)
    folder = submissions / f"{record.provenance.finished[:10]}_{name}"
    if folder.exists():
        raise UsageError(f"{folder}: there already; remove it, or choose another name")
    model, model_folder = _resolve_model(run, record, is_withheld)
    folder.mkdir(parents=True)
    try:
        _copy_files(run, folder, (SAMPLES, PROBES, READINGS, FRAME))
        (folder / RECORD).write_text(_redact_record(record).to_json(), encoding="utf-8")
        _copy_files(run, folder, tuple(sorted(MEASUREMENT_FILES)))
        if record.figures:
            (folder / FIGURES).mkdir()
            for figure in record.figures:
                shutil.copyfile(run / figure, folder / figure)
        if model_folder is not None:
            names = [path.name for path in model_folder.iterdir() if WEIGHT_FILE.fullmatch(path.name)]
            _copy_files(model_folder, folder, (*MODEL_FILES, *names))
            if (folder / TRAINING_FILE).is_file():
                training = redact_json_paths(read_json(folder / TRAINING_FILE))
                (folder / TRAINING_FILE).write_text(json.dumps(training, indent=1) + "\n")
        entries = _submission_entries(record, name, model, _training_entries(folder)) | dict(authored_entries)
        text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=100)
        (folder / DESCRIPTION).write_text(text, encoding="utf-8")
        (folder / README).write_text(render_readme(folder.name, entries, record), encoding="utf-8")
        screen_folder(folder)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return folder


def _copy_files(source: Path, target: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def _redact_record(record: Record) -> Record:
    """Reduce absolute paths in a record to their last part; older runs stored them in full."""
    model = record.model.model_copy(
        update={"spec": redact_paths(record.model.spec), "name": redact_paths(record.model.name)}
    )
    provenance = record.provenance.model_copy(update={"command": redact_paths(record.provenance.command)})
    return record.model_copy(update={"model": model, "provenance": provenance})


def _resolve_model(run: Path, record: Record, is_withheld: bool) -> tuple[str, Path | None]:
    """Return the entry `model`, and the folder from which to copy the files; its path is taken from the run's log."""
    logged_specs = [
        str(event["model"]) for event in RunFolder.events_of(run) if event["event"] == "started" and "model" in event
    ]
    spec = ModelSpec.parse(logged_specs[-1] if logged_specs else record.model.spec)
    if is_withheld:
        return WITHHELD, None
    if not record.model.spec.startswith("path:"):
        return record.model.spec, None
    source = Path(spec.target)
    try:
        checkpoint = open_checkpoint(spec)
    except ModelError as error:
        raise SubmissionError(
            f"{error}; call it from where the run was called, or add --withheld if the weights are not published"
        ) from error
    if checkpoint.digest != record.model.digest:
        raise SubmissionError(f"{source}: not the model of the run (digest {checkpoint.digest}); run it again")
    return LOCAL_WEIGHTS, source


def _training_entries(folder: Path) -> dict[str, Any]:
    """Read the entry `training` from `training.json`, which `baselines.train` writes, if the model has one."""
    if not (folder / TRAINING_FILE).is_file():
        return {"data": PLACEHOLDER, "alternative_semantics_seen": PLACEHOLDER}
    training = read_json(folder / TRAINING_FILE)
    recipe = training.get("recipe", {})
    command = training.get("command")
    entries = {
        "command": redact_paths(command) if isinstance(command, str) else command, "suite": recipe.get("suite"), "tasks": training.get("tasks_seen"),
        "seeds": [recipe["seed"]] if "seed" in recipe else [], "minutes": training.get("minutes"),
        "threads": training.get("threads"), "processes": training.get("processes"), "hardware": _training_hardware(training),
        "alternative_semantics_seen": PLACEHOLDER,
    }  # fmt: skip
    return {name: value for name, value in entries.items() if value is not None}


def _training_hardware(training: dict[str, Any]) -> str | None:
    """Return the GPU on which the model was trained, or the processor."""
    device = str(training.get("device", "cpu"))
    return training.get("processor") if device.startswith("cpu") else device


def _submission_entries(record: Record, name: str, model: str, training: dict[str, Any]) -> dict[str, Any]:
    provenance, accuracy, meaning = record.provenance, record.accuracy, record.meaning
    claimed: dict[str, Any] = {"shown": round(accuracy.shown.value, 3), "held_out": round(accuracy.held_out.value, 3)}
    if meaning is not None:
        claimed |= {"delta": round(meaning.features["facing"].delta.value, 3), "verdict": meaning.verdict}
    # Do not publish local paths.
    command = re.sub(r"\s+--out(put-dir)?(\s+|=)\S+", "", provenance.command)
    if model == LOCAL_WEIGHTS:
        command = re.sub(r"path:\S+", f"path:submissions/{provenance.finished[:10]}_{name}", command)
    return {
        "name": name,
        "family": PLACEHOLDER,
        "model": model,
        "digest": record.model.digest,
        "parameters": record.model.parameters,
        "evaluation": {
            "command": redact_paths(command),
            "commit": provenance.commit or PLACEHOLDER,
            "hardware": provenance.hardware,
            "seconds": round(sum(provenance.seconds.values())),
        },
        "training": training,
        "authors": [PLACEHOLDER],
        "licence": PLACEHOLDER,
        "attempts": 1,
        "claimed": claimed,
    }


def render_readme(folder: str, entries: Mapping[str, Any], record: Record) -> str:
    """Render the README of a submission; it contains no figures, so none can differ from the record."""
    weights_location = {LOCAL_WEIGHTS: "in this folder", WITHHELD: "withheld"}.get(
        entries["model"], f"`{entries['model']}`"
    )
    training = entries["training"]
    training_sources = [f"{training['tasks']:,} tasks of `{training['suite']}`"] if training.get("tasks") else []
    training_sources += [training["data"]] if training.get("data") else []
    training_sources += [f"`{training['command']}`"] if training.get("command") not in (None, "none") else []
    return "\n".join(
        [
            f"# {entries['name']}",
            "",
            f"- family: {entries['family']}",
            f"- weights: {weights_location}",
            f"- suite: {record.suite.name} v{record.suite.version}, protocol v{record.protocol.version}",
            f"- trained on: {'; '.join(training_sources) or 'nothing'}",
            f"- authors: {', '.join(entries['authors'])}",
            f"- licence: {entries['licence']}",
            "",
            "The figures are in [record.json](record.json) and on the [leaderboard](../../leaderboard.md). Evaluated by",
            "",
            f"    {entries['evaluation']['command']}",
            "",
            "and checked, without the model, by",
            "",
            f"    python -m benchmark.submit verify {folder}",
            "",
        ]
    )


def pack(folder: Path, target: Path) -> Path:
    """Write the folder of a submission as a `.tar.gz` file; the output is deterministic."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(screen_folder(folder)):
            entry = tarfile.TarInfo(f"{folder.name}/{path.relative_to(folder).as_posix()}")
            content = path.read_bytes()
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    target.write_bytes(gzip.compress(buffer.getvalue(), mtime=0))
    return target
