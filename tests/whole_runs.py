"""What tests of whole runs share: calling the command, and looking at what it left."""

from __future__ import annotations

from pathlib import Path

import benchmark.run
from benchmark.record import read_record

HERE = Path(__file__).parent


def call(*words: object) -> int:
    """The exit code of `python -m benchmark.run` with these words."""
    return benchmark.run.main([str(word) for word in words])


def only(folder: Path) -> Path:
    """The one folder in a folder."""
    (found,) = folder.iterdir()
    return found


def committed(out: Path) -> int:
    """Pieces that runs below `out` have committed."""
    return sum(1 for _ in out.glob("*/shards/*.json"))


def same(one: Path, two: Path) -> None:
    """The final files hold the same results; a record's times and counts of retries may differ."""
    for name in ("samples.jsonl.gz", "probes.data", "readings.json.gz"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    a, b = read_record(one / "record.json"), read_record(two / "record.json")
    assert a.model_copy(update={"provenance": b.provenance, "unofficial": b.unofficial}) == b
