"""Hooks that record, set or clamp the activations of blocks at one token of a pass.

Letters: `B` rows, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class PassHooks:
    """What happens to activations at one token of a pass.

    Attributes:
        column: int, the token, counted from the end of the pass (0 is the last).
        site, values: the input of block `site` is set to `values` [B, D] there; None for no edit.
        ranges: natural ranges by activation, applied after the site; None for no clamp.
        recorded: inputs of the blocks and output of the last one at that token.
        fired: number of edits that were made.
    """

    column: int
    site: int = -1
    values: torch.Tensor | None = None
    ranges: Sequence[Any] | None = None
    recorded: list[torch.Tensor] = field(default_factory=list)
    fired: int = 0

    def apply(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """The activation `index` [B, width, D] after the edit or the clamp."""
        at = hidden.shape[1] - 1 - self.column
        changed = self._change(index, hidden[:, at])
        self.recorded.append((hidden[:, at] if changed is None else changed).float().cpu())
        if changed is None:
            return hidden
        hidden = hidden.clone()
        hidden[:, at] = changed
        return hidden

    def _change(self, index: int, value: torch.Tensor) -> torch.Tensor | None:
        """What replaces the activation `index` [B, D] at the token; None if it stays."""
        if self.values is not None and index == self.site:
            self.fired += 1
            return self.values.to(value)  # the block may be on another device than the prompts
        if self.ranges is not None and index > self.site:
            return clamp_to_range(value, self.ranges[index])
        return None


def clamp_to_range(value: torch.Tensor, natural: Any) -> torch.Tensor:
    """Limit the coordinates of [B, D] along the directions of a `NaturalRange`; what is inside stays bit for bit if they are complete."""
    basis, low, high = (torch.from_numpy(part).to(value) for part in (natural.basis, natural.low, natural.high))
    coordinates = value @ basis
    clamped = coordinates.clamp(low, high)
    if natural.offset is not None:
        return torch.from_numpy(natural.offset).to(value) + clamped @ basis.T
    return value + (clamped - coordinates) @ basis.T


@contextmanager
def hook_blocks(blocks: torch.nn.ModuleList, hooks: PassHooks) -> Iterator[None]:
    """Apply hooks to the inputs of the blocks and to the output of the last one."""

    def before(index: int) -> Callable[..., Any]:
        def hook(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                return (hooks.apply(index, args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": hooks.apply(index, kwargs["hidden_states"])}

        return hook

    def after(_: torch.nn.Module, __: Any, output: Any) -> Any:
        index = len(blocks)
        if isinstance(output, tuple):
            return (hooks.apply(index, output[0]), *output[1:])
        return hooks.apply(index, output)

    with ExitStack() as stack:
        for index, block in enumerate(blocks):
            stack.callback(block.register_forward_pre_hook(before(index), with_kwargs=True).remove)
        stack.callback(blocks[-1].register_forward_hook(after).remove)
        yield
