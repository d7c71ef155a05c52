"""Cost of hidden states and of the grammar in generation: `python -m benchmark.bench generation --model SPEC`.

One batch of prompts is continued greedily by each implementation in turn, `NUM_ROUNDS` times, and the fastest counts:

- transformers: `generate` on the full prompts, without hidden states; the same maximum length and stop rule;
- transformers with `output_hidden_states=True`: the states of every layer, prompt and step;
- lm-evaluation-harness, if installed: its `generate_until` with the same model object;
- ours: `generate`, and `generate` followed by reading the states at the generated words, as in a stage of a run.

The preamble of few-shot prompts is computed once per run; its time is reported separately and not part of a round. The
cost of the grammar is the time spent in its logits processor divided by the time of the constrained generation.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from transformers import LogitsProcessor, StoppingCriteriaList

from benchmark.bench.command import GenerationBenchOptions
from benchmark.errors import UsageError
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.decoding import StopAtClosingBracket
from benchmark.models.huggingface import HuggingFaceModel
from benchmark.models.interface import Decoding, Generation, ModelSpec
from benchmark.tasks.prompt_template import LENGTH_FACTOR, build_prompt_template, render_prompts
from benchmark.tasks.suite import load_suite, test_tasks

NUM_ROUNDS = 3
HARNESS = "lm_eval.models.huggingface"


class GenerationBench:
    """One batch of test prompts, and the implementations that continue it.

    Args:
        options: command-line options.
    """

    def __init__(self, options: GenerationBenchOptions) -> None:
        spec = ModelSpec.parse(options.model)
        checkpoint = open_checkpoint(spec)
        if not checkpoint.has_hidden_states or checkpoint.is_custom:
            raise UsageError(f"--model {options.model}: expected a model of transformers, path: or hf:")
        suite = load_suite(options.suite)
        tokenizer = HuggingFaceModel.load_tokenizer(checkpoint)
        frame = build_prompt_template(suite, options.track, tokenizer)
        self.words = suite.max_new_words * LENGTH_FACTOR[options.track]
        self.ours = HuggingFaceModel(checkpoint, options.dtype, preamble=frame.before)
        tasks = test_tasks(replace(suite, tasks=options.prompts, sha256=""))
        self.prompts = render_prompts(suite, tasks, template=frame)
        encoded = self.ours.tokenizer(self.prompts, padding=True, return_tensors="pt")
        self.ids, self.mask = encoded["input_ids"], encoded["attention_mask"]

    def plain(self, **generate_options: Any) -> Any:
        """Continue the full prompts with `generate` of transformers."""
        length = self.ids.shape[1]
        with torch.inference_mode():
            return self.ours.model.generate(
                input_ids=self.ids,
                attention_mask=self.mask,
                max_new_tokens=self.ours.max_new_tokens(self.ours.tokenizer, self.words),
                do_sample=False,
                pad_token_id=self.ours.padding_id,
                stopping_criteria=StoppingCriteriaList([StopAtClosingBracket(self.ours.opens, length)]),
                **generate_options,
            )

    def generate(self, decoding: Decoding = Decoding()) -> list[Generation]:  # noqa: B008
        """Continue the prompts with our adapter; the prefill cache is cleared first."""
        self.ours.prefilled.clear()
        return self.ours.generate(self.prompts, self.words, decoding)

    def generate_and_read(self) -> int:
        """Continue with our adapter and read the states at the generated words; returns their size in bytes."""
        written = [" ".join(generation.text.split()) or "}" for generation in self.generate()]
        return self.ours.hidden_states(self.prompts, written).values.nbytes

    def harness(self) -> Callable[[], Any] | None:
        """`generate_until` of lm-evaluation-harness over the same model object; None if not installed."""
        try:
            module = importlib.import_module(HARNESS)
        except ImportError:
            return None
        instance = importlib.import_module("lm_eval.api.instance").Instance
        model = module.HFLM(pretrained=self.ours.model, tokenizer=self.ours.tokenizer, batch_size=len(self.prompts))
        max_new_tokens = self.ours.max_new_tokens(self.ours.tokenizer, self.words)
        generation_options = {"until": ["}"], "max_gen_toks": max_new_tokens, "do_sample": False}
        requests = [
            instance(request_type="generate_until", doc={}, arguments=(prompt, generation_options), idx=i)
            for i, prompt in enumerate(self.prompts)
        ]
        return lambda: model.generate_until(requests, disable_tqdm=True)


class _TimedProcessor(LogitsProcessor):
    """A logits processor that measures the seconds spent in it."""

    def __init__(self, inner: LogitsProcessor) -> None:
        self.inner, self.seconds = inner, 0.0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        started = time.perf_counter()
        processed = self.inner(input_ids, scores)
        self.seconds += time.perf_counter() - started
        return processed


def time_fastest(actions: Mapping[str, Callable[[], Any]]) -> tuple[dict[str, float], dict[str, Any]]:
    """Seconds of the fastest of `NUM_ROUNDS` calls and the last output, by name, after one warm-up call each."""
    outputs = {name: action() for name, action in actions.items()}
    seconds = dict.fromkeys(actions, float("inf"))
    for _ in range(NUM_ROUNDS):
        for name, action in actions.items():
            started = time.perf_counter()
            outputs[name] = action()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds, outputs


def speed_rows(batch: GenerationBench) -> list[dict[str, Any]]:
    """Seconds, ratio to plain transformers, and size of the states, per implementation."""
    plain, all_states = "transformers", "transformers, all states"
    actions: dict[str, Callable[[], Any]] = {
        plain: batch.plain,
        all_states: lambda: state_bytes(batch.plain(output_hidden_states=True, return_dict_in_generate=True)),
        "ours": batch.generate,
        "ours, states of words": batch.generate_and_read,
    }
    harness = batch.harness()
    if harness is not None:
        actions["lm-evaluation-harness"] = harness
    seconds, outputs = time_fastest(actions)
    return [
        {"way": name, "seconds": spent, "of plain": spent / seconds[plain], "of all states": spent / seconds[all_states],
         "states, MB": outputs[name] / 1e6 if isinstance(outputs[name], int) else None}
        for name, spent in seconds.items()
    ]  # fmt: skip


def state_bytes(output: Any) -> int:
    """Bytes of the hidden states in an output of `generate`: a tuple of layers [B, tokens, D] per step."""
    return sum(layer.numel() * layer.element_size() for step in output.hidden_states for layer in step)


def grammar_row(batch: GenerationBench) -> dict[str, Any]:
    """Share of the time of a constrained generation that is spent on the grammar."""
    make_processors = batch.ours._processors
    timed: list[_TimedProcessor] = []

    def processors(*arguments: Any) -> Any:
        built = make_processors(*arguments)
        timed.append(_TimedProcessor(built[-1]))
        built[-1] = timed[-1]
        return built

    batch.generate(Decoding(constrained=True))
    batch.ours._processors = processors  # type: ignore[method-assign, assignment]
    try:
        started = time.perf_counter()
        written = batch.generate(Decoding(constrained=True))
        spent = time.perf_counter() - started
    finally:
        del batch.ours._processors
    grammar_seconds = sum(item.seconds for item in timed)
    steps = max(item.tokens for item in written)
    return {
        "constrained, seconds": spent,
        "in the grammar": grammar_seconds,
        "share": grammar_seconds / spent,
        "steps": steps,
    }


def run_benchmark(options: GenerationBenchOptions) -> dict[str, list[dict[str, Any]]]:
    """Run all measurements; rows by table."""
    batch = GenerationBench(options)
    started = time.perf_counter()
    if batch.ours.preamble.ids:
        batch.generate()
    first_call_seconds = time.perf_counter() - started
    lengths = [int(row.sum()) for row in batch.mask]
    shape = {
        "prompts": len(lengths), "longest, tokens": max(lengths), "mean": float(np.mean(lengths)),
        "of which preamble": len(batch.ours.preamble.ids), "first call, seconds": first_call_seconds,
    }  # fmt: skip
    return {"batch": [shape], "speed": speed_rows(batch), "grammar": [grammar_row(batch)]}


def run(options: GenerationBenchOptions) -> int:
    """Measure and print; returns the exit code."""
    tables = run_benchmark(options)
    print(f"{options.model}, {options.dtype}, {torch.get_num_threads()} threads of {os.cpu_count()} cores", end="\n\n")
    for rows in tables.values():
        print(tabulate(rows, headers="keys", floatfmt=",.3g", tablefmt="github"), end="\n\n")
    return 0
