"""Where the packages lie, what a built package holds besides modules, and which folder commands work in.

A built package holds in `benchmark/shipped/` a copy of each file of the repository that commands read. Nothing is written
below `SOURCE_ROOT` unless it is a checkout.
"""

from __future__ import annotations

from pathlib import Path

SOURCE_ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("benchmark", "karel_env", "baselines")
BUILD_FILE, SHIPPED_FOLDER = "benchmark/_build.json", "benchmark/shipped"
DEFAULT_MODEL = "submissions/2026-11-23_llama-laptop"
"""Folder of the model that commands use by default, in the repository and below `SHIPPED_FOLDER`."""
CALIBRATION_FILE = "docs/calibration.json"
SHIPPED_FILES = (
    *(f"{DEFAULT_MODEL}/{name}" for name in (
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "training.json",
    )),
    CALIBRATION_FILE, "docs/calibration_protocol4.json", "docs/calibration_causal.json",
)  # fmt: skip
"""Files of the repository outside of the packages that a built package holds a copy of."""


def is_checkout(root: Path = SOURCE_ROOT) -> bool:
    """Whether the packages lie in the repository's folder, as a checkout or a copy of one, rather than installed."""
    return (root / "pyproject.toml").is_file() and not (root / SHIPPED_FOLDER).is_dir()


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
