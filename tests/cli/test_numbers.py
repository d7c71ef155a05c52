"""Numbers on every command line: what is none, or out of range, is one line with the range, exit 2."""

from __future__ import annotations

import argparse
import importlib

import pytest

from benchmark.tasks.suite import load_suite
from karel_env.command import integer, number

NONE = ["", " ", "5 ", "\u00b2", "\uff11", "1_000", "0x10", "nan", "inf", "1e9", "1.5", "-", "9" * 40, "\u0661", "True"]
NO_NUMBERS = [
    "",
    " ",
    " 1",
    "\u00b2",
    "\uff11",
    "nan",
    "inf",
    "Infinity",
    "1e999",
    "1_0",
    "0x1p3",
    "1,5",
    "-",
    "\u0661",
]
MODEL = ["--model", "path:nowhere"]
COUNTS = [
    ("benchmark.run", [], "threads"), ("benchmark.run", [], "batch-size"), ("benchmark.run", [], "limit"),
    ("benchmark.run", [], "cpus-per-worker"), ("benchmark.sweep", MODEL, "limit"), ("benchmark.sweep", MODEL, "threads"),
    ("benchmark.emergence.command", ["nowhere"], "threads"), ("benchmark.calibrate.command", [], "seeds"),
    ("benchmark.calibrate.command", [], "programs"), ("benchmark.calibrate.command", [], "alternatives"),
    ("benchmark.calibrate.legacy_command", MODEL, "programs"), ("benchmark.calibrate.legacy_command", MODEL, "repeats"),
    ("benchmark.reproduction.command", MODEL, "programs"),
    ("benchmark.relative.command", MODEL, "prompts"),
    ("benchmark.relative.command", MODEL, "samples"),
    ("benchmark.bench.command", ["probing"], "programs"), ("benchmark.bench.command", ["probing"], "sample"),
    ("benchmark.bench.command", ["probing"], "width"), ("benchmark.bench.command", ["probing"], "layers"),
    ("benchmark.bench.command", ["cluster"], "shards"), ("benchmark.bench.command", ["generation"], "prompts"),
    ("benchmark.submit.command", ["new", "name", "--run", "nowhere"], "attempts"), ("karel_env.bench", [], "programs"),
    ("karel_env.bench", [], "rounds"), ("baselines.speed", ["nowhere"], "steps"),
    ("baselines.train", ["nowhere", "--out", "nowhere"], "save-every"),
]  # fmt: skip
FROM_ZERO = [
    ("benchmark.run", [], "n-samples"), ("benchmark.run", [], "seed"), ("benchmark.run", [], "workers"),
    ("benchmark.sweep", MODEL, "workers"), ("karel_env.run", [], "max-events"), ("karel_env.run", [], "max-markers"),
    ("baselines.train", ["nowhere", "--out", "nowhere"], "seed"), ("baselines.speed", ["nowhere"], "threads"),
]  # fmt: skip
DECIMALS = [
    ("benchmark.run", [], "temperature"), ("benchmark.run", [], "deadline"), ("benchmark.run", [], "wait"),
    ("benchmark.run", [], "gpus-per-worker"), ("benchmark.emergence.command", ["nowhere"], "deadline"),
    ("benchmark.submit.command", ["verify", "nowhere"], "rerun"),
]  # fmt: skip


def refused(capsys, module: str, words: list[str], option: str, value: str) -> None:
    assert importlib.import_module(module).main([*words, f"--{option}={value}"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert err.isascii()
    assert err.startswith(f"error: --{option} ")
    assert "at most" in err
    assert "at least" in err or "more than" in err


@pytest.mark.parametrize(("module", "words", "option"), COUNTS + FROM_ZERO)
def test_counts_are_whole_numbers_in_a_range(module, words, option, capsys):
    zero = [] if (module, words, option) in FROM_ZERO else ["0"]
    for value in [*NONE, "-1", *zero]:
        refused(capsys, module, words, option, value)


@pytest.mark.parametrize(("module", "words", "option"), DECIMALS)
def test_decimals_are_finite_and_in_a_range(module, words, option, capsys):
    for value in [*NO_NUMBERS, "-1", "1e300"]:
        refused(capsys, module, words, option, value)


@pytest.mark.parametrize("option", ["temperature", "workers", "model", "output-dir"])
def test_two_dashes_are_no_value(option, capsys):
    assert importlib.import_module("benchmark.run").main([f"--{option}=--"]) == 2
    assert f"error: --{option} '--': expected a value" in capsys.readouterr().err


@pytest.mark.parametrize("threads", ["100000", "513"])
def test_more_threads_than_any_machine_has_are_refused(threads, capsys):
    refused(capsys, "benchmark.run", [], "threads", threads)


def test_workers_beyond_what_a_machine_takes_need_a_cluster(capsys, monkeypatch, tmp_path):
    run = importlib.import_module("benchmark.run")
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert run.main(["--workers", "33", "--out", str(tmp_path)]) == 2
    assert "at most 32 on this machine" in capsys.readouterr().err


def test_what_is_a_number_is_taken():
    assert [integer(0, 10)(text) for text in ("0", "+7", "10", "007")] == [0, 7, 10, 7]
    assert [number(0, 10)(text) for text in ("0", "1.5", ".5", "1e1", "2.")] == [0, 1.5, 0.5, 10, 2]
    with pytest.raises(argparse.ArgumentTypeError):
        number(0, 1, above=True)("0")


@pytest.mark.parametrize(
    ("entry", "value"),
    [("seed", "-1"), ("seed", str(2**63)), ("tasks", "0"), ("batch", "-4"), ("max_new_words", "0"), ("wall", ".nan")],
)
def test_numbers_of_a_suite_file_have_a_range(entry, value, tmp_path, capsys):
    import benchmark.tasks.suite

    text = (benchmark.tasks.suite.SUITE_FOLDER / "smoke.yaml").read_text()
    lines = [
        f"{line.split(entry)[0]}{entry}: {value}" if line.strip().startswith(f"{entry}:") else line
        for line in text.splitlines()
    ]
    path = tmp_path / "own.yaml"
    path.write_text("\n".join(lines))
    assert importlib.import_module("benchmark.run").main(["--suite", str(path), "--out", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert entry in message
    assert load_suite("smoke").seed >= 0
