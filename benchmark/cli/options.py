"""Options that the commands share: where to compute, and how a model computes."""

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
from benchmark.models.huggingface import DTYPES, STRICT
from benchmark.models.interface import ATTENTIONS, QUANTIZATIONS, Loading
from benchmark.models.loading import load_bounded
from benchmark.probing.protocol import GRIDS, STANDARD_GRID
from benchmark.runner.plan import GenerationOptions
from benchmark.runner.stages import Backend
from benchmark.tasks.prompt_template import FEWSHOT, TRACKS, TRAINED
from karel_env.command import integer, number

AUTO = "auto"
LOAD_DEADLINE = 300.0
"""Seconds for loading a model once, where a limit is set without one."""
LOAD_MEMORY_BYTES, MEMORY_PER_BYTE = 2_000_000_000, 10
"""Bytes for loading a model once: for libraries, and for each stored byte; bfloat16 is held as float64 with --strict."""
DEVICE = re.compile(r"cpu|cuda(:\d+)?")
MAX_THREADS = 512
THREADS = integer(1, MAX_THREADS)
SEED = integer(0, 2**63 - 1)
COUNT = integer(1, 10_000_000)
TEMPERATURE = number(0.01, 100, why="more than 0, since the greedy answer is always there")
MAX_WAIT_SECONDS = 31_536_000.0
"""Longest that is waited for anything, in seconds."""
MAX_WORKERS, WORKERS_PER_CORE = 1024, 16
RAY_JOB_FOLDER = "runtime_resources"
"""In the path of the temporary copy in which Ray runs a submitted job; it goes with the job."""


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """How a model computes, and what is read."""
    add = parser.add_argument
    add("--device", default=AUTO, help="auto, cpu or cuda (default: auto)")
    add("--dtype", choices=sorted(DTYPES), default="float32", help="of the model (default: float32)")
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
    add("--batch", type=COUNT, help="prompts a forward pass; official only with the suite's own (the default)")
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
        help="answer the test tasks once more with only what the grammar allows; always so in the few-shot track",
    )
    add(
        "--samples",
        type=integer(0, 10_000),
        default=0,
        metavar="K",
        help="also draw K programs a test task, for pass@k (default: 0)",
    )
    add("--temperature", type=TEMPERATURE, default=0.8, metavar="T", help="of the draws (default: 0.8)")
    add("--no-states", action="store_true", help="programs only: no hidden states are read, and there is no verdict")
    add("--keep-states", action="store_true", help="keep the stored hidden states in the run folder")
    add("--limit", type=COUNT, help="only the first N test tasks, and smaller probe sets; not official")
    add("--seed", type=SEED, help="another seed of the suite's tasks; not official")
    add("--out", default="runs", help="folder in which the run folder is made (default: runs)")


def add_loading_options(parser: argparse.ArgumentParser) -> None:
    """How the model is loaded, as `loading_of` reads it."""
    add = parser.add_argument
    add("--attention", choices=ATTENTIONS, default="", help="implementation (default: the one transformers takes)")
    add("--quantization", choices=QUANTIZATIONS, default="", help="of the weights, by torchao; not official")
    add("--trust-remote-code", action="store_true", help="run code that comes with the model's files; not official")
    add("--allow-code", action="store_true", help="run the module of a py: model; not official")


def add_limit_options(parser: argparse.ArgumentParser, deadline: float) -> None:
    """Limits for loading a model once in a process of its own, before anything else; `check_loads` reads them.

    `deadline` is the default, 0 for no such process.
    """
    add = parser.add_argument
    add(
        "--load-deadline",
        type=float,
        default=deadline,
        metavar="SECONDS",
        help=f"first load the model once in a process of its own, in at most so long; 0: do not (default: {deadline:g})",
    )
    add(
        "--memory-limit",
        type=float,
        metavar="GB",
        help=f"memory of that process, with {LOAD_DEADLINE:g} s if no deadline is given (default: {LOAD_MEMORY_BYTES / 1e9:g}, and "
        f"{MEMORY_PER_BYTE} for each byte of weights)",
    )


