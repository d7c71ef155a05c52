"""Entries of `submission.yaml` that no file of a run tells: each stands there as a question until its authors answer it.

A question is the entry's value, `? ` and what to write. No entry of a submission may begin so, and `find_questions` lists
all that do, so that none is left unnoticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.artifacts import DESCRIPTION
from benchmark.errors import SubmissionError
from benchmark.files import sanitize
from benchmark.submit.artifacts.listing import read_description

MARK = "? "
FAMILY, AUTHORS, LICENCE = "family", "authors", "licence"
DATA, ALTERNATIVES = "training.data", "training.alternative_semantics_seen"
QUESTIONS = {
    FAMILY: "family of the model, by which rows are grouped, such as llama",
    AUTHORS: "names of the authors of the model, one an item",
    LICENCE: "licence of the weights as an SPDX expression, such as Apache-2.0 or LicenseRef-Name",
    DATA: "what the model was trained on, in one line",
    ALTERNATIVES: "did its training have Karel words with other meanings: true, false, or null if unknown",
}
"""What to write for an entry that is not known."""
OPTIONS = {
    FAMILY: "--family",
    AUTHORS: "--author",
    LICENCE: "--licence",
    DATA: "--data",
    ALTERNATIVES: "--alternatives",
}
"""The option of `submit new` that answers a question."""


def question(field: str) -> str:
    """The value of an entry that is not known."""
    return MARK + QUESTIONS[field]


def is_question(value: object) -> bool:
    """Whether the value of an entry, or an item of a list, is a question."""
    return isinstance(value, str) and value.startswith(MARK.strip())


def find_questions(description: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """The entries of a description that are questions, and what to write there.

    Args:
        description: the parsed `submission.yaml`, which need not be valid.
        prefix: path of the mapping within it.
    """
    questions: dict[str, str] = {}
    for name, value in description.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            questions |= find_questions(value, f"{path}.")
        elif is_question(value) or (isinstance(value, list) and any(is_question(item) for item in value)):
            questions[path if path in QUESTIONS else sanitize(path)] = QUESTIONS.get(path, "the entry's value")
    return questions


def list_questions(questions: Mapping[str, str], with_options: bool = False) -> str:
    """A line per open entry: its path, what to write, and with `with_options` the option of `submit new` that says it."""
    width = max(map(len, questions), default=0)
    lines = []
    for path, text in questions.items():
        option = f"  ({OPTIONS[path]})" if with_options and path in OPTIONS else ""
        lines.append(f"  {path:<{width}}  {text}{option}")
    return "\n".join(lines)


def check_answered(folder: Path) -> None:
    """Print a line for every question in the description of a submission, and refuse it if there are any.

    Raises:
        SubmissionError: an entry is a question, or the description cannot be read.
    """
    questions = find_questions(read_description(folder))
    if questions:
        print(f"{folder.name}: still to write in {DESCRIPTION}:\n{list_questions(questions)}", flush=True)
        raise SubmissionError(f"{DESCRIPTION}: {count_entries(questions)} still a question: {', '.join(questions)}")


def count_entries(questions: Mapping[str, str]) -> str:
    """Such as `1 entry is` or `3 entries are`."""
    return "1 entry is" if len(questions) == 1 else f"{len(questions)} entries are"
