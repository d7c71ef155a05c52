"""What a command that measures one model begins with: its options are checked, then the model's files are opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.cli.dtype_note import note_slow_dtype
from benchmark.cli.model_spec import read_model
from benchmark.cli.options import resolve_device
from benchmark.command import make_folder, silence_libraries
from benchmark.errors import UsageError

if TYPE_CHECKING:
    from benchmark.models.checkpoint import Checkpoint


def check_model_options(model: str, dtype: str, device: str, output_dir: Path) -> tuple[str, str]:
    """Check `--model`, `--device` and `--output-dir` before anything heavy is imported, and note a slow `--dtype`.

    Returns:
        The spec of the model, and the device.

    Raises:
        UsageError: one of them does not fit, or no model is named.
    """
    if not model:
        raise UsageError("expected --model SPEC: hf:org/name or path:FOLDER")
    spec, device = read_model(model), resolve_device(device)
    make_folder(output_dir, "--output-dir")
    note_slow_dtype(dtype, device)
    return spec, device


def open_measured_model(spec: str, threads: int) -> Checkpoint:
    """Set the CPU threads of torch, and open the files of a model.

    Raises:
        ModelError: there is no such model.
    """
    import torch

    from benchmark.models.checkpoint import open_checkpoint
    from benchmark.models.interface import ModelSpec

    silence_libraries()
    torch.set_num_threads(threads)
    return open_checkpoint(ModelSpec.parse(spec))
