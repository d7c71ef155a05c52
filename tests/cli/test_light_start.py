"""Help, wrong options and commands that only read answer without loading a model library or the compiler."""

from __future__ import annotations

import json
import subprocess
import sys

from whole_runs import ROOT

from benchmark.cli.main import SUBCOMMANDS
from benchmark.installation.paths import DEFAULT_MODEL

HEAVY = ["torch", "transformers", "numba", "matplotlib", "ray", "scipy", "huggingface_hub", "pandas"]
MOST_MEGABYTES = 150
SHIPPED = DEFAULT_MODEL.rpartition("/")[2]
CODE = """
import contextlib, io, json, sys
from benchmark.cli.main import SUBCOMMANDS, main

def call(*words):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            return main(list(words))
        except SystemExit as problem:
            return problem.code

def heavy():
    return sorted(set(json.loads(sys.argv[1])) & set(sys.modules))

calls = [["--help"], ["--version"], ["nothing"], *([name, "--help"] for name in SUBCOMMANDS)]
calls += [[name, "--no-such-option"] for name in SUBCOMMANDS]
calls += [["status", sys.argv[2]], ["submit", "validate", sys.argv[3]], ["list", "suites"], ["list", "recipes"]]
calls += [["board"], ["list", "models"], ["run", "--batch-size", "0"], ["compare", "nothing", "here"], ["run", "--model", "./nothing"]]
calls += [["run", "--suite", "nothing"]]
results = [[" ".join(words), call(*words), heavy()] for words in calls]
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({"results": results, "megabytes": peak / 1000}))
"""


def test_what_computes_nothing_loads_nothing_heavy(smoke_run):
    words = [sys.executable, "-c", CODE, json.dumps(HEAVY), str(smoke_run), SHIPPED]
    process = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    report = json.loads(process.stdout)
    codes = {command: code for command, code, _ in report["results"]}
    assert {command: loaded for command, _, loaded in report["results"] if loaded} == {}
    assert all(codes[f"{name} --help"] == 0 and codes[f"{name} --no-such-option"] == 2 for name in SUBCOMMANDS)
    assert (codes["--help"], codes["nothing"], codes["run --batch-size 0"], codes["compare nothing here"]) == (
        0,
        2,
        2,
        2,
    )
    assert (
        codes[f"status {smoke_run}"]
        == codes[f"submit validate {SHIPPED}"]
        == codes["list suites"]
        == codes["board"]
        == 0
    )
    # All of these in one process; each alone takes less.
    print(f"peak {report['megabytes']:.0f} MB")
    assert report["megabytes"] < MOST_MEGABYTES
