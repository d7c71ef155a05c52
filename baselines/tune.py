"""Fine-tune a pretrained model: `karel-bench tune --model SPEC --task execute --output-dir FOLDER`.

`execute` trains on the questions of `karel-bench ladder --shots 0 --plain` and of `karel-bench execution --shots 0`, `write`
on the prompts and programs of the trained track. Tasks are generated from their numbers, never those that are asked, so a run
resumed from its saved state continues exactly. The output folder is a Hugging Face model with `training.json`. On the CPU or
one GPU.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.cli.declare import option, parse_options, program_name
from benchmark.cli.dtype_note import note_slow_dtype
from benchmark.cli.fields import (
    device_option,
    dialect_option,
    model_option,
    output_dir_option,
    suite_option,
    threads_option,
)
from benchmark.cli.model_spec import read_model
from benchmark.cli.options import SEED, resolve_device
from benchmark.command import make_folder, run_command, silence_libraries
from benchmark.errors import ModelError, UsageError
from karel_env.command import integer, number
from karel_env.syntax.dialects import KAREL

MODULE = "baselines.tune"


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """Fine-tune a pretrained model to execute programs, or to write them."""

    model: str = model_option()
    task: str = option(
        ..., "execute: answer what programs do; write: programs from examples", choices=("execute", "write")
    )
    output_dir: Path = output_dir_option(..., "write the model into this folder; the same command resumes the run")
    suite: str = suite_option(purpose=" that gives worlds and statements")
    dialect: str = dialect_option()
    ladder_every: int = option(
        4,
        "with execute, ask the questions of the ladder about every N-th task; 0 for none",
        read_with=integer(0, 1_000_000),
        metavar="N",
    )
    steps: int = option(400, "set the number of steps", read_with=integer(1, 1_000_000_000), metavar="N")
    batch: int = option(8, "set the tasks per step", read_with=integer(1, 1_000_000), metavar="N")
    learning_rate: float = option(
        1e-4, "set the largest learning rate", read_with=number(0, 1, above=True), metavar="X"
    )
    seed: int = option(1, "set the seed of tasks and new weights", read_with=SEED, metavar="N")
    lora: int = option(
        0, "train updates of this rank; 0 trains all weights", read_with=integer(0, 4096), metavar="RANK"
    )
    from_scratch: bool = option(False, "initialise the weights anew")
    precision: str = option("no", "compute in float32, or in bf16 with float32 sums", choices=("no", "bf16"))
    compile: bool = option(False, "compile the blocks of the model")
    device: str = device_option()
    threads: int = threads_option(of="")
    save_every: int = option(50, "set the steps between saved states", read_with=integer(1, 1_000_000_000), metavar="N")
    minutes: float = option(0.0, "end after this time; 0 for no limit", read_with=number(0, 1e6), metavar="M")


def run_tuning(options: TuneOptions, command: str) -> int:
    """Fine-tune with the given options; returns the exit code."""
    spec = read_model(options.model)
    if options.lora and options.from_scratch:
        raise UsageError(f"--lora {options.lora} --from-scratch: new weights are all trained; leave one of them out")
    if options.task == "write" and options.dialect != KAREL:
        raise UsageError(f"--dialect {options.dialect}: the trained track has canonical programs only; leave it out")
    device = resolve_device(options.device)
    make_folder(options.output_dir, "--output-dir")
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    import torch

    from baselines.compilation import report_compilation
    from baselines.tuning.tuner import Tuner, TuningSettings, tune
    from benchmark.models.checkpoint import open_checkpoint
    from benchmark.models.interface import ModelSpec

    silence_libraries()
    torch.set_num_threads(options.threads)
    if options.precision == "bf16":
        note_slow_dtype("bfloat16", device, use="--precision no")
    checkpoint = open_checkpoint(ModelSpec.parse(spec))
    if checkpoint.is_custom or not checkpoint.has_hidden_states:
        raise ModelError(f"{spec}: has no weights to train; expected path:FOLDER or hf:org/name")
    settings = TuningSettings(
        checkpoint.spec, checkpoint.digest, options.task, options.suite, options.dialect, options.steps, options.batch,
        options.learning_rate, options.seed, options.lora, options.from_scratch, options.precision, options.minutes,
        options.ladder_every, options.compile,
    )  # fmt: skip
    with report_compilation():
        tune(Tuner(checkpoint, settings, options.output_dir, command, device), options.save_every)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    argv = sys.argv[1:] if arguments is None else list(arguments)
    command = " ".join([program_name("tune", MODULE), *argv])
    return run_command(lambda: run_tuning(parse_options(TuneOptions, argv, "tune", module=MODULE), command))


if __name__ == "__main__":
    sys.exit(main())
