"""Rows whose weights, samples and evidence are elsewhere: published, verified from any mirror, in part without, on the board."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import yaml
from file_server import serving_files
from forged import SMALL, copy_small
from same_process import stay_in_process

from benchmark.artifacts import MAX_BYTES, PROBES, SAMPLES
from benchmark.board.command import main as board
from benchmark.board.comparison import main as compare
from benchmark.board.page import main as page
from benchmark.board.ranking import RankedRow, read_leaderboard_rows
from benchmark.board.row_page import build_row_page
from benchmark.board.tables import main as leaderboard
from benchmark.board.terminal.show import main as show
from benchmark.errors import SubmissionError, VerificationError
from benchmark.files import read_yaml
from benchmark.review.fingerprint import EQUAL, Fingerprint, compare_evidence, compare_samples, compare_weights
from benchmark.runner.record import read_record
from benchmark.submit import command as submit_command
from benchmark.submit import rerun as rerun_module
from benchmark.submit.artifacts import cache
from benchmark.submit.artifacts.excerpt import make_excerpt
from benchmark.submit.artifacts.publish import MAX_LIGHT_BYTES, is_outside, publish
from benchmark.submit.artifacts.sources import Sources, complete_folder, missing_files
from benchmark.submit.command import main, raise_on_mismatch
from benchmark.submit.export.command import main as export
from benchmark.submit.folder import files_digest
from benchmark.submit.report import IncompleteVerificationError, raise_on_missing
from benchmark.submit.schema import Rerun, read_status, read_submission
from benchmark.submit.verify import validate, verify

SUBMISSIONS = Path(__file__).parents[2] / "submissions"
PLAIN, DETAILED = "2026-11-25_n-gram", "2026-11-26_gpt-laptop-cooled"


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    """A cache of the test's own, and no mirror of the machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KAREL_BENCH_LOOPBACK_HTTP", "1")
    monkeypatch.delenv("KAREL_BENCH_ARTIFACTS", raising=False)
    monkeypatch.setattr(cache, "_session_folders", [])


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """`artifacts/` and `submissions/` of three shipped rows; read only."""
    root = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        for name in (PLAIN, SMALL, DETAILED):
            publish(SUBMISSIONS / name, root)
    return root


@pytest.fixture(scope="module")
def shipped_checks() -> list[str]:
    """What verification of the shipped row with hidden states checks."""
    report = verify(SUBMISSIONS / SMALL)
    assert report.mismatches == []
    return report.checks


@pytest.fixture
def light(published, tmp_path):
    """Call it with the name of a row for a copy of its light folder."""

    def copy(name: str) -> Path:
        shutil.copytree(published / "submissions" / name, tmp_path / "submissions" / name)
        return tmp_path / "submissions" / name

    return copy


def mirror(published: Path) -> Sources:
    return Sources((str(published / "artifacts"),))


def edit_description(folder: Path, change) -> None:
    entries = read_yaml(folder / "submission.yaml")
    change(entries)
    (folder / "submission.yaml").write_text(json.dumps(entries))


def test_a_light_folder_is_small_and_the_shipped_one_stays(published):
    for name in (PLAIN, SMALL, DETAILED):
        folder = published / "submissions" / name
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        shipped = {
            path.relative_to(SUBMISSIONS / name).as_posix()
            for path in (SUBMISSIONS / name).rglob("*")
            if path.is_file()
        }
        artifacts = read_submission(folder).artifacts
        assert names | artifacts.keys() | {"status.json"} == shipped
        assert not names & artifacts.keys()
        assert sum((folder / name).stat().st_size for name in names) < MAX_LIGHT_BYTES
        for listed, artifact in artifacts.items():
            content = (published / "artifacts" / artifact.sha256).read_bytes()
            assert content == (SUBMISSIONS / name / listed).read_bytes()
            assert len(content) == artifact.size


def test_with_its_artifacts_a_light_row_verifies_like_the_shipped_one(light, published, shipped_checks):
    folder = light(SMALL)
    report = verify(folder, sources=mirror(published))
    assert report.mismatches == []
    assert report.missing == {}
    assert report.unverified == []
    assert report.checks[:-1] == shipped_checks
    assert report.checks[-1].startswith("excerpt")
    assert report.record == read_record(SUBMISSIONS / SMALL / "record.json")
    assert verify(folder).checks == report.checks, "from the cache"


