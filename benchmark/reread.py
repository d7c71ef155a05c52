"""`python -m benchmark.reread FOLDER [--model SPEC]`: the readings of a finished run that has none, from its model.

The blind set is read again and the probes of the first seed are fitted again, a small part of what the run computed.
They must give the cross-entropies that the run stored.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmark.bounded import run_bounded
from benchmark.checkpoint import available_memory, open_checkpoint
from benchmark.command import run_command
from benchmark.errors import UsageError, VerificationError
from benchmark.evaluation import BLIND, Job, Worker, shards_of
from benchmark.folder import read_probes
from benchmark.labels import with_original
from benchmark.measurement import EXTRAS, blind_probe_set
from benchmark.models import ModelSpec
from benchmark.protocol import POOLS
from benchmark.readings import Readings, packed_readings, readings_of
from benchmark.record import read_record
from benchmark.record_check import loading_of_record
from benchmark.rerun import MEMORY_SHARE
from benchmark.screening import screen_model_folder
from benchmark.semantic_content import Tested
from benchmark.shards import write_durably
from benchmark.sources import read_source
from benchmark.submission import READINGS
from benchmark.suites import load_suite
from karel_env.command import CommandParser
from karel_env.features import FEATURES, PRIMARY

SECONDS = 4 * 3600.0
"""Deadline of the process that loads the model."""
TOLERANCE = 0.02
"""Relative, of the seed's summed cross-entropies of the primary feature: another kind of processor rounds otherwise."""


def reread(folder: Path, model: str = "") -> Readings:
    """The readings of the run in a folder.

    Args:
        folder: of the run.
        model: its spec, as `ModelSpec` reads it; that of the record unless given.

    Raises:
        UsageError: no probed run lies there.
        SubmissionError: its model would be loaded with code of its own.
        VerificationError: the model is not the record's, or its probes do not give what the run stored.
    """
    if not (folder / "record.json").is_file():
        raise UsageError(f"{folder}: no record.json there; give the folder of a finished run or a submission")
    record = read_record(folder / "record.json")
    if record.meaning is None:
        raise UsageError(f"{folder}: {record.model.name} has no hidden states; nothing can be read")
    loading, spec = loading_of_record(record), ModelSpec.parse(model or record.model.spec)
    checkpoint = open_checkpoint(spec, loading)
    screen_model_folder(checkpoint.folder, is_hub=spec.scheme == "hf")
    if checkpoint.digest != record.model.digest:
        raise VerificationError(f"{spec}: digest {checkpoint.digest}; the record's is {record.model.digest}")
    suite, protocol = (
        load_suite(record.suite.name, record.suite.seed),
        replace(record.protocol, seeds=record.protocol.seeds[:1]),
    )
    worker = Worker(Job(suite, checkpoint, record.model.dtype, record.model.device, 0))
    parts = [worker.evaluate(shard).states for shard in shards_of(suite, BLIND)]
    views = [np.concatenate([part[f"read.{view}"] for part in parts]) for view in POOLS]
    probe_set = blind_probe_set(suite, protocol)
    tested = Tested.of(probe_set, protocol)
    model_source = read_source(probe_set, tested, [views], protocol)
    stored, found = read_probes(folder)["model.totals"][0], model_source.evidence.totals[0]
    worst = float(np.abs(found / stored - 1)[:, FEATURES.index(PRIMARY)].max())
    if worst > TOLERANCE:
        raise VerificationError(
            f"{folder}: the probes' cross-entropies differ from the stored ones by up to {worst:.1%}; run the model again"
        )
    return readings_of(
        probe_set, tested, model_source.fits, POOLS, [s.name for s in with_original(protocol, EXTRAS)], protocol
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = CommandParser(prog="python -m benchmark.reread", description="Store what the probes of a run read.")
    parser.add_argument("folder", type=Path, help="of a finished run, or a submission")
    parser.add_argument(
        "--model", default="", metavar="SPEC", help="its model, where it lies elsewhere than the run says"
    )

    def carry_out() -> int:
        options = parser.parse_args(arguments)
        folder = options.folder
        memory = int(MEMORY_SHARE * available_memory())
        readings = run_bounded(reread, folder, options.model, seconds=SECONDS, memory=memory, subject=str(folder))
        write_durably(folder / READINGS, packed_readings(readings))
        print(f"wrote {folder / READINGS}")
        return 0

    return run_command(carry_out)


if __name__ == "__main__":
    sys.exit(main())
