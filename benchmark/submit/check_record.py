"""Check the record of a submission before anything is computed from it.

All numbers are bounded, so no entry can request unbounded work; every interval satisfies low <= value <= high; the model
options are limited to those that `screening.check_loading` accepts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from benchmark.artifacts import DESCRIPTION, FIGURES, MAX_BYTES, MAX_OTHER_BYTES, PROBES, RECORD
from benchmark.errors import SubmissionError
from benchmark.files import read_json, read_tensor_header, sanitize
from benchmark.models.interface import LoadOptions
from benchmark.models.json_files import TRAINING_FILE
from benchmark.probing.protocol import STANDARD
from benchmark.probing.state_source import CONTENT_HITS, DIAGNOSTICS
from benchmark.runner.record import Record
from benchmark.runner.redaction import has_paths
from benchmark.statistics import Estimate
from benchmark.submit.artifacts.listing import listed_artifacts
from benchmark.submit.folder import CLOCK_SKEW, EARLIEST
from benchmark.submit.schema import Submission, read_submission, validate_schema
from benchmark.submit.screening import check_loading
from benchmark.tasks.prompt_template import TRACKS
from benchmark.tasks.suite import suite_names

MAX_SAMPLES, MAX_TEMPERATURE = 10_000, 100.0
MAX_COUNT = 10**15
SHA256_PATTERN = re.compile(r"[0-9a-f]{64}", re.ASCII)
TOLERANCE = 1e-9
MAX_TEXT, MAX_LIST, MAX_MAPPING = 2_000, 5_000, 200
"""Maximal number of characters of a text, items of a list and entries of a mapping."""
MAX_INT, MAX_FLOAT = 2**63, 1e6
MAX_SECONDS = 1e10
TIME_PATTERN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", re.ASCII)
FRACTION_FIELDS = {
    "shown", "held_out", "both", "shown_state", "exact", "valid", "distinct", "finished", "arithmetic", "geometric",
    "majority", "accuracy", "macro_f1", "p", "p_holm", "p_rand", "reach_p",
}  # fmt: skip
"""Entries with values in [0, 1]."""
DIFFERENCE_FIELDS = {"rotation", "arithmetic"}
"""Last two parts of the path of an entry that has the name of a fraction and is a difference of skills."""
AT_MOST_ONE_FIELDS = {"skill", "skill_alternatives", "skill_unseen", "extras", "selectivity"}
"""Entries with values of at most 1 and no lower bound."""
MAPPING_FIELDS = {"geometric", "reach_p", "extras"}
"""Entries that map names to values."""
COUNT_FIELDS = {"n", "programs", "states", "test_programs", "test_states", "budget", "tasks", "shots", "samples"}
"""Entries that count units: `n` is at least 1, the others at least 0."""


def read_submitted_record(folder: Path) -> Record:
    """Read the record of a submission.

    Raises:
        SubmissionError: the file is not a record of an official run of a shipped suite with the current protocol.
    """
    record = validate_schema(Record, read_json(folder / RECORD, MAX_BYTES[RECORD]), RECORD)
    suites = suite_names()
    if record.suite.name not in suites:
        raise SubmissionError(f"{RECORD}: suite {sanitize(record.suite.name)} is not one of {', '.join(suites)}")
    if not record.official or record.unofficial:
        reasons = "; ".join(sanitize(reason) for reason in record.unofficial[:3]) or "official is false"
        raise SubmissionError(f"{RECORD}: not an official run ({reasons}); run the suite whole, from a clean commit")
    if record.protocol != STANDARD:
        raise SubmissionError(
            f"{RECORD}: not measured by protocol v{STANDARD.version} as it stands; run the model again with this version"
        )
    load_options_from_record(record)
    if record.track not in TRACKS:
        raise SubmissionError(f"{RECORD}: track {sanitize(record.track)} is not one of {', '.join(TRACKS)}")
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
    figure_names = _figure_names(folder)
    if len(set(record.figures)) < len(record.figures):
        raise SubmissionError(f"{RECORD}: a figure is named twice")
    for figure in record.figures:
        if figure not in figure_names:
            raise SubmissionError(f"{RECORD}: figure {sanitize(figure)} is not in the folder")
    return record


def _check_provenance(record: Record) -> None:
    """Raise `SubmissionError` on malformed digests and counts out of range."""
    origin, model = record.provenance, record.model
    digests = {
        "model.digest": model.digest, "suite.sha256": record.suite.sha256, "samples_sha256": record.samples_sha256,
        "provenance.identity": origin.identity, "provenance.source": origin.source,
    }  # fmt: skip
    for name, text in digests.items():
        if not SHA256_PATTERN.fullmatch(text):
            raise SubmissionError(f"{RECORD}: {name}: {sanitize(text)}; expected 64 digits of a SHA-256")
    counts = {
        "model.parameters": model.parameters, "provenance.cores": origin.cores, "provenance.workers": origin.workers,
        **{f"provenance.retries.{sanitize(cause)}": count for cause, count in origin.retries.items()},
        **{f"accuracy.failures.{sanitize(name)}": count for name, count in record.accuracy.failures.items()},
    }  # fmt: skip
    for name, count in counts.items():
        if not 0 <= count <= MAX_COUNT:
            raise SubmissionError(f"{RECORD}: {name}: {count}; expected a count from 0 to {MAX_COUNT:,}")


def load_options_from_record(record: Record) -> LoadOptions:
    """Return the load options of the model of a record; raises `SubmissionError` if it requests any other option."""
    model = record.model
    check_loading(
        model.spec, model.dtype, model.device, model.attention, model.quantization, model.remote_code, model.own_code
    )
    return LoadOptions(attention=model.attention)


def _figure_names(folder: Path) -> set[str]:
    """Names of the figures in a folder, and of those that it lists as artifacts."""
    return {f"{FIGURES}/{path.name}" for path in (folder / FIGURES).glob("*")} | listed_artifacts(folder).keys()


def check_privacy(folder: Path, record: Record, submission: Submission) -> None:
    """Refuse entries with an absolute path; `submit new` writes none.

    Raises:
        SubmissionError: an entry contains a path; the message names it.
    """
    texts = {
        f"{RECORD}: model.spec": record.model.spec, f"{RECORD}: model.name": record.model.name,
        f"{RECORD}: provenance.command": record.provenance.command,
        f"{DESCRIPTION}: evaluation.command": submission.evaluation.command,
        f"{DESCRIPTION}: training.command": submission.training.command or "",
        f"{DESCRIPTION}: training.data": submission.training.data or "",
    }  # fmt: skip
    if (folder / TRAINING_FILE).exists():
        training = read_json(folder / TRAINING_FILE, MAX_OTHER_BYTES)
        texts |= {f"{TRAINING_FILE}: {name}": text for name, text in training.items() if isinstance(text, str)}
    for entry, text in texts.items():
        if has_paths(text):
            raise SubmissionError(f"{entry}: names a folder of a machine; draft it with python -m benchmark.submit new")


def drop_unverified(folder: Path, record: Record) -> Record:
    """Return a copy of a record without the figures that cannot be recomputed; the leaderboard shows this copy.

    Semantic content and diagnostics remain if `probes.data` contains their evidence; if it is an artifact, the excerpt
    says so, wherever the artifact is. The grid is removed: a run stores no evidence of it.

    Args:
        folder: folder of the submission.
        record: its record.
    """
    names = _probe_arrays(folder)
    meaning = record.meaning
    if meaning is not None and f"{DIAGNOSTICS}.confusion" not in names:
        meaning = replace(meaning, diagnostics={})
    content = record.content if CONTENT_HITS in names else None
    return record.model_copy(update={"meaning": meaning, "content": content, "grid": None})


def _probe_arrays(folder: Path) -> set[str]:
    """Names of the arrays of `probes.data`; empty if there is none."""
    if (folder / PROBES).is_file():
        return set(read_tensor_header(folder / PROBES))
    excerpt = read_submission(folder).excerpt if PROBES in listed_artifacts(folder) else None
    return set() if excerpt is None else set(excerpt.arrays)


def check_figures(value: Any, name: str) -> None:
    """Check the bounds of all values in a record, recursively.

    Args:
        value: pydantic model or dataclass.
        name: name of the value in messages.

    Raises:
        SubmissionError: an entry is out of bounds; the message names the first one.
    """
    for path, entry in _iterate_values(value, name):
        path_parts = path.split(".")
        if isinstance(entry, Estimate):
            _check_estimate(path, entry)
        elif isinstance(entry, bool):
            continue
        elif isinstance(entry, float):
            _check_float(path, entry, path_parts)
        elif isinstance(entry, int):
            if not -MAX_INT < entry < MAX_INT:
                raise SubmissionError(f"{path}: a number of more than 63 bits")
            if path_parts[-1] in COUNT_FIELDS and entry < (1 if path_parts[-1] == "n" else 0):
                raise SubmissionError(f"{path}: {entry}; a count is at least {1 if path_parts[-1] == 'n' else 0}")
        elif isinstance(entry, str):
            if len(entry) > MAX_TEXT:
                raise SubmissionError(f"{path}: {len(entry):,} characters; at most {MAX_TEXT:,} are read")
        elif isinstance(entry, list | tuple | Mapping):
            limit = MAX_MAPPING if isinstance(entry, Mapping) else MAX_LIST
            if len(entry) > limit:
                raise SubmissionError(f"{path}: {len(entry):,} entries; at most {limit:,} are read")


def _iterate_values(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield (path, value) for a value and all values within it, containers before their items, lazily."""
    pending = [(path, value)]
    while pending:
        current_path, current = pending.pop()
        yield current_path, current
        children: list[tuple[str, Any]] = []
        if isinstance(current, BaseModel):
            children = [(name, getattr(current, name)) for name in type(current).model_fields]
        elif isinstance(current, Mapping):
            children = [(sanitize(key).strip("'"), child) for key, child in current.items()]
            pending += [(f"{current_path} (a key)", key) for key in current if isinstance(key, str)]
        elif isinstance(current, list | tuple):
            children = [(str(number), child) for number, child in enumerate(current)]
        elif hasattr(current, "__dataclass_fields__"):
            children = list(vars(current).items())
        pending += [(f"{current_path}.{name}", child) for name, child in reversed(children)]


