"""Which commit the source that runs is of: that of the git checkout, or the one that the build has recorded.

A built package holds `benchmark/_build.json`, with the commit and the digest of its source.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from benchmark.installation.paths import BUILD_FILE, PACKAGES, SHIPPED_FOLDER, SOURCE_ROOT

SOURCE_SUFFIXES = (".py", ".yaml", ".json", ".html", ".css", ".js")
GIT_SECONDS = 20


@dataclass(frozen=True)
class BuildRecord:
    """What a build records.

    Attributes:
        commit: the commit that was built; None if the source was no git checkout.
        dirty: whether the checkout had changes in the packages; None without a commit.
        digest: `packages_digest` of what was built.
    """

    commit: str | None
    dirty: bool | None
    digest: str


@dataclass(frozen=True)
class SourceState:
    """The commit of the source that runs.

    Attributes:
        commit: the commit of the checkout or of the build; None if none is known.
        dirty: whether the source differs from that commit; None if none is known.
        problem: why the source is not that of a known commit; empty if it is.
    """

    commit: str | None
    dirty: bool | None
    problem: str


def packages_digest(root: Path = SOURCE_ROOT) -> str:
    """SHA-256 over the names and contents of all source and data files of the packages below `root`."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.suffix in SOURCE_SUFFIXES and name != BUILD_FILE and not name.startswith(f"{SHIPPED_FOLDER}/"):
                digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def read_build_record(root: Path = SOURCE_ROOT) -> BuildRecord | None:
    """The record of the build; None if there is none, or it is damaged."""
    try:
        return BuildRecord(**json.loads((root / BUILD_FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def write_build_record(record: BuildRecord, root: Path) -> None:
    """Write the record of a build below `root`, the folder that is packed."""
    (root / BUILD_FILE).write_text(json.dumps(asdict(record), indent=1) + "\n")


def checkout_state(root: Path = SOURCE_ROOT) -> tuple[str | None, bool | None]:
    """The commit of the checkout whose top folder is `root`, and whether its packages have changes.

    (None, None) where `root` is no such folder: a virtual environment inside of another project's checkout, for one, has
    that project's commit.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    commit = _git(root, "rev-parse", "HEAD")
    if top is None or commit is None or Path(top).resolve() != root.resolve():
        return None, None
    changes = _git(root, "status", "--porcelain", "--", *PACKAGES)
    return commit, changes != ""


@cache
def source_state(root: Path = SOURCE_ROOT) -> SourceState:
    """Which commit the source below `root` is of; read once per process, since what runs is what was loaded."""
    commit, is_dirty = checkout_state(root)
    if commit is not None:
        return SourceState(commit, is_dirty, "the source has uncommitted changes" if is_dirty else "")
    record = read_build_record(root)
    if record is None:
        is_unreadable = (root / ".git").exists()
        reason = f"git cannot read {root}" if is_unreadable else "it is neither a git checkout nor built from one"
        return SourceState(None, None, f"no commit of the source is known: {reason}")
    if packages_digest(root) != record.digest:
        built = f" of commit {record.commit[:12]}" if record.commit else ""
        return SourceState(record.commit, None if record.commit is None else True, f"source edited after build{built}")
    if record.commit is None:
        return SourceState(None, None, "no commit of the source is known: it was built outside of a git checkout")
    problem = "the source was built from a checkout with uncommitted changes" if record.dirty else ""
    return SourceState(record.commit, record.dirty, problem)


def make_build_record(checkout: Path, packed: Path) -> BuildRecord:
    """The record of a build.

    Args:
        checkout: folder that is built: a git checkout, or an unpacked source distribution, which has a record of its own.
        packed: folder of the copies of the packages that are packed.
    """
    digest, source = packages_digest(packed), source_state(checkout)
    return BuildRecord(source.commit, source.dirty, digest)


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of git in a folder; None if git fails or is missing."""
    try:
        process = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=GIT_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip()
