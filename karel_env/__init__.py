"""The Karel language: parser, worlds, interpreter and task generators. Depends on NumPy and Numba only.

    import karel_env as karel
    print(karel.run("def run() { move(); }", "> . #", trace=True))

Each name in `__all__` is imported on first use; docs/karel_env.md describes the language.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from karel_env.compiled_cache import prepare_cache

if TYPE_CHECKING:
    from karel_env.execution import interpreter
    from karel_env.execution.interpreter import Execution as Execution
    from karel_env.features import FEATURES as FEATURES
    from karel_env.language import ACTIONS as ACTIONS
    from karel_env.language import CONDITIONS as CONDITIONS
    from karel_env.language import Programs as Programs
    from karel_env.semantics import ORIGINAL as ORIGINAL
    from karel_env.semantics import Semantics as Semantics
    from karel_env.semantics import mirror_classes as mirror_classes
    from karel_env.single import ProgramRun as ProgramRun
    from karel_env.single import Step as Step
    from karel_env.single import run as run
    from karel_env.syntax.parser import ParseError as ParseError
    from karel_env.syntax.parser import parse as parse
    from karel_env.world import WorldError as WorldError
    from karel_env.world import Worlds as Worlds
    from karel_env.world import parse_world as parse_world
    from karel_env.world import world_text as world_text

    run_batch = interpreter.run

_HOMES = {
    "execution.interpreter": ["Execution"],
    "features": ["FEATURES"],
    "language": ["ACTIONS", "CONDITIONS", "Programs"],
    "semantics": ["ORIGINAL", "Semantics", "mirror_classes"],
    "single": ["ProgramRun", "Step", "run"],
    "syntax.parser": ["ParseError", "parse"],
    "world": ["WorldError", "Worlds", "parse_world", "world_text"],
}
"""The public names by the module that defines them; `run_batch` is `interpreter.run`."""
_HOME_OF = {name: (home, name) for home, names in _HOMES.items() for name in names} | {
    "run_batch": ("execution.interpreter", "run")
}

__all__ = sorted(_HOME_OF)


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


prepare_cache(Path(__file__).parent)
