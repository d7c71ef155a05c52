"""Mamba's selective scan with a custom backward pass, for training without CUDA kernels.

The reference scan of transformers indexes each time step in large tensors, and the backward pass of each index operation
allocates a full tensor of zeros: its cost is quadratic in the length. Here the sequence is split into chunks of a few
time steps; only the state at the start of each chunk is stored, and the others are recomputed in the backward pass. A
chunk consists of elementwise operations and sums over one axis, which a compiler fuses into a few loops. Source: Gu &
Dao 2023, algorithm 2 and section 3.3.2. Letters: `B` sequences, `D` channels, `N` states per channel, `S` length, `P`
time steps of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import pad, silu, softplus
from transformers.models.mamba import modeling_mamba

TRANSFORMERS_SCAN = modeling_mamba.mamba_selective_scan
"""The original function of transformers."""

CHUNK_SIZE = 4
"""Time steps per chunk."""


def chunk_forward(
    u: torch.Tensor, step: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs y [P, B, D] of a chunk and the state [B, N, D] after it; `state` is the state before it."""
    y = []
    for t in range(len(step)):
        state = (step[t, :, None] * a).exp() * state + (step[t] * u[t])[:, None] * b[t, :, :, None]
        y.append((state * c[t, :, :, None]).sum(1))
    return torch.stack(y), state


def chunk_backward(
    grad: torch.Tensor,
    u: torch.Tensor,
    step: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    state: torch.Tensor,
    carry: torch.Tensor,
    da: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """Gradients of a chunk.

    Args:
        grad: gradient of y, [P, B, D].
        u, step, a, b, c: inputs of the chunk.
        state: state before the chunk, [B, N, D].
        carry: gradient of the state after the chunk, [B, N, D].
        da: gradient of `a` summed over the later chunks, [B, N, D].

    Returns:
        Gradients of u, step, b and c, gradient of the state before the chunk, and `da` including this chunk.
    """
    states, decays, dc = [], [], []
    for t in range(len(step)):
        states.append(state)
        decays.append((step[t, :, None] * a).exp())
        state = decays[t] * state + (step[t] * u[t])[:, None] * b[t, :, :, None]
        dc.append((state * grad[t, :, None]).sum(2))
    du, dstep, db = [], [], []
    for t in reversed(range(len(step))):
        dstate = carry + grad[t, :, None] * c[t, :, :, None]
        dscaled = (dstate * b[t, :, :, None]).sum(1)
        db.append((dstate * (step[t] * u[t])[:, None]).sum(2))
        carry = dstate * decays[t]
        # Gradient of the argument of exp, which is `step` times `a`.
        dexponent = carry * states[t]
        da = da + dexponent * step[t, :, None]
        dstep.append((dexponent * a).sum(1) + dscaled * u[t])
        du.append(dscaled * step[t])
    return *(torch.stack(grads[::-1]) for grads in (du, dstep, db)), torch.stack(dc), carry, da


class ChunkFunctions:
    """Functions that compute a chunk; `install_selective_scan` may replace them by compiled ones."""

    forward: Callable[..., Any] = staticmethod(chunk_forward)
    backward: Callable[..., Any] = staticmethod(chunk_backward)


class SelectiveScan(torch.autograd.Function):
    """h[t] = exp(step[t] a) h[t-1] + step[t] u[t] b[t]; y[t] = c[t] h[t].

    Inputs: u, step [S, B, D]; a [N, D]; b, c [S, B, N], S a multiple of `CHUNK_SIZE`. Output: y [S, B, D].
    """

    @staticmethod
    def forward(
        ctx: Any, u: torch.Tensor, step: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor
    ) -> Any:
        """Compute y and save the inputs of the backward pass."""
        # The compiler reads `.grad` of its inputs, which only leaf tensors have.
        u, step, a, b, c = (tensor.detach() for tensor in (u, step, a, b, c))
        states = u.new_empty(len(u) // CHUNK_SIZE, u.shape[1], *a.shape)
        y, state = torch.empty_like(u), torch.zeros_like(states[0])
        for index in range(len(states)):
            chunk = slice(index * CHUNK_SIZE, (index + 1) * CHUNK_SIZE)
            states[index] = state
            y[chunk], state = ChunkFunctions.forward(u[chunk], step[chunk], a, b[chunk], c[chunk], state)
        ctx.save_for_backward(u, step, a, b, c, states)
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        """Gradients of all five inputs."""
        u, step, a, b, c, states = ctx.saved_tensors
        grads = tuple(torch.empty_like(tensor) for tensor in (u, step, b, c))
        carry, da = torch.zeros_like(states[0]), torch.zeros_like(states[0])
        grad = grad.contiguous()
        for index in reversed(range(len(states))):
            chunk = slice(index * CHUNK_SIZE, (index + 1) * CHUNK_SIZE)
            inputs = (grad[chunk], u[chunk], step[chunk], a, b[chunk], c[chunk], states[index])
            *chunk_grads, carry, da = ChunkFunctions.backward(*inputs, carry, da)
            for full_grad, chunk_grad in zip(grads, chunk_grads, strict=True):
                full_grad[chunk] = chunk_grad
        du, dstep, db, dc = grads
        return du, dstep, da.sum(0), db, dc


@torch.compiler.disable  # type: ignore[untyped-decorator]
def scan(u: torch.Tensor, step: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """`SelectiveScan` for any length; not compiled, since a compiler would unroll the loop over time."""
    length = len(u)
    # Time steps with step = 0 leave the state unchanged.
    u, step, b, c = (pad(tensor, (0, 0, 0, 0, 0, -length % CHUNK_SIZE)) for tensor in (u, step, b, c))
    y: torch.Tensor = SelectiveScan.apply(u, step, a, b, c)
    return y[:length]


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
    """Replacement of `mamba_selective_scan` of transformers; calls that need the last state go to the original."""
    if return_last_state:
        return TRANSFORMERS_SCAN(hidden_states, dt, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)
    if delta_bias is not None:
        dt = dt + delta_bias[..., None]
    if delta_softplus:
        dt = softplus(dt)
    u, step = (tensor.float().permute(2, 0, 1).contiguous() for tensor in (hidden_states, dt))
    b, c = (tensor.float().permute(2, 0, 1).contiguous() for tensor in (B, C))
    y = scan(u, step, A.float().t().contiguous(), b, c).permute(1, 2, 0)
    if D is not None:
        y = y + hidden_states * D[None, :, None]
    return y if z is None else y * silu(z)


def install_selective_scan(compile_chunks: bool) -> None:
    """Install this scan in transformers' Mamba, in this process.

    Args:
        compile_chunks: whether to use torch.compile, once per number of sequences.
    """
    modeling_mamba.mamba_selective_scan = selective_scan
    if compile_chunks:
        ChunkFunctions.forward = staticmethod(torch.compile(chunk_forward, dynamic=False))
        ChunkFunctions.backward = staticmethod(torch.compile(chunk_backward, dynamic=False))
