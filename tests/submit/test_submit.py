"""Submissions end to end: drafted from a run, packed, verified; every edit that a board could believe is found."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hostile import entry, sample
from safetensors.numpy import load_file, save_file
from same_process import stay_in_process

from benchmark.errors import VerificationError
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.probing.protocol import STANDARD
from benchmark.runner.record import read_record
from benchmark.submit import rerun as rerun_module
from benchmark.submit.command import main, raise_on_mismatch
from benchmark.submit.draft.known_entries import training_hardware
from benchmark.submit.rerun import rerun
from benchmark.submit.schema import read_status
from benchmark.submit.verify import verify

SUBMISSIONS = Path(__file__).parents[2] / "submissions"
PLAIN, NETWORK = "2026-11-25_n-gram", "2026-11-25_gpt-laptop"
RECORD, SAMPLES, PROBES = "record.json", "samples.jsonl.gz", "probes.data"


EACH_KIND = (
    "2026-11-26_lstm-laptop",
    "2026-11-26_gpt-laptop-cooled",
    "2026-11-28_smollm2-135m-instruct",
    "2026-11-25_random",
)


@pytest.fixture
def copied(tmp_path):
    """Call it with a name for a copy of a shipped submission."""

    def copy(name: str) -> Path:
        shutil.copytree(SUBMISSIONS / name, tmp_path / name, ignore=shutil.ignore_patterns("status.json"))
        return tmp_path / name

    return copy


def digested(folder: Path) -> None:
    """Let the record know the samples as they are now, as who edits them would."""
    entry("samples_sha256", hashlib.sha256((folder / SAMPLES).read_bytes()).hexdigest(), RECORD)(folder)


def alter_arrays(name: str, factor: float):
    def edit(folder: Path) -> None:
        arrays = load_file(folder / PROBES)
        save_file({**arrays, name: arrays[name] * np.float32(factor)}, folder / PROBES)

    return edit


def swap_samples(folder: Path) -> None:
    rows = gzip.decompress((folder / SAMPLES).read_bytes()).splitlines()
    rows[0], rows[1] = rows[1], rows[0]
    (folder / SAMPLES).write_bytes(gzip.compress(b"\n".join(rows)))


def other_weights(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def drop_last(folder: Path) -> None:
    rows = gzip.decompress((folder / SAMPLES).read_bytes()).splitlines()
    (folder / SAMPLES).write_bytes(gzip.compress(b"\n".join(rows[:-1])))


def no_meaning(folder: Path) -> None:
    entry("meaning", None, RECORD)(folder)
    (folder / PROBES).unlink()


EDITS = {
    "accuracy": (PLAIN, entry("accuracy.shown.value", 0.11, RECORD), "accuracy.shown.value"),
    "interval": (PLAIN, entry("accuracy.exact.high", 0.9, RECORD), "accuracy.exact.high"),
    "failures": (PLAIN, entry("accuracy.failures.solved", 999, RECORD), "accuracy.failures.solved"),
    "outcome": (PLAIN, sample(lambda row: row.update(shown=not row["shown"])), "samples.test.0.shown"),
    "program": (PLAIN, sample(lambda row: row.update(text="turn_left(); turn_left(); }")), "samples_sha256"),
    "prompt": (PLAIN, sample(lambda row: row.update(prompt="0" * 64)), "samples.test.0.prompt"),
    "order": (PLAIN, swap_samples, "samples.test: tasks"),
    "length": (PLAIN, drop_last, "samples.test: tasks"),
    "seed": (PLAIN, entry("suite.seed", 1, RECORD), "suite.seed"),
    "suite version": (PLAIN, entry("suite.version", 2, RECORD), "suite.version"),
    "model digest": (PLAIN, entry("model.digest", "0" * 64, RECORD), "model.digest"),
    "claim": (PLAIN, entry("claimed.shown", 0.9), "claimed.shown"),
    "claim that is one digit off": (PLAIN, entry("claimed.shown", 0.103), "claimed.shown"),
    "claim of a delta": (PLAIN, entry("claimed.delta", 0.1), "claimed.delta"),
    "commit": (PLAIN, entry("evaluation.commit", "0" * 40), "submission.evaluation.commit"),
    "uncommitted": (PLAIN, entry("provenance.dirty", True, RECORD), "provenance.dirty"),
    "other baseline": (PLAIN, entry("model", "baseline:search"), "model.spec"),
    "weights": (NETWORK, other_weights, "model.digest"),
    "parameters": (NETWORK, entry("model.parameters", 1, RECORD), "model.parameters"),
    "verdict": (NETWORK, entry("meaning.verdict", "RECORD-ONLY", RECORD), "meaning.verdict"),
    "delta": (NETWORK, entry("meaning.features.facing.delta.low", 0.175, RECORD), "meaning.features.facing.delta.low"),
    "tested": (NETWORK, entry("meaning.test_programs", 1, RECORD), "meaning.test_programs"),
    "majority": (NETWORK, entry("meaning.diagnostics.facing.majority", 0.1, RECORD), "meaning.diagnostics.facing.majority"),
    "arrays": (NETWORK, alter_arrays("model.probe", 0.9), "meaning.features.facing.skill.value"),
    "one array": (NETWORK, alter_arrays("recorder.totals", 1.01), "probes.data: recorder.probe and .totals"),
    "content": (NETWORK, entry("content.programs", 5000, RECORD), "content.programs"),
    "nothing measured": (NETWORK, no_meaning, "samples.generated: tasks"),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_number_is_found(name, copied, capsys):
    which, edit, says = EDITS[name]
    folder = copied(which)
    edit(folder)
    report = verify(folder)
    assert any(mismatch.entry.startswith(says) for mismatch in report.mismatches), report.mismatches
    with pytest.raises(VerificationError, match=r"^\d+ entries differ, first"):
        raise_on_mismatch(report)
    assert "the submission says" in capsys.readouterr().out


def test_a_better_program_with_its_digest_is_found(copied, capsys):
    folder = copied(PLAIN)
    sample(lambda row: row.update(text="turn_left(); turn_left(); turn_left(); }"))(folder)
    digested(folder)
    assert main(["verify", str(folder)]) == 4
    out, err = capsys.readouterr()
    assert "samples_sha256" not in out
    assert "accuracy.distinct" in out
    assert err.count("\n") == 1


@pytest.mark.slow
def test_every_shipped_submission_verifies(capsys):
    """Continuous integration verifies them by the command; to verify is to validate first, so that all are valid too."""
    assert main(["verify", "--all"]) == 0
    assert capsys.readouterr().out.count(": verified") == sum(path.is_dir() for path in SUBMISSIONS.iterdir())


def test_a_submission_of_each_kind_verifies(copied, tmp_path, capsys):
    """A network with all measurements, one with full detail, a few-shot one, a baseline."""
    names = [copied(name).name for name in EACH_KIND]
    assert main(["--submissions", str(tmp_path), "verify", "--all"]) == 0
    out = capsys.readouterr().out
    assert out.count(": verified") == len(names)
    assert all(name in out for name in names)


def test_all_of_a_folder_are_validated(copied, tmp_path, capsys):
    names = [copied(name).name for name in (PLAIN, "2026-11-25_random")]
    assert main(["--submissions", str(tmp_path), "validate", "--all"]) == 0
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == sorted(names)
    (tmp_path / PLAIN / RECORD).unlink()
    assert main(["--submissions", str(tmp_path), "validate", "--all"]) == 3


@pytest.mark.parametrize("name", ["2026-11-23_llama-laptop", NETWORK])
def test_files_beside_the_model_are_not_the_model(name, copied):
    folder = copied(name)
    before = open_checkpoint(ModelSpec("path", str(folder)))
    assert before.digest == read_record(folder / RECORD).model.digest
    assert main(["verify", str(folder), "--write-status"]) == 0
    (folder / "README.md").write_text("other")
    (folder / "submission.yaml").write_text("other")
    assert open_checkpoint(ModelSpec("path", str(folder))).digest == before.digest


def test_a_draft_names_the_gpu_of_a_training_or_its_processor():
    training = {"device": "cpu:0", "processor": "AMD EPYC"}
    assert training_hardware(training) == "AMD EPYC"
    assert training_hardware(training | {"device": "NVIDIA H100 80GB HBM3"}) == "NVIDIA H100 80GB HBM3"
    assert training_hardware({}) is None


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (entry("official", False, RECORD), "not an official run"),
        (entry("unofficial", ["--limit 5"], RECORD), "--limit 5"),
        (lambda folder: (folder / RECORD).unlink(), "no record.json"),
    ],
)
def test_what_is_no_official_run_is_not_drafted(edit, says, copied, tmp_path, capsys):
    run = copied(PLAIN)
    edit(run)
    assert main(["--submissions", str(tmp_path / "out"), "new", "mine", "--run", str(run)]) == 3
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_archive_has_the_same_bytes_and_every_file(copied, tmp_path):
    folder = copied(PLAIN)
    for name in "ab":
        assert main(["pack", str(folder), "--to", str(tmp_path / name)]) == 0
        (folder / "README.md").touch()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with tarfile.open(tmp_path / "a") as archive:
        archive.extractall(tmp_path / "out", filter="data")
    names = sorted(path.name for path in folder.iterdir())
    assert sorted(path.name for path in (tmp_path / "out" / PLAIN).iterdir()) == names
    assert not verify(tmp_path / "out" / PLAIN).mismatches


def test_a_status_is_what_was_found_of_these_bytes(copied, capsys):
    folder = copied(PLAIN)
    assert read_status(folder) is None
    assert main(["verify", str(folder), "--write-status"]) == 0
    status = read_status(folder)
    assert status is not None
    assert (status.status, status.rerun, len(status.source)) == ("validated", None, 64)
    assert any("programs executed again" in line for line in status.checked)
    assert main(["verify", str(folder)]) == 0
    (folder / "README.md").write_text("edited")
    assert read_status(folder).status == "self_reported"
    assert main(["verify", str(folder)]) == 4
    assert "status.files" in capsys.readouterr().out
    assert main(["verify", str(folder), "--write-status"]) == 0
    assert read_status(folder).status == "validated"


@pytest.mark.parametrize(
    ("change", "says"), [({"status": "reproduced"}, "status.rerun is there"), ({"status": "flagged"}, "status.reason")]
)
def test_a_status_that_was_not_earned_is_found(copied, capsys, change, says):
    folder = copied(PLAIN)
    assert main(["verify", str(folder), "--write-status"]) == 0
    status = json.loads((folder / "status.json").read_text()) | change
    (folder / "status.json").write_text(json.dumps(status))
    assert main(["verify", str(folder)]) == 4
    assert says in capsys.readouterr().out


def test_a_submission_that_differs_is_flagged_and_stays_so(copied, capsys):
    folder = copied(PLAIN)
    entry("accuracy.shown.value", 0.11, RECORD)(folder)
    assert main(["verify", str(folder), "--write-status"]) == 4
    status = read_status(folder)
    assert status.status == "flagged"
    assert "first accuracy.shown.value" in status.reason
    assert main(["verify", str(folder)]) == 0
    assert ": flagged: " in capsys.readouterr().out


def test_what_is_withdrawn_stays_withdrawn(copied):
    folder = copied(PLAIN)
    assert main(["withdraw", str(folder), "--reason", "asked by its authors"]) == 0
    assert main(["verify", str(folder), "--write-status"]) == 0
    status = read_status(folder)
    assert (status.status, status.reason) == ("withdrawn", "asked by its authors")


def test_shards_written_again_in_a_fresh_process_are_compared(copied):
    folder = copied(PLAIN)
    assert main(["verify", str(folder), "--rerun", "0.2", "--write-status"]) == 0
    status = read_status(folder)
    assert status.status == "reproduced"
    assert (status.rerun.shards, status.rerun.samples) == (1, 250)
    assert main(["verify", str(folder), "--write-status"]) == 0
    assert read_status(folder).status == "reproduced"


def test_samples_that_the_model_does_not_write_are_found(copied, monkeypatch):
    stay_in_process(monkeypatch.setattr, rerun_module)
    folder = copied(PLAIN)
    report = verify(folder)
    report.samples = [
        mismatch.model_copy(update={"tokens": 99}) if mismatch.task == 7 else mismatch for mismatch in report.samples
    ]
    rerun(folder, report, 1.0)
    assert [mismatch.entry for mismatch in report.mismatches] == ["rerun.test.7.tokens"]


@pytest.mark.parametrize(
    "words", [["verify"], ["verify", "nowhere"], ["verify", PLAIN, "--all"], ["verify", PLAIN, "--rerun", "2"]]
)
def test_usage(words, capsys):
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_protocol_of_the_board_is_the_shipped_one():
    assert read_record(SUBMISSIONS / PLAIN / RECORD).protocol == STANDARD


def test_a_submission_is_found_without_its_date(capsys):
    assert main(["validate", "gpt-laptop"]) == 0
    assert capsys.readouterr().out.startswith("2026-11-25_gpt-laptop: valid")
    assert main(["validate", "laptop"]) == 2
    assert "no such submission" in capsys.readouterr().err
