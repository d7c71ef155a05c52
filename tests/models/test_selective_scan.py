"""Mamba's recurrence for training against that of transformers, value and gradients."""

from __future__ import annotations

import pytest
import torch
from transformers.models.mamba import modeling_mamba

from baselines.selective_scan import TRANSFORMERS_SCAN as reference
from baselines.selective_scan import ChunkFunctions, SelectiveScan, install_selective_scan, scan, selective_scan

TORCH_COMPILE = torch.compile


def test_value_and_gradients_are_those_of_transformers():
    torch.manual_seed(0)
    batch, channels, states, length = 3, 5, 4, 9
    shapes = [(batch, channels, length)] * 2 + [(channels, states)] + [(batch, states, length)] * 2
    shapes += [(channels,), (batch, channels, length), (channels,)]
    given = [torch.randn(shape, requires_grad=True) for shape in shapes]
    found = []
    for each in (reference, selective_scan):
        u, dt, a, b, c, d, z, bias = given
        y = each(u, dt, -a.exp(), b, c, D=d, z=z, delta_bias=bias, delta_softplus=True)
        found.append([y, *torch.autograd.grad((y * torch.arange(length)).sum(), given)])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(two, one, atol=1e-4, rtol=1e-4)


def test_gradients_are_those_of_small_differences():
    torch.manual_seed(1)
    torch.set_default_dtype(torch.float64)
    try:
        u, step, b, c = torch.randn(8, 2, 3), torch.rand(8, 2, 3), torch.randn(8, 2, 4), torch.randn(8, 2, 4)
        given = [each.requires_grad_() for each in (u, step, -torch.rand(4, 3), b, c)]
        assert torch.autograd.gradcheck(SelectiveScan.apply, given)
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_asks_for_the_last_state_gets_it():
    u = torch.randn(2, 3, 4)
    rest = [torch.rand(2, 3, 4), -torch.rand(3, 5), torch.randn(2, 5, 4), torch.randn(2, 5, 4)]
    for one, two in zip(*(each(u, *rest, return_last_state=True) for each in (reference, selective_scan)), strict=True):
        torch.testing.assert_close(two, one)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    "backend", ["eager", *(pytest.param(name, marks=pytest.mark.slow) for name in ("aot_eager", "inductor"))]
)
def test_compiled_pieces_give_what_plain_ones_give(monkeypatch, backend):
    """Traced as a compiler traces them; with the one that is shipped, which takes a minute, in the slow tests."""
    compiled_with = []

    def compile_piece(piece, **options):
        assert options == {"dynamic": False}
        compiled_with.append(piece.__name__)
        return TORCH_COMPILE(piece, backend=backend, **options)

    monkeypatch.setattr(torch, "compile", compile_piece)
    torch.manual_seed(2)
    given = [
        torch.randn(7, 2, 16),
        torch.rand(7, 2, 16),
        -torch.rand(4, 16),
        torch.randn(7, 2, 4),
        torch.randn(7, 2, 4),
    ]
    given = [each.requires_grad_() for each in given]
    found = []
    for compiled in (False, True):
        if compiled:
            monkeypatch.setattr(modeling_mamba, "mamba_selective_scan", reference)
            for name in ("forward", "backward"):
                monkeypatch.setattr(ChunkFunctions, name, staticmethod(getattr(ChunkFunctions, name)))
            install_selective_scan(compile_chunks=True)
            assert compiled_with == ["chunk_forward", "chunk_backward"]
        y = scan(*given)
        found.append([y, *torch.autograd.grad((y * y).sum(), given)])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(two, one)
