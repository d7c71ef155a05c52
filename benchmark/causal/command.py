"""Measure whether a model uses its state: `python -m benchmark.causal --model SPEC`.

Prints a card and writes `NAME-SUITE.json` and `NAME-SUITE.causal.data` (the words written, safetensors). Exit codes: 0
done (N/A included), 2 usage, 3 the model cannot be loaded.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.cli.declare import option, parse_options
from benchmark.cli.fields import (
    device_option,
    dtype_option,
    model_option,
    output_dir_option,
    suite_option,
    threads_option,
)
from benchmark.cli.model_spec import read_model
from benchmark.cli.options import resolve_device
from benchmark.command import make_folder, run_command, silence_libraries

if TYPE_CHECKING:
    from benchmark.causal.detail import CausalDetail
    from benchmark.causal.interventions import SteerableModel
    from benchmark.causal.measurement import CausalMeasurement
    from benchmark.models.checkpoint import Checkpoint
    from benchmark.tasks.suite import Suite

UNTRAINED_SEED = 0
STANDARD, FULL = "standard", "full"


@dataclass(frozen=True, kw_only=True)
class CausalOptions:
    """Measure whether a model uses its state, by edits with controls."""

    model: str = model_option()
    suite: str = suite_option(purpose=" of straight-line programs")
    dtype: str = dtype_option()
    device: str = device_option("cpu")
    threads: int = threads_option()
    detail: str = option(
        STANDARD,
        "select the edits; full: also other edits at every site, doses, whole programs",
        choices=(STANDARD, FULL),
    )
    output_dir: Path = output_dir_option(Path("runs/causal"), "write result and evidence into this folder")


def execute(options: CausalOptions) -> int:
    """Measure and print a card; returns the exit code."""
    spec, device = read_model(options.model), resolve_device(options.device)
    make_folder(options.output_dir, "--output-dir")
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from benchmark.causal.pairs import derive_pairs
    from benchmark.causal.report import format_card
    from benchmark.models.checkpoint import open_checkpoint
    from benchmark.models.interface import ModelSpec
    from benchmark.tasks.suite import load_suite

    silence_libraries()
    suite = load_suite(options.suite)
    derive_pairs(suite)
    checkpoint = open_checkpoint(ModelSpec.parse(spec))
    start = time.process_time()
    model, untrained = open_models(checkpoint, options.dtype, device, options.threads)
    measurement = measure_models(model, untrained, suite)
    print(f"{checkpoint.spec}, suite {suite.name} ({time.process_time() - start:.0f} processor seconds)")
    print(format_card(measurement))
    detail = None
    if options.detail == FULL and model is not None and measurement.evidence is not None:
        from benchmark.causal.detail import format_detail, measure_detail

        detail = measure_detail(model, suite, measurement.evidence, on_step=_print_step)
        print(f"\n{format_detail(detail, measurement.sites)}")
    print(f"\nwrote {_write(measurement, detail, checkpoint, options.output_dir)}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: execute(parse_options(CausalOptions, arguments, "causal")))


def open_models(
    checkpoint: Checkpoint, dtype: str = "float32", device: str = "cpu", threads: int = 1
) -> tuple[SteerableModel | None, SteerableModel | None]:
    """Load a model and its untrained copy; None for both if the model has no states that can be replaced.

    Raises:
        ModelError: the model cannot be loaded.
    """
    if checkpoint.is_custom or not checkpoint.has_hidden_states:
        return None, None
    import torch

    from benchmark.models.huggingface import HuggingFaceModel
    from benchmark.models.steering import open_steerable

    torch.set_num_threads(threads)
    model, untrained = (
        open_steerable(HuggingFaceModel(checkpoint, dtype, device, seed)) for seed in (None, UNTRAINED_SEED)
    )
    return model, untrained


def measure_models(model: SteerableModel | None, untrained: SteerableModel | None, suite: Suite) -> CausalMeasurement:
    """Measure a model of `open_models`; N/A where it has no states."""
    from benchmark.causal.measurement import CausalMeasurement, measure_use
    from benchmark.causal.verdict import not_applicable

    if model is None:
        reason = "the model has no states that can be replaced; expected a network of transformers"
        return CausalMeasurement(suite.name, (), not_applicable(reason), None, None)
    return measure_use(model, suite, untrained, on_step=_print_step)


def _print_step(step: str) -> None:
    print(f"{step} ...", file=sys.stderr, flush=True)


def _write(measurement: CausalMeasurement, detail: CausalDetail | None, checkpoint: Checkpoint, folder: Path) -> Path:
    """Write the result and the evidence; returns the path of the result."""
    from benchmark.causal.report import to_json

    stem = f"{checkpoint.name}-{measurement.suite}"
    path = folder / f"{stem}.json"
    content = {"model": checkpoint.spec, "digest": checkpoint.digest, **to_json(measurement)}
    if detail is not None:
        content["detail"] = asdict(detail)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if measurement.evidence is not None:
        from safetensors.numpy import save

        (folder / f"{stem}.causal.data").write_bytes(save(measurement.evidence.to_arrays()))
    return path


if __name__ == "__main__":
    sys.exit(main())
