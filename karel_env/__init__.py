"""The Karel language: parser, worlds, interpreter and task generators. Depends on NumPy and Numba only.

    import karel_env as karel
    print(karel.run("def run() { move(); }", "> . #", trace=True))

Each name in `__all__` is imported on first use; docs/karel_env.md describes the language.
"""

import hashlib
import importlib
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from karel_env import interpreter
    from karel_env.features import FEATURES as FEATURES
    from karel_env.interpreter import Execution as Execution
    from karel_env.language import ACTIONS as ACTIONS
    from karel_env.language import CONDITIONS as CONDITIONS
    from karel_env.language import Programs as Programs
    from karel_env.parser import ParseError as ParseError
    from karel_env.parser import parse as parse
    from karel_env.semantics import ORIGINAL as ORIGINAL
    from karel_env.semantics import Semantics as Semantics
    from karel_env.semantics import mirror_classes as mirror_classes
    from karel_env.single import ProgramRun as ProgramRun
    from karel_env.single import Step as Step
    from karel_env.single import run as run
    from karel_env.world import WorldError as WorldError
    from karel_env.world import Worlds as Worlds
    from karel_env.world import parse_world as parse_world
    from karel_env.world import world_text as world_text

    run_batch = interpreter.run

_HOMES = {
    "features": ["FEATURES"],
    "interpreter": ["Execution"],
    "language": ["ACTIONS", "CONDITIONS", "Programs"],
    "parser": ["ParseError", "parse"],
    "semantics": ["ORIGINAL", "Semantics", "mirror_classes"],
    "single": ["ProgramRun", "Step", "run"],
    "world": ["WorldError", "Worlds", "parse_world", "world_text"],
}
"""The public names by the module that defines them; `run_batch` is `interpreter.run`."""
_HOME_OF = {name: (home, name) for home, names in _HOMES.items() for name in names} | {
    "run_batch": ("interpreter", "run")
}

__all__ = sorted(_HOME_OF)

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


def _is_installed(folder: Path) -> bool:
    """Whether an installer has put the package there; into such a folder nothing is written."""
    return any(folder.parent.glob("karel_semantics_benchmark-*.dist-info"))


def _place_cache(folder: Path) -> None:
    """Set Numba's cache folder: next to the source in a checkout, the user's cache folder for an installed package.

    Without a writable home folder, a folder for temporary files is used.
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


def _temporary_cache(folder: Path) -> Path:
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


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home, attribute = _HOME_OF[name]
    value = getattr(importlib.import_module(f"{__name__}.{home}"), attribute)
    # A command module of the same name, once imported, stays the attribute: it is callable too.
    globals().setdefault(name, value)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not _is_installed(_FOLDER):
    _delete_stale_cache(_FOLDER)
_place_cache(_FOLDER)
