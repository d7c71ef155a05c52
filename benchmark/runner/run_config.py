"""The configuration of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmark.installation.cache_settings import DEFAULT_CACHE, CacheSettings
from benchmark.probing.protocol import STANDARD, Protocol
from benchmark.runner.measurements.registry import STANDARD_MEASUREMENTS
from benchmark.runner.plan import DEFAULT_GENERATION, GenerationOptions
from benchmark.tasks.prompt_template import TRAINED
from karel_env.syntax.dialects import KAREL


@dataclass(frozen=True)
class RunConfig:
    """Configuration of a run, as given on the command line.

    Attributes:
        suite: name or file of the suite.
        limit: number of test tasks of a run with smaller probe sets and fewer probe seeds, None for all.
        test_tasks: number of test tasks that accuracy is measured on, all else as in a full run; None for all.
        seed: seed of the tasks, None for the suite's own.
        dtype, device: dtype and device of the forward pass.
        grid: one of `protocol.GRIDS`.
        batch: prompts per forward pass, None for the suite's own number.
        threads: CPU threads per forward pass.
        keep_states: whether the stored hidden states are kept.
        out: folder in which the run folder is made.
        command: the command line, for the record.
        generation: how programs are generated.
        protocol: settings of the probes.
        measurements: names of the measurements besides the record, see `measurements.registry`.
        cache: where evidence that several runs share is cached.
        num_fewshot: number of solved examples of the few-shot track, None for the suite's own.
        dialect: what programs are written in, see `Suite.dialect`.
        preview: whether to take as few probe seeds as the verdict needs, and to leave out the probes of the record.
        probes: whether the probes of the record, those of protocol 3, are fitted where the track has them.
        few_programs: whether *Represents* of the trained track is read from few programs, as in the few-shot track.
    """

    suite: str
    limit: int | None = None
    test_tasks: int | None = None
    seed: int | None = None
    dtype: str = "float32"
    device: str = "cpu"
    grid: str = "standard"
    batch: int | None = None
    threads: int = 1
    keep_states: bool = False
    out: Path = Path("runs")
    command: str = ""
    generation: GenerationOptions = DEFAULT_GENERATION
    protocol: Protocol = STANDARD
    measurements: tuple[str, ...] = STANDARD_MEASUREMENTS
    cache: CacheSettings = DEFAULT_CACHE
    num_fewshot: int | None = None
    dialect: str = KAREL
    preview: bool = False
    probes: bool = True
    few_programs: bool = False

    @property
    def has_few_programs(self) -> bool:
        """Whether fewer programs are read than is standard for the track; the few-shot track always has few."""
        return self.few_programs and self.generation.track == TRAINED
