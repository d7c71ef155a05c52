"""Mamba's recurrence for training against that of transformers, value and gradients."""

from __future__ import annotations

import torch
from transformers.models.mamba.modeling_mamba import mamba_selective_scan as reference

from baselines.selective_scan import SelectiveScan, selective_scan


def test_value_and_gradients_are_those_of_transformers():
    torch.manual_seed(0)
    batch, channels, states, length = 3, 5, 4, 9
    shapes = [(batch, channels, length)] * 2 + [(channels, states)] + [(batch, states, length)] * 2
    shapes += [(channels,), (batch, channels, length), (channels,)]
    given = [torch.randn(shape, requires_grad=True) for shape in shapes]
    found = []
    for scan in (reference, selective_scan):
        u, dt, a, b, c, d, z, bias = given
        y = scan(u, dt, -a.exp(), b, c, D=d, z=z, delta_bias=bias, delta_softplus=True)
        found.append([y, *torch.autograd.grad((y * torch.arange(length)).sum(), given)])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(two, one, atol=1e-4, rtol=1e-4)


def test_gradients_are_those_of_small_differences():
    torch.manual_seed(1)
    torch.set_default_dtype(torch.float64)
    try:
        u, step, b, c = torch.randn(5, 2, 3), torch.rand(5, 2, 3), torch.randn(5, 2, 4), torch.randn(5, 2, 4)
        given = [each.requires_grad_() for each in (u, step, -torch.rand(3, 4), b, c)]
        assert torch.autograd.gradcheck(SelectiveScan.apply, given)
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_asks_for_the_last_state_gets_it():
    u = torch.randn(2, 3, 4)
    rest = [torch.rand(2, 3, 4), -torch.rand(3, 5), torch.randn(2, 5, 4), torch.randn(2, 5, 4)]
    for one, two in zip(*(scan(u, *rest, return_last_state=True) for scan in (reference, selective_scan)), strict=True):
        torch.testing.assert_close(two, one)
