"""Karel: the language, the worlds, the machine, the generators. NumPy and Numba only."""

import hashlib
import os
import stat
import sys
import tempfile
from pathlib import Path

_FOLDER = Path(__file__).parent


def _sources(folder: Path) -> str:
    """Names, times and sizes of the sources."""
    sources = [(path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.glob("*.py"))]
    return "\n".join(f"{name} {changed} {size}" for name, changed, size in sources)


def _forget_stale_code(folder: Path) -> None:
    """Remove compiled functions if any source is not the one they were compiled from.

    Numba looks at the file that defines a function only, and would keep the old values of what it took from others.
    """
    cache = folder / "__pycache__"
    stamp = cache / "sources.txt"
    present = _sources(folder)
    try:
        if stamp.exists() and stamp.read_text() == present:
            return
        for path in cache.glob("*.nb[ci]"):
            path.unlink(missing_ok=True)
        cache.mkdir(exist_ok=True)
        stamp.write_text(present)
    except OSError:
        # A folder that cannot be written holds no compiled code either: Numba keeps it elsewhere, see `_place_cache`.
        return


def _is_installed(folder: Path) -> bool:
    """Whether an installer has put the package there; into such a folder nothing is written."""
    return any(folder.parent.glob("karel_semantics_benchmark-*.dist-info"))


def _place_cache(folder: Path) -> None:
    """Tell Numba where to keep compiled functions: beside the source, or if it is installed, in the user's cache.

    Without a home folder that can be written to, a folder for temporary files serves.
    """
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    is_installed, has_home = _is_installed(folder), _is_writable(_user_cache())
    if not is_installed and (has_home or _is_writable(folder / "__pycache__")):
        return
    try:
        cache = _user_cache() / f"karel-{_digest_sources(folder)}" if has_home else _temporary_cache(folder)
    except OSError:
        _compile_without_cache()
        return
    os.environ["NUMBA_CACHE_DIR"] = str(cache)
    if "numba" in sys.modules:
        sys.modules["numba"].config.reload_config()


def _user_cache() -> Path:
    """Where Numba keeps what it cannot keep beside the source."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - without a home folder Path raises
    base = home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or base) / "numba"


def _is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or in the nearest one above it that is there."""
    if not folder.is_absolute():
        return False
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        with tempfile.TemporaryFile(dir=there):
            return True
    except OSError:
        return False


def _digest_sources(folder: Path) -> str:
    """A name for the compiled code of these sources in this folder: another source never finds it."""
    return hashlib.sha256(f"{folder} {_sources(folder)}".encode()).hexdigest()[:12]


def _temporary_cache(folder: Path) -> Path:
    """A folder for temporary files that is the user's alone, since compiled code is read from it without a check.

    Raises:
        OSError: there is none.
    """
    cache = Path(tempfile.gettempdir()) / f"karel-numba-{os.getuid()}-{_digest_sources(folder)}"
    cache.mkdir(mode=0o700, exist_ok=True)
    status = cache.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise OSError(f"{cache} belongs to someone else")
    return cache


def _compile_without_cache() -> None:
    from numba.core.dispatcher import Dispatcher

    Dispatcher.enable_caching = lambda self: None  # type: ignore[method-assign]


if not _is_installed(_FOLDER):
    _forget_stale_code(_FOLDER)
_place_cache(_FOLDER)
