"""Where Numba keeps compiled functions, and when they are deleted.

Run when `karel_env` is imported: before Numba reads where its cache is.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from pathlib import Path


def prepare_cache(folder: Path) -> None:
    """Delete compiled functions of older sources in the folder of a package, and set where new ones are kept."""
    if not is_installed(folder):
        delete_stale_cache(folder)
    place_cache(folder)


def _sources(folder: Path) -> str:
    """Names, modification times and sizes of the source files, as text."""
    sources = [(path, path.stat()) for path in sorted(folder.rglob("*.py"))]
    return "\n".join(f"{path.relative_to(folder)} {status.st_mtime_ns} {status.st_size}" for path, status in sources)


def delete_stale_cache(folder: Path) -> None:
    """Delete compiled functions if a source file has changed since they were compiled.

    Numba checks only the file that defines a function, so it would keep old values of what that file imports.
    """
    cache = folder / "__pycache__"
    stamp = cache / "sources.txt"
    current = _sources(folder)
    try:
        if stamp.exists() and stamp.read_text(encoding="utf-8") == current:
            return
        for path in folder.rglob("__pycache__/*.nb[ci]"):
            path.unlink(missing_ok=True)
        cache.mkdir(exist_ok=True)
        stamp.write_text(current, encoding="utf-8")
    except OSError:
        # A read-only folder contains no compiled functions: Numba stores them elsewhere, see `place_cache`.
        return


def is_installed(folder: Path) -> bool:
    """Whether an installer has put the package there; into such a folder nothing is written."""
    return any(folder.parent.glob("karel_semantics_benchmark-*.dist-info"))


def place_cache(folder: Path) -> None:
    """Set Numba's cache folder: next to the source in a checkout, the user's cache folder for an installed package.

    Without a writable home folder, a folder for temporary files is used.
    """
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    has_home = _is_writable(_user_cache())
    if not is_installed(folder) and (has_home or _is_writable(folder / "__pycache__")):
        return
    try:
        cache = _user_cache() / f"karel-{_digest_sources(folder)}" if has_home else temporary_cache(folder)
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


def _digest_sources(folder: Path) -> str:
    """A name for the compiled code of these sources in this folder: another source never finds it."""
    return hashlib.sha256(f"{folder} {_sources(folder)}".encode()).hexdigest()[:12]


def temporary_cache(folder: Path) -> Path:
    """Create a cache folder that no other user can access, since Numba loads compiled code from it without a check.

    Raises:
        OSError: the folder cannot be created, or belongs to another user.
    """
    cache = Path(tempfile.gettempdir()) / f"karel-numba-{os.getuid()}-{_digest_sources(folder)}"
    cache.mkdir(mode=0o700, exist_ok=True)
    status = cache.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise OSError(f"{cache} is accessible to another user")
    return cache


def _compile_without_cache() -> None:
    from numba.core.dispatcher import Dispatcher

    Dispatcher.enable_caching = lambda self: None  # type: ignore[method-assign]
