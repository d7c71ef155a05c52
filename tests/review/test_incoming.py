"""A proposed change is compared with its base: only new rows that stand for themselves get in."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml
from hostile import entry
from proposals import NETWORK, NGRAM, RANDOM, SHIPPED, copy_row, git, make_base, merge_change
from safetensors.numpy import load_file, save_file

import benchmark.review.pull_request
from benchmark.errors import BenchmarkError
from benchmark.files import read_json
from benchmark.review.change_report import REPORT_CHARACTERS, make_printable
from benchmark.review.duplicates import find_colliding_folder, find_overlap, read_row
from benchmark.review.fingerprint import (
    EQUAL,
    NEAR,
    Fingerprint,
    compare_evidence,
    compare_samples,
    compare_weights,
)
from benchmark.review.lookalike import imitates_ascii, skeleton
from benchmark.review.pull_request import UNFINISHED, check_pull_request, main
from benchmark.submit.report import VerificationReport

PROPOSED_FOLDER = "2026-11-26_mine"
FLOAT32 = "2026-11-23_llama-laptop"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A base of two rows; call it for a fresh copy with a change merged into it."""
    base = make_base(tmp_path_factory.mktemp("base") / "base", NGRAM, RANDOM)

    def propose(target: Path, change) -> Path:
        shutil.copytree(base, target)
        return merge_change(target, change)

    return propose


@pytest.fixture
def quick(monkeypatch):
    """What is verified is left to the tests of verification: a readable row has no differences."""

    def verify(folder: Path, is_proposed: bool = False) -> VerificationReport:
        row = read_row(folder)
        return VerificationReport(row.declared, row.record, [])

    monkeypatch.setattr(benchmark.review.pull_request, "verify", verify)
    monkeypatch.setattr(benchmark.review.pull_request, "read_leaderboard_rows", lambda folder: [])


def own_row(folder: Path, source: str = NGRAM, name: str = "mine") -> Path:
    """A row that shares nothing with the shipped one that it is made of."""
    copy_row(source, folder)
    for field, value in (("name", name), ("digest", "f" * 64), ("authors", ["Ada"]), ("model", "withheld")):
        entry(field, value)(folder)
    edit_samples(folder, lambda rows: [row | {"text": f"{row['text']} {row['task']}"} for row in rows])
    return folder


def edit_samples(folder: Path, edit) -> None:
    path = folder / "samples.jsonl.gz"
    rows = edit([json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()])
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def check_and_render(repository, tmp_path: Path, change, maintainer: bool = False):
    report = check_pull_request(repository(tmp_path / "change", change), maintainer)
    text = report.text()
    assert text.isascii()
    assert all(char.isprintable() or char == "\n" for char in text)
    assert len(text) < REPORT_CHARACTERS + 100
    return report, text


def test_a_row_of_its_own_is_new_and_verified(repository, tmp_path, quick):
    report, text = check_and_render(repository, tmp_path, lambda s: own_row(s / PROPOSED_FOLDER))
    assert report.exit_code == 0, text
    assert f"{PROPOSED_FOLDER}: verified\n- new row" in text
    assert json.loads(report.summary()) == {
        "exit_code": 0,
        "new": 1,
        "changed": 0,
        "removed": 0,
        "renamed": 0,
        "refused": 0,
    }


def flag(submissions: Path) -> None:
    path = submissions / NGRAM / "status.json"
    path.write_text(path.read_text().replace("reproduced", "flagged"))


STATUSES = {
    "added": (lambda s: (own_row(s / PROPOSED_FOLDER) / "status.json").write_text("{}"), "status.json added"),
    "edited": (flag, "status.json edited"),
    "deleted": (lambda s: (s / NGRAM / "status.json").unlink(), "status.json deleted"),
    "of another case": (lambda s: (own_row(s / PROPOSED_FOLDER) / "Status.JSON").write_text("{}"), "Status.JSON added"),
    "moved": (lambda s: (s / NGRAM / "status.json").rename(s / RANDOM / "figures.json"), "status.json deleted"),
}  # fmt: skip


@pytest.mark.parametrize("name", STATUSES)
def test_no_change_touches_a_status(name, repository, tmp_path, quick):
    change, says = STATUSES[name]
    report, text = check_and_render(repository, tmp_path, change)
    assert report.exit_code == 3
    assert f"{says}: only the verification writes it" in text


