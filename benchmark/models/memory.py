"""A transformers model and its tokenizer held in memory, as a checkpoint without files.

Its identity is a digest of the configuration, the state dict and the tokenizer; code that was changed in memory is not
part of it. A run of such a model is never eligible for the leaderboard.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.errors import ModelError
from benchmark.models.checkpoint import MEMORY_PREFIX, Checkpoint


@dataclass(frozen=True)
class MemoryCheckpoint(Checkpoint):
    """A checkpoint whose weights are those of an object.

    Attributes:
        model: a transformers model with a language-modelling head.
        tokenizer: its fast tokenizer.
    """

    model: Any = None
    tokenizer: Any = None

    @property
    def config(self) -> dict[str, Any]:
        """The entries of the model's configuration."""
        return dict(self.model.config.to_dict())

    @property
    def dtype(self) -> str:
        """Name of the dtype of the weights, one of `architecture.DTYPES`."""
        return dtype_name(self.model)

    def build(self, random_seed: int | None = None) -> Any:
        """The model, or an untrained copy of its architecture, whose greedy decoding is the argmax of the logits.

        The result shares the weights, and has generation settings of its own: those of the object stay as they are.
        """
        model = copy.copy(self.model) if random_seed is None else self._untrained_copy(random_seed)
        reset_generation_settings(model, self.model)
        return model

    def _untrained_copy(self, seed: int) -> Any:
        import torch

        from benchmark.models.architecture import LOAD_LOCK, cast_weights, copy_computed_buffers

        with LOAD_LOCK, torch.random.fork_rng():
            torch.manual_seed(seed)
            model = type(self.model)._from_config(copy.deepcopy(self.model.config)).to(self.model.device)
        cast_weights(model, self.model.dtype)
        copy_computed_buffers(self.model, model)
        return model

    def current_digest(self) -> str:
        """Recompute `digest` from the objects as they are now."""
        return hash_model(self.model, self.tokenizer)

    @contextmanager
    def evaluation_mode(self) -> Iterator[None]:
        """Evaluation mode while the context lasts; then every module has its training flag back."""
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True


def hold_in_memory(model: Any, tokenizer: Any, name: str = "") -> MemoryCheckpoint:
    """Check and digest a model and a tokenizer in memory.

    Args:
        model: a transformers model with a language-modelling head.
        tokenizer: its fast tokenizer.
        name: short name for rows and run folders; by default the name of its class.

    Raises:
        ModelError: another kind of object, a tokenizer without offsets, weights on several devices, or of a dtype that is
            not evaluated.
    """
    spec = f"{MEMORY_PREFIX}{name or type(model).__name__}"
    if not all(hasattr(model, part) for part in ("config", "generate", "state_dict", "base_model")):
        raise ModelError(
            f"{spec}: a {type(model).__name__} is no transformers model; expected one with a language-modelling head, "
            "such as AutoModelForCausalLM.from_pretrained returns"
        )
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"{spec}: a {type(tokenizer).__name__} is no fast tokenizer of transformers; word positions need its offsets"
        )
    dtype_name(model)
    parameters = list(model.parameters())
    devices = sorted({parameter.device.type for parameter in parameters})
    if len({parameter.device for parameter in parameters}) != 1 or devices == ["meta"]:
        raise ModelError(f"{spec}: weights on {', '.join(devices)}; expected all of them on one device, cpu or cuda")
    return MemoryCheckpoint(
        spec=spec,
        folder=Path.cwd(),
        name=name or type(model).__name__,
        parameters=sum(parameter.numel() for parameter in parameters),
        weight_bytes=sum(parameter.numel() * parameter.element_size() for parameter in parameters),
        digest=hash_model(model, tokenizer),
        model=model,
        tokenizer=tokenizer,
    )


def dtype_name(model: Any) -> str:
    """Name of the dtype of a model's weights, one of `architecture.DTYPES`.

    Raises:
        ModelError: the weights have another dtype.
    """
    from benchmark.models.architecture import DTYPES

    name = str(model.dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ModelError(
            f"{type(model).__name__}: weights of dtype {name}; expected one of {', '.join(sorted(DTYPES))}"
        )
    return name


def reset_generation_settings(model: Any, source: Any) -> None:
    """Give a model generation settings of its own that hold only the end-of-sequence ids of `source`."""
    from transformers import GenerationConfig

    text_config = source.config.get_text_config()
    value = getattr(source.generation_config, "eos_token_id", None)
    value = getattr(text_config, "eos_token_id", None) if value is None else value
    ids = value if isinstance(value, list) else [] if value is None else [value]
    ends = [token for token in ids if 0 <= token < text_config.vocab_size]
    model.generation_config = GenerationConfig(eos_token_id=ends or None, use_cache=True)


def hash_model(model: Any, tokenizer: Any) -> str:
    """SHA-256 over the class, the configuration, every tensor of the state dict, and the tokenizer."""
    import torch

    digest = hashlib.sha256(f"{type(model).__module__}.{type(model).__qualname__}\0".encode())
    digest.update(json.dumps(model.config.to_dict(), sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"\0{name} {tensor.dtype} {list(tensor.shape)}\0".encode())
        content = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(content.view(torch.uint8).numpy().tobytes())
    special = {key: str(token) for key, token in tokenizer.special_tokens_map.items()}
    settings = [special, getattr(tokenizer, "chat_template", None)]
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    return digest.hexdigest()
