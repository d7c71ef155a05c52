"""The states file: hidden states that another engine read at the rows of a probe set, as safetensors.

Tensors: `states` [R, L, D] or [R, D] (F16, BF16, F32 or F64), `rows` integer [R], the row of each state, which must be
0 to R - 1 in order; per control `control.NAME`, or `control.NAME.0`, `control.NAME.1`, ... for copies; `.mean` and `.last`
after that for states that are pooled over layers already, [R, D] each. Metadata: `set`, the
digest of the probe set that the prompts file repeats on every line; `suite`, and optionally `programs` and `seed`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmark.api.hidden_states import PooledStates
from benchmark.api.inputs import InputError, as_float32
from benchmark.api.probe_set import BlindProbeSet, blind_probe_set
from benchmark.errors import ModelError, SubmissionError
from benchmark.files import read_safetensors_metadata, read_tensor_header
from benchmark.probing.protocol import LAST, MEAN, POOLS, STANDARD, Protocol
from karel_env.command import shown

STATES, ROWS, CONTROL_PREFIX = "states", "rows", "control."
FLOATS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}
CONTROL_TENSOR = re.compile(r"control\.([^.]+?)(?:\.(\d{1,6}))?(?:\.(mean|last))?")
INTEGERS = {"I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "u1", "U16": "<u2", "U32": "<u4"}


States: TypeAlias = np.ndarray | PooledStates
Control: TypeAlias = States | list[States]


@dataclass(frozen=True)
class StatesFile:
    """The content of a states file, whose rows are checked against the probe set that it names.

    Attributes:
        probes: the probe set.
        hidden: float32 [R, L, D] or [R, D].
        controls: by name of control its states, or a list of them per copy.
    """

    probes: BlindProbeSet
    hidden: np.ndarray
    controls: dict[str, Control]


def write_states(
    path: str | Path, probes: BlindProbeSet, hidden: Any, controls: Mapping[str, Any] | None = None
) -> Path:
    """Write hidden states as a states file, which `read_states` and the command for states files read.

    Args:
        path: the file, replaced if it exists.
        probes: the probe set, R rows.
        hidden: states [R, L, D] or [R, D] of all rows in order, array or tensor.
        controls: states, or a list of states per copy, by name of control.

    Returns:
        The path.

    Raises:
        InputError: another number of rows.
        StorageError: the folder cannot be written to.

    Source: docs/api.md, "Models that do not run here".
    """
    from safetensors.numpy import save

    from benchmark.runner.store import write_atomic

    tensors = {STATES: as_float32("hidden", hidden), ROWS: np.arange(probes.num_rows)}
    for name, value in (controls or {}).items():
        copies = list(enumerate(value)) if isinstance(value, (list, tuple)) else [(None, value)]
        for copy, states in copies:
            label = f"{CONTROL_PREFIX}{name}" + ("" if copy is None else f".{copy}")
            if isinstance(states, PooledStates):
                tensors |= {f"{label}.{view}": getattr(states, view) for view in POOLS}
            else:
                tensors[label] = as_float32(label, states)
    for label, tensor in tensors.items():
        if len(tensor) != probes.num_rows:
            raise InputError(f"{label}: {len(tensor)} rows; expected {probes.num_rows}, one per row of the probe set")
    metadata = {
        "set": probes.digest, "suite": probes.suite.name, "programs": str(probes.suite.probe_programs),
        "seed": str(probes.suite.seed),
    }  # fmt: skip
    write_atomic(Path(path), save(tensors, metadata))
    return Path(path)


def read_states(
    path: str | Path,
    *,
    suite: str | None = None,
    programs: int | None = None,
    seed: int | None = None,
    protocol: Protocol = STANDARD,
) -> StatesFile:
    """Read a states file and check its rows against the probe set that it names.

    Args:
        path: a file of `write_states`, or of another engine.
        suite: name or file of the suite; None for the one in the file's metadata.
        programs: label budget of the probe set; None for that of the metadata, else the suite's own.
        seed: seed of the probe set; None for that of the metadata, else the suite's own.
        protocol: settings of the probes.

    Returns:
        The probe set, the states float32 [R, L, D] or [R, D], and the controls in the file; their values are checked by
        `measure`.

    Raises:
        UsageError: no such file, or no suite is named, or there is none of that name.
        ModelError: the file is damaged, lacks a tensor, or holds the rows of another probe set or in another order.

    Source: docs/api.md, "Models that do not run here".
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such file; expected a states file, as docs/api.md describes it")
    try:
        header = read_tensor_header(file)
        metadata = read_safetensors_metadata(file)
    except SubmissionError as error:
        raise ModelError(f"{file}: {error}; expected a states file as docs/api.md describes it") from error
    name = suite or metadata.get("suite", "")
    if not name:
        raise InputError(f"{file}: its metadata name no suite; give the suite of its prompts")
    probes = blind_probe_set(
        name, programs or _number(file, metadata, "programs"), seed if seed is not None else _number(file, metadata, "seed"),
        protocol=protocol,
    )  # fmt: skip
    _check_rows(file, header, metadata, probes)
    if STATES not in header:
        raise ModelError(
            f"{file}: no tensor {STATES!r} among {_listed(header)}; expected the states [R, L, D] or [R, D]"
        )
    return StatesFile(probes, _read_floats(file, STATES, header[STATES]), _read_controls(file, header))


