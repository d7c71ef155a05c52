"""Verify a submission without its model: everything that can be computed again is, and compared with what is said.

The tasks are drawn anew from the suite's seed, prompts digested, every submitted program executed, accuracy and its
intervals computed, the verdict and each figure of the blind set judged again from `probes.data`. This finds what is
inconsistent; figures of the right form that were invented as a whole need `rerun`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, StringConstraints
from safetensors.numpy import load

from benchmark.checkpoint import open_checkpoint
from benchmark.content import generated_probe_set
from benchmark.errors import SubmissionError, VerificationError
from benchmark.evaluation import GENERATED, GRIDS, TEST, prompts_of, stage_tasks, written_programs
from benchmark.intake import read_bytes, read_json, read_rows, read_text, shown, tensor_header
from benchmark.labels import MISSING, ProbeSet
from benchmark.measurement import Meaning, blind_probe_set, judged
from benchmark.models import ModelSpec
from benchmark.protocol import POOLS, STANDARD, Protocol
from benchmark.readings import read_readings
from benchmark.record import Record, source_digest
from benchmark.scoring import OUTCOMES, score, summarize
from benchmark.semantic_content import CONTROLS, Tested
from benchmark.submission import (
    FIGURES,
    FLAGGED,
    LIMITS,
    OWN_WEIGHTS,
    PROBES,
    READINGS,
    README,
    RECORD,
    REPRODUCED,
    SAMPLES,
    WITHDRAWN,
    WITHHELD,
    Digest,
    Submission,
    checked,
    files_digest,
    read_status,
    read_submission,
    screen_folder,
)
from benchmark.suites import SUITE_FOLDER, Suite, load_suite, test_tasks
from karel_env.features import FEATURES, PAPER_FEATURES, PRIMARY

EXACT, ROUNDING = 1e-9, 1e-6
"""Largest difference of a recomputed figure: of accuracy, and of what another processor may sum in another order."""
CLAIMED = 5e-4
MOST_THREADS = 256
ONE_SUM = 1e-4
"""Relative difference of the sums of one array over its groups of programs and of another over its seeds, in float32."""


@dataclass(frozen=True)
class Difference:
    """An entry, what the submission says, and what is found."""

    entry: str
    said: Any
    found: Any


@dataclass
class Verified:
    """What verification found.

    Attributes:
        checked: what was compared, a line each.
        differences: none if the submission is what it says.
    """

    submission: Submission
    record: Record
    samples: list[Sample]
    checked: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)

    def compare(self, entry: str, said: Any, found: Any, tolerance: float = 0.0) -> None:
        """Note where two values differ, entry by entry."""
        self.differences += differing(entry, said, found, tolerance)


class Sample(BaseModel, extra="forbid", frozen=True, strict=True):
    """A line of `samples.jsonl.gz`; the last four are of the stage `test` alone."""

    stage: Literal["test", "generated"]
    task: Annotated[int, Field(ge=0, lt=10**6)]
    prompt: Digest
    text: Annotated[str, StringConstraints(max_length=10_000)]
    tokens: Annotated[int, Field(ge=0, lt=10**6)]
    finished: bool
    outcome: Literal["solved", "empty", "unparsable", "step limit", "wrong output"] | None = None
    shown: bool | None = None
    held_out: bool | None = None
    exact: bool | None = None


def differing(entry: str, said: Any, found: Any, tolerance: float = 0.0) -> Iterator[Difference]:
    """Where two nested values differ; floats by more than a tolerance."""
    said, found = (vars(value) if hasattr(value, "__dataclass_fields__") else value for value in (said, found))
    if isinstance(said, Mapping) and isinstance(found, Mapping):
        for name in sorted(said.keys() | found.keys()):
            yield from differing(f"{entry}.{name}", said.get(name), found.get(name), tolerance)
    elif isinstance(said, float) and isinstance(found, float):
        if not abs(said - found) <= tolerance:
            yield Difference(entry, said, found)
    elif said != found:
        yield Difference(entry, said, found)


def submitted_record(folder: Path) -> Record:
    """The record of a submission: of an official run of a shipped suite under this protocol.

    Raises:
        SubmissionError: it is not that, or no record.
    """
    record = checked(Record, read_json(folder / RECORD, LIMITS[RECORD]), RECORD)
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
    for place in record.figures:
        if place not in _figures(folder):
            raise SubmissionError(f"{RECORD}: figure {shown(place)} is not in the folder")
    return record


def _figures(folder: Path) -> set[str]:
    return {f"{FIGURES}/{path.name}" for path in (folder / FIGURES).glob("*")}


def submitted_samples(folder: Path) -> list[Sample]:
    """The lines of `samples.jsonl.gz`; raises `SubmissionError`."""
    rows = read_rows(folder / SAMPLES, LIMITS[SAMPLES])
    return [checked(Sample, row, f"{SAMPLES} line {number}") for number, row in enumerate(rows, 1)]


def submitted_probes(folder: Path, probe_set: ProbeSet, tested: Tested, protocol: Protocol) -> dict[str, np.ndarray]:
    """The arrays of `probes.data`, once they have the names, shapes and range that the verdict is computed from.

    Raises:
        SubmissionError: they do not.
    """
    header = tensor_header(folder / PROBES)
    seeds, semantics, features, units = (
        len(protocol.seeds),
        len(probe_set.semantics),
        len(FEATURES),
        tested.prior.shape[-1],
    )
    shapes = {
        "probe": ("F32", [semantics, features, units]),
        "totals": ("F32", [seeds, semantics, features]),
        "pool": ("I64", [seeds, semantics, features]),
    }
    expected = {f"{source}.{part}": shapes[part] for source in ("model", *CONTROLS) for part in shapes}
    if set(header) != set(expected):
        odd = sorted(set(header) ^ set(expected))
        raise SubmissionError(f"{PROBES}: array {shown(odd[0])} is missing or not expected")
    for name, (item, shape) in expected.items():
        if (header[name]["dtype"], header[name]["shape"]) != (item, shape):
            raise SubmissionError(
                f"{PROBES}: {name} is {header[name]['dtype']} {header[name]['shape']}, not {item} {shape}"
            )
    arrays: dict[str, np.ndarray] = load(read_bytes(folder / PROBES, LIMITS[PROBES]))
    for name, array in arrays.items():
        if name.endswith(".pool"):
            # One view is always there; the last of the model's views is the last layer.
            if array.min() < 0 or array.max() >= len(POOLS):
                raise SubmissionError(f"{PROBES}: {name} names a view that there is not")
        elif not np.isfinite(array).all() or array.min() < 0:
            raise SubmissionError(f"{PROBES}: {name} has entries that are no cross-entropy")
    return arrays


def validate(folder: Path, incoming: bool = False) -> Verified:
    """Read a submission; nothing is computed again yet.

    Args:
        folder: of the submission.
        incoming: it comes from outside, see `screen_folder`.

    Raises:
        SubmissionError: it cannot be read, or is no submission.
    """
    screen_folder(folder, incoming)
    read_text(folder / README)
    return Verified(read_submission(folder), submitted_record(folder), submitted_samples(folder))


def verify(folder: Path, incoming: bool = False) -> Verified:
    """Compute a submission again, as far as goes without its model; arguments and errors are those of `validate`."""
    found = validate(folder, incoming)
    record = found.record
    suite = load_suite(record.suite.name)
    _compare_suite(found, suite)
    _compare_description(found, folder)
    _compare_provenance(found, suite)
    written = hashlib.sha256(read_bytes(folder / SAMPLES, LIMITS[SAMPLES])).hexdigest()
    found.compare("samples_sha256", record.samples_sha256, written)
    if (record.suite.version, record.suite.seed, record.suite.tasks) == (suite.version, suite.seed, suite.tasks):
        _compare_samples(found, suite)
        _compare_meaning(found, suite, folder)
    _compare_claims(found)
    _compare_status(found, folder)
    return found


def _compare_suite(found: Verified, suite: Suite) -> None:
    said = found.record.suite
    for name in ("version", "seed", "sha256", "tasks", "equality"):
        found.compare(f"suite.{name}", getattr(said, name), getattr(suite, name))
    found.compare("official", found.record.official, suite.official)
    found.checked.append("suite: version, seed, size, equality, and the digest of its tasks, drawn again")


def _compare_description(found: Verified, folder: Path) -> None:
    """`submission.yaml` against the record and the model's files."""
    said, record = found.submission, found.record
    found.compare("submission.digest", said.digest, record.model.digest)
    found.compare("submission.parameters", said.parameters, record.model.parameters)
    found.compare("submission.evaluation.commit", said.evaluation.commit, record.provenance.commit)
    if said.model == OWN_WEIGHTS or said.model.startswith("baseline:"):
        own = said.model == OWN_WEIGHTS
        checkpoint = open_checkpoint(ModelSpec("path", str(folder)) if own else ModelSpec.parse(said.model))
        found.compare("model.digest", record.model.digest, checkpoint.digest)
        found.compare("model.parameters", record.model.parameters, checkpoint.parameters)
        found.checked.append("model: digest of its files and number of parameters")
    scheme = "path" if said.model in (OWN_WEIGHTS, WITHHELD) else said.model
    given = record.model.spec.partition(":")[0] if scheme == "path" else record.model.spec
    found.compare("model.spec", given, scheme)


