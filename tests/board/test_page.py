"""The page holds what the records say, fetches nothing, and takes nothing from a submitter for markup."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import re
from itertools import combinations, pairwise

import pytest
from html_reader import Reader
from hypothesis import given, settings
from hypothesis import strategies as st
from measured_rows import write_represents, write_uses
from shown_board import IMAGE, ROWS, SCRIPT, add_hostile, copy_rows, rendered

from benchmark.board.drawing.charts import (
    ChartPoint,
    ChartSeries,
    interval_strip,
    lay_out_chart,
    ticks,
)
from benchmark.board.drawing.label_placement import Box, Label, place_labels
from benchmark.board.page import PAGE_FILE, format_cell, main, make_slug
from benchmark.board.row_page import read_training_log
from benchmark.runner.measurement_record import UsesRecord, read_measurement
from benchmark.runner.record import read_record
from benchmark.statistics import Estimate

# With the file that shows the same rows in a browser: a process draws their tasks once.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return copy_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def plain(folder):
    return rendered(folder)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    target = copy_rows(tmp_path_factory.mktemp("hostile"))
    add_hostile(target)
    return rendered(target)


def test_the_page_is_the_same_twice_and_well_nested(plain, folder):
    assert rendered(folder) == plain
    assert Reader(plain).open == []


def test_the_page_holds_every_figure_of_every_row(plain, folder):
    words = "".join(Reader(plain).texts)
    for row in ROWS:
        record = read_record(folder / row / "record.json")
        for estimate in (record.accuracy.shown, record.accuracy.held_out):
            assert f"{100 * estimate.value:.1f}" in words
            assert f"[{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]" in words
        if record.meaning:
            for one in record.meaning.features.values():
                assert f"{one.delta.value:+.3f} [{one.delta.low:+.3f}, {one.delta.high:+.3f}]" in words
        if record.grid:
            # Nobody can compute it again from what is stored, so it is not published.
            delta = record.grid.slices[2].features["facing"].delta
            assert f"{delta.value:+.3f} ±{(delta.high - delta.low) / 2:.3f}" not in words
        assert record.provenance.commit in words
        assert record.model.digest in words
    assert f"python -m benchmark.run --model path:submissions/{ROWS[1]} --suite laptop --grid full" in words


def test_the_page_holds_every_measurement(plain, folder):
    reader = Reader(plain)
    words = "".join(reader.texts)
    record = read_measurement(UsesRecord, folder / ROWS[0])
    strict = record.use.strict
    for estimate in (strict.steered, strict.use, strict.margin, *strict.controls.values(), record.merges.floor):
        low, high = (round(bound, 3) + 0.0 for bound in (estimate.low, estimate.high))
        assert f"{estimate.value:.3f} [{low:.3f}, {high:.3f}]" in words
    assert "+0.324 [+0.307, +0.340]" in words
    assert "has no states that can be replaced" in words
    sections = [attributes.get("aria-label") for tag, attributes in reader.elements if tag == "section"]
    assert [sections.count(name) for name in ("Represents", "Uses", "Merges")] == [1, 2, 1]
    assert "Known answers of Represents" in words
    assert words.count("Protocol 3: heading in example 0") == 1
    data = json.loads(re.search(r'id="data">(.*?)</script>', plain, re.DOTALL).group(1))
    assert [bool(row["steering"]) for row in data["rows"].values()].count(True) == 1


def test_the_picture_has_a_mark_for_each_row_with_both_figures(tmp_path):
    target = copy_rows(tmp_path / "rows")
    for row in ROWS[1:]:
        write_uses(target / row)
    write_represents(target / ROWS[1])
    text = rendered(target)
    assert text.count("<figcaption>Represents against uses</figcaption>") == 2, "for broad and for narrow screens"
    figure = text.partition("<figcaption>Represents against uses</figcaption>")[2].partition("</figure>")[0]
    assert [name for name in ("gpt-laptop:", "llama-laptop:", "search:") if f'aria-label="{name}' in figure] == [
        "gpt-laptop:", "llama-laptop:",
    ]  # fmt: skip


def test_nothing_is_fetched(plain, hostile):
    for text in (plain, hostile):
        for tag, attributes in Reader(text).elements:
            assert tag not in {"img", "iframe", "object", "embed", "base"}
            assert "src" not in attributes
            assert "style" not in attributes
            assert not any(name.startswith("on") for name in attributes)
            if tag == "link":
                assert attributes["rel"] == "icon"
                assert attributes["href"].startswith("data:image/svg+xml,")
            else:
                assert (attributes.get("href") or "#").startswith(("#", "https://doi.org/", "https://arxiv.org/"))
    style, script = re.search(r"<style>(.*?)</style>.*<script>(.*?)</script>", plain, re.DOTALL).groups()
    assert "url(" not in style
    assert "@import" not in style
    assert re.findall(r"https?://[^\"]*", script) == ["http://www.w3.org/2000/svg"]
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
        assert sink not in script


def test_the_policy_allows_only_what_is_in_the_file(plain):
    policy = next(a["content"] for _, a in Reader(plain).elements if a.get("http-equiv") == "Content-Security-Policy")
    style, script = re.search(r"<style>(.*?)</style>.*<script>(.*?)</script>", plain, re.DOTALL).groups()
    digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in (style, script)]
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def test_what_a_submitter_wrote_is_text(hostile, plain):
    reader = Reader(hostile)
    assert reader.open == []
    count = [sum(tag == "script" for tag, _ in Reader(text).elements) for text in (hostile, plain)]
    assert count == [2, 2]
    words = "".join(reader.texts)
    assert IMAGE in words
    assert SCRIPT in words
    assert f"N/A: {SCRIPT}{IMAGE}." in words
    data = json.loads(re.search(r'id="data">(.*?)</script>', hostile, re.DOTALL).group(1))
    played = [task for plays in data["rows"].values() for task in plays["tasks"] if task["kind"] == "unparsable"]
    assert played[0]["text"] == SCRIPT + IMAGE
    ids = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[A-Za-z0-9-]+", one) for one in ids)


def test_a_row_without_readings_says_so(folder, plain, tmp_path):
    said = "Probe readings per step were not stored for this row."
    assert said not in plain
    assert "search is not a neural network and has no hidden states." in plain
    target = copy_rows(tmp_path / "rows")
    (target / ROWS[1] / "readings.json.gz").unlink()
    assert rendered(target).count(said) == 1


def test_altered_readings_are_refused(tmp_path, capsys):
    target = copy_rows(tmp_path / "rows")
    path = target / ROWS[0] / "readings.json.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    path.write_bytes(gzip.compress(text.replace('"true":[[0', '"true":[[1', 1).encode()))
    assert main(["--submissions", str(target), "--out", str(tmp_path / "site")]) == 4
    message = capsys.readouterr().err
    assert "readings.json.gz" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "site" / PAGE_FILE).exists()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"log": [{"step": "x", "loss": 1}]}', '{"log": [{"step": 1, "loss": 1e999}]}']
)
def test_a_training_log_that_is_none_is_left_out(tmp_path, text):
    (tmp_path / "training.json").write_text(text)
    assert read_training_log(tmp_path) == []
    (tmp_path / "training.json").write_text('{"log": [{"step": 1, "loss": 2.5}, {"step": 2}]}')
    assert read_training_log(tmp_path) == [(1.0, 2.5)]


def test_fragments_are_plain_and_differ():
    taken: set[str] = set()
    found = [make_slug(text, taken) for text in ("a b", "a_b", "<script>", "", "é")]
    assert found == ["a-b", "a-b-2", "script", "row", "row-2"]


def test_a_cell_is_sorted_by_its_value_and_missing_is_not_0():
    cell = format_cell("held_out", Estimate(0.5, 0.4, 0.6, 9))
    assert (cell.value, cell.interval, cell.order, cell.n) == ("50.0", "[40.0, 60.0]", 0.5, 9)
    assert format_cell("delta", None).order is None
    assert format_cell("delta", Estimate(0.0, -0.1, 0.1, 9)).order == 0.0


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.02, 0.19), (0, 0), (3, 1234), (-5, -4)])
def test_ticks_are_round_and_hold_the_range(low, high):
    found = ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert 2 <= len(found) <= 8
    steps = {round(b - a, 9) for a, b in pairwise(found)}
    assert len(steps) == 1
    assert f"{steps.pop():e}"[0] in "125"


def test_a_chart_puts_points_in_proportion():
    delta = Estimate(0.2, 0.1, 0.3, 5)
    made = lay_out_chart(
        "t",
        "x",
        "y",
        [
            ChartSeries(
                "s", 0, [ChartPoint(0, 0, "a"), ChartPoint(50, 0.2, "b", y_interval=delta), ChartPoint(100, None, "c")]
            )
        ],
    )
    a, b, c = made.series[0].marks
    assert b.x - a.x == pytest.approx(c.x - b.x, abs=0.2)
    (top, _), (bottom, _) = made.y_ticks[-1], made.y_ticks[0]
    assert (a.y - b.y) / (bottom - top) == pytest.approx(0.2 / 0.3, abs=0.01)
    assert b.y_bar[0] - b.y == pytest.approx(b.y - b.y_bar[1], abs=0.2)
    assert c.y == made.lane > bottom
    logarithmic = lay_out_chart(
        "t", "x", "y", [ChartSeries("s", 0, [ChartPoint(x, 1, "") for x in (10, 100, 1000)], True)], logarithmic=True
    )
    x = [m.x for m in logarithmic.series[0].marks]
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.2)
    assert [words for _, words in logarithmic.x_ticks] == ["10", "100", "1,000"]
    assert logarithmic.series[0].path.count("L") == 2


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(5, 40), st.integers(2, 28)), max_size=14, unique=True))
def test_labels_are_apart_from_each_other_and_from_marks(grid):
    """Marks at least 10 pixels apart, in a chart with room for all labels."""
    marks, area = [(10.0 * x, 10.0 * y) for x, y in grid], Box(0, 0, 460, 300)
    texts = [f"m-{i}" for i in range(len(marks))]
    labels = place_labels(marks, texts, [], area)
    boxes = [label.box(text) for label, text in zip(labels, texts, strict=True)]
    assert all(area.contains(box) for box in boxes)
    assert all(a.overlap(b) == 0 for a, b in combinations(boxes, 2))
    assert all(not (box.left < x < box.right and box.top < y < box.bottom) for box in boxes for x, y in marks)


def test_a_label_with_room_is_beside_its_mark():
    (label,) = place_labels([(100.0, 100.0)], ["model"], [], Box(0, 0, 460, 300))
    assert (label.x, label.y, label.is_left) == (110, 100, False)
    (label,) = place_labels([(450.0, 100.0)], ["model"], [], Box(0, 0, 460, 300))
    assert label.is_left
    assert place_labels([(1.0, 1.0)], [""], [], Box(0, 0, 9, 9)) == [None]


def test_names_of_neighbours_do_not_overlap():
    points = [ChartPoint(80 + i, 0.1 + i / 1000, "", f"model {i}") for i in range(5)]
    drawn = lay_out_chart("t", "x", "y", [ChartSeries("s", 0, points)], x_range=(0, 100))
    boxes = [Label(*mark.label_position, mark.is_left).box(mark.point.label) for mark in drawn.series[0].marks]
    assert all(a.overlap(b) == 0 for a, b in combinations(boxes, 2))


def test_a_strip_shows_the_interval_within_its_ends():
    found = interval_strip(Estimate(0.5, 0.25, 0.75, 4), 0, 1, 64)
    assert (found["start"], found["length"], found["at"]) == (16, 32, 32)
    beyond = interval_strip(Estimate(2.0, 1.5, math.inf, 4), 0, 1, 64)
    assert beyond["at"] == 64
    assert beyond["length"] == 1.5
