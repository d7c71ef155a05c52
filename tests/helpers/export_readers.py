"""Read exported files with the readers of the tools that they are for, and print what they read as JSON.

Run by the Python of an environment of its own, which `tests/submit/set_up_readers` makes:

    READERS/bin/python tests/helpers/export_readers.py FOLDER

FOLDER holds `lm-eval/`, `inspect/` and `every-eval-ever/`, as `karel-bench export` writes them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

NAMES = ("shown", "held_out", "exact", "valid")


def read_lm_eval(folder: Path) -> dict[str, Any]:
    from lm_eval import result_schema, utils

    names = [str(path) for path in folder.iterdir()]
    (results_file,) = utils.get_results_filenames(names)
    (samples_file,) = utils.get_sample_results_filenames(names)
    results = json.loads(Path(results_file).read_text())
    table = utils.make_table(results)
    rows = [json.loads(line) for line in Path(samples_file).read_text().splitlines()]
    known = set(result_schema.EvalResults.__annotations__)
    required = set(result_schema.SampleResult.__annotations__)
    (task,) = results["results"]
    return {
        "version": version("lm-eval"),
        "figures": {name: results["results"][task][f"{name},none"] for name in NAMES},
        "means": {name: sum(row[name] for row in rows) / len(rows) for name in NAMES},
        "table_lines": len([line for line in table.splitlines() if "|↑" in line]),
        "task": utils.get_file_task_name(Path(samples_file).name),
        "unknown": sorted(set(results) - known),
        "lacking": sorted(required - set(rows[0])),
    }


def read_inspect(folder: Path) -> dict[str, Any]:
    from inspect_ai.log import read_eval_log

    (path,) = folder.iterdir()
    log = read_eval_log(str(path))
    assert log.results is not None
    assert log.samples is not None
    means = {name: sum(sample.scores[name].value == "C" for sample in log.samples) / len(log.samples) for name in NAMES}
    return {
        "version": version("inspect-ai"),
        "status": log.status,
        "figures": {score.name: score.metrics["accuracy"].value for score in log.results.scores},
        "means": means,
        "first": [log.samples[0].input, log.samples[0].target, log.samples[0].output.completion],
    }


def every_eval_ever(*words: str, folder: Path) -> str:
    """Run its command in a folder; returns what it prints, with its exit code in front."""
    process = subprocess.run(
        [sys.executable, "-m", "every_eval_ever", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    return f"{process.returncode}: {process.stdout}{process.stderr}"


def validate(folder: Path) -> list[str]:
    """What its validation says of every file of a data store, aggregates and samples."""
    paths = sorted(path.relative_to(folder).as_posix() for path in (folder / "data").rglob("*.json*"))
    return [every_eval_ever("validate", path, folder=folder) for path in paths]


def convert(source: str, folder: Path, output: Path) -> list[str]:
    """Have it convert the export for another tool, which reads that, and validate the outcome."""
    organisation = ["--source_organization_name", "test", "--evaluator_relationship", "first_party"]
    library = ["--eval_library_name", source, "--eval_library_version", "0"] if source == "lm_eval" else []
    said = every_eval_ever(
        "convert", source, "--log_path", str(folder), "--output_dir", str(output / "data"), *organisation, *library,
        folder=folder,
    )  # fmt: skip
    return [said, *validate(output)] if said.startswith("0:") else [said]


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    print(
        json.dumps(
            {
                "lm-eval": read_lm_eval(folder / "lm-eval"),
                "inspect": read_inspect(folder / "inspect"),
                "every-eval-ever": {
                    "version": version("every-eval-ever"),
                    "validated": validate(folder / "every-eval-ever"),
                    "from lm-eval": convert("lm_eval", folder / "lm-eval", folder / "converted-lm-eval"),
                    "from inspect": convert("inspect", folder / "inspect", folder / "converted-inspect"),
                },
            }
        )
    )


if __name__ == "__main__":
    main()
