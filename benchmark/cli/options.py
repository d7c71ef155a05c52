"""Options that the commands share: compute resources, model loading and generation."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmark.cluster.local_executor import LocalExecutor
from benchmark.cluster.pool import Pool
from benchmark.command import check_folder
from benchmark.errors import UsageError
from benchmark.models.checkpoint import Checkpoint
from benchmark.models.huggingface import DTYPES, STRICT_DTYPE
from benchmark.models.interface import ATTENTIONS, QUANTIZATIONS, LoadOptions
from benchmark.models.loading import load_bounded
from benchmark.probing.protocol import GRIDS, STANDARD_GRID
from benchmark.runner.plan import GenerationOptions
from benchmark.runner.stages import Backend
from benchmark.tasks.prompt_template import FEWSHOT, TRACKS, TRAINED
from karel_env.command import integer, number

AUTO = "auto"
LOAD_DEADLINE = 300.0
"""Default deadline in seconds for loading a model once, if only --memory-limit is given."""
LOAD_MEMORY_BYTES, MEMORY_PER_BYTE = 2_000_000_000, 10
"""Bytes for loading a model once: for libraries, and per stored byte; --strict turns bfloat16 into float64."""
DEVICE = re.compile(r"cpu|cuda(:\d+)?")
MAX_THREADS = 512
THREADS = integer(1, MAX_THREADS)
SEED = integer(0, 2**63 - 1)
COUNT = integer(1, 10_000_000)
TEMPERATURE = number(0.01, 100, description="more than 0, since the greedy answer is always there")
MAX_WAIT_SECONDS = 31_536_000.0
"""Largest value of an option in seconds: one year."""
MAX_WORKERS, WORKERS_PER_CORE = 1024, 16
RAY_JOB_FOLDER = "runtime_resources"
"""Folder name in the path of the temporary copy in which Ray runs a submitted job."""


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the model, the generation and the hidden states."""
    add = parser.add_argument
    add("--device", default=AUTO, help="auto, cpu or cuda (default: auto)")
    add("--dtype", choices=sorted(DTYPES), default="float32", help="dtype of the model (default: float32)")
    add(
        "--strict",
        action="store_true",
        help="compute the model in float64 and round to float32, so that no figure depends on the batch; 2 to 3 times slower",
    )
    add(
        "--threads",
        type=THREADS,
        default=1,
        help="CPU threads of one forward pass; another number may change the last digits, as another processor may, so "
        "it counts as another run; for speed take more --workers (default: 1)",
    )
    add_loading_options(parser)
    add("--batch", type=COUNT, help="prompts per forward pass; official only with the suite's own (the default)")
    add(
        "--grid",
        choices=GRIDS,
        default=STANDARD_GRID,
        help="standard: the verdict and the paper's columns; layers: also every layer where the verdict is taken; full: "
        "also every offset, position, depth and label budget, codelength, reach, crossed prompts (default: standard)",
    )
    add(
        "--track",
        choices=TRACKS,
        default=TRAINED,
        help="fewshot: for models that were not trained on Karel; the language is described and solved examples come "
        "first (default: trained)",
    )
    add(
        "--constrained",
        action="store_true",
        help="also decode the test tasks under the grammar; always on in the few-shot track",
    )
    add(
        "--samples",
        type=integer(0, 10_000),
        default=0,
        metavar="K",
        help="also sample K programs per test task, for pass@k (default: 0)",
    )
    add("--temperature", type=TEMPERATURE, default=0.8, metavar="T", help="sampling temperature (default: 0.8)")
    add("--no-states", action="store_true", help="generate programs only: read no hidden states, give no verdict")
    add("--keep-states", action="store_true", help="keep the stored hidden states in the run folder")
    add("--limit", type=COUNT, help="use only the first N test tasks and smaller probe sets; not official")
    add("--seed", type=SEED, help="use another seed for the suite's tasks; not official")
    add("--out", default="runs", help="folder in which the run folder is made (default: runs)")


