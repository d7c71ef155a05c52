"""What the cache lacks is computed once, in several processes; what fails there is left to where it is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmark.board.cached import in_processes
from benchmark.board.cached.in_processes import CachedPart, compute_missing
from benchmark.board.cached.store import cache_key, read_cached


@pytest.fixture
def log(tmp_path, monkeypatch) -> Path:
    """An empty cache and two processors; a file of which process computed what."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(in_processes, "usable_cores", lambda: 2)
    monkeypatch.setattr(in_processes, "PIECE_PARTS", 4)
    log = tmp_path / "log"
    log.touch()
    return log


def computed(log: Path) -> list[list[str]]:
    """Numbers of parts, with the processes that computed them."""
    return [line.split() for line in log.read_text().splitlines()]


def parts_of(log: Path, suites: str, fails: int = -1, kills: int = -1) -> list[CachedPart]:
    """A part per name of a suite; one of them raises an error, one ends every process but this one."""
    this = os.getpid()

    def compute(number: int) -> bytes:
        with log.open("a") as file:
            file.write(f"{number} {os.getpid()}\n")
        if number == fails:
            raise ValueError(f"part {number}")
        if number == kills and os.getpid() != this:
            os._exit(1)
        return str(number).encode()

    return [CachedPart(cache_key("x", i), lambda i=i: compute(i), suite) for i, suite in enumerate(suites)]


def test_parts_are_computed_once_by_other_processes_suite_by_suite(log):
    parts = parts_of(log, "abab" * 4)
    compute_missing(parts)
    assert sorted(int(number) for number, _ in computed(log)) == list(range(16))
    assert str(os.getpid()) not in {process for _, process in computed(log)}
    for process in {process for _, process in computed(log)}:
        numbers = [int(number) for number, other in computed(log) if other == process]
        pieces = [numbers[start : start + 4] for start in range(0, len(numbers), 4)]
        assert all(len({number % 2 for number in piece}) == 1 for piece in pieces), "a piece is of one suite"
    compute_missing(parts)
    assert [part.read() for part in parts] == [str(number).encode() for number in range(16)]
    assert len(computed(log)) == 16, "what is there is not computed again"


def test_an_error_comes_where_the_part_is_read(log):
    parts = parts_of(log, "aaaabbbb", fails=1)
    compute_missing(parts)
    assert len(computed(log)) == 8
    assert [read_cached(part.key) is None for part in parts] == [number == 1 for number in range(8)]
    with pytest.raises(ValueError, match="part 1"):
        parts[1].read()


def test_what_a_killed_process_had_is_computed_where_it_is_read(log):
    parts = parts_of(log, "aaaabbbb", kills=2)
    compute_missing(parts)
    assert read_cached(parts[2].key) is None
    assert [part.read() for part in parts] == [str(number).encode() for number in range(8)]


@pytest.mark.parametrize("reason", ["one processor", "one piece", "no cache"])
def test_no_process_is_started_without_use(reason, log, tmp_path, monkeypatch):
    if reason == "one processor":
        monkeypatch.setattr(in_processes, "usable_cores", lambda: 1)
    elif reason == "no cache":
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    parts = parts_of(log, "aaaa" if reason == "one piece" else "aaaabbbb")
    compute_missing(parts)
    assert computed(log) == []
    assert parts[0].read() == b"0"


def test_what_changed_since_its_key_was_derived_is_not_stored(log):
    def find_key() -> str:
        return cache_key("x", log.read_text())

    part = CachedPart(find_key(), lambda: log.read_bytes(), "", find_key)
    log.write_text("changed")
    assert part.read() == b"changed"
    assert read_cached(part.key) is None
    same = CachedPart(find_key(), lambda: log.read_bytes(), "", find_key)
    assert (same.read(), read_cached(same.key)) == (b"changed", b"changed")
