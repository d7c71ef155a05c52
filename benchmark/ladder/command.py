"""Ask a model what programs do: `karel-bench ladder --model SPEC`.

The model gets solved examples, a world, a program and a question, and answers by likelihood over the choices and by
generation. No training on Karel is needed. Prints two tables and writes `NAME-SUITE-DIALECT-ladder.json`, or with a chat
template `NAME-SUITE-DIALECT-chat-ladder.json`, after each question; the same command continues. Exit codes: 0 done, 2 usage, 3
the model cannot be loaded.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.cli.declare import option, parse_options
from benchmark.cli.dtype_note import note_slow_dtype
from benchmark.cli.fields import (
    device_option,
    dialect_option,
    dtype_option,
    model_option,
    output_dir_option,
    suite_option,
    threads_option,
)
from benchmark.cli.model_spec import read_model
from benchmark.cli.options import resolve_device
from benchmark.command import make_folder, note_results_kept, run_command, silence_libraries
from benchmark.errors import ModelError, UsageError
from karel_env.command import integer

if TYPE_CHECKING:
    from benchmark.cli.result_file import ResultFile
    from benchmark.ladder.choice_scores import Answerer
    from benchmark.ladder.ladder_tasks import LadderTasks
    from benchmark.ladder.measurement import RungResult

INTERPRETER, CHANCE = BASELINES = ("baseline:interpreter", "baseline:chance")


@dataclass(frozen=True, kw_only=True)
class LadderOptions:
    """Ask a model what programs do, from their last action to where the robot ends."""

    model: str = model_option("", "none, it must be named")
    suite: str = suite_option(
        purpose=" that gives worlds and statements; those of control and generalize have control flow"
    )
    dialect: str = dialect_option()
    plain: bool = option(False, "leave out the tokenizer's chat template: prompts are plain text")
    tasks: int = option(60, "set the number of tasks per program length", read_with=integer(5, 100_000), metavar="N")
    shots: int = option(12, "set the number of solved examples", read_with=integer(0, 100), metavar="N")
    batch_size: int = option(20, "set the prompts per batch", read_with=integer(1, 10_000), metavar="N")
    dtype: str = dtype_option()
    device: str = device_option("cpu")
    threads: int = threads_option()
    output_dir: Path = output_dir_option(Path("runs/ladder"), "write the results into this folder")


def execute(options: LadderOptions) -> int:
    """Ask all questions and print the tables; returns the exit code."""
    if not options.model:
        raise UsageError(f"expected --model SPEC, {INTERPRETER} or {CHANCE}")
    spec = options.model if options.model in BASELINES else read_model(options.model)
    device = resolve_device(options.device, "")
    make_folder(options.output_dir, "--output-dir")
    if options.model not in BASELINES:
        note_slow_dtype(options.dtype, device)
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from benchmark.cli.result_file import choose_result_file
    from benchmark.ladder.ladder_tasks import draw_ladder
    from benchmark.ladder.report import format_ladder
    from benchmark.tasks.suite import load_suite

    silence_libraries()
    suite = load_suite(options.suite)
    name, digest, tokenizer, open_answerer = _open(spec, options, device)
    tasks = draw_ladder(suite, options.tasks, options.shots, options.dialect, tokenizer)
    suffix = "" if tokenizer is None else "-chat"
    file = choose_result_file(
        options.output_dir, f"{name}-{suite.name}-{options.dialect}{suffix}-ladder", "benchmark.ladder.command", suite,
        digest=digest, dtype=options.dtype, dialect=options.dialect, tasks=options.tasks, shots=options.shots,
        chat_template=tokenizer is not None,
    )  # fmt: skip
    results = _ask(spec, tasks, open_answerer, options.batch_size, file)
    template = "without a chat template" if tokenizer is None else "with its chat template"
    print(f"{spec}, suite {suite.name}, programs in {options.dialect}, {options.shots} shots, {template}")
    print(format_ladder(results))
    print(f"\nwrote {file.path}")
    return 0


def _ask(
    spec: str, tasks: LadderTasks, open_answerer: Callable[[str], Answerer], batch: int, file: ResultFile
) -> list[RungResult]:
    """Ask the questions that the file does not have, and write it after each."""
    from benchmark.cli.progress import show_progress
    from benchmark.ladder.measurement import measure_ladder
    from benchmark.ladder.report import format_rung, from_json, to_json

    earlier = from_json(file.read())
    if earlier:
        print(f"{file.path}: {len(earlier)} of {len(tasks.questions)} questions are answered", file=sys.stderr)
    note_results_kept()
    results: list[RungResult] = []
    start = time.process_time()
    with show_progress() as progress:
        progress.start(
            "prompts of all questions", len(tasks.questions) * len(tasks.tests), len(earlier) * len(tasks.tests)
        )
        for result in measure_ladder(open_answerer, tasks, batch, earlier, progress.advance):
            results.append(result)
            if result.question not in earlier:
                spent = time.process_time() - start
                progress.write(f"{format_rung(result)} ({spent:.0f} processor seconds)")
                file.write({"model": spec, **to_json(results, len(results) == len(tasks.questions))})
            start = time.process_time()
    return results


def _open(spec: str, options: LadderOptions, device: str) -> tuple[str, str, Any, Callable[[str], Answerer]]:
    """Name and digest of the model, its tokenizer if it has a chat template to be used, and what opens it for a preamble."""
    from benchmark.ladder.answerers import Chance, Interpreter

    if spec in BASELINES:
        answerer = Interpreter(options.dialect) if spec == INTERPRETER else Chance()
        return spec.partition(":")[2], "", None, lambda preamble: answerer
    import torch

    from benchmark.models.checkpoint import open_checkpoint
    from benchmark.models.interface import ModelSpec
    from benchmark.models.loading import load_model, load_tokenizer_or_none

    torch.set_num_threads(options.threads)
    checkpoint = open_checkpoint(ModelSpec.parse(spec))
    if not checkpoint.has_hidden_states:
        raise ModelError(f"{spec}: gives no likelihoods; expected a language model, {INTERPRETER} or {CHANCE}")
    tokenizer = None if options.plain else load_tokenizer_or_none(checkpoint)
    return (
        checkpoint.name,
        checkpoint.digest,
        tokenizer if getattr(tokenizer, "chat_template", None) else None,
        lambda preamble: load_model(checkpoint, options.dtype, device, None, preamble),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: execute(parse_options(LadderOptions, arguments, "ladder", module="benchmark.ladder")))


if __name__ == "__main__":
    sys.exit(main())
