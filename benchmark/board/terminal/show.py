"""Show what a model wrote: `karel-bench show FOLDER [--task N] [--failed]`.

Without a task, the outcomes of all test tasks with the first task of each, and some answers. With one, its prompt, the
worlds of every example, the reference program, the answer, and what each word of the answer does. Tasks are drawn again
from the suite's seed; nothing but the samples is read from the folder.
"""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.board.comparison import find_run, read_test_samples
from benchmark.board.markup import spell_hidden
from benchmark.board.player import SHOWN_ONLY, SOLVED
from benchmark.cli.declare import argument, option, parse_options, program_name
from benchmark.command import run_command
from benchmark.errors import UsageError, VerificationError
from benchmark.tasks.prompt_template import TRAINED
from benchmark.tasks.scoring import OUTCOMES
from benchmark.tasks.suite import Suite, hash_tasks, load_suite, test_tasks
from karel_env.command import integer

if TYPE_CHECKING:
    from benchmark.runner.record import Record
    from karel_env.generation.recipe import Tasks
    from karel_env.world import Worlds

TASKS_PER_LINE, MAX_SHOWN_TEXT, MAX_SHOWN_STEPS, MAX_TASKS = 8, 400, 40, 1000
MODULE = "benchmark.board.terminal.show"
"""Its own name, for a call by `python -m`."""
NUM_INVALID = 3
"""Answers that are shown of a model that writes no program."""
HEADINGS = ("north", "east", "south", "west")
COLUMN_GAP = "     "


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """Show what a model wrote for the tasks of a run or of a submission."""

    folder: str = argument("folder of a run, or name of a submission", metavar="FOLDER")
    task: int | None = option(
        None, "show this task", read_with=integer(0, 10_000_000), metavar="N", default_text="a summary"
    )
    failed: bool = option(False, "show the first tasks that are not solved on all examples")
    count: int = option(3, "show at most this many with --failed", read_with=integer(1, MAX_TASKS), metavar="N")
    prompt: bool = option(False, "print the text of the prompt too")
    suite: str | None = option(
        None, "read the suite from this YAML file", metavar="FILE", default_text="a shipped suite"
    )


@dataclass(frozen=True)
class ShownRun:
    """A run to show: its folder, record, samples of the test stage in the order of the tasks, suite and tasks."""

    folder: Path
    record: Record
    samples: list[dict[str, Any]]
    suite: Suite
    tasks: Tasks


def read_shown_run(name_or_folder: str, suite_file: str | None = None) -> ShownRun:
    """Read a run and draw its tasks again.

    Raises:
        UsageError: the folder has no record, or the suite is not a shipped one and no file is given.
        VerificationError: the samples do not match the record, or the suite's tasks are others than those of the run.
    """
    folder, record = find_run(name_or_folder)
    samples, entry = read_test_samples(folder, record), record.suite
    shipped = load_suite(suite_file or entry.name)
    suite = shipped if shipped.seed == entry.seed else load_suite(suite_file or entry.name, entry.seed)
    all_tasks = test_tasks(suite)
    if (suite.sha256 or hash_tasks(all_tasks)) != entry.sha256:
        raise VerificationError(
            f"{folder}: test set {entry.sha256[:12]}, but suite {suite.name} gives another; name the suite's file with --suite"
        )
    tasks = all_tasks.take(np.arange(entry.tasks))
    return ShownRun(folder, record, samples, replace(suite, tasks=entry.tasks), tasks)


def outcome_of(sample: dict[str, Any]) -> str:
    """The outcome of a sample, with `solved` split by the held-out examples."""
    if sample["outcome"] != OUTCOMES[0]:
        return str(sample["outcome"])
    return SOLVED if sample["held_out"] else SHOWN_ONLY


