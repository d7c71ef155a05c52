"""The command-line twin: prompts as JSON lines, the verdict on a states file, one line for every file that cannot be."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from quick_protocol import QUICK, SMALL_SUITE
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

import benchmark as kb
from benchmark.api import states_file
from benchmark.exchange import measure as measure_command
from benchmark.exchange import prompts as prompts_command


@pytest.fixture(autouse=True)
def quick_measurement(monkeypatch):
    """The commands measure with the small protocol of the tests."""
    monkeypatch.setitem(states_file.read_states.__kwdefaults__, "protocol", QUICK)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "new" / "prompts.jsonl"
    assert prompts_command.main(["--suite", SMALL_SUITE, "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def engine(prompts):
    """States that an engine which knows the prompts file only has read: byte sums of the text up to each word."""
    lines = [json.loads(line) for line in prompts.read_text().splitlines()]
    rows = np.array([row for line in lines for row in line["rows"]])
    states = np.array(
        [
            [[len(line["text"][:stop]), sum(map(ord, line["text"][start:stop]))], [start, stop]]
            for line in lines
            for start, stop in line["spans"]
        ],
        np.float32,
    )
    return {"states": states, "rows": rows}, {"set": lines[0]["set"], "suite": SMALL_SUITE}


def run(capsys, *words) -> tuple[int, str, str]:
    code = measure_command.main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_prompts_file_holds_what_an_engine_needs(prompts):
    lines = [json.loads(line) for line in prompts.read_text().splitlines()]
    probes = kb.blind_probe_set(SMALL_SUITE)
    assert [line["id"] for line in lines] == list(range(len(probes)))
    assert {line["set"] for line in lines} == {probes.digest}
    assert [row for line in lines for row in line["rows"]] == list(range(probes.num_rows))
    for line in lines:
        assert line["text"] == f"{line['prompt']} {line['program']}"
        assert line["words"] == [line["text"][start:stop] for start, stop in line["spans"]]
        assert line["words"] == [word for word in line["program"].split(" ") if word.endswith("();")]


def test_a_states_file_gives_the_verdict(engine, tmp_path, capsys):
    tensors, metadata = engine
    path = tmp_path / "states.safetensors"
    noise = np.random.default_rng(0).normal(size=(2, len(tensors["rows"]), 4)).astype(np.float32)
    controls = {"control.random-init.0": noise[0], "control.random-init.1": noise[1]}
    save_file(tensors | controls, path, metadata)
    code, out, err = run(capsys, "--states", path, "--json")
    assert code == 0
    assert "note:" not in err
    printed = json.loads(out)
    probes = kb.blind_probe_set(SMALL_SUITE, protocol=QUICK)
    result = kb.measure(
        probes, tensors["states"], {"random-init": [noise[0], noise[1]], "recorder": kb.token_history_control(probes)}
    )
    assert printed["verdict"] == result.verdict
    assert printed["features"] == json.loads(json.dumps(result.rows()))
    assert printed["missing_controls"] == []


def test_without_untrained_copies_it_says_so(engine, tmp_path, capsys):
    tensors, metadata = engine
    save_torch(
        {"states": torch.from_numpy(tensors["states"]).bfloat16(), "rows": torch.from_numpy(tensors["rows"]).int()},
        tmp_path / "states.safetensors",
        metadata,
    )
    code, out, err = run(capsys, "--states", tmp_path / "states.safetensors", "--feature", "facing")
    assert code == 0
    assert out.split()[0] in ("RECORD-ONLY", "INCONCLUSIVE")
    assert "obstacle" not in out
    assert "without the control random-init" in err
    read = kb.read_states(tmp_path / "states.safetensors")
    expected = torch.from_numpy(tensors["states"]).bfloat16().float().numpy()
    np.testing.assert_array_equal(read.hidden, expected)


SWAPPED = np.array([1, 0])


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (lambda t, m: t.update(rows=t["rows"][::-1].copy()), 3, "rows out of order, first state 0 is of row 223"),
        (lambda t, m: t["rows"].__setitem__(slice(5, 7), t["rows"][5:7][SWAPPED]), 3, "first state 5 is of row 6"),
        (lambda t, m: t.update(rows=t["rows"][:-1]), 3, "223 rows; expected 224"),
        (lambda t, m: t.update(rows=t["rows"].astype(np.float32)), 3, "no integer tensor 'rows'"),
        (lambda t, m: t.pop("rows"), 3, "no integer tensor 'rows'"),
        (lambda t, m: t.pop("states"), 3, "no tensor 'states'"),
        (lambda t, m: t.update(states=t["states"][:-1]), 3, "hidden: 223 rows; expected 224"),
        (lambda t, m: t.update(states=t["states"][:, 0, 0].copy()), 3, "expected [R, L, D] or [R, D]"),
        (lambda t, m: t["states"].__setitem__((3, 0, 0), np.nan), 3, "NaN or infinity in 1 of 224 rows, first in row 3"),
        (lambda t, m: t["states"].__setitem__(4, 0), 3, "1 of 224 rows are all 0, first row 4"),
        (lambda t, m: t.update(states=np.zeros_like(t["states"])), 3, "every value is 0"),
        (lambda t, m: t.update(states=t["states"].astype(np.int64)), 3, "dtype I64; expected one of F16"),
        (lambda t, m: t.update({"control.own.1": t["states"]}), 3, "without a gap"),
        (lambda t, m: t.update({"control.own": t["states"], "control.own.0": t["states"].copy()}), 3, "without a gap"),
        (lambda t, m: t.update(other=t["states"].copy()), 3, "tensor other; expected states, rows"),
        (lambda t, m: t.update({"control.own": t["states"][:3].copy()}), 3, "controls own: 3 rows"),
        (lambda t, m: m.update(set="0" * 64), 3, "write the prompts again"),
        (lambda t, m: m.pop("set"), 3, "name no set"),
        (lambda t, m: m.update(seed="8"), 3, "write the prompts again"),
        (lambda t, m: m.update(programs="many"), 3, "expected a whole number"),
        (lambda t, m: m.pop("suite"), 2, "name no suite"),
        (lambda t, m: m.update(suite="laptops"), 2, "no such suite"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_measured_are_one_line(change, code, says, engine, tmp_path, capsys):
    tensors, metadata = {name: array.copy() for name, array in engine[0].items()}, dict(engine[1])
    change(tensors, metadata)
    path = tmp_path / "states.safetensors"
    save_file(tensors, path, metadata)
    result = run(capsys, "--states", path)
    assert result[0] == code
    assert result[2].replace("'", "").count(says.replace("'", "")) == 1, result[2]
    assert [line for line in result[2].splitlines() if line.startswith("error: ")]
    assert not result[1]


def test_files_that_are_none_are_one_line(tmp_path, capsys):
    assert run(capsys, "--states", tmp_path / "no.safetensors")[0] == 2
    (tmp_path / "text.safetensors").write_text("this is no such file at all")
    code, _, err = run(capsys, "--states", tmp_path / "text.safetensors")
    assert code == 3
    assert err.count("\n") == 1
    assert run(capsys, "--states", tmp_path)[0] == 2
    assert run(capsys)[0] == 2


def test_an_unknown_feature_is_a_usage_error(engine, tmp_path, capsys):
    save_file(engine[0], tmp_path / "states.safetensors", engine[1])
    code, _, err = run(capsys, "--states", tmp_path / "states.safetensors", "--feature", "facings")
    assert code == 2
    assert "did you mean facing" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--suite", "laptops", "--out", "{out}/p.jsonl"], "no such suite"),
        (["--suite", "smoke", "--out", "{out}"], "is a folder"),
        (["--suite", "smoke", "--out", "{out}/file/p.jsonl"], "is a file"),
        (["--suite", "smoke", "--out", "{out}/p.jsonl", "--programs", "3"], "number of folds"),
        (["--suite", "smoke"], "--out"),
        (["--sweet"], "--help"),
    ],
)
def test_prompts_that_cannot_be_written_are_one_line(words, says, tmp_path, capsys):
    (tmp_path / "file").write_text("text")
    assert prompts_command.main([word.format(out=tmp_path) for word in words]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert not (tmp_path / "p.jsonl").exists()


def test_states_are_read_back_as_they_were_written(tiny_folder, tmp_path):
    probes = kb.blind_probe_set("smoke", 10, seed=3, protocol=QUICK)
    model = kb.load_model(tiny_folder)
    hidden, controls = kb.hidden_states(model, probes), kb.standard_controls(model, probes)
    path = kb.write_states(tmp_path / "states.safetensors", probes, torch.from_numpy(hidden), controls)
    read = kb.read_states(path)
    assert read.probes.digest == probes.digest
    np.testing.assert_array_equal(read.hidden, hidden)
    assert set(read.controls) == set(controls)
    assert kb.measure(probes, read.hidden, read.controls).rows() == kb.measure(probes, hidden, controls).rows()
    assert load_file(path)["rows"].tolist() == list(range(probes.num_rows))
    with pytest.raises(kb.InputError, match=f"expected {probes.num_rows}"):
        kb.write_states(path, probes, hidden[:-1])
