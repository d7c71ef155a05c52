"""Checks of `benchmark.doctor`: one function per check, each returns one `CheckResult`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from benchmark.doctor.context import (
    FAIL,
    NUM_TASKS,
    OK,
    TOLERANCE,
    WARN,
    CheckResult,
    DoctorContext,
    relative_difference,
)
from benchmark.models.architecture import check_architecture
from benchmark.models.huggingface import DTYPES, HuggingFaceModel
from benchmark.models.soundness import check_causality, check_greedy
from benchmark.models.token_alignment import align_tokens
from benchmark.models.tokenizer import check_word_tokens
from benchmark.probing.protocol import STANDARD
from benchmark.runner.preflight import check_fits
from benchmark.runner.worker import Worker
from benchmark.tasks.extraction import extract_program
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.prompts import prompt_ids
from benchmark.tasks.scoring import score_programs, summarize
from karel_env.syntax.dialects import KAREL, PYTHON, body_dialect

MAX_PRECISION_CHANGE = 0.05
"""Relative difference to float32 states above which probes may be affected."""
MAX_UNCACHED_TOKENS = 40
"""Largest number of tokens that are generated again without a cache."""
MAX_TOKENS_PER_WORD = 10.0
"""Tokens per item above which prompts get long."""


def check_tokenizer(doctor_context: DoctorContext) -> CheckResult:
    """Is there a fast tokenizer, how many tokens per item, and which special tokens does it add?"""
    tokenizer = HuggingFaceModel.load_tokenizer(doctor_context.job.checkpoint)
    program = " ".join(doctor_context.programs)
    tokens_per_word = len(tokenizer(" " + program, add_special_tokens=False)["input_ids"]) / len(program.split())
    encoded_ids, kept_ids = tokenizer("a")["input_ids"], prompt_ids(tokenizer, "a")
    plain_ids = tokenizer("a", add_special_tokens=False)["input_ids"]
    marks = f"special tokens before a text: {len(kept_ids) - len(plain_ids)}, after it (left out of prompts): {len(encoded_ids) - len(kept_ids)}"
    template = "with a chat template" if getattr(tokenizer, "chat_template", None) else "no chat template"
    message = f"fast, {len(tokenizer):,} tokens, {tokens_per_word:.1f} per item of a program; {marks}; {template}"
    if tokens_per_word > MAX_TOKENS_PER_WORD:
        return CheckResult("tokenizer", WARN, f"{message}; prompts are long and slow and leave less of the context")
    return CheckResult("tokenizer", OK, message)


def check_words(doctor_context: DoctorContext) -> CheckResult:
    """Does every item of a program have its own tokens after a prompt?"""
    tokenizer = HuggingFaceModel.load_tokenizer(doctor_context.job.checkpoint)
    for prompt, program in zip(doctor_context.prompts, doctor_context.programs, strict=True):
        align_tokens(tokenizer, prompt, program)
    words = " ".join(
        [*render_prompts(doctor_context.job.suite, doctor_context.tasks), *doctor_context.programs]
    ).split()
    check_word_tokens(doctor_context.job.checkpoint.spec, tokenizer, words)
    message = f"each item of {len(doctor_context.programs)} programs, and each of {len(set(words))} distinct words of prompts, has its own tokens"
    return CheckResult("words", OK, message)


def check_weights(doctor_context: DoctorContext) -> CheckResult:
    """Do the files hold all weights of the architecture and no others?"""
    check_architecture(doctor_context.job.checkpoint)
    return CheckResult(
        "weights", OK, f"all {doctor_context.job.checkpoint.parameters:,} are in the files, and none is unused"
    )


def causality(doctor_context: DoctorContext) -> CheckResult:
    """Are earlier states and logits unchanged if later tokens are replaced?"""
    assert isinstance(doctor_context.model, HuggingFaceModel)
    index = max(range(len(doctor_context.programs)), key=lambda i: len(doctor_context.programs[i]))
    prompt, program = doctor_context.prompts[index], doctor_context.programs[index]
    check_causality(doctor_context.model, prompt, program, doctor_context.job.dtype, doctor_context.job.checkpoint.spec)
    return CheckResult("causality", OK, "later tokens do not change earlier states or logits")


def check_argmax(doctor_context: DoctorContext) -> CheckResult:
    """Are generated tokens the argmax of the logits of the probed pass?"""
    assert isinstance(doctor_context.model, HuggingFaceModel)
    check_greedy(
        doctor_context.model, doctor_context.prompts[0], doctor_context.job.dtype, doctor_context.job.checkpoint.spec
    )
    return CheckResult("argmax", OK, "generated tokens have the largest logits of the probed pass")


def check_context(doctor_context: DoctorContext) -> CheckResult:
    """Do prompts and programs fit the context window, and the model the memory?"""
    estimate = check_fits(doctor_context.job, STANDARD)
    message = (
        f"prompts of up to {estimate.prompt_tokens} tokens and programs of up to {estimate.new_tokens} fit; "
        f"{estimate.memory_bytes / 1e9:.1f} of {estimate.available_bytes / 1e9:.1f} GB of memory"
    )
    return CheckResult("context", OK, message)


def check_loading(doctor_context: DoctorContext) -> CheckResult:
    """Can the model be loaded and run, and are its states finite?"""
    states = doctor_context.states(doctor_context.prompts[:1])
    if not np.isfinite(states).all():
        share = 1 - np.isfinite(states).mean()
        message = (
            f"{share:.0%} of the hidden states are NaN or infinite; try --dtype float32, else the weights are broken"
        )
        return CheckResult("loading", FAIL, message)
    return CheckResult(
        "loading", OK, f"{states.shape[1]} layers of width {states.shape[2]}, the input of the first included"
    )


def check_alignment(doctor_context: DoctorContext) -> CheckResult:
    """Do states and likelihoods at each item equal those of one plain pass over the text?"""
    model = doctor_context.model
    assert isinstance(model, HuggingFaceModel)
    prompt, program = doctor_context.prompts[0], doctor_context.programs[0]
    layers, log_probs, token_indices = plain_pass(model, prompt, program)
    states = doctor_context.states([prompt])
    missing = find_missing_layers(doctor_context, states, [layer[token_indices] for layer in layers])
    if layers and len(missing) > 1:
        return CheckResult(
            "alignment", FAIL, f"{len(missing)} of {states.shape[1]} layers are not those of output_hidden_states at the words' "
            "tokens; the adapter reads this family wrongly: report it, and trust no probe of it",
        )  # fmt: skip
    ((value, count),) = model.log_likelihoods([prompt], [program])
    expected = log_probs[-count:].sum()
    if abs(value - expected) > TOLERANCE[doctor_context.job.dtype] * max(1.0, abs(expected)):
        message = f"a program's log-likelihood is {value:.3f}, a plain pass gives {expected:.3f}; report it"
        return CheckResult("alignment", FAIL, message)
    if not layers:
        message = (
            "likelihoods equal those of a plain pass; the model returns no output_hidden_states to compare states with"
        )
        return CheckResult("alignment", WARN, message)
    message = f"{states.shape[1] - len(missing)} layers equal output_hidden_states at each item's tokens"
    if missing:
        return CheckResult(
            "alignment", WARN, f"{message}; it returns no layer {missing[0]}, so that one could not be compared"
        )
    return CheckResult("alignment", OK, message)


def find_missing_layers(
    doctor_context: DoctorContext, states: np.ndarray, reference_layers: Sequence[np.ndarray]
) -> list[int]:
    """Layers of `ours` [words, L, D] that are not, in this order, among those of `plain`, each [words, D]."""
    missing, start = [], 0
    for depth in range(states.shape[1]):
        match = next(
            (
                i
                for i in range(start, len(reference_layers))
                if doctor_context.are_close(states[:, depth], reference_layers[i])
            ),
            None,
        )
        if match is None:
            missing.append(depth)
        else:
            start = match + 1
    return missing


def plain_pass(model: HuggingFaceModel, prompt: str, program: str) -> tuple[list[np.ndarray], np.ndarray, list[int]]:
    """Run transformers on one text, without cache or padding.

    Returns:
        States [tokens, D] per layer (empty if the model returns none), the log-probability of each token but the first,
        and the token indices of the expected states: the one before each item, then the last one of each item.
    """
    if body_dialect(program) == PYTHON:
        alignment, before = align_tokens(model.tokenizer, prompt, program), prompt_ids(model.tokenizer, prompt)
        indices = np.concatenate([alignment.first - 1, alignment.last]) + len(before) - 1
        return *_plain_logits(model, [*before, *alignment.ids]), indices.tolist()
    text = f"{prompt} {program}"
    encoded = model.tokenizer(text)
    # Special tokens after the text are not part of the program.
    layers, log_prob = _plain_logits(model, prompt_ids(model.tokenizer, text))
    ends = [len(prompt)]
    for word in program.split(" "):
        ends.append(ends[-1] + 1 + len(word))
    last_tokens = [encoded.char_to_token(end - 1) for end in ends]
    return layers, log_prob, last_tokens[:-1] + last_tokens[1:]


def _plain_logits(model: HuggingFaceModel, token_ids: Sequence[int]) -> tuple[list[np.ndarray], np.ndarray]:
    """States [tokens, D] per layer and the log-probability of each token but the first."""
    ids = torch.tensor([list(token_ids)], device=model.device)
    with torch.inference_mode():
        output = model.model(ids, output_hidden_states=True, use_cache=False)
    log_prob = output.logits[0, :-1].double().log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    return [layer[0].float().cpu().numpy() for layer in output.hidden_states or ()], log_prob.cpu().numpy()


def check_padding(doctor_context: DoctorContext) -> CheckResult:
    """Are the states of a short prompt the same in a batch with a long one?"""
    batched = doctor_context.model.hidden_states(doctor_context.uneven_prompts, doctor_context.programs[:NUM_TASKS])
    largest = 0.0
    for row, (prompt, program) in enumerate(zip(doctor_context.uneven_prompts, doctor_context.programs, strict=False)):
        alone = doctor_context.model.hidden_states([prompt], [program])
        word_slice = slice(*batched.offsets[row : row + 2])
        for batch_rows, alone_rows in ((batched.emit, alone.emit), (batched.read, alone.read)):
            largest = max(
                largest, relative_difference(batched.values[batch_rows[word_slice]], alone.values[alone_rows])
            )
    if largest > TOLERANCE[doctor_context.job.dtype]:
        return CheckResult(
            "padding", FAIL, f"states in a padded batch differ by {largest:.2%} from those of each prompt alone; the model "
            "does not skip padding, so run it with --batch-size 1",
        )  # fmt: skip
    return CheckResult(
        "padding", OK, f"a padded batch gives the states of each prompt alone (largest difference {largest:.1e})"
    )


def check_precision(doctor_context: DoctorContext) -> CheckResult:
    """How much do the states differ from those in float32?"""
    dtype = doctor_context.job.dtype
    if DTYPES[dtype].itemsize >= 4:
        return CheckResult("precision", OK, f"{dtype}")
    states = doctor_context.states(doctor_context.prompts[:1])
    exact = doctor_context.states(
        doctor_context.prompts[:1], Worker(replace(doctor_context.job, dtype="float32")).model()
    )
    change = float(np.linalg.norm(states - exact) / np.linalg.norm(exact))
    if change > MAX_PRECISION_CHANGE:
        return CheckResult(
            "precision", WARN, f"{dtype} changes the states by {change:.1%} of float32; use --dtype float32"
        )
    return CheckResult("precision", OK, f"{dtype} changes the states by {change:.1%} of float32")


def check_generation(doctor_context: DoctorContext) -> CheckResult:
    """Does generation equal uncached generation, does it end, and do the answers parse?"""
    generations = doctor_context.generate(doctor_context.prompts[:NUM_TASKS])
    texts = [generation.text for generation in generations]
    if isinstance(doctor_context.model, HuggingFaceModel):
        uncached = generate_without_cache(
            doctor_context.model, doctor_context.prompts[0], min(generations[0].tokens, MAX_UNCACHED_TOKENS)
        )
        if not (texts[0].startswith(uncached) or uncached.startswith(texts[0])):
            message = f"wrote {texts[0][:60]!r}, but {uncached[:60]!r} without a cache: "
            if DTYPES[doctor_context.job.dtype].itemsize < 4:
                message += f"rounding in {doctor_context.job.dtype}, unless --dtype float32 reports it too"
                return CheckResult("generation", WARN, message)
            message += "its cache is wrong; fix the cache or prepare_inputs_for_generation"
            return CheckResult("generation", FAIL, message)
    suite, tasks = doctor_context.job.suite, doctor_context.tasks.take(np.arange(NUM_TASKS))
    programs = texts if suite.dialect == KAREL else [extract_program(text, suite.dialect) for text in texts]
    outcome = summarize(score_programs(suite, tasks, programs))
    message = f"wrote {texts[0][:60]!r}; {outcome.valid.value:.0%} of {NUM_TASKS} are programs"
    if not all(generation.finished for generation in generations):
        return CheckResult(
            "generation", WARN, f"{message}; not every one stopped before the limit of {max(generation.tokens for generation in generations)} tokens: "
            "a model that was not trained on Karel needs --track fewshot",
        )  # fmt: skip
    return CheckResult("generation", OK, message)


@torch.inference_mode()
def generate_without_cache(model: HuggingFaceModel, prompt: str, tokens: int) -> str:
    """Generate greedily after a prompt, with a full pass per token."""
    ids = torch.tensor([prompt_ids(model.tokenizer, prompt)], device=model.device)
    length = ids.shape[1]
    for _ in range(tokens):
        best = model.model(ids, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, best], 1)
    return model.decode(ids[0, length:].tolist())


def check_batches(doctor_context: DoctorContext) -> CheckResult:
    """Are answers and states reproducible, and answers equal in a batch of one?"""
    prompts = doctor_context.prompts[:NUM_TASKS]
    first = doctor_context.states(prompts)
    batch_texts = [generation.text for generation in doctor_context.generate(prompts)]
    if not np.array_equal(first, doctor_context.states(prompts)):
        message = "the same batch gives other states the second time; switch off dropout and other randomness"
        return CheckResult("batch sizes", FAIL, message)
    single_texts = [doctor_context.generate([prompt])[0].text for prompt in prompts]
    if single_texts != batch_texts:
        return CheckResult(
            "batch sizes", WARN, "an answer differs between a batch and a batch of one: rounding, if padding is ok; "
            "only --strict makes figures independent of the batch",
        )  # fmt: skip
    return CheckResult("batch sizes", OK, "reproducible, and answers do not depend on the batch")


def check_random_copies(doctor_context: DoctorContext) -> CheckResult:
    """Can randomly initialised copies, a control of the probes, be built, and do they differ?"""
    prompts = doctor_context.prompts[:1]
    first, second = (doctor_context.states(prompts, Worker(doctor_context.job).model(i)) for i in range(2))
    if (
        relative_difference(first, second) < TOLERANCE["float32"]
        or relative_difference(first, doctor_context.states(prompts)) < TOLERANCE["float32"]
    ):
        message = (
            "randomly initialised copies equal each other or the model; their weights must be initialised from the seed"
        )
        return CheckResult("random copies", FAIL, message)
    return CheckResult("random copies", OK, "they differ between seeds and from the model")


def estimate_speed(doctor_context: DoctorContext) -> CheckResult:
    """How long does a complete run take?"""
    estimate = check_fits(doctor_context.job, STANDARD)
    minutes = (estimate.evaluation_seconds + estimate.probing_seconds) / 60
    message = f"a complete run of {doctor_context.job.suite.name} takes about {minutes:.0f} min in one process (rough)"
    return CheckResult("speed", OK, message)
