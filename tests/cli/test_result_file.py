"""A result file is found again by its settings, and never overwritten by a result of other ones."""

import json
from dataclasses import replace

import pytest

from benchmark.cli.result_file import choose_result_file
from benchmark.errors import StorageError
from benchmark.installation.imported_source import imported_source_digest
from benchmark.tasks.suite import load_suite

LAPTOP = load_suite("laptop")
SETTINGS = {"digest": "ab", "shots": 4, "layers": (1, 2), "none": None}


def choose(name, folder, settings=SETTINGS, command="benchmark.ladder.command", suite=LAPTOP):
    return choose_result_file(folder, name, command, suite, **settings)


def test_the_same_settings_find_their_file_and_others_get_one_of_their_own(tmp_path):
    file = choose("model.v2-laptop", tmp_path)
    assert file.path == tmp_path / "model.v2-laptop.json"
    assert file.read() == {}
    file.write({"accuracy": 0.5, "digest": "a figure may be called as a setting is"})
    other = choose("model.v2-laptop", tmp_path, SETTINGS | {"shots": 0})
    assert other.path == tmp_path / "model.v2-laptop-2.json"
    assert other.beside(".png") == tmp_path / "model.v2-laptop-2.png"
    other.write({"accuracy": 0.25}, indent=None)
    assert choose("model.v2-laptop", tmp_path, SETTINGS | {"more": 1}).path.name == "model.v2-laptop-3.json"
    for settings, accuracy in ((SETTINGS, 0.5), (SETTINGS | {"shots": 0}, 0.25)):
        again = choose("model.v2-laptop", tmp_path, dict(reversed(settings.items())))
        assert again.read()["accuracy"] == accuracy
        assert again.read()["settings"]["layers"] == [1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {"model.v2-laptop.json", "model.v2-laptop-2.json"}


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 10_000, '{"accuracy": 1}', "\udc80"])
def test_a_file_of_something_else_is_kept(content, tmp_path):
    earlier = tmp_path / "model.json"
    earlier.write_text(content, errors="surrogateescape")
    choose("model", tmp_path).write({})
    assert earlier.read_text(errors="surrogateescape") == content
    content = json.loads((tmp_path / "model-2.json").read_text())
    source = imported_source_digest("benchmark.ladder.command")
    assert content == {"settings": SETTINGS | {"layers": [1, 2], "suite": "laptop", "source": source}}


def test_a_file_of_other_code_is_not_continued(tmp_path):
    choose("model", tmp_path).write({"accuracy": 0.5})
    assert choose("model", tmp_path, command="benchmark.layers.command").read() == {}
    assert choose("model", tmp_path).read()["accuracy"] == 0.5


def test_a_folder_that_is_gone_is_a_storage_error(tmp_path):
    file = choose("model", tmp_path / "gone")
    with pytest.raises(StorageError, match="cannot be written to"):
        file.write({})
    with pytest.raises(StorageError, match="cannot be written to"):
        file.write_beside(".data", b"")


def test_suites_of_one_name_are_told_apart(tmp_path):
    drawn = load_suite("laptop", seed=7)
    for number, suite in enumerate((LAPTOP, drawn, replace(drawn, seed=8))):
        file = choose("model", tmp_path, suite=suite)
        assert file.read() == {}
        assert file.settings["suite"] == "laptop"
        file.write({"number": number})
    assert choose("model", tmp_path, suite=drawn).read()["number"] == 1
