"""A run that is stopped anywhere goes on to the same bytes; what is damaged is computed again; one driver at a time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import killed_driver
import numpy as np
import pytest
from quick_protocol import QUICK, SHORT_SUITE, SMALL_SUITE
from safetensors.numpy import load_file, save_file
from whole_runs import call, forked, only, same

from benchmark.errors import BenchmarkError
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.runner.folder import RunFolder, lock_holder
from benchmark.runner.plan import Shard, ShardResult
from benchmark.runner.record import read_record
from benchmark.runner.run import Run, RunConfig
from benchmark.runner.store import CORRUPT, VALID, write_atomic
from benchmark.runner.worker import Worker
from benchmark.status import FINISHED, RUNNING, STOPPED, describe, read_status
from benchmark.status import main as status
from benchmark.tasks.stage import BLIND, Stage


@pytest.mark.parametrize(("kills", "seed"), [(6, 102), pytest.param(20, 40, marks=pytest.mark.slow)])
def test_a_driver_killed_again_and_again_loses_nothing(words, tmp_path, undisturbed, kills, seed):
    out = tmp_path / "killed" / "runs"
    out.parent.mkdir()
    output = tmp_path / "driver.output"
    code = killed_driver.start(output, seed, kills, out, *words)
    assert code == 0, output.with_suffix(".errors").read_text()[-2000:]
    sessions = [json.loads(line) for line in output.read_text().splitlines() if line.startswith('{"killed"')]
    assert [each["killed"] for each in sessions] == [True] * kills + [False]
    kept: set[str] = set()
    for each in sessions:
        assert not kept & set(each["computed"]), "a committed piece was computed again"
        kept |= set(each["committed"])
    counts = [len(each["committed"]) for each in sessions[:-1]]
    assert counts[0] < 0.1 * len(kept) < 0.75 * len(kept) < counts[-1], "the kills are spread over the whole run"
    same(only(out), undisturbed)
    status = read_status(only(out))
    assert (status.state, status.sessions) == (FINISHED, read_sessions(only(out)))


def read_sessions(root: Path) -> int:
    return sum(entry["event"] == "started" for entry in RunFolder(root).events())


def stop_after(monkeypatch, count: int) -> None:
    real, done = Worker.evaluate, []

    def evaluate(self, shard, share=1.0):
        if len(done) == count:
            signal.raise_signal(signal.SIGINT)
        done.append(shard)
        return real(self, shard, share)

    monkeypatch.setattr(Worker, "evaluate", evaluate)


@pytest.mark.parametrize("damage", ["truncated", "altered", "entry"])
def test_damage_is_found_by_checksum_and_reported(words, tmp_path, undisturbed, quick, monkeypatch, capsys, damage):
    with monkeypatch.context() as patch:
        stop_after(patch, 10)
        assert call(*words, "--out", tmp_path / "runs") == 1
    root = only(tmp_path / "runs")
    assert read_status(root).state == STOPPED
    hit = sorted((root / "shards").glob("test-*.json" if damage == "entry" else "test-*.safetensors"))[1]
    content = hit.read_bytes()
    changed = {"truncated": content[:-1], "altered": content[:-1] + b"?", "entry": content[: len(content) // 2]}
    hit.write_bytes(changed[damage])
    capsys.readouterr()
    assert call(*words, "--out", tmp_path / "runs") == 0
    assert f"{hit.stem}: stored files are damaged" in capsys.readouterr().err.replace("\n", " ")
    same(root, undisturbed)
    assert read_record(root / "record.json").provenance.retries == {CORRUPT: 1}


def test_a_second_driver_is_refused(words, tmp_path, quick, capsys):
    run = Run(RunConfig(words[3], out=tmp_path, protocol=QUICK), open_checkpoint(ModelSpec.parse(words[1])))
    folder = RunFolder(run.root())

    def hold(say: Callable[[], None], wait: Callable[[], None]) -> None:
        with RunFolder(folder.root).lock():
            say()
            wait()

    assert lock_holder(folder.root) is None
    with forked(hold) as other:
        folder.log("started", total={})
        assert lock_holder(folder.root) == other
        assert read_status(folder.root).state == RUNNING
        with pytest.raises(BenchmarkError, match=f"another driver computes this run .process {other} on"):
            run.execute(None, None)
    assert lock_holder(folder.root) is None
    assert read_status(folder.root).state == STOPPED


def test_a_shard_that_fails_is_named_and_nothing_is_published(words, tmp_path, quick, monkeypatch, capsys):
    real, tried = Worker.evaluate, []

    def evaluate(self, shard, share=1.0):
        if shard.name == "test-000007":
            tried.append(shard)
            raise ValueError("this task is too much")
        return real(self, shard, share)

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "evaluate", evaluate)
        assert call(*words, "--out", tmp_path) == 1
    assert len(tried) == 2
    root = only(tmp_path)
    message = capsys.readouterr().err
    assert "test-000007: raised: ValueError at test_resume.py" in message.replace("\n", " ")
    assert not (root / "record.json").exists()
    found = read_status(root)
    assert found.state == STOPPED
    assert list(found.failed) == ["test-000007"]
    assert found.committed["test"] == found.total["test"] - 1
    assert found.committed["random-1-blind"] == found.total["random-1-blind"], "the rest goes on"
    assert "failed     test-000007: raised: ValueError" in describe(found)
    assert status([str(root)]) == 1
    assert call(*words, "--out", tmp_path) == 0
    assert status([str(root), "--json"]) == 0
    record = read_record(root / "record.json")
    assert record.provenance.retries == {"raised": 1}


def test_a_model_that_gives_no_numbers_is_invalid(tiny_folder, tmp_path, quick, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_folder, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][3] = np.nan
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    assert call("--model", f"path:{broken}", "--suite", SMALL_SUITE, "--out", tmp_path / "runs") == 3
    message = " ".join(capsys.readouterr().err.split())
    assert "check: invalid model: logits: NaN" in message
    assert "later tokens" not in message
    assert read_status(only(tmp_path / "runs")).state == STOPPED


def test_a_full_disk_is_said_and_what_is_there_is_kept(words, tmp_path, quick, capsys):
    if os.geteuid():
        pytest.skip("needs root to mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(disk)], check=True)
    try:
        assert call(*words, "--out", disk) == 1
        message = capsys.readouterr().err
        assert "No space left on device" in message
        assert "run the same command again" in message
        root = only(disk)
        kept = {p.stem for p in (root / "shards").glob("*.json") if RunFolder(root).store.status(p.stem) == VALID}
        assert kept
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        assert call(*words, "--out", disk) == 0
        again = [entry["piece"] for entry in RunFolder(root).events() if entry["event"] == "committed"]
        assert all(again.count(piece) == 1 for piece in kept)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_events_outlive_a_torn_line(tmp_path):
    folder = RunFolder(tmp_path)
    folder.log("one", piece="a")
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"time": "2026-')
    folder.log("two", why="ü")
    assert [entry["event"] for entry in folder.events()] == ["one", "two"]


def test_attempts_are_apart_until_one_is_committed(tmp_path):
    pieces = RunFolder(tmp_path).store
    first, second = pieces.stage("a", {}, {"n": 1}), pieces.stage("a", {}, {"n": 2})
    assert first.file != second.file
    assert pieces.status("a") == "absent"
    pieces.commit(second)
    pieces.commit(first)
    assert (pieces.status("a"), pieces.entry("a")["n"]) == (VALID, 1)
    with pytest.raises(FileNotFoundError):
        pieces.commit(first)
    pieces.stage("b", {}, {})
    pieces.delete_staged()
    assert sorted(path.name for path in pieces.root.iterdir()) == ["a.json", "a.safetensors"]


def test_half_a_batch_makes_a_run_unofficial(words, tmp_path, quick, monkeypatch):
    real, failed = Worker.evaluate, []

    def evaluate(self, shard, share=1.0):
        if shard.name == "test-000000" and not failed:
            failed.append(share)
            raise MemoryError
        if shard.name == "test-000000":
            failed.append(share)
        return real(self, shard, share)

    monkeypatch.setattr(Worker, "evaluate", evaluate)
    assert call(*words, "--out", tmp_path) == 0
    record = read_record(only(tmp_path) / "record.json")
    assert failed == [1.0, 0.5]
    assert any("a batch was halved" in reason for reason in record.unofficial)
    assert record.provenance.retries == {"out of memory": 1}


def test_nothing_of_a_run_reaches_the_disk_in_halves(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"whole")
    assert path.read_bytes() == b"whole"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_shard_of_another_plan_does_not_count(tmp_path):
    folder = RunFolder(tmp_path)
    folder.commit(Shard(Stage(BLIND), 0, 10), ShardResult([]))
    assert folder.is_committed(Shard(Stage(BLIND), 0, 10))
    assert folder.status(Shard(Stage(BLIND), 0, 20)) == CORRUPT


def test_strict_results_do_not_depend_on_the_batch(words, tmp_path, quick):
    words = [SHORT_SUITE if word == SMALL_SUITE else word for word in words]
    for batch in (1, 7):
        assert call(*words, "--out", tmp_path / str(batch), "--strict", "--batch", batch) == 0
    one, seven = only(tmp_path / "1"), only(tmp_path / "7")
    same(one, seven)
    assert one.name != seven.name
    record = read_record(one / "record.json")
    assert record.model.dtype == "float64"
    assert "--batch-size 1" in record.unofficial
