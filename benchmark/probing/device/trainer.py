"""Which trainer probes a model: on its device, if that is a GPU. Imports no torch.

Fits on the processor are those of `probes`, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmark.probing.probe_fit import ProbeFit, fit_in_process

GPU = "cuda"


def trainer_on(device: str) -> Callable[..., ProbeFit]:
    """The probe trainer of a device such as `cpu` or `cuda:1`: on the GPU if it is one, else on the processor."""
    return partial(_fit_on_device, device) if device.partition(":")[0] == GPU else fit_in_process


def _fit_on_device(device: str, *arguments: Any, **options: Any) -> ProbeFit:
    import torch

    from benchmark.probing.device.device_probes import fit_probes_on

    return fit_probes_on(torch.device(device), *arguments, **options)