def check_loads(options: argparse.Namespace, checkpoint: Checkpoint) -> None:
    """Load the model within the limits, if any are asked for.

    Raises:
        UsageError: a limit that is none.
        ModelError: it cannot be loaded within them.
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
    """Who computes."""
    add = parser.add_argument
    add(
        "--workers",
        type=worker_count,
        default="0",
        metavar="N|auto",
        help="actors on Ray at a time; auto: as many as fit; 0: this process, without Ray (default: 0)",
    )
    add("--address", help="of a Ray cluster to join, such as auto or ray://HOST:10001 (needs --workers)")
    add("--gpus-per-worker", type=number(0, 64), metavar="F", help="whole or a fraction (default: 1 on cuda, else 0)")
    add("--cpus-per-worker", type=THREADS, metavar="N", help="of a worker that evaluates (default: --threads)")
    add(
        "--deadline",
        type=number(1, MAX_WAIT_SECONDS),
        metavar="SECONDS",
        help="for a shard; default: 20 times the slowest, at least 120",
    )
    add(
        "--wait",
        type=number(0, MAX_WAIT_SECONDS),
        default=0.0,
        metavar="SECONDS",
        help="for nodes that an autoscaler brings (default: 0)",
    )


def worker_count(text: str) -> str:
    """Type of `--workers`: `AUTO`, or a number in its shortest form."""
    if text == AUTO:
        return text
    try:
        return str(integer(0, MAX_WORKERS)(text))
    except argparse.ArgumentTypeError as problem:
        raise argparse.ArgumentTypeError(f"{problem}, or {AUTO}") from problem


def normalize_options(options: argparse.Namespace) -> None:
    """Put the options into their final form.

    Raises:
        UsageError: one that cannot be.
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
        options.dtype = STRICT
    options.out = Path(options.out).resolve()
    if RAY_JOB_FOLDER in options.out.parts:
        raise UsageError(
            f"--out {options.out}: lies in the job's own copy, which Ray deletes; give a path on shared storage"
        )
    check_folder(options.out, "--out")


def generation_options(options: argparse.Namespace) -> GenerationOptions:
    """How programs are asked for."""
    constrained = options.constrained or options.track == FEWSHOT
    temperature = options.temperature if options.samples else 0.0
    return GenerationOptions(options.track, constrained, options.samples, temperature, states=not options.no_states)


def load_options(options: argparse.Namespace) -> Loading:
    """How the model is loaded."""
    return Loading(options.attention, options.quantization, options.trust_remote_code, options.allow_code)


def resolve_device(device: str, address: str | None = None) -> str:
    """The device that the option names; raises `UsageError` for what is none, or none here."""
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
    """Workers as the options say, while the context lasts; and a line on them, empty for this process.

    `memory` is what an evaluation worker needs, in bytes.
    """
    if options.workers == "0":
        pool = Pool(LocalExecutor(), 1, options.deadline)
        yield Backend(pool, 0, torch.get_num_threads(), set()), ""
        return
    from benchmark.cluster.ray_executor import ResourceRequest, connect

    gpus = options.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if options.device.startswith("cuda") else 0.0
    asked = 0 if options.workers == AUTO else int(options.workers)
    if asked == 0 and not options.address:
        asked = max(1, torch.cuda.device_count() if gpus else os.cpu_count() or 1)
    demand = ResourceRequest(asked, options.address, options.cpus_per_worker or options.threads, gpus, memory, options.wait)
    crew = connect(demand)
    pool = Pool(crew, crew.workers, options.deadline, max(600.0, options.wait))
    line = f"{crew.workers} workers of {demand.cpus} CPUs and {gpus:g} GPUs"
    if crew.room < crew.workers:
        line += f"; {crew.room} fit on the nodes that are there, others start when nodes come"
    try:
        yield Backend(pool, crew.workers, 1, crew.processors), line
    finally:
        pool.close()
        crew.shutdown()
