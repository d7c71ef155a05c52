"""Trained networks whose use of a rotation in their states is known from their construction.

All are trained to write programs in open worlds, and to hold the net rotation of the words so far where a linear head reads
it. They differ in what the plan is made from:

- The *unread* transformer holds the rotation in coordinates that no block and no other head reads. The coordinates that are
  read have nearly the same mean under every rotation, and are shifted from one to another at random in training without a
  change of the words. A probe reads the rotation; editing it must not be USES.
- The *reader* is the same network without these constraints, and its blocks read all coordinates.
- The *recurrent reader* is an LSTM that is also trained with turns that no word tells: the rotation in its recurrent state
  is shifted, and the program goes on from the turned robot (interchange intervention training, Geiger et al. 2022). It
  must be USES through the edit of recurrent states.

Letters: `B` programs, `T` tokens, `D` width, `V` vocabulary. Sources: pre-norm decoder, Radford et al. 2019; LSTM,
Hochreiter & Schmidhuber 1997.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from benchmark.calibrate.open_worlds import (
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
from benchmark.models.steering.recurrent import SteerableRecurrent
from benchmark.models.steering.transformer import SteerableTransformer
from benchmark.tasks.suite import Suite
from karel_env import generator
from karel_env.interpreter import run
from karel_env.language import ACTIONS, Programs
from karel_env.language import HEADER as HEADER_WORDS
from karel_env.recipe import Tasks
from karel_env.world import Worlds

LAYERS, HEADS = 2, 4
READ_WIDTH, PLANTED_WIDTH = 48, 16
"""Coordinates that the blocks of the unread transformer read, and those that hold the rotation."""
RECURRENT_WIDTH = 64
NUM_SUMMARY = len(SLOT_SIZES)
NUM_STEPS, BATCH_SIZE, NUM_TASKS = 1200, 96, 20_000
LEARNING_RATE, WEIGHT_DECAY, NUM_WARMUP_STEPS = 4e-3, 0.01, 100
MEAN_WEIGHT = 1.0
"""Weight of the differences of class means in the coordinates that are read."""
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
        self.hidden_size = RECURRENT_WIDTH if kind == TRAINED_RECURRENT else READ_WIDTH + PLANTED_WIDTH
        self.num_hidden_layers = 1 if kind == TRAINED_RECURRENT else LAYERS
        super().__init__(**kwargs)

    @property
    def read_width(self) -> int:
        """Leading coordinates that blocks and the head of words read."""
        return READ_WIDTH if self.kind == TRAINED_UNREAD else self.hidden_size


class ReadingBlock(nn.Module):
    """A pre-norm decoder layer that reads the leading coordinates and writes to all, [B, T, D] to the same."""

    def __init__(self, width: int, read_width: int) -> None:
        super().__init__()
        self.read_width = read_width
        self.before_attention, self.before_mlp = nn.LayerNorm(read_width), nn.LayerNorm(read_width)
        self.into, self.out = nn.Linear(read_width, 3 * READ_WIDTH), nn.Linear(READ_WIDTH, width)
        self.up, self.down = nn.Linear(read_width, 2 * READ_WIDTH), nn.Linear(2 * READ_WIDTH, width)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """One layer."""
        read = self.before_attention(hidden_states[..., : self.read_width])
        query, key, value = self.into(read).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden_states = hidden_states + self.out(mixed.transpose(1, 2).flatten(2))
        read = self.before_mlp(hidden_states[..., : self.read_width])
        return hidden_states + self.down(functional.gelu(self.up(read)))


class RecurrentBlock(nn.Module):
    """An LSTM in place of the states that it reads, [B, T, D] to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell = nn.LSTM(width, width, batch_first=True)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """One layer."""
        output: torch.Tensor = self.cell(hidden_states)[0]
        return output


