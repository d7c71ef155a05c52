"""Forged copies of the smallest shipped submission with hidden states; big files are links to the shipped ones until edited."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHIPPED = Path(__file__).parents[2] / "submissions"
SMALL = "2026-11-26_gpt-small-laptop"
Deed = Callable[[Path], Any]


def copy_small(parent: Path, name: str = SMALL) -> Path:
    """A copy without its status, named in a folder of its own."""
    folder = parent / name
    (folder / "figures").mkdir(parents=True)
    for path in (SHIPPED / SMALL).rglob("*"):
        if path.is_file() and path.name != "status.json":
            target = folder / path.relative_to(SHIPPED / SMALL)
            try:
                os.link(path, target)
            except OSError:
                shutil.copyfile(path, target)
    return folder


def put(folder: Path, name: str, content: bytes) -> None:
    """Another content of a file, whose link to the shipped one ends with it."""
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_bytes(content)


def read_record(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "record.json").read_text())
    return record


def edit(place: str, value: Any) -> Deed:
    """Set an entry of the record; a dot leads inwards."""

    def deed(folder: Path) -> None:
        record = read_record(folder)
        inner = record
        *way, last = place.split(".")
        for step in way:
            inner = inner[step]
        inner[last] = value
        put(folder, "record.json", json.dumps(record).encode())

    return deed


def read_samples(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress((folder / "samples.jsonl.gz").read_bytes()).splitlines()]


def write_samples(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Other samples, with their digest in the record."""
    content = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), 1)
    put(folder, "samples.jsonl.gz", content)
    edit("samples_sha256", hashlib.sha256(content).hexdigest())(folder)