def _check_float(path: str, entry: float, path_parts: list[str]) -> None:
    limit = MAX_SECONDS if "seconds" in path_parts else MAX_FLOAT
    if not math.isfinite(entry) or abs(entry) > limit:
        raise SubmissionError(f"{path}: {entry:g}; no figure of a run is so large")
    if "seconds" in path_parts and entry < 0:
        raise SubmissionError(f"{path}: {entry:g}; expected seconds from 0")
    # The bounds of an estimate are checked with the estimate.
    if path_parts[-1] in ("value", "low", "high"):
        return
    field = path_parts[-2] if len(path_parts) > 1 and path_parts[-2] in MAPPING_FIELDS else path_parts[-1]
    if field in FRACTION_FIELDS and not -TOLERANCE <= entry <= 1 + TOLERANCE:
        raise SubmissionError(f"{path}: {entry:g}; expected a share from 0 to 1")
    if field in AT_MOST_ONE_FIELDS and entry > 1 + TOLERANCE:
        raise SubmissionError(f"{path}: {entry:g}; expected at most 1")


def _check_estimate(path: str, estimate: Estimate) -> None:
    bounds = (estimate.low, estimate.value, estimate.high)
    if not all(map(math.isfinite, bounds)) or max(map(abs, bounds)) > MAX_FLOAT:
        raise SubmissionError(f"{path}: {estimate.value:g} with an end that no figure of a run has")
    if not estimate.low - TOLERANCE <= estimate.value <= estimate.high + TOLERANCE:
        raise SubmissionError(
            f"{path}: {estimate.value:g} is not in its interval {estimate.low:g} to {estimate.high:g}"
        )
    if not 1 <= estimate.n <= 10**9:
        raise SubmissionError(f"{path}.n: {sanitize(estimate.n)}; expected how many independent units it rests on")
    fields = set(path.split(".")[-2:])
    is_fraction = bool(fields & FRACTION_FIELDS) and fields != DIFFERENCE_FIELDS
    if is_fraction and not (estimate.low >= -TOLERANCE and estimate.high <= 1 + TOLERANCE):
        raise SubmissionError(f"{path}: {estimate.low:g} to {estimate.high:g}; expected a share from 0 to 1")
    if fields & AT_MOST_ONE_FIELDS and estimate.value > 1 + TOLERANCE:
        raise SubmissionError(f"{path}: {estimate.value:g}; expected at most 1")


def check_times(started: str, finished: str, field: str) -> None:
    """Check the start and end time of a run.

    Args:
        started, finished: ISO 8601 times in UTC, as stored in a record.
        field: name of the entry in messages.

    Raises:
        SubmissionError: a time is malformed or in the future, or the end precedes the start.
    """
    times = {}
    for name, text in (("started", started), ("finished", finished)):
        try:
            times[name] = datetime.fromisoformat(text) if TIME_PATTERN.fullmatch(text) else None
        except ValueError:
            times[name] = None
        if times[name] is None:
            raise SubmissionError(
                f"{field}.{name}: {sanitize(text)}; expected a time such as 2026-11-25T03:10:46+00:00"
            )
    start, end = times["started"], times["finished"]
    assert start is not None
    assert end is not None
    if not EARLIEST <= start <= end:
        raise SubmissionError(f"{field}: started {started}, finished {finished}; expected one after the other")
    if end > datetime.now(UTC) + CLOCK_SKEW:
        raise SubmissionError(f"{field}.finished: {finished} is yet to come; expected a run that is over")
