"""Single options that several commands have, each declared once; groups of options are in `options`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.cli.declare import option
from benchmark.cli.model_spec import MODEL_HELP
from benchmark.installation.paths import submissions_folder
from benchmark.models.interface import DTYPE_NAMES
from benchmark.tasks.prompt_template import TRACKS, TRAINED
from benchmark.tasks.suite import MAX_SHOTS
from karel_env.command import integer
from karel_env.syntax.dialects import DIALECTS, KAREL

AUTO = "auto"
DEFAULT_SUITE = "laptop"
MAX_THREADS = 512
THREADS = integer(1, MAX_THREADS)


def model_option(default: Any = ..., default_text: str | None = None, more: str = "") -> Any:
    """`--model`, required unless it has a default."""
    return option(default, MODEL_HELP + more, metavar="SPEC", default_text=default_text)


def suite_option(default: str = DEFAULT_SUITE, purpose: str = "") -> Any:
    """`--suite`; `purpose` says what of the suite is used."""
    return option(default, f"name the suite{purpose}, or give a .yaml file of one's own")


def dtype_option() -> Any:
    """`--dtype`."""
    return option("float32", "set the dtype of the model", choices=DTYPE_NAMES)


def device_option(default: str = AUTO) -> Any:
    """`--device`; see `options.resolve_device`."""
    return option(default, "select the device: auto, cpu, cuda or cuda:N")


def track_option(more: str = "") -> Any:
    """`--track`."""
    return option(TRAINED, "select the prompts" + more, choices=TRACKS)


def num_fewshot_option() -> Any:
    """`--num-fewshot`."""
    return option(
        None, "set the number of solved examples in few-shot prompts; 0: the description alone. Fewer fit a shorter context",
        read_with=integer(0, MAX_SHOTS), metavar="N", default_text="the suite's own",
    )  # fmt: skip


def dialect_option(more: str = "") -> Any:
    """`--dialect`."""
    return option(KAREL, f"write programs{more} in the canonical text or as Python", choices=DIALECTS)


def threads_option(
    default: int = 1, of: str = " of one forward pass", read_with: Callable[[str], int] = THREADS, **how: Any
) -> Any:
    """`--threads`."""
    return option(default, f"set the CPU threads{of}", read_with=read_with, metavar="N", **how)


def output_dir_option(default: Any, help: str, **how: Any) -> Any:
    """`--output-dir`, required where the default is `...`."""
    return option(default, help, metavar="FOLDER", old=("--out",), **how)


def output_file_option(default: Any, help: str, default_text: str) -> Any:
    """`--output-file`."""
    return option(default, help, metavar="FILE", old=("--out",), default_text=default_text)


def programs_option(default_text: str) -> Any:
    """`--programs` of a probe set."""
    return option(
        None, "set the label budget", read_with=integer(1, 10_000_000), metavar="N", default_text=default_text
    )


def probe_seed_option(default_text: str) -> Any:
    """`--seed` of a probe set."""
    return option(
        None, "set the seed of the programs and worlds", read_with=integer(0, 2**63 - 1), metavar="N",
        default_text=default_text,
    )  # fmt: skip


def few_programs_option() -> Any:
    """`--few-programs`."""
    return option(
        False, "read Represents of the trained track from 1,000 programs, as of the few-shot track, rather than from 7,000: for "
        "large models, whose time is that of reading; the row says so, and its figures are not compared with those of others",
    )  # fmt: skip


def submissions_option() -> Any:
    """`--submissions`: the submissions that are here, unless another folder is named."""
    return option(
        submissions_folder, "use the submissions of this folder", metavar="FOLDER", default_text="submissions"
    )


def calibration_option(default: Path) -> Any:
    """`--calibration`."""
    return option(default, "read this calibration record", metavar="FILE", default_text="docs/calibration.json")
