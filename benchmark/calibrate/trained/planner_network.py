"""Trained networks whose use of a rotation in their states is known from their construction.

All are trained to write programs in open worlds, and to hold the net rotation of the words so far where a linear head reads
it. They differ in what the plan is made from:

- The *unread* transformer has two stacks of blocks over the same embeddings. The stack that hooks find holds the rotation,
  and nothing but its linear head reads it; words are written from the other. A probe reads the rotation; editing it must not
  be USES.
- The *reader* is one stack that holds the rotation and writes the words.
- The *recurrent reader* is an LSTM that is also trained with turns that no word tells: the rotation in its recurrent state
  is shifted, and the program goes on from the turned robot (interchange intervention training, Geiger et al. 2022). It
  must be USES through the edit of recurrent states.

Letters: `B` programs, `T` tokens, `D` width, `V` vocabulary. Sources: pre-norm decoder, Radford et al. 2019; LSTM,
Hochreiter & Schmidhuber 1997.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from benchmark.calibrate.trained.open_worlds import (
    FIRST_WORD,
    HEADER,
    PAD,
    SLOT_SIZES,
    TRAINED_RECURRENT,
    TRAINED_UNREAD,
    VOCABULARY,
    SummaryTokenizer,
    summarize,
)
from benchmark.causal.pairs import STANDARD_PAIRS, PairSettings
from benchmark.causal.rotation import net_rotation
from benchmark.causal.targets import END, TURNS
from benchmark.models.huggingface import HuggingFaceModel
from benchmark.models.steering import open_steerable
from benchmark.models.steering.transformer import SteerableTransformer
from benchmark.tasks.suite import Suite
from karel_env.execution.interpreter import run
from karel_env.generation import generator
from karel_env.generation.recipe import Tasks
from karel_env.language import ACTIONS, Programs
from karel_env.language import HEADER as HEADER_WORDS
from karel_env.world import Worlds

LAYERS, HEADS = 2, 4
WIDTH, PLANTED_WIDTH = 64, 16
"""Width of a state, and number of its last coordinates that the head of the rotation reads."""
NUM_SUMMARY = len(SLOT_SIZES)
NUM_STEPS, BATCH_SIZE, NUM_TASKS = 1200, 96, 20_000
LEARNING_RATE, WEIGHT_DECAY, WARMUP_SHARE = 4e-3, 0.01, 1 / 12
EDITED_AT = (1, 2, 3)
"""Numbers of words after which the rotation of the recurrent reader is shifted in training."""
IGNORED = -100
_INITIAL, _TRAINING, _ORDER, _TURNS = 90_013, 90_014, 90_015, 90_016
RIGHT_WORD = ACTIONS.index("turn_right")


class PlannerConfig(PretrainedConfig):
    """Kind and sizes of a trained planner."""

    model_type = "karel-trained-planner"

    def __init__(self, kind: str = TRAINED_UNREAD, **kwargs: Any) -> None:
        self.kind, self.vocab_size = kind, VOCABULARY
        self.hidden_size = WIDTH
        self.num_hidden_layers = 1 if kind == TRAINED_RECURRENT else LAYERS
        super().__init__(**kwargs)


class DecoderBlock(nn.Module):
    """A pre-norm decoder layer, [B, T, D] to the same."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.into, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """One layer."""
        query, key, value = (
            self.into(self.before_attention(hidden_states)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden_states = hidden_states + self.out(mixed.transpose(1, 2).flatten(2))
        return hidden_states + self.down(functional.gelu(self.up(self.before_mlp(hidden_states))))


class RecurrentBlock(nn.Module):
    """An LSTM in place of the states that it reads, [B, T, D] to the same."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(WIDTH, WIDTH, batch_first=True)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """One layer."""
        output: torch.Tensor = self.cell(hidden_states)[0]
        return output


class PlannerNetwork(PreTrainedModel, GenerationMixin):
    """A language model over summaries of tasks and words, with a head that reads the rotation."""

    config_class = PlannerConfig

    def __init__(self, config: PlannerConfig) -> None:
        super().__init__(config)
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.position = nn.Embedding(NUM_SUMMARY + END + 16, WIDTH)
        is_recurrent = config.kind == TRAINED_RECURRENT
        self.layers = nn.ModuleList([RecurrentBlock()] if is_recurrent else [DecoderBlock() for _ in range(LAYERS)])
        self.second = nn.Sequential(*(DecoderBlock() for _ in range(LAYERS))) if config.kind == TRAINED_UNREAD else None
        self.head = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, VOCABULARY)
        )
        self.rotation = nn.Linear(PLANTED_WIDTH, TURNS)

    def _init_weights(self, module: nn.Module) -> None:
        """Keep what each module was initialised with."""

    def states(self, input_ids: torch.Tensor) -> list[torch.Tensor]:
        """States [B, T, D] after the embeddings and after each block that hooks find."""
        hidden = self.embed(input_ids)
        if self.config.kind != TRAINED_RECURRENT:
            hidden = hidden + self.position.weight[: input_ids.shape[1]]
        states = [hidden]
        for layer in self.layers:
            states.append(layer(states[-1]))
        return states

    def words(self, states: list[torch.Tensor]) -> torch.Tensor:
        """Logits [B, T, V] from what `states` returns."""
        logits: torch.Tensor = self.head(states[-1] if self.second is None else self.second(states[0]))
        return logits

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        use_cache: bool = False,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> CausalLMOutput:
        """Logits [B, T, V], only those of the last `logits_to_keep` tokens unless it is 0; rows have no padding."""
        return CausalLMOutput(logits=self.words(self.states(input_ids))[:, -logits_to_keep:])

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any
    ) -> dict[str, Any]:
        """Pass the full text for every new token, since there is no cache."""
        return {"input_ids": input_ids}


@dataclass(frozen=True)
class PlannerData:
    """Training programs.

    Attributes:
        ids: int64 [N, T], summary, header and words.
        words: int64 [N, T], id of the next word, `IGNORED` where none is written.
        rotation: int64 [N, T], net rotation of the words so far, `IGNORED` in the summary and after the closing bracket.
        turn: int64 [N], right turns that no word tells.
    """

    ids: torch.Tensor
    words: torch.Tensor
    rotation: torch.Tensor
    turn: torch.Tensor

    def take(self, rows: torch.Tensor) -> PlannerData:
        """The programs `rows`."""
        return PlannerData(self.ids[rows], self.words[rows], self.rotation[rows], self.turn[rows])


def make_data(suite: Suite, seed: int, count: int = NUM_TASKS, turned_after: int | None = None) -> PlannerData:
    """Programs of the training distribution of an open suite with their summaries.

    With `turned_after`, the summary is that of the program with turns after so many words that are not among the words;
    programs without as many words have none. They are `PlannerData.turn`.
    """
    recipe = replace(suite.recipe, length=suite.train_length)
    stream = int(np.random.default_rng([_TRAINING, seed]).integers(2**63 - 1))
    tasks = generator.generate(recipe, stream, "train", np.arange(count))
    written = _word_grid(tasks.programs, suite.train_length[1] + 1)
    turn = np.zeros(count, np.int64)
    if turned_after is not None:
        random = np.random.default_rng([_TURNS, seed, turned_after])
        turn = np.where(
            (written[:, turned_after - 1] < END) & (written[:, turned_after] >= 0), random.integers(0, TURNS, count), 0
        )
        tasks = replace(tasks, outputs=_execute_turned(tasks, written, turn, turned_after))
    header = np.full((count, 1), HEADER)
    is_written = written >= 0
    ids = np.concatenate([summarize(tasks), header, np.where(is_written, written + FIRST_WORD, PAD)], 1)[:, :-1]
    words, rotation = (np.full(ids.shape, IGNORED) for _ in range(2))
    words[:, NUM_SUMMARY:] = np.where(is_written, written + FIRST_WORD, IGNORED)
    for length in range(written.shape[1]):
        value = net_rotation(written[:, :length].clip(0, END - 1)) if length else np.zeros(count, np.int64)
        rotation[:, NUM_SUMMARY + length] = np.where(is_written[:, length], value, IGNORED)
    return PlannerData(*(torch.from_numpy(part) for part in (ids, words, rotation, turn)))


def _execute_turned(tasks: Tasks, written: np.ndarray, turn: np.ndarray, turned_after: int) -> Worlds:
    """Worlds [N, E] after the words int [N, width], with `turn` right turns after the first `turned_after` words."""
    actions = np.zeros((len(written), written.shape[1] + TURNS), np.int8)
    lengths = (written >= 0).sum(1) - 1 + turn
    for row, words in enumerate(written.tolist()):
        turned = [*words[:turned_after], *[RIGHT_WORD] * int(turn[row]), *words[turned_after:]]
        actions[row, : lengths[row]] = turned[: lengths[row]]
    return run(Programs.straight_line(actions, lengths), tasks.inputs).worlds


def _word_grid(programs: Programs, width: int) -> np.ndarray:
    """int64 [N, width], actions and the closing bracket as indices of `NEXT_WORDS`, -1 after it."""
    lengths = programs.lengths - len(HEADER_WORDS) - 1
    grid = np.full((len(programs), width), -1)
    for row, length in enumerate(lengths.tolist()):
        start = int(programs.offsets[row]) + len(HEADER_WORDS)
        grid[row, :length] = programs.words[start : start + length]
        grid[row, length] = END
    return grid


def train_planner(
    suite: Suite,
    kind: str,
    seed: int,
    steps: int = NUM_STEPS,
    batch_size: int = BATCH_SIZE,
    learning_rate: float = LEARNING_RATE,
) -> PlannerNetwork:
    """Train a planner of one of `TRAINED_KINDS` on programs of an open suite; one thread, deterministic."""
    data = make_data(suite, seed)
    edited = {k: make_data(suite, seed, turned_after=k) for k in EDITED_AT} if kind == TRAINED_RECURRENT else {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network = init_planner(kind, seed)
        optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY, fused=True)
        random = np.random.default_rng([_ORDER, seed])
        for step in range(steps):
            factor = min((step + 1) / (WARMUP_SHARE * steps), 0.5 * (1 + math.cos(math.pi * step / steps)))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * factor
            rows = torch.from_numpy(random.integers(0, len(data.ids), batch_size))
            loss = _loss(network, data.take(rows))
            if edited:
                after = EDITED_AT[step % len(EDITED_AT)]
                loss = loss + _edited_loss(network, edited[after].take(rows), after)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return network.eval()
    finally:
        torch.set_num_threads(threads)


def init_planner(kind: str, seed: int) -> PlannerNetwork:
    """A planner with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.default_rng([_INITIAL, seed]).integers(2**63 - 1)))
        return PlannerNetwork(PlannerConfig(kind))


