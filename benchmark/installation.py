"""Where the packages' files are, and which commit their source is of: in a git checkout, or as built and installed.

A built package holds, beside its modules, `benchmark/_build.json` (commit and digest of the source) and
`benchmark/shipped/`, a copy of each file of the repository that commands read. `setup.py` loads this file by its path
when it builds, so it imports the standard library only. Nothing is ever written below `SOURCE_ROOT`.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

SOURCE_ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("benchmark", "karel_env", "baselines")
BUILD_FILE, SHIPPED_FOLDER = "benchmark/_build.json", "benchmark/shipped"
SOURCE_SUFFIXES = (".py", ".yaml", ".json", ".html", ".css", ".js")
DEFAULT_MODEL = "submissions/2026-11-23_llama-laptop"
"""Folder of the model that commands use by default, in the repository and below `SHIPPED_FOLDER`."""
CALIBRATION_FILE = "docs/calibration.json"
SHIPPED_FILES = (
    *(f"{DEFAULT_MODEL}/{name}" for name in (
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "training.json",
    )),
    CALIBRATION_FILE,
)  # fmt: skip
"""Files of the repository outside of the packages that a built package holds a copy of."""
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


def is_checkout(root: Path = SOURCE_ROOT) -> bool:
    """Whether the packages lie in the repository's folder, as a checkout or a copy of one, rather than installed."""
    return (root / "pyproject.toml").is_file()


def shipped_path(name: str, root: Path = SOURCE_ROOT) -> Path:
    """Path of a file or folder of the repository: in a checkout the file itself, in a built package its copy."""
    return root / name if is_checkout(root) else root / SHIPPED_FOLDER / name


def work_folder(root: Path = SOURCE_ROOT) -> Path:
    """The folder whose `submissions/`, `sealed/` and `leaderboard.*` commands read and write by default.

    The current folder; but the checkout that the packages run from, if the current folder has no `submissions/`.
    """
    current = Path.cwd()
    return root if is_checkout(root) and not (current / "submissions").is_dir() else current


def submissions_folder() -> Path:
    """The default folder of submissions; it need not exist."""
    return work_folder() / "submissions"


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
        problem = "no commit of the source is known: it is neither a git checkout nor built from one"
        return SourceState(None, None, problem)
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