def format_outcomes(run: ShownRun) -> str:
    """How many tasks have each outcome, the first tasks of each, and answers of a model that writes no program."""
    kinds = (SOLVED, SHOWN_ONLY, *OUTCOMES[1:])
    by_kind = {kind: [int(sample["task"]) for sample in run.samples if outcome_of(sample) == kind] for kind in kinds}
    width = max(map(len, kinds))
    lines = [f"{run.record.model.name} on {run.suite.name}: {len(run.samples):,} tasks"]
    for kind, numbers in by_kind.items():
        if numbers:
            first = " ".join(map(str, numbers[:TASKS_PER_LINE])) + (" ..." if len(numbers) > TASKS_PER_LINE else "")
            lines.append(f"  {kind:<{width}} {len(numbers):>7,}   tasks {first}")
    if invalid := describe_invalid(run.record, run.samples):
        lines += ["", invalid]
    command = f"{program_name('show', MODULE)} {shlex.quote(str(run.folder))}"
    lines += [
        "",
        f"one of them, with its worlds, reference and answer:  {command} --task N",
        f"the first that are not solved:                       {command} --failed",
        f"its page and player, and where its row would stand:  {program_name('board')} {shlex.quote(str(run.folder))} --open",
    ]
    return "\n".join(lines)


def describe_invalid(record: Record, samples: Sequence[dict[str, Any]]) -> str:
    """The first answers of a model that wrote no program at all, and what to try; empty for any other model.

    Args:
        record: the record of the run.
        samples: its samples of the test stage, in order.
    """
    if record.accuracy.valid.value > 0:
        return ""
    lines = [f"No answer is a program. The first {NUM_INVALID}:"]
    lines += [
        f"  task {sample['task']}: {_quoted(str(sample['text'])) or '(nothing)'}" for sample in samples[:NUM_INVALID]
    ]
    if record.track == TRAINED:
        lines.append("A model that was not trained on Karel is evaluated with solved examples: --track fewshot.")
    return "\n".join(lines)


def format_task(run: ShownRun, number: int, with_prompt: bool = False) -> str:
    """One task: worlds, reference, answer, what the answer does in each example, and its steps in the first wrong one.

    Raises:
        UsageError: there is no such task.
    """
    from karel_env.language import Programs
    from karel_env.syntax.dialects import HEADERS, KAREL, append_body, parse_program, program_bodies
    from karel_env.syntax.parser import ParseError

    if number >= len(run.samples):
        raise UsageError(f"--task {number}: expected a number from 0 to {len(run.samples) - 1}")
    sample, task = run.samples[number], run.tasks.take(np.array([number]))
    text, dialect = str(sample["text"]), run.record.frame.dialect if run.record.frame else KAREL
    lines = [f"task {number}: {outcome_of(sample)}"]
    if with_prompt:
        lines += _prompt_of(run, task, sample)
    reference = task.programs.program(0)
    lines += [f"reference  {_quoted(program_bodies(task.programs, dialect)[0])}", f"answer     {_quoted(text)}"]
    try:
        tokens = parse_program(append_body(HEADERS[dialect], text), dialect)
    except ParseError as error:
        problem = f"           no program: {spell_hidden(str(error))}"
        return "\n".join(
            [*lines, problem, *_worlds_of(run, task, None), *_describe_steps("reference", reference, task, 0)]
        )
    program = Programs.of([tokens])
    wrong = np.flatnonzero(~_is_right(run, task, program))
    example = int(wrong[0]) if len(wrong) else 0
    lines += [*_worlds_of(run, task, program), *_describe_steps("answer", tokens, task, example)]
    if len(wrong):
        lines += _describe_steps("reference", reference, task, example)
    return "\n".join(lines)


def _prompt_of(run: ShownRun, task: Tasks, sample: dict[str, Any]) -> list[str]:
    """The lines of a task's prompt; of the few-shot track only the task's own part."""
    from benchmark.tasks.prompt_template import render_prompts

    prompt = render_prompts(run.suite, task)[0]
    is_complete = hashlib.sha256(prompt.encode()).hexdigest() == sample["prompt"]
    note = "" if is_complete else ", inside the template of its track"
    return [f"prompt{note}:", *(f"  {line}" for line in prompt.splitlines())]


def _describe_steps(name: str, tokens: np.ndarray, task: Tasks, example: int) -> list[str]:
    """The steps of a program in an example under a heading."""
    return ["", f"steps of the {name} in example {example + 1}:", *_steps(tokens, task.inputs[0, example])]


def _is_right(run: ShownRun, task: Tasks, program: Any) -> np.ndarray:
    """bool [E], whether the program reaches each output by the suite's equality."""
    from karel_env.execution.interpreter import run as execute

    execution = execute(program, task.inputs)
    compare = execution.worlds.same_state if run.suite.equality == "state" else execution.worlds.same_drawing
    return np.asarray((compare(task.outputs) & (execution.status == 0))[0])


