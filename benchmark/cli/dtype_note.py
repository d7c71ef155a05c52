"""A note on a dtype that this processor multiplies slowly, printed before a command computes with it.

bfloat16 halves the memory of a model everywhere, but speeds it up only where the processor has instructions for it
(AVX512-BF16, AMX, or a GPU); without them torch converts element by element, tens of times as slow as float32.
"""

from __future__ import annotations

import sys

HALF_DTYPES = ("bfloat16", "float16")
MAX_SLOWDOWN = 2.0
"""Ratio of times from which on the note is printed."""


def measure_slowdown(dtype: str) -> float:
    """Time of a matrix product in this dtype over that in float32, on one core of this machine; takes about a second."""
    import torch

    from benchmark.models.architecture import DTYPES
    from benchmark.runner.preflight import matmul_flops

    return matmul_flops(torch.float32) / matmul_flops(DTYPES[dtype])


def note_slow_dtype(dtype: str, device: str, address: str | None = None, use: str = "--dtype float32") -> None:
    """Print a note to standard error if products in this dtype are slow here.

    Nothing is measured for float32 and float64, on a GPU, or with workers on other machines.

    Args:
        dtype: name of the dtype of the model.
        device: device of the model.
        address: address of a Ray cluster, whose machines are not this one.
        use: the option to use instead.
    """
    if device != "cpu" or address or dtype not in HALF_DTYPES:
        return
    slowdown = measure_slowdown(dtype)
    if slowdown > MAX_SLOWDOWN:
        print(
            f"note: matrix products in {dtype} take {slowdown:.0f} times as long as in float32 on this processor; {use} is faster "
            "and needs twice the memory",
            file=sys.stderr,
        )
