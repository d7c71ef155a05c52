"""Folders of controls that training runs share: one process at a time, and no more than the cache may hold."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np

from benchmark.emergence.shared_controls import LOCK, open_controls
from benchmark.installation.cache_settings import NO_CACHE, CacheSettings
from benchmark.runner.store import VALID


def fill(tmp_path: Path, cache: CacheSettings, key: str, values: int = 100) -> tuple[Path, bool]:
    """The folder that is opened, and whether a result was there already; it is there afterwards."""
    with open_controls(tmp_path / "own", cache, key) as folder:
        is_there = folder.store.status("a") == VALID
        if not is_there:
            folder.store.commit(folder.store.stage("a", {"x": np.zeros(values, np.float32)}, {}))
        return folder.root, is_there


def test_without_a_named_cache_the_folder_is_the_evaluations_own(tmp_path) -> None:
    for settings in (CacheSettings(), CacheSettings(NO_CACHE)):
        assert fill(tmp_path, settings, "k")[0] == tmp_path / "own"


def test_a_second_evaluation_finds_what_the_first_computed(tmp_path) -> None:
    cache = CacheSettings(str(tmp_path / "cache"))
    first = fill(tmp_path, cache, "k")
    assert first == (tmp_path / "cache" / "controls-k", False)
    assert fill(tmp_path, cache, "k") == (first[0], True)
    assert not fill(tmp_path, cache, "another")[1]


def hold(path: Path, cache: CacheSettings, connection) -> None:
    with open_controls(path / "other", cache, "k"):
        connection.send("locked")
        connection.recv()


def test_a_folder_in_use_is_neither_shared_nor_removed(tmp_path) -> None:
    cache = CacheSettings(str(tmp_path / "cache"), 1)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=hold, args=(tmp_path, cache, theirs))
    process.start()
    try:
        assert ours.recv() == "locked"
        assert fill(tmp_path, cache, "k")[0] == tmp_path / "own"
        fill(tmp_path, cache, "second")
        assert (tmp_path / "cache" / "controls-k").is_dir()
    finally:
        ours.send("end")
        process.join()


def test_the_least_recently_used_folder_leaves(tmp_path) -> None:
    large = CacheSettings(str(tmp_path / "cache"))
    roots = [fill(tmp_path, large, key, 10_000)[0] for key in "abc"]
    for number, root in enumerate(roots):
        os.utime(root / LOCK, (number, number))
    assert fill(tmp_path, large, "a")[1], "used now, so that b is the oldest"
    fill(tmp_path, CacheSettings(large.folder, 130_000), "d", 10_000)
    assert sorted(path.name for path in Path(large.folder).iterdir()) == ["controls-a", "controls-c", "controls-d"]