def test_a_changed_row_is_named_with_what_differs(repository, tmp_path, quick):
    def change(submissions: Path) -> None:
        entry("accuracy.shown.value", 0.5, "record.json")(submissions / NGRAM)
        entry("family", "other")(submissions / NGRAM)

    report, text = check_and_render(repository, tmp_path, change)
    assert report.exit_code == 3
    assert f"{NGRAM}: refused\n- changed row" in text
    assert "changes a row of the base (record.json edited, submission.yaml edited)" in text
    assert "board.shown %" in text
    assert re.search("description.family +'symbolic' +'other'", text)
    assert json.loads(report.summary())["changed"] == 1


def test_a_maintainer_may_change_and_remove_rows_and_no_submitter(repository, tmp_path, quick):
    def change(submissions: Path) -> None:
        (submissions / NGRAM / "README.md").write_text("edited")
        shutil.rmtree(submissions / RANDOM)

    report, text = check_and_render(repository, tmp_path, change)
    assert report.exit_code == 3
    assert f"{RANDOM}: refused\n- removed row" in text
    report = check_pull_request(tmp_path / "change", is_maintainer=True)
    assert report.exit_code == 0, report.text()
    assert "a maintainer's change" in report.text()
    assert f"{RANDOM}: removed" in report.text()


def test_a_renamed_row_is_named_as_one(repository, tmp_path, quick):
    def change(submissions: Path) -> None:
        (submissions / NGRAM / "status.json").unlink()
        (submissions / NGRAM).rename(submissions / "2026-11-27_new")
        entry("authors", ["Somebody"])(submissions / "2026-11-27_new")

    report, text = check_and_render(repository, tmp_path, change)
    assert report.exit_code == 3
    assert "- renamed row" in text
    assert f"renamed from '{NGRAM}'" in text
    assert json.loads(report.summary())["renamed"] == 1


def link(submissions: Path) -> None:
    (own_row(submissions / PROPOSED_FOLDER) / "README.md").unlink()
    (submissions / PROPOSED_FOLDER / "README.md").symlink_to("/etc/passwd")


def submodule(submissions: Path) -> None:
    git(
        submissions.parent, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},submissions/{PROPOSED_FOLDER}/x"
    )


