"""Probe readout: predictions of one seed's probes per action token, for a few programs of the blind set.

Results use all programs and seeds (`control_gap`); the readout is a sample of the same probe fit, stored so that the
page of a run can show the probed state next to each step of a program.
Letters: `S` semantics, `P` programs, `T` action tokens of a program.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from benchmark.artifacts import MAX_BYTES, READINGS
from benchmark.errors import VerificationError
from benchmark.files import gunzip_bounded, read_bytes
from benchmark.probing.control_gap import PriorBaseline, select_pool
from benchmark.probing.labels import MISSING, ProbeSet
from benchmark.probing.probe_fit import ProbeFit
from benchmark.probing.protocol import Protocol
from karel_env.features import FEATURES, PRIMARY

NUM_PROGRAMS = 40
DIGITS = 4
MAX_TEXT_BYTES = 4_000_000
"""Largest size of the uncompressed file in bytes."""
_Class = Annotated[int, Field(ge=0, le=100)]
_Probability = Annotated[float, Field(ge=0, le=1)]


class SemanticsReadout(BaseModel):
    """Readout under one semantics.

    Attributes:
        semantics: name of the semantics.
        view: the view that validation selected.
        prior: whether the score uses the label prior instead of the probe, since the probe was no better on validation.
        true: [P, T], class after the token; None for a token that is never executed.
        read: [P, T], the most probable class according to the probe.
        probability: [P, T], probability of the true class; under the original the geometric mean over the networks of
            the seed, while `read` is the prediction of one of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    semantics: str
    view: str
    prior: bool
    true: list[list[_Class | None]]
    read: list[list[_Class | None]]
    probability: list[list[_Probability | None]]


class Readout(BaseModel):
    """Readout of one run, the content of `readings.json.gz`.

    Attributes:
        feature: the probed feature.
        seed: probe seed.
        task: P task indices in the blind set, the first test programs of the seed.
        by_semantics: readout per semantics, the original first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    feature: str
    seed: int
    task: list[Annotated[int, Field(ge=0)]]
    by_semantics: list[SemanticsReadout]


def compute_readout(
    probe_set: ProbeSet,
    baseline: PriorBaseline,
    fits: Sequence[ProbeFit],
    views: Sequence[str],
    semantics: Sequence[str],
    protocol: Protocol,
) -> Readout:
    """Compute the readout of the first seed.

    Args:
        probe_set: labels of the blind set.
        baseline: label prior on the same labels.
        fits: probe fit of the model per view.
        views: names of the views.
        semantics: names of the semantics to include.
        protocol: protocol of the run.
    """
    seed, feature = protocol.seeds[0], FEATURES.index(PRIMARY)
    test = probe_set.split(seed).test
    task = np.unique(probe_set.program[test])[:NUM_PROGRAMS]
    rows = np.flatnonzero(np.isin(probe_set.program[test], task))
    ends = np.flatnonzero(np.diff(probe_set.program[test][rows])) + 1
    pool, by_semantics = select_pool(fits)[0, :, feature], []
    for s, name in enumerate(probe_set.semantics):
        if name not in semantics:
            continue
        fit = fits[pool[s]]
        label = probe_set.classes[s, feature, test[rows]]
        is_labelled = label != MISSING
        probability = np.exp(fit.log_prob[0][s, feature, rows].astype(np.float64)).clip(0, 1).round(DIGITS)
        best = min(float(other_features.validation[0, s, feature]) for other_features in fits)
        columns = {"true": label, "read": fit.predicted[0][s, feature, rows], "probability": probability}
        lists = {column: _split_by_program(values, is_labelled, ends) for column, values in columns.items()}
        prior = best >= float(baseline.priors[0].validation[s, feature])
        by_semantics.append(
            SemanticsReadout.model_validate({"semantics": name, "view": views[pool[s]], "prior": prior, **lists})
        )
    return Readout(feature=PRIMARY, seed=seed, task=task.tolist(), by_semantics=by_semantics)


def _split_by_program(values: np.ndarray, is_labelled: np.ndarray, ends: np.ndarray) -> list[list[int | float | None]]:
    """Split values at the ends of programs into one list per program, with None for missing labels."""
    programs = zip(np.split(values, ends), np.split(is_labelled, ends), strict=True)
    return [
        [value if has_label else None for value, has_label in zip(program_values.tolist(), program_mask, strict=True)]
        for program_values, program_mask in programs
    ]


def pack_readout(readout: Readout) -> bytes:
    """Serialize the readout as gzipped JSON, deterministically."""
    return gzip.compress(readout.model_dump_json().encode(), mtime=0)


def load_readout(folder: Path, probe_set: ProbeSet) -> Readout | None:
    """Load the readout that a run stored; None if there is none.

    Args:
        folder: folder of the run.
        probe_set: labels of the blind set of the run's suite.

    Raises:
        SubmissionError: the file cannot be read.
        VerificationError: the content does not match the schema or this blind set.
    """
    path = folder / READINGS
    if not path.is_file():
        return None
    text = gunzip_bounded(read_bytes(path, MAX_BYTES[READINGS]), path.name, MAX_TEXT_BYTES)
    try:
        readout = Readout.model_validate_json(text)
        _validate(readout, probe_set)
    except ValueError as error:
        message = " ".join(str(error).split())[:200]
        raise VerificationError(
            f"{path}: {message}; expected a readout of this suite's blind set, run the model again"
        ) from error
    return readout


def _validate(readout: Readout, probe_set: ProbeSet) -> None:
    if readout.feature != PRIMARY or not readout.by_semantics:
        raise ValueError(
            f"readout of {readout.feature!r} under {len(readout.by_semantics)} semantics, expected {PRIMARY!r} under 1 or more"
        )
    feature = FEATURES.index(readout.feature)
    if any(task >= len(probe_set.fold) for task in readout.task) or len(set(readout.task)) < len(readout.task):
        raise ValueError("duplicate tasks, or tasks outside the blind set")
    rows = [np.flatnonzero(probe_set.program == task) for task in readout.task]
    for semantics_readout in readout.by_semantics:
        if semantics_readout.semantics not in probe_set.semantics:
            raise ValueError(f"unknown semantics {semantics_readout.semantics[:20]!r}")
        labels = probe_set.classes[probe_set.semantics.index(semantics_readout.semantics), feature]
        true = [[None if c == MISSING else c for c in labels[program_rows].tolist()] for program_rows in rows]
        if semantics_readout.true != true:
            raise ValueError(f"labels under {semantics_readout.semantics} differ from those of the blind set")
        missing = [[c is None for c in program] for program in true]
        for column in (semantics_readout.read, semantics_readout.probability):
            if [[value is None for value in program] for program in column] != missing:
                raise ValueError(f"expected one value per labelled token under {semantics_readout.semantics}")
        if any(c is not None and c >= probe_set.counts[feature] for program in semantics_readout.read for c in program):
            raise ValueError(f"class out of range for {readout.feature} under {semantics_readout.semantics}")
