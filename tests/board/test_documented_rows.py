"""Figures of shipped rows that the documentation states are those of their records."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from functools import cache

import pytest
from page_figures import bounds, decimal, full_bounds, page_text, percent_bounds

from benchmark.artifacts import RECORD
from benchmark.installation.paths import SOURCE_ROOT
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.probing.version4.rotation_verdict import RotationResult
from benchmark.probing.version4.track_protocol import FEW_PROMPTS
from benchmark.runner.measurement_record import RepresentsRecord, UsesRecord, read_measurement
from benchmark.runner.record import read_record
from benchmark.submit.schema import read_submission
from benchmark.tasks.prompt_template import TRAINED

DOCS, ROWS = SOURCE_ROOT / "docs", SOURCE_ROOT / "submissions"
NETWORKS = {
    suite: sorted(
        folder.parent.name
        for folder in ROWS.glob(f"*/{RECORD}")
        if (record := read_record(folder)).suite.name == suite
        and record.track == TRAINED
        and (represents_record := read_measurement(RepresentsRecord, folder.parent)) is not None
        and not represents_record.few_programs
    )
    for suite in ("laptop", "icml24", "colm24")
}
"""Folders of the networks that were trained on a suite of straight-line programs and read from all of them, by suite."""
TEXTS = {name: page_text(name) for name in ("baselines.md", "causal.md", "pretrained.md", "protocol4.md")}


@cache
def uses(row: str) -> UsesRecord:
    record = read_measurement(UsesRecord, ROWS / row)
    assert record is not None
    return record


def represents(row: str) -> RotationResult:
    record = read_measurement(RepresentsRecord, ROWS / row)
    assert record is not None
    return record.rotation


@pytest.mark.parametrize(
    "row",
    [
        "2026-11-28_smollm2-135m-instruct", "2026-11-28_gemma-3-270m", "2026-11-30_qwen2.5-coder-0.5b-instruct",
        "2026-11-29_smollm2-135m-executes",
    ],
)  # fmt: skip
def test_pretrained_md_has_the_figures_of_the_rows(row):
    text, figures = (DOCS / "pretrained.md").read_text(), represents(row)
    for name in ("skill", "delta", "pose_delta", "arithmetic"):
        assert bounds(getattr(figures, name), "+") in text, name


def test_pretrained_md_has_the_row_of_the_model_that_was_trained_to_write():
    row = ROWS / "2026-11-30_smollm2-135m-writes"
    figures, record, page = represents(row.name), read_record(row / RECORD), TEXTS["pretrained.md"]
    shown, held_out = (percent_bounds(e, "%") for e in (record.accuracy.shown, record.accuracy.held_out))
    num_programs = round(record.accuracy.distinct * record.accuracy.shown.n)
    assert f"| {shown}, with {num_programs} different programs, all valid |" in page
    assert f"| solves, held-out example | {held_out} |" in page
    assert record.accuracy.valid.value == 1
    assert f"| {figures.verdict}: {figures.reason} |" in page
    for title, name in {
        "skill of rotation": "skill", "delta": "delta", "pose delta": "pose_delta", "arithmetic": "arithmetic",
    }.items():  # fmt: skip
        assert f"| {title} | {bounds(getattr(figures, name), '+')} |" in page
    counts = ", ".join(decimal(figures.label_skills[name]) for name in ("lr11", "pu"))
    assert f"skill | {counts} |" in page
    for title, name in (("rotation", "skill"), ("executed record", "record_skill")):
        values = ", ".join(decimal(getattr(word, name), places=2) for word in figures.curve)
        assert f"| {values} |" in page, title
    uses = read_measurement(UsesRecord, row)
    assert uses is not None
    assert f"| *Uses* | {uses.use.verdict}: {uses.use.reason} |" in page
    assert f"| *Merges* | {bounds(uses.merges.merges)}, floor {bounds(uses.merges.floor)} |" in page


def test_pretrained_md_compares_it_with_the_series_of_gpts():
    points = list(csv.DictReader((DOCS / "emergence" / "gpt-laptop" / "points.csv").read_text().splitlines()))
    solved, deltas = (
        {
            tasks: sorted(float(point[column]) for point in points if point["tasks"] == str(tasks))
            for tasks in (8064, 32000)
        }
        for column in ("shown", "rotation_delta")
    )
    assert len(solved[8064]) == len(solved[32000]) == 5
    first, later = (f"{100 * values[0]:.1f} to {100 * values[-1]:.1f}%" for values in solved.values())
    assert f"solve {first} after as many tasks (8,064), and {later} after 32,000" in TEXTS["pretrained.md"]
    said = f"(delta {decimal(deltas[32000][-1])} to {decimal(deltas[32000][0])} after 32,000 tasks)"
    assert said in TEXTS["pretrained.md"]


def test_pretrained_md_has_the_answers_of_the_code_model():
    row = ROWS / "2026-11-30_qwen2.5-coder-0.5b-instruct"
    accuracy = read_record(row / RECORD).accuracy
    texts = Counter(
        sample["text"].strip()
        for line in gzip.decompress((row / "samples.jsonl.gz").read_bytes()).decode().splitlines()
        if (sample := json.loads(line))["stage"] == "test"
    )
    ((program, count),) = texts.most_common(1)
    page = TEXTS["pretrained.md"]
    shown, held_out = (percent_bounds(e, "%") for e in (accuracy.shown, accuracy.held_out))
    assert f"solves {shown} of the tasks on the shown examples and {held_out} on the held-out ones" in page
    assert len(texts) == 5
    assert f"with five programs, {count} of them with `{program.removesuffix(' }')}`" in page


def test_baselines_md_has_the_figures_of_gpt_control():
    text, figures = (DOCS / "baselines.md").read_text(), represents("2026-11-30_gpt-control")
    assert figures.verdict == "INCONCLUSIVE"
    assert f"delta {bounds(figures.delta)}, {figures.unseen_rows:,} rows" in text
    for title, name in (("rotation", "skill"), ("executed record", "record_skill")):
        assert f"| {title} | {' | '.join(decimal(getattr(word, name), places=2) for word in figures.curve)} |" in text
    for value in (figures.skill_alternatives, figures.skill.value, figures.label_skills["lr11"]):
        assert f"({decimal(value)})" in text
    assert f"(delta {bounds(represents('2026-11-30_gpt-control-generalize').delta)})" in text


@pytest.mark.parametrize("row", NETWORKS["laptop"])
def test_baselines_md_has_every_network_of_laptop(row):
    accuracy, rotation, measured = read_record(ROWS / row / RECORD).accuracy, represents(row), uses(row)
    cells = [
        f"{100 * accuracy.shown.value:.1f}", f"{100 * accuracy.held_out.value:.1f}",
        f"{rotation.verdict} {decimal(rotation.delta.value)}", f"{measured.use.verdict} {decimal(measured.use.use.value)}",
        decimal(measured.merges.merges.value),
    ]  # fmt: skip
    assert f"| {' | '.join(cells)} |" in TEXTS["baselines.md"]


@pytest.mark.parametrize("row", NETWORKS["laptop"])
def test_causal_md_has_every_network_of_laptop(row):
    use, merges = uses(row).use, uses(row).merges
    name = read_submission(ROWS / row).name
    cells = [
        full_bounds(use.strict.steered), full_bounds(use.every.steered), f"{use.strict.controls['look-up'].value:.3f}",
        full_bounds(use.strict.margin), use.verdict, full_bounds(merges.merges),
    ]  # fmt: skip
    assert f"| {name} | {uses(row).sites[use.site]} | {' | '.join(cells)} |" in TEXTS["causal.md"]


@pytest.mark.parametrize("row", [row for rows in NETWORKS.values() for row in rows])
def test_protocol4_md_has_every_network(row):
    rotation, name = represents(row), read_submission(ROWS / row).name
    figures = [full_bounds(getattr(rotation, figure), "+") for figure in ("delta", "pose_delta", "arithmetic")]
    cells = [name, rotation.verdict, f"{rotation.skill.value:.3f}", *figures, uses(row).use.verdict]
    assert f"| {' | '.join(cells)} |" in TEXTS["protocol4.md"]


def test_protocol4_md_has_the_figures_of_few_programs():
    files = sorted((DOCS / "few_programs").glob("20*.json"))
    assert len(files) == 7
    steps = []
    for file in files:
        record = RepresentsRecord.model_validate_json(file.read_text())
        row = read_record(ROWS / file.stem / RECORD)
        assert (record.few_programs, record.model.digest, record.unofficial) == (True, row.model.digest, [])
        few, all_programs = record.rotation, represents(file.stem)
        cells = [
            bounds(getattr(result, name), "+") for name in ("delta", "arithmetic") for result in (all_programs, few)
        ]
        verdicts = f"{all_programs.verdict} | {few.verdict}"
        assert f"| {file.stem.partition('_')[2]} | {verdicts} | {' | '.join(cells)} |" in TEXTS["protocol4.md"]
        steps.append(few.arithmetic.value - all_programs.arithmetic.value)
    said = f"Arithmetic is larger in all seven, by {decimal(min(steps))} to {decimal(max(steps))}"
    assert said in TEXTS["protocol4.md"]


def test_protocol4_md_has_the_known_answers_of_few_programs():
    record = json.loads((DOCS / "few_programs" / "known_answers.json").read_text())
    bounds_of = {
        "delta": ROTATION_STANDARD.margin, "pose_delta": ROTATION_STANDARD.margin,
        "arithmetic": ROTATION_STANDARD.arithmetic_margin,
    }  # fmt: skip
    assert (record["prompts"], record["probe_seeds"]) == (FEW_PROMPTS, 3)
    found = {"N": [], "M": [], "R": []}
    for cell in record["cells"]:
        assert cell["unseen_rows"] == 921
        found[cell["kind"]].append(all(cell[name][1] > bound for name, bound in bounds_of.items()))
    assert not any(found["N"] + found["M"])
    said = (
        f"none of {len(found['N'])} pseudo-models of kind N and none of {len(found['M'])} of M meets all three, and "
        f"{sum(found['R'])} of {len(found['R'])} of R do"
    )
    assert said in TEXTS["protocol4.md"]
