"""Packages of the user's that take a name of this project's.

Python looks into the current folder first for `python -m` and `python -c`, and into `PYTHONPATH` before what is
installed, so a folder `benchmark/` or a file `baselines.py` there is imported instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("benchmark", "baselines")
"""Names beside `karel_env` that this project installs."""


def shadowing_path(name: str, root: Path = ROOT) -> Path | None:
    """What Python imports under a name instead of the package in `root`; None if it imports that, or nothing."""
    spec = find_spec(name)
    if spec is None:
        return None
    locations = [Path(location) for location in spec.submodule_search_locations or [spec.origin or ""]]
    return None if any(location.resolve() == root / name for location in locations) else locations[0]


def shadowing_message(names: Sequence[str] = PACKAGES, root: Path = ROOT) -> str:
    """One line that names the first package whose name is taken, and by what; empty if none is."""
    for name in names:
        path = shadowing_path(name, root)
        if path is not None:
            return (
                f"the name {name} is taken by {path}, which Python finds first; expected {root / name}; "
                "run the command from another folder, rename yours, or take it out of PYTHONPATH"
            )
    return ""