KINDS = {
    "link": (link, "a link; a submission holds plain files"),
    "linked row": (lambda s: (s / PROPOSED_FOLDER).symlink_to("/etc"), f"'submissions/{PROPOSED_FOLDER}': outside of submissions/NAME/"),
    "program": (lambda s: (own_row(s / PROPOSED_FOLDER) / "README.md").chmod(0o755), "a program (mode 100755)"),
    "mode alone": (lambda s: (s / NGRAM / "README.md").chmod(0o755), "a program (mode 100755)"),
    "elsewhere": (lambda s: (s.parent / "README.md").write_text("x"), "'README.md': outside of submissions/NAME/"),
    "workflow": (lambda s: ((s.parent / ".github").mkdir(), (s.parent / ".github" / "x.yml").write_text("x")), "outside of"),
    "attributes": (lambda s: (s / ".gitattributes").write_text("* text"), "outside of submissions/NAME/"),
    "nothing": (lambda s: None, "nothing in submissions/ is changed"),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_only_plain_files_of_submissions_are_taken(name, repository, tmp_path, quick):
    change, says = KINDS[name]
    for maintainer in (False, True):
        report, text = check_and_render(repository, tmp_path / str(maintainer), change, maintainer)
        assert report.exit_code == 3
        assert says in text


def test_a_submodule_is_refused(repository, tmp_path, quick):
    folder = repository(tmp_path / "change", lambda s: own_row(s / PROPOSED_FOLDER))
    git(folder, "checkout", "-q", "change")
    submodule(folder / "submissions")
    git(folder, "commit", "-qm", "module")
    git(folder, "checkout", "-qf", "main")
    git(folder, "merge", "-q", "--no-ff", "-m", "merge", "change")
    (folder / "submissions" / PROPOSED_FOLDER / "x").mkdir(exist_ok=True)
    report = check_pull_request(folder)
    assert report.exit_code == 3
    assert "a submodule; a submission holds plain files" in report.text()


NAMES = {
    "2099-01-01_mine": "after today",
    f"{(datetime.now(UTC) + timedelta(days=2)).date()}_mine": "after today",
    "mine": "no date",
    "2026-13-01_mine": "no date",
    "20261126_mine": "no date",
    "2026-11-26-mine": "no date",
    "2026-11-25_N-Gram": "differs from '2026-11-25_n-gram' by case",
    "2026-11-25_n_gram": "differs from '2026-11-25_n-gram' by case",
    "2026-11-25_n\u2011gram": "differs from '2026-11-25_n-gram' by case",
    "2026-11-25_\uff4e-gram": "differs from '2026-11-25_n-gram' by case",
    "2026-11-25_n-gr\u0430m": "differs from '2026-11-25_n-gram' by case",
    "2026-11-25_rand0m": "differs from '2026-11-25_random' by case",
    "2026-11-27_n-grarn": "choose another",
}


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_and_dates_that_mislead_are_refused(name, repository, tmp_path, quick):
    report, text = check_and_render(repository, tmp_path, lambda s: own_row(s / name))
    assert report.exit_code == 3, text
    assert NAMES[name] in text


def test_a_clock_that_is_behind_refuses_nothing(repository, tmp_path, quick, monkeypatch):
    class Behind(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2001, 1, 1, tzinfo=tz)

    monkeypatch.setattr(benchmark.review.pull_request, "datetime", Behind)
    report, text = check_and_render(repository, tmp_path, lambda s: own_row(s / PROPOSED_FOLDER))
    assert report.exit_code == 0, text


def test_a_change_has_a_bounded_number_of_rows(repository, tmp_path, quick):
    def change(submissions: Path) -> None:
        for i in range(6):
            own_row(submissions / f"2026-11-26_mine{i}", name=f"mine{i}")

    report, text = check_and_render(repository, tmp_path, change)
    assert report.exit_code == 3
    assert "6 submissions in one change; at most 5" in text


def test_two_rows_of_one_change_are_compared_with_each_other(repository, tmp_path, quick):
    def change(submissions: Path) -> None:
        for name in ("one", "two"):
            own_row(submissions / f"2026-11-26_{name}", name=name)
            entry("authors", [name])(submissions / f"2026-11-26_{name}")

    report, text = check_and_render(repository, tmp_path, change)
    assert report.exit_code == 3
    assert "the same weights, the same samples as '2026-11-26_two' of 'two'" in text


# What two rows share


@pytest.fixture(scope="module")
def original() -> Fingerprint:
    return Fingerprint(SHIPPED / NETWORK)


def with_weights(folder: Path, change, metadata: dict[str, str] | None = None) -> Fingerprint:
    folder.mkdir()
    arrays = load_file(SHIPPED / FLOAT32 / "model.safetensors")
    save_file(change(arrays), folder / "model.safetensors", metadata)
    return Fingerprint(folder)


WEIGHTS = {
    "other metadata": (lambda a: a, {"by": "me"}, EQUAL),
    "other names": (lambda a: {f"x.{name}": array for name, array in reversed(a.items())}, None, EQUAL),
    "cast": (lambda a: {name: array.astype(np.float16) for name, array in a.items()}, None, NEAR),
    "disturbed": (lambda a: {name: array * np.float32(1.001) for name, array in a.items()}, None, NEAR),
    "other weights": (lambda a: {name: array[::-1].copy() for name, array in a.items()}, None, None),
    "one tensor less": (lambda a: dict(list(a.items())[1:]), None, None),
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_compared_whatever_their_file_looks_like(name, tmp_path):
    change, metadata, expected = WEIGHTS[name]
    assert compare_weights(Fingerprint(SHIPPED / FLOAT32), with_weights(tmp_path / "x", change, metadata)) == expected


def test_weights_split_over_two_files_are_the_same(tmp_path):
    arrays = list(load_file(SHIPPED / FLOAT32 / "model.safetensors").items())
    for i, part in enumerate((arrays[:3], arrays[3:]), 1):
        save_file(dict(part), tmp_path / f"model-0000{i}-of-00002.safetensors")
    assert compare_weights(Fingerprint(SHIPPED / FLOAT32), Fingerprint(tmp_path)) == EQUAL


SAMPLES = {
    "other order": (lambda rows: rows[::-1], EQUAL),
    "other entries": (lambda rows: [row | {"tokens": 1, "prompt": "0" * 64} for row in rows], EQUAL),
    "a few edited": (lambda rows: [row | {"text": "}"} if row["task"] % 100 == 0 else row for row in rows], NEAR),
    "a tenth edited": (lambda rows: [row | {"text": "x"} if row["task"] % 10 == 0 else row for row in rows], None),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_compared_whatever_their_order(name, tmp_path):
    edit, expected = SAMPLES[name]
    edit_samples(copy_row(NGRAM, tmp_path / "x"), edit)
    assert compare_samples(Fingerprint(SHIPPED / NGRAM), Fingerprint(tmp_path / "x")) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [(lambda a: a, EQUAL), (lambda a: a * np.float32(0.5), NEAR), (lambda a: a * np.float32(1.0005), NEAR),
     (lambda a: a[::-1].copy(), None)],
)  # fmt: skip
def test_evidence_is_compared_whatever_its_scale(tmp_path, original, change, expected):
    arrays = load_file(SHIPPED / NETWORK / "probes.data")
    save_file({n: change(a) if n.startswith("model.") and a.dtype == np.float32 else a for n, a in arrays.items()},
              tmp_path / "probes.data")  # fmt: skip
    assert compare_evidence(original, Fingerprint(tmp_path)) == expected


def test_no_two_shipped_rows_of_one_table_stand_for_each_other():
    rows = [read_row(SHIPPED / name) for name in (NETWORK, "2026-11-26_lstm-laptop", NGRAM, RANDOM)]
    for row in rows:
        assert find_overlap(row, [existing for existing in rows if existing is not row]).refusals == []


def test_one_model_may_stand_in_two_tables_for_its_authors_alone(tmp_path):
    row = read_row(SHIPPED / NGRAM)
    existing = read_row(SHIPPED / f"{NGRAM}-icml24")
    assert find_overlap(row, [existing]).refusals == []
    assert "the same weights" in find_overlap(row, [existing]).notes[0]
    entry("authors", ["Somebody"])(copy_row(NGRAM, tmp_path / NGRAM))
    assert "the same weights" in find_overlap(read_row(tmp_path / NGRAM), [existing]).refusals[0]


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [("family", "symb\u043elic", "reads as 'symbolic'"), ("family", "Symbolic", "reads as 'symbolic'"),
     ("family", "\u043epenai", "reads as 'openai'; write it in one script"),
     ("authors", ["the authors of this b\u0435nchmark"], "reads as 'the authors of this benchmark'")],
)  # fmt: skip
def test_claims_that_imitate_a_known_name_are_refused(tmp_path, field, value, says):
    folder = own_row(tmp_path / PROPOSED_FOLDER)
    entry(field, value)(folder)
    assert any(says in reason for reason in find_overlap(read_row(folder), [read_row(SHIPPED / NGRAM)]).refusals)


def test_skeletons():
    assert skeleton("\uff27\u0420T", labels=True) == skeleton("gpt", labels=True) == "gpt"
    assert find_colliding_folder("a", ["b", "A"]) == "A"
    assert find_colliding_folder("gpt-2", ["gpt-3", "gpt-2", "gpt"]) is None
    assert not imitates_ascii("M\u00fcller")
    assert not imitates_ascii("\u5b57")


# What fails


def test_what_is_no_merge_with_its_base_is_refused_in_one_line(repository, tmp_path, quick):
    repository_path = repository(tmp_path / "whole", lambda s: own_row(s / PROPOSED_FOLDER))
    cases = {
        "no folder": tmp_path / "nowhere",
        "no repository": tmp_path,
        "below the root": repository_path / "submissions",
    }
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repository_path}", str(tmp_path / "shallow"))
    cases["shallow"] = tmp_path / "shallow"
    shutil.copytree(repository_path, tmp_path / "plain")
    git(tmp_path / "plain", "commit", "-q", "--allow-empty", "-m", "one more")
    cases["no merge"] = tmp_path / "plain"
    shutil.copytree(repository_path, tmp_path / "octopus")
    for name in "ab":
        git(tmp_path / "octopus", "checkout", "-qb", name, "HEAD^1")
        (tmp_path / "octopus" / name).write_text(name)
        git(tmp_path / "octopus", "add", "-A")
        git(tmp_path / "octopus", "commit", "-qm", name)
    git(tmp_path / "octopus", "checkout", "-q", "main")
    git(tmp_path / "octopus", "merge", "-q", "-m", "three", "a", "b")
    cases["octopus"] = tmp_path / "octopus"
    shutil.copytree(repository_path, tmp_path / "edited")
    (tmp_path / "edited" / "submissions" / PROPOSED_FOLDER / "README.md").write_text("not what is committed")
    cases["edited"] = tmp_path / "edited"
    for name, folder in cases.items():
        report = check_pull_request(folder)
        assert report.exit_code == 2, name
        assert report.text().startswith("refused: --change"), name
        assert report.text().count("\n") == 1, report.text()


