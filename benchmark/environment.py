"""How much memory a process may still take here: the machine's, its control group's, its own limit; and kernel kills.

A container's limit is a control group's, and /proc/meminfo knows nothing of it. Version 2 of control groups (one tree) and
version 1 (a tree per resource) are read; where there is neither, there is no such limit. Linux only.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self")
KILLS = ("memory.events", "memory.oom_control")
UNLIMITED = 1 << 62
"""Version 1 writes "no limit" as the largest multiple of the page size."""


def memory_left() -> int | None:
    """Bytes that may still be taken under the limits of this process and its control groups, None without a limit."""
    limits = [max(0, limit - used) for limit, used in (*_group_limits(), *_own_limit())]
    return min(limits, default=None)


def group_limit() -> int | None:
    """The smallest memory limit in bytes of this process's control group and those above, None without one."""
    return min((limit for limit, _ in _group_limits()), default=None)


def kernel_kills() -> int:
    """How often the kernel has killed a process for memory: in this process's control groups, else on the machine.

    Version 1 counts in the group of the process that was killed only, which for a worker is its driver's.
    """
    counts = [_entry(folder / name, "oom_kill") for folder in _groups() for name in KILLS]
    known = [count for count in counts if count is not None]
    return max(known, default=_entry(Path("/proc/vmstat"), "oom_kill") or 0)


def _group_limits() -> Iterator[tuple[int, int]]:
    """(limit, bytes used that cannot be reclaimed) of each control group with a limit, from the own one upwards."""
    for folder in _groups():
        for limit_name, usage_name, cache_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, used = _number(folder / limit_name), _number(folder / usage_name)
            if limit is not None and used is not None and limit < UNLIMITED:
                yield limit, used - (_entry(folder / "memory.stat", cache_name) or 0)


def _own_limit() -> Iterator[tuple[int, int]]:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        pages = _text(OWN / "statm").split()
        yield limit, int(pages[0]) * os.sysconf("SC_PAGE_SIZE") if pages else 0


def _groups() -> Iterator[Path]:
    """Folders of the control groups that account for this process's memory, the own one first, then those above."""
    for line in _text(OWN / "cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            root = CGROUPS if (CGROUPS / "cgroup.controllers").is_file() else CGROUPS / "unified"
        elif "memory" in controllers.split(","):
            root = CGROUPS / "memory"
        else:
            continue
        group = root / path.lstrip("/")
        # Within a container the path may name a group that is only seen outside; the container's own is then the root.
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root) and folder.is_dir())


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    """The number in a file, None if there is no file or no number ("max")."""
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _entry(path: Path, name: str) -> int | None:
    """The number behind a name in a file of lines "name number"."""
    for line in _text(path).splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == name:
            return int(words[1])
    return None