@pytest.mark.parametrize(
    "missing", [(SAMPLES,), (PROBES,), ("readings.json.gz",), ("model.safetensors",), (SAMPLES, PROBES)]
)
def test_what_is_missing_is_not_verified_and_the_rest_is(missing, light, published, shipped_checks, tmp_path, capsys):
    folder = light(SMALL)
    artifacts = read_submission(folder).artifacts
    if "readings.json.gz" in missing:
        shutil.copyfile(folder / "readings.json.gz", tmp_path / "readings.json.gz")
        content = (folder / "readings.json.gz").read_bytes()
        (folder / "readings.json.gz").unlink()
        entry = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        edit_description(folder, lambda entries: entries["artifacts"].update({"readings.json.gz": entry}))
    for name, artifact in artifacts.items():
        if name not in missing:
            cache.store(name, artifact, [(published / "artifacts" / artifact.sha256).read_bytes()])
    assert main(["verify", str(folder), "--write-status"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(name in error for name in missing)
    assert "so not verified: " in error
    status = read_status(folder)
    assert status is not None
    assert status.status == "self_reported"
    assert status.reason is not None
    assert status.reason.startswith("artifacts could not be had, so not verified: ")
    assert len(status.checked) < len(shipped_checks) + 1
    assert not [line for line in status.checked if SAMPLES in missing and line.startswith(("samples:", "accuracy:"))]
    assert not [line for line in status.checked if PROBES in missing and line.startswith(("meaning:", "diagnostics:"))]
    assert not [line for line in status.checked if "model.safetensors" in missing and line.startswith("model:")]
    assert main(["verify", str(folder), "--allow-missing"]) == 0
    assert "verified in part" in capsys.readouterr().out
    assert main(["verify", str(folder), "--rerun", "0.1"]) == 1


def test_a_status_is_what_was_verified(light, published, capsys):
    """Validated with the artifacts; self-reported where they could not be had, even if it was more before."""
    folder = light(PLAIN)
    options = ["verify", str(folder), "--write-status"]
    assert main([*options, "--artifacts", str(published / "artifacts")]) == 0
    assert read_status(folder).status == "validated"
    before = files_digest(folder)
    with complete_folder(folder, read_submission(folder).artifacts) as complete:
        assert files_digest(complete) == before, "an artifact counts by its listing"
        (complete / SAMPLES).write_bytes(b"other")
        assert files_digest(complete) != before
    shutil.rmtree(cache.cache_folder())
    assert read_status(folder).status == "validated", "its bytes are what was verified"
    assert main(options) == 1
    assert read_status(folder).status == "self_reported"
    assert read_status(folder).rerun is None
    assert main([*options, "--artifacts", str(published / "artifacts")]) == 0
    assert read_status(folder).status == "validated"
    edit_description(folder, lambda entries: entries["artifacts"][SAMPLES].update(sha256="0" * 64))
    assert read_status(folder).status == "self_reported", "another listing is another submission"
    capsys.readouterr()


FORGERIES = {
    "solved tasks": (lambda e: e["excerpt"].update(held_out="ff" + e["excerpt"]["held_out"][2:]), "excerpt.held_out"),
    "as many solved tasks": (lambda e: e["excerpt"].update(shown=e["excerpt"]["shown"][2:] + e["excerpt"]["shown"][:2]), "excerpt.shown"),
    "arrays": (lambda e: e["excerpt"]["arrays"].append("content.hits"), "excerpt.arrays"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_excerpt_is_detected(name, light, published):
    change, entry = FORGERIES[name]
    folder = light(PLAIN)
    edit_description(folder, change)
    report = verify(folder, sources=mirror(published))
    assert [mismatch.entry for mismatch in report.mismatches if mismatch.entry.startswith(entry)]
    with pytest.raises(VerificationError):
        raise_on_mismatch(report)


@pytest.mark.parametrize("forge", [lambda bits: "ff" * 125, lambda bits: f"{int(bits, 16) ^ 1 << 7:0250x}"])
def test_a_forged_share_is_detected_without_the_samples(light, forge):
    """All tasks, or a single one."""
    folder = light(PLAIN)
    edit_description(folder, lambda entries: entries["excerpt"].update(held_out=forge(entries["excerpt"]["held_out"])))
    report = verify(folder)
    assert report.missing
    assert [mismatch.entry for mismatch in report.mismatches] == ["excerpt.held_out: share of solved tasks"]


REFUSALS = {
    "no excerpt": (lambda e: e.pop("excerpt"), "so expected an excerpt"),
    "tasks": (lambda e: e["excerpt"].update(shown="ff"), "expected those of 1,000 tasks"),
    "digits": (lambda e: e["excerpt"].update(shown="fg" * 125), "excerpt.shown"),
    "odd digits": (lambda e: e["excerpt"].update(shown="f" * 249), "excerpt.shown"),
    "entry": (lambda e: e["excerpt"].update(extra=1), "excerpt.extra"),
    "many arrays": (lambda e: e["excerpt"].update(arrays=["a"] * 101), "excerpt.arrays"),
    "evidence": (lambda e: e["artifacts"]["causal.data"].update(sha256="0" * 64), "listed with another SHA-256"),
    "record": (lambda e: e["artifacts"].update({"record.json": e["artifacts"][SAMPLES]}), "is no artifact"),
    "large": (lambda e: e["artifacts"][SAMPLES].update(size=MAX_BYTES[SAMPLES] + 1), "at most 8,000,000 are read"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_an_entry_that_is_refused(name, light, capsys):
    change, message = REFUSALS[name]
    folder = light(PLAIN)
    edit_description(folder, change)
    assert main(["verify", str(folder)]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_an_artifact_is_screened_like_a_file_of_the_folder(light, published, tmp_path):
    """What a listing names is data of a submitter too: here weights that are no safetensors file."""
    folder, content = light(SMALL), b"\x80\x04pickle" * 10
    other = tmp_path / "other"
    shutil.copytree(published / "artifacts", other)
    digest = hashlib.sha256(content).hexdigest()
    (other / digest).write_bytes(content)
    edit_description(
        folder, lambda entries: entries["artifacts"]["model.safetensors"].update(sha256=digest, size=len(content))
    )
    with pytest.raises(SubmissionError, match=r"^model.safetensors: no safetensors file"):
        verify(folder, sources=Sources((str(other),)))


def test_fetch_and_verify_from_listed_addresses(published, tmp_path, capsys):
    with serving_files() as server:
        bases = [f"{server.url}/first", f"{server.url}/second"]
        publication = publish(SUBMISSIONS / PLAIN, tmp_path / "out", bases)
        folder = publication.folder
        for path in publication.artifacts_folder.iterdir():
            server.files[f"/first/{path.name}"] = path.read_bytes()[:-1] + b"x"
            server.files[f"/second/{path.name}"] = path.read_bytes()
        assert main(["verify", str(folder)]) == 1
        assert server.requests == []
        assert main(["verify", str(folder), "--fetch"]) == 0
        assert len(server.requests) == 2 * len(publication.artifacts)
        assert main(["verify", str(folder)]) == 0
        shutil.rmtree(cache.cache_folder())
        complete = tmp_path / "complete"
        assert main(["fetch", str(folder), "--output-dir", str(complete)]) == 0
        assert f"{len(publication.artifacts)} artifacts at hand" in capsys.readouterr().out
        assert (complete / PLAIN / SAMPLES).read_bytes() == (SUBMISSIONS / PLAIN / SAMPLES).read_bytes()
        assert verify(complete / PLAIN).mismatches == []
        assert main(["fetch", str(folder), "--output-dir", str(complete)]) == 2
        server.files.clear()
        shutil.rmtree(cache.cache_folder())
        assert main(["--submissions", str(folder.parent), "fetch", "--all"]) == 1
        assert "; name a copy with --artifacts" in capsys.readouterr().err


def test_publish_prints_what_to_upload_and_repeats(published, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["publish", str(SUBMISSIONS / PLAIN), "--output-dir", str(out)]
    assert main([*words, "--url", "hf:org/name@main"]) == 0
    printed = capsys.readouterr().out
    artifacts = read_submission(out / "submissions" / PLAIN).artifacts
    assert all(artifact.sha256 in printed and name in printed for name, artifact in artifacts.items())
    assert f"hf upload org/name {out / 'artifacts'} . --revision main" in printed
    assert artifacts[SAMPLES].urls == [f"hf:org/name/{artifacts[SAMPLES].sha256}@main"]
    assert main(words) == 2
    for base in ("http://example.org", "folder", "hf:org/name", "https://user@example.org/"):
        assert main(["publish", str(SUBMISSIONS / PLAIN), "--output-dir", str(tmp_path / "x"), "--url", base]) == 2
    assert not (tmp_path / "x").exists()
    capsys.readouterr()
    # A light folder can be published again, with one more address.
    again = [
        "publish",
        str(out / "submissions" / PLAIN),
        "--output-dir",
        str(tmp_path / "again"),
        "--url",
        "https://example.org/a",
    ]
    shutil.rmtree(cache.cache_folder())
    assert main(again) == 1
    assert main([*again, "--artifacts", str(out / "artifacts")]) == 0
    urls = read_submission(tmp_path / "again" / "submissions" / PLAIN).artifacts[SAMPLES].urls
    assert urls == [f"https://example.org/a/{artifacts[SAMPLES].sha256}", *artifacts[SAMPLES].urls]
    assert yaml.safe_load((tmp_path / "again" / "submissions" / PLAIN / "submission.yaml").read_text())["attempts"] == 1


def test_which_files_become_artifacts():
    assert [is_outside(name, 1000) for name in (SAMPLES, PROBES, "model.safetensors", "readings.json.gz", "tokenizer.json")] == [
        True, True, True, False, False,
    ]  # fmt: skip
    names = (
        "readings.json.gz",
        "tokenizer.json",
        "figures/a.png",
        "causal.data",
        "record.json",
        "config.json",
        "frame.json",
    )
    assert [is_outside(name, 100_000) for name in names] == [True, True, True, True, False, False, False]


def test_a_rerun_has_the_weights(light, published, monkeypatch):
    """Both the samples and the measurements are repeated on a folder that is complete."""
    folders = []

    def note(folder, report, *_):
        folders.append((folder.name, sorted(path.name for path in folder.iterdir() if path.is_file())))
        return Rerun(share=0.5, shards=1, samples=1, processor="none")

    monkeypatch.setattr(submit_command, "rerun", note)
    monkeypatch.setattr(submit_command, "rerun_measurements", note)
    stay_in_process(monkeypatch.setattr, rerun_module)
    folder = light(SMALL)
    words = ["verify", str(folder), "--rerun", "0.5", "--write-status", "--artifacts", str(published / "artifacts")]
    assert main(words) == 0
    shipped = sorted(
        path.name for path in (SUBMISSIONS / SMALL).iterdir() if path.is_file() and path.name != "status.json"
    )
    assert folders == [(SMALL, shipped)] * 2
    assert read_status(folder).status == "reproduced"


def test_export_needs_all_of_it(light, published, capsys, monkeypatch):
    folder = light(PLAIN)
    words = [PLAIN, "--format", "model-index", "--submissions", str(folder.parent)]
    assert export(words) == 1
    assert "so not verified" in capsys.readouterr().err
    monkeypatch.setenv("KAREL_BENCH_ARTIFACTS", str(published / "artifacts"))
    assert export(words) == 0


@pytest.fixture
def boards(published, tmp_path) -> tuple[Path, Path]:
    """A folder of light rows, and one of the shipped rows that they are of, all without a status."""
    full, thin = tmp_path / "full", tmp_path / "light"
    for name in (PLAIN, SMALL, DETAILED):
        shutil.copytree(published / "submissions" / name, thin / name)
        shutil.copytree(SUBMISSIONS / name, full / name, ignore=shutil.ignore_patterns("status.json"))
    return full, thin


def test_the_board_has_the_same_figures_with_and_without_artifacts(boards, published, tmp_path, capsys, monkeypatch):
    full, thin = boards
    printed = []
    for folder in (full, thin):
        assert board(["--submissions", str(folder), "--format", "json"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    written = []
    for folder in (full, thin):
        output = tmp_path / f"{folder.name}.md"
        assert leaderboard(["--submissions", str(folder), "--output-file", str(output)]) == 0
        assert leaderboard(["--submissions", str(folder), "--output-file", str(output), "--check"]) == 0
        written.append(output.with_suffix(".json").read_text())
    assert written[0] == written[1]
    assert missing_files(thin / SMALL)
    capsys.readouterr()
    monkeypatch.setenv("KAREL_BENCH_ARTIFACTS", str(published / "artifacts"))
    assert board(["--submissions", str(thin), "--format", "json"]) == 0
    assert capsys.readouterr().out == printed[0]
    for first, second in zip(read_leaderboard_rows(full), read_leaderboard_rows(thin), strict=True):
        assert (first.held_out == second.held_out).all()
        assert first.record == second.record
        assert first.measurements == second.measurements


def test_a_rows_page_names_what_is_not_at_hand(boards, published, monkeypatch):
    full, thin = boards
    pages = []
    for folder in (full, thin):
        row = next(row for row in read_leaderboard_rows(folder) if row.folder == DETAILED)
        pages.append(build_row_page(folder / DETAILED, RankedRow(row, 1)))
    assert pages[0].figures == pages[1].figures
    assert pages[0].sections == pages[1].sections
    assert pages[1].summary[:-1] == pages[0].summary
    assert SAMPLES in pages[1].summary[-1]
    assert "submit fetch" in pages[1].summary[-1]
    assert pages[1].player_data["tasks"] == []
    assert pages[1].player_data["steering"] is None
    assert pages[1].player_data["blind"] == pages[0].player_data["blind"]
    monkeypatch.setenv("KAREL_BENCH_ARTIFACTS", str(published / "artifacts"))
    row = next(row for row in read_leaderboard_rows(thin) if row.folder == DETAILED)
    with_artifacts = build_row_page(thin / DETAILED, RankedRow(row, 1))
    assert with_artifacts.player_data == pages[0].player_data
    assert (with_artifacts.maps, with_artifacts.summary) == (pages[0].maps, pages[0].summary)
    assert with_artifacts.declared == pages[0].declared


def test_the_site_is_built_again_once_artifacts_are_at_hand(boards, published, tmp_path, monkeypatch):
    _, thin = boards
    shutil.rmtree(thin / DETAILED)
    shutil.rmtree(thin / SMALL)
    words = ["--submissions", str(thin), "--output-dir", str(tmp_path / "site")]
    assert page(words) == 0
    row = next((tmp_path / "site" / "rows").glob("*.html"))
    assert "Not at hand when this page was built" in row.read_text()
    monkeypatch.setenv("KAREL_BENCH_ARTIFACTS", str(published / "artifacts"))
    assert page(words) == 0
    assert "Not at hand" not in row.read_text()


def test_compare_and_show(boards, published, capsys, monkeypatch):
    full, thin = boards
    words = [[str(folder / SMALL), str(folder / DETAILED), "--json"] for folder in (full, thin)]
    printed = []
    for arguments in words:
        assert compare(arguments) == 0
        printed.append({metric["name"]: metric for metric in json.loads(capsys.readouterr().out)})
    assert printed[1].keys() == {"shown", "held_out"}
    assert printed[0].keys() == {"shown", "held_out", "delta"}
    for name, metric in printed[1].items():
        assert {**metric, "p_holm": None} == {**printed[0][name], "p_holm": None}, "one metric less to adjust for"
    assert compare(words[1][:2]) == 0
    assert (
        "delta is not compared: probes.data of at least one side is missing, or an artifact" in capsys.readouterr().out
    )
    assert show([str(thin / PLAIN)]) == 3
    assert "is an artifact and not at hand; get it by karel-bench submit fetch" in capsys.readouterr().err
    monkeypatch.setenv("KAREL_BENCH_ARTIFACTS", str(published / "artifacts"))
    assert compare(words[1]) == 0
    assert {metric["name"]: metric for metric in json.loads(capsys.readouterr().out)} == printed[0]
    assert show([str(thin / PLAIN)]) == 0


def test_copies_of_a_light_row_are_recognised(boards, published, monkeypatch):
    full, thin = boards
    assert compare_weights(Fingerprint(full / SMALL), Fingerprint(thin / SMALL)) is None, "not at hand"
    monkeypatch.setenv("KAREL_BENCH_ARTIFACTS", str(published / "artifacts"))
    first, second = Fingerprint(full / SMALL), Fingerprint(thin / SMALL)
    assert [compare(first, second) for compare in (compare_weights, compare_samples, compare_evidence)] == [EQUAL] * 3


def test_a_mixture_of_files_and_artifacts(light, published):
    """A file that is put back counts as it is listed, and another one is refused."""
    folder = light(PLAIN)
    digest = files_digest(folder)
    sha256 = read_submission(folder).artifacts[SAMPLES].sha256
    shutil.copyfile(published / "artifacts" / sha256, folder / SAMPLES)
    assert files_digest(folder) == digest
    assert SAMPLES not in validate(folder).missing
    (folder / SAMPLES).write_bytes(b"x")
    with pytest.raises(SubmissionError, match=r"^samples.jsonl.gz: in the folder, 1 bytes, and not the file"):
        validate(folder)


def test_an_excerpt_is_what_the_samples_give(published, tmp_path):
    folder = copy_small(tmp_path)
    report = validate(folder)
    assert make_excerpt(report, folder) == read_submission(published / "submissions" / SMALL).excerpt
    raise_on_missing(report)
    with pytest.raises(IncompleteVerificationError):
        raise_on_missing(validate(published / "submissions" / SMALL))
