"""The board is what the records give, and only official ones enter."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from shipped_rows import SUBMISSIONS, shipped

from benchmark.board.comparison import read_solved_tasks
from benchmark.board.known_answers import read_known_answers
from benchmark.board.paired import mcnemar
from benchmark.board.ranking import (
    LeaderboardRow,
    rank_groups,
    read_calibration,
    read_leaderboard_rows,
    verification_status,
)
from benchmark.board.sections.seed_spread import read_recipes
from benchmark.board.tables import format_card, leaderboard_files, main, render_markdown, row_cells, to_csv
from benchmark.installation.paths import SOURCE_ROOT
from benchmark.runner.folder import PROBES, RunFolder, read_probes
from benchmark.runner.record import read_record
from benchmark.statistics import holm
from benchmark.submit.schema import FLAGGED, WITHDRAWN, read_submission

COPIED = ("2026-11-23_llama-laptop", "2026-11-25_n-gram", "2026-11-25_search-icml24")
"""A network, which has arrays, a baseline of the same suite, and a row of another suite."""


@pytest.fixture
def copied(tmp_path):
    for row_name in COPIED:
        (tmp_path / row_name).mkdir()
        for name in ("record.json", "samples.jsonl.gz", "submission.yaml", PROBES):
            if (SUBMISSIONS / row_name / name).is_file():
                shutil.copy(SUBMISSIONS / row_name / name, tmp_path / row_name)
    return tmp_path


def alter(copied, change):
    """Change the record of a copied submission."""
    path = min(copied.glob("*/record.json"))
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def test_the_shipped_board_is_up_to_date(monkeypatch):
    """Files as the records give them; that the arrays give the records is asked of every row, and is answered for each in
    `test_submit`, where every shipped submission is verified."""
    asked = []
    monkeypatch.setattr(
        "benchmark.board.tables.check_stored_verdicts", lambda rows: asked.extend(folder.name for folder, _ in rows)
    )
    # What the command would read again.
    monkeypatch.setattr("benchmark.board.tables.read_board", {SUBMISSIONS: shipped()}.__getitem__)
    assert main(["--check"]) == 0
    assert sorted(asked) == sorted(path.parent.name for path in SUBMISSIONS.glob("*/record.json"))
    calibration = SOURCE_ROOT / "docs" / "calibration.json"
    known_answers = read_known_answers(calibration)
    written = leaderboard_files(
        shipped(), read_calibration(calibration), known_answers, read_recipes(SUBMISSIONS, shipped())
    )
    assert all((SOURCE_ROOT / f"leaderboard{end}").read_text() == text for end, text in written.items())


def test_every_column_stands_in_the_row_and_on_the_card():
    entry = shipped()[0]
    assert entry.folder == ENTRY.folder
    cells = row_cells(entry.record)
    assert all(value in format_card(entry.record) for value in cells.values())
    text = render_markdown(rank_groups([entry]))
    assert entry.folder in text
    shown = {name: value for name, value in cells.items() if value != "-"}
    assert all(value in text for value in shown.values())
    assert all(f" {name} " in text for name in shown)


def test_a_row_is_called_as_its_submission_says(copied):
    path = min(copied.glob("*/submission.yaml"))
    path.write_text(path.read_text().replace("name: ", "name: my-", 1))
    name = read_record(path.parent / "record.json").model.name
    written = leaderboard_files(read_leaderboard_rows(copied), None)
    for text in written.values():
        assert "my-llama-laptop" in text
        assert f"[{name}]" not in text
        assert f"| {name}" not in text


def test_an_altered_board_is_found(copied, tmp_path, capsys, monkeypatch):
    # The rows stay as they are; the files are what is altered.
    monkeypatch.setattr("benchmark.board.tables.read_board", cache(read_leaderboard_rows))
    out = tmp_path / "leaderboard.md"
    assert main(["--submissions", str(copied), "--out", str(out)]) == 0
    assert main(["--submissions", str(copied), "--out", str(out), "--check"]) == 0
    out.write_text(out.read_text().replace("92.6", "99.9"))
    assert main(["--submissions", str(copied), "--out", str(out), "--check"]) == 4
    assert "python -m benchmark.leaderboard" in capsys.readouterr().err
    assert main(["--submissions", str(copied), "--out", str(out)]) == 0
    for end in (".json", ".csv"):
        path = out.with_suffix(end)
        whole = path.read_text()
        path.write_text(whole.replace("0.926", "0.999"))
        assert main(["--submissions", str(copied), "--out", str(out), "--check"]) == 4
        assert path.name in capsys.readouterr().err
        path.write_text(whole)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r.update(official=False, unofficial=["--limit 5"]), "--limit 5"),
        (lambda r: r["accuracy"]["shown"].pop("n"), "accuracy.shown.n"),
        (lambda r: r.update(extra=1), "extra"),
        (lambda r: r["model"].update(parameters="many"), "model.parameters"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(copied, tmp_path, capsys, change, says):
    alter(copied, change)
    assert main(["--submissions", str(copied), "--out", str(tmp_path / "x.md")]) != 0
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r["meaning"]["features"]["facing"]["delta"].update(low=0.06), "facing.delta"),
        (lambda r: r["meaning"]["features"]["obstacle"].update(p_rand=0.5), "obstacle.p_rand"),
        (lambda r: r["meaning"].update(verdict="INCONCLUSIVE"), "gives REPRESENTS"),
    ],
)
def test_a_record_that_its_arrays_do_not_give_is_found(copied, tmp_path, capsys, change, says):
    alter(copied, change)
    where = ["--submissions", str(copied), "--out", str(tmp_path / "leaderboard.md")]
    assert main(where) == 0
    assert main([*where, "--check"]) == 4
    assert says in capsys.readouterr().err


def test_altered_or_missing_arrays_are_found(copied, tmp_path, capsys):
    where = ["--submissions", str(copied), "--out", str(tmp_path / "leaderboard.md")]
    assert main(where) == 0
    folder = min(copied.glob("*/record.json")).parent
    arrays = read_probes(folder)
    RunFolder(folder).write_probes({**arrays, "model.totals": arrays["model.totals"] * 0.99})
    assert main([*where, "--check"]) == 4
    (folder / PROBES).unlink()
    assert main([*where, "--check"]) == 4
    assert "run the model again" in capsys.readouterr().err


def test_arrays_are_stored_as_they_are_read_whatever_their_order(tmp_path):
    whole = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    arrays = {"plain": whole, "turned": np.moveaxis(whole, 2, 0), "strided": whole[:, ::2]}
    RunFolder(tmp_path).write_probes(arrays)
    for name, array in read_probes(tmp_path).items():
        np.testing.assert_array_equal(array, arrays[name])


def test_records_survive_a_round_trip():
    path = next(SUBMISSIONS.glob("*/record.json"))
    stored, again = json.loads(path.read_text()), json.loads(read_record(path).to_json())
    for entry in ("model", "provenance"):
        added = {name: again[entry].pop(name) for name in again[entry].keys() - stored[entry].keys()}
        assert not any(added.values()), "what the record is older than was not there"
    assert {name: again[name] for name in stored} == stored
    new = {name: value for name, value in again.items() if name not in stored}
    assert all(value in (None, "trained") for value in new.values()), "entries that the record is older than"


def entry_of(folder: Path) -> LeaderboardRow:
    """The row of one submission."""
    record = read_record(folder / "record.json")
    held_out = read_solved_tasks(folder, record)["held_out"]
    return LeaderboardRow(folder.name, record, held_out, read_submission(folder), verification_status(folder))


ENTRY = entry_of(SUBMISSIONS / COPIED[0])


def entries_of(solved: dict[str, np.ndarray], **kept: str) -> list[LeaderboardRow]:
    """Rows of these outcomes; every record is that of a shipped row with its accuracy changed to fit."""
    found = []
    for name, hits in solved.items():
        share = replace(ENTRY.record.accuracy.held_out, value=float(hits.mean()))
        accuracy = replace(ENTRY.record.accuracy, held_out=share)
        record = ENTRY.record.model_copy(update={"accuracy": accuracy})
        found.append(replace(ENTRY, folder=name, record=record, held_out=hits, status=kept.get(name, "validated")))
    return found


def outcomes(shares: dict[str, float], n: int = 1000) -> dict[str, np.ndarray]:
    """Of each row the first so many tasks solved, so that pairs differ on as few tasks as can be."""
    return {name: np.arange(n) < round(n * share) for name, share in shares.items()}


@pytest.mark.parametrize(
    ("shares", "kept", "ranks"),
    [
        ({"a": 0.5, "b": 0.5}, {}, {"a": 1, "b": 1}),
        ({"a": 0.5, "b": 0.9}, {}, {"b": 1, "a": 2}),
        # b is told apart from c, a from neither (5 of 5 discordant tasks: p = 0.06).
        ({"a": 0.505, "b": 0.51, "c": 0.5}, {}, {"b": 1, "a": 1, "c": 2}),
        ({"a": 0.9, "b": 0.5}, {"a": WITHDRAWN}, {"b": 1, "a": None}),
        ({"a": 0.9, "b": 0.5, "c": 0.2}, {"b": FLAGGED}, {"a": 1, "c": 2, "b": None}),
    ],
)
def test_rows_that_cannot_be_told_apart_share_their_rank(shares, kept, ranks):
    (group,) = rank_groups(entries_of(outcomes(shares), **kept))
    assert {one.row.folder: one.rank for one in group.rows} == ranks
    assert [one.row.folder for one in group.rows] == list(ranks)


def test_ranks_are_adjusted_for_the_number_of_pairs():
    """A pair that alone would be told apart is not among many."""
    solved = outcomes({"a": 0.507, "b": 0.5})
    assert mcnemar(*solved.values()).p < 0.05
    (group,) = rank_groups(entries_of(solved))
    assert [one.rank for one in group.rows] == [1, 2]
    many = solved | {f"c{i}": solved["b"] for i in range(5)}
    (group,) = rank_groups(entries_of(many))
    assert {one.rank for one in group.rows} == {1}


def test_rows_of_equal_models_are_seldom_told_apart():
    """Family-wise: some pair of six equal models is told apart in at most 5% of draws."""
    rng, wrong = np.random.default_rng(3), 0
    for _ in range(200):
        solved = {name: rng.random(200) < 0.6 for name in "abcdef"}
        p = {a + b: mcnemar(solved[a], solved[b]).p for a in solved for b in solved if a < b}
        wrong += min(holm(p).values()) <= 0.05
    assert wrong / 200 <= 0.08


def test_tracks_and_versions_have_their_own_tables_by_rank():
    entries = shipped()
    old = entries[0].record.model_copy(update={"protocol": replace(entries[0].record.protocol, version=2)})
    groups = rank_groups([*entries, replace(entries[0], folder="old", record=old)])
    assert [(g.suite, g.protocol, g.track) for g in groups] == [
        ("laptop", 3, "trained"), ("laptop", 3, "fewshot"), ("laptop", 2, "trained"), ("icml24", 3, "trained"),
        ("colm24", 3, "trained"), ("control", 3, "trained"), ("generalize", 3, "trained"),
    ]  # fmt: skip
    text = render_markdown(groups)
    assert text.count("\n## ") == len(groups)
    for part in text.split("\n## ")[1:]:
        first = part.partition("\n### ")[0]
        ranks = [int(rank) for rank in re.findall(r"^\| (\d+) ", first, re.MULTILINE)]
        assert ranks == sorted(ranks)
        assert len(ranks) >= 1


def test_what_a_submitter_writes_stays_text():
    declared = ENTRY.declared.model_copy(update={"family": "x|y <b>[a](http://b) `c`"})
    hostile = replace(ENTRY, declared=declared)
    (line,) = [text for text in render_markdown(rank_groups([hostile])).splitlines() if "<b" in text]
    assert r"x\|y \<b\>\[a\](http:&#8203;//b) \`c\`" in line
    hostile = replace(ENTRY, declared=declared.model_copy(update={"family": "=1+1"}))
    assert ",'=1+1," in to_csv(rank_groups([hostile]))


def test_data_says_what_the_board_shows():
    groups = json.loads((SOURCE_ROOT / "leaderboard.json").read_text())["groups"]
    lines = list(csv.DictReader((SOURCE_ROOT / "leaderboard.csv").read_text().splitlines()))
    shown = [(g["suite"], r) for g in groups for r in g["rows"]]
    assert len(lines) == len(shown) == len(shipped())
    for (suite, one), line in zip(shown, lines, strict=True):
        record = read_record(SUBMISSIONS / one["submission"] / "record.json")
        assert line["suite"] == suite == record.suite.name
        assert float(line["held_out_low"]) == one["held_out"]["low"] == record.accuracy.held_out.low
        assert (line["delta"] == "") == (one["delta"] is None) == (record.meaning is None)


def test_calibration_rows_stand_below_their_suite():
    text = (SOURCE_ROOT / "leaderboard.md").read_text()
    assert text.index("## laptop") < text.index("| trained to copy") < len(text)
    known = {one.name: one for one in read_calibration(SOURCE_ROOT / "docs" / "calibration.json").rows}
    assert known["oracle"].found == {"REPRESENTS": 20}
    assert known["oracle"].delta.value == pytest.approx(0.943, abs=5e-4)
    assert known["planted layer"].delta is None
