"""Commands beside the subcommands' own start: what they load, told by the modules, not by the clock."""

from __future__ import annotations

import importlib
import io
import json
import subprocess
import sys

import pytest
from whole_runs import ROOT

import karel_env.run
from benchmark.cli.declare import build_parser
from benchmark.cli.main import main

NETWORKS = ["torch", "transformers", "ray", "huggingface_hub", "matplotlib", "pandas", "tokenizers"]
COMPILER = ["numba", "llvmlite"]
SCIPY = ["scipy.stats", "scipy.optimize", "scipy.sparse", "jinja2"]
"""Parts of scipy that a comparison needs none of; `scipy.special` it does."""
MOST_MEGABYTES = 150
CODE = """
import contextlib, importlib, io, json, sys
calls, heavy = json.loads(sys.argv[1]), json.loads(sys.argv[2])
results = []
for module, words in calls:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            code = importlib.import_module(module).main(words)
        except SystemExit as problem:
            code = problem.code
    results.append([" ".join([module, *words]), code, sorted(set(heavy) & set(sys.modules)), out.getvalue()])
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({"results": results, "megabytes": peak / 1000}))
"""
SUBCOMMAND = "benchmark.cli.main"
MODULES = [
    "baselines.speed", "baselines.smollm2", "baselines.train", "baselines.tune", "benchmark.calibrate.causal",
    "karel_env.bench",
]  # fmt: skip
SECOND_WORDS = [
    *(["bench", name] for name in ("probing", "generation", "cluster", "training", "interpreter")),
    ["calibrate", "causal"], ["calibrate", "--protocol", "4"], ["calibrate", "--protocol=4", "--draws", "2"],
    *(["submit", name] for name in ("new", "validate", "pack", "verify", "audit", "withdraw")),
]  # fmt: skip
PAIR = ["2026-11-25_gpt-laptop", "2026-11-23_llama-laptop"]


def report(calls: list[tuple[str, list[str]]], heavy: list[str]) -> dict:
    """What one process has loaded after each call, and its peak memory."""
    words = [sys.executable, "-c", CODE, json.dumps(calls), json.dumps(heavy)]
    process = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(process.stdout)


def test_help_and_wrong_options_load_nothing_heavy():
    calls = [(module, [word]) for module in MODULES for word in ("--help", "--no-such-option")]
    calls += [(SUBCOMMAND, [*words, word]) for words in SECOND_WORDS for word in ("--help", "--no-such-option")]
    told = report(calls, [*NETWORKS, *COMPILER, "scipy"])
    assert {command: loaded for command, _, loaded, _ in told["results"] if loaded} == {}
    codes = {command: code for command, code, _, _ in told["results"]}
    assert {command: code for command, code in codes.items() if code != (0 if command.endswith("--help") else 2)} == {}
    assert told["megabytes"] < MOST_MEGABYTES


def test_a_comparison_loads_neither_compiler_nor_statistics():
    told = report([(SUBCOMMAND, ["compare", *PAIR])], [*NETWORKS, *COMPILER, *SCIPY])
    ((_, code, loaded, out),) = told["results"]
    assert (code, loaded) == (0, [])
    assert "delta" in out
    assert told["megabytes"] < MOST_MEGABYTES


def test_the_filter_of_programs_is_a_subcommand(capsys, monkeypatch):
    world = {"h": 3, "w": 4, "walls": ["####", "#..#", "####"], "markers": [], "y": 1, "x": 1, "d": 1}
    lines = [json.dumps({"id": i, "program": "def run() { move(); }", "world": world}) for i in range(2)]
    outs = []
    for command, words in ((main, ["execute", "--trace"]), (karel_env.run.main, ["--trace"])):
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join([*lines, "no task"])))
        assert command(words) == 2
        out, err = capsys.readouterr()
        assert err.startswith("error: line 3: ")
        assert err.count("\n") == 1
        outs.append(out)
    assert outs[0] == outs[1]
    assert len(outs[0].splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["execute", "--mode", "crsh"], "expected noop, crash or turn180 (did you mean crash?)"),
        (["calibrate", "--protocol", "5"], "--protocol 5: expected 3 or 4"),
        (["calibrate", "casual"], "casual: not expected here"),
        (["calibrate", "--protocol", "4", "--draw", "1"], "(did you mean --draws?); see karel-bench calibrate --protocol 4"),
        (["calibrate", "causal", "--seed", "1"], "(did you mean --seeds?); see karel-bench calibrate causal --help"),
        (["bench", "trainings"], "(did you mean training?)"),
        (["bench", "training", "gpt-labtop"], "(did you mean gpt-laptop?)"),
        (["smollm2"], "required: --output-dir"),
    ],
)  # fmt: skip
def test_wrong_words_are_one_line(words, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert says in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "options"),
    [
        ("benchmark.calibrate.rotation_command", "RotationCalibrateOptions"),
        ("benchmark.calibrate.causal", "CausalCalibrateOptions"),
        ("baselines.smollm2", "SmolLM2Options"),
    ],
)
def test_the_output_folder_is_spelled_alike(module, options):
    parser = build_parser(getattr(importlib.import_module(module), options), "command")
    assert parser.old_spellings["--out"] == "--output-dir"
