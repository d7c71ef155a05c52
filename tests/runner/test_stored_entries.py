"""Files of a run folder that a resumed run trusts: what is not as it was written is computed again."""

from __future__ import annotations

import json
import shutil
import signal

import numpy as np
import pytest
from whole_runs import call, only, same

import benchmark.models.checkpoint
import benchmark.runner.run
from benchmark.errors import ItemsFailed, ModelError, StorageError
from benchmark.runner.folder import RunFolder
from benchmark.runner.store import (
    CORRUPT,
    MISSING,
    VALID,
    ResultStore,
    dump_with_digest,
    load_with_digest,
    write_atomic,
    write_atomic_in,
)
from benchmark.runner.worker import Worker

DEEP = "[" * 100_000


@pytest.fixture
def pieces(tmp_path) -> ResultStore:
    """One committed piece, `test-000000`."""
    shards = ResultStore(tmp_path)
    shards.commit(shards.stage("test-000000", {"a": np.zeros(3)}, {"stop": 1, "samples": [{"text": "move();"}]}))
    return shards


def test_an_entry_is_read_as_it_was_written(pieces):
    assert pieces.status("test-000000", stop=1) == VALID
    assert pieces.entry("test-000000")["samples"] == [{"text": "move();"}]
    assert pieces.status("test-000001") == MISSING


@pytest.mark.parametrize(
    "alter",
    [
        lambda text: text.replace("move();", "turn_left();"),
        lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "sha256"}),
        lambda text: json.dumps({**json.loads(text), "more": 1}),
        lambda text: text[:-5],
        lambda text: DEEP,
        lambda text: "[]",
        lambda text: "",
        lambda text: "\ufffd",
    ],
    ids=["text", "without digest", "more", "torn", "deep", "list", "empty", "no JSON"],
)
def test_an_altered_entry_is_damaged(pieces, alter):
    path = pieces.root / "test-000000.json"
    path.write_text(alter(path.read_text()))
    assert pieces.status("test-000000") == CORRUPT


def test_key_order_and_tuples_do_not_matter_to_the_digest():
    assert load_with_digest(dump_with_digest({"b": (1, 2), "a": {"x": None}})) == {"a": {"x": None}, "b": [1, 2]}


def test_a_run_computes_altered_entries_again(words, undisturbed, tmp_path, quick, monkeypatch, capsys):
    evaluate, left = Worker.evaluate, [6]

    def stop_after_some(self, shard, share=1.0):
        left[0] -= 1
        if left[0] < 0:
            signal.raise_signal(signal.SIGINT)
        return evaluate(self, shard, share)

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "evaluate", stop_after_some)
        assert call(*words, "--out", tmp_path) == 1
    folder = only(tmp_path)
    entry = folder / "shards" / "test-000000.json"
    stored = json.loads(entry.read_text())
    stored["samples"][0]["text"] = "move(); }"
    entry.write_text(json.dumps(stored))
    tasks = folder / "shards" / "tasks-test.json"
    tasks.write_text(tasks.read_text().replace('"count": ', '"count": 1'))
    capsys.readouterr()
    assert call(*words, "--out", tmp_path) == 0
    said = capsys.readouterr().err
    assert "test-000000: stored files are damaged" in said
    assert "tasks-test: stored files are damaged" in said
    same(folder, undisturbed)


def test_a_record_that_was_edited_is_computed_again(words, undisturbed, tmp_path, quick, capsys):
    folder = tmp_path / undisturbed.name
    shutil.copytree(undisturbed, folder)
    record = folder / "record.json"
    written = record.read_text()
    assert call(*words, "--out", tmp_path) == 0
    assert "done already" in capsys.readouterr().err
    edited = json.loads(written)
    edited["accuracy"]["held_out"]["value"] = 100.0
    record.write_text(json.dumps(edited))
    assert call(*words, "--out", tmp_path) == 0
    assert "not what the run wrote" in capsys.readouterr().err
    same(folder, undisturbed)
    assert RunFolder.file_status(folder, "record.json") == VALID


def test_without_its_events_a_record_is_not_believed(undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "run")
    (tmp_path / "run" / "events.jsonl").unlink()
    assert RunFolder.file_status(tmp_path / "run", "record.json") == CORRUPT


