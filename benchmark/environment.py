"""The environment of a run: memory limits, OOM kills, source digest, git commit, hardware and package versions.

A container's memory limit is one of its control group (cgroup), which /proc/meminfo does not show. Versions 2 and 1 of
cgroups are read; without cgroups there is no such limit. Linux only.
"""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import karel_env
from benchmark.installation.paths import SOURCE_ROOT
from benchmark.installation.source_state import source_state

PACKAGES = ("numpy", "numba", "torch", "transformers", "tokenizers", "safetensors", "ray", "scipy")
RESULT_SOURCES = ("statistics.py", "tasks", "models", "probing", "causal", "runner")
"""Modules and packages of `benchmark` that the results of a run depend on; with them all of `karel_env`."""
CGROUPS = Path("/sys/fs/cgroup")
PROC_SELF = Path("/proc/self")
OOM_KILL_FILES = ("memory.events", "memory.oom_control")
UNLIMITED = 1 << 62
"""Version 1 of cgroups writes "no limit" as the largest multiple of the page size."""


def available_limit() -> int | None:
    """Bytes that this process may still allocate under its own limit and those of its cgroups; None without a limit."""
    limits = [max(0, limit - used) for limit, used in (*_cgroup_limits(), *_rlimit())]
    return min(limits, default=None)


def cgroup_memory_limit() -> int | None:
    """The smallest memory limit in bytes of this process's cgroup and its ancestors; None without one."""
    return min((limit for limit, _ in _cgroup_limits()), default=None)


def count_oom_kills() -> int:
    """Number of processes that the kernel has killed for memory, in this process's cgroups, else on the machine.

    Version 1 counts only in the cgroup of the killed process, which for a worker is its driver's.
    """
    counts = [_read_entry(folder / name, "oom_kill") for folder in _cgroup_folders() for name in OOM_KILL_FILES]
    counts_present = [count for count in counts if count is not None]
    return max(counts_present, default=_read_entry(Path("/proc/vmstat"), "oom_kill") or 0)


def _cgroup_limits() -> Iterator[tuple[int, int]]:
    """(limit, bytes used that cannot be reclaimed) of each cgroup with a limit, from this process's own upwards."""
    for folder in _cgroup_folders():
        for limit_name, usage_name, cache_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, used = _read_int(folder / limit_name), _read_int(folder / usage_name)
            if limit is not None and used is not None and limit < UNLIMITED:
                yield limit, used - (_read_entry(folder / "memory.stat", cache_name) or 0)


def _rlimit() -> Iterator[tuple[int, int]]:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        pages = _read_text(PROC_SELF / "statm").split()
        yield limit, int(pages[0]) * os.sysconf("SC_PAGE_SIZE") if pages else 0


def _cgroup_folders() -> Iterator[Path]:
    """Folders of the cgroups that account for this process's memory, its own first, then the ancestors."""
    for line in _read_text(PROC_SELF / "cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            root = CGROUPS if (CGROUPS / "cgroup.controllers").is_file() else CGROUPS / "unified"
        elif "memory" in controllers.split(","):
            root = CGROUPS / "memory"
        else:
            continue
        group = root / path.lstrip("/")
        # In a container the path may name a cgroup visible only outside; the container's own is then the root.
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root) and folder.is_dir())


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _read_int(path: Path) -> int | None:
    """The integer in a file; None if the file is missing or holds another text, such as "max"."""
    text = _read_text(path).strip()
    return int(text) if text.isdigit() else None


def _read_entry(path: Path, name: str) -> int | None:
    """The integer after a name in a file of lines "name integer"."""
    for line in _read_text(path).splitlines():
        fields = line.split()
        if len(fields) == 2 and fields[0] == name:
            return int(fields[1])
    return None


def source_digest(modules: Sequence[str] = RESULT_SOURCES) -> str:
    """SHA-256 over the source of `karel_env` and of modules or packages of `benchmark`.

    The default covers the code that the results of a run depend on, so an edit of the board or of a command does not change
    it. `("",)` covers all of `benchmark`.
    """
    # Ray may put the two packages into different folders on a node.
    roots = [SOURCE_ROOT / "benchmark" / name for name in modules] + [Path(karel_env.__file__).parent]
    digest = hashlib.sha256()
    for root in roots:
        for path in [root] if root.is_file() else sorted(root.rglob("*.py")):
            name = f"{root.name}/{path.relative_to(root).as_posix()}"
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def processor_name() -> str:
    """The processor's model name, as reported by the system."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def gpu_name(device: str) -> str:
    """The name of a CUDA device of this machine; empty for any other device."""
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") and torch.cuda.is_available() else ""


def describe_environment() -> dict[str, Any]:
    """The entries of `Provenance` that are equal for all runs in this process."""
    source = source_state()
    return {
        "source": source_digest(),
        "commit": source.commit,
        "dirty": source.dirty,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": processor_name(),
        "cores": os.cpu_count() or 1,
        "packages": package_versions(PACKAGES),
    }


def package_versions(packages: Sequence[str]) -> dict[str, str | None]:
    """The installed version of each package; None for one that is not installed."""
    return {name: _version(name) for name in packages}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
