"""A whole run of one model on one suite in this process, with its record and samples as Python values."""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.api.inline import ACCURACY_NAMES, Picture, Player, draw, estimate_row, html_table, plot_accuracy
from benchmark.api.inputs import InputError, check_names
from benchmark.api.model import Model, as_model
from benchmark.api.notebook_progress import NotebookProgress, is_interactive, is_notebook
from benchmark.board.tables import format_card, row_cells
from benchmark.errors import ModelError, UsageError
from benchmark.probing.protocol import GRIDS, STANDARD, STANDARD_GRID, Protocol
from benchmark.tasks.prompt_template import FEWSHOT, TRACKS, TRAINED
from benchmark.tasks.stage import TEST
from benchmark.tasks.suite import MAX_SHOTS, Suite, load_suite
from karel_env.features import PRIMARY
from karel_env.syntax.dialects import DIALECTS, KAREL

if TYPE_CHECKING:
    from benchmark.api.frames import DataFrame
    from benchmark.cli.progress import RichProgress
    from benchmark.runner.plan import GenerationOptions
    from benchmark.runner.record import Record
    from benchmark.runner.run import Run
    from benchmark.runner.run_config import RunConfig
    from benchmark.runner.stages import Progress

COMMAND = "benchmark.evaluate"


@dataclass(frozen=True, eq=False)
class Report:
    """The result of `evaluate`.

    Attributes:
        record: all figures and settings, as in `record.json`.
        folder: the run folder: record, samples, evidence of the verdict, figures, log. A temporary folder is deleted
            with the report.
        suite: the suite of the run, with its number of tasks.
    """

    record: Record
    folder: Path
    suite: Suite | None = None

    @property
    def row(self) -> dict[str, str]:
        """The cells of the leaderboard row, by column: shares in percent and skills, with 95% intervals."""
        return row_cells(self.record)

    @property
    def verdict(self) -> str | None:
        """REPRESENTS, RECORD-ONLY or INCONCLUSIVE; None for a model whose hidden states were not read."""
        return None if self.record.meaning is None else self.record.meaning.verdict

    @property
    def samples(self) -> DataFrame:
        """A DataFrame with one row per generated program: stage, task, text, outcome, whether examples are solved.

        Raises:
            ImportError: pandas is not installed; `sample_rows` needs none.
        """
        from benchmark.api.frames import to_frame

        return to_frame(self.sample_rows())

    def sample_rows(self) -> list[dict[str, Any]]:
        """The rows of `samples` as mappings."""
        with gzip.open(self.folder / "samples.jsonl.gz", "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def rows(self) -> list[dict[str, Any]]:
        """One mapping per figure: its name, value, the ends of its 95% interval, and n."""
        accuracy = self.record.accuracy
        rows = [estimate_row(name, getattr(accuracy, field)) for field, name in ACCURACY_NAMES.items()]
        if self.record.meaning is not None:
            primary = self.record.meaning.features[PRIMARY]
            rows += [estimate_row(f"{name} of {PRIMARY}", getattr(primary, name)) for name in ("skill", "gap", "delta")]
        return rows

    def to_frame(self) -> DataFrame:
        """The rows as a DataFrame, indexed by figure.

        Raises:
            ImportError: pandas is not installed.
        """
        from benchmark.api.frames import to_frame

        return to_frame(self.rows(), "figure")

    def figure(self) -> Picture:
        """What was probed, or the accuracies of a run without probes, as a figure that a notebook draws."""
        record = self.record
        name = f"{record.model.name} on {record.suite.name}"
        if record.meaning is None:
            return draw(partial(plot_accuracy, name, record.accuracy), f"accuracies of {name} with their intervals")
        from benchmark.probing.figures import plot_features

        return draw(partial(plot_features, name, record.meaning), f"skill and delta by feature of {name}")

    def player(self, task: int | None = None) -> Player:
        """Programs of the test tasks step by step, which a notebook plays.

        Args:
            task: number of a task; None for the first tasks of every outcome.

        Raises:
            InputError: there is no such task.
        """
        from benchmark.board.player import build_player_tasks

        samples = [row for row in self.sample_rows() if row["stage"] == TEST]
        if task is not None:
            if not 0 <= task < len(samples):
                raise InputError(f"task: {task}; expected a number from 0 to {len(samples) - 1}")
            samples = [samples[task]]
        return Player(build_player_tasks(self.suite or load_suite(self.record.suite.name), samples))

    def _repr_html_(self) -> str:
        """The figures as a table, and drawn."""
        record = self.record
        verdict = "" if self.verdict is None else f"; verdict {self.verdict} (protocol {record.protocol.version})"
        caption = f"{record.model.name} on {record.suite.name}, {record.suite.tasks} tasks, {record.track}{verdict}"
        return f"{html_table(self.rows(), caption)}{self.figure()._repr_html_()}"

    def __str__(self) -> str:
        """The row as a vertical table, with the evidence behind the verdict."""
        return format_card(self.record)


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The arguments of `evaluate` that say what is run; their meaning is there."""

    suite: str | Path | Suite
    limit: int | None
    seed: int | None
    track: str
    num_fewshot: int | None
    dialect: str
    constrained: bool
    n_samples: int
    temperature: float
    accuracy_only: bool
    few_programs: bool
    detail: str
    batch_size: int | None
    protocol: Protocol

    def check(self) -> None:
        """Check the values.

        Raises:
            InputError: one of them does not fit.
        """
        check_names("track", [self.track], TRACKS)
        check_names("dialect", [self.dialect], DIALECTS)
        if self.track != FEWSHOT and (self.num_fewshot is not None or self.dialect != KAREL):
            raise InputError(f"num_fewshot and dialect: set with track {self.track!r}; expected track={FEWSHOT!r}")
        if self.num_fewshot is not None and not 0 <= self.num_fewshot <= MAX_SHOTS:
            raise InputError(f"num_fewshot: {self.num_fewshot}; expected 0 to {MAX_SHOTS}, or None for the suite's own")
        check_names("detail", [self.detail], GRIDS)
        counts = [count for count in (self.limit, self.batch_size) if count is not None]
        if any(count < 1 for count in counts) or self.n_samples < 0:
            raise InputError(
                "limit, batch_size and n_samples: expected at least 1, None for the suite's own, or 0 samples"
            )
        if self.n_samples and not self.temperature > 0:
            raise InputError(
                f"temperature: {self.temperature}; expected more than 0, since the greedy program is always there"
            )

    def generation_options(self) -> GenerationOptions:
        """The settings of generation, as a run takes them."""
        from benchmark.runner.plan import GenerationOptions

        constrained = self.constrained or self.track == FEWSHOT
        temperature = self.temperature if self.n_samples else 0.0
        return GenerationOptions(self.track, constrained, self.n_samples, temperature, states=not self.accuracy_only)

    def run_config(self, model: Model, folder: Path) -> RunConfig:
        """The configuration of the run of a model below a folder.

        Raises:
            InputError: see `_suite_name`.
        """
        from benchmark.runner.run_config import RunConfig

        seed = self.suite.seed if isinstance(self.suite, Suite) and self.seed is None else self.seed
        return RunConfig(
            suite=_suite_name(self.suite), limit=self.limit, seed=seed, dtype=model.dtype, device=model.device,
            grid=self.detail, batch=self.batch_size, threads=model.threads, out=folder, command=COMMAND,
            generation=self.generation_options(), protocol=self.protocol, num_fewshot=self.num_fewshot,
            dialect=self.dialect, few_programs=self.few_programs,
        )  # fmt: skip


class SilentProgress:
    """Displays nothing; see `runner.stages.Progress`."""

    def start(self, description: str, total: int | None = None, completed: int = 0) -> None:
        """See `Progress`."""

    def advance(self, steps: int, description: str | None = None) -> None:
        """See `Progress`."""

    def write(self, message: str) -> None:
        """See `Progress`."""


def evaluate(
    model: Any,
    tokenizer: Any = None,
    *,
    suite: str | Path | Suite = "laptop",
    limit: int | None = None,
    seed: int | None = None,
    track: str = TRAINED,
    num_fewshot: int | None = None,
    dialect: str = KAREL,
    constrained: bool = False,
    n_samples: int = 0,
    temperature: float = 0.8,
    accuracy_only: bool = False,
    few_programs: bool = False,
    detail: str = STANDARD_GRID,
    batch_size: int | None = None,
    protocol: Protocol = STANDARD,
    output_dir: str | Path | None = None,
    progress: Progress | bool | None = None,
    **load_options: Any,
) -> Report:
    """Evaluate a model as `python -m benchmark.run` does, in this process.

    Args:
        model: a spec such as `hf:org/name`, a folder, a model of `load_model` or `wrap`, or a transformers model in memory.
        tokenizer: the fast tokenizer of a transformers model in memory.
        suite: name or YAML file of a suite, or a suite that `load_suite` returned.
        limit: number of test tasks, with smaller probe sets; None for all.
        seed: seed of the tasks; None for the suite's own.
        track: `trained`, or `fewshot` for models that were not trained on Karel.
        num_fewshot: number of solved examples in few-shot prompts; None for the suite's own number.
        dialect: `karel`, or `python` for few-shot prompts and answers with programs as Python text.
        constrained: whether the test tasks are also decoded under the grammar.
        n_samples: number of programs sampled per test task, for pass@k.
        temperature: sampling temperature.
        accuracy_only: whether hidden states are not read; there is then no verdict.
        few_programs: whether *Represents* of the trained track is read from 1,000 programs rather than 7,000.
        detail: `standard`, `layers` or `full`, see docs/probing.md.
        batch_size: prompts per forward pass; None for the suite's own number.
        protocol: settings of the probes; a run under any but `STANDARD` is not eligible for the leaderboard.
        output_dir: folder in which the run folder is made; the same call with the same folder continues a run that was
            interrupted, and computes nothing if it is complete. None: a temporary folder, deleted with the report.
        progress: True for a bar, in the cell of a notebook or on standard error; False for none; None for one where
            somebody watches: in a notebook, and at the prompt of Python or IPython. Or an object with the methods of
            `runner.stages.Progress`.
        load_options: keyword arguments of `load_model`, for a spec or a folder.

    Returns:
        The row, the record, the samples, and the run folder.

    Raises:
        InputError: an option that does not fit.
        UsageError: no such suite or model.
        ModelError: the model cannot be loaded, or cannot take the suite.
        BenchmarkError: the run cannot go on; what is computed stays in the folder.

    A model in memory is identified by a digest of its weights and tokenizer, evaluated in its own dtype, and never eligible
    for the leaderboard. Source: docs/models.md, docs/probing.md.
    """
    handle = as_model(model, tokenizer, **load_options)
    settings = RunSettings(
        suite=suite, limit=limit, seed=seed, track=track, num_fewshot=num_fewshot, dialect=dialect, constrained=constrained, n_samples=n_samples,
        temperature=temperature, accuracy_only=accuracy_only, few_programs=few_programs, detail=detail, batch_size=batch_size, protocol=protocol,
    )  # fmt: skip
    if output_dir is not None:
        return _evaluate(handle, settings, Path(output_dir), progress)
    with _deleted_on_failure(Path(tempfile.mkdtemp(prefix="karel-run-"))) as folder:
        report = _evaluate(handle, settings, folder, progress)
    weakref.finalize(report, shutil.rmtree, folder, ignore_errors=True)
    return report


def _suite_name(suite: str | Path | Suite) -> str:
    """The name or file of a suite.

    Raises:
        InputError: a suite that was changed in memory, of which a record could not tell what it was.
    """
    if not isinstance(suite, Suite):
        return str(suite)
    try:
        is_shipped = load_suite(suite.name, suite.seed) == suite
    except UsageError:
        is_shipped = False
    if not is_shipped:
        raise InputError(
            f"suite: {suite.name} is no shipped suite, or differs from it; give the path of its .yaml file"
        )
    return suite.name


@contextmanager
def _deleted_on_failure(folder: Path) -> Iterator[Path]:
    """A folder that is deleted if the context ends with an exception."""
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _evaluate(model: Model, settings: RunSettings, folder: Path, progress: Progress | bool | None) -> Report:
    """Carry out a run below a folder, or read it if it is complete.

    Raises:
        InputError, UsageError, ModelError: see `evaluate`.
    """
    from benchmark.runner.run import Run

    if model.checkpoint is None:
        raise ModelError(
            f"evaluate: {model.spec} has no identity; give its factory as py:package.module:factory with allow_code=True"
        )
    settings.check()
    run = Run(settings.run_config(model, folder), model.checkpoint)
    return Report(run.finished_record() or _execute(run, model, progress), run.root(), run.suite)


def _execute(run: Run, model: Model, progress: Progress | bool | None) -> Record:
    """Carry out a run in this process."""
    import torch

    from benchmark.cluster.local_executor import LocalExecutor
    from benchmark.cluster.pool import Pool
    from benchmark.models.memory import MemoryCheckpoint
    from benchmark.runner.preflight import check_fits
    from benchmark.runner.stages import Backend

    run.estimate = check_fits(run.job, run.protocol, run.measurements())
    backend = Backend(Pool(LocalExecutor(), 1), 0, torch.get_num_threads(), set())
    held = model.checkpoint
    mode = held.evaluation_mode() if isinstance(held, MemoryCheckpoint) else nullcontext()
    if progress is None:
        progress = is_interactive()
    with mode:
        if progress is not True:
            return run.execute(backend, progress or SilentProgress())
        bars = _open_bars()
        with bars.displayed():
            return run.execute(backend, bars)


def _open_bars() -> NotebookProgress | RichProgress:
    """A bar in the cell of a notebook, or bars on standard error."""
    if is_notebook():
        return NotebookProgress()
    from rich.console import Console

    from benchmark.cli.progress import RichProgress

    return RichProgress(Console(stderr=True, highlight=False))