def _compare_provenance(found: Verified, suite: Suite) -> None:
    """The run's identity, which only the same source computes as it was; and whether that source was clean."""
    record, origin = found.record, found.record.provenance
    found.compare("provenance.dirty", bool(origin.dirty), False)
    if origin.source != source_digest():
        return
    parts = {
        "model": record.model.digest, "dtype": record.model.dtype, "device": record.model.device.split(":")[0],
        "suite": asdict(suite), "tasks": suite.sha256, "protocol": record.protocol.digest(), "source": origin.source,
        "loading": asdict(record.model.loading),
    }  # fmt: skip
    for threads in range(1, MOST_THREADS + 1):
        for grid in GRIDS:
            text = json.dumps(parts | {"threads": threads, "grid": grid}, sort_keys=True)
            if hashlib.sha256(text.encode()).hexdigest() == origin.identity:
                found.checked.append("identity of the run")
                return
    found.compare("provenance.identity", origin.identity, "another, whatever its threads and grid")


@lru_cache(maxsize=8)
def prompt_digests(suite: Suite, stage: str) -> list[str]:
    """SHA-256 of the prompt of each task of a stage."""
    return [hashlib.sha256(text.encode()).hexdigest() for text in prompts_of(suite, stage_tasks(suite, stage))]


def _compare_samples(found: Verified, suite: Suite) -> None:
    """Every line of the samples, and all figures of accuracy."""
    record, network = found.record, not found.record.model.spec.startswith("baseline:")
    tested = [sample for sample in found.samples if sample.stage == TEST]
    written = [sample for sample in found.samples if sample.stage == GENERATED]
    for stage, rows in ((TEST, tested), (GENERATED, written) if network else (TEST, tested)):
        expected = prompt_digests(suite, stage)
        found.compare(f"samples.{stage}: tasks", [row.task for row in rows] == list(range(len(expected))), True)
        for row, prompt in zip(rows, expected, strict=False):
            found.compare(f"samples.{stage}.{row.task}.prompt", row.prompt, prompt)
    if not network:
        found.compare("samples.generated: tasks", len(written), 0)
    if len(tested) != suite.tasks:
        return
    scores = score(suite, test_tasks(suite), [row.text for row in tested])
    for i, row in enumerate(tested):
        again = {
            "outcome": OUTCOMES[scores.outcome[i]], "shown": bool(scores.shown[i]),
            "held_out": bool(scores.held_out[i]), "exact": bool(scores.exact[i]),
        }  # fmt: skip
        found.compare(f"samples.test.{row.task}", {name: getattr(row, name) for name in again}, again)
    found.compare("accuracy", record.accuracy, summarize(scores), EXACT)
    found.checked.append(f"samples: {len(found.samples):,} prompts' digests, {len(tested):,} programs executed again")
    found.checked.append("accuracy: every figure and interval")
    if network and len(written) == suite.probe_programs:
        _compare_content(found, suite, [row.text for row in written])


