"""A function carried out in a process of its own, with a deadline and a memory limit: for files that strangers wrote.

The limits:
    seconds: wall-clock time from the start of the process; importing torch and transformers takes about 5 of them.
    memory: bytes of anonymous and shared memory of the process and of all it starts, looked at 50 times per second, so a
        process is stopped within some hundred megabytes of it. Mapped weight files are not counted: the kernel drops
        their pages where memory is short. Importing torch and transformers takes about 0.4 GB. A single allocation of more
        than `ADDRESS_FACTOR` times the limit plus `ADDRESS_SLACK` fails at once. Only Linux tells of the former.

What the function prints is dropped. All processes of its session are killed at the end, however it ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from benchmark.errors import BenchmarkError, ModelError, UsageError

T = TypeVar("T")

POLL_SECONDS = 0.02
SCAN_SECONDS = 0.2
"""Between two looks for processes that the function has started."""
ADDRESS_FACTOR, ADDRESS_SLACK = 2, 4 << 30
"""Mapped weights count as address space, so its limit is wider than that of memory in use."""
OUTPUT_BYTES = 4096
"""Of what a process printed, kept for the message where it died."""
MESSAGE_LENGTH = 400
PR_SET_PDEATHSIG = 1
CHILD = "from benchmark.isolation import _serve; _serve()"
_LENGTH_BYTES = 8


def run_bounded(function: Callable[..., T], *args: object, seconds: float, memory: int, subject: str = "model") -> T:
    """What `function(*args)` returns, computed within limits.

    Args:
        function: at the top level of a module that can be imported; it, its arguments and its result are pickled.
        seconds: of wall-clock time; must be more than 0.
        memory: bytes, see above; must be more than 0.
        subject: what is loaded, for messages.

    Raises:
        UsageError: a limit that is none.
        ModelError: a limit was passed, the process died, or the function raised what is no `BenchmarkError`.
        BenchmarkError: what the function raised, of the same class and exit code.
    """
    if not 0 < seconds < float("inf") or memory <= 0:
        raise UsageError(f"limits of {seconds} s and {memory} bytes: expected more than 0 of both")
    request = json.dumps(sys.path).encode() + b"\n" + pickle.dumps((_importable(function), args))
    result_end, child_end = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(child_end), str(memory)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            pass_fds=(child_end,), start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
        )  # fmt: skip
    except BaseException:
        os.close(result_end)
        raise
    finally:
        os.close(child_end)
    try:
        answer, output, passed = _ProcessMonitor(process, request, result_end, seconds, memory).wait()
    finally:
        for member in {process.pid, *_session_members(process.pid)}:
            _kill(member)
        process.wait()
        os.close(result_end)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
    if passed:
        raise ModelError(f"{subject}: {passed}; its files ask for more than a model of this kind needs")
    if answer is None:
        raise ModelError(f"{subject}: {_describe_exit(process.returncode, output)}")
    kind, value = pickle.loads(answer)
    if kind == "result":
        return value
    if kind == "memory":
        raise ModelError(f"{subject}: took more than {_gigabytes(memory)} of memory (the limit)")
    if kind == "error":
        raise ModelError(f"{subject}: {value}")
    raised, message, code = value
    problem = raised.__new__(raised)
    problem.args, problem.exit_code = (message,), code
    raise problem


class _ProcessMonitor:
    """Feeds a process its request, and reads its answer and its output until it ends or passes a limit."""

    def __init__(
        self, process: subprocess.Popen[bytes], request: bytes, result_end: int, seconds: float, memory: int
    ) -> None:
        self.process, self.request, self.memory = process, memoryview(request), memory
        self.result_end, self.seconds = result_end, seconds
        self.deadline = time.monotonic() + seconds
        self.answer, self.output = bytearray(), bytearray()
        self.members: list[int] = [process.pid]
        self.next_scan = 0.0

    def wait(self) -> tuple[bytes | None, str, str]:
        """The pickled answer (None if there is none), the end of the output, and the limit that was passed or ''."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            for stream, events, act in (
                (self.process.stdin.fileno(), selectors.EVENT_WRITE, self._feed),
                (self.process.stdout.fileno(), selectors.EVENT_READ, self._collect_output),
                (self.result_end, selectors.EVENT_READ, self._collect_answer),
            ):
                os.set_blocking(stream, False)
                selector.register(stream, events, act)
            dead = False
            while True:
                for key, _ in selector.select(POLL_SECONDS):
                    if not key.data(key.fd):
                        selector.unregister(key.fd)
                if self._complete():
                    return bytes(self.answer[_LENGTH_BYTES:]), "", ""
                if dead:
                    return None, self.output.decode(errors="replace"), ""
                passed = self._passed()
                if passed:
                    return None, "", passed
                # Once more around after its death: the answer may still be in the pipe.
                dead = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _complete(self) -> bool:
        head = bytes(self.answer[:_LENGTH_BYTES])
        return len(head) == _LENGTH_BYTES and len(self.answer) - _LENGTH_BYTES >= int.from_bytes(head, "big")

    def _passed(self) -> str:
        """The limit that was passed, in words, or ''."""
        now = time.monotonic()
        if now > self.deadline:
            return f"took more than {self.seconds:g} s (the deadline)"
        if now > self.next_scan:
            self.members, self.next_scan = _session_members(self.process.pid) or self.members, now + SCAN_SECONDS
        if sum(map(_memory_used, self.members)) > self.memory or len(self.answer) > self.memory:
            return f"took more than {_gigabytes(self.memory)} of memory (the limit)"
        return ""

    def _feed(self, stream: int) -> bool:
        try:
            self.request = self.request[os.write(stream, self.request) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        return len(self.request) > 0

    def _collect_output(self, stream: int) -> bool:
        chunk = os.read(stream, 65536)
        self.output = (self.output + chunk)[-OUTPUT_BYTES:]
        return bool(chunk)

    def _collect_answer(self, stream: int) -> bool:
        """Reads all that is there: a poll for each chunk would make large results slow."""
        while True:
            try:
                chunk = os.read(stream, 1 << 20)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            self.answer += chunk
            if len(self.answer) > self.memory or self._complete():
                return True


def _importable(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function under its module's own name where the module runs as a command."""
    if function.__module__ != "__main__":
        return function
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None or "." in function.__qualname__:
        raise UsageError(f"{function.__qualname__}: defined in a script; expected a function of a module")
    module: Any = __import__(spec.name, fromlist=["_"])
    imported: Callable[..., Any] = getattr(module, function.__name__)
    return imported


def _serve() -> None:
    """In the process: limits first, then the request, then the answer."""
    result_end, memory = int(sys.argv[1]), int(sys.argv[2])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = ADDRESS_FACTOR * memory + ADDRESS_SLACK
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    answer: tuple[str, Any]
    try:
        # The path of the parent comes first: its modules may lie where only it knows.
        sys.path[:] = json.loads(sys.stdin.buffer.readline())
        function, args = pickle.load(sys.stdin.buffer)
        answer = ("result", function(*args))
        packed = pickle.dumps(answer)
    except BenchmarkError as problem:
        packed = pickle.dumps(("raised", (type(problem), str(problem), problem.exit_code)))
    except MemoryError:
        packed = pickle.dumps(("memory", ""))
    except BaseException as problem:  # loaders of other libraries may panic, exit, or recurse too deep
        packed = pickle.dumps(("error", f"{type(problem).__name__}: {_one_line(str(problem))}"))
    with open(result_end, "wb") as stream:
        stream.write(len(packed).to_bytes(_LENGTH_BYTES, "big") + packed)
    sys.stdout.flush()
    # Threads of libraries may wait for ever at a regular exit.
    os._exit(0)


def _session_members(leader: int) -> list[int]:
    """The processes of the session that this process leads; none where the system does not tell."""
    members = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader:
            members.append(int(entry.parent.name))
    return members


def _memory_used(process: int) -> int:
    """Bytes of anonymous and shared memory of a process; 0 where the system does not tell or it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


def _describe_exit(code: int, output: str) -> str:
    """How a process ended that gave no answer."""
    lines = [line for line in output.splitlines() if line.strip()]
    last = f" ({_one_line(lines[-1])})" if lines else ""
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
    return f"the process that loaded it {how} before it was through{last}; its files are at fault, or memory was short"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MESSAGE_LENGTH]


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