def add_loading_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `load_options` reads."""
    add = parser.add_argument
    add("--attention", choices=ATTENTIONS, default="", help="attention implementation (default: that of transformers)")
    add("--quantization", choices=QUANTIZATIONS, default="", help="quantize the weights with torchao; not official")
    add("--trust-remote-code", action="store_true", help="run code that comes with the model's files; not official")
    add("--allow-code", action="store_true", help="run the module of a py: model; not official")


def add_limit_options(parser: argparse.ArgumentParser, deadline: float) -> None:
    """Add the limits for loading the model once in a separate process; see `check_loads`.

    Args:
        parser: the parser.
        deadline: default deadline in seconds, 0 for no such process.
    """
    add = parser.add_argument
    add(
        "--load-deadline",
        type=float,
        default=deadline,
        metavar="SECONDS",
        help=f"first load the model once in a separate process within this time; 0: skip (default: {deadline:g})",
    )
    add(
        "--memory-limit",
        type=float,
        metavar="GB",
        help=f"memory of that process; sets the deadline to {LOAD_DEADLINE:g} s if none is given (default: {LOAD_MEMORY_BYTES / 1e9:g}, "
        f"and {MEMORY_PER_BYTE} per byte of weights)",
    )


def check_loads(options: argparse.Namespace, checkpoint: Checkpoint) -> None:
    """Load the model once within the given limits, if any.

    Raises:
        UsageError: a limit is invalid.
        ModelError: the model cannot be loaded within the limits.
    """
    deadline, limit = options.load_deadline, options.memory_limit
    if not 0 <= deadline < math.inf:
        raise UsageError(f"--load-deadline {deadline:g}: expected seconds, 0 for none")
    if limit is not None and not 0 < limit < math.inf:
        raise UsageError(f"--memory-limit {limit:g}: expected gigabytes, more than 0")
    if not deadline and limit is None:
        return
    memory = LOAD_MEMORY_BYTES + MEMORY_PER_BYTE * checkpoint.weight_bytes if limit is None else int(limit * 1e9)
    load_bounded(checkpoint, options.dtype, options.device, deadline or LOAD_DEADLINE, memory)


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the workers."""
    add = parser.add_argument
    add(
        "--workers",
        type=worker_count,
        default="0",
        metavar="N|auto",
        help="number of Ray actors; auto: as many as fit; 0: this process, without Ray (default: 0)",
    )
    add("--address", help="address of a Ray cluster to join, such as auto or ray://HOST:10001 (needs --workers)")
    add(
        "--gpus-per-worker",
        type=number(0, 64),
        metavar="F",
        help="GPUs per worker, whole or a fraction (default: 1 on cuda, else 0)",
    )
    add("--cpus-per-worker", type=THREADS, metavar="N", help="CPUs per evaluation worker (default: --threads)")
    add(
        "--deadline",
        type=number(1, MAX_WAIT_SECONDS),
        metavar="SECONDS",
        help="deadline per work item (default: 20 times the slowest so far, at least 120)",
    )
    add(
        "--wait",
        type=number(0, MAX_WAIT_SECONDS),
        default=0.0,
        metavar="SECONDS",
        help="time to wait for nodes that an autoscaler adds (default: 0)",
    )


def worker_count(text: str) -> str:
    """Type of `--workers`: `AUTO`, or a number without leading zeros."""
    if text == AUTO:
        return text
    try:
        return str(integer(0, MAX_WORKERS)(text))
    except argparse.ArgumentTypeError as problem:
        raise argparse.ArgumentTypeError(f"{problem}, or {AUTO}") from problem


def normalize_options(options: argparse.Namespace) -> None:
    """Check the options and replace defaults by values.

    Raises:
        UsageError: an option is invalid.
    """
    if options.address and options.workers == "0":
        raise UsageError("--address: needs --workers, the number of actors on that cluster, or --workers auto")
    cores = os.cpu_count() or 1
    if not options.address and options.workers not in (AUTO, "0") and int(options.workers) > WORKERS_PER_CORE * cores:
        raise UsageError(
            f"--workers {options.workers}: expected at most {WORKERS_PER_CORE * cores} on this machine of {cores} cores, or "
            "the --address of a cluster"
        )
    gpus = options.gpus_per_worker
    if gpus is not None and gpus > 1 and gpus != int(gpus):
        raise UsageError(f"--gpus-per-worker {gpus:g}: expected a fraction of one GPU, or a whole number")
    options.device = resolve_device(options.device, options.address)
    if options.strict:
        options.dtype = STRICT_DTYPE
    options.out = Path(options.out).resolve()
    if RAY_JOB_FOLDER in options.out.parts:
        raise UsageError(
            f"--out {options.out}: lies in the job's own copy, which Ray deletes; give a path on shared storage"
        )
    check_folder(options.out, "--out")


def generation_options(options: argparse.Namespace) -> GenerationOptions:
    """The generation options of the command line."""
    constrained = options.constrained or options.track == FEWSHOT
    temperature = options.temperature if options.samples else 0.0
    return GenerationOptions(options.track, constrained, options.samples, temperature, states=not options.no_states)


def load_options(options: argparse.Namespace) -> LoadOptions:
    """The load options of the command line."""
    return LoadOptions(options.attention, options.quantization, options.trust_remote_code, options.allow_code)


def resolve_device(device: str, address: str | None = None) -> str:
    """Resolve `--device`.

    Raises:
        UsageError: the text names no device, or one that this machine lacks.
    """
    if device == AUTO:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not DEVICE.fullmatch(device):
        hint = "; a GPU is cuda" if device.lower() in ("gpu", "gpu:0", "nvidia", "cuda:all") else ""
        raise UsageError(f"--device {device}: expected auto, cpu, cuda or cuda:N{hint}")
    if device.startswith("cuda") and not address:
        if not torch.cuda.is_available():
            raise UsageError(f"--device {device}: no CUDA device here; use --device cpu")
        if ":" in device and int(device.partition(":")[2]) >= torch.cuda.device_count():
            raise UsageError(f"--device {device}: there are {torch.cuda.device_count()} here, counted from 0")
    return device


@contextmanager
def open_backend(options: argparse.Namespace, memory: int = 0) -> Iterator[tuple[Backend, str]]:
    """Start the workers that the options request; stop them when the context ends.

    Args:
        options: the command-line options.
        memory: bytes per evaluation worker, 0 if unknown.

    Yields:
        The backend, and a line that describes the workers, empty for this process.
    """
    if options.workers == "0":
        pool = Pool(LocalExecutor(), 1, options.deadline)
        yield Backend(pool, 0, torch.get_num_threads(), set()), ""
        return
    from benchmark.cluster.ray_executor import ResourceRequest, connect

    gpus = options.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if options.device.startswith("cuda") else 0.0
    num_workers = 0 if options.workers == AUTO else int(options.workers)
    if num_workers == 0 and not options.address:
        num_workers = max(1, torch.cuda.device_count() if gpus else os.cpu_count() or 1)
    demand = ResourceRequest(
        num_workers, options.address, options.cpus_per_worker or options.threads, gpus, memory, options.wait
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
