"""Derivability screen: which alternative semantics are valid controls for which feature.

An alternative whose labels can be derived from the true state is not a control, since a model that represents the true
state represents those labels too. For each (alternative, feature) the screen estimates how much the robot's true state
adds to the input alone in predicting the alternative's label: skill = 1 - CE(step, input, true state) / CE(step, input),
from frequency tables fitted on one half of a large sample and tested on the other half. At 0.2 or more the alternative is
dropped. The contribution of the input is removed because the start alone gives a facing skill of about 0.25 over six steps
under every semantics, including the original.

`python -m karel_env.screen` computes the table and writes it to `karel_env/screen.json` and `docs/alternatives.md`.
"""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np

from karel_env.command import UsageExit, run_command
from karel_env.features import FEATURES, class_counts, labels
from karel_env.generation.recipe import Recipe
from karel_env.language import ACTIONS
from karel_env.semantics import EFFECTS, FLIP, ORIGINAL, Semantics, mirror_classes

THRESHOLD = 0.2
SCREENED = Recipe((6, 6), (6, 6), 0.1, 0.1, (6, 6), (1,) * len(ACTIONS), 1)
"""Tasks of the screen: worlds of `laptop`, programs of six uniform actions."""
SAMPLE = 200_000
SEED = 1
NOISE_SEEDS = (1, 2)
CLOSE = 0.025
"""The document lists the valid alternatives closer than this to the threshold: more data could exceed it."""
TABLE = Path(__file__).with_name("screen.json")
DOCUMENT = Path(__file__).parent.parent / "docs" / "alternatives.md"


