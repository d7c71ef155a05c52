"""Changes to a repository of submissions, made on the spot, as they are proposed to the real one."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import yaml

from benchmark.runner.redaction import redact_json_paths

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "submissions"
NGRAM, RANDOM, NETWORK = "2026-11-25_n-gram", "2026-11-25_random", "2026-11-26_gpt-small-laptop"
WHO = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "core.fileMode=true")


def git(where: Path, *words: str) -> str:
    """A git command's output."""
    done = subprocess.run(["git", "-C", str(where), *WHO, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def copy_row(source: str, target: Path, status: bool = False) -> Path:
    """A shipped row under another path: as it lies there with its status, else as a new row without folders of a machine."""
    if status:
        return Path(shutil.copytree(SHIPPED / source, target))
    shutil.copytree(SHIPPED / source, target, ignore=shutil.ignore_patterns("status.json"))
    for name in ("record.json", "submission.yaml"):
        path = target / name
        content = json.loads(path.read_text()) if path.suffix == ".json" else yaml.safe_load(path.read_text())
        plain = redact_json_paths(content)
        path.write_text(json.dumps(plain) if path.suffix == ".json" else yaml.safe_dump(plain, sort_keys=False))
    return target


def make_base(folder: Path, *rows: str) -> Path:
    """A repository on branch main with these shipped rows and their statuses."""
    (folder / "submissions").mkdir(parents=True)
    (folder / "README.md").write_text("base")
    for row in rows:
        copy_row(row, folder / "submissions" / row, status=True)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "base")
    return folder


def merge_change(folder: Path, change: Callable[[Path], object]) -> Path:
    """Let a branch change `submissions/`, and check out its merge as the workflow does."""
    git(folder, "checkout", "-qb", "change")
    change(folder / "submissions")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "change", "--allow-empty")
    git(folder, "checkout", "-q", "main")
    git(folder, "merge", "-q", "--no-ff", "-m", "merge", "change")
    return folder
