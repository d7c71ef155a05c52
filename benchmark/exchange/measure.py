"""The verdict on states that another engine read: `python -m benchmark.exchange.measure --states FILE.safetensors`.

The engine read the prompts of `python -m benchmark.exchange.prompts`. The token-history control is computed here; others are
read from the file. Exit codes: 0 done, 2 usage, 3 invalid states.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmark.cli.declare import option, parse_options
from benchmark.cli.fields import probe_seed_option, programs_option
from benchmark.command import run_command
from benchmark.errors import ModelError

if TYPE_CHECKING:
    from benchmark.api.measurement import Measurement
    from benchmark.statistics import Estimate


MODULE = "benchmark.exchange.measure"
EXIT_CODES = "Exit codes: 0 done, 2 usage, 3 invalid states. The form of the file: docs/api.md."
OF_METADATA = "that of the file's metadata"


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """Measure states that another engine read."""

    states: str = option(..., "read the states from this file", metavar="FILE.safetensors")
    suite: str | None = option(None, "name the suite, or give a .yaml file of one's own", default_text=OF_METADATA)
    programs: int | None = programs_option(OF_METADATA)
    seed: int | None = probe_seed_option(OF_METADATA)
    feature: tuple[str, ...] = option(
        (), "report this feature only; repeatable", metavar="NAME", default_text="all", many=True
    )
    json: bool = option(False, "print the result as JSON on standard output")


def execute(options: MeasureOptions) -> int:
    """Measure and print the verdict."""
    # After the options are known to be right: what computes takes seconds to import.
    from rich.console import Console

    from benchmark.api.hidden_states import token_history_control
    from benchmark.api.inputs import InputError
    from benchmark.api.measurement import count_steps, measure
    from benchmark.api.states_file import read_states
    from benchmark.cli.progress import RichProgress
    from benchmark.probing.control_gap import TOKEN_HISTORY

    file = read_states(options.states, suite=options.suite, programs=options.programs, seed=options.seed)
    controls = {**file.controls, TOKEN_HISTORY: token_history_control(file.probes)}
    bars = RichProgress(Console(stderr=True, highlight=False))
    bars.start("probing", count_steps(file.probes, file.hidden, controls))
    try:
        with bars.displayed():
            result = measure(
                file.probes, file.hidden, controls, features=options.feature or None, on_steps=bars.advance
            )
    except InputError as error:
        if str(error).startswith("features:"):
            raise
        raise ModelError(f"{options.states}: {error}") from error
    print(json.dumps(summarize(result)) if options.json else format_result(result))
    if result.missing_controls:
        print(
            f"note: without the control {', '.join(result.missing_controls)} this is not the verdict of a leaderboard row",
            file=sys.stderr,
        )
    return 0


def summarize(result: Measurement) -> dict[str, object]:
    """The result as one JSON object."""
    return {
        "verdict": result.verdict,
        "protocol": result.protocol.version,
        "controls": list(result.controls),
        "missing_controls": list(result.missing_controls),
        "programs": result.result.test_programs,
        "seeds": len(result.protocol.seeds),
        "features": result.rows(),
    }


def format_result(result: Measurement) -> str:
    """The verdict, and a table of the features with 95% intervals."""
    from tabulate import tabulate

    lines = [
        [name, *(_interval(getattr(result.result.features[name], column)) for column in ("skill", "gap", "delta"))]
        for name in result.features
    ]
    head = (
        f"{result.verdict} (protocol v{result.protocol.version}, {result.result.test_programs} test programs, "
        f"{len(result.protocol.seeds)} probe seeds, controls {', '.join(result.controls)})"
    )
    return f"{head}\n{tabulate(lines, ['feature', 'skill', 'gap', 'delta'], disable_numparse=True)}"


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: execute(parse_options(MeasureOptions, arguments, "measure", EXIT_CODES, MODULE)))


if __name__ == "__main__":
    sys.exit(main())
