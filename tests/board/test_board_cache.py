"""The cache of the board's commands: what is there is taken, what changed or is damaged is computed again."""

from __future__ import annotations

import os
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from many_rows import make_rows

from benchmark.board.cached import in_processes, store
from benchmark.board.cached import rows as cached_rows
from benchmark.board.cached.store import (
    cache_folder,
    cache_key,
    cached,
    cached_digest,
    file_signature,
    prune,
    read_cached,
    write_cached,
)
from benchmark.board.ranking import read_leaderboard_rows
from benchmark.board.tables import main
from benchmark.errors import VerificationError
from benchmark.runner.folder import read_probes
from benchmark.runner.store import to_safetensors
from benchmark.submit.schema import SELF_REPORTED

SOURCES = ("2026-11-25_gpt-laptop", "2026-11-25_n-gram", "2026-11-25_search-icml24")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "karel-bench" / "board"


class Calls:
    """Counts the calls of a function that it replaces."""

    def __init__(self, monkeypatch, owner, name: str) -> None:
        self.count, function = 0, getattr(owner, name)

        def call(*arguments):
            self.count += 1
            return function(*arguments)

        monkeypatch.setattr(owner, name, call)


def test_a_content_is_computed_once(folder):
    calls = []
    for _ in range(3):
        assert cached(cache_key("x", 1), lambda: calls.append(1) or b"content") == b"content"
    assert len(calls) == 1
    assert cache_folder() == folder
    assert [path.name for path in folder.iterdir()] == [cache_key("x", 1)]
    keys = {cache_key("x", 1), cache_key("x", "1"), cache_key("y", 1), cache_key("x", 1, 1), cache_key("x", [1])}
    assert len(keys) == 5


@pytest.mark.parametrize("damage", [
    lambda content: b"", lambda content: content[:-1], lambda content: content[:64], lambda content: content[:-1] + b"?",
    lambda content: b"0" * 64 + content[64:], lambda content: content + b"x",
])  # fmt: skip
def test_what_is_damaged_is_computed_again(folder, damage):
    key = cache_key("x")
    write_cached(key, b"content")
    (folder / key).write_bytes(damage((folder / key).read_bytes()))
    assert read_cached(key) is None
    assert cached(key, lambda: b"again") == b"again"
    assert read_cached(key) == b"again"


def test_a_folder_that_cannot_be_written_to_is_no_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cached(cache_key("x"), lambda: b"content") == b"content"
    assert read_cached(cache_key("x")) is None
    prune()


def write_many(number: int) -> None:
    for i in range(50):
        write_cached(cache_key("x", i % 5), str(i % 5).encode() * 5000)
        content = read_cached(cache_key("x", (i + number) % 5))
        assert content in (None, str((i + number) % 5).encode() * 5000)


