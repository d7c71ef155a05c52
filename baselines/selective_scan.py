"""Mamba's recurrence with a backward pass of its own, for training where there are no CUDA kernels.

transformers' plain recurrence selects each time step from large tensors, and the backward pass of each selection fills a
whole one with zeros: its cost grows with the square of the length. Here the length is cut into pieces of a few time steps;
only the state at the start of each piece is kept, and the rest of it is computed again on the way back. What happens in a
piece is elementwise but for sums over one axis, so that a compiler makes a few loops of it that stay in the cache. Source: Gu
& Dao 2023, algorithm 2 and section 3.3.2. Letters: `B` sequences, `D` channels, `N` states a channel, `S` length, `P` time
steps of a piece.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import pad, silu, softplus
from transformers.models.mamba import modeling_mamba

TRANSFORMERS_SCAN = modeling_mamba.mamba_selective_scan
"""As transformers has it."""

CHUNK_SIZE = 4
"""Time steps of a piece."""


def chunk_forward(
    u: torch.Tensor, step: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """y [P, B, D] of a piece and the state [B, N, D] behind it; `state` is the one before it."""
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
    """Gradients of a piece.

    Args:
        grad: of y, [P, B, D].
        u, step, a, b, c: the piece's inputs.
        state: before the piece, [B, N, D].
        carry: gradient of the state behind the piece, [B, N, D].
        da: of the pieces behind this one, [B, N, D].

    Returns:
        Gradients of u, step, b and c, that of the state before the piece, and `da` with this piece's.
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
        # Of the exponent's argument, which is `step` times `a`.
        dexponent = carry * states[t]
        da = da + dexponent * step[t, :, None]
        dstep.append((dexponent * a).sum(1) + dscaled * u[t])
        du.append(dscaled * step[t])
    return *(torch.stack(grads[::-1]) for grads in (du, dstep, db)), torch.stack(dc), carry, da


class ChunkFunctions:
    """What computes a piece; `use_for_training` may put compiled ones here."""

    forward: Callable[..., Any] = staticmethod(chunk_forward)
    backward: Callable[..., Any] = staticmethod(chunk_backward)


class SelectiveScan(torch.autograd.Function):
    """h[t] = exp(step[t] a) h[t-1] + step[t] u[t] b[t]; y[t] = c[t] h[t].

    Inputs: u, step [S, B, D]; a [N, D]; b, c [S, B, N], S a multiple of `PIECE`. Output: y [S, B, D].
    """

    @staticmethod
    def forward(
        ctx: Any, u: torch.Tensor, step: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor
    ) -> Any:
        """y, and what the backward pass needs."""
        # A compiler asks what it is given for its gradient, which only leaves have.
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
    """`SelectiveScan` of any length; with the model around it, a compiler would unroll its loop over time for hours."""
    length = len(u)
    # A step of zero leaves the state as it is.
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
    """In place of `mamba_selective_scan` of transformers, with its arguments; leaves to it what asks for the last state."""
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
    """Give transformers' Mamba this recurrence, in this process.

    Args:
        compile_pieces: with torch.compile, once for each number of sequences.
    """
    modeling_mamba.mamba_selective_scan = selective_scan
    if compile_chunks:
        ChunkFunctions.forward = staticmethod(torch.compile(chunk_forward, dynamic=False))
        ChunkFunctions.backward = staticmethod(torch.compile(chunk_backward, dynamic=False))
