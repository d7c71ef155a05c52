"""What the benchmark writes and reads of a model, compared with what transformers gives of each text alone."""

from __future__ import annotations

import numpy as np
import torch

from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.huggingface import HuggingFaceModel
from benchmark.models.interface import ModelSpec

WORDS = 1
"""So many that an answer has more tokens than the sliding windows of `families` are wide."""
UNEMBEDDED = ("mamba", "mamba2")
"""Their `output_hidden_states` leave out the embeddings, and give the last block before and after the final norm."""
TOLERANCE = 1e-4


def loaded(folder, **options) -> HuggingFaceModel:
    """The model in a folder."""
    return HuggingFaceModel(open_checkpoint(ModelSpec("path", str(folder))), **options)


def alone(model, prompt, program):
    """Hidden states [tokens, D] of each layer and log-probabilities [tokens, V] of an unpadded pass over the whole
    text, its tokens, and where each ends in it."""
    encoded = model.tokenizer(f"{prompt} {program}", return_tensors="pt", return_offsets_mapping=True)
    ids = encoded["input_ids"]
    with torch.inference_mode():
        output = model.model(ids, output_hidden_states=True, use_cache=False)
        states = output.hidden_states
        if model.model.config.model_type in UNEMBEDDED:
            states = (model.base.get_input_embeddings()(ids), *states[:-2], states[-1])
    log_prob = output.logits[0].double().log_softmax(-1)
    return [layer[0].numpy() for layer in states], log_prob, ids[0], encoded["offset_mapping"][0, :, 1].numpy()


def check_states(model, prompts, programs, relative=0.0):
    """Layers and places of the states of a padded batch are those of each text alone; returns how many words split.

    Entries may be apart by `TOLERANCE`, and by `relative` of the state's largest entry.
    """
    states, split = model.hidden_states(prompts, programs), 0
    assert states.values.shape[1] == model.model.config.num_hidden_layers + 1
    for i, (prompt, program) in enumerate(zip(prompts, programs, strict=True)):
        layers, _, _, ends = alone(model, prompt, program)
        end = len(prompt)
        for place, word in enumerate(program.split(), states.offsets[i]):
            before = int(np.flatnonzero(ends <= end)[-1])
            end += 1 + len(word)
            last = int(np.flatnonzero(ends == end)[-1])
            split += last - before > 1
            for row, token in ((states.emit[place], before), (states.read[place], last)):
                for depth, layer in enumerate(layers):
                    ours = states.values[row, depth]
                    if len(ours) != layer.shape[1]:
                        with torch.inference_mode():
                            ours = model.base.decoder.project_out(torch.from_numpy(ours)).numpy()
                    np.testing.assert_allclose(
                        ours, layer[token], atol=TOLERANCE + relative * np.abs(layer[token]).max()
                    )
    return split


def check_writing(model, prompts):
    """What a padded batch writes is what `generate` of transformers writes behind each prompt alone."""
    found = model.generate(prompts, WORDS)
    for prompt, ours in zip(prompts, found, strict=True):
        ids = model.tokenizer(prompt, return_tensors="pt")["input_ids"]
        room = model.max_new_tokens(model.tokenizer, WORDS)
        plain = model.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=room, do_sample=False, pad_token_id=0
        )
        text = model.decode(plain[0, ids.shape[1] :].tolist())
        assert text.startswith(ours.text) if ours.finished else text == ours.text
        assert ours.tokens == room or ours.finished
    return len({one.text for one in found})