def test_several_processes_write_at_once(folder):
    processes = [get_context("fork").Process(target=write_many, args=(number,)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(list(folder.iterdir())) == 5, "nothing but the five contents is left"


def test_the_oldest_contents_are_deleted(folder):
    for i in range(4):
        write_cached(cache_key("x", i), os.urandom(1000))
        os.utime(folder / cache_key("x", i), (i, i))
    prune(2 * 1200)
    assert [read_cached(cache_key("x", i)) is not None for i in range(4)] == [False, False, True, True]


def test_a_digest_is_computed_again_if_a_file_changed(tmp_path, monkeypatch):
    path, calls = tmp_path / "file", []
    path.write_text("first")
    digest = lambda: calls.append(1) or path.read_text()  # noqa: E731
    assert file_signature([path]) is None, "it may change again within the resolution of its times"
    assert [cached_digest("x", [path], digest) for _ in range(2)] == ["first"] * 2
    assert len(calls) == 2
    monkeypatch.setattr(store, "SETTLED_NS", 0)
    assert [cached_digest("x", [path], digest) for _ in range(2)] == ["first"] * 2
    assert len(calls) == 3
    path.write_text("other")
    assert cached_digest("x", [path], digest) == "other"
    os.utime(path, ns=(1, 1))
    path.write_text("third")
    os.utime(path, ns=(1, 1))
    assert cached_digest("x", [path], digest) == "third", "the time of the change cannot be set"
    assert cached_digest("x", [path, tmp_path / "missing"], lambda: "computed") == "computed"


def test_rows_are_read_once_per_content(tmp_path, monkeypatch):
    """Twelve rows: samples and descriptions are parsed at the first reading, then only those of a row that changed."""
    # What other processes parse is not counted.
    monkeypatch.setattr(in_processes, "usable_cores", lambda: 1)
    names = make_rows(tmp_path / "submissions", 12, SOURCES, links=False)
    parsed = [Calls(monkeypatch, cached_rows, name) for name in ("read_solved_tasks", "read_yaml")]
    first = read_leaderboard_rows(tmp_path / "submissions")
    assert [calls.count for calls in parsed] == [12, 12]
    second = read_leaderboard_rows(tmp_path / "submissions")
    assert [calls.count for calls in parsed] == [12, 12]
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.held_out, other.held_out)
        assert (one.folder, one.record, one.declared, one.status) == (
            other.folder, other.record, other.declared, other.status,
        )  # fmt: skip
    assert len({entry.name for entry in second}) == 12
    path = tmp_path / "submissions" / names[7] / "submission.yaml"
    path.write_text(path.read_text().replace("family: ", "family: my "))
    third = {entry.folder: entry for entry in read_leaderboard_rows(tmp_path / "submissions")}
    assert [calls.count for calls in parsed] == [12, 13]
    assert third[names[7]].family.startswith("my ")
    samples = tmp_path / "submissions" / names[7] / "samples.jsonl.gz"
    samples.write_bytes((tmp_path / "submissions" / names[10] / "samples.jsonl.gz").read_bytes())
    with pytest.raises(VerificationError, match="does not match the SHA-256"):
        read_leaderboard_rows(tmp_path / "submissions")


def test_a_status_ends_with_a_change_of_any_file(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SETTLED_NS", 0)
    (name,) = make_rows(tmp_path / "submissions", 1, SOURCES[:1])
    folder = tmp_path / "submissions" / name
    digests = Calls(monkeypatch, cached_rows, "files_digest")
    status = cached_rows.verification_status(folder)
    assert status != SELF_REPORTED
    assert cached_rows.verification_status(folder) == status
    assert digests.count == 1
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    # A file of its own in place of the hard link, which is the shipped one.
    weights.unlink()
    weights.write_bytes(content)
    assert cached_rows.verification_status(folder) == SELF_REPORTED
    assert digests.count == 2


def test_a_verdict_is_computed_once_per_record_and_arrays(tmp_path, monkeypatch, capsys):
    (name,) = make_rows(tmp_path / "submissions", 1, SOURCES[:1])
    where = ["--submissions", str(tmp_path / "submissions"), "--output-file", str(tmp_path / "leaderboard.md")]
    computed = Calls(monkeypatch, cached_rows.verify, "recompute_verdict")
    assert main(where) == 0
    assert computed.count == 0
    assert [main([*where, "--check"]) for _ in range(3)] == [0] * 3
    assert computed.count == 1
    folder = tmp_path / "submissions" / name
    arrays = read_probes(folder)
    # A file of its own in place of the hard link, which is the shipped one.
    (folder / "probes.data").unlink()
    altered = {**arrays, "model.totals": arrays["model.totals"] * 0.99}
    (folder / "probes.data").write_bytes(to_safetensors(altered))
    assert main(where) == 0
    assert [main([*where, "--check"]) for _ in range(2)] == [4, 4], "what does not fit is not taken from the cache"
    assert computed.count == 3
    assert "run the model again" in capsys.readouterr().err