def test_a_base_with_odd_modes_is_a_maintainers_matter(tmp_path, quick):
    base = make_base(tmp_path / "base", NGRAM)
    (base / "submissions" / NGRAM / "README.md").chmod(0o755)
    git(base, "commit", "-qam", "mode")
    report = check_pull_request(merge_change(base, lambda s: (s / NGRAM / "README.md").chmod(0o644)))
    assert report.exit_code == 3
    assert "a program (mode 100755) in the base; a maintainer must correct it first" in report.text()


@pytest.mark.parametrize("problem", [MemoryError(), RecursionError("deep"), KeyError("a\nb"), ValueError("\u202e")])
def test_a_folder_that_breaks_a_reader_is_reported(problem, repository, tmp_path, quick, monkeypatch):
    def broken(folder: Path, is_proposed: bool = False) -> VerificationReport:
        raise problem

    monkeypatch.setattr(benchmark.review.pull_request, "verify", broken)
    report, text = check_and_render(repository, tmp_path, lambda s: own_row(s / PROPOSED_FOLDER))
    assert report.exit_code == 3
    assert f"cannot be read: {type(problem).__name__}" in text


def test_a_report_is_there_even_of_a_check_that_was_killed(repository, tmp_path, quick, monkeypatch):
    def killed(checkout: Path, maintainer: bool) -> None:
        raise KeyboardInterrupt

    folder = repository(tmp_path / "change", lambda s: own_row(s / PROPOSED_FOLDER))
    words = ["--change", str(folder), "--report", str(tmp_path / "report.txt"), "--summary", str(tmp_path / "summary")]
    assert main(words) == 0
    assert (tmp_path / "summary").is_file()
    monkeypatch.setattr(benchmark.review.pull_request, "check_pull_request", killed)
    assert main(words) == 1
    assert (tmp_path / "report.txt").read_text() == UNFINISHED
    assert not (tmp_path / "summary").exists()