def _read_controls(file: Path, header: Mapping[str, Any]) -> dict[str, Control]:
    """The controls in a file, by name."""
    parts: dict[str, dict[int, dict[str, np.ndarray]]] = {}
    for tensor in header:
        if tensor in (STATES, ROWS):
            continue
        match = CONTROL_TENSOR.fullmatch(tensor)
        if match is None:
            raise ModelError(
                f"{file}: tensor {shown(tensor)!r}; expected {STATES}, {ROWS}, and control.NAME, control.NAME.0, .1, ..."
            )
        name, copy, view = match.groups()
        views = parts.setdefault(name, {}).setdefault(-1 if copy is None else int(copy), {})
        views[view or ""] = _read_floats(file, tensor, header[tensor])
    controls: dict[str, Control] = {}
    for name, copies in parts.items():
        if sorted(copies) not in ([-1], list(range(len(copies)))) or any(
            set(views) not in ({""}, set(POOLS)) for views in copies.values()
        ):
            raise ModelError(
                f"{file}: tensors of control {shown(name)!r}; expected one, or copies .0, .1, ... without a gap"
            )
        states = [v[""] if "" in v else PooledStates(v[MEAN], v[LAST]) for _, v in sorted(copies.items())]
        controls[name] = states[0] if -1 in copies else states
    return controls


def _check_rows(file: Path, header: Mapping[str, Any], metadata: Mapping[str, str], probes: BlindProbeSet) -> None:
    """Check that the file holds every row of the probe set in order."""
    if metadata.get("set") != probes.digest:
        received = f"set {shown(metadata['set'], 12)}..." if "set" in metadata else "no set"
        raise ModelError(
            f"{file}: its metadata name {received}, the probe set of {probes.suite.name} is {probes.digest[:12]}...; copy "
            "`set` of the prompts file, and write the prompts again if the suite, programs or seed differ"
        )
    if ROWS not in header or header[ROWS]["dtype"] not in INTEGERS:
        raise ModelError(
            f"{file}: no integer tensor {ROWS!r} among {_listed(header)}; expected the row index of each state"
        )
    rows = _read_tensor(file, header[ROWS], INTEGERS[header[ROWS]["dtype"]]).reshape(-1)
    if len(rows) != probes.num_rows:
        raise ModelError(f"{file}: {len(rows)} rows; expected {probes.num_rows}, one per action word of the prompts")
    wrong = np.flatnonzero(rows != np.arange(len(rows)))
    if len(wrong):
        raise ModelError(
            f"{file}: {len(wrong)} of {len(rows)} rows out of order, first state {int(wrong[0])} is of row "
            f"{int(rows[wrong[0]])}; sort the states by row"
        )


def _number(file: Path, metadata: Mapping[str, str], name: str) -> int | None:
    text = metadata.get(name)
    if text is None:
        return None
    if not re.fullmatch("[0-9]{1,18}", text):
        raise ModelError(f"{file}: {name} {shown(text)!r} in its metadata; expected a whole number")
    return int(text)


def _listed(header: Mapping[str, Any]) -> str:
    return ", ".join(shown(name) for name in list(header)[:5]) or "no tensors"


def _read_floats(file: Path, name: str, entry: Mapping[str, Any]) -> np.ndarray:
    """float32, the values of a tensor of real numbers."""
    if entry["dtype"] not in FLOATS:
        raise ModelError(f"{file}: {shown(name)} has dtype {entry['dtype']}; expected one of {', '.join(FLOATS)}")
    values = _read_tensor(file, entry, FLOATS[entry["dtype"]])
    if entry["dtype"] == "BF16":
        return (values.astype("<u4") << 16).view("<f4")
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _read_tensor(file: Path, entry: Mapping[str, Any], dtype: str) -> np.ndarray:
    with file.open("rb") as stream:
        stream.seek(8 + int.from_bytes(stream.read(8), "little") + entry["data_offsets"][0])
        count = math.prod(entry["shape"])
        return np.fromfile(stream, np.dtype(dtype), count).reshape(entry["shape"])
