"""What `benchmark.doctor.command` looks at in a model, one function a check, each with one finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from benchmark.doctor.context import TOLERANCE, FAIL, OK, NUM_TASKS, WARN, CheckResult, DoctorContext, relative_difference
from benchmark.models.architecture import check_architecture
from benchmark.models.huggingface import DTYPES, HuggingFaceModel
from benchmark.models.soundness import check_causality, check_greedy
from benchmark.models.token_alignment import align_tokens
from benchmark.models.tokenizer import check_word_tokens
from benchmark.probing.protocol import STANDARD
from benchmark.runner.preflight import check_fits
from benchmark.runner.worker import Worker
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.prompts import prompt_ids
from benchmark.tasks.scoring import score_programs, summarize
from benchmark.tasks.stage import BLIND, TEST, Stage

MAX_PRECISION_CHANGE = 0.05
"""The same between a precision and float32 from which probes may see it."""
MAX_UNCACHED_TOKENS = 40
"""Most tokens of an answer that are written again without a cache."""
MAX_TOKENS_PER_WORD = 10.0
"""Tokens a word from which prompts get long."""


def check_tokenizer(patient: DoctorContext) -> CheckResult:
    """Is there a fast one, how long are words, and what does it put around a text?"""
    found = HuggingFaceModel.load_tokenizer(patient.job.checkpoint)
    program = " ".join(patient.programs)
    a_word = len(found(" " + program, add_special_tokens=False)["input_ids"]) / len(program.split())
    whole, kept = found("a")["input_ids"], prompt_ids(found, "a")
    bare = found("a", add_special_tokens=False)["input_ids"]
    marks = f"marks put before a text: {len(kept) - len(bare)}, and behind it, left out of prompts: {len(whole) - len(kept)}"
    template = "with a chat template" if getattr(found, "chat_template", None) else "no chat template"
    says = f"fast, {len(found):,} tokens, {a_word:.1f} a word of a program; {marks}; {template}"
    if a_word > MAX_TOKENS_PER_WORD:
        return CheckResult("tokenizer", WARN, f"{says}; prompts are long and slow: expect less of the context to be left")
    return CheckResult("tokenizer", OK, says)


def check_words(patient: DoctorContext) -> CheckResult:
    """Does every word of a program have tokens of its own behind a prompt?"""
    found = HuggingFaceModel.load_tokenizer(patient.job.checkpoint)
    for prompt, program in zip(patient.prompts, patient.programs, strict=True):
        align_tokens(found, prompt, program)
    held = " ".join([*render_prompts(patient.job.suite, patient.tasks), *patient.programs]).split()
    check_word_tokens(patient.job.checkpoint.spec, found, held)
    says = (
        f"the words of {len(patient.programs)} programs and {len(set(held))} words and signs have tokens of their own"
    )
    return CheckResult("words", OK, says)


def check_weights(patient: DoctorContext) -> CheckResult:
    """Do the files hold the weights of the architecture, all of them and no others?"""
    check_architecture(patient.job.checkpoint)
    return CheckResult(
        "weights", OK, f"all {patient.job.checkpoint.parameters:,} are in the files, and none is left unused"
    )


def causality(patient: DoctorContext) -> CheckResult:
    """Do earlier states and logits stay where later tokens are exchanged?"""
    assert isinstance(patient.model, HuggingFaceModel)
    place = max(range(len(patient.programs)), key=lambda i: len(patient.programs[i]))
    prompt, program = patient.prompts[place], patient.programs[place]
    check_causality(patient.model, prompt, program, patient.job.dtype, patient.job.checkpoint.spec)
    return CheckResult("causality", OK, "later tokens do not change earlier states or logits")


def check_argmax(patient: DoctorContext) -> CheckResult:
    """Is what is written the argmax of the logits of the pass that is probed?"""
    assert isinstance(patient.model, HuggingFaceModel)
    check_greedy(patient.model, patient.prompts[0], patient.job.dtype, patient.job.checkpoint.spec)
    return CheckResult("argmax", OK, "what it writes has the largest logits of the pass that is probed")


def check_context(patient: DoctorContext) -> CheckResult:
    """Do prompts and programs fit the context, and the model the memory?"""
    estimate = check_fits(patient.job, STANDARD)
    says = (
        f"prompts of up to {estimate.prompt_tokens} tokens and programs of up to {estimate.new_tokens} fit; "
        f"{estimate.memory_bytes / 1e9:.1f} of {estimate.available_bytes / 1e9:.1f} GB of memory"
    )
    return CheckResult("context", OK, says)


def check_loading(patient: DoctorContext) -> CheckResult:
    """Can it be loaded and run at all, and are its states numbers?"""
    states = patient.states(patient.prompts[:1])
    if not np.isfinite(states).all():
        share = 1 - np.isfinite(states).mean()
        says = f"{share:.0%} of the hidden states are NaN or infinite; try --dtype float32, else the weights are broken"
        return CheckResult("loading", FAIL, says)
    return CheckResult(
        "loading", OK, f"{states.shape[1]} layers of width {states.shape[2]}, the input of the first included"
    )


def check_alignment(patient: DoctorContext) -> CheckResult:
    """Are states and likelihoods at each word those of one plain pass over the whole text?"""
    model = patient.model
    assert isinstance(model, HuggingFaceModel)
    prompt, program = patient.prompts[0], patient.programs[0]
    layers, log_prob, places = plain_pass(model, prompt, program)
    ours = patient.states([prompt])
    absent = find_missing_layers(patient, ours, [layer[places] for layer in layers])
    if layers and len(absent) > 1:
        return CheckResult(
            "alignment", FAIL, f"{len(absent)} of {ours.shape[1]} layers are not those of output_hidden_states at the words' "
            "tokens; the family is read wrongly: report it, and believe no probe of it",
        )  # fmt: skip
    ((value, count),) = model.log_likelihoods([prompt], [program])
    expected = log_prob[-count:].sum()
    if abs(value - expected) > TOLERANCE[patient.job.dtype] * max(1.0, abs(expected)):
        says = f"a program's log-likelihood is {value:.3f}, a plain pass gives {expected:.3f}; report it"
        return CheckResult("alignment", FAIL, says)
    if not layers:
        says = "likelihoods are those of a plain pass; the model gives no output_hidden_states to compare states with"
        return CheckResult("alignment", WARN, says)
    says = f"{ours.shape[1] - len(absent)} layers are those of output_hidden_states at each word's tokens"
    if absent:
        return CheckResult("alignment", WARN, f"{says}; it has no layer {absent[0]}, so that one could not be compared")
    return CheckResult("alignment", OK, says)


def find_missing_layers(patient: DoctorContext, ours: np.ndarray, plain: Sequence[np.ndarray]) -> list[int]:
    """Layers of `ours` [words, L, D] that are not, in this order, among those of `plain`, each [words, D]."""
    absent, start = [], 0
    for depth in range(ours.shape[1]):
        found = next((i for i in range(start, len(plain)) if patient.agree(ours[:, depth], plain[i])), None)
        if found is None:
            absent.append(depth)
        else:
            start = found + 1
    return absent


def plain_pass(model: HuggingFaceModel, prompt: str, program: str) -> tuple[list[np.ndarray], np.ndarray, list[int]]:
    """What transformers gives of the whole text alone, without cache or padding.

    Returns the states [tokens, D] of each layer (none if it gives none), the log-probability of each token but the first,
    and the tokens at which states are expected: of each word the one before it, then of each word its last.
    """
    text = f"{prompt} {program}"
    encoded = model.tokenizer(text)
    # What the tokenizer puts behind a text is no part of the program.
    ids = torch.tensor([prompt_ids(model.tokenizer, text)], device=model.device)
    with torch.inference_mode():
        output = model.model(ids, output_hidden_states=True, use_cache=False)
    log_prob = output.logits[0, :-1].double().log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    ends = [len(prompt)]
    for word in program.split(" "):
        ends.append(ends[-1] + 1 + len(word))
    lasts = [encoded.char_to_token(end - 1) for end in ends]
    layers = [layer[0].float().cpu().numpy() for layer in output.hidden_states or ()]
    return layers, log_prob.cpu().numpy(), lasts[:-1] + lasts[1:]


def check_padding(patient: DoctorContext) -> CheckResult:
    """Are the states of a short prompt the same beside a long one?"""
    together = patient.model.hidden_states(patient.uneven_prompts, patient.programs[:NUM_TASKS])
    apart = 0.0
    for row, (prompt, program) in enumerate(zip(patient.uneven_prompts, patient.programs, strict=False)):
        alone = patient.model.hidden_states([prompt], [program])
        mine = slice(*together.offsets[row : row + 2])
        for there, here in ((together.emit, alone.emit), (together.read, alone.read)):
            apart = max(apart, relative_difference(together.values[there[mine]], alone.values[here]))
    if apart > TOLERANCE[patient.job.dtype]:
        return CheckResult(
            "padding", FAIL, f"states in a padded batch differ by {apart:.2%} from those of each prompt alone; the model "
            "does not skip padding, so run it with --batch 1",
        )  # fmt: skip
    return CheckResult("padding", OK, f"a padded batch gives the states of each prompt alone (apart by {apart:.1e})")


def check_precision(patient: DoctorContext) -> CheckResult:
    """How far are the states from those in float32?"""
    dtype = patient.job.dtype
    if DTYPES[dtype].itemsize >= 4:
        return CheckResult("precision", OK, f"{dtype}")
    ours = patient.states(patient.prompts[:1])
    exact = patient.states(patient.prompts[:1], Worker(replace(patient.job, dtype="float32")).model(TEST))
    apart = float(np.linalg.norm(ours - exact) / np.linalg.norm(exact))
    if apart > MAX_PRECISION_CHANGE:
        return CheckResult("precision", WARN, f"{dtype} changes the states by {apart:.1%} of float32; use --dtype float32")
    return CheckResult("precision", OK, f"{dtype} changes the states by {apart:.1%} of float32")


def check_generation(patient: DoctorContext) -> CheckResult:
    """Does it write, as it does without a cache, does it stop, and does what it writes parse?"""
    written = patient.model.generate(patient.prompts[:NUM_TASKS], patient.room)
    texts = [one.text for one in written]
    if isinstance(patient.model, HuggingFaceModel):
        plain = generate_without_cache(patient.model, patient.prompts[0], min(written[0].tokens, MAX_UNCACHED_TOKENS))
        if not (texts[0].startswith(plain) or plain.startswith(texts[0])):
            says = f"wrote {texts[0][:60]!r}, but token by token, the whole text read each time, {plain[:60]!r}: "
            if DTYPES[patient.job.dtype].itemsize < 4:
                says += f"rounding in {patient.job.dtype}, if --dtype float32 does not say so too"
                return CheckResult("generation", WARN, says)
            says += "what it keeps between tokens is wrong; mend its cache, or its prepare_inputs_for_generation"
            return CheckResult("generation", FAIL, says)
    outcome = summarize(score_programs(patient.job.suite, patient.tasks.take(np.arange(NUM_TASKS)), texts))
    says = f"wrote {texts[0][:60]!r}; {outcome.valid.value:.0%} of {NUM_TASKS} are programs"
    if not all(one.finished for one in written):
        return CheckResult(
            "generation", WARN, f"{says}; not every one stopped before the limit of {max(one.tokens for one in written)} tokens: "
            "a model that was not trained on Karel needs --track fewshot",
        )  # fmt: skip
    return CheckResult("generation", OK, says)


@torch.inference_mode()
def generate_without_cache(model: HuggingFaceModel, prompt: str, tokens: int) -> str:
    """The most probable tokens behind a prompt, the whole text read anew for each."""
    ids = torch.tensor([prompt_ids(model.tokenizer, prompt)], device=model.device)
    length = ids.shape[1]
    for _ in range(tokens):
        best = model.model(ids, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, best], 1)
    return model.decode(ids[0, length:].tolist())


def check_batches(patient: DoctorContext) -> CheckResult:
    """Is what it writes and holds the same again, and in a batch of one?"""
    prompts = patient.prompts[:NUM_TASKS]
    first = patient.states(prompts)
    written = [one.text for one in patient.model.generate(prompts, patient.room)]
    if not np.array_equal(first, patient.states(prompts)):
        says = "the same batch gives other states the second time; switch off dropout and whatever else draws numbers"
        return CheckResult("batch sizes", FAIL, says)
    alone = [patient.model.generate([prompt], patient.room)[0].text for prompt in prompts]
    if alone != written:
        return CheckResult(
            "batch sizes", WARN, "alone a prompt is answered otherwise than in a batch: rounding, if padding is ok; "
            "only --strict makes figures independent of the batch",
        )  # fmt: skip
    return CheckResult("batch sizes", OK, "the same again, and answers do not depend on the batch")


def check_untrained_copies(patient: DoctorContext) -> CheckResult:
    """Can untrained copies be made, which are a control, and do they differ?"""
    given = patient.prompts[:1]
    first, second = (patient.states(given, Worker(patient.job).model(str(Stage(BLIND, random_init=i)))) for i in range(2))
    if (
        relative_difference(first, second) < TOLERANCE["float32"]
        or relative_difference(first, patient.states(given)) < TOLERANCE["float32"]
    ):
        says = "untrained copies hold the same as each other or as the model; its weights must be drawn from the seed"
        return CheckResult("untrained copies", FAIL, says)
    return CheckResult("untrained copies", OK, "they differ by their seeds and from the model")


def estimate_speed(patient: DoctorContext) -> CheckResult:
    """What will a whole run take?"""
    estimate = check_fits(patient.job, STANDARD)
    minutes = (estimate.evaluation_seconds + estimate.probing_seconds) / 60
    says = f"a whole run of {patient.job.suite.name} takes about {minutes:.0f} min in one process (rough)"
    return CheckResult("speed", OK, says)
