"""Karel: the language, the worlds, the machine, the generators. NumPy and Numba only.

    import karel_env as karel
    print(karel.run("def run() { move(); }", "> . #", trace=True))

Everything in `__all__` is loaded where it is first used; docs/karel_env.md has the rules.
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


def _place_cache(folder: Path) -> None:
    """Tell Numba where to keep compiled functions if neither the package nor the user's home folder will do."""
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


def _temporary_cache(folder: Path) -> Path:
    """A folder for temporary files that is the user's alone, since compiled code is read from it without a check.

    Raises:
        OSError: there is none.
    """
    sources = hashlib.sha256(f"{folder} {_sources(folder)}".encode()).hexdigest()[:12]
    cache = Path(tempfile.gettempdir()) / f"karel-numba-{os.getuid()}-{sources}"
    cache.mkdir(mode=0o700, exist_ok=True)
    status = cache.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise OSError(f"{cache} belongs to someone else")
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


_forget_stale_code(_FOLDER)
_place_cache(_FOLDER)
