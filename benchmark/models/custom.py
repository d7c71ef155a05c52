"""Models of one's own class: `py:package.module:factory`, a function that makes a `LanguageModel` or a `Writer`.

The factory is called as `factory(random_seed=None)` for the model, and with a number for an untrained copy of the same
architecture, initialised from it. Errors are `ModelError`.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from benchmark.errors import ModelError, UsageError
from benchmark.models.interface import LoadOptions, ModelSpec
from karel_env.command import shown, was_interrupted

_lock = threading.RLock()
_depth = 0
_original_exit = os._exit


class ProcessExit(BaseException):
    """`os._exit` was called."""


def build_model(spec: ModelSpec, random_seed: int | None = None) -> Any:
    """What the factory makes; it has `generate`, and with states `hidden_states`."""
    name = spec.target.partition(":")[2]
    factory = getattr(_module(spec), name, None)
    if not callable(factory):
        raise ModelError(f"{spec}: the module has no function {name}; expected one that takes random_seed")
    try:
        inspect.signature(factory).bind(random_seed=random_seed)
    except TypeError as problem:
        raise ModelError(f"{spec}: {name} cannot be called with random_seed=None alone ({problem})") from problem
    try:
        with exit_as_error(str(spec), name):
            model = factory(random_seed=random_seed)
    except ModelError:
        raise
    except Exception as problem:  # someone else's code; it may raise anything
        raise ModelError(f"{spec}: {name} failed: {type(problem).__name__}: {_line(problem)}") from problem
    if not callable(getattr(model, "generate", None)):
        raise ModelError(f"{spec}: {name} made a {type(model).__name__}, which has no method generate")
    return model


def module_source(spec: ModelSpec, loading: LoadOptions) -> tuple[Path, str]:
    """The module's file and its SHA-256; the weights that the module reads are not in it.

    Raises:
        UsageError: the module may not run.
    """
    if not loading.own_code:
        raise UsageError(f"{spec}: runs code of your own; add --allow-code (such a run is never official)")
    try:
        path = Path(inspect.getfile(_module(spec)))
    except TypeError as problem:
        raise ModelError(f"{spec}: its module has no file to be digested; expected a module of your own") from problem
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def _module(spec: ModelSpec) -> ModuleType:
    name = spec.target.partition(":")[0]
    try:
        with exit_as_error(str(spec), f"importing {name}"):
            return importlib.import_module(name)
    except ModelError:
        raise
    except Exception as problem:  # as above
        raise ModelError(
            f"{spec}: cannot import {name} ({type(problem).__name__}: {_line(problem)}); "
            "run from the folder that holds it, or set PYTHONPATH"
        ) from problem


def _line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:200]


@contextmanager
def exit_as_error(spec: str, call: str) -> Iterator[None]:
    """Within, `sys.exit`, `os._exit` and what else is no plain exception are a `ModelError`; others pass.

    A signal that the code sends itself, or an exit from compiled code, is not held: the exit code is then not 0.
    """
    process_id = os.getpid()

    def raise_exit(status: int) -> NoReturn:
        if os.getpid() != process_id:
            # A process that the code forked may end itself.
            _original_exit(status)
        raise ProcessExit(status)

    _replace_exit(raise_exit)
    try:
        yield
    except Exception:
        raise
    except KeyboardInterrupt as problem:
        if was_interrupted():
            raise
        raise _exit_error(spec, call, problem) from problem
    except BaseException as problem:
        raise _exit_error(spec, call, problem) from problem
    finally:
        _restore_exit()


def _replace_exit(replacement: object) -> None:
    global _depth
    with _lock:
        _depth += 1
        if _depth == 1:
            os._exit = replacement  # type: ignore[assignment]


def _restore_exit() -> None:
    global _depth
    with _lock:
        _depth -= 1
        if _depth == 0:
            os._exit = _original_exit


def _exit_error(spec: str, call: str, problem: BaseException) -> ModelError:
    return ModelError(
        f"{spec}: {call} ended the process ({type(problem).__name__}: {shown(problem, 200)}); expected it to return or to "
        "raise an exception"
    )