class PlannerNetwork(PreTrainedModel, GenerationMixin):
    """A language model over summaries of tasks and words, with a head that reads the rotation."""

    config_class = PlannerConfig

    def __init__(self, config: PlannerConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.embed = nn.Embedding(VOCABULARY, width)
        self.position = nn.Embedding(NUM_SUMMARY + END + 16, width)
        if config.kind == TRAINED_RECURRENT:
            self.layers = nn.ModuleList([RecurrentBlock(width)])
        else:
            self.layers = nn.ModuleList(ReadingBlock(width, config.read_width) for _ in range(LAYERS))
        self.head = nn.Sequential(
            nn.LayerNorm(config.read_width), nn.Linear(config.read_width, 2 * width), nn.GELU(),
            nn.Linear(2 * width, VOCABULARY),
        )  # fmt: skip
        self.rotation = nn.Linear(PLANTED_WIDTH, TURNS)

    def _init_weights(self, module: nn.Module) -> None:
        """Keep what each module was initialised with."""

    def states(
        self, input_ids: torch.Tensor, shift: Callable[[int, torch.Tensor], torch.Tensor] | None = None
    ) -> list[torch.Tensor]:
        """States [B, T, D] after the embeddings and after each block; `shift` replaces the input of block number `int`."""
        hidden = self.embed(input_ids)
        if self.config.kind != TRAINED_RECURRENT:
            hidden = hidden + self.position.weight[: input_ids.shape[1]]
        states = [hidden]
        for index, layer in enumerate(self.layers):
            states.append(layer(states[-1] if shift is None else shift(index, states[-1])))
        return states

    def words(self, last: torch.Tensor) -> torch.Tensor:
        """Logits [B, T, V] from the last states."""
        logits: torch.Tensor = self.head(last[..., : self.config.read_width])
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
        return CausalLMOutput(logits=self.words(self.states(input_ids)[-1][:, -logits_to_keep:]))

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


def train_planner(suite: Suite, kind: str, seed: int, steps: int = NUM_STEPS) -> PlannerNetwork:
    """Train a planner of one of `TRAINED_KINDS` on programs of an open suite; one thread, deterministic."""
    data = make_data(suite, seed)
    edited = {k: make_data(suite, seed, turned_after=k) for k in EDITED_AT} if kind == TRAINED_RECURRENT else {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network = init_planner(kind, seed)
        optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
        random = np.random.default_rng([_ORDER, seed])
        for step in range(steps):
            factor = min((step + 1) / NUM_WARMUP_STEPS, 0.5 * (1 + math.cos(math.pi * step / steps)))
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * factor
            rows = torch.from_numpy(random.integers(0, len(data.ids), BATCH_SIZE))
            turn = torch.from_numpy(random.integers(0, TURNS, (BATCH_SIZE, data.ids.shape[1])))
            loss = _loss(network, data.take(rows), step % LAYERS, turn)
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


def _loss(network: PlannerNetwork, batch: PlannerData, site: int, turn: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of words and of the rotation in the planted coordinates, and for the unread kind their separation.

    Args:
        network: the network.
        batch: the programs.
        site, turn: where and by how much the unread kind is shifted, see `_random_shift`.
    """
    is_unread = network.config.kind == TRAINED_UNREAD
    states = network.states(batch.ids, _random_shift(batch.rotation, site, turn) if is_unread else None)
    loss = functional.cross_entropy(
        network.words(states[-1]).flatten(0, 1), batch.words.flatten(), ignore_index=IGNORED
    )
    for hidden in states[1:]:
        planted = network.rotation(hidden[..., -PLANTED_WIDTH:])
        loss = loss + functional.cross_entropy(planted.flatten(0, 1), batch.rotation.flatten(), ignore_index=IGNORED)
    if is_unread:
        loss = loss + MEAN_WEIGHT * sum(
            _mean_differences(hidden[..., :READ_WIDTH], batch.rotation) for hidden in states
        )
    return loss


def _random_shift(rotation: torch.Tensor, site: int, turn: torch.Tensor) -> Callable[[int, torch.Tensor], torch.Tensor]:
    """Shift what is read at one site by the difference of two class means, `turn` int64 [B, T] quarter turns apart."""

    def shift(index: int, hidden: torch.Tensor) -> torch.Tensor:
        if index != site:
            return hidden
        read, others = hidden[..., :READ_WIDTH], hidden[..., READ_WIDTH:]
        with torch.no_grad():
            member = functional.one_hot(rotation.clamp(min=0), TURNS).to(read.dtype) * (rotation >= 0)[..., None]
            means = torch.einsum("btc,btd->tcd", member, read) / member.sum(0)[..., None].clamp(min=1)
            turned = functional.one_hot((rotation + turn).clamp(min=0) % TURNS, TURNS).to(read.dtype)
            turned = turned * (rotation >= 0)[..., None]
            difference = torch.einsum("btc,tcd->btd", turned - member, means)
        return torch.cat([read + difference, others], -1)

    return shift


def _edited_loss(network: PlannerNetwork, batch: PlannerData, after: int) -> torch.Tensor:
    """Cross-entropy of the words that follow a shift of the rotation in the recurrent state after so many words."""
    cell, column = network.layers[0].cell, NUM_SUMMARY + after
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
    return functional.cross_entropy(network.words(output).flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def _mean_differences(hidden: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Variance between the class means of rotation as a share of the variance, averaged over the positions of words."""
    at, label = hidden[:, NUM_SUMMARY:], rotation[:, NUM_SUMMARY:]
    is_used = (label >= 0).to(at.dtype)[..., None]
    member = functional.one_hot(label.clamp(min=0), TURNS).to(at.dtype) * is_used
    centered = (at - (at * is_used).sum(0) / is_used.sum(0).clamp(min=1)) * is_used
    counts = member.sum(0)[..., None].clamp(min=1)
    means = torch.einsum("btc,btd->tcd", member, centered) / counts
    between = (counts * means**2).sum((1, 2))
    return (between / (centered**2).sum((0, 2)).clamp(min=1e-6)).mean()


def steerable_planner(
    network: PlannerNetwork, suite: Suite, settings: PairSettings = STANDARD_PAIRS
) -> SteerableTransformer:
    """The planner with hooks, for the prompts of the pairs of an open suite."""
    steerable = open_steerable(HuggingFaceModel.from_objects(network, SummaryTokenizer(suite, settings), "cpu"))
    if isinstance(steerable, SteerableRecurrent):
        steerable.labels_precede_last_word = True
    return steerable
