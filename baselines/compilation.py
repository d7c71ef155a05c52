"""Report what torch.compile cannot compile as an error of `--compile`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch._dynamo.exc import BackendCompilerFailed

from benchmark.errors import UsageError


@contextmanager
def report_compilation() -> Iterator[None]:
    """Wrap steps of a model that may be compiled, which torch does at the first of them.

    Raises:
        UsageError: the model could not be compiled, for example since there is no C++ compiler.
    """
    try:
        yield
    except BackendCompilerFailed as error:
        inner = error.inner_exception
        (reason, *_) = f"{type(inner).__name__}: {inner}".strip().splitlines()
        raise UsageError(
            f"--compile: torch could not compile the model ({reason}); where no compiler is found, install g++ or name one "
            "in the environment variable CXX, or leave --compile out"
        ) from error
