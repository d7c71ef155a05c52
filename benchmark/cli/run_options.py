"""Options of evaluating a model on a suite, and the one place where a `RunConfig` is made from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from benchmark.cli.declare import group, option
from benchmark.cli.dtype_note import note_slow_dtype
from benchmark.cli.fields import device_option, dtype_option, few_programs_option, output_dir_option, threads_option
from benchmark.cli.options import (
    COUNT,
    SEED,
    BackendOptions,
    CacheOptions,
    GenerationFlags,
    LoadingOptions,
    resolve_device,
    resolve_output_dir,
)
from benchmark.models.interface import STRICT_DTYPE
from benchmark.probing.protocol import FULL_GRID, GRIDS, STANDARD_GRID, Protocol

if TYPE_CHECKING:
    from benchmark.runner.run_config import RunConfig


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Options of one or many runs."""

    device: str = device_option()
    dtype: str = dtype_option()
    strict: bool = option(
        False,
        "compute the model in float64 and round to float32, so that no figure depends on the batch; 2 to 3 times slower",
    )
    threads: int = threads_option(
        of=" of one forward pass; another number may change the last digits, as another processor may, so it counts as "
        "another run; for speed take more --workers"
    )
    batch_size: int | None = option(
        None, "set the prompts per forward pass; eligible for the leaderboard only with the suite's own",
        read_with=COUNT, metavar="N", old=("--batch",), default_text="the suite's own",
    )  # fmt: skip
    detail: str = option(
        STANDARD_GRID,
        "select what is probed; standard: the verdict and the paper's columns; layers: also every layer where the "
        "verdict is taken; full: also every offset, position, depth and label budget, codelength, reach, crossed prompts, "
        "and the detail of uses: other edits at every place, whole programs, displacement",
        choices=GRIDS,
        old=("--grid",),
    )
    keep_states: bool = option(False, "keep the stored hidden states in the run folder")
    few_programs: bool = few_programs_option()
    limit: int | None = option(
        None, "use only the first N test tasks and smaller probe sets; not eligible for the leaderboard",
        read_with=COUNT, metavar="N", default_text="all",
    )  # fmt: skip
    seed: int | None = option(
        None, "use another seed for the suite's tasks; not eligible for the leaderboard",
        read_with=SEED, metavar="N", default_text="the suite's own",
    )  # fmt: skip
    output_dir: Path = output_dir_option(Path("runs"), "make the run folder in this folder")
    json: bool = option(False, "print the row as JSON on standard output")
    generation: GenerationFlags = group(GenerationFlags)
    loading: LoadingOptions = group(LoadingOptions)
    cache: CacheOptions = group(CacheOptions)
    backend: BackendOptions = group(BackendOptions)


Evaluation = TypeVar("Evaluation", bound=EvaluationOptions)


def resolve(options: Evaluation) -> Evaluation:
    """Check the options of a run, and replace defaults by values.

    Raises:
        UsageError: an option is invalid.
    """
    options.backend.check()
    device = resolve_device(options.device, options.backend.address)
    device_map = options.loading.read_device_map(device, options.backend.address)
    if device_map is not None:
        options.backend.check_device_map(device_map, device)
    dtype = STRICT_DTYPE if options.strict else options.dtype
    note_slow_dtype(dtype, device, options.backend.address)
    return replace(options, device=device, dtype=dtype, output_dir=resolve_output_dir(options.output_dir))


def run_config(options: EvaluationOptions, suite: str, command: str, protocol: Protocol) -> RunConfig:
    """Build the configuration of a run on one suite; `command` is the command line, for the record."""
    from benchmark.runner.measurements.registry import DETAIL_MEASUREMENTS, STANDARD_MEASUREMENTS
    from benchmark.runner.run_config import RunConfig

    detail = DETAIL_MEASUREMENTS if options.detail == FULL_GRID else ()
    return RunConfig(
        suite=suite,
        limit=options.limit,
        seed=options.seed,
        dtype=options.dtype,
        device=options.device,
        grid=options.detail,
        batch=options.batch_size,
        threads=options.threads,
        keep_states=options.keep_states,
        out=options.output_dir,
        command=command,
        generation=options.generation.generation_options(),
        protocol=protocol,
        num_fewshot=options.generation.num_fewshot,
        dialect=options.generation.dialect,
        measurements=(*STANDARD_MEASUREMENTS, *detail),
        cache=options.cache.cache_settings(),
        few_programs=options.few_programs,
    )
