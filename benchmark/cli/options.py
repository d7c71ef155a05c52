"""Groups of options that commands share: how a model is loaded, how it generates, and what computes it.

Importing this module loads no model library: `--help` and wrong options answer at once. The functions that need one
import it.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.cli.declare import option
from benchmark.cli.fields import AUTO, THREADS, dialect_option, num_fewshot_option, track_option
from benchmark.command import check_folder
from benchmark.errors import UsageError
from benchmark.installation.cache_settings import DEFAULT_CACHE_BYTES, NO_CACHE, CacheSettings
from benchmark.models.devices.device_map import DeviceMap
from benchmark.models.interface import ATTENTIONS, QUANTIZATIONS, LoadOptions
from benchmark.tasks.prompt_template import FEWSHOT
from karel_env.command import integer, number
from karel_env.syntax.dialects import KAREL

if TYPE_CHECKING:
    from benchmark.models.checkpoint import Checkpoint
    from benchmark.runner.plan import GenerationOptions
    from benchmark.runner.stages import Backend

LOAD_DEADLINE = 300.0
"""Default deadline in seconds for loading a model once, if only --memory-limit is given."""
LOAD_MEMORY_BYTES, MEMORY_PER_BYTE = 2_000_000_000, 10
"""Bytes for loading a model once: for libraries, and per stored byte; --strict turns bfloat16 into float64."""
DEVICE = re.compile(r"cpu|cuda(:\d+)?")
SEED = integer(0, 2**63 - 1)
COUNT = integer(1, 10_000_000)
PROCESSES = integer(0, 64)
TEMPERATURE = number(0.01, 100, description="more than 0, since the greedy answer is always there")
MAX_WAIT_SECONDS = 31_536_000.0
"""Largest value of an option in seconds: one year."""
MAX_WORKERS, WORKERS_PER_CORE = 1024, 16
RAY_JOB_FOLDER = "runtime_resources"
"""Folder name in the path of the temporary copy in which Ray runs a submitted job."""


def worker_count(text: str) -> str:
    """Type of `--workers`: `AUTO`, or a number without leading zeros."""
    if text == AUTO:
        return text
    try:
        return str(integer(0, MAX_WORKERS)(text))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or {AUTO}") from error


@dataclass(frozen=True, kw_only=True)
class LoadingOptions:
    """Loading of the model."""

    attention: str = option(
        "", "select the attention implementation", choices=ATTENTIONS, default_text="that of transformers"
    )
    quantization: str = option(
        "", "quantize the weights with torchao; not eligible for the leaderboard", choices=QUANTIZATIONS
    )
    trust_remote_code: bool = option(
        False, "run code that comes with the model's files; not eligible for the leaderboard"
    )
    allow_code: bool = option(False, "run the module of a py: model; not eligible for the leaderboard")
    device_map: str = option(
        "", "spread a model that does not fit one device, see docs/cluster.md; auto: over the GPUs, then main memory; FILE: a JSON "
        "object of modules and devices", metavar="auto|FILE", default_text="all on --device",
    )  # fmt: skip

    def load_options(self) -> LoadOptions:
        """The options as the models take them."""
        return LoadOptions(self.attention, self.quantization, self.trust_remote_code, self.allow_code)

    def read_device_map(self, device: str, address: str | None = None) -> DeviceMap | None:
        """The device map, if any, checked against the device and, unless an address of a cluster is given, this machine.

        Raises:
            UsageError: the map is none, or does not fit.
        """
        if not self.device_map:
            return None
        device_map = DeviceMap.parse(self.device_map)
        if device != "cpu" and not address:
            import torch

            device_map.check_gpus(torch.cuda.device_count())
        device_map.check_device(device)
        return device_map


def check_prompt_options(track: str, num_fewshot: int | None, dialect: str) -> None:
    """Check that options of few-shot prompts come with the few-shot track.

    Raises:
        UsageError: they do not.
    """
    options = {
        "--num-fewshot": "" if num_fewshot is None else num_fewshot,
        "--dialect": "" if dialect == KAREL else dialect,
    }
    for name, value in options.items():
        if value != "" and track != FEWSHOT:
            raise UsageError(
                f"{name} {value} in the {track} track; expected --track {FEWSHOT}, which shows solved examples"
            )


@dataclass(frozen=True, kw_only=True)
class GenerationFlags:
    """Generation of programs."""

    track: str = track_option(
        "; fewshot is for models that were not trained on Karel: the language is described and solved examples come first"
    )
    num_fewshot: int | None = num_fewshot_option()
    dialect: str = dialect_option(" in few-shot prompts and answers")
    constrained: bool = option(False, "also decode the test tasks under the grammar; always on in the few-shot track")
    n_samples: int = option(
        0, "also sample K programs per test task, for pass@k", read_with=integer(0, 10_000), metavar="K",
        old=("--samples",), default_text="0",
    )  # fmt: skip
    temperature: float = option(0.8, "set the sampling temperature", read_with=TEMPERATURE, metavar="T")
    accuracy_only: bool = option(
        False, "generate programs only: read no hidden states, give no verdict", old=("--no-states",)
    )

    def generation_options(self) -> GenerationOptions:
        """The options as a run takes them.

        Raises:
            UsageError: few-shot prompts are set for a track without them.
        """
        check_prompt_options(self.track, self.num_fewshot, self.dialect)
        from benchmark.runner.plan import GenerationOptions

        constrained = self.constrained or self.track == FEWSHOT
        temperature = self.temperature if self.n_samples else 0.0
        return GenerationOptions(self.track, constrained, self.n_samples, temperature, states=not self.accuracy_only)


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """Cache of what runs share: figures of untrained copies, per architecture, tokenizer, suite and protocol."""

    cache: str = option(
        "", "keep what untrained copies give in this folder, for other checkpoints; none: no cache", metavar="FOLDER|none",
        default_text="karel-bench/evidence in the user's cache folder",
    )  # fmt: skip
    cache_size: float = option(
        DEFAULT_CACHE_BYTES / 1e9, "set the size of that cache, whose least recently used files are removed",
        read_with=number(0.001, 1e6), metavar="GB", default_text=f"{DEFAULT_CACHE_BYTES / 1e9:g}",
    )  # fmt: skip

    def cache_settings(self) -> CacheSettings:
        """The options as a run takes them.

        Raises:
            UsageError: files cannot be written to the folder.
        """
        folder = self.cache
        if folder and folder != NO_CACHE:
            folder = str(Path(folder).resolve())
            check_folder(Path(folder), "--cache")
        return CacheSettings(folder, int(self.cache_size * 1e9))


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """Limits of loading the model once, in a process of its own, before anything else."""

    load_deadline: float = option(
        0.0, "load the model once within this time; 0: skip", read_with=float, metavar="SECONDS", default_text="0"
    )
    memory_limit: float | None = option(
        None, f"limit the memory of that process; sets the deadline to {LOAD_DEADLINE:g} s if none is given",
        read_with=float, metavar="GB", default_text=f"{LOAD_MEMORY_BYTES / 1e9:g}, and {MEMORY_PER_BYTE} per byte of weights",
    )  # fmt: skip

    def check_loads(self, checkpoint: Checkpoint, dtype: str, device: str) -> None:
        """Load the model once within the limits, if any.

        Raises:
            UsageError: a limit is invalid.
            ModelError: the model cannot be loaded within the limits.
        """
        deadline, limit = self.load_deadline, self.memory_limit
        if not 0 <= deadline < math.inf:
            raise UsageError(f"--load-deadline {deadline:g}: expected seconds, 0 for none")
        if limit is not None and not 0 < limit < math.inf:
            raise UsageError(f"--memory-limit {limit:g}: expected gigabytes, more than 0")
        if not deadline and limit is None:
            return
        from benchmark.models.loading import load_bounded

        memory = LOAD_MEMORY_BYTES + MEMORY_PER_BYTE * checkpoint.weight_bytes if limit is None else int(limit * 1e9)
        load_bounded(checkpoint, dtype, device, deadline or LOAD_DEADLINE, memory)


@dataclass(frozen=True, kw_only=True)
class BackendOptions:
    """Workers on Ray."""

    workers: str = option(
        "0", "set the number of Ray actors; auto: as many as fit; 0: this process, without Ray",
        read_with=worker_count, metavar="N|auto",
    )  # fmt: skip
    processes: int | None = option(
        None, "compute in this many forked processes of this machine, with the same results; 0: in this one. Not with --workers",
        read_with=PROCESSES, metavar="N", default_text="0, and in a preview the number of cores, up to 4",
    )  # fmt: skip
    address: str | None = option(
        None, "join a Ray cluster, such as auto or ray://HOST:10001 (needs --workers)", metavar="ADDRESS"
    )
    gpus_per_worker: float | None = option(
        None, "set the GPUs per worker, whole or a fraction", read_with=number(0, 64), metavar="F",
        default_text="1 on cuda, else 0",
    )  # fmt: skip
    cpus_per_worker: int | None = option(
        None, "set the CPUs per evaluation worker", read_with=THREADS, metavar="N", default_text="--threads"
    )
    deadline: float | None = option(
        None, "set the deadline per work item", read_with=number(1, MAX_WAIT_SECONDS), metavar="SECONDS",
        default_text="20 times the slowest so far; see docs/cluster.md",
    )  # fmt: skip
    wait: float = option(
        0.0, "wait for nodes that an autoscaler adds", read_with=number(0, MAX_WAIT_SECONDS), metavar="SECONDS",
        default_text="0",
    )  # fmt: skip

    def check(self) -> None:
        """Check the options against each other and against this machine.

        Raises:
            UsageError: an option is invalid.
        """
        if self.address and self.workers == "0":
            raise UsageError("--address: needs --workers, the number of actors on that cluster, or --workers auto")
        cores = os.cpu_count() or 1
        if not self.address and self.workers not in (AUTO, "0") and int(self.workers) > WORKERS_PER_CORE * cores:
            raise UsageError(
                f"--workers {self.workers}: expected at most {WORKERS_PER_CORE * cores} on this machine of {cores} cores, "
                "or the --address of a cluster"
            )
        if self.processes and self.workers != "0":
            raise UsageError(
                f"--processes {self.processes} with --workers {self.workers}: expected one of them; workers are processes of Ray"
            )
        gpus = self.gpus_per_worker
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise UsageError(f"--gpus-per-worker {gpus:g}: expected a fraction of one GPU, or a whole number")

    def num_processes(self, default: int) -> int:
        """Number of workers, as far as it is known before they start: of Ray, else of forked processes."""
        if self.workers != "0":
            return 0 if self.workers == AUTO else int(self.workers)
        return default if self.processes is None else self.processes

    def check_device_map(self, device_map: DeviceMap, device: str) -> None:
        """Check that each worker has the devices of a map for itself.

        Raises:
            UsageError: it does not, or forked processes are asked for.
        """
        if self.processes:
            raise UsageError(
                f"--processes {self.processes} with --device-map: expected --processes 0; a spread model is loaded once"
            )
        if self.workers == "0" or device == "cpu":
            return
        least = max(device_map.gpus, default=0) + 1
        gpus = self.gpus_per_worker or 0
        if gpus < least or gpus != int(gpus):
            raise UsageError(
                f"--workers {self.workers} with --device-map: expected --gpus-per-worker, the whole number of GPUs that a model is "
                f"spread over, at least {least}; workers that share a GPU would each fill it"
            )


def resolve_output_dir(folder: Path) -> Path:
    """The absolute path of `--output-dir`, checked but not made.

    Raises:
        UsageError: runs cannot be made there, or would be lost.
    """
    absolute = folder.resolve()
    if RAY_JOB_FOLDER in absolute.parts:
        raise UsageError(
            f"--output-dir {absolute}: lies in the job's own copy, which Ray deletes; give a path on shared storage"
        )
    check_folder(absolute, "--output-dir")
    return absolute


def resolve_device(device: str, address: str | None = None) -> str:
    """Resolve `--device`.

    Raises:
        UsageError: the text names no device, or one that this machine lacks.
    """
    if device == "cpu":
        return device
    if device != AUTO and not DEVICE.fullmatch(device):
        hint = "; a GPU is cuda" if device.lower() in ("gpu", "gpu:0", "nvidia", "cuda:all") else ""
        raise UsageError(f"--device {device}: expected auto, cpu, cuda or cuda:N{hint}")
    import torch

    if device == AUTO:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not address:
        if not torch.cuda.is_available():
            raise UsageError(f"--device {device}: no CUDA device here; use --device cpu")
        if ":" in device and int(device.partition(":")[2]) >= torch.cuda.device_count():
            raise UsageError(f"--device {device}: there are {torch.cuda.device_count()} here, counted from 0")
    return device


@contextmanager
def open_backend(
    options: BackendOptions, device: str, threads: int = 1, memory: int = 0, processes: int = 0
) -> Iterator[tuple[Backend, str]]:
    """Start the workers that the options request; stop them when the context ends.

    Args:
        options: the options of the workers.
        device: device of the forward pass, resolved.
        threads: CPU threads of the forward pass, for workers whose CPUs are not set.
        memory: bytes per evaluation worker, 0 if unknown.
        processes: number of forked processes unless the options tell one; 0 for this process.

    Yields:
        The backend, and a line that describes the workers, empty for this process.
    """
    import torch

    from benchmark.cluster.local_executor import LocalExecutor
    from benchmark.cluster.pool import Pool
    from benchmark.runner.stages import Backend

    num_processes = processes if options.processes is None else options.processes
    if options.workers == "0" and num_processes:
        if threads > 1 or device != "cpu":
            raise UsageError(
                f"--processes {num_processes}: expected --threads 1 and --device cpu; threads and a GPU do not survive a fork"
            )
        from benchmark.cluster.process_executor import ProcessExecutor

        forked = ProcessExecutor(num_processes)
        forked.fork_workers()
        pool = Pool(forked, num_processes, options.deadline)
        try:
            yield Backend(pool, 0, 1, set()), f"{num_processes} processes of this machine"
        finally:
            pool.close()
            forked.shutdown()
        return
    if options.workers == "0":
        pool = Pool(LocalExecutor(), 1, options.deadline)
        yield Backend(pool, 0, torch.get_num_threads(), set()), ""
        return
    from benchmark.cluster.ray_executor import ResourceRequest, connect

    gpus = options.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if device.startswith("cuda") else 0.0
    num_workers = 0 if options.workers == AUTO else int(options.workers)
    if num_workers == 0 and not options.address:
        num_workers = max(1, torch.cuda.device_count() if gpus else os.cpu_count() or 1)
    demand = ResourceRequest(
        num_workers, options.address, options.cpus_per_worker or threads, gpus, memory, options.wait
    )
    executor = connect(demand)
    pool = Pool(executor, executor.workers, options.deadline, max(600.0, options.wait))
    line = f"{executor.workers} workers of {demand.cpus} CPUs and {gpus:g} GPUs"
    if executor.capacity < executor.workers:
        line += f"; {executor.capacity} fit on the present nodes, others start when nodes are added"
    try:
        yield Backend(pool, executor.workers, 1, executor.processors), line
    finally:
        pool.close()
        executor.shutdown()
