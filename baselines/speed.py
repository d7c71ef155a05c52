"""Measure the training speed of recipes: `karel-bench bench training [RECIPE ...]`.

Prints per recipe the tasks per second and the fraction of this machine's matrix throughput that its matrix products
reach. Operations are counted by torch in one uncompiled step; the throughput is that of one large product in the faster of
bfloat16 and float32, measured before each recipe, since other load on the machine changes it. Not covered: several
processes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from benchmark.bench.command import TrainingBenchOptions
from benchmark.cli.declare import parse_options
from benchmark.cli.dtype_note import measure_slowdown
from benchmark.command import run_command, silence_libraries

if TYPE_CHECKING:
    import torch

    from baselines.recipe import Recipe
    from baselines.trainer import Trainer

MODULE = "baselines.speed"

CPU_MATRIX_SIZE, GPU_MATRIX_SIZE = 2048, 8192
NUM_WARMUP_STEPS = 2
"""Steps before the timed ones, for compilation and memory allocation."""


@dataclass(frozen=True)
class TrainingSpeed:
    """Training speed of a recipe.

    Attributes:
        parameters: number of parameters of the model.
        operations: floating-point operations of the matrix products of one task, forward and backward.
        tasks: tasks per second.
        share: fraction of the measured throughput.
        throughput: operations per second of a large matrix product.
        dtype: dtype of that product, the faster of bfloat16 and float32.
    """

    parameters: int
    operations: float
    tasks: float
    share: float
    throughput: float
    dtype: str


def measure_throughput(device: torch.device) -> tuple[float, str]:
    """Floating-point operations per second of a large matrix product, and its dtype."""
    import torch

    from benchmark.models.architecture import DTYPES

    dtype = "bfloat16"
    # Without bfloat16 instructions a large product would take many seconds: small ones decide.
    if device.type == "cpu" and measure_slowdown(dtype) > 1:
        dtype = "float32"
    size = GPU_MATRIX_SIZE if device.type == "cuda" else CPU_MATRIX_SIZE
    a, b = (torch.randn(size, size, device=device, dtype=DTYPES[dtype]) for _ in range(2))
    float((a @ b)[0, 0])
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 0.5:
        float((a @ b)[0, 0])
        count += 1
    return 2.0 * size**3 * count / (time.perf_counter() - start), dtype


def _count_operations(run: Trainer) -> int:
    """Run one step and count the floating-point operations of its matrix products."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    # oneDNN runs an LSTM layer as one fused operation, which torch does not count; without oneDNN it is not fused.
    fused = any(isinstance(module, torch.nn.RNNBase) for module in run.raw_model.modules())
    enabled = torch.backends.mkldnn.set_flags(False if fused else None)[0]
    try:
        with FlopCounterMode(display=False) as counter:
            run.train_step()
    finally:
        torch.backends.mkldnn.set_flags(enabled)
    return counter.get_total_flops()


def measure_speed(recipe: Recipe, compile_model: bool, precision: str, steps: int) -> TrainingSpeed:
    """Measure the speed of a recipe over `steps` steps, after `NUM_WARMUP_STEPS`."""
    from baselines.trainer import Trainer

    with tempfile.TemporaryDirectory() as folder:
        operations = _count_operations(Trainer(recipe, Path(folder), False, precision)) / recipe.batch
        run = Trainer(recipe, Path(folder), compile_model, precision)
        peak, dtype = measure_throughput(run.accelerator.device)
        for _ in range(NUM_WARMUP_STEPS):
            float(run.train_step())
        start = time.perf_counter()
        losses = [run.train_step() for _ in range(steps)]
        # Synchronise with the GPU once, as training does.
        float(losses[-1])
        tasks = steps * recipe.batch / (time.perf_counter() - start)
        run.accelerator.end_training()
    parameters = sum(p.numel() for p in run.raw_model.parameters())
    return TrainingSpeed(parameters, operations, tasks, operations * tasks / peak, peak, dtype)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run_command(lambda: print_speeds(parse_options(TrainingBenchOptions, arguments, "speed", module=MODULE)))


def print_speeds(options: TrainingBenchOptions) -> int:
    """Measure the recipes and print a table; returns the exit code.

    Raises:
        UsageError: there is no such recipe.
    """
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    import torch

    from baselines.compilation import report_compilation
    from baselines.recipe import RECIPES, find_recipe, load_recipe

    silence_libraries()
    if options.threads:
        torch.set_num_threads(options.threads)
    rows = []
    names = options.recipes or sorted(path.stem for path in RECIPES.glob("*-laptop.yaml"))
    recipes = {name: load_recipe(find_recipe(name)) for name in names}
    for name, recipe in recipes.items():
        with report_compilation():
            speed = measure_speed(recipe, options.compile, options.precision, options.steps)
        rows.append([
            name, f"{speed.parameters:,}", f"{speed.operations / 1e9:.2f}", f"{speed.tasks:.0f}",
            f"{100 * speed.share:.0f}", f"{speed.throughput / 1e9:.0f} ({speed.dtype})",
        ])  # fmt: skip
        line = f"{name}: {speed.tasks:.0f} tasks/s, {100 * speed.share:.0f}% of the throughput"
        print(line, file=sys.stderr, flush=True)
    headers = ["recipe", "parameters", "GFLOP/task", "tasks/s", "% of throughput", "GFLOP/s"]
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
