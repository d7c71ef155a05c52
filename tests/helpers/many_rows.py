"""A board of many rows: shipped rows under other names, each with contents of its own, so that no cache takes two for one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from functools import cache
from pathlib import Path

from benchmark.installation.paths import SOURCE_ROOT

SUBMISSIONS = SOURCE_ROOT / "submissions"
RECORD, SAMPLES, DESCRIPTION, STATUS = "record.json", "samples.jsonl.gz", "submission.yaml", "status.json"
LINKED = {".safetensors", ".data", ".png", ".svg"}
"""Files that are hard links to those of the shipped rows: no command writes them."""
GZIP_TIME = slice(4, 8)
"""Bytes of the header of a gzip file that hold a time, and that nothing reads."""


@cache
def digest_of(path: Path) -> str:
    """SHA-256 of a shipped file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_rows(target: Path, count: int, sources: tuple[str, ...] = (), links: bool = True) -> list[str]:
    """Make a board.

    Args:
        target: folder of submissions, which is made.
        count: number of rows.
        sources: names of the shipped rows that are copied in turn; by default all.
        links: whether weights and evidence are there too, as hard links.

    Returns:
        Names of the folders.
    """
    names = sources or tuple(sorted(path.parent.name for path in SUBMISSIONS.glob(f"*/{RECORD}")))
    return [copy_row(SUBMISSIONS / names[i % len(names)], target, i, links) for i in range(count)]


def copy_row(source: Path, target: Path, number: int, links: bool) -> str:
    """Copy a shipped row under a name with a number; its samples, record, description and status are of its own."""
    folder = target / f"{source.name}-{number:04d}"
    folder.mkdir(parents=True)
    digests: dict[Path, str] = {}
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        name = path.relative_to(source)
        if name.name == STATUS or (path.suffix in LINKED and not links):
            continue
        copy = folder / name
        copy.parent.mkdir(exist_ok=True)
        if path.suffix in LINKED:
            try:
                os.link(path, copy)
            except OSError:
                shutil.copyfile(path, copy)
            digests[name] = digest_of(path)
        else:
            copy.write_bytes(_own_content(source, path, number))
            digests[name] = hashlib.sha256(copy.read_bytes()).hexdigest()
    if (source / STATUS).is_file():
        status = json.loads((source / STATUS).read_text())
        status["files"] = _digest_of_all(digests)
        (folder / STATUS).write_text(json.dumps(status))
    return folder.name


def _own_samples(source: Path, number: int) -> bytes:
    content = bytearray((source / SAMPLES).read_bytes())
    content[GZIP_TIME] = number.to_bytes(4, "little")
    return bytes(content)


def _own_content(source: Path, path: Path, number: int) -> bytes:
    if path.name == SAMPLES:
        return _own_samples(source, number)
    if path.name == RECORD:
        record = json.loads(path.read_text())
        record["samples_sha256"] = hashlib.sha256(_own_samples(source, number)).hexdigest()
        return json.dumps(record).encode()
    if path.name == DESCRIPTION:
        return re.sub(r"(?m)^name: (.*)$", rf"name: \1-{number:04d}", path.read_text(), count=1).encode()
    return path.read_bytes()


def _digest_of_all(digests: dict[Path, str]) -> str:
    """As `files_digest` of the submission, from the digests of its files."""
    total = hashlib.sha256()
    for name in sorted(digests):
        total.update(name.as_posix().encode() + b"\0" + bytes.fromhex(digests[name]))
    return total.hexdigest()
