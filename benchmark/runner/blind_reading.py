"""Read the blind set of protocol 4: pooled hidden states at the action words, with one pass per prompt.

The n-th programs of all prompts of a batch are read together. A model with a croppable cache prefills the batch of
prompts for the first of these passes only (`HuggingFaceModel.hidden_states`); other models read the prompts again.

In the few-shot track, the outputs of the solved examples are hidden like those of the prompts, so that nothing before a
program tells what words do in the original semantics.

Letters: `R` action words, `D` hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from benchmark.errors import ModelError
from benchmark.models.interface import LanguageModel
from benchmark.models.loading import load_tokenizer_or_none
from benchmark.probing.protocol import LAST, MEAN
from benchmark.runner.plan import Job
from benchmark.tasks.prompt_template import PLAIN, TRAINED, PromptTemplate, build_prompt_template, render_prompts
from benchmark.tasks.shared_prompts import SharedPrompts
from benchmark.tasks.suite import Suite, shot_tasks
from karel_env.generation.recipe import Tasks
from karel_env.language import FIRST_CONDITION, HEADER
from karel_env.syntax.dialects import program_bodies


def blind_template(job: Job) -> PromptTemplate:
    """The prompt template in which a job's hidden states are read."""
    if job.generation.track == TRAINED:
        return PLAIN
    shots = shot_tasks(job.suite)
    tokenizer = load_tokenizer_or_none(job.checkpoint)
    return build_prompt_template(job.suite, job.generation.track, tokenizer, replace(shots, outputs=shots.inputs))


def read_blind_states(
    model: LanguageModel,
    suite: Suite,
    blind: SharedPrompts,
    template: PromptTemplate = PLAIN,
    on_programs: Callable[[int], None] = lambda count: None,
    select_layers: Callable[[int], Sequence[int]] = lambda num_layers: (),
    word_limit: int = FIRST_CONDITION,
    render: Callable[[Tasks], Sequence[str]] | None = None,
) -> dict[str, np.ndarray]:
    """Read the states at `read` for every action word; prompts show the inputs in place of the outputs.

    Args:
        model: the model.
        suite: suite of the blind set; gives the batch size in prompts and the examples that a prompt shows.
        blind: programs and their prompts.
        template: prompt template of the run.
        on_programs: called with the number of programs read since the last call.
        word_limit: words with a smaller id are read, by default the action words.
        select_layers: given L, the number of layers with the embeddings (0), the layers that are views as well.
        render: gives the prompts of tasks, in place of those of `template`.

    Returns:
        float32 [R, D] per view, `mean` over layers, `last` layer, and `layer K` per selected layer, in the order of the
        programs' words that are read.

    Raises:
        ModelError: a state is NaN or infinite.
    """
    tasks, programs = blind.tasks, blind.tasks.programs
    texts = program_bodies(programs, suite.dialect)
    is_read = [programs.program(i)[len(HEADER) :] < word_limit for i in range(len(programs))]
    views: dict[str, list[np.ndarray]] = {}
    for first in range(0, blind.num_prompts, suite.batch):
        in_batch = np.flatnonzero((blind.prompt >= first) & (blind.prompt < first + suite.batch))
        first_of_prompt = in_batch[np.unique(blind.prompt[in_batch], return_index=True)[1]]
        shown = tasks.take(first_of_prompt)
        prompts = render_prompts(suite, shown, shown.inputs, template) if render is None else render(shown)
        rank = np.arange(len(in_batch)) - np.searchsorted(blind.prompt[in_batch], blind.prompt[in_batch])
        for n in range(int(rank.max()) + 1):
            indices = in_batch[rank == n]
            batch_prompts = [prompts[p] for p in blind.prompt[indices] - first]
            states = model.hidden_states(batch_prompts, [texts[i] for i in indices])
            if not np.isfinite(states.values).all():
                raise ModelError("hidden states: NaN or infinity; try another --dtype")
            for position, i in enumerate(indices.tolist()):
                rows = states.read[states.offsets[position] : states.offsets[position + 1]][is_read[i]]
                for view, values in _views(states.values[rows], select_layers(states.values.shape[1])).items():
                    views.setdefault(view, [np.empty(0)] * len(programs))[i] = values
            on_programs(len(indices))
    return {view: np.concatenate(parts).astype(np.float32) for view, parts in views.items()}


def _views(states: np.ndarray, layers: Sequence[int]) -> dict[str, np.ndarray]:
    """float [rows, D] per view, from states [rows, L, D] of all layers."""
    return {MEAN: states.mean(1), LAST: states[:, -1], **{layer_view(layer): states[:, layer] for layer in layers}}


def layer_view(layer: int) -> str:
    """Name of the view of a single layer."""
    return f"layer {layer}"
