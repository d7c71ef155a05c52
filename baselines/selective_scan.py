"""Mamba's recurrence with a backward pass of its own, for training where there are no CUDA kernels.

transformers' plain recurrence selects each time step from large tensors, and the backward pass of each selection fills a
whole one with zeros: its cost grows with the square of the length. Here the states are kept and everything else is computed
again on the way back, one time step at a time, in pieces that fit the cache. Source: Gu & Dao 2023, algorithm 2. Letters:
`B` sequences, `D` channels, `N` states a channel, `S` length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import silu, softplus
from transformers.models.mamba import modeling_mamba

PLAIN = modeling_mamba.mamba_selective_scan
"""As transformers has it."""


class SelectiveScan(torch.autograd.Function):
    """h[t] = exp(step[t] A) h[t-1] + step[t] u[t] b[t]; y[t] = c[t] h[t].

    Inputs: u, step [S, B, D]; a [D, N]; b, c [S, B, N]. Output: y [S, B, D].
    """

    @staticmethod
    def forward(
        ctx: Any, u: torch.Tensor, step: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor
    ) -> Any:
        """y, and what the backward pass needs."""
        states = torch.empty(*u.shape, a.shape[1])
        y = torch.empty_like(u)
        scaled, state = step * u, torch.zeros(*u.shape[1:], a.shape[1])
        for t in range(len(u)):
            state = torch.addcmul(
                scaled[t, :, :, None] * b[t, :, None], (step[t, :, :, None] * a).exp_(), state, out=states[t]
            )
            torch.sum(state * c[t, :, None], -1, out=y[t])
        ctx.save_for_backward(u, step, a, b, c, states)
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        """Gradients of all five inputs."""
        u, step, a, b, c, states = ctx.saved_tensors
        du, dstep, db, dc = (torch.empty_like(each) for each in (u, step, b, c))
        da = torch.zeros_like(a)
        carry = torch.zeros_like(states[0])
        for t in reversed(range(len(u))):
            through = carry.addcmul_(grad[t, :, :, None], c[t, :, None])
            torch.sum(grad[t, :, :, None] * states[t], 1, out=dc[t])
            dscaled = (through * b[t, :, None]).sum(-1)
            torch.sum(through * (step[t] * u[t])[..., None], 1, out=db[t])
            kept = (step[t, :, :, None] * a).exp_()
            carry = through * kept
            if t:
                # Of the exponent's argument, which is `step` times `a`.
                exponent = carry * states[t - 1]
                da += (exponent * step[t, :, :, None]).sum(0)
                dstep[t] = (exponent * a).sum(-1) + dscaled * u[t]
            else:
                dstep[t] = dscaled * u[t]
            torch.mul(dscaled, step[t], out=du[t])
        return du, dstep, da, db, dc


@torch.compiler.disable  # type: ignore[untyped-decorator]
def scan(u: torch.Tensor, step: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """`SelectiveScan`; a compiler would unroll its loop over time, and be at it for longer than the training takes."""
    y: torch.Tensor = SelectiveScan.apply(u, step, a, b, c)
    return y


def selective_scan(
    hidden_states: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    **_: Any,
) -> Any:
    """In place of `mamba_selective_scan` of transformers, with its arguments; leaves to it what asks for the last state."""
    if return_last_state:
        return PLAIN(hidden_states, dt, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)
    if delta_bias is not None:
        dt = dt + delta_bias[..., None]
    if delta_softplus:
        dt = softplus(dt)
    u, step = (each.float().permute(2, 0, 1).contiguous() for each in (hidden_states, dt))
    b, c = (each.float().permute(2, 0, 1).contiguous() for each in (B, C))
    y = scan(u, step, A.float(), b, c).permute(1, 2, 0)
    if D is not None:
        y = y + hidden_states * D[None, :, None]
    return y if z is None else y * silu(z)


def use_for_training() -> None:
    """Give transformers' Mamba this recurrence, in this process."""
    modeling_mamba.mamba_selective_scan = selective_scan
