"""The files of a run and of a submission: their names, and how large they may be."""

from __future__ import annotations

from pydantic import BeforeValidator

from benchmark.files import MAX_TEXT_BYTES, MAX_YAML_BYTES
from karel_env.command import shown

WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
DESCRIPTION, RECORD, SAMPLES, PROBES, READINGS, FRAME, README, STATUS = (
    "submission.yaml", "record.json", "samples.jsonl.gz", "probes.data", "readings.json.gz", "frame.json", "README.md",
    "status.json",
)  # fmt: skip
REPRESENTS_RECORD, ROTATION_EVIDENCE = "represents.json", "rotation.data"
PREVIEW_RECORD, PREVIEW_EVIDENCE = "preview.json", "preview.data"
REACH_RECORD, REACH_EVIDENCE = "reach.json", "reach.data"
USES_RECORD, CAUSAL_EVIDENCE = "uses.json", "causal.data"
USES_DETAIL_RECORD, DETAIL_EVIDENCE = "uses-detail.json", "causal-detail.data"
FIGURES = "figures"
MODEL_FILES = {
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", INDEX_FILE, "training.json",
}  # fmt: skip
MAX_BYTES = {DESCRIPTION: MAX_YAML_BYTES, README: MAX_TEXT_BYTES, RECORD: 4_000_000, SAMPLES: 8_000_000, PROBES: 4_000_000,
          READINGS: 200_000, REPRESENTS_RECORD: 200_000, ROTATION_EVIDENCE: 2_000_000, USES_RECORD: 200_000, CAUSAL_EVIDENCE: 2_000_000,
          REACH_RECORD: 200_000, REACH_EVIDENCE: 2_000_000, USES_DETAIL_RECORD: 400_000, DETAIL_EVIDENCE: 600_000, FRAME: 200_000,
          STATUS: 64_000, "tokenizer.json": 20_000_000}  # fmt: skip
MAX_OTHER_BYTES, MAX_FOLDER_BYTES, MAX_FILES = 2_000_000, 64_000_000, 100
"""Limits of a file that `MAX_BYTES` does not name, of a folder, and how many files it may have."""


def known_version(newest: int) -> BeforeValidator:
    """Return the pydantic validator of an entry `schema_version`: a whole number from 1 to the newest version read here."""

    def check(version: object) -> object:
        if type(version) is not int or not 1 <= version <= newest:
            expected = f"a whole number from 1 to {newest}" if newest > 1 else "1"
            raise ValueError(
                f"received {shown(version)}; expected {expected}, what this program reads; write the file with this "
                "version of the benchmark, or read it with the one that wrote it"
            )
        return version

    return BeforeValidator(check)
