"""Lines of `karel_env.run` that no generator writes: each is one line of error that names the line, with exit code 2."""

from __future__ import annotations

import io
import json
import sys

import pytest
from test_command import TASK, WORLD

from karel_env.run import Options, TaskError, main, results
from karel_env.world import MAX_SIDE

GOOD = json.dumps(TASK)


def given(text: bytes, monkeypatch, capsys, *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command for this input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text), encoding="utf-8"))
    code = main(list(words))
    return code, *capsys.readouterr()


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        nested(100_000).encode(),
        b'{"a":' * 100_000,
        json.dumps(TASK)[:-1].encode() + b', "more": ' + nested(50_000).encode() + b"}",
        GOOD.replace("7", nested(100_000), 1).encode(),
        GOOD.replace("7", nested(800), 1).encode(),
        GOOD.replace("7", "1" * 5000, 1).encode(),
        GOOD.replace("7", "NaN", 1).encode(),
        GOOD.replace("7", "1e999", 1).encode(),
        GOOD.replace("7", "-Infinity", 1).encode(),
        GOOD.replace("7", "[7]", 1).encode(),
        GOOD.replace('"y": 1', '"y": ' + "1" * 5000).encode(),
        GOOD.replace('"y": 1', '"y": true').encode(),
        GOOD.replace('"y": 1', '"y": 1.0').encode(),
        GOOD.replace('"y": 1', '"y": -1').encode(),
        GOOD.replace('"y": 1', '"y": ' + nested(500)).encode(),
        json.dumps({**TASK, "program": ["x"] * 100_000}).encode(),
        json.dumps({**TASK, "world": {**WORLD, "h": 10**9}}).encode(),
        json.dumps({**TASK, "world": {**WORLD, "w": MAX_SIDE + 1}}).encode(),
        json.dumps({**TASK, "world": {**WORLD, "markers": [["x" * 100_000]]}}).encode(),
        json.dumps({**TASK, "world": {**WORLD, "markers": [[1, 1, True]]}}).encode(),
        json.dumps({**TASK, "world": {**WORLD, "markers": {"1": 1}}}).encode(),
        json.dumps({**TASK, "world": {**WORLD, "walls": "#####"}}).encode(),
        json.dumps({**TASK, "world": {**WORLD, "walls": ["#####", "#\u2588..#", "#.#.#", "#####"]}}).encode(),
        b'{"id": 1, "program": "\xff\xfe"}',
        b"\x00\x01",
        b"\xef\xbb\xbf",
        b"null",
        b"1" * 5000,
    ],
    ids=range(29),
)
def test_a_line_that_is_no_task_is_one_line_of_error(line, monkeypatch, capsys):
    code, out, error = given(GOOD.encode() + b"\n" + line + b"\n" + GOOD.encode(), monkeypatch, capsys)
    assert code == 2
    assert [json.loads(text)["id"] for text in out.splitlines()] == [7], "what came before is written"
    assert error.startswith("error: line 2: ")
    assert error.count("\n") == 1
    assert len(error) < 300


@pytest.mark.parametrize("name", ["a", 7, 0.5, None, True, "\ud800", "\u2028", "1" * 4000, 10**300])
def test_names_are_given_back(name, monkeypatch, capsys):
    code, out, error = given(json.dumps({**TASK, "id": name}).encode(), monkeypatch, capsys)
    assert (code, error) == (0, "")
    assert json.loads(out)["id"] == name
    assert out.count("\n") == 1


def test_text_and_bytes_are_read_alike():
    lines = [GOOD, "", " \t", GOOD.replace("7", '"\u00fc"', 1)]
    assert list(results(lines, Options())) == list(results([line.encode() for line in lines], Options()))
    with pytest.raises(TaskError, match="line 3"):
        list(results([GOOD.encode(), b"\r\n", GOOD.encode("utf-16") + b"\xff"], Options()))


@pytest.mark.parametrize("number", ["30001", "99999999999999999999", "1" * 5000, "nan", "1e3"])
def test_a_cap_that_no_cell_can_reach_is_a_usage_error(number, capsys):
    assert main(["--max-markers", number]) == 2
    assert "--max-markers" in capsys.readouterr().err


def test_programs_nested_too_deeply_are_a_result(monkeypatch, capsys):
    for source in ("def run() {" + "repeat (1) {" * 50_000, "DEF run m( " + "REPEAT R=1 r( " * 50_000, "{" * 100_000):
        code, out, error = given(json.dumps({**TASK, "program": source}).encode(), monkeypatch, capsys)
        assert (code, error) == (0, "")
        assert json.loads(out)["status"] == "syntax"
