"""Load a model in place on several devices, through accelerate, and check where its modules are."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from benchmark.errors import ModelError, UsageError
from benchmark.models.checkpoint import available_memory
from benchmark.models.devices.device_map import AUTO, CPU, DISK, DeviceMap


def load_kwargs(device_map: DeviceMap | None, device: str, offload_folder: str) -> dict[str, Any]:
    """Keyword arguments of `from_pretrained` that load a model in place; none without a map."""
    if device_map is None:
        return {}
    if not device_map.entries:
        limits = {"max_memory": _cpu_memory()} if device == CPU else {}
        return {"device_map": AUTO, "offload_folder": offload_folder, **limits}
    return {"device_map": dict(device_map.entries), "offload_folder": offload_folder}


def dispatch(model: Any, device_map: DeviceMap, device: str, offload_folder: str) -> None:
    """Spread a model that is built in main memory, such as an untrained copy."""
    from accelerate import dispatch_model, infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    mapping: dict[str, int | str] = dict(device_map.entries)
    if not mapping:
        classes = list(model._no_split_modules or ())
        limits = _cpu_memory() if device == CPU else None
        memory = get_balanced_memory(model, limits, no_split_module_classes=classes)
        mapping = infer_auto_device_map(model, memory, no_split_module_classes=classes)
    dispatch_model(model, mapping, offload_dir=offload_folder, skip_keys=model._skip_keys_device_placement)


def check_entries(spec: str, model: Any, device_map: DeviceMap, blocks: torch.nn.ModuleList) -> None:
    """Check that a map covers a model, by its skeleton on the meta device.

    Raises:
        UsageError: the map names a module that the model lacks, divides a block, or leaves weights out.
    """
    modules = {id(module): name for name, module in model.named_modules()}
    names = set(modules.values())
    block_names = [modules[id(block)] for block in blocks]
    for name, _ in device_map.entries:
        if name not in names:
            some = ", ".join(name for name, _ in model.base_model.named_children())
            raise UsageError(
                f"--device-map: {spec} has no module {name!r}; its base {model.base_model_prefix!r} has {some}"
            )
        for block in block_names:
            if name.startswith(f"{block}."):
                raise UsageError(f"--device-map: {name} is a part of block {block}; expected whole blocks")
    for weight, _ in model.named_parameters():
        if not any(name in ("", weight) or weight.startswith(f"{name}.") for name, _ in device_map.entries):
            raise UsageError(f"--device-map: no entry for {weight}; expected one for every module with weights")


def check_disk(spec: str, model: Any, device_map: DeviceMap) -> None:
    """Check that nothing is on the disk that the map did not put there.

    Raises:
        ModelError: the memory of the machine is too small.
    """
    on_disk = [name for name, device in getattr(model, "hf_device_map", {}).items() if device == DISK]
    if on_disk and not device_map.entries:
        raise ModelError(
            f"{spec}: {len(on_disk)} modules of it, such as {on_disk[0]}, fit neither the GPUs nor the free main memory; every "
            f'pass would read them from the disk. Free memory, use --dtype bfloat16, or give a file that puts them on "{DISK}"'
        )


def input_device(model: Any, device: str, device_map: DeviceMap | None) -> torch.device:
    """The device on which a model takes token ids and returns logits; a model without a map is moved to `device`."""
    if device_map is None:
        model.to(device)
        return torch.device(device)
    _load_like_other_weights(model)
    if device == CPU:
        return torch.device(CPU)
    return torch.device("cuda", min(index for index in model.hf_device_map.values() if isinstance(index, int)))


@contextmanager
def offload_folder(device_map: DeviceMap | None) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """A folder for weights on the disk that cannot be read from the model's own files.

    Yields:
        Its path, empty without a device map, and a function by which it lasts as long as a model; else it is removed at the end.
    """
    if device_map is None:
        yield "", lambda _: None
        return
    path = tempfile.mkdtemp(prefix="karel-offload-")
    owners: list[Any] = []
    try:
        yield path, owners.append
    finally:
        for owner in owners:
            weakref.finalize(owner, shutil.rmtree, path, ignore_errors=True)
        if not owners:
            shutil.rmtree(path, ignore_errors=True)


def _load_like_other_weights(model: Any) -> None:
    """Have weights that are loaded for a pass take a gradient, as those in memory do: torch multiplies by others in another order.

    In inference mode, in which passes run, a new tensor takes none.
    """
    model.requires_grad_(True)
    for module in model.modules():
        hook = getattr(module, "_hf_hook", None)
        if hook is not None:
            hook.pre_forward = partial(_outside_inference_mode, hook.pre_forward)


def _outside_inference_mode(pre_forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_inference_mode_enabled():
        return pre_forward(*args, **kwargs)
    with torch.inference_mode(False), torch.no_grad():
        return pre_forward(*args, **kwargs)


def _cpu_memory() -> dict[int | str, int]:
    return {CPU: int(0.9 * available_memory())}
