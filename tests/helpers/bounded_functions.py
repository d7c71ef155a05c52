"""What tests carry out in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmark.errors import ItemsFailed, UsageError


def double(number: int) -> int:
    """Prints to both streams, which no caller sees."""
    print("to standard output")
    print("to standard error", file=sys.stderr)
    return 2 * number


def large(length: int) -> bytes:
    """More than a pipe holds."""
    return b"x" * length


def sleep_with_child(note: str) -> None:
    """Starts a process, notes its id, and waits for ever."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(note).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)


def fill(step: int) -> None:
    """Takes memory without end."""
    taken = []
    while True:
        taken.append(np.ones(step, np.uint8))


def allocate(size: int) -> int:
    """One allocation that is never touched."""
    return len(bytearray(size))


def refuse(kind: str) -> None:
    """Raises errors of several classes."""
    if kind == "usage":
        raise UsageError("expected another")
    if kind == "shards":
        raise ItemsFailed({"test-000000": "why"}, invalid=True)
    if kind == "value":
        raise ValueError("two\nlines")
    if kind == "recursion":
        refuse(kind)
    raise SystemExit(0)


def die(code: int) -> None:
    """Ends without an answer."""
    print("last words", flush=True)
    os._exit(code)


def abort() -> None:
    """Ends as native code does that finds an error."""
    os.abort()
