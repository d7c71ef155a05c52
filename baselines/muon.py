"""Muon: momentum whose update is replaced by the nearest semi-orthogonal matrix (Jordan 2024).

`torch.optim.Muon` iterates in bfloat16, which is a hundred times slower than float32 on a processor without
bfloat16 products; this implementation keeps the dtype of the parameters and iterates over all matrices of a shape at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration, chosen by Jordan (2024) to raise small singular values fastest."""


def orthogonalize(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Matrices [G, A, B] with singular values brought near 1 (within about 0.7 to 1.2)."""
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if is_tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if is_tall else x


class Muon(torch.optim.Optimizer):
    """SGD with Nesterov momentum and orthogonalised updates, for matrices inside a network.

    Args:
        params: two-dimensional parameters, or groups of them. `parts` of a group is the number of matrices with equal numbers of
            rows stacked in each parameter, such as those of queries, keys and values; each is orthogonalised separately.
        lr: step length; an update is scaled by sqrt(max(1, rows / columns)).
        momentum: decay of the running mean of gradients.
        weight_decay: decoupled weight decay.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "parts": 1})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault(p.shape, []).append(p)
            for shape, parameters in shapes.items():
                updates = torch.stack([self._nesterov(p, group["momentum"]) for p in parameters])
                rows = shape[0] // group.get("parts", 1)
                scale = -group["lr"] * max(1.0, rows / shape[1]) ** 0.5
                updates = orthogonalize(updates.reshape(-1, rows, shape[1])).reshape(updates.shape)
                for p, update in zip(parameters, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=scale)

    def _nesterov(self, p: torch.Tensor, momentum: float) -> torch.Tensor:
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p)
        buffer = state["momentum_buffer"].lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(buffer, momentum)
