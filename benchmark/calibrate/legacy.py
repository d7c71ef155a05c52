"""LEGACY: the released probing recipe of Jin & Rinard 2024, flaws included: `python -m benchmark.legacy`.

`--fixed` measures the effect of each flaw. The networks are trained one after another, in plain torch.

Taken from github.com/charlesjin/emergent-semantics at 75e0384 (probe/*.py, lm/eval.py, scripts/train_probe.sh, README):

- every default of `LegacyRecipe`, and the alternatives;
- networks: Linear, then ReLU, batch norm and Linear per hidden layer, no dropout; AdamW, no weight decay on biases;
- states at a token's emission, averaged over layers and standardised with mean and standard deviation of the validation
  data, which are not used for anything else; labels in the first shown world only;
- a feature counts as correct if all of its heads are; per feature, the evaluation with the best accuracy on the test set
  is reported; seeds appear in file names but are never set; programs occur in several splits.

Deliberate differences: three of the six features, those of the paper (each has its own networks); the suite's worlds, with
as many classes as can occur; decoding without a grammar, programs that do not parse are dropped; the three splits are cut
from the suite's probe tasks in the ratio of the release (50,000 : 10,000 : 10,000), whereas the release trains probes on
tasks that the model was trained on; no minimum number of training records (10,000 in the release); constant columns are
not scaled.

NOT VERIFIED: how the paper averages features to one figure (this code is not released; here the mean, and every feature is
stored), and that its gaps are means over the five repeats at offset 0.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tabulate import tabulate

from benchmark.command import make_folder
from benchmark.errors import UsageError
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.probing.labels import build_probe_set
from benchmark.probing.protocol import STANDARD
from benchmark.runner.plan import Job
from benchmark.runner.probe_answers import answer_probe_tasks
from benchmark.runner.store import write_atomic
from benchmark.tasks.probe_sets import first_inputs, parse_programs
from benchmark.tasks.suite import identify_suite, load_suite, probe_tasks
from karel_env.features import FEATURES, PAPER_FEATURES
from karel_env.language import FIRST_CONDITION, HEADER, WORDS, Programs
from karel_env.semantics import ORIGINAL
from karel_env.world import Worlds

if TYPE_CHECKING:
    from benchmark.calibrate.legacy_command import LegacyOptions

LABEL = "LEGACY recipe of Jin & Rinard 2024: not comparable with any row of this benchmark"
FLAWS = (
    "flaws: best evaluation chosen on the test set; seeds unset (--seed-unset); programs recur; alternative 0 follows "
    "from the state, 8 mirrors 11, 3 and 5 differ in marker words; tokens not uniform; outputs shown; no intervals"
)
RELEASED_ALTERNATIVES = {
    0: (0, 2, 1, 4, 3),
    3: (1, 2, 0, 2, 1),
    5: (1, 2, 0, 4, 3),
    8: (1, 0, 2, 4, 3),
    11: (2, 0, 1, 4, 3),
}
"""Replacement of each of `ACTIONS`, by number in the release. 3 is not a permutation: no word picks."""


@dataclass(frozen=True)
class LegacyRecipe:
    """All settings; the defaults are the release's.

    Attributes:
        depths: name and hidden widths of each probe.
        alternatives: keys of `RELEASED_ALTERNATIVES`.
        repeats: number of trainings per network.
        shares: relative numbers of programs for training, test and validation.
        train_records: maximum number of training records.
        batch: records per step.
        epochs, presented: training ends after this number of epochs or of records, whichever comes first.
        checks: number of evaluations, at most one per epoch, in addition to that after the last step.
        learning_rate, weight_decay: settings of AdamW.
        decay, decays: the learning rate is multiplied by `decay`, `decays` times in total.
        drop_last: whether to drop the last action of each program.
        programs_apart: whether no program occurs in two splits (not as released).
        seed: seed of all random numbers; None leaves them unseeded.
    """

    depths: tuple[tuple[str, tuple[int, ...]], ...] = (("linear", ()), ("mlp1", (256,)), ("mlp2", (256, 1024)))
    alternatives: tuple[int, ...] = tuple(RELEASED_ALTERNATIVES)
    repeats: int = 5
    shares: tuple[int, int, int] = (5, 1, 1)
    train_records: int = 100_000
    epochs: int = 200
    presented: int = 10_000_000
    batch: int = 1024
    checks: int = 20
    learning_rate: float = 0.02
    weight_decay: float = 0.2
    decay: float = 0.95
    decays: int = 150
    drop_last: bool = True
    seed: int | None = None
    programs_apart: bool = False


@dataclass(frozen=True)
class LegacyResult:
    """Accuracies on the test records, as fractions; both arrays are of the same trained networks.

    Attributes:
        label: `LABEL`.
        recipe: settings.
        semantics: S names, the original first.
        features: F names.
        on_test: float64 [depths, S, repeats, F], at the evaluation that is best on the test records (the flaw).
        on_validation: the same at the evaluation that is best on the validation records.
        programs, records: numbers in training, test and validation.
        recurring: fraction of the test programs that occur in training.
    """

    label: str
    recipe: LegacyRecipe
    semantics: tuple[str, ...]
    features: tuple[str, ...]
    on_test: np.ndarray
    on_validation: np.ndarray
    programs: list[int]
    records: list[int]
    recurring: float


def accuracy_gaps(accuracy: np.ndarray) -> np.ndarray:
    """float64 [depths, S], accuracy under the original minus that under each semantics, in percentage points, means over
    repeats and features."""
    mean_percent = 100 * accuracy.mean((2, 3))
    return np.asarray(mean_percent[:, :1] - mean_percent)


def measure_legacy_content(
    programs: Programs,
    inputs: Worlds,
    states: np.ndarray,
    recipe: LegacyRecipe,
    on_training: Callable[[int], None] = lambda trainings: None,
) -> LegacyResult:
    """Measure the paper's semantic content on B straight-line programs.

    Args:
        programs: B programs.
        inputs: first shown world of each program, [B].
        states: float32 [R, D], mean over layers at the emission of each action word of all programs, in order.
        recipe: settings.
        on_training: called with 1 after each of the depths x S x repeats x F trainings.

    Raises:
        UsageError: A program has control flow, the states do not match the programs, or there are too few records.
    """
    actions, straight = count_actions(programs)
    if not straight.all() or len(states) != actions.sum():
        message = f"{len(states)} states of {actions.sum()} actions, {(~straight).sum()} programs with control flow"
        raise UsageError(f"legacy: {message}; expected one state per action, and straight-line programs only")
    protocol = replace(STANDARD, folds=sum(recipe.shares))
    variants = [programs, *(rewrite_actions(programs, RELEASED_ALTERNATIVES[k]) for k in recipe.alternatives)]
    probe_sets = [build_probe_set(probe_set, inputs, [ORIGINAL], protocol) for probe_set in variants]
    owner = probe_sets[0].program
    fold = probe_sets[0].fold if recipe.programs_apart else np.arange(len(programs)) % protocol.folds
    part = np.where(fold < 0, -1, np.repeat(np.arange(3), recipe.shares)[fold])
    used = np.append(owner[1:] == owner[:-1], False) | (not recipe.drop_last)
    parts = [np.flatnonzero(used & (part[owner] == i)) for i in range(3)]
    records = [len(rows) for rows in parts]
    if min(records[0], recipe.train_records) < recipe.batch or not all(records):
        raise UsageError(f"legacy: {records} records; expected at least {[recipe.batch, 1, 1]}, raise --programs")
    deviation = states[parts[2]].std(0)
    scaled = torch.from_numpy((states - states[parts[2]].mean(0)) / np.where(deviation > 0, deviation, 1))
    classes = np.stack([probe_set.classes[0] for probe_set in probe_sets])
    accuracies = np.zeros((2, len(recipe.depths), len(classes), recipe.repeats, len(PAPER_FEATURES)))
    seeds = np.random.SeedSequence(recipe.seed).spawn(accuracies[0].size)
    for index, seed in zip(np.ndindex(*accuracies.shape[1:]), seeds, strict=True):
        heads = [FEATURES.index(name) for name in PAPER_FEATURES[index[3]]]
        widths = [[*recipe.depths[index[0]][1], int(probe_sets[0].counts[head])] for head in heads]
        accuracies[:, *index] = _feature_accuracy(scaled, classes[index[1], heads], widths, parts, recipe, seed)
        on_training(1)
    members = [[programs.program(b).tobytes() for b in np.flatnonzero(part == i).tolist()] for i in range(3)]
    return LegacyResult(
        LABEL, recipe, ("original", *map(str, recipe.alternatives)), tuple(map("+".join, PAPER_FEATURES)),
        accuracies[0], accuracies[1], [len(probe_set) for probe_set in members], records, float(np.isin(members[1], members[0]).mean()),
    )  # fmt: skip


def count_actions(programs: Programs) -> tuple[np.ndarray, np.ndarray]:
    """Count the actions of each program, int64 [B]; also returns whether it contains nothing else, bool [B]."""
    counts = np.add.reduceat(programs.words < FIRST_CONDITION, programs.offsets[:-1], dtype=np.int64)
    return counts, counts == programs.lengths - len(HEADER) - 1


def rewrite_actions(programs: Programs, table: Sequence[int]) -> Programs:
    """Replace each action word; the release implements alternative semantics in this way."""
    token_map = np.array([*table, *range(len(table), len(WORDS))], np.int16)
    return Programs(token_map[programs.words], programs.offsets)


def _feature_accuracy(
    states: torch.Tensor, labels: np.ndarray, widths: list[list[int]], parts: Sequence[np.ndarray],
    recipe: LegacyRecipe, seed: np.random.SeedSequence,
) -> tuple[float, float]:  # fmt: skip
    """Test accuracy of one feature, selected on the test set and on validation; one network per row of labels int [heads, R]."""
    random = np.random.default_rng(seed)
    train = random.choice(parts[0], min(recipe.train_records, len(parts[0])), replace=False)
    row_sets = [torch.from_numpy(split_rows) for split_rows in (train, np.concatenate(parts[1:]))]
    hits = []
    for targets, head_widths in zip(labels.astype(np.int64), widths, strict=True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(random.integers(2**62)))
            hits.append(
                _train_probe(states, torch.from_numpy(targets), [states.shape[1], *head_widths], row_sets, recipe)
            )
    tested, validated = (part.mean(1) for part in np.split(np.all(hits, 0), [len(parts[1])], 1))
    return float(tested.max()), float(tested[validated.argmax()])


def _train_probe(
    states: torch.Tensor, labels: torch.Tensor, widths: list[int], row_sets: list[torch.Tensor], recipe: LegacyRecipe
) -> np.ndarray:
    """Train one network on the first of two sets of rows; returns bool [evaluations, second set], correct predictions."""
    train, evaluated = row_sets
    network = torch.nn.Sequential(torch.nn.Linear(widths[0], widths[1]))
    for in_width, out_width in pairwise(widths[1:]):
        network.extend([torch.nn.ReLU(), torch.nn.BatchNorm1d(in_width), torch.nn.Linear(in_width, out_width)])
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in network.named_parameters() if name.endswith(suffix)], "weight_decay": decay}
        for suffix, decay in (("weight", recipe.weight_decay), ("bias", 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, recipe.decay)
    epoch = len(train) // recipe.batch
    steps = min(recipe.presented, recipe.epochs * len(train)) // recipe.batch
    hits: list[torch.Tensor] = []
    for step in range(1, steps + 1):
        if (step - 1) % epoch == 0:
            batches = iter(train[torch.randperm(len(train))].split(recipe.batch))
        batch = next(batches)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(states[batch]), labels[batch]).backward()
        optimizer.step()
        if step % (steps // recipe.decays or epoch) == 0:
            schedule.step()
        if step % max(steps // recipe.checks, epoch) == 0 or step == steps:
            with torch.no_grad():
                hits.append(network.eval()(states[evaluated]).argmax(1) == labels[evaluated])
            network.train()
    return torch.stack(hits).numpy()


def written_programs_and_states(job: Job) -> tuple[Programs, Worlds, np.ndarray]:
    """Generate programs for the probe tasks; returns the inputs of `measure_legacy_content`, without control flow."""
    texts, states = answer_probe_tasks(job)
    programs, task_indices = parse_programs(texts)
    if not len(programs):
        raise UsageError(
            f"{job.checkpoint.spec}: none of its programs parses; expected a model that generates Karel programs"
        )
    actions, straight = count_actions(programs)
    states = states[np.repeat(straight, actions)]
    return programs.take(np.flatnonzero(straight)), first_inputs(probe_tasks(job.suite))[task_indices[straight]], states


def format_table(legacy: LegacyResult, fixed: LegacyResult | None = None) -> str:
    """Accuracies [lowest, highest repeat] in percent and gaps in points, means over features."""
    columns = {"selected on test": legacy.on_test}
    if fixed:
        columns |= {
            "selected on validation": legacy.on_validation,
            "and disjoint programs, seeded": fixed.on_validation,
        }
    rows = []
    for (d, (depth, _)), (s, name) in product(enumerate(legacy.recipe.depths), enumerate(legacy.semantics)):
        row = {"probe": depth, "semantics": name}
        for column, accuracy in columns.items():
            mean = 100 * accuracy[d, s].mean(-1)
            row[column] = f"{mean.mean():.1f} [{mean.min():.1f}, {mean.max():.1f}]"
            row[f"gap, {column}"] = f"{accuracy_gaps(accuracy)[d, s]:+.1f}" if s else ""
        rows.append(row)
    sizes = [
        f"train, test, validation: programs {result.programs}, records {result.records}; of the test programs "
        f"{result.recurring:.0%} occur in training; [of {result.recipe.repeats} repeats], seed {result.recipe.seed}, "
        f"{result.recipe.epochs} epochs"
        for result in (legacy, fixed) if result
    ]  # fmt: skip
    return "\n".join([LABEL, FLAWS, tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True), *sizes])


def run(options: LegacyOptions, model: str) -> int:
    """Measure the model of a spec, write `legacy.json` and print the table; returns the exit code."""
    suite = load_suite(options.suite)
    suite = replace(suite, probe_programs=options.programs or suite.probe_programs)
    job = Job(suite, open_checkpoint(ModelSpec.parse(model)), "float32", "cpu", random_inits=0)
    if not job.checkpoint.has_hidden_states:
        raise UsageError(f"--model {model}: has no hidden states to probe; expected path:FOLDER or hf:org/name")
    make_folder(options.output_dir, "--output-dir")
    recipe = LegacyRecipe(seed=None if options.seed_unset else 0, repeats=options.repeats, epochs=options.epochs)
    recipes = [recipe, replace(recipe, seed=0, programs_apart=True)] if options.fixed else [recipe]
    inputs = written_programs_and_states(job)
    results = [
        measure_legacy_content(*inputs, recipe_variant, lambda _: print(end=".", file=sys.stderr, flush=True))
        for recipe_variant in recipes
    ]
    stored = {
        "label": LABEL, "flaws": FLAWS, "model": [model, job.checkpoint.digest], "suite": identify_suite(suite),
        "results": [asdict(recipe_variant) | {"gaps": accuracy_gaps(recipe_variant.on_test)} for recipe_variant in results],
    }  # fmt: skip
    write_atomic(options.output_dir / "legacy.json", json.dumps(stored, default=np.ndarray.tolist).encode())
    print("\n" + format_table(*results))
    return 0
