"""A recurrent language model with the interface of transformers: LSTM layers with residual connections.

Source: Hochreiter & Schmidhuber 1997 (the cell), with pre-normalisation as in transformers. It has no cache: each new
token needs a pass over the full text, which is cheap for short prompts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput


class LstmConfig(PretrainedConfig):
    """Width and depth of an `LstmForCausalLM`."""

    model_type = "karel-lstm"

    def __init__(self, vocab_size: int = 64, hidden_size: int = 256, num_hidden_layers: int = 2, **kwargs: Any) -> None:
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        super().__init__(**kwargs)


class LstmBlock(nn.Module):
    """Norm, LSTM, residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.cell = nn.LSTM(width, width, batch_first=True)

    def forward(self, hidden_states: torch.Tensor, order: torch.Tensor | None = None) -> torch.Tensor:
        """[B, S, D] to [B, S, D], reading positions in `order` [B, S] if given."""
        read = self.norm(hidden_states)
        if order is None:
            return hidden_states + self.cell(read)[0]
        gather_index = order[..., None].expand_as(read)
        return hidden_states + self.cell(read.gather(1, gather_index))[0].gather(1, gather_index.argsort(1))


class _LstmBase(PreTrainedModel):
    config_class = LstmConfig
    base_model_prefix = "model"
    _no_split_modules = ("LstmBlock",)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LSTM):
            for name, values in module.named_parameters():
                if name.startswith("weight"):
                    nn.init.normal_(values, std=module.hidden_size**-0.5)
                else:
                    nn.init.zeros_(values)


class LstmModel(_LstmBase):
    """Embeddings, blocks, final norm."""

    def __init__(self, config: LstmConfig) -> None:
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(LstmBlock(config.hidden_size) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The embeddings."""
        return self.embed

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool = False,
        **_: Any,
    ) -> BaseModelOutput:
        """Hidden states [B, S, D]; padding on either side has no effect."""
        order = None
        if attention_mask is not None and not bool((attention_mask == 1).all()):
            # Padding is read last, so it does not affect other positions.
            order = (1 - attention_mask[:, -input_ids.shape[1] :].long()).argsort(dim=1, stable=True)
        hidden = self.embed(input_ids)
        layers = []
        for layer in self.layers:
            layers.append(hidden)
            hidden = layer(hidden, order)
        hidden = self.norm(hidden)
        return BaseModelOutput(hidden, (*layers, hidden) if output_hidden_states else None)


class LstmForCausalLM(_LstmBase, GenerationMixin):
    """`LstmModel` with a linear head."""

    def __init__(self, config: LstmConfig) -> None:
        super().__init__(config)
        self.model = LstmModel(config)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        """The head."""
        return self.head

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        use_cache: bool = False,
        logits_to_keep: int = 0,
        output_hidden_states: bool = False,
        **_: Any,
    ) -> CausalLMOutput:
        """Logits [B, S, V]; only those of the last `logits_to_keep` tokens unless it is 0."""
        output = self.model(input_ids, attention_mask, output_hidden_states)
        return CausalLMOutput(
            logits=self.head(output.last_hidden_state[:, -logits_to_keep:]), hidden_states=output.hidden_states
        )

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any
    ) -> dict[str, Any]:
        """Pass the full text for every new token, since there is no cache."""
        return {"input_ids": input_ids, "attention_mask": attention_mask}


AutoConfig.register(LstmConfig.model_type, LstmConfig)
AutoModelForCausalLM.register(LstmConfig, LstmForCausalLM)
