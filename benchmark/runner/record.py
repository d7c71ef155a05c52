"""The record of a run: all figures and settings behind its leaderboard row, in one versioned JSON file.

Every figure has its n and interval; an undefined figure is null, never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from benchmark.artifacts import known_version
from benchmark.errors import BenchmarkError
from benchmark.models.interface import LoadOptions
from benchmark.probing.grid import Grid
from benchmark.probing.protocol import Protocol
from benchmark.probing.semantic_content import SemanticContent
from benchmark.probing.verdict import ProbeResult
from benchmark.tasks.pass_at_k import ConstrainedSummary, SampledSummary
from benchmark.tasks.prompt_template import TRAINED
from benchmark.tasks.scoring import Summary
from benchmark.tasks.suite import Suite, set_prompts
from karel_env.syntax.dialects import KAREL

SCHEMA_VERSION = 4


class StrictModel(BaseModel):
    """Base of the entries of a record: no unknown entry, no change, no infinity or NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelEntry(StrictModel):
    """The model: its name, its files' digest, its size, how it was loaded (see `LoadOptions`), and how it computed."""

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
    def loading(self) -> LoadOptions:
        """The load options."""
        return LoadOptions(self.attention, self.quantization, self.remote_code, self.own_code)


class SuiteEntry(StrictModel):
    """The suite: version, seed, digest of the test set, and number of evaluated tasks."""

    name: str
    version: int
    seed: int
    sha256: str
    tasks: int
    equality: str


class FrameEntry(StrictModel):
    """The few-shot prompt template: digest, number of solved examples, whether the chat template rendered it, and what
    programs are written in."""

    sha256: str
    shots: int
    chat_template: bool
    dialect: str = KAREL

    @model_serializer(mode="wrap")
    def serialize(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave the canonical dialect out, as it was before there was another."""
        return {name: value for name, value in handler(self).items() if name != "dialect" or value != KAREL}


class Provenance(StrictModel):
    """Command, code, hardware and timing of a run."""

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
    """GPU of the driver, if it computes on one; `processors` holds those of the workers."""
    packages: dict[str, str | None]
    workers: int
    """Ray actors at a time; 0 for the driver's own process."""
    processors: list[str] = []
    """Processors (and GPUs) of the workers."""
    retries: dict[str, int] = {}
    """Number of work items computed again, by cause, over all sessions of the run."""
    started: str
    finished: str
    seconds: dict[str, float]
    """Worker seconds per stage, and seconds of the probing stages."""
    products: str
    """Dtype of the probes' matrix products."""

    @property
    def hardware(self) -> str:
        """Processor, cores and GPU of the driver, as text."""
        return ", ".join(filter(None, (f"{self.processor}, {self.cores} cores", self.gpu)))


class Record(StrictModel):
    """One run.

    `official`: whether the row is leaderboard-eligible; `unofficial`: the reasons if not. `frame` is set in the few-shot track,
    `constrained` and `sampled` if requested; `meaning` is None for a baseline that is no network and with `--accuracy-only`;
    `grid` is set with `--detail layers` or `full`; `figures` are paths in the run folder.
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

    @property
    def eligibility(self) -> str:
        """See `format_eligibility`."""
        return format_eligibility(self.unofficial)

    def to_json(self) -> str:
        """The file's text."""
        return self.model_dump_json(indent=1) + "\n"


def set_recorded_prompts(suite: Suite, record: Record) -> Suite:
    """The suite with the number of solved examples and the dialect of a run's few-shot prompts."""
    return suite if record.frame is None else set_prompts(suite, record.frame.shots, record.frame.dialect)


def format_eligibility(reasons: Sequence[str]) -> str:
    """Whether a run is eligible for the leaderboard, as text: `yes`, or `no` with the reasons."""
    return f"no ({'; '.join(reasons)})" if reasons else "yes"


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        BenchmarkError: the file is missing, or an entry does not fit the schema.
    """
    try:
        return Record.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BenchmarkError(f"{path}: {error.strerror}; expected the record of a finished run") from error
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(str(part) for part in first["loc"]) or "the file"
        reason = first["msg"].removeprefix("Value error, ")
        if location != "schema_version":
            reason += f"; expected a record of schema {SCHEMA_VERSION}"
        raise BenchmarkError(f"{path}: {location}: {reason}") from error
