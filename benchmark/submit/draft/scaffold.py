"""Create the folder of a submission from a finished run: copied files, `submission.yaml` with the known entries, README."""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmark.artifacts import DESCRIPTION, FIGURES, FRAME, MODEL_FILES, PROBES, READINGS, README, RECORD, SAMPLES
from benchmark.errors import ModelError, SubmissionError, UsageError
from benchmark.files import read_json
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.models.json_files import TRAINING_FILE
from benchmark.runner.folder import RunFolder
from benchmark.runner.record import Record
from benchmark.runner.redaction import redact_json_paths, redact_paths
from benchmark.submit.check_record import read_submitted_record
from benchmark.submit.draft.known_entries import ModelFiles, find_known_entries
from benchmark.submit.draft.questions import (
    ALTERNATIVES,
    AUTHORS,
    DATA,
    FAMILY,
    LICENCE,
    find_questions,
    is_question,
    question,
)
from benchmark.submit.folder import MEASUREMENT_FILES, NAME_PATTERN, screen_folder
from benchmark.submit.schema import LOCAL_WEIGHTS, WITHHELD
from benchmark.submit.screening import WEIGHT_FILE


@dataclass(frozen=True)
class Draft:
    """A new folder of a submission.

    Attributes:
        folder: its path.
        sources: where each entry comes from that was filled in, by the entry's path.
        questions: what to write for each entry that is not known, by the entry's path.
    """

    folder: Path
    sources: dict[str, str]
    questions: dict[str, str]


def scaffold(
    run: Path, submissions: Path, name: str | None, authored_entries: Mapping[str, Any], is_withheld: bool = False
) -> Draft:
    """Create the folder of a submission.

    Args:
        run: folder of a finished official run.
        submissions: folder of all submissions.
        name: name of the submission, to which the date on which the run finished is prepended; None for the model's name.
        authored_entries: entries of `submission.yaml` that the authors provide, by path, such as `training.data`; of the
            others, those that no file tells stand there as questions.
        is_withheld: whether the weights are not published.

    Raises:
        UsageError: the name is invalid, or the folder exists.
        SubmissionError: the run is not finished or not official.
    """
    if name is not None and not NAME_PATTERN.fullmatch(name):
        raise UsageError(f"{name!r}: a name has letters, digits, '.', '_' and '-', at most 80")
    if not (run / RECORD).is_file():
        raise SubmissionError(f"{run}: no {RECORD}; give the folder that a finished python -m benchmark.run names")
    record = read_submitted_record(run)
    name = name or name_of_model(record.model.name)
    folder = submissions / f"{record.provenance.finished[:10]}_{name}"
    if folder.exists():
        raise UsageError(f"{folder}: there already; remove it, or choose another name")
    model, files = _resolve_model(run, record, is_withheld)
    entries_known = find_known_entries(record, files, submissions, run.resolve().parent)
    entries = _submission_entries(record, name, model)
    filled = {path: entry for path, entry in entries_known.items() if path not in authored_entries}
    for path, value in {**{path: entry.value for path, entry in filled.items()}, **authored_entries}.items():
        _set_entry(entries, path, value)
    if "suite" in entries["training"] and is_question(entries["training"]["data"]):
        del entries["training"]["data"]
    folder.mkdir(parents=True)
    try:
        _copy_run(run, folder, record)
        if model == LOCAL_WEIGHTS and files.folder is not None:
            _copy_model(files.folder, folder)
        text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=100)
        (folder / DESCRIPTION).write_text(text, encoding="utf-8")
        (folder / README).write_text(render_readme(folder.name, entries, record), encoding="utf-8")
        screen_folder(folder)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return Draft(folder, {path: entry.source for path, entry in filled.items()}, find_questions(entries))