def test_a_report_that_cannot_be_written_is_one_line(tmp_path, capsys):
    assert main(["--change", str(tmp_path), "--report", str(tmp_path / "no" / "report.txt")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_no_line_of_a_report_commands_the_runner():
    text = make_printable("::error::x\n  ::add-mask::y\na ##[warning]z\x1b[2J\u202e\n" + "x" * 10**6)
    assert text.startswith(". ::error::x\n.   ::add-mask::y\na #_[warning]z?[2J\\u202e\n")
    assert len(text) < REPORT_CHARACTERS + 100


def test_names_of_files_do_not_write_the_report(repository, tmp_path, quick):
    def change(submissions: Path) -> None:
        (submissions / "::error::x\n").mkdir()
        (submissions / "::error::x\n" / "a").write_text("x")

    report, text = check_and_render(repository, tmp_path, change)
    assert report.exit_code == 3
    assert not any(line.startswith("::") for line in text.splitlines())


def test_what_cannot_be_read_in_the_base_is_said(tmp_path, quick):
    base = make_base(tmp_path / "base", NGRAM)
    (base / "submissions" / NGRAM / "record.json").write_text("{}")
    git(base, "commit", "-qam", "broken")
    report = check_pull_request(merge_change(base, lambda s: own_row(s / PROPOSED_FOLDER)))
    assert report.exit_code == 0
    assert f"not compared with 1 rows of the base that cannot be read, first '{NGRAM}'" in report.text()
    with pytest.raises(BenchmarkError):
        read_row(base / "submissions" / NGRAM)
    assert yaml.safe_load((base / "submissions" / NGRAM / "submission.yaml").read_text())
    assert read_json(base / "submissions" / NGRAM / "status.json")