def derivability(semantics: list[Semantics], sample: int = SAMPLE, seed: int = SEED) -> np.ndarray:
    """Skill with which true state, start and step predict each alternative label; float64 [semantics, F]."""
    # Here, since the table of the screen is also read where nothing is compiled.
    from karel_env.execution.compiler import compile_programs
    from karel_env.execution.interpreter import run
    from karel_env.generation.generator import generate

    tasks = generate(SCREENED, seed, "audit", np.arange(sample), threads=0)
    inputs = tasks.inputs[:, 0]
    code = compile_programs(tasks.programs)
    steps = SCREENED.length[1]
    owner = np.repeat(np.arange(sample), steps)
    step = np.tile(np.arange(steps), sample)
    width = inputs.cells.shape[-1]

    def states(alternative: Semantics) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        execution = run(code, inputs, alternative, trace=True, threads=0)
        assert execution.trace is not None
        position = execution.trace.position
        robot = np.stack([position // width, position % width, execution.trace.heading], 1)
        return robot, labels(inputs.cells, inputs.robot, execution.worlds.robot, robot, owner)

    truth, _ = states(ORIGINAL)
    start = inputs.robot[owner]
    cells = inputs.cells.shape[-2] * width
    indices = [robot[:, 0].astype(np.int64) * width + robot[:, 1] for robot in (start, truth)]
    entered = (step * 4 + start[:, 2]) * cells + indices[0]
    levels = [step, entered, entered * 4 + truth[:, 2], (entered * 4 + truth[:, 2]) * cells + indices[1]]
    nested = _Nested([np.unique(level, return_inverse=True)[1] for level in levels], owner < sample // 2)
    counts = class_counts(*inputs.cells.shape[-2:])
    table = np.zeros((len(semantics), len(FEATURES)))
    for i, alternative in enumerate(semantics):
        scores = states(alternative)[1]
        for f, name in enumerate(FEATURES):
            losses = nested.losses(scores[name], counts[name])
            table[i, f] = 1 - losses[-1] / losses[1] if losses[1] > 0 else 0.0
    return table


class _Nested:
    """Nested frequency tables, each finer than the previous one and smoothed towards it.

    Args:
        codes: cell index of each state per level, int [R]; each cell is contained in one cell of the previous level.
        learn: bool [R], the states that fill the tables; the others test them.
    """

    def __init__(self, codes: list[np.ndarray], learn: np.ndarray) -> None:
        self.learned = [code[learn] for code in codes]
        self.tested = [code[~learn] for code in codes]
        self.learn = learn
        self.sizes = [int(code.max()) + 1 for code in codes]
        self.parents = [np.zeros(self.sizes[0], np.int64)]
        for coarse, fine, size in zip(codes[:-1], codes[1:], self.sizes[1:], strict=True):
            parent = np.zeros(size, np.int64)
            parent[fine] = coarse
            self.parents.append(parent)

    def losses(self, label: np.ndarray, classes: int) -> list[float]:
        """Cross-entropy in nats of the test labels, per level."""
        estimate = np.full((1, classes), 1 / classes)
        losses = []
        for code, test, size, parent in zip(self.learned, self.tested, self.sizes, self.parents, strict=True):
            count = np.bincount(code * classes + label[self.learn], minlength=size * classes).reshape(size, classes)
            estimate = (count + 2 * estimate[parent]) / (count.sum(1, keepdims=True) + 2)
            losses.append(float(-np.log(estimate[test, label[~self.learn]]).mean()))
        return losses


@lru_cache(maxsize=1)
def table() -> dict[str, dict[str, float]]:
    """The stored screen: alternative -> feature -> skill."""
    stored: dict[str, dict[str, float]] = json.loads(TABLE.read_text())["skill"]
    return stored


def valid_alternatives(feature: str) -> tuple[str, ...]:
    """Names of the valid alternatives for a feature, in order.

    Raises:
        KeyError: The feature is unknown.
    """
    if feature not in FEATURES:
        raise KeyError(f"feature {feature!r} is not one of {', '.join(FEATURES)}")
    return tuple(name for name, skills in table().items() if skills[feature] < THRESHOLD)


def _document(names: list[str], skills: np.ndarray, semantics: list[Semantics], noise: dict[str, float]) -> str:
    lines = [
        "# The alternative semantics and the derivability screen",
        "",
        "Written by `python -m karel_env.screen`; do not edit. Each row is one representative of a mirror class; the five",
        "columns after its name are the effects of the action words. The others are skills: how much the true state adds to",
        f"input and step when predicting the alternative's label ({SAMPLE:,} programs of six uniform actions in the worlds",
        f"of `laptop`, seed {SEED}; frequency tables fitted on one half, tested on the other). **Bold**: {THRESHOLD} or more, so the",
        "alternative is not a valid control for this feature and is not used for it. `flip` (left and right exchanged) is",
        "listed for comparison: its facing is a function of the true facing, so it can never be a control.",
        "",
        "| name | " + " | ".join(ACTIONS) + " | " + " | ".join(FEATURES) + " |",
        "|" + "---|" * (1 + len(ACTIONS) + len(FEATURES)),
    ]
    for name, alternative, row in zip(names, semantics, skills, strict=True):
        cells = [f"**{v:.2f}**" if v >= THRESHOLD else f"{v:.2f}" for v in row]
        lines.append("| " + " | ".join([f"`{name}`", *(EFFECTS[e] for e in alternative.actions), *cells]) + " |")
    counted = [f"{f} {int((skills[:-1, i] < THRESHOLD).sum())}" for i, f in enumerate(FEATURES)]
    lines += [
        "",
        f"Valid alternatives out of {len(names) - 1}: " + ", ".join(counted) + ".",
        "",
        *_uncertainty(names, skills, noise),
        "",
    ]
    return "\n".join(lines)


def _uncertainty(names: list[str], skills: np.ndarray, noise: dict[str, float]) -> list[str]:
    """Lines of the section on the uncertainty of the skills."""
    lines = [
        "## Uncertainty",
        "",
        f"Largest difference of a skill between two independent samples (seeds {NOISE_SEEDS[0]} and {NOISE_SEEDS[1]}): "
        + ", ".join(f"{f} {v:.3f}" for f, v in noise.items())
        + ".",
        "",
        "The frequency tables are smoothed, come from a finite sample and contain walls only through the robot's position,",
        "so each value is a lower bound of the skill. Four times the sample raises facing by up to 0.01 and positions by",
        "up to 0.025. For facing, tables in coordinates relative to the start, with the walls around the start and around",
        "the robot, from eight times the sample, give 0.19 for the valid alternatives whose names begin with `m` or `p` and",
        f"0.200 for the six that begin with `l`. Valid, but less than {CLOSE} below the threshold:",
        "",
    ]
    is_close = (skills[:-1] < THRESHOLD) & (skills[:-1] >= THRESHOLD - CLOSE)
    for f, feature in enumerate(FEATURES):
        if is_close[:, f].any():
            entries = ", ".join(f"`{names[i]}` {skills[i, f]:.3f}" for i in np.flatnonzero(is_close[:, f]))
            lines.append(f"- {feature}: {entries}")
    return lines


def main() -> int:
    """Execute the command line; returns the exit code."""
    return run_command(write_screen)


def write_screen() -> int:
    """Compute the screen and write both files, in a checkout."""
    if not DOCUMENT.parent.is_dir():
        raise UsageExit(
            f"{DOCUMENT.parent}: no such folder; the screen is a file of the source, run this in a checkout"
        )
    semantics = [*mirror_classes(), FLIP]
    names = [m.name for m in semantics]
    skills, recomputed = (derivability(semantics, seed=seed) for seed in NOISE_SEEDS)
    noise = dict(zip(FEATURES, np.abs(skills - recomputed).max(0).round(4).tolist(), strict=True))
    rows = {n: dict(zip(FEATURES, np.round(r, 4).tolist(), strict=True)) for n, r in zip(names, skills, strict=True)}
    stored = {
        "sample": SAMPLE,
        "seed": SEED,
        "threshold": THRESHOLD,
        "noise": noise,
        "skill": {n: rows[n] for n in names[:-1]},
    }
    TABLE.write_text(json.dumps(stored, indent=1) + "\n")
    DOCUMENT.write_text(_document(names, skills, semantics, noise), encoding="utf-8")
    print(f"wrote {TABLE.name} and {DOCUMENT.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
