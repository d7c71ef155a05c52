"""Compare the weights, samples and evidence of two submissions, independent of file layout.

Weights are compared tensor by tensor, ignoring metadata, order, sharding and tensor names; samples as a set of (task, text)
pairs; evidence by the arrays of the model. Near copies are detected too: weights that were cast or perturbed slightly, a few
edited samples, scaled evidence.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.artifacts import MAX_BYTES, PROBES, SAMPLES
from benchmark.errors import BenchmarkError
from benchmark.files import open_regular, read_rows, read_tensor_header
from benchmark.submit.artifacts.listing import listed_artifacts
from benchmark.submit.artifacts.sources import find_file
from benchmark.submit.screening import WEIGHT_FILE

NEAR_WEIGHTS = 0.01
"""Largest relative distance of weights that count as a copy: a cast to bfloat16 gives 0.002, further training 0.1."""
NEAR_SAMPLES = 0.98
"""Smallest fraction of equal texts that counts as a copy; models trained with the same recipe reach up to 0.90."""
NEAR_EVIDENCE = 0.002
"""Largest relative distance of arrays that count as a copy, after optimal scaling; models trained with the same recipe have 0.016."""
EQUAL, NEAR = "the same", "nearly the same"
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}

SampleKey = tuple[str, int, int | None]


@dataclass(frozen=True)
class Fingerprint:
    """Fingerprint of a submission. Each part is read on first access, and is empty if the file is missing or invalid, or an
    artifact that is not at hand.

    Attributes:
        folder: folder of the submission.
    """

    folder: Path

    @cached_property
    def tensors(self) -> list[tuple[str, str, tuple[int, ...], bytes]]:
        """(name, dtype, shape, bytes) of every weight tensor, sorted by name."""
        return sorted(
            tensor
            for name in sorted({path.name for path in self.folder.glob("*.safetensors")} | listed_names(self.folder))
            if WEIGHT_FILE.fullmatch(name)
            for tensor in _read_tensors(find_file(self.folder, name))
        )

    @cached_property
    def tensor_digests(self) -> Counter[tuple[str, tuple[int, ...], bytes]]:
        """Number of weight tensors per (dtype, shape, SHA-256), ignoring names."""
        return Counter((item, shape, hashlib.sha256(data).digest()) for _, item, shape, data in self.tensors)

    @cached_property
    def weight_values(self) -> np.ndarray:
        """All weights, float32 [number of weights], concatenated in the order of tensor names."""
        values = [_to_float32(item, data) for _, item, _, data in self.tensors]
        return np.concatenate(values) if values else np.zeros(0, np.float32)

    @cached_property
    def texts(self) -> dict[SampleKey, str]:
        """Text per sample, by (stage, task, sample index)."""
        try:
            rows = read_rows(find_file(self.folder, SAMPLES), MAX_BYTES[SAMPLES])
        except BenchmarkError:
            return {}
        return {(str(row.get("stage")), row.get("task", -1), row.get("sample")): str(row.get("text")) for row in rows}

    @cached_property
    def evidence(self) -> dict[str, np.ndarray]:
        """Float arrays of the model in `probes.data`; those of the controls are similar across models."""
        if not (path := find_file(self.folder, PROBES)).is_file():
            return {}
        return {
            name: _to_float32(item, data)
            for name, item, _, data in _read_tensors(path)
            if name.startswith("model.") and item in FLOATS
        }


def listed_names(folder: Path) -> set[str]:
    """Names of the artifacts that a folder lists; empty if the listing is invalid, which verification reports."""
    try:
        return set(listed_artifacts(folder))
    except BenchmarkError:
        return set()


def compare_weights(first: Fingerprint, second: Fingerprint) -> str | None:
    """Compare weights: `EQUAL`, `NEAR`, or None if they differ or one submission has none."""
    if not first.tensors or not second.tensors:
        return None
    if first.tensor_digests == second.tensor_digests:
        return EQUAL
    shapes = [[shape for _, _, shape, _ in fingerprint.tensors] for fingerprint in (first, second)]
    if shapes[0] != shapes[1]:
        return None
    return NEAR if _distance(first.weight_values, second.weight_values) <= NEAR_WEIGHTS else None


def compare_samples(first: Fingerprint, second: Fingerprint) -> str | None:
    """Compare samples: `EQUAL`, `NEAR`, or None if the samples of common tasks differ or there are no common tasks."""
    common = first.texts.keys() & second.texts.keys()
    if not common:
        return None
    if first.texts == second.texts:
        return EQUAL
    share = sum(first.texts[key] == second.texts[key] for key in common) / len(common)
    return NEAR if share >= NEAR_SAMPLES else None


def compare_evidence(first: Fingerprint, second: Fingerprint) -> str | None:
    """Compare evidence: `EQUAL`, `NEAR`, or None if it differs or one submission has none."""
    names = sorted(first.evidence.keys() & second.evidence.keys())
    pairs = [(first.evidence[name], second.evidence[name]) for name in names]
    if not pairs or any(a.shape != b.shape for a, b in pairs):
        return None
    if all(np.array_equal(a, b) for a, b in pairs):
        return EQUAL
    are_near = [_distance(a * _best_scale(a, b), b) <= NEAR_EVIDENCE for a, b in pairs]
    return NEAR if any(are_near) else None


def _best_scale(a: np.ndarray, b: np.ndarray) -> float:
    square = float(np.dot(a, a))
    return float(np.dot(a, b)) / square if square else 1.0


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Compute the relative distance of two vectors; infinite if undefined."""
    scale = float(np.linalg.norm(b))
    return float(np.linalg.norm(a - b)) / scale if scale and np.isfinite(scale) else float("inf")


def _read_tensors(path: Path) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    """Read (name, dtype, shape, bytes) of each tensor of a safetensors file; empty list if the file is invalid."""
    try:
        header: dict[str, Any] = read_tensor_header(path)
        with open_regular(path) as file:
            content = file.read()
    except BenchmarkError:
        return []
    data = content[8 + int.from_bytes(content[:8], "little") :]
    tensors = []
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        tensors.append((name, entry["dtype"], tuple(entry["shape"]), data[start:stop]))
    return tensors


def _to_float32(dtype: str, data: bytes) -> np.ndarray:
    """Convert the bytes of a tensor to float32; other dtypes give one number per byte."""
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        return np.frombuffer(data, FLOATS.get(dtype, "u1")).astype(np.float32)
