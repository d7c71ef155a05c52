"""Evaluate a model as the command does, and look at its row and its samples.

    python examples/evaluate_model.py --model submissions/2026-11-23_llama-laptop --limit 20

Without `--limit` this is the whole suite: about ten minutes on two cores.
"""

import argparse
from collections import Counter

import benchmark as kb

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="submissions/2026-11-23_llama-laptop", help="a folder, or hf:org/name")
parser.add_argument("--suite", default="laptop")
parser.add_argument("--limit", type=int, help="number of test tasks (default: all)")
parser.add_argument("--output-dir", default="runs", help="the same command continues the run in this folder")
options = parser.parse_args()

report = kb.evaluate(
    options.model, suite=options.suite, limit=options.limit, output_dir=options.output_dir, progress=True
)
print(report)
print("run folder", report.folder)

outcomes = Counter(row["outcome"] for row in report.sample_rows() if row["stage"] == "test")
print("outcomes of the test tasks:", dict(outcomes))
