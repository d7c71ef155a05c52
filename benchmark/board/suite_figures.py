"""What a comparison needs of a suite and a protocol, whichever models are compared.

To draw and label the blind set takes seconds and half a gigabyte, so the figures of the shipped suites are pinned in
`pinned/`, one file per suite, for the complete suite under the standard protocol; others are computed. After a new
version of a suite or of the protocol, write the files again:

    python -c 'from benchmark.board.suite_figures import write_pinned; write_pinned("laptop")'

Letters: `N` tasks, `S` semantics, `U` groups of test programs, `Q` probe seeds.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.files import read_safetensors_metadata
from benchmark.probing.protocol import STANDARD, Protocol
from benchmark.probing.verdict import load_blind_set
from benchmark.tasks.suite import Suite, identify_suite, load_suite, test_tasks
from karel_env.features import FEATURES, PRIMARY
from karel_env.screen import valid_alternatives

PINNED_FOLDER = Path(__file__).parent / "pinned"


@dataclass(frozen=True)
class DeltaBaseline:
    """The label prior of the primary feature under the semantics that delta is computed from.

    Attributes:
        columns: int64 [S], which semantics of stored evidence: the original, then the alternatives kept for the feature.
        programs: number of test programs.
        prior: float64 [S, U], see `PriorBaseline.prior`.
        totals: float64 [Q, S], see `PriorBaseline.totals`.
    """

    columns: np.ndarray
    programs: int
    prior: np.ndarray
    totals: np.ndarray


def program_clusters(suite: Suite) -> np.ndarray:
    """int64 [N], cluster index per test task; tasks with the same reference program share one."""
    pinned = _read_pinned(suite)
    return compute_clusters(suite) if pinned is None else pinned["clusters"].astype(np.int64)


def delta_baseline(suite: Suite, protocol: Protocol) -> DeltaBaseline:
    """The baseline of a suite: pinned, or computed from the labels of its blind set."""
    pinned = _read_pinned(suite, protocol)
    if pinned is None:
        return compute_delta_baseline(suite, protocol)
    return DeltaBaseline(pinned["columns"], int(pinned["programs"][0]), pinned["prior"], pinned["totals"])


def compute_clusters(suite: Suite) -> np.ndarray:
    """`program_clusters`, from the tasks."""
    return np.unique(test_tasks(suite).programs.texts(), return_inverse=True)[1]


def compute_delta_baseline(suite: Suite, protocol: Protocol) -> DeltaBaseline:
    """`delta_baseline`, from the labels."""
    probe_set, baseline = load_blind_set(suite, protocol)
    valid = valid_alternatives(PRIMARY)
    columns = np.array([0, *(i for i, name in enumerate(probe_set.semantics) if name in valid)])
    f = FEATURES.index(PRIMARY)
    return DeltaBaseline(
        columns,
        len(baseline.programs),
        baseline.prior[columns, f],
        np.ascontiguousarray(baseline.totals[:, columns, f]),
    )


def pinned_path(suite_name: str) -> Path:
    """Where the figures of a shipped suite are."""
    return PINNED_FOLDER / f"{suite_name}.safetensors"


def write_pinned(suite_name: str, folder: Path = PINNED_FOLDER) -> Path:
    """Compute and write the figures of a shipped suite; returns the file."""
    from safetensors.numpy import save_file

    suite = load_suite(suite_name)
    baseline = compute_delta_baseline(suite, STANDARD)
    arrays = {
        "clusters": compute_clusters(suite).astype(np.int16), "columns": baseline.columns,
        "programs": np.array([baseline.programs]), "prior": np.ascontiguousarray(baseline.prior),
        "totals": baseline.totals,
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    path = folder / f"{suite_name}.safetensors"
    save_file(arrays, path, _pinned_for(suite) | {"protocol": STANDARD.digest()})
    return path


def _pinned_for(suite: Suite) -> dict[str, str]:
    return {"suite": hashlib.sha256(json.dumps(identify_suite(suite), sort_keys=True).encode()).hexdigest()}


def _read_pinned(suite: Suite, protocol: Protocol | None = None) -> dict[str, np.ndarray] | None:
    """The pinned arrays, if they are those of this suite, and of this protocol if one is given."""
    path = pinned_path(suite.name)
    if not suite.sha256 or not path.is_file():
        return None
    expected = _pinned_for(suite) | ({} if protocol is None else {"protocol": protocol.digest()})
    if not expected.items() <= read_safetensors_metadata(path).items():
        return None
    from safetensors.numpy import load_file

    arrays: dict[str, np.ndarray] = load_file(path)
    return arrays
