"""Calls of code that is not the benchmark's: whatever it does to end the process becomes an error of the model."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from benchmark.errors import ModelError
from karel_env.command import shown, was_interrupted

_lock = threading.RLock()
_depth = 0
_original_exit = os._exit


class ProcessExit(BaseException):
    """`os._exit` was called."""


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
