"""Custom models: `py:package.module:factory`, a function that builds a `LanguageModel` or a `ProgramGenerator`.

The factory is called as `factory(random_seed=None)` for the model, and with a number for an untrained copy of the same
architecture, initialised from that seed. Calls of custom code run inside `exit_as_error`, which turns attempts to end
the process into errors. Errors are `ModelError`.
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
    """Call the factory of a spec; the result has `generate`, and `hidden_states` if it is a network.

    Raises:
        ModelError: the module cannot be imported, or the factory fails or returns another kind of object.
    """
    name = spec.target.partition(":")[2]
    factory = getattr(_module(spec), name, None)
    if not callable(factory):
        raise ModelError(f"{spec}: the module has no function {name}; expected one that takes random_seed")
    try:
        inspect.signature(factory).bind(random_seed=random_seed)
    except TypeError as error:
        raise ModelError(f"{spec}: {name} cannot be called with random_seed=None alone ({error})") from error
    try:
        with exit_as_error(str(spec), name):
            model = factory(random_seed=random_seed)
    except ModelError:
        raise
    except Exception as error:  # custom code may raise anything
        raise ModelError(f"{spec}: {name} failed: {type(error).__name__}: {_line(error)}") from error
    if not callable(getattr(model, "generate", None)):
        raise ModelError(f"{spec}: {name} made a {type(model).__name__}, which has no method generate")
    return model


def module_source(spec: ModelSpec, loading: LoadOptions) -> tuple[Path, str]:
    """Return the path of the module's file and its SHA-256, which does not cover weights that the module reads.

    Raises:
        UsageError: custom code is not allowed by `loading`.
        ModelError: the module has no file.
    """
    if not loading.own_code:
        raise UsageError(f"{spec}: runs your own code; add --allow-code (such a run is never official)")
    try:
        path = Path(inspect.getfile(_module(spec)))
    except TypeError as error:
        raise ModelError(f"{spec}: its module has no file to digest; expected a module of your own") from error
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def _module(spec: ModelSpec) -> ModuleType:
    name = spec.target.partition(":")[0]
    try:
        with exit_as_error(str(spec), f"importing {name}"):
            return importlib.import_module(name)
    except ModelError:
        raise
    except Exception as error:  # custom code may raise anything
        raise ModelError(
            f"{spec}: cannot import {name} ({type(error).__name__}: {_line(error)}); "
            "run from the folder that holds it, or set PYTHONPATH"
        ) from error


def _line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:200]


@contextmanager
def exit_as_error(spec: str, call: str) -> Iterator[None]:
    """Turn `sys.exit`, `os._exit` and other `BaseException`s raised inside into a `ModelError`; plain exceptions pass.

    A signal that the code sends to itself, or an exit from compiled code, is not caught: the exit code is then not 0.
    """
    process_id = os.getpid()

    def raise_exit(status: int) -> NoReturn:
        if os.getpid() != process_id:
            # A process forked by the custom code may end itself.
            _original_exit(status)
        raise ProcessExit(status)

    _replace_exit(raise_exit)
    try:
        yield
    except Exception:
        raise
    except KeyboardInterrupt as error:
        if was_interrupted():
            raise
        raise _exit_error(spec, call, error) from error
    except BaseException as error:
        raise _exit_error(spec, call, error) from error
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
