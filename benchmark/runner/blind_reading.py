"""Read the blind set of protocol 4: pooled hidden states at the action words, with one pass per prompt.

The n-th programs of all prompts of a batch are read together. A model with a croppable cache prefills the batch of
prompts for the first of these passes only (`HuggingFaceModel.hidden_states`); other models read the prompts again.

Letters: `R` action words, `D` hidden width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmark.errors import ModelError
from benchmark.models.interface import LanguageModel
from benchmark.probing.protocol import LAST, MEAN
from benchmark.tasks.prompt_template import PLAIN, PromptTemplate, render_prompts
from benchmark.tasks.shared_prompts import SharedPrompts
from benchmark.tasks.suite import Suite
from karel_env.language import FIRST_CONDITION, HEADER, HEADER_TEXT


def read_blind_states(
    model: LanguageModel,
    suite: Suite,
    blind: SharedPrompts,
    template: PromptTemplate = PLAIN,
    on_programs: Callable[[int], None] = lambda count: None,
    word_limit: int = FIRST_CONDITION,
) -> dict[str, np.ndarray]:
    """Read the states at `read` for every action word; prompts show the inputs in place of the outputs.

    Args:
        model: the model.
        suite: suite of the blind set; gives the batch size in prompts and the examples that a prompt shows.
        blind: programs and their prompts.
        template: prompt template of the run.
        on_programs: called with the number of programs read since the last call.
        word_limit: words with a smaller id are read, by default the action words.

    Returns:
        float32 [R, D] per view, `mean` over layers and `last` layer, in the order of the programs' words that are read.

    Raises:
        ModelError: a state is NaN or infinite.
    """
    tasks, programs = blind.tasks, blind.tasks.programs
    texts = [text.removeprefix(HEADER_TEXT).lstrip() for text in programs.texts()]
    is_read = [programs.program(i)[len(HEADER) :] < word_limit for i in range(len(programs))]
    views: dict[str, list[np.ndarray]] = {MEAN: [np.empty(0)] * len(programs), LAST: [np.empty(0)] * len(programs)}
    for first in range(0, blind.num_prompts, suite.batch):
        in_batch = np.flatnonzero((blind.prompt >= first) & (blind.prompt < first + suite.batch))
        first_of_prompt = in_batch[np.unique(blind.prompt[in_batch], return_index=True)[1]]
        shown = tasks.take(first_of_prompt)
        prompts = render_prompts(suite, shown, shown.inputs, template)
        rank = np.arange(len(in_batch)) - np.searchsorted(blind.prompt[in_batch], blind.prompt[in_batch])
        for n in range(int(rank.max()) + 1):
            indices = in_batch[rank == n]
            batch_prompts = [prompts[p] for p in blind.prompt[indices] - first]
            states = model.hidden_states(batch_prompts, [texts[i] for i in indices])
            if not np.isfinite(states.values).all():
                raise ModelError("hidden states: NaN or infinity; try another --dtype")
            for position, i in enumerate(indices.tolist()):
                rows = states.read[states.offsets[position] : states.offsets[position + 1]][is_read[i]]
                views[MEAN][i], views[LAST][i] = states.values[rows].mean(1), states.values[rows, -1]
            on_programs(len(indices))
    return {view: np.concatenate(parts).astype(np.float32) for view, parts in views.items()}
