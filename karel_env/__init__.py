"""The Karel language: parser, worlds, interpreter and task generators. Depends on NumPy and Numba only."""

import hashlib
import os
import stat
import sys
import tempfile
from pathlib import Path

_FOLDER = Path(__file__).parent


def _sources(folder: Path) -> str:
    """Names, modification times and sizes of the source files, as text."""
    sources = [(path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.glob("*.py"))]
    return "\n".join(f"{name} {changed} {size}" for name, changed, size in sources)


def _delete_stale_cache(folder: Path) -> None:
    """Delete compiled functions if a source file has changed since they were compiled.

    Numba checks only the file that defines a function, so it would keep old values of what that file imports.
    """
    cache = folder / "__pycache__"
    stamp = cache / "sources.txt"
    current = _sources(folder)
    try:
        if stamp.exists() and stamp.read_text() == current:
            return
        for path in cache.glob("*.nb[ci]"):
            path.unlink(missing_ok=True)
        cache.mkdir(exist_ok=True)
        stamp.write_text(current)
    except OSError:
        # A read-only folder contains no compiled functions: Numba stores them elsewhere, see `_place_cache`.
        return


def _place_cache(folder: Path) -> None:
    """Set Numba's cache folder if neither the package's folder nor the user's cache folder is writable."""
    if os.environ.get("NUMBA_CACHE_DIR") or _is_writable(folder / "__pycache__") or _is_writable(_user_cache()):
        return
    try:
        cache = _temporary_cache(folder)
    except OSError:
        _compile_without_cache()
        return
    os.environ["NUMBA_CACHE_DIR"] = str(cache)
    if "numba" in sys.modules:
        sys.modules["numba"].config.reload_config()


def _user_cache() -> Path:
    """Folder in which Numba stores compiled functions if the package's folder is not writable."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - without a home folder Path raises
    base = home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or base) / "numba"


def _is_writable(folder: Path) -> bool:
    """Whether files can be created in a folder, or in its nearest parent that exists."""
    if not folder.is_absolute():
        return False
    try:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        with tempfile.TemporaryFile(dir=existing):
            return True
    except OSError:
        return False


def _temporary_cache(folder: Path) -> Path:
    """Create a cache folder that no other user can access, since Numba loads compiled code from it without a check.

    Raises:
        OSError: the folder cannot be created, or belongs to another user.
    """
    sources = hashlib.sha256(f"{folder} {_sources(folder)}".encode()).hexdigest()[:12]
    cache = Path(tempfile.gettempdir()) / f"karel-numba-{os.getuid()}-{sources}"
    cache.mkdir(mode=0o700, exist_ok=True)
    status = cache.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise OSError(f"{cache} is accessible to another user")
    return cache


def _compile_without_cache() -> None:
    from numba.core.dispatcher import Dispatcher

    Dispatcher.enable_caching = lambda self: None  # type: ignore[method-assign]


_delete_stale_cache(_FOLDER)
_place_cache(_FOLDER)
