"""Export a submission: `karel-bench export NAME --format FORMAT`.

- `eval-results`: entries of `.eval_results/*.yaml` in a model repository on the Hugging Face Hub.
- `model-index`: metadata of a model card, for the top of its README.md.
- `every-eval-ever`: JSON of the EvalEval Coalition, schema 0.3.0.
- `lm-eval`: results and samples of lm-evaluation-harness 0.4.
- `inspect`: a log of Inspect.

Only a submission that verifies is exported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.cli.declare import argument, option, parse_options
from benchmark.cli.fields import output_file_option, submissions_option
from benchmark.command import make_folder, run_command
from benchmark.errors import UsageError
from benchmark.submit.artifacts.sources import Sources
from benchmark.submit.command import raise_on_mismatch
from benchmark.submit.export.every_eval_ever import to_datastore, to_every_eval_ever
from benchmark.submit.export.hub import to_eval_results, to_model_index
from benchmark.submit.export.inspect_log import to_inspect_log
from benchmark.submit.export.lm_eval import to_lm_eval
from benchmark.submit.export.metrics import BENCHMARK
from benchmark.submit.report import VerificationReport, raise_on_missing
from benchmark.submit.schema import Status, read_status
from benchmark.submit.verify import verify
from karel_env.command import nearest

DOCUMENTS: dict[str, Callable[[VerificationReport, str, Status | None], str]] = {
    "eval-results": to_eval_results, "model-index": to_model_index, "every-eval-ever": to_every_eval_ever,
}  # fmt: skip
"""Formats of one document, which goes to standard output or a file."""
FOLDERS: dict[str, Callable[[VerificationReport, Path, str, Status | None], dict[str, str]]] = {
    "lm-eval": to_lm_eval, "inspect": to_inspect_log, "every-eval-ever": to_datastore,
}  # fmt: skip
"""Formats of files in a folder, whose names their readers know."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Export a submission to a format of the Hub or of another tool."""

    name: str = argument("name of the submission")
    format: str = option(..., "select the format", choices=tuple(sorted(DOCUMENTS.keys() | FOLDERS.keys())))
    dataset: str = option(BENCHMARK, "name the benchmark's data set on the Hub", metavar="ID")
    submissions: Path = submissions_option()
    output_file: Path | None = output_file_option(None, "write this file", "standard output")
    output_dir: Path | None = option(
        None, "write files into this folder, under the names that their readers expect", metavar="FOLDER"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: run(parse_options(ExportOptions, arguments, "export")))


def run(options: ExportOptions) -> int:
    """Verify a submission and write it in the selected format; returns the exit code."""
    folder = options.submissions / options.name
    if not folder.is_dir():
        hint = nearest(options.name, (path.name for path in options.submissions.glob("*/")))
        raise UsageError(f"{options.name}: no such submission; give a folder of {options.submissions}{hint}")
    if options.output_dir is None and options.format not in DOCUMENTS:
        raise UsageError(
            f"--format {options.format}: files with names of their own; expected a folder for them by --output-dir"
        )
    if options.output_dir is not None and (options.format not in FOLDERS or options.output_file is not None):
        raise UsageError(f"--output-dir: only with --format {', '.join(FOLDERS)}, and without --output-file")
    report = verify(folder, sources=Sources.of_user())
    raise_on_mismatch(report)
    raise_on_missing(report)
    status = read_status(folder)
    if options.output_dir is not None:
        make_folder(options.output_dir, "--output-dir")
        for name, text in FOLDERS[options.format](report, folder, options.dataset, status).items():
            (options.output_dir / name).parent.mkdir(parents=True, exist_ok=True)
            (options.output_dir / name).write_text(text, encoding="utf-8")
            print(f"wrote {options.output_dir / name}")
        return 0
    text = DOCUMENTS[options.format](report, options.dataset, status)
    if options.output_file is None:
        sys.stdout.write(text)
    else:
        options.output_file.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
