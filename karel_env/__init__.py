"""Karel: the language, the worlds, the machine, the generators. NumPy and Numba only."""

from pathlib import Path

_FOLDER = Path(__file__).parent


def _forget_stale_code(folder: Path) -> None:
    """Remove compiled functions if any source is not the one they were compiled from.

    Numba looks at the file that defines a function only, and would keep the old values of what it took from others.
    """
    sources = [(path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.glob("*.py"))]
    cache = folder / "__pycache__"
    stamp = cache / "sources.txt"
    present = "\n".join(f"{name} {changed} {size}" for name, changed, size in sources)
    try:
        if stamp.exists() and stamp.read_text() == present:
            return
        for path in cache.glob("*.nb[ci]"):
            path.unlink(missing_ok=True)
        cache.mkdir(exist_ok=True)
        stamp.write_text(present)
    except OSError:
        # A folder that cannot be written holds no compiled code either: Numba keeps it with the user's files.
        return


_forget_stale_code(_FOLDER)
