"""What is timed does the same work, and what is counted is what is there."""

from __future__ import annotations

import pytest

from benchmark.bench import command as bench_command
from benchmark.bench import generation as generation_bench
from benchmark.bench.generation import GenerationBench, _TimedProcessor, grammar_row, speed_rows, state_bytes
from benchmark.errors import UsageError


def options(folder, **given):
    known = {"model": f"path:{folder}", "suite": "smoke", "track": "trained", "prompts": 3, "dtype": "float32"}
    return bench_command.GenerationBenchOptions(**(known | given))


def test_each_way_writes_the_same(tiny_folder):
    batch = GenerationBench(options(tiny_folder))
    written = [one.text for one in batch.generate()]
    plain = batch.plain()[:, batch.ids.shape[1] :]
    assert [batch.ours._to_generation(row).text for row in plain.tolist()] == written


def test_states_are_counted(tiny_folder, monkeypatch):
    monkeypatch.setattr(generation_bench, "NUM_ROUNDS", 1)
    batch = GenerationBench(options(tiny_folder))
    output = batch.plain(output_hidden_states=True, return_dict_in_generate=True)
    layers, width, steps = 3, 32, len(output.hidden_states)
    assert state_bytes(output) == 3 * layers * width * (batch.ids.shape[1] + steps - 1) * 4
    rows = {row["way"]: row for row in speed_rows(batch)}
    assert rows["transformers"]["of plain"] == rows["transformers, all states"]["of all states"] == 1
    assert rows["ours"]["states, MB"] is None
    assert 0 < rows["ours, states of words"]["states, MB"] < rows["transformers, all states"]["states, MB"] / 2


def test_the_grammar_is_timed_within_a_generation(tiny_folder):
    batch = GenerationBench(options(tiny_folder))
    row = grammar_row(batch)
    assert 0 < row["in the grammar"] < row["constrained, seconds"]
    assert row["share"] == pytest.approx(row["in the grammar"] / row["constrained, seconds"])
    assert not any(
        isinstance(one, _TimedProcessor) for one in batch.ours._processors(generation_bench.Decoding(), 1, 1)
    )


def test_what_has_no_states_is_refused(tiny_folder):
    with pytest.raises(UsageError, match="expected a model of transformers"):
        GenerationBench(options(tiny_folder, model="baseline:random"))


def test_the_command(tiny_folder, capsys, monkeypatch):
    monkeypatch.setattr(generation_bench, "NUM_ROUNDS", 1)
    words = ["--model", f"path:{tiny_folder}", "--suite", "smoke", "--prompts", "2"]
    assert bench_command.main(["generation", *words]) == 0
    assert "| ours, states of words " in capsys.readouterr().out


@pytest.mark.benchmark(group="generation")
@pytest.mark.parametrize("way", ["plain", "generate", "generate_and_read"])
def test_speed(tiny_folder, benchmark, way):
    benchmark(getattr(GenerationBench(options(tiny_folder)), way))