def _worlds_of(run: ShownRun, task: Tasks, program: Any) -> list[str]:
    """The worlds of every example side by side: input, output, and what the program reaches."""
    from karel_env.execution.interpreter import STATUSES
    from karel_env.execution.interpreter import run as execute

    execution = None if program is None else execute(program, task.inputs)
    is_right = None if program is None else _is_right(run, task, program)
    lines = []
    for e in range(task.inputs.shape[1]):
        columns = [("input", task.inputs[0, e]), ("output", task.outputs[0, e])]
        kind = "shown" if e < run.suite.shown else "held out"
        title = f"example {e + 1} ({kind})"
        if execution is not None and is_right is not None:
            columns.append(("reached", execution.worlds[0, e]))
            status = int(execution.status[0, e])
            title += ": right" if is_right[e] else ": wrong" + (f", {STATUSES[status]}" if status else "")
        lines += ["", title, *_side_by_side(columns)]
    return lines


def _side_by_side(columns: Sequence[tuple[str, Worlds]]) -> list[str]:
    """Drawings of worlds under their titles."""
    from karel_env.world import world_text

    # The robot on markers has a glyph of two or three characters (`<1`), so that all cells of the example get as many.
    glyphs = [[line.split() for line in world_text(world).splitlines()] for _, world in columns]
    cell_width = max(len(glyph) for rows in glyphs for row in rows for glyph in row)
    drawings = [
        [title, *(" ".join(glyph.ljust(cell_width) for glyph in row) for row in rows)]
        for (title, _), rows in zip(columns, glyphs, strict=True)
    ]
    widths = [max(map(len, drawing)) for drawing in drawings]
    height = max(map(len, drawings))
    rows = [
        COLUMN_GAP.join(
            (drawing[i] if i < len(drawing) else "").ljust(width)
            for drawing, width in zip(drawings, widths, strict=True)
        )
        for i in range(height)
    ]
    return [f"  {row}".rstrip() for row in rows]


def _steps(tokens: np.ndarray, world: Worlds) -> list[str]:
    """A line per executed word: where the robot is after it, and what changed."""
    from benchmark.board.player import steps_to_json
    from karel_env.language import HEADER, WORDS

    row, column, heading = (int(value) for value in world.robot)
    lines = [f"  {'start':<14} {_format_pose(row, column, heading)}"]
    steps = steps_to_json(tokens, world)
    for index, robot, changed, value in steps[:MAX_SHOWN_STEPS]:
        word = WORDS[tokens[len(HEADER) + index]]
        if value is not None:
            lines.append(f"  {word:<14} {'true' if value else 'false'}")
            continue
        note = "" if changed or robot != [row, column, heading] else "   (no effect)"
        row, column, heading = robot
        markers = f"   markers here: {changed[0][1]}" if changed else ""
        lines.append(f"  {word:<14} {_format_pose(row, column, heading)}{markers}{note}")
    if len(steps) > MAX_SHOWN_STEPS:
        lines.append(f"  ... {len(steps) - MAX_SHOWN_STEPS} more")
    return lines


def _format_pose(row: int, column: int, heading: int) -> str:
    return f"row {row}, column {column}, facing {HEADINGS[heading]}"


def _quoted(text: str) -> str:
    """A model's text on one line of a terminal."""
    plain = spell_hidden(" ".join(text.split()))
    return plain if len(plain) <= MAX_SHOWN_TEXT else f"{plain[:MAX_SHOWN_TEXT]}... ({len(text):,} characters)"


def execute(options: ShowOptions) -> int:
    """Print what the options select; returns the exit code."""
    run = read_shown_run(options.folder, options.suite)
    if options.task is not None:
        print(format_task(run, options.task, options.prompt))
        return 0
    if not options.failed:
        print(format_outcomes(run))
        return 0
    failed = [int(sample["task"]) for sample in run.samples if outcome_of(sample) != SOLVED]
    print(
        "\n\n".join(format_task(run, number, options.prompt) for number in failed[: options.count])
        or "every task is solved"
    )
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    argv = sys.argv[1:] if arguments is None else list(arguments)
    return run_command(lambda: execute(parse_options(ShowOptions, argv, "show", module=MODULE)))


if __name__ == "__main__":
    sys.exit(main())
