"""The record of a submission: bounds that hold before anything is computed, and what it may say of its model."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from benchmark.artifacts import DESCRIPTION, FIGURES, LIMITS, OTHER_BYTES, PROBES, RECORD
from benchmark.errors import SubmissionError
from benchmark.files import read_json, shown, tensor_header
from benchmark.models.interface import Loading
from benchmark.probing.protocol import STANDARD
from benchmark.probing.verdict import CONTENT_HITS, DIAGNOSTICS
from benchmark.runner.record import Record
from benchmark.runner.redaction import has_paths
from benchmark.submit.bounds import check_figures, check_times
from benchmark.submit.schema import Submission, validate_schema
from benchmark.submit.screening import check_loading
from benchmark.tasks.prompt_template import TRACKS
from benchmark.tasks.suite import SUITE_FOLDER

MAX_SAMPLES, MAX_TEMPERATURE = 10_000, 100.0
MAX_COUNT = 10**15
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
TRAINING = "training.json"


def read_submitted_record(folder: Path) -> Record:
    """The record of a submission: of an official run of a shipped suite under this protocol.

    Raises:
        SubmissionError: it is not that, or no record.
    """
    record = validate_schema(Record, read_json(folder / RECORD, LIMITS[RECORD]), RECORD)
    known = sorted(path.stem for path in SUITE_FOLDER.glob("*.yaml"))
    if record.suite.name not in known:
        raise SubmissionError(f"{RECORD}: suite {shown(record.suite.name)} is not one of {', '.join(known)}")
    if not record.official or record.unofficial:
        why = "; ".join(shown(reason) for reason in record.unofficial[:3]) or "official is false"
        raise SubmissionError(f"{RECORD}: not an official run ({why}); run the suite whole, from a clean commit")
    if record.protocol != STANDARD:
        raise SubmissionError(
            f"{RECORD}: not measured by protocol v{STANDARD.version} as it stands; run the model again with this version"
        )
    load_options_of_record(record)
    if record.track not in TRACKS:
        raise SubmissionError(f"{RECORD}: track {shown(record.track)} is not one of {', '.join(TRACKS)}")
    check_figures(record, RECORD)
    if record.sampled is not None and not 1 <= record.sampled.samples <= MAX_SAMPLES:
        raise SubmissionError(
            f"{RECORD}: sampled.samples: {record.sampled.samples:,}; expected 1 to {MAX_SAMPLES:,} draws per task"
        )
    if record.sampled is not None and not 0 < record.sampled.temperature <= MAX_TEMPERATURE:
        raise SubmissionError(
            f"{RECORD}: sampled.temperature: {record.sampled.temperature:g}; expected more than 0, at most {MAX_TEMPERATURE:g}"
        )
    check_times(record.provenance.started, record.provenance.finished, f"{RECORD}: provenance")
    _check_provenance(record)
    figures = _figures(folder)
    if len(set(record.figures)) < len(record.figures):
        raise SubmissionError(f"{RECORD}: a figure is named twice")
    for place in record.figures:
        if place not in figures:
            raise SubmissionError(f"{RECORD}: figure {shown(place)} is not in the folder")
    return record


def _check_provenance(record: Record) -> None:
    """Digests that are none, and counts below 0."""
    origin, model = record.provenance, record.model
    digests = {
        "model.digest": model.digest, "suite.sha256": record.suite.sha256, "samples_sha256": record.samples_sha256,
        "provenance.identity": origin.identity, "provenance.source": origin.source,
    }  # fmt: skip
    for name, text in digests.items():
        if not SHA256.fullmatch(text):
            raise SubmissionError(f"{RECORD}: {name}: {shown(text)}; expected 64 digits of a SHA-256")
    counts = {
        "model.parameters": model.parameters, "provenance.cores": origin.cores, "provenance.workers": origin.workers,
        **{f"provenance.retries.{shown(cause)}": count for cause, count in origin.retries.items()},
        **{f"accuracy.failures.{shown(name)}": count for name, count in record.accuracy.failures.items()},
    }  # fmt: skip
    for name, count in counts.items():
        if not 0 <= count <= MAX_COUNT:
            raise SubmissionError(f"{RECORD}: {name}: {count}; expected a count from 0 to {MAX_COUNT:,}")


def load_options_of_record(record: Record) -> Loading:
    """How the model of a submission may be loaded; raises `SubmissionError` where its record asks for anything else."""
    model = record.model
    check_loading(
        model.spec, model.dtype, model.device, model.attention, model.quantization, model.remote_code, model.own_code
    )
    return Loading(attention=model.attention)


def _figures(folder: Path) -> set[str]:
    return {f"{FIGURES}/{path.name}" for path in (folder / FIGURES).glob("*")}


def check_privacy(folder: Path, record: Record, said: Submission) -> None:
    """Refuse what names a folder on somebody's machine; `submit new` writes none.

    Raises:
        SubmissionError: naming the entry.
    """
    texts = {
        f"{RECORD}: model.spec": record.model.spec, f"{RECORD}: model.name": record.model.name,
        f"{RECORD}: provenance.command": record.provenance.command,
        f"{DESCRIPTION}: evaluation.command": said.evaluation.command,
        f"{DESCRIPTION}: training.command": said.training.command or "",
        f"{DESCRIPTION}: training.data": said.training.data or "",
    }  # fmt: skip
    if (folder / TRAINING).exists():
        training = read_json(folder / TRAINING, OTHER_BYTES)
        texts |= {f"{TRAINING}: {name}": text for name, text in training.items() if isinstance(text, str)}
    for entry, text in texts.items():
        if has_paths(text):
            raise SubmissionError(f"{entry}: names a folder of a machine; draft it with python -m benchmark.submit new")


def drop_unverified(folder: Path, record: Record) -> Record:
    """The record without what nobody computes again, which is how the board sees it.

    Semantic content and diagnostics stay where the run stored what they are computed from; a grid has no evidence.

    Args:
        folder: of the submission, with `probes.data` if it has any.
        record: of the same.
    """
    names = set(tensor_header(folder / PROBES)) if (folder / PROBES).is_file() else set()
    meaning = record.meaning
    if meaning is not None and f"{DIAGNOSTICS}.confusion" not in names:
        meaning = replace(meaning, diagnostics={})
    content = record.content if CONTENT_HITS in names else None
    return record.model_copy(update={"meaning": meaning, "content": content, "grid": None})
