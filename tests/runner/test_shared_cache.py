"""The cache of untrained copies: where it is, how large it gets, and that a second checkpoint reads no copy."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmark.causal import pieces
from benchmark.cli.options import CacheOptions
from benchmark.errors import UsageError
from benchmark.installation.cache_settings import NO_CACHE, CacheSettings
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.runner.evidence_cache import is_cached, read_cached, write_cached
from benchmark.runner.measurements import represents, uses
from benchmark.runner.measurements.represents import RepresentsMeasurement, copy_item
from benchmark.runner.measurements.uses import UNTRAINED_SEED, UsesMeasurement
from benchmark.runner.run import Run, RunConfig

ARRAYS = {"a": np.zeros(250, np.float32)}
PROTOCOL = replace(
    ROTATION_STANDARD, folds=3, seeds=(0, 1, 2), random_inits=2, steps=4, checks=1, hidden=4, batch=64, units=12,
    resamples=50, prompts=30,
)  # fmt: skip
SMALL_SUITE, SHORT_SUITE = (
    str(Path(__file__).parents[1] / "helpers" / f"{name}_suite.yaml") for name in ("small", "short")
)


def test_the_least_recently_used_entries_leave(tmp_path) -> None:
    write_cached("size", ARRAYS, CacheSettings(str(tmp_path)))
    size = (tmp_path / "size.data").stat().st_size
    settings = CacheSettings(str(tmp_path), 3 * size)
    for number, key in enumerate(("size", "b", "c")):
        write_cached(key, ARRAYS, settings)
        os.utime(tmp_path / f"{key}.data", (number, number))
    assert read_cached("size", settings) is not None, "used now, so that b is the oldest"
    write_cached("d", ARRAYS, settings)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["c", "d", "size"]
    write_cached("e", ARRAYS, replace(settings, max_bytes=1))
    assert [path.stem for path in tmp_path.iterdir()] == ["e"], "the entry that was just written stays"


def test_several_writers_share_a_bounded_cache(tmp_path) -> None:
    write_cached("size", ARRAYS, CacheSettings(str(tmp_path)))
    settings = CacheSettings(str(tmp_path), 4 * (tmp_path / "size.data").stat().st_size)
    problems: list[BaseException] = []

    def work(writer: int) -> None:
        try:
            for number in range(20):
                write_cached(f"{writer}-{number}", ARRAYS, settings)
                content = read_cached(f"{1 - writer}-{number}", settings)
                assert content is None or (content["a"] == ARRAYS["a"]).all()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert 1 <= len(list(tmp_path.iterdir())) <= 5


def test_no_cache_stores_and_reads_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    write_cached("key", ARRAYS, CacheSettings(NO_CACHE))
    assert not list(tmp_path.rglob("*.data"))
    write_cached("key", ARRAYS)
    assert is_cached("key")
    assert not is_cached("key", CacheSettings(NO_CACHE))
    assert read_cached("key", CacheSettings(NO_CACHE)) is None


def test_options_name_the_cache(tmp_path) -> None:
    assert CacheOptions().cache_settings() == CacheSettings()
    assert CacheOptions(cache="none").cache_settings().folder == NO_CACHE
    settings = CacheOptions(cache=str(tmp_path / "new"), cache_size=0.5).cache_settings()
    assert settings == CacheSettings(str(tmp_path / "new"), 500_000_000)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--cache"):
        CacheOptions(cache=str(tmp_path / "file")).cache_settings()


@pytest.fixture
def other(tiny_folder, tmp_path) -> Path:
    """Another checkpoint of the tiny model's architecture."""
    folder = tmp_path / "other"
    shutil.copytree(tiny_folder, folder)
    weights = next(folder.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    return folder


def test_a_second_checkpoint_reads_no_copy_with_a_cache(tiny_folder, other, tmp_path, monkeypatch) -> None:
    loaded: list[int | None] = []
    real = represents.load_model
    monkeypatch.setattr(represents, "load_model", lambda *arguments: (loaded.append(arguments[3]), real(*arguments))[1])

    def collect(folder: Path, cache: CacheSettings) -> list[dict[str, bytes]]:
        config = RunConfig(SMALL_SUITE, out=tmp_path, measurements=(), cache=cache)
        run = Run(config, open_checkpoint(ModelSpec.parse(f"path:{folder}")))
        assert run.job.cache == cache
        collector = RepresentsMeasurement(PROTOCOL).open(run.job)
        arrays = [collector.collect(copy_item(copy), lambda name: {}, 1.0) for copy in range(2)]
        return [{name: array.tobytes() for name, array in part.items()} for part in arrays]

    shared = CacheSettings(str(tmp_path / "cache"))
    first = collect(tiny_folder, shared)
    assert len(loaded) == 2
    assert collect(other, shared) == first
    assert len(loaded) == 2, "the copies of the second checkpoint are those of the first"
    assert collect(other, CacheSettings(NO_CACHE)) == first
    assert len(loaded) == 4


def test_a_second_checkpoint_edits_no_copy_with_a_cache(tiny_folder, other, tmp_path, monkeypatch) -> None:
    loaded: list[int | None] = []
    monkeypatch.setattr(uses, "load_steerable", lambda job, seed=None: loaded.append(seed))
    monkeypatch.setattr(pieces, "collect_untrained", lambda session: {"untrained": np.arange(3, dtype=np.int8)})
    monkeypatch.setattr(
        uses.UsesCollector, "_session", lambda self, scale, seed=None: uses.load_steerable(self.job, seed)
    )

    def collect(folder: Path, cache: CacheSettings, suite: str = SMALL_SUITE) -> None:
        run = Run(
            RunConfig(suite, out=tmp_path, measurements=(), cache=cache),
            open_checkpoint(ModelSpec.parse(f"path:{folder}")),
        )
        arrays = UsesMeasurement().open(run.job).collect(pieces.name_of(pieces.UNTRAINED), lambda name: {}, 1.0)
        assert arrays["untrained"].tolist() == [0, 1, 2]

    shared = CacheSettings(str(tmp_path / "cache"))
    collect(tiny_folder, shared)
    collect(other, shared)
    assert loaded == [UNTRAINED_SEED], "what the copy writes does not depend on the weights of the checkpoint"
    collect(other, shared, SHORT_SUITE)
    collect(other, CacheSettings(NO_CACHE))
    assert len(loaded) == 3
