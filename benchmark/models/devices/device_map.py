"""Which devices store the modules of a model that does not fit one of them: `--device-map`.

Modules on `cpu` or `disk` are stored there and computed on a GPU, if the map names one, else on the CPU; which device stores a
weight changes no result, so a map is not part of a run's identity, and the kind of device that computes is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.errors import UsageError

AUTO, CPU, DISK = "auto", "cpu", "disk"
FORM = (
    'a JSON object of module names and devices (a GPU\'s number, "cpu" or "disk"), such as {"model": 0, "lm_head": 1}'
)


@dataclass(frozen=True)
class DeviceMap:
    """Which device stores which modules.

    Attributes:
        entries: names of modules, each with the number of a GPU, `cpu` or `disk`; none: as accelerate chooses from what is free.
    """

    entries: tuple[tuple[str, int | str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> DeviceMap:
        """`auto`, or a JSON file.

        Raises:
            UsageError: no such file, or another content.
        """
        if text == AUTO:
            return cls()
        try:
            content = json.loads(Path(text).read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"--device-map {text}: {error.strerror}; expected {AUTO} or a file with {FORM}") from error
        except ValueError as error:
            raise UsageError(f"--device-map {text}: not JSON ({str(error)[:80]}); expected {FORM}") from error
        return cls.from_mapping(content, f"--device-map {text}")

    @classmethod
    def from_mapping(cls, mapping: Any, source: str = "device_map") -> DeviceMap:
        """Check a mapping of module names to devices.

        Raises:
            UsageError: it is empty, or an entry names no device.
        """
        if not isinstance(mapping, dict) or not mapping:
            raise UsageError(f"{source}: {str(mapping)[:80]}; expected {FORM}")
        for name, device in mapping.items():
            is_gpu = type(device) is int and device >= 0
            if not isinstance(name, str) or not (is_gpu or device in (CPU, DISK)):
                raise UsageError(f'{source}: {name!r} on {device!r}; expected a GPU\'s number, "cpu" or "disk"')
            inner = [other for other in mapping if other != name and (not name or str(other).startswith(f"{name}."))]
            if inner:
                raise UsageError(f"{source}: {inner[0]!r} is a part of {name!r}; expected one entry for each module")
        return cls(tuple(mapping.items()))

    @property
    def gpus(self) -> set[int]:
        """Numbers of the GPUs that the entries name."""
        return {device for _, device in self.entries if isinstance(device, int)}

    def check_device(self, device: str) -> None:
        """Check the map against the kind of device that computes, `cpu` or `cuda`.

        Raises:
            UsageError: they do not fit.
        """
        if ":" in device:
            raise UsageError(f"--device-map with --device {device}: the map names the devices; give --device cuda")
        if self.entries and bool(self.gpus) != (device != CPU):
            subject = f"names GPU {min(self.gpus)}" if self.gpus else "names no GPU"
            raise UsageError(
                f"--device-map {subject}, and --device is {device}; expected --device {'cuda' if self.gpus else CPU}"
            )

    def check_gpus(self, count: int) -> None:
        """Check the map against the number of GPUs of this machine.

        Raises:
            UsageError: it names one that is not there.
        """
        if self.gpus and max(self.gpus) >= count:
            raise UsageError(
                f"--device-map names GPU {max(self.gpus)}; there are {count} here, counted from 0; expected a lower number"
            )
