"""A pseudo-model through the rule of a preview and through all probe seeds: a cell.

Cells are kept under the digest of the modules that this one imports, as those of `rotation_draw`.
"""

from __future__ import annotations

import time
from typing import Any

from benchmark.calibrate.rotation_draw import Controls, RotationDraw, is_right
from benchmark.probing.control_gap import RANDOM_INIT
from benchmark.probing.version4.measure_rotation import measure_rotation
from benchmark.probing.version4.rotation_verdict import TOKEN_HISTORY
from benchmark.probing.version4.sequential_verdict import is_decided, list_looks, select_seeds, verdict_of_seeds
from benchmark.probing.version4.turn_pairs import MARKER_PAIRS, POSE_PAIRS


def measure_preview_cell(draw: RotationDraw, name: str, controls: Controls) -> dict[str, Any]:
    """Verdict of the preview, after how many seeds, and verdict of all seeds, from the same evidence.

    Args:
        draw: programs and pseudo-models, with the seeds of a run.
        name: name of the pseudo-model.
        controls: evidence of the controls of the draw on all seeds.
    """
    began = time.process_time()
    kind, views = draw.builder.kinds()[name]
    protocol, judged_rows = draw.protocol, draw.judged
    evidence = {
        **measure_rotation(draw.builder.probe_set, judged_rows, views(), protocol, controls[TOKEN_HISTORY]),
        RANDOM_INIT: controls[RANDOM_INIT],
    }
    has_enough_rows = judged_rows.num_unseen >= protocol.min_unseen
    looks = []
    for look in list_looks(protocol):
        seeds = protocol.seeds[: look.seeds]
        parts = {source: select_seeds(part, protocol.seeds, seeds, judged_rows) for source, part in evidence.items()}
        result = verdict_of_seeds(parts, judged_rows, seeds, protocol, MARKER_PAIRS, POSE_PAIRS)
        is_last = look.seeds == len(protocol.seeds)
        looks.append(
            (look.seeds, result.verdict, is_last or is_decided(result, protocol, look.widening, has_enough_rows))
        )
    preview_seeds, preview, _ = next(look for look in looks if look[2])
    final = looks[-1][1]
    return {
        "pseudo-model": name, "kind": kind, "seed": draw.seed, "preview": preview, "preview_seeds": preview_seeds,
        "all_seeds": final, "agrees": preview == final, "preview_right": is_right(kind, preview),
        "right": is_right(kind, final), "delta": [result.delta.value, result.delta.low, result.delta.high],
        "seconds": round(time.process_time() - began, 1),
    }  # fmt: skip