def _compare_content(found: Verified, suite: Suite, texts: Sequence[str]) -> None:
    """What of the paper's columns does not need the states: how many programs and states they rest on."""
    content, protocol = found.record.content, found.record.protocol
    programs, _ = written_programs(texts)
    distinct = len({programs.program(i).tobytes() for i in range(len(programs))})
    found.compare("content is there", content is not None, distinct >= protocol.min_programs)
    if content is None or distinct < protocol.min_programs:
        return
    probe_set = generated_probe_set(suite, protocol, texts)
    tested = np.unique(np.concatenate([probe_set.split(seed).test for seed in protocol.seeds]))
    heads = [FEATURES.index(name) for group in PAPER_FEATURES for name in group]
    executed = (probe_set.classes[0, heads] != MISSING).all(0)
    found.compare("content.programs", content.programs, distinct)
    found.compare("content.test_states", content.test_states, int(executed[tested].sum()))
    found.checked.append("content: numbers of programs and states (its figures need the states)")


@lru_cache(maxsize=2)
def _blind(suite: Suite, protocol: Protocol) -> tuple[ProbeSet, Tested]:
    probe_set = blind_probe_set(suite, protocol)
    return probe_set, Tested.of(probe_set, protocol)


def judged_again(folder: Path, record: Record) -> Meaning:
    """What the stored arrays of a submission say, its diagnostics left out; raises `SubmissionError`."""
    probe_set, tested = _blind(load_suite(record.suite.name), record.protocol)
    arrays = submitted_probes(folder, probe_set, tested, record.protocol)
    return judged(probe_set, tested, arrays, record.protocol)