def test_altered_events_are_passed_over(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.log("started", total={})
    folder.log("retried", piece="a", cause="raised")
    folder.log("retried", piece="b", cause="deadline")
    path = folder.root / "events.jsonl"
    path.write_text(path.read_text().replace("raised", "praised") + DEEP + "\n\x85{}\n")
    assert [event["event"] for event in folder.events()] == ["started", "retried"]
    assert folder.retries() == {"deadline": 1}


def test_events_of_an_earlier_version_are_read(tmp_path):
    (tmp_path / "events.jsonl").write_text(
        '{"time": "2020-01-01T00:00:00+00:00", "event": "started", "total": {}}\n{"time": "x", "event": "finished"}\n'
    )
    assert len(RunFolder.events_of(tmp_path)) == 2


def test_what_a_fit_reads_is_written_again_if_altered(tmp_path):
    from benchmark.cluster.local_executor import LocalExecutor
    from benchmark.cluster.pool import Pool
    from benchmark.runner.cached_fits import CachedProbeTrainer

    fits = CachedProbeTrainer(ResultStore(tmp_path), Pool(LocalExecutor(), 1))
    path = fits._write_inputs({"targets": np.arange(5)})
    written = path.read_bytes()
    path.write_bytes(written[:-1] + b"\x07")
    assert fits._write_inputs({"targets": np.arange(5)}) == path
    assert path.read_bytes() == written


def test_the_digest_is_taken_again_from_the_files(tiny_folder, tmp_path):
    from benchmark.models.interface import ModelSpec

    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    checkpoint = benchmark.models.checkpoint.open_checkpoint(ModelSpec("path", str(folder)))
    assert checkpoint.current_digest() == checkpoint.digest
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert checkpoint.current_digest() != checkpoint.digest
    shutil.rmtree(folder)
    assert checkpoint.current_digest() != checkpoint.digest


@pytest.mark.parametrize("name", ["lock", "events.jsonl"])
def test_links_in_a_run_folder_are_not_followed(name, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = RunFolder(tmp_path / "run")
    (folder.root / name).symlink_to(victim)
    with pytest.raises(StorageError), folder.lock():
        folder.log("started")
    assert victim.read_text() == "precious"


def test_a_folder_exchanged_for_a_link_is_not_written_into(tmp_path):
    (tmp_path / "other").mkdir()
    folder = RunFolder(tmp_path / "run")
    attempt = folder.store.stage("a", {"a": np.zeros(1)}, {})
    folder.store.root.rename(tmp_path / "moved")
    folder.store.root.symlink_to(tmp_path / "other", target_is_directory=True)
    with pytest.raises(OSError, match=r"link|directory"):
        folder.store.commit(attempt)
    with pytest.raises(StorageError):
        folder.store.stage("b", {"a": np.zeros(1)}, {})
    assert not list((tmp_path / "other").iterdir())
    with pytest.raises(StorageError):
        RunFolder(tmp_path / "run")


def test_a_file_takes_the_place_of_a_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "record.json").symlink_to(victim)
    write_atomic(tmp_path / "record.json", b"new")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "record.json").is_symlink()
    with pytest.raises(StorageError):
        write_atomic_in(tmp_path / "nowhere", "a", b"")
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_clock_set_back_disturbs_nothing(words, undisturbed, tmp_path, quick, monkeypatch, capsys):
    import benchmark.runner.folder
    import benchmark.status

    years = iter(range(2040, 1900, -1))
    monkeypatch.setattr(benchmark.runner.folder, "_now", lambda: f"{next(years, 1900)}-01-01T00:00:00+00:00")
    options = [*words, "--no-states", "--limit", "4", "--out", tmp_path]
    assert call(*options) == 0
    status = benchmark.status.read_status(only(tmp_path))
    assert (status.state, status.sessions, status.failed) == ("done", 1, {})
    assert call(*options) == 0
    assert "done already" in capsys.readouterr().err


def test_identical_failures_are_told_once_with_their_count():
    reasons = {f"test-{i:06d}": "raised:  ValueError\nat model.py:3" for i in range(184)} | {"blind-000000": "deadline"}
    message = str(ItemsFailed(reasons))
    assert message.count("ValueError") == 1
    assert "184 items: raised: ValueError at model.py:3; blind-000000: deadline" in message
    assert "\n" not in message
    assert ModelError.exit_code == ItemsFailed(reasons, invalid=True).exit_code
