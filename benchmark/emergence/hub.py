"""Lay out a series as a hub repository: `python -m benchmark.emergence.hub RUN --repository org/name`.

Writes FOLDER/name/step-N per checkpoint, with the files that load it and a model card, and prints the commands that would publish
them: a revision per checkpoint, and the last one as `main` too. Nothing is published. Exit codes: 0 done, 2 usage, 3 a
checkpoint cannot be opened.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.artifacts import README
from benchmark.cli.declare import argument, option, parse_options
from benchmark.cli.fields import output_dir_option
from benchmark.command import make_folder, run_command, silence_libraries
from benchmark.errors import UsageError

if TYPE_CHECKING:
    from benchmark.emergence.point import CurvePoint
    from benchmark.emergence.series import SeriesCheckpoint

REPOSITORY_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class HubOptions:
    """Lay out the checkpoints of a training as revisions of a hub repository, with model cards."""

    run: str = argument(
        "folder of a training run or of a Trainer, or a spec such as path:FOLDER/checkpoint-{100,200}", metavar="RUN"
    )
    repository: str = option(..., "name the repository", metavar="ORG/NAME")
    points: Path | None = option(
        None, "take the figures of the cards from this JSON file of emergence", metavar="FILE",
        default_text="none, cards without figures",
    )  # fmt: skip
    license: str = option("apache-2.0", "name the licence on the cards, as the hub spells it", metavar="ID")
    output_dir: Path = output_dir_option(Path("runs/hub"), "write a folder of the repository's name into this folder")


def execute(options: HubOptions) -> int:
    """Write the folders and print the commands; returns the exit code."""
    if not REPOSITORY_NAME.fullmatch(options.repository):
        raise UsageError(f"--repository {options.repository}: expected ORG/NAME of letters, digits, dots and dashes")
    make_folder(options.output_dir, "--output-dir")
    from benchmark.emergence.point import read_points
    from benchmark.emergence.series import list_series

    silence_libraries()
    (series,) = list_series([options.run]).values()
    points = {} if options.points is None else {point.step: point for point in read_points(options.points)}
    folders = write_layout(series, options.repository, options.license, points, options.output_dir)
    print(f"wrote {len(folders)} revisions to {folders[0].parent}; to publish them:\n")
    print("\n".join(publishing_commands(options.repository, folders)))
    return 0


def write_layout(
    series: Sequence[SeriesCheckpoint],
    repository: str,
    licence: str,
    points: Mapping[int, CurvePoint],
    folder: Path,
) -> list[Path]:
    """Write a folder per revision, `NAME/step-N`, in order of training.

    Args:
        series: checkpoints of one series, in order.
        repository: `org/name`.
        licence: identifier of the licence on the cards.
        points: points by step; empty for cards without figures.
        folder: where the folder of the repository is written.

    Raises:
        UsageError: the checkpoints have no steps or no files, or the points are of another series.
    """
    from benchmark.emergence.hub_card import revision_of, write_card

    last = series[-1]
    if any(moment.is_ordinal for moment in series):
        raise UsageError("RUN: no file and no name tells the training steps; expected folders such as checkpoint-100")
    if any(moment.checkpoint.is_custom or not moment.checkpoint.has_hidden_states for moment in series):
        raise UsageError("RUN: a model without files of its own; expected folders of transformers")
    if points and last.step not in points:
        raise UsageError(
            f"--points: no point of step {last.step}, the last of RUN; expected the points of the same series"
        )
    folders = []
    for moment in series:
        target = folder / repository.partition("/")[2] / revision_of(moment)
        target.mkdir(parents=True, exist_ok=True)
        _copy_files(moment.checkpoint.folder, target)
        card = write_card(repository, licence, moment, series, points)
        (target / README).write_text(card, encoding="utf-8")
        folders.append(target)
    return folders


def _copy_files(source: Path, target: Path) -> None:
    """Copy configuration, weights, tokenizer and training settings; paths of this machine are reduced to their last part."""
    from benchmark.models.checkpoint import FILE_PATTERNS
    from benchmark.models.json_files import TRAINER_FILE, TRAINING_FILE
    from benchmark.runner.redaction import redact_json_paths

    for path in sorted({path for pattern in FILE_PATTERNS for path in source.glob(pattern) if path.is_file()}):
        content = path.read_bytes()
        if path.name in (TRAINING_FILE, TRAINER_FILE):
            entries = json.loads(content)
            redacted = redact_json_paths(entries)
            content = content if redacted == entries else f"{json.dumps(redacted, indent=1)}\n".encode()
        (target / path.name).write_bytes(content)


def publishing_commands(repository: str, folders: Sequence[Path]) -> list[str]:
    """The commands that publish revisions, in order; the last checkpoint comes last, as `main` too.

    A revision that the hub does not have is created as a branch of `main`, which is empty until the last command.
    """
    uploads = [["hf", "upload", repository, str(path), ".", "--revision", path.name] for path in folders]
    uploads.append(["hf", "upload", repository, str(folders[-1]), "."])
    return [shlex.join(words) for words in uploads]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: execute(parse_options(HubOptions, arguments, "hub", module="benchmark.emergence.hub")))


if __name__ == "__main__":
    sys.exit(main())