def _loss(network: PlannerNetwork, batch: PlannerData) -> torch.Tensor:
    """Cross-entropy of words, and of the rotation after every block."""
    states = network.states(batch.ids)
    pairs = [(network.words(states), batch.words)]
    pairs += [(network.rotation(hidden[..., -PLANTED_WIDTH:]), batch.rotation) for hidden in states[1:]]
    losses = [
        functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        for logits, labels in pairs
    ]
    return torch.stack(losses).sum()


def _edited_loss(network: PlannerNetwork, batch: PlannerData, after: int) -> torch.Tensor:
    """Cross-entropy of the words that follow a shift of the rotation in the recurrent state after so many words."""
    cell, column = cast(nn.LSTM, network.layers[0].cell), NUM_SUMMARY + after
    hidden = network.embed(batch.ids)
    # The state after `after` words, those of the summary and the header before them.
    state = torch.cat(cell(hidden[:, : column + 1])[1], -1)[0]
    rotation = batch.rotation[:, column]
    is_used = rotation >= 0
    state, rotation, turn = state[is_used], rotation[is_used], batch.turn[is_used]
    member = functional.one_hot(rotation, TURNS).to(state.dtype)
    means = (member.T @ state) / member.sum(0)[:, None].clamp(min=1)
    state = state + means[(rotation + turn) % TURNS] - means[rotation]
    first, second = (part[None].contiguous() for part in state.chunk(2, -1))
    output = cell(hidden[is_used, column + 1 :], (first, second))[0]
    labels = batch.words[is_used, column + 1 :]
    return functional.cross_entropy(network.words([output]).flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def steerable_planner(
    network: PlannerNetwork, suite: Suite, settings: PairSettings = STANDARD_PAIRS
) -> SteerableTransformer:
    """The planner with hooks, for the prompts of the pairs of an open suite."""
    return open_steerable(HuggingFaceModel.from_objects(network, SummaryTokenizer(suite, settings), "cpu"))
