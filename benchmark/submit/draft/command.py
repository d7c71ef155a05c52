"""`karel-bench submit new`: a submission from a finished run, checked, with where its row would stand and how to propose it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.artifacts import DESCRIPTION
from benchmark.cli.declare import argument, option, program_name
from benchmark.files import read_yaml
from benchmark.submit.draft.proposal import describe_clone, describe_proposal
from benchmark.submit.draft.questions import ALTERNATIVES, AUTHORS, DATA, FAMILY, LICENCE, list_questions
from benchmark.submit.draft.scaffold import Draft, scaffold
from karel_env.command import integer

ANSWERS = {"yes": True, "no": False, "unknown": None}


@dataclass(frozen=True, kw_only=True)
class NewOptions:
    """Create a submission from a finished run."""

    name: str | None = argument("name of the submission, such as my-llama; without it, that of the model", None)
    run: Path = option(..., "name the run folder, as karel-bench run prints it", metavar="FOLDER")
    family: str | None = option(None, "name the family of the model, such as llama")
    authors: tuple[str, ...] = option((), "name an author; repeatable", flag="--author", metavar="NAME", many=True)
    licence: str | None = option(None, "name the licence of the weights, such as Apache-2.0", metavar="SPDX")
    data: str | None = option(None, "say in a line what the model was trained on", metavar="TEXT")
    alternatives: str | None = option(
        None, "say whether its training had Karel words with other meanings", choices=tuple(ANSWERS)
    )
    attempts: int | None = option(
        None, "state the number of models evaluated on this test set before choosing this one, including it",
        read_with=integer(1, 1_000_000), metavar="N", default_text="the models with a finished run next to this one",
    )  # fmt: skip
    withheld: bool = option(False, "do not publish the weights")

    def authored_entries(self) -> dict[str, Any]:
        """The entries of `submission.yaml` that options give, by path."""
        entries = {
            FAMILY: self.family, AUTHORS: list(self.authors) or None, LICENCE: self.licence, DATA: self.data,
            "attempts": self.attempts,
        }  # fmt: skip
        stated: dict[str, Any] = {path: value for path, value in entries.items() if value is not None}
        return stated if self.alternatives is None else stated | {ALTERNATIVES: ANSWERS[self.alternatives]}


def run_new(submissions: Path, options: NewOptions, verify_folder: Callable[[Path], int]) -> int:
    """Create the folder of a submission; returns the exit code.

    Args:
        submissions: folder of all submissions.
        options: options of the command.
        verify_folder: verifies the new folder as `submit verify` does, if no entry is open, and returns the exit code.
    """
    from benchmark.board.preview.standing import format_standing, read_standing

    if note := describe_clone(submissions):
        print(note, file=sys.stderr)
    draft = scaffold(options.run, submissions, options.name, options.authored_entries(), options.withheld)
    print(f"wrote {draft.folder}\n{_describe_entries(draft)}\n")
    print(f"{format_standing(read_standing(draft.folder, submissions))}\n")
    if draft.questions:
        print(
            f"still to write in {draft.folder / DESCRIPTION}, or remove the folder and give it as an option:\n"
            f"{list_questions(draft.questions, with_options=True)}\n"
            f"then: {program_name('submit')} verify {draft.folder.name}\n"
        )
    elif exit_code := verify_folder(draft.folder):
        return exit_code
    print(describe_proposal(draft.folder))
    return 0


def _describe_entries(draft: Draft) -> str:
    """A line per entry that was filled in from elsewhere than the record: its value and source."""
    entries = read_yaml(draft.folder / DESCRIPTION)
    lines = []
    for path, source in draft.sources.items():
        value: Any = entries
        for name in path.split("."):
            value = value[name]
        parts = value if isinstance(value, list) else [value]
        text = ", ".join(part if isinstance(part, str) else json.dumps(part) for part in parts)
        lines.append((path, text if len(text) <= 40 else f"{text[:37]}...", source))
    if not lines:
        return ""
    widths = [max(len(line[i]) for line in lines) for i in range(2)]
    rows = [f"  {path:<{widths[0]}}  {text:<{widths[1]}}  from {source}" for path, text, source in lines]
    return "\n".join(["filled in; correct what is wrong:", *rows])
