"""The record of a run: everything that its row rests on, in one versioned JSON file.

Every figure has its n and interval; a figure that is not defined is null, never 0.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, ValidationError

import karel_env
from benchmark.answers import Constrained, Sampled
from benchmark.bounds import known_version
from benchmark.content import Content
from benchmark.errors import BenchmarkError
from benchmark.grid import Grid
from benchmark.measurement import Meaning
from benchmark.models import Loading
from benchmark.protocol import Protocol
from benchmark.scoring import Summary
from benchmark.tracks import TRAINED

SCHEMA_VERSION = 4
PACKAGES = ("numpy", "numba", "torch", "transformers", "tokenizers", "safetensors", "ray", "scipy")
SOURCE_ROOT = Path(__file__).parent.parent


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
    constrained: Constrained | None = None
    sampled: Sampled | None = None
    meaning: Meaning | None
    content: Content | None
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


def source_digest() -> str:
    """SHA-256 over the source of karel_env and benchmark: the code version that results depend on."""
    whole = hashlib.sha256()
    # Ray may put the two packages into different folders of a node.
    for package in (SOURCE_ROOT / "benchmark", Path(karel_env.__file__).parent):
        for path in sorted(package.rglob("*.py")):
            whole.update(path.relative_to(package.parent).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return whole.hexdigest()


def commit_state() -> tuple[str | None, bool | None]:
    """The commit of the checkout and whether it has changes; (None, None) outside a checkout."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None, None
    changed = _git("status", "--porcelain", "--", "benchmark", "karel_env", "baselines")
    return commit, bool(changed)


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=SOURCE_ROOT, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def processor() -> str:
    """The processor's model name as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def gpu(device: str) -> str:
    """The name of a device that is a GPU of this machine; empty for any other."""
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") and torch.cuda.is_available() else ""


def environment() -> dict[str, Any]:
    """The entries of `Provenance` that do not depend on the run."""
    commit, dirty = commit_state()
    return {
        "source": source_digest(),
        "commit": commit,
        "dirty": dirty,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count() or 1,
        "packages": versions(PACKAGES),
    }


def versions(packages: Sequence[str]) -> dict[str, str | None]:
    """The installed version of each package, None for one that is not there."""
    return {name: _version(name) for name in packages}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
