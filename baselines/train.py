"""Train a baseline on fresh tasks of a suite: `karel-bench train RECIPE --output-dir FOLDER`.

The tasks of a step are generated from their numbers, so a run resumed from its last saved state continues exactly. The
output folder is a Hugging Face model: config, safetensors weights, tokenizer, and `training.json` with the settings;
`checkpoints/step-N` are the same at the steps of the recipe, `logs` is read by tensorboard. One process, or several by
`torchrun` or `accelerate launch`, which share the tasks of each step. Not covered: data that is not generated.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.cli.declare import argument, option, parse_options, program_name
from benchmark.cli.dtype_note import note_slow_dtype
from benchmark.cli.fields import MAX_THREADS, output_dir_option, threads_option
from benchmark.cli.options import SEED
from benchmark.command import make_folder, run_command, silence_libraries
from karel_env.command import integer

MODULE = "baselines.train"


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train a baseline from a recipe."""

    recipe: str = argument("name of a shipped recipe, such as gpt-laptop, or a YAML file")
    output_dir: Path = output_dir_option(..., "write the model into this folder; the same command resumes the run")
    seed: int | None = option(
        None, "override the seed of the recipe", read_with=SEED, metavar="N", default_text="the recipe's"
    )
    set: tuple[str, ...] = option(
        (), "override an entry, such as optimizer.batch=32; repeatable", metavar="NAME=VALUE", many=True
    )
    threads: int = threads_option(0, "", integer(0, MAX_THREADS), default_text="as torch chooses")
    compile: bool = option(False, "compile the model")
    precision: str = option("no", "autocast; bf16 where the hardware multiplies it", choices=("no", "bf16"))
    save_every: int = option(
        200, "set the steps between saved states", read_with=integer(1, 1_000_000_000), metavar="N"
    )


def run_training(options: TrainOptions, command: str) -> int:
    """Train with the given options; returns the exit code."""
    changes = [*options.set, *([] if options.seed is None else [f"seed={options.seed}"])]
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    import torch

    from baselines.compilation import report_compilation
    from baselines.recipe import find_recipe, load_recipe
    from baselines.trainer import Trainer, train

    silence_libraries()
    if options.threads:
        torch.set_num_threads(options.threads)
    recipe = load_recipe(find_recipe(options.recipe), changes)
    make_folder(options.output_dir, "--output-dir")
    trainer = Trainer(recipe, options.output_dir, options.compile, options.precision, command)
    if options.precision == "bf16" and trainer.accelerator.is_main_process:
        note_slow_dtype("bfloat16", trainer.accelerator.device.type, use="--precision no")
    trainer.resume()
    with report_compilation():
        train(trainer, options.save_every)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    argv = sys.argv[1:] if arguments is None else list(arguments)
    command = " ".join([program_name("train", MODULE), *argv])
    return run_command(lambda: run_training(parse_options(TrainOptions, argv, "train", module=MODULE), command))


if __name__ == "__main__":
    sys.exit(main())
