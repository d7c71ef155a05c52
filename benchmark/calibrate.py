"""The instrument against known answers: `python -m benchmark.calibrate [--seeds N]`.

Builds the pseudo-models of `pseudo_models`, probes each through the code that probes a model, and prints what must be
found beside what is found. Each seed draws other programs, other pseudo-models and other controls. A seed that is done
stays in the folder and is not computed again by the same command.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmark.errors import BenchmarkError, UsageError
from benchmark.evaluation import first_inputs
from benchmark.folder import write_durably
from benchmark.measurement import Source, arrays_of, blind_probe_set, judged, read_source
from benchmark.protocol import STANDARD, Protocol
from benchmark.pseudo_models import DEGRADED, Content
from benchmark.record import source_digest
from benchmark.recorder import recorder_states
from benchmark.semantic_content import RECORD_ONLY, REPRESENTS, Tested
from benchmark.suites import Suite, blind_tasks, load_suite
from karel_env.features import FEATURES, PRIMARY

NOTHING, NEGATIVE, FALLING = "skill 0", "negative gap", "falls"
EXPECTED = {
    "noise": NOTHING,
    "recorder": RECORD_ONLY,
    "recorder + outputs": RECORD_ONLY,
    "random-init": RECORD_ONLY,
    "oracle": REPRESENTS,
    "oracle + recorder": REPRESENTS,
}
"""What must be found; the oracle of an alternative must have a negative gap for it, the degraded one a falling delta."""
NO_SKILL = 0.02
SEEDS_APART = 1_000_003
"""Between the seed of a suite and those of its calibrations."""
CONTROL_SEEDS = 500
Cell = dict[str, Any]


def calibrate(suite: Suite, protocol: Protocol, seed: int) -> list[Cell]:
    """One cell a pseudo-model: what was found for programs, states and controls that `seed` draws."""
    drawn = replace(suite, seed=suite.seed + SEEDS_APART * (seed + 1), sha256="", official=False)
    tasks = blind_tasks(drawn)
    content = Content(tasks.programs, first_inputs(tasks), blind_probe_set(drawn, protocol), seed)
    controls = {
        "random-init": [
            content.untrained(CONTROL_SEEDS + 10 * seed + i)[:, None] for i in range(protocol.random_inits)
        ],
        "recorder": [recorder_states(content.programs, content.inputs, content.probe_set)[:, None]],
    }
    tested = Tested.of(content.probe_set, protocol)
    found = {name: read_source(content.probe_set, tested, copies, protocol) for name, copies in controls.items()}
    cells: list[Cell] = []
    for name, states in content.pseudo_models().items():
        began = time.perf_counter()
        sources = {"model": read_source(content.probe_set, tested, [states[:, None]], protocol), **found}
        cells.append(
            _cell(name, content, tested, sources, protocol) | {"seed": seed, "seconds": time.perf_counter() - began}
        )
    return judge_falling(cells)


def _cell(name: str, content: Content, tested: Tested, sources: dict[str, Source], protocol: Protocol) -> Cell:
    arrays = arrays_of(sources)
    meaning = judged(content.probe_set, tested, arrays, protocol)
    facing = meaning.features[PRIMARY]
    skill = 1 - arrays["model.probe"].sum(-1, dtype=np.float64) / tested.prior.sum(-1)
    alternative = name.removeprefix("oracle of ")
    expected = EXPECTED.get(name, NEGATIVE if alternative != name else FALLING)
    right = meaning.verdict == expected
    if expected == NOTHING:
        right = bool(np.abs(skill).max() < NO_SKILL) and meaning.verdict != REPRESENTS
    elif expected == NEGATIVE:
        f, k = FEATURES.index(PRIMARY), content.probe_set.semantics.index(alternative)
        right = bool(skill[0, f] < skill[k, f]) and meaning.verdict != REPRESENTS
    return {
        "pseudo-model": name,
        "expected": expected,
        "found": meaning.verdict,
        "right": right,
        "skill": facing.skill.value,
        "delta": [facing.delta.value, facing.delta.low, facing.delta.high],
        "widest": max((r.delta90.high - r.delta90.low) / 2 for r in meaning.features.values() if not r.degenerate),
    }


def judge_falling(cells: list[Cell]) -> list[Cell]:
    """The degraded oracles are right if delta falls from each to the next, the whole oracle first."""
    names = ["oracle", *(f"oracle degraded {share:.0%}" for share in DEGRADED)]
    by_name = {cell["pseudo-model"]: cell for cell in cells}
    for before, after in pairwise(names):
        by_name[after]["right"] = by_name[after]["delta"][0] < by_name[before]["delta"][0]
    return cells


def table(cells: Sequence[Cell]) -> str:
    """A row a pseudo-model: over seeds, how often it was found as it must be, and how often REPRESENTS."""
    rows = []
    for name in dict.fromkeys(cell["pseudo-model"] for cell in cells):
        mine = [cell for cell in cells if cell["pseudo-model"] == name]
        value, low, high = np.mean([cell["delta"] for cell in mine], 0)
        found = [cell["found"] for cell in mine]
        rows.append({
            "pseudo-model": name,
            "expected": mine[0]["expected"],
            "found": ", ".join(f"{verdict} {found.count(verdict)}" for verdict in dict.fromkeys(sorted(found))),
            "right": f"{sum(cell['right'] for cell in mine)}/{len(mine)}",
            "skill": f"{np.mean([cell['skill'] for cell in mine]):+.3f}",
            "delta": f"{value:+.3f} [{low:+.3f}, {high:+.3f}]",
            "widest 90%": f"+-{np.mean([cell['widest'] for cell in mine]):.3f}",
            "seconds": f"{np.mean([cell['seconds'] for cell in mine]):.0f}",
        })  # fmt: skip
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def _stored(folder: Path, suite: Suite, protocol: Protocol, seed: int) -> Path:
    settings = [suite.name, suite.version, suite.seed, suite.probe_programs, protocol.digest(), source_digest()]
    return folder / f"seed-{seed:03d}-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]}.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.calibrate", description="Measure known answers.")
    parser.add_argument("--suite", default="laptop", help="whose worlds and lengths are used (default: laptop)")
    parser.add_argument("--programs", type=int, help="of the probe set (default: the suite's)")
    parser.add_argument("--seeds", type=int, default=1, help="how many draws of everything (default: 1)")
    parser.add_argument("--out", type=Path, default=Path("runs/calibration"), help="folder of the results")
    options = parser.parse_args(arguments)
    try:
        suite = load_suite(options.suite)
        if options.seeds < 1 or (options.programs is not None and options.programs < STANDARD.min_programs):
            raise UsageError(f"--seeds must be at least 1 and --programs at least {STANDARD.min_programs}")
        suite = replace(suite, probe_programs=options.programs or suite.probe_programs)
        options.out.mkdir(parents=True, exist_ok=True)
        cells: list[Cell] = []
        for seed in range(options.seeds):
            path = _stored(options.out, suite, STANDARD, seed)
            if not path.is_file():
                print(f"seed {seed} ...", file=sys.stderr)
                write_durably(path, json.dumps(calibrate(suite, STANDARD, seed), indent=1).encode())
            cells += json.loads(path.read_bytes())
    except BenchmarkError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return problem.exit_code
    print(table(cells))
    wrong = sum(cell["found"] == REPRESENTS and cell["expected"] not in (REPRESENTS, FALLING) for cell in cells)
    print(f"\nfalse REPRESENTS: {wrong}. Cells: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
