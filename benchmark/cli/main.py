"""The command `karel-bench`: finds a subcommand and runs it. A subcommand's module is imported only when it is named."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.cli.declare import CONSOLE_SCRIPT, dispatched
from benchmark.command import run_command
from benchmark.errors import UsageError
from karel_env.command import nearest, quoted


@dataclass(frozen=True)
class Subcommand:
    """One subcommand.

    Attributes:
        module: module whose function `main` takes the arguments.
        help: what it does, as its options class says.
    """

    module: str
    help: str


SUBCOMMANDS = {
    "run": Subcommand("benchmark.run", "Evaluate a causal language model on a suite."),
    "sweep": Subcommand("benchmark.sweep", "Evaluate many models as one queue."),
    "status": Subcommand("benchmark.status", "Print the progress of a run."),
    "doctor": Subcommand("benchmark.doctor.command", "Check a model before a run."),
    "causal": Subcommand("benchmark.causal.command", "Measure whether a model uses its state, by edits with controls."),
    "layers": Subcommand("benchmark.layers.command", "Probe every layer of a model for the robot's rotation."),
    "length": Subcommand("benchmark.length.command", "Measure how far a model keeps the robot's rotation in longer programs."),
    "ladder": Subcommand("benchmark.ladder.command", "Ask a model what programs do, from their last action to where the robot ends."),
    "execution": Subcommand("benchmark.causal.execution.command", "Measure whether a model that executes programs uses its state, by edits with controls."),
    "list": Subcommand("benchmark.cli.listing", "List the suites, baselines, recipes and models that can be named."),
    "show": Subcommand("benchmark.board.terminal.show", "Show what a model wrote for the tasks of a run or of a submission."),
    "board": Subcommand("benchmark.board.command", "Print the leaderboard, or show one run as it would stand there."),
    "execute": Subcommand("benchmark.cli.execute", "Execute programs: tasks as JSON lines on standard input, results on standard output."),
    "prompts": Subcommand("benchmark.exchange.prompts", "Write the probe prompts of a suite for another engine."),
    "measure": Subcommand("benchmark.exchange.measure", "Measure states that another engine read."),
    "compare": Subcommand("benchmark.board.comparison", "Compare two models on the same tasks and probed programs."),
    "measurements": Subcommand("benchmark.submit.measurements.command", "Add measurements to the folder of a run or of a submission."),
    "submit": Subcommand("benchmark.submit.command", "Create, validate and verify submissions; see docs/submitting.md."),
    "export": Subcommand("benchmark.submit.export.command", "Export a submission to a format of the Hub or of another tool."),
    "leaderboard": Subcommand("benchmark.board.tables", "Write leaderboard.md, leaderboard.json and leaderboard.csv."),
    "overview": Subcommand("benchmark.board.overview", "Draw what the rows of a suite represent and use in one figure."),
    "page": Subcommand("benchmark.board.page", "Write the leaderboard as a static site."),
    "train": Subcommand("baselines.train", "Train a baseline from a recipe."),
    "tune": Subcommand("baselines.tune", "Fine-tune a pretrained model to execute programs, or to write them."),
    "smollm2": Subcommand("baselines.smollm2", "Convert SmolLM2-135M-Instruct to a folder of transformers."),
    "emergence": Subcommand("benchmark.emergence.command", "Measure the checkpoints of training runs."),
    "hub": Subcommand("benchmark.emergence.hub", "Lay out the checkpoints of a training as revisions of a hub repository, with model cards."),
    "calibrate": Subcommand("benchmark.calibrate.command", "Measure pseudo-models with known outcomes."),
    "legacy": Subcommand("benchmark.calibrate.legacy_command", "Probe a model by the released recipe of Jin & Rinard 2024, flaws included."),
    "reproduction": Subcommand("benchmark.reproduction.command", "Measure the semantic content of Jin & Rinard 2024, beside what needs no state to reach it."),
    "relative": Subcommand("benchmark.relative.command", "Measure rotation and displacement with sampled records, control flow included."),
    "bench": Subcommand("benchmark.bench.command", "Measure speed: of probing, generation, Ray workers, training or the interpreter."),
    "sealed": Subcommand("benchmark.submit.sealed", "Manage evaluation rounds with a secret seed."),
    "incoming": Subcommand("benchmark.review.pull_request", "Check a pull request that changes submissions."),
}  # fmt: skip


def help_text() -> str:
    """The help of the command: every subcommand on a line."""
    width = max(map(len, SUBCOMMANDS))
    lines = [f"  {name:{width}}  {subcommand.help}" for name, subcommand in SUBCOMMANDS.items()]
    return "\n".join(
        [
            f"usage: {CONSOLE_SCRIPT} COMMAND [OPTIONS]",
            "",
            "Evaluate language models on Karel: do they write programs, and represent what programs mean?",
            "",
            *lines,
            "",
            f"Options of a command: {CONSOLE_SCRIPT} COMMAND --help. Exit codes: 0 done, 1 run incomplete, 2 usage,",
            "3 invalid model or submission, 4 verification mismatch. What a message means: docs/errors/index.md.",
        ]
    )


def version_text() -> str:
    """Name and version of the installed package."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{CONSOLE_SCRIPT} {version('karel-semantics-benchmark')}"
    except PackageNotFoundError:
        return f"{CONSOLE_SCRIPT} (not installed)"


def _answer(arguments: Sequence[str]) -> int:
    """Answer a command line without a subcommand; returns the exit code."""
    if not arguments:
        raise UsageError(f"expected a command: {', '.join(SUBCOMMANDS)}; see {CONSOLE_SCRIPT} --help")
    if arguments[0] in ("-h", "--help"):
        print(help_text())
    elif arguments[0] == "--version":
        print(version_text())
    else:
        hint = nearest(arguments[0], (*SUBCOMMANDS, "--help", "--version"))
        raise UsageError(f"{quoted(arguments[0])}: no such command{hint}; see {CONSOLE_SCRIPT} --help")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    argv = sys.argv[1:] if arguments is None else list(arguments)
    subcommand = SUBCOMMANDS.get(argv[0]) if argv else None
    if subcommand is None:
        return run_command(lambda: _answer(argv))
    with dispatched():
        exit_code: int = importlib.import_module(subcommand.module).main(argv[1:])
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