def _compare_meaning(found: Verified, suite: Suite, folder: Path) -> None:
    """The verdict and every figure of the blind set, from the stored arrays."""
    record = found.record
    network = not record.model.spec.startswith("baseline:")
    found.compare("meaning is there", record.meaning is not None, network)
    if record.meaning is None or not network:
        return
    again, protocol = judged_again(folder, record), record.protocol
    for name in ("verdict", "features", "semantics", "programs", "dropped", "test_programs", "test_states"):
        found.compare(f"meaning.{name}", getattr(record.meaning, name), getattr(again, name), ROUNDING)
    probe_set, tested = _blind(suite, protocol)
    for feature, said in record.meaning.diagnostics.items():
        if feature not in FEATURES:
            found.compare(f"meaning.diagnostics.{feature}", "there", "no such feature")
            continue
        states, majority = _of_labels(probe_set, tested, protocol, FEATURES.index(feature))
        found.compare(f"meaning.diagnostics.{feature}.states", said.states, states)
        found.compare(f"meaning.diagnostics.{feature}.majority", said.majority, majority, ROUNDING)
    arrays = submitted_probes(folder, probe_set, tested, protocol)
    if sorted(seed % protocol.folds for seed in protocol.seeds) == list(range(protocol.folds)):
        # Each program is tested by one seed, so both arrays sum the same cross-entropies.
        for source in ("model", *CONTROLS):
            by_unit, by_seed = (
                arrays[f"{source}.probe"].sum(-1, dtype=float),
                arrays[f"{source}.totals"].sum(0, dtype=float),
            )
            same = bool(np.allclose(by_unit, by_seed, rtol=ONE_SUM, atol=ONE_SUM))
            found.compare(f"{PROBES}: {source}.probe and .totals give one sum", same, True)
    if read_readings(folder, probe_set) is not None:
        found.checked.append(f"{READINGS}: labels, and the form of what is read")
    found.checked.append("meaning: verdict, and every figure and interval of each feature, from probes.data")


def _of_labels(probe_set: ProbeSet, tested: Tested, protocol: Protocol, feature: int) -> tuple[int, float]:
    """Of a feature's diagnostics, those that its labels alone decide: states and majority."""
    tests = np.concatenate([probe_set.split(seed).test for seed in protocol.seeds])
    states = int((probe_set.classes[0, feature, tests] != MISSING).sum())
    return states, float(sum(prior.correct[0, feature].sum() for prior in tested.priors) / states)


def _compare_claims(found: Verified) -> None:
    """The numbers of `submission.yaml`."""
    accuracy, meaning = found.record.accuracy, found.record.meaning
    known: dict[str, Any] = {name: getattr(accuracy, name).value for name in ("shown", "held_out", "exact", "valid")}
    if meaning is not None and PRIMARY in meaning.features:
        facing = meaning.features[PRIMARY]
        known |= {"skill": facing.skill.value, "delta": facing.delta.value, "verdict": meaning.verdict}
    for name, said in found.submission.claimed:
        if said is not None:
            found.compare(f"claimed.{name}", said, known.get(name), CLAIMED)
    found.checked.append("claimed numbers")


def _compare_status(found: Verified, folder: Path) -> None:
    """A status that the folder brings must be one that this verification could have written."""
    status = read_status(folder)
    if status is None:
        return
    if status.status in (FLAGGED, WITHDRAWN):
        found.compare("status.reason is there", status.reason is not None, True)
        return
    found.compare("status.files", status.files, files_digest(folder))
    found.compare("status.rerun is there", status.rerun is not None, status.status == REPRODUCED)


def check_stored(folder: Path, record: Record) -> None:
    """Compute the verdict and every figure of the blind set again from the arrays that a submission stores, if it has one.

    Raises:
        VerificationError: the arrays are not there, or they do not give what the record says.
    """
    if record.meaning is None:
        return
    try:
        again = judged_again(folder, record)
    except SubmissionError as problem:
        raise VerificationError(f"{folder}: cannot be judged ({problem}); run the model again") from problem
    for name in ("features", "verdict"):
        for one in differing(name, getattr(record.meaning, name), getattr(again, name), ROUNDING):
            entry = one.entry.removeprefix("features.")
            raise VerificationError(
                f"{folder}: {entry}: the record says {one.said}, probes.data gives {one.found}; run the model again"
            )
