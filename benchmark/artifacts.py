"""The files of a run and of a submission: their names, and how large they may be."""

from __future__ import annotations

from benchmark.files import MAX_TEXT_BYTES, MAX_YAML_BYTES

INDEX, ADAPTER = "model.safetensors.index.json", "adapter_config.json"
DESCRIPTION, RECORD, SAMPLES, PROBES, READINGS, FRAME, README, STATUS = (
    "submission.yaml", "record.json", "samples.jsonl.gz", "probes.data", "readings.json.gz", "frame.json", "README.md",
    "status.json",
)  # fmt: skip


FIGURES = "figures"


MODEL_FILES = {
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", INDEX, "training.json",
}  # fmt: skip


MAX_BYTES = {DESCRIPTION: MAX_YAML_BYTES, README: MAX_TEXT_BYTES, RECORD: 4_000_000, SAMPLES: 8_000_000, PROBES: 4_000_000,
          READINGS: 200_000, FRAME: 200_000, STATUS: 64_000, "tokenizer.json": 20_000_000}  # fmt: skip


MAX_OTHER_BYTES, MAX_FOLDER_BYTES, MAX_FILES = 2_000_000, 64_000_000, 100
"""Limits of a file that `LIMITS` does not name, of a folder, and how many files it may have."""
