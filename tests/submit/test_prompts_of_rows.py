"""A row with other few-shot prompts than the suite's own is verified against what it says, and says so on the board."""

from __future__ import annotations

import shutil

import pytest
from forged import edit, read_samples, write_samples
from shipped_rows import SUBMISSIONS

from benchmark.board.ranking import describe_prompts
from benchmark.errors import SubmissionError
from benchmark.runner.record import FrameEntry
from benchmark.runner.record import read_record as read_typed
from benchmark.submit.check_samples import prompt_digests
from benchmark.submit.export.samples import list_samples
from benchmark.submit.measurements.addition import _recorded_prompts
from benchmark.submit.verify import verify
from benchmark.tasks.prompt_template import FEWSHOT, build_prompt_template
from benchmark.tasks.suite import load_suite, set_prompts
from benchmark.tasks.suite import test_tasks as tasks_of
from karel_env.language import HEADER_TEXT, Programs
from karel_env.syntax.dialects import PYTHON, program_bodies
from karel_env.syntax.parser import parse

ROW = "2026-11-28_smollm2-135m-instruct"
OTHER_FILES = ("status.json", "frame.json", "represents.json", "rotation.data")


@pytest.fixture(scope="module")
def rewritten(tmp_path_factory):
    """The few-shot row as if it had been run with two examples, as Python text and without a chat template."""
    folder = tmp_path_factory.mktemp("rows") / ROW
    shutil.copytree(SUBMISSIONS / ROW, folder, ignore=shutil.ignore_patterns(*OTHER_FILES))
    suite = set_prompts(load_suite("laptop"), 2, PYTHON)
    template = build_prompt_template(suite, FEWSHOT)
    digests = prompt_digests(suite, tasks_of(suite), template)
    rows = read_samples(folder)
    for row in rows:
        words = parse(f"{HEADER_TEXT} {row['text']}")
        (body,) = program_bodies(Programs.of([words]), PYTHON)
        row |= {"prompt": digests[row["task"]], "text": row["text"].strip(), "raw": f"{body}\n\ninput"}
    write_samples(folder, rows)
    edit("frame", {"sha256": template.digest, "shots": 2, "chat_template": False, "dialect": PYTHON})(folder)
    return folder


def test_another_number_of_examples_and_dialect_are_verified(rewritten) -> None:
    report = verify(rewritten)
    assert report.mismatches == []
    assert any("prompts' digests" in check for check in report.checks)
    exported = list_samples(report, rewritten)
    assert all(sample.prompt.endswith("def run():") for sample in exported), (
        "the prompts that the samples' digests are of"
    )
    record = read_typed(rewritten / "record.json")
    assert describe_prompts(record) == "fewshot (2 examples, python)"
    assert _recorded_prompts(record) == {"num_fewshot": 2, "dialect": PYTHON}


@pytest.mark.parametrize(
    ("entry", "value", "differs"),
    [("shots", 3, "frame.sha256"), ("dialect", "karel", "frame.sha256"), ("sha256", "0" * 64, "frame.sha256")],
)
def test_what_a_row_says_of_its_prompts_is_compared(entry, value, differs, rewritten) -> None:
    before = (rewritten / "record.json").read_bytes()
    edit(f"frame.{entry}", value)(rewritten)
    try:
        assert differs in [mismatch.entry for mismatch in verify(rewritten).mismatches]
    finally:
        (rewritten / "record.json").write_bytes(before)


@pytest.mark.parametrize(("entry", "value"), [("shots", 10**9), ("dialect", "basic")])
def test_impossible_prompts_are_refused(entry, value, rewritten) -> None:
    before = (rewritten / "record.json").read_bytes()
    edit(f"frame.{entry}", value)(rewritten)
    try:
        with pytest.raises(SubmissionError, match=r"expected 0 to 1000 in karel or python"):
            verify(rewritten)
    finally:
        (rewritten / "record.json").write_bytes(before)


def test_a_row_with_the_suites_own_prompts_says_no_more() -> None:
    record = read_typed(SUBMISSIONS / ROW / "record.json")
    assert record.frame is not None
    assert describe_prompts(record) == "fewshot"
    assert "dialect" not in record.to_json()
    other = record.model_copy(update={"frame": replace_frame(record.frame, shots=1)})
    assert describe_prompts(other) == "fewshot (1 example)"
    assert describe_prompts(record.model_copy(update={"frame": None, "track": "trained"})) == "trained"


def replace_frame(frame: FrameEntry, **values: object) -> FrameEntry:
    return frame.model_copy(update=values)
