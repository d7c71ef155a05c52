"""Execute programs as a filter: `karel-bench execute`, which is `python -m karel_env.run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.cli.declare import option, parse_options
from benchmark.command import explain
from karel_env.command import integer, run_command
from karel_env.limits import EVENT_LIMIT, MAX_EVENTS, MODES

EPILOG = "The forms of a task and of a result are in the docstring of karel_env.run, and in docs/karel_env.md."


@dataclass(frozen=True, kw_only=True)
class ExecuteOptions:
    """Execute programs: tasks as JSON lines on standard input, results on standard output."""

    mode: str = option(MODES[0], "select the effect of an illegal action", choices=MODES)
    max_markers: int | None = option(
        None, "set the largest number of markers per cell", read_with=integer(0, EVENT_LIMIT), metavar="N",
        default_text="no limit",
    )  # fmt: skip
    max_events: int = option(
        MAX_EVENTS, "set the largest number of events per execution", read_with=integer(0, EVENT_LIMIT), metavar="N"
    )
    trace: bool = option(False, "also print the state after every action")


def execute(options: ExecuteOptions) -> int:
    """Execute the tasks; returns the exit code."""
    from karel_env.run import Options, execute_tasks

    return execute_tasks(Options(options.mode, options.max_markers, options.max_events, options.trace))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. It ends when the reader of its output does."""
    return run_command(
        lambda: execute(parse_options(ExecuteOptions, arguments, "execute", EPILOG, "benchmark.cli execute")),
        explain,
        stops=True,
    )
