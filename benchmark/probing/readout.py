"""Readings: what the probes of one seed read, word by word, in a few programs of the blind set; to be looked at.

The score rests on all programs and seeds (`semantic_content`); this is the same fit for some of them, kept so that the
page can play a program and show beside each step what is read of the model's state.
Letters: `S` semantics, `P` programs, `T` action words of one.
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
"""Bytes of the file's text."""
_Class = Annotated[int, Field(ge=0, le=100)]
_Probability = Annotated[float, Field(ge=0, le=1)]


class SemanticsReadout(BaseModel):
    """Of one semantics.

    Attributes:
        semantics: its name.
        view: the pooled state that its probes chose on validation.
        prior: whether the score takes the step's label frequencies instead, since its probe was no better.
        true: [P, T], class after the word; None where it is never executed.
        read: [P, T], the most probable class to the probe.
        probability: [P, T], that the probe gives to the true class; under the original the geometric mean over the
            networks of the seed, of which `read` is one's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    semantics: str
    view: str
    prior: bool
    true: list[list[_Class | None]]
    read: list[list[_Class | None]]
    probability: list[list[_Probability | None]]


class Readout(BaseModel):
    """Of one run.

    Attributes:
        feature: that is read.
        seed: of the probes.
        task: P numbers in the blind set: the first of those that the seed is tested on, whatever is read there.
        by_semantics: the original first.
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
    """The readings of the first seed.

    Args:
        probe_set, tested: of the blind set.
        fits: of the model, by view.
        views: their names.
        semantics: those to keep, of the probe set's.
        protocol: of the run; its first seed is taken.
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
        best = min(float(other.validation[0, s, feature]) for other in fits)
        columns = {"true": label, "read": fit.predicted[0][s, feature, rows], "probability": probability}
        lists = {column: _split_by_program(values, is_labelled, ends) for column, values in columns.items()}
        prior = best >= float(baseline.priors[0].validation[s, feature])
        by_semantics.append(
            SemanticsReadout.model_validate({"semantics": name, "view": views[pool[s]], "prior": prior, **lists})
        )
    return Readout(feature=PRIMARY, seed=seed, task=task.tolist(), by_semantics=by_semantics)


def _split_by_program(values: np.ndarray, is_labelled: np.ndarray, ends: np.ndarray) -> list[list[int | float | None]]:
    """A list a program, None for what is not known."""
    programs = zip(np.split(values, ends), np.split(is_labelled, ends), strict=True)
    return [[v if k else None for v, k in zip(one.tolist(), there, strict=True)] for one, there in programs]


def pack_readout(readout: Readout) -> bytes:
    """The content of the file, the same for the same readings."""
    return gzip.compress(readout.model_dump_json().encode(), mtime=0)


def load_readout(folder: Path, probe_set: ProbeSet) -> Readout | None:
    """The readings that a run stored; None if it has none.

    Args:
        folder: of the run.
        probe_set: of the blind set that they must be of.

    Raises:
        SubmissionError: the file cannot be read.
        VerificationError: they do not fit the schema, or are not of this blind set.
    """
    path = folder / READINGS
    if not path.is_file():
        return None
    text = gunzip_bounded(read_bytes(path, MAX_BYTES[READINGS]), path.name, MAX_TEXT_BYTES)
    try:
        readout = Readout.model_validate_json(text)
        _validate(readout, probe_set)
    except ValueError as problem:
        message = " ".join(str(problem).split())[:200]
        raise VerificationError(
            f"{path}: {message}; expected the readings of this suite's blind set, run the model again"
        ) from problem
    return readout


def _validate(readout: Readout, probe_set: ProbeSet) -> None:
    if readout.feature != PRIMARY or not readout.by_semantics:
        raise ValueError(f"readings of {readout.feature!r} under {len(readout.by_semantics)} semantics")
    feature = FEATURES.index(readout.feature)
    if any(task >= len(probe_set.fold) for task in readout.task) or len(set(readout.task)) < len(readout.task):
        raise ValueError("programs that the blind set has not, or one twice")
    rows = [np.flatnonzero(probe_set.program == task) for task in readout.task]
    for semantics_readout in readout.by_semantics:
        if semantics_readout.semantics not in probe_set.semantics:
            raise ValueError(f"unknown semantics {semantics_readout.semantics[:20]!r}")
        labels = probe_set.classes[probe_set.semantics.index(semantics_readout.semantics), feature]
        true = [[None if c == MISSING else c for c in labels[program_rows].tolist()] for program_rows in rows]
        if semantics_readout.true != true:
            raise ValueError(f"labels under {semantics_readout.semantics} that are not those of the blind set")
        missing = [[c is None for c in program] for program in true]
        for column in (semantics_readout.read, semantics_readout.probability):
            if [[value is None for value in program] for program in column] != missing:
                raise ValueError(f"not one reading a word under {semantics_readout.semantics}")
        if any(c is not None and c >= probe_set.counts[feature] for program in semantics_readout.read for c in program):
            raise ValueError(f"a class under {semantics_readout.semantics} that {readout.feature} has not")
