"""Guards that a small slip would open: formulas in the table, tolerances, statuses, flags, references, addresses."""

from __future__ import annotations

import csv
import json
import shutil
import struct
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hostile import PNG, entry, sample, svg

from benchmark.board.page import main as write_page
from benchmark.board.ranking import rank_groups, read_leaderboard_rows
from benchmark.board.tables import to_csv, to_json
from benchmark.errors import SubmissionError, VerificationError
from benchmark.runner.record import read_record
from benchmark.submit.command import write_status
from benchmark.submit.folder import files_digest, screen_folder
from benchmark.submit.schema import read_status, read_submission
from benchmark.submit.screening import check_image
from benchmark.submit.verify import check_stored_verdict, validate, verify

SUBMISSIONS = Path(__file__).parents[2] / "submissions"
PLAIN, NETWORK = "2026-11-25_n-gram", "2026-11-25_gpt-laptop"
RECORD = "record.json"
DECIMALS = 1e-5
"""Ten times the tolerance of stored figures; a row shows a hundred times as much."""
ROUNDED = 2e-7
"""What another processor's sums may differ by."""

# With the file that draws the same tasks and probe sets, which a process keeps.


@pytest.fixture
def copied(tmp_path):
    """Call it with a name for a copy of a shipped submission."""

    def copy(name: str) -> Path:
        shutil.copytree(SUBMISSIONS / name, tmp_path / name, ignore=shutil.ignore_patterns("status.json"))
        return tmp_path / name

    return copy


@pytest.fixture(scope="module")
def plain_entry(tmp_path_factory):
    """One shipped row before it is ranked."""
    folder = tmp_path_factory.mktemp("row")
    shutil.copytree(SUBMISSIONS / PLAIN, folder / PLAIN)
    (row,) = read_leaderboard_rows(folder)
    return row


@pytest.mark.parametrize("start", list("=+-@\t\r"))
def test_no_cell_of_the_table_starts_a_formula(plain_entry, start):
    """Whatever a submitter writes, in any column; numbers stay numbers."""
    text = f"{start}cmd|' /C calc'!A0"
    declared = plain_entry.declared.model_copy(update={"family": text, "name": text})
    row = replace(plain_entry, declared=declared, folder=text, status=text)
    (cells,) = csv.DictReader(to_csv(rank_groups([row])).splitlines())
    shown = text.replace("\r", "U+000D")
    assert {cells[column] for column in ("family", "model", "submission", "status")} == {f"'{shown}"}
    assert not any(cell.startswith(tuple("=+-@\t\r")) for cell in cells.values())


def test_a_number_below_zero_stays_a_number(plain_entry):
    shown = replace(plain_entry.record.accuracy.shown, low=-0.25)
    accuracy = replace(plain_entry.record.accuracy, shown=shown)
    row = replace(plain_entry, record=plain_entry.record.model_copy(update={"accuracy": accuracy}))
    (cells,) = csv.DictReader(to_csv(rank_groups([row])).splitlines())
    assert cells["shown_low"] == "-0.25"
    assert json.loads(to_json(rank_groups([row])))["groups"][0]["rows"][0]["shown"]["low"] == -0.25