def name_of_model(name: str) -> str:
    """The name of a submission from the short name of its model: without a date, and without signs that no name has."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name.rpartition("/")[2])
    plain = re.sub(r"^\d{4}-\d\d-\d\d_", "", plain).lstrip("._-")[:69]
    return plain or "model"


def _set_entry(entries: dict[str, Any], path: str, value: Any) -> None:
    """Set an entry by its path, such as `training.data`."""
    *parents, last = path.split(".")
    for parent in parents:
        entries = entries.setdefault(parent, {})
    entries[last] = value


def _copy_run(run: Path, folder: Path, record: Record) -> None:
    """Copy record, samples, evidence and figures of a run."""
    _copy_files(run, folder, (SAMPLES, PROBES, READINGS, FRAME))
    (folder / RECORD).write_text(_redact_record(record).to_json(), encoding="utf-8")
    _copy_files(run, folder, tuple(sorted(MEASUREMENT_FILES)))
    if record.figures:
        (folder / FIGURES).mkdir()
        for figure in record.figures:
            shutil.copyfile(run / figure, folder / figure)


def _copy_model(source: Path, folder: Path) -> None:
    """Copy the files of a model, without its card."""
    names = [path.name for path in source.iterdir() if WEIGHT_FILE.fullmatch(path.name)]
    _copy_files(source, folder, (*MODEL_FILES, *names))
    if (folder / TRAINING_FILE).is_file():
        training = redact_json_paths(read_json(folder / TRAINING_FILE))
        (folder / TRAINING_FILE).write_text(json.dumps(training, indent=1) + "\n")


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


def _resolve_model(run: Path, record: Record, is_withheld: bool) -> tuple[str, ModelFiles]:
    """Return the entry `model`, and the files of the model; their path is taken from the run's log."""
    logged_specs = [
        str(event["model"]) for event in RunFolder.events_of(run) if event["event"] == "started" and "model" in event
    ]
    spec = ModelSpec.parse(logged_specs[-1] if logged_specs else record.model.spec)
    if not record.model.spec.startswith("path:"):
        return WITHHELD if is_withheld else record.model.spec, ModelFiles(ModelSpec.parse(record.model.spec), None)
    source = Path(spec.target)
    if is_withheld:
        return WITHHELD, ModelFiles(spec, source if source.is_dir() else None)
    try:
        checkpoint = open_checkpoint(spec)
    except ModelError as error:
        raise SubmissionError(
            f"{error}; call it from where the run was called, or add --withheld if the weights are not published"
        ) from error
    if checkpoint.digest != record.model.digest:
        raise SubmissionError(f"{source}: not the model of the run (digest {checkpoint.digest}); run it again")
    return LOCAL_WEIGHTS, ModelFiles(spec, source)


def _submission_entries(record: Record, name: str, model: str) -> dict[str, Any]:
    """The entries of a description: those of the record, and a question for each of the others."""
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
        "family": question(FAMILY),
        "model": model,
        "digest": record.model.digest,
        "parameters": record.model.parameters,
        "evaluation": {
            "command": redact_paths(command),
            "commit": provenance.commit,
            "hardware": provenance.hardware,
            "seconds": round(sum(provenance.seconds.values())),
        },
        "training": {"data": question(DATA), "alternative_semantics_seen": question(ALTERNATIVES)},
        "authors": [question(AUTHORS)],
        "licence": question(LICENCE),
        "attempts": 1,
        "claimed": claimed,
    }


def render_readme(folder: str, entries: Mapping[str, Any], record: Record) -> str:
    """Render the README of a submission.

    It repeats neither figures, so that none can differ from the record, nor what the authors still have to write.
    """
    weights_location = {LOCAL_WEIGHTS: "in this folder", WITHHELD: "withheld"}.get(
        entries["model"], f"`{entries['model']}`"
    )
    return "\n".join(
        [
            f"# {entries['name']}",
            "",
            f"- weights: {weights_location}",
            f"- suite: {record.suite.name} v{record.suite.version}, protocol v{record.protocol.version}",
            f"- authors, licence, training: [{DESCRIPTION}]({DESCRIPTION})",
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
