"""Work that has a process of its own, done in the test's: what is tested is its result.

A process of its own imports everything anew, 5 s. That its limits hold is tested in `test_isolated_process`; and one rerun
of a model, one rendering and one loading are tested as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any


def run_here(
    function: Callable[..., Any], *arguments: object, seconds: float, memory: int, subject: str = "model"
) -> Any:
    """In place of `benchmark.isolation.run_bounded`."""
    assert seconds > 0
    assert memory > 0
    return function(*arguments)


def stay_in_process(assign: Callable[..., object], *modules: ModuleType) -> None:
    """What these modules do in a process of its own is done in this one; `assign` is a patch's `setattr`."""
    for module in modules:
        assign(module, "run_bounded", run_here)