def figures(value: Any, entry_path: str) -> Iterator[str]:
    """Places of the floats in a nested entry."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from figures(inner, f"{entry_path}.{name}")
    elif isinstance(value, float):
        yield entry_path


def shifted(record: dict[str, Any], entry_path: str, by: float) -> None:
    inner: Any = record
    *direction, last = entry_path.split(".")
    for step in direction:
        inner = inner[step]
    # Towards the middle, so that a share stays one.
    inner[last] += by if inner[last] < 0.5 else -by


def stored_figures(record: dict[str, Any]) -> list[str]:
    """Places of all figures that verification computes again."""
    meaning = record["meaning"] or {"features": {}, "diagnostics": {}}
    majority = [f"meaning.diagnostics.{name}.majority" for name in meaning["diagnostics"]]
    return sorted(
        [*figures(record["accuracy"], "accuracy"), *figures(meaning["features"], "meaning.features"), *majority]
    )


@pytest.mark.parametrize("name", [PLAIN, NETWORK])
def test_every_figure_is_compared_to_the_fifth_decimal(name, copied):
    """All figures of a record are moved, some within rounding: verification names the others, and nothing else."""
    folder = copied(name)
    record = json.loads((folder / RECORD).read_text())
    entry_paths = stored_figures(record)
    assert len(entry_paths) >= (300 if name == NETWORK else 15)
    rounded = {entry_path for entry_path in entry_paths[::5] if entry_path.startswith("meaning.")}
    for entry_path in entry_paths:
        shifted(record, entry_path, ROUNDED if entry_path in rounded else DECIMALS)
    (folder / RECORD).write_text(json.dumps(record))
    assert {mismatch.entry for mismatch in verify(folder).mismatches} == set(entry_paths) - rounded


@pytest.mark.parametrize(
    ("entry_path", "refused"),
    [("meaning.features.facing.delta.low", True), ("meaning.features.obstacle.skill.value", True), ("", False)],
)
def test_a_board_is_written_of_what_the_arrays_give_to_the_fifth_decimal(entry_path, refused, copied):
    folder = copied(NETWORK)
    record = json.loads((folder / RECORD).read_text())
    for neighbour in stored_figures(record):
        shifted(record, neighbour, DECIMALS if neighbour == entry_path else ROUNDED)
    (folder / RECORD).write_text(json.dumps(record))
    with pytest.raises(VerificationError, match=entry_path.split(".", 2)[-1]) if refused else nullcontext():
        check_stored_verdict(folder, read_record(folder / RECORD))


@pytest.mark.parametrize("name", ["shown", "held_out", "exact"])
def test_a_claim_is_held_to_what_it_shows(name, copied):
    folder = copied(PLAIN)
    value = json.loads((folder / RECORD).read_text())["accuracy"][name]["value"]
    entry(f"claimed.{name}", value + 4e-4)(folder)
    assert not verify(folder).mismatches
    entry(f"claimed.{name}", value + 6e-4)(folder)
    assert [mismatch.entry for mismatch in verify(folder).mismatches] == [f"claimed.{name}"]


def test_every_flag_of_a_sample_is_computed_again(copied):
    """What is said of one answer, though all figures stay as they are."""
    folder = copied(PLAIN)
    for line, flag in enumerate(("shown", "held_out", "exact")):
        sample(lambda row, flag=flag: row.update({flag: not row[flag]}), line)(folder)
    sample(lambda row: row.update(outcome="empty" if row["outcome"] != "empty" else "solved"), 3)(folder)
    entries = {mismatch.entry for mismatch in verify(folder).mismatches}
    assert entries == {
        "samples_sha256", "samples.test.0.shown", "samples.test.1.held_out", "samples.test.2.exact",
        "samples.test.3.outcome",
    }  # fmt: skip


def test_flags_that_were_left_out_are_missed(copied):
    folder = copied(PLAIN)
    for line, flag in enumerate(("shown", "held_out", "exact", "outcome")):
        sample(lambda row, flag=flag: row.pop(flag), line)(folder)
    entries = {mismatch.entry for mismatch in verify(folder).mismatches}
    assert entries >= {f"samples.test.{i}.{flag}" for i, flag in enumerate(("shown", "held_out", "exact", "outcome"))}


STATUS = {
    "schema_version": 1, "checked": ["everything"], "audit": None, "source": "0" * 64, "at": "2026-11-25T00:00:00+00:00",
    "rerun": {"share": 0.2, "shards": 1, "samples": 250, "processor": "x"},
}  # fmt: skip


def with_status(folder: Path, status: str, reason: str | None = None) -> None:
    written = STATUS | {"status": status, "reason": reason, "files": files_digest(folder)}
    (folder / "status.json").write_text(json.dumps(written | ({} if status == "reproduced" else {"rerun": None})))


def edit(name: str):
    def edit_folder(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text((folder / name).read_text() + "\n" if (folder / name).is_file() else "new")

    return edit_folder


CHANGES = {
    "description": edit("submission.yaml"), "text": edit("README.md"), "record": edit(RECORD),
    "another file": edit("training.json"), "a figure": edit("figures/new.svg"),
    "a file less": lambda folder: (folder / "README.md").unlink(),
    "another name": lambda folder: (folder / "README.md").rename(folder / "added_tokens.json"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("status", ["validated", "reproduced"])
def test_a_status_lapses_when_any_file_changes(status, change, copied):
    folder = copied(PLAIN)
    with_status(folder, status)
    assert read_status(folder).status == status
    CHANGES[change](folder)
    lapsed = read_status(folder)
    assert (lapsed.status, lapsed.reason) == ("self_reported", "files were changed after the check")


@pytest.mark.parametrize("status", ["flagged", "withdrawn"])
def test_what_stands_apart_stays_so_whatever_changes(status, copied):
    folder = copied(PLAIN)
    with_status(folder, status, "a reason")
    edit("README.md")(folder)
    assert (read_status(folder).status, read_status(folder).reason) == (status, "a reason")


def test_a_board_shows_the_lapsed_status(copied, tmp_path):
    folder = copied(PLAIN)
    with_status(folder, "reproduced")
    assert [row.status for row in read_leaderboard_rows(tmp_path)] == ["reproduced"]
    edit("README.md")(folder)
    assert [row.status for row in read_leaderboard_rows(tmp_path)] == ["self_reported"]


def test_what_was_generated_again_counts_for_the_same_files_only(copied):
    folder = copied(PLAIN)
    with_status(folder, "reproduced")
    report = validate(folder)
    assert write_status(folder, report).status == "reproduced"
    edit("README.md")(folder)
    second_status = write_status(folder, report)
    assert (second_status.status, second_status.rerun) == ("validated", None)


PICTURE = "data:image/png;base64,iVBORw0KGgo="
REFERENCES = [
    "data:text/html,<script>alert(1)</script>", "data:text/html;base64,PHNjcmlwdD4=", "data:image/svg+xml;base64,PHN2Zz4=",
    "data:image/svg+xml,<svg/>", "data:image/png,x", "data:image/png;charset=x;base64,iVBORw0KGgo=",
    "data:image/png;base64", "data:image/jpeg;base64,/9j/", "data:application/javascript,x", "data:,x", "data:",
    "DATA:text/html,x", " data:text/html,x", "\tdata:image/svg+xml,x", "x#a", "//evil.example/x.png", "a.svg#a",
    "file:///etc/passwd", "http://evil.example/#a", "",
]  # fmt: skip


def svg_with(inside: str) -> bytes:
    xlink = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {xlink}>{inside}</svg>'.encode()


def quoted(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


@pytest.mark.parametrize("attribute", ["href", "xlink:href", "src", "HREF"])
@pytest.mark.parametrize("value", REFERENCES)
def test_a_figure_refers_to_nothing_but_itself_and_pictures(attribute, value):
    with pytest.raises(SubmissionError, match=r"reference .*; a figure only draws"):
        check_image("figures/a.svg", svg_with(f'<image {attribute}="{quoted(value)}"/>'))


@pytest.mark.parametrize("value", ["#a", PICTURE])
def test_a_figure_may_hold_pictures_and_refer_to_its_own_parts(value):
    check_image(
        "figures/a.svg", svg_with(f'<image href="{value}"/><use xlink:href="{value}" style="clip-path: url(#a)"/>')
    )


@pytest.mark.parametrize("value", ["url(data:image/svg+xml,x)", "URL( 'http://x' )", r"u\72l(x)", "u/**/rl(x)url(x)"])
@pytest.mark.parametrize("where", ['<g style="fill: {}"/>', "<style>g {{fill: {}}}</style>", '<g fill="{}"/>'])
def test_a_style_fetches_nothing(where, value):
    with pytest.raises(SubmissionError, match=r"style .*; a figure only draws"):
        check_image("figures/a.svg", svg_with(where.format(value)))


@pytest.mark.parametrize(
    "function", ["image-set", "-webkit-image-set", "src", "image", "cross-fade", "paint", "IMAGE-SET"]
)
@pytest.mark.parametrize(
    "where", ['<g style="fill: {}"/>', "<style>g {{fill: {}}}</style>", "<s:style>g {{x: {}}}</s:style>"]
)
def test_a_style_calls_no_function_that_takes_an_address(where, function):
    content = where.format(f"{function}('https://evil.example/x.png' 1x)")
    with pytest.raises(SubmissionError, match=r"style .*; a figure only draws"):
        check_image("figures/a.svg", svg_with(f'<g xmlns:s="http://www.w3.org/2000/svg">{content}</g>'))


def test_a_style_may_turn_and_colour():
    style = "fill: rgb(1, 2, 3); transform: rotate(9deg) translate(calc(1px + 2px), 0)"
    check_image(
        "figures/a.svg", svg_with(f'<style>g {{{style}}}</style><g style="{style}" transform="matrix(1 0 0 1 0 0)"/>')
    )
    check_image("figures/a.svg", svg_with("<title>skill(linear), f (x) of image-set(s)</title><text>src(a)</text>"))


@pytest.mark.parametrize("start", [*range(8186, 8196), 16380, 65532])
def test_a_style_is_read_as_one_wherever_the_parser_cuts_it(start):
    """Character references make the parser hand over what is before and behind them apart."""
    content = f"<style>{'a' * start}{{}}b{{fill:u&#114;&#108;&#40;https://evil.example/x)}}</style>"
    with pytest.raises(SubmissionError, match=r"style .*; a figure only draws"):
        check_image("figures/a.svg", svg_with(content))


@pytest.mark.parametrize("attribute", ["onload", "ONLOAD", "OnClick", "s:onload", "s:OnEnd", "xml:base"])
def test_a_figure_has_no_handler_and_no_other_base(attribute):
    inside = f'<g xmlns:s="http://www.w3.org/2000/svg" {attribute}="https://evil.example/"/>'
    with pytest.raises(SubmissionError, match=r"attribute .*; a figure only draws"):
        check_image("figures/a.svg", svg_with(inside))


@pytest.mark.parametrize(
    ("width", "height", "fits"),
    [(1, 1, True), (8000, 8000, True), (8001, 1, False), (1, 8001, False), (0, 1, False), (1, 0, False),
     (2**32 - 1, 1, False), (1, 2**32 - 1, False)],
)  # fmt: skip
def test_a_picture_is_bounded_on_both_sides(width, height, fits):
    content = PNG + struct.pack(">II", width, height) + bytes(20)
    with nullcontext() if fits else pytest.raises(SubmissionError, match=f"{width} by {height} pixels; at most"):
        check_image("figures/a.png", content)


def test_a_reference_in_a_figure_is_refused_with_its_folder(copied):
    folder = copied(PLAIN)
    svg(f'<image href="{PICTURE}"/>')(folder)
    assert screen_folder(folder)
    svg('<image href="data:image/svg+xml;base64,PHN2Zz4="/>')(folder)
    with pytest.raises(SubmissionError, match="reference 'data:image/svg"):
        screen_folder(folder)


@pytest.mark.parametrize(
    "url",
    ["http://example.org/", "HTTP://example.org/", "http:", "https:", "https://", "https:/example.org", "//example.org",
     "ftp://example.org", "data:text/html,x", "javascript:alert(1)", " https://example.org", "https://example.org/a b",
     "https://example.org/é", "http://https://example.org", "file:///etc/passwd"],
)  # fmt: skip
def test_an_address_of_a_submission_is_a_secure_one(url, copied):
    folder = copied(PLAIN)
    entry("url", url)(folder)
    with pytest.raises(SubmissionError, match=r"^submission\.yaml: url: String should match"):
        read_submission(folder)


def test_a_secure_address_is_taken(copied):
    folder = copied(PLAIN)
    entry("url", "https://example.org/a?b=c#d")(folder)
    assert read_submission(folder).url == "https://example.org/a?b=c#d"


def test_the_page_takes_no_figure_that_its_readings_do_not_give(tmp_path, capsys):
    """A record whose samples were exchanged is not shown."""
    shutil.copytree(SUBMISSIONS / PLAIN, tmp_path / "rows" / PLAIN)
    sample(lambda row: row.update(held_out=not row["held_out"]))(tmp_path / "rows" / PLAIN)
    assert write_page(["--submissions", str(tmp_path / "rows"), "--out", str(tmp_path / "site")]) != 0
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "site").exists()


def test_the_description_is_yaml_that_is_read_once(copied):
    """The entries that the tests above change are those that are read."""
    declared = yaml.safe_load((copied(PLAIN) / "submission.yaml").read_text())
    assert {"name", "family", "claimed"} <= set(declared)
