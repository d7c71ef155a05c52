"""Measure whether a model uses its state: `python -m benchmark.causal --model SPEC`.

Prints a card and writes `NAME-SUITE.json` and `NAME-SUITE.causal.data` (the words written, safetensors). Exit codes: 0
done (N/A included), 2 usage, 3 the model cannot be loaded.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.causal.measurement import CausalMeasurement, measure_use
from benchmark.causal.pairs import derive_pairs
from benchmark.causal.report import format_card, to_json
from benchmark.causal.verdict import not_applicable
from benchmark.command import make_folder, run_command
from benchmark.tasks.suite import Suite, load_suite
from karel_env.command import CommandParser, integer

if TYPE_CHECKING:
    from benchmark.causal.detail import CausalDetail
    from benchmark.causal.interventions import SteerableModel
    from benchmark.models.checkpoint import Checkpoint

UNTRAINED_SEED = 0
MAX_THREADS = 512


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = CommandParser(
        prog="python -m benchmark.causal", description="Measure whether a model uses its state, by edits with controls."
    )
    add = parser.add_argument
    add("--model", required=True, help="as for benchmark.run: path:FOLDER or hf:org/name@revision")
    add("--suite", default="laptop", help="suite of straight-line programs (default: laptop)")
    add("--dtype", choices=("float32", "float64", "bfloat16", "float16"), default="float32", help="dtype of the model")
    add("--device", default="cpu", help="torch device (default: cpu)")
    add("--threads", type=integer(1, MAX_THREADS), default=1, help="CPU threads (default: 1)")
    add("--detail", choices=("standard", "full"), default="standard",
        help="full: also other edits at every site, doses, whole programs (default: standard)")  # fmt: skip
    add("--output-dir", type=Path, default=Path("runs/causal"), help="output folder (default: runs/causal)")

    def measure() -> int:
        options = parser.parse_args(arguments)
        make_folder(options.output_dir, "--output-dir")
        suite = load_suite(options.suite)
        derive_pairs(suite)
        from benchmark.models.checkpoint import open_checkpoint
        from benchmark.models.interface import ModelSpec

        checkpoint = open_checkpoint(ModelSpec.parse(options.model))
        began = time.process_time()
        model, untrained = open_models(checkpoint, options.dtype, options.device, options.threads)
        measurement = measure_models(model, untrained, suite)
        print(f"{checkpoint.spec}, suite {suite.name} ({time.process_time() - began:.0f} processor seconds)")
        print(format_card(measurement))
        detail = None
        if options.detail == "full" and model is not None and measurement.evidence is not None:
            from benchmark.causal.detail import format_detail, measure_detail

            detail = measure_detail(model, suite, measurement.evidence, on_step=_print_step)
            print(f"\n{format_detail(detail, measurement.sites)}")
        print(f"\nwrote {_write(measurement, detail, checkpoint, options.output_dir)}")
        return 0

    return run_command(measure)


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
    if model is None:
        reason = "the model has no states that can be replaced; expected a network of transformers"
        return CausalMeasurement(suite.name, (), not_applicable(reason), None, None)
    return measure_use(model, suite, untrained, on_step=_print_step)


def _print_step(step: str) -> None:
    print(f"{step} ...", file=sys.stderr, flush=True)


def _write(measurement: CausalMeasurement, detail: CausalDetail | None, checkpoint: Checkpoint, folder: Path) -> Path:
    """Write the result and the evidence; returns the path of the result."""
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
