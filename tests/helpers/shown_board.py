"""A page over some shipped rows and one whose every word is hostile."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from pathlib import Path

import yaml
from measured_rows import few_pairs, write_not_applicable, write_represents, write_uses

from benchmark.board.known_answers import read_known_answers
from benchmark.board.page import render_page
from benchmark.board.ranking import rank_groups, read_calibration, read_leaderboard_rows
from benchmark.board.tables import CALIBRATION
from benchmark.installation.paths import SOURCE_ROOT
from benchmark.submit.schema import Status

ROWS = ("2026-11-25_gpt-laptop", "2026-11-23_llama-laptop", "2026-11-25_search")
SCRIPT = "</script><script>window.hacked = 1</script>"
IMAGE = "<img src=x onerror='window.hacked = 1'>"
FOLDER = 'x" onmouseover="window.hacked = 1"><b>\''
FILES = ("record.json", "samples.jsonl.gz", "probes.data", "readings.json.gz", "training.json", "submission.yaml")


def copy_rows(target: Path) -> Path:
    """The shipped rows `ROWS` below `target`, without their weights; the first with all measurements, the second N/A."""
    for row in ROWS:
        (target / row).mkdir(parents=True)
        for name in FILES:
            if (SOURCE_ROOT / "submissions" / row / name).is_file():
                shutil.copy(SOURCE_ROOT / "submissions" / row / name, target / row)
    write_represents(target / ROWS[0])
    write_uses(target / ROWS[0])
    write_not_applicable(target / ROWS[1])
    return target


def add_hostile(target: Path) -> None:
    """A row like the last of `ROWS`, with markup wherever a submitter can write."""
    folder = target / FOLDER
    shutil.copytree(target / ROWS[-1], folder)
    rows = [json.loads(line) for line in gzip.decompress((folder / "samples.jsonl.gz").read_bytes()).splitlines()]
    first = next(row for row in rows if row["stage"] == "test")
    first.update(text=SCRIPT + IMAGE, outcome="unparsable", shown=False, held_out=False, exact=False)
    packed = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    (folder / "samples.jsonl.gz").write_bytes(packed)
    record = json.loads((folder / "record.json").read_text())
    record["samples_sha256"] = hashlib.sha256(packed).hexdigest()
    record["model"].update(name=IMAGE, spec=f"path:{SCRIPT}")
    record["provenance"].update(processor=SCRIPT, commit=f"{IMAGE}; rm -r x")
    (folder / "record.json").write_text(json.dumps(record))
    write_not_applicable(folder, SCRIPT + IMAGE)
    declared = yaml.safe_load((folder / "submission.yaml").read_text())
    declared |= {
        "family": IMAGE,
        "authors": [SCRIPT, IMAGE, '"><svg onload=x>'],
        "url": "https://a/'><script>x</script>",
    }
    (folder / "submission.yaml").write_text(yaml.safe_dump(declared))
    digest = "0" * 64
    status = Status(status="flagged", reason=IMAGE, files=digest, source=digest, at="2026-01-01T00:00:00+00:00")
    (folder / "status.json").write_text(status.model_dump_json())


def rendered(folder: Path) -> str:
    """The page over the submissions in a folder."""
    groups = rank_groups(read_leaderboard_rows(folder))
    with few_pairs():
        return render_page(folder, groups, read_calibration(CALIBRATION), read_known_answers(CALIBRATION))
