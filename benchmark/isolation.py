"""Run a function in a separate process with a deadline and a memory limit, for files from untrusted sources.

The limits:
    seconds: wall-clock time from the start of the process; importing torch and transformers takes about 5 of them.
    memory: bytes of anonymous and shared memory of the process and of its children, polled 50 times per second, so the
        limit may be exceeded by some hundred megabytes. Memory-mapped weight files are not counted: the kernel
        can drop their pages. Importing torch and transformers takes about 0.4 GB. A single allocation of more
        than `ADDRESS_FACTOR` times the limit plus `ADDRESS_SLACK` fails at once. The usage is measured on Linux only.

The output of the function is discarded. All processes of its session are killed at the end, however it ends.
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
"""Interval between two scans for processes that the function has started."""
ADDRESS_FACTOR, ADDRESS_SLACK = 2, 4 << 30
"""Mapped weights count as address space, so its limit is wider than that of memory in use."""
OUTPUT_BYTES = 4096
"""Last bytes of a process's output, kept for the error message."""
MESSAGE_LENGTH = 400
PR_SET_PDEATHSIG = 1
CHILD = "from benchmark.isolation import _serve; _serve()"
_LENGTH_BYTES = 8


def run_bounded(function: Callable[..., T], *args: object, seconds: float, memory: int, subject: str = "model") -> T:
    """Return `function(*args)`, computed in a separate process within limits.

    Args:
        function: at the top level of a module that can be imported; it, its arguments and its result are pickled.
        seconds: of wall-clock time; must be more than 0.
        memory: bytes, see above; must be more than 0.
        subject: what is loaded, for messages.

    Raises:
        UsageError: a limit is not positive.
        ModelError: a limit was exceeded, the process died, or the function raised another error than `BenchmarkError`.
        BenchmarkError: raised by the function; same class and exit code.
    """
    if not 0 < seconds < float("inf") or memory <= 0:
        raise UsageError(f"limits of {seconds} s and {memory} bytes: expected more than 0 of both")
    request = json.dumps(sys.path).encode() + b"\n" + pickle.dumps((_importable(function), args))
    result_end, child_end = os.pipe()
    try:
        process = subprocess.Popen(
            # With -P, a package of the current folder is not found first where this process finds another.
            [sys.executable, "-P", "-c", CHILD, str(child_end), str(memory)],
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
        result, output, exceeded = _ProcessMonitor(process, request, result_end, seconds, memory).wait()
    finally:
        for member in {process.pid, *_session_members(process.pid)}:
            _kill(member)
        process.wait()
        os.close(result_end)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
    if exceeded:
        raise ModelError(f"{subject}: {exceeded}; its files ask for more than a model of this kind needs")
    if result is None:
        raise ModelError(f"{subject}: {_describe_exit(process.returncode, output)}")
    kind, value = pickle.loads(result)
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
    """Sends a process its request, and reads its result and output until it ends or exceeds a limit."""

    def __init__(
        self, process: subprocess.Popen[bytes], request: bytes, result_end: int, seconds: float, memory: int
    ) -> None:
        self.process, self.request, self.memory = process, memoryview(request), memory
        self.result_end, self.seconds = result_end, seconds
        self.deadline = time.monotonic() + seconds
        self.result, self.output = bytearray(), bytearray()
        self.members: list[int] = [process.pid]
        self.next_scan = 0.0

    def wait(self) -> tuple[bytes | None, str, str]:
        """The pickled result (None if there is none), the end of the output, and the exceeded limit or ''."""
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
            has_ended = False
            while True:
                for key, _ in selector.select(POLL_SECONDS):
                    if not key.data(key.fd):
                        selector.unregister(key.fd)
                if self._complete():
                    return bytes(self.result[_LENGTH_BYTES:]), "", ""
                if has_ended:
                    return None, self.output.decode(errors="replace"), ""
                exceeded = self._exceeded_limit()
                if exceeded:
                    return None, "", exceeded
                # One more iteration after its death: the result may still be in the pipe.
                has_ended = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _complete(self) -> bool:
        head = bytes(self.result[:_LENGTH_BYTES])
        return len(head) == _LENGTH_BYTES and len(self.result) - _LENGTH_BYTES >= int.from_bytes(head, "big")

    def _exceeded_limit(self) -> str:
        """Describe the exceeded limit; '' if there is none."""
        now = time.monotonic()
        if now > self.deadline:
            return f"took more than {self.seconds:g} s (the deadline)"
        if now > self.next_scan:
            self.members, self.next_scan = _session_members(self.process.pid) or self.members, now + SCAN_SECONDS
        if sum(map(_memory_used, self.members)) > self.memory or len(self.result) > self.memory:
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
            self.result += chunk
            if len(self.result) > self.memory or self._complete():
                return True


def _importable(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, imported by its module's real name if that module runs as `__main__`."""
    if function.__module__ != "__main__":
        return function
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None or "." in function.__qualname__:
        raise UsageError(f"{function.__qualname__}: defined in a script; expected a function of a module")
    module: Any = __import__(spec.name, fromlist=["_"])
    imported: Callable[..., Any] = getattr(module, function.__name__)
    return imported


def _serve() -> None:
    """Entry point of the process: set limits, read the request, write the result."""
    result_end, memory = int(sys.argv[1]), int(sys.argv[2])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    max_bytes = ADDRESS_FACTOR * memory + ADDRESS_SLACK
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(
        resource.RLIMIT_DATA, (max_bytes if hard == resource.RLIM_INFINITY else min(max_bytes, hard), hard)
    )
    result: tuple[str, Any]
    try:
        # The parent's sys.path comes first, since its modules may lie elsewhere.
        sys.path[:] = json.loads(sys.stdin.buffer.readline())
        function, args = pickle.load(sys.stdin.buffer)
        result = ("result", function(*args))
        packed = pickle.dumps(result)
    except BenchmarkError as error:
        packed = pickle.dumps(("raised", (type(error), str(error), error.exit_code)))
    except MemoryError:
        packed = pickle.dumps(("memory", ""))
    except BaseException as error:  # loaders of other libraries may panic, exit, or recurse too deep
        packed = pickle.dumps(("error", f"{type(error).__name__}: {_one_line(str(error))}"))
    with open(result_end, "wb") as stream:
        stream.write(len(packed).to_bytes(_LENGTH_BYTES, "big") + packed)
    sys.stdout.flush()
    # Threads of libraries may block a regular exit.
    os._exit(0)


def _session_members(leader: int) -> list[int]:
    """Process ids of a session; empty where /proc does not exist."""
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
    """Bytes of anonymous and shared memory of a process; 0 where /proc does not exist or the process is gone."""
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
    """Describe how a process without a result ended."""
    lines = [line for line in output.splitlines() if line.strip()]
    last = f" ({_one_line(lines[-1])})" if lines else ""
    ending = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
    return (
        f"the process that loaded it {ending} before it was through{last}; its files are at fault, or memory was short"
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MESSAGE_LENGTH]


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
