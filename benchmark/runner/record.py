"""The record of a run: everything that its row rests on, in one versioned JSON file.

Every figure has its n and interval; a figure that is not defined is null, never 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmark.artifacts import known_version
from benchmark.errors import BenchmarkError
from benchmark.models.interface import Loading
from benchmark.probing.grid import Grid
from benchmark.probing.protocol import Protocol
from benchmark.probing.semantic_content import SemanticContent
from benchmark.probing.verdict import ProbeResult
from benchmark.tasks.pass_at_k import ConstrainedSummary, SampledSummary
from benchmark.tasks.prompt_template import TRAINED
from benchmark.tasks.scoring import Summary

SCHEMA_VERSION = 4


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelEntry(_Strict):
    """The model: its name, its files' digest, its size, how it was loaded (see `Loading`), and how it computed."""

    spec: str
    name: str
    digest: str
    parameters: int
    dtype: str
    device: str
    attention: str = ""
    quantization: str = ""
    remote_code: bool = False
    own_code: bool = False

    @property
    def loading(self) -> Loading:
        """How it was loaded."""
        return Loading(self.attention, self.quantization, self.remote_code, self.own_code)


class SuiteEntry(_Strict):
    """The suite: version, seed, digest of the test set, and how many of its tasks were run."""

    name: str
    version: int
    seed: int
    sha256: str
    tasks: int
    equality: str


class FrameEntry(_Strict):
    """What stood around each task in a few-shot prompt: its digest, solved examples, and who laid it out."""

    sha256: str
    shots: int
    chat_template: bool


class Provenance(_Strict):
    """Where the figures come from."""

    command: str
    identity: str
    source: str
    commit: str | None
    dirty: bool | None
    python: str
    platform: str
    processor: str
    cores: int
    gpu: str = ""
    """Of the driver, where it computes on one; a worker's stands behind its processor."""
    packages: dict[str, str | None]
    workers: int
    """Ray actors at a time; 0 is the driver's own process."""
    processors: list[str] = []
    """Of the workers."""
    retries: dict[str, int] = {}
    """How often a piece of work was computed again, by cause, in all sessions of the run."""
    started: str
    finished: str
    seconds: dict[str, float]
    """Worker seconds of each stage, and seconds of the probing stages."""
    products: str
    """Precision of the probes' matrix products."""

    @property
    def hardware(self) -> str:
        """Of the driver, in words."""
        return ", ".join(filter(None, (f"{self.processor}, {self.cores} cores", self.gpu)))


class Record(_Strict):
    """One run.

    `official` tells whether its row may enter the leaderboard, `unofficial` says why not; `frame` is there in the few-shot
    track, `constrained` and `sampled` where they were asked for; `meaning` is not there for a baseline that is no network
    and after `--no-states`; `grid` is there after `--grid layers` or `full`; `figures` are paths in the run folder.
    """

    schema_version: Annotated[int, known_version(SCHEMA_VERSION)] = SCHEMA_VERSION
    official: bool
    unofficial: list[str]
    model: ModelEntry
    suite: SuiteEntry
    protocol: Protocol
    track: str = TRAINED
    frame: FrameEntry | None = None
    accuracy: Summary
    constrained: ConstrainedSummary | None = None
    sampled: SampledSummary | None = None
    meaning: ProbeResult | None
    content: SemanticContent | None
    grid: Grid | None
    figures: list[str]
    samples_sha256: str
    provenance: Provenance

    def to_json(self) -> str:
        """The file's text."""
        return self.model_dump_json(indent=1) + "\n"


def read_record(path: Path) -> Record:
    """A record from its file; raises `BenchmarkError` naming the first entry that does not fit the schema."""
    try:
        return Record.model_validate_json(path.read_bytes())
    except OSError as problem:
        raise BenchmarkError(f"{path}: {problem.strerror}; expected the record of a finished run") from problem
    except ValidationError as problem:
        first = problem.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        reason = first["msg"].removeprefix("Value error, ")
        if place != "schema_version":
            reason += f"; expected a record of schema {SCHEMA_VERSION}"
        raise BenchmarkError(f"{path}: {place}: {reason}") from problem
