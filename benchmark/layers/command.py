"""Where in a network is the rotation read? `karel-bench layers --model SPEC`.

Reads the blind set of protocol 4 and probes each layer by itself, of the model and of a randomly initialised copy. Prints a
table and writes NAME-SUITE-layers.json, .csv and .png, the first after each layer; the same command continues. Exit codes: 0
done, 2 usage, 3 the model cannot be loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.cli.declare import option, parse_options
from benchmark.cli.fields import (
    device_option,
    dtype_option,
    model_option,
    output_dir_option,
    suite_option,
    threads_option,
)
from benchmark.cli.measured_model import check_model_options, open_measured_model
from benchmark.cli.suite_note import note_trained_suite
from benchmark.command import note_results_kept, run_command
from benchmark.errors import ModelError
from benchmark.tasks.prompt_template import TRACKS, TRAINED
from karel_env.command import integer

if TYPE_CHECKING:
    from benchmark.cli.result_file import ResultFile
    from benchmark.layers.layer_profile import LayerResult
    from benchmark.probing.version4.measure_rotation import JudgedSuite
    from benchmark.runner.plan import Job


@dataclass(frozen=True, kw_only=True)
class LayersOptions:
    """Probe every layer of a model for the robot's rotation."""

    model: str = model_option("", "none, it must be named")
    suite: str = suite_option(purpose=" that gives worlds and programs")
    track: str = option(TRAINED, "read behind the prompts of this track", choices=TRACKS)
    seeds: int = option(
        2, "set the number of probe seeds, each with a fold of its own", read_with=integer(1, 7), metavar="N"
    )
    step: int = option(1, "probe every N-th layer", read_with=integer(1, 1000), metavar="N")
    trained_only: bool = option(False, "leave out the randomly initialised copy")
    dtype: str = dtype_option()
    device: str = device_option("cpu")
    threads: int = threads_option()
    output_dir: Path = output_dir_option(Path("runs/layers"), "write the results into this folder")


def execute(options: LayersOptions) -> int:
    """Probe all layers and print the table; returns the exit code."""
    spec, device = check_model_options(options.model, options.dtype, options.device, options.output_dir)
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from benchmark.cli.result_file import choose_result_file
    from benchmark.layers.report import MODEL, UNTRAINED, draw_profile, format_profile, to_csv
    from benchmark.probing.version4.measure_rotation import judge_suite
    from benchmark.probing.version4.track_protocol import rotation_protocol
    from benchmark.runner.measurements.represents import rotation_suite
    from benchmark.runner.plan import GenerationOptions, Job
    from benchmark.tasks.suite import load_suite

    checkpoint = open_measured_model(spec, options.threads)
    if not checkpoint.has_hidden_states:
        raise ModelError(f"{spec}: has no hidden states; expected a language model")
    suite, protocol = load_suite(options.suite), rotation_protocol(options.track)
    note_trained_suite(checkpoint, suite)
    job = Job(
        suite, checkpoint, options.dtype, device, 1, threads=options.threads,
        generation=GenerationOptions(track=options.track),
    )  # fmt: skip
    file = choose_result_file(
        options.output_dir, f"{checkpoint.name}-{suite.name}-layers", "benchmark.layers.command", suite,
        digest=checkpoint.digest, dtype=options.dtype, track=options.track, seeds=options.seeds, step=options.step,
    )  # fmt: skip
    judged = judge_suite(rotation_suite(suite), protocol)
    note_results_kept()
    profiles = {
        source: _profile_source(source, copy, job, judged, options, file)
        for source, copy in ((MODEL, None), (UNTRAINED, 0))
        if copy is None or not options.trained_only
    }
    print(format_profile(profiles))
    file.write_beside(".csv", to_csv(profiles).encode())
    draw_profile(profiles, f"{checkpoint.name} on {suite.name}, unseen prefixes", file.beside(".png"))
    print(f"\nwrote {file.path}, .csv and .png")
    return 0


def _profile_source(
    source: str, copy: int | None, job: Job, judged: JudgedSuite, options: LayersOptions, file: ResultFile
) -> list[LayerResult]:
    """Probe the layers that the file does not have, and write it after each."""
    from benchmark.cli.progress import show_progress
    from benchmark.layers.layer_profile import profile_layers
    from benchmark.layers.report import LAYERS, format_result, from_json, to_json
    from benchmark.probing.version4.track_protocol import rotation_protocol
    from benchmark.runner.measurements.represents import read_layers

    content = file.read()
    earlier = from_json(content, source)
    if earlier and sorted(earlier) == content[LAYERS]:
        return list(earlier.values())
    protocol = rotation_protocol(options.track)
    results: list[LayerResult] = []
    with show_progress() as progress:
        progress.start(f"{source}: programs read", len(judged.blind.tasks.programs))
        layers = read_layers(job, judged, copy, options.step, progress.advance)
        progress.start(f"{source}: layers probed", len(layers))
        for result in profile_layers(judged, layers, protocol, range(options.seeds), earlier):
            results.append(result)
            progress.advance(1)
            if result.layer not in earlier:
                progress.write(format_result(source, result))
                file.write(to_json(job.checkpoint.spec, sorted(layers), content, source, results))
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: execute(parse_options(LayersOptions, arguments, "layers", module="benchmark.layers")))


if __name__ == "__main__":
    sys.exit(main())
