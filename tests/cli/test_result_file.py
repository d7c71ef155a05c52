"""A result file is found again by its settings, and never overwritten by a result of other ones."""

import json
from dataclasses import replace

import pytest

from benchmark.cli.result_file import choose_result_file, suite_settings
from benchmark.errors import StorageError
from benchmark.tasks.suite import load_suite

SETTINGS = {"digest": "ab", "shots": 4, "layers": (1, 2), "none": None}


def test_the_same_settings_find_their_file_and_others_get_one_of_their_own(tmp_path):
    file = choose_result_file(tmp_path, "model.v2-laptop", SETTINGS)
    assert file.path == tmp_path / "model.v2-laptop.json"
    assert file.read() == {}
    file.write({"accuracy": 0.5, "digest": "a figure may be called as a setting is"})
    other = choose_result_file(tmp_path, "model.v2-laptop", SETTINGS | {"shots": 0})
    assert other.path == tmp_path / "model.v2-laptop-2.json"
    assert other.beside(".png") == tmp_path / "model.v2-laptop-2.png"
    other.write({"accuracy": 0.25}, indent=None)
    assert choose_result_file(tmp_path, "model.v2-laptop", SETTINGS | {"more": 1}).path.name == "model.v2-laptop-3.json"
    for settings, accuracy in ((SETTINGS, 0.5), (SETTINGS | {"shots": 0}, 0.25)):
        again = choose_result_file(tmp_path, "model.v2-laptop", dict(reversed(settings.items())))
        assert again.read()["accuracy"] == accuracy
        assert again.read()["settings"]["layers"] == [1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {"model.v2-laptop.json", "model.v2-laptop-2.json"}


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 10_000, '{"accuracy": 1}', "\udc80"])
def test_a_file_of_something_else_is_kept(content, tmp_path):
    earlier = tmp_path / "model.json"
    earlier.write_text(content, errors="surrogateescape")
    choose_result_file(tmp_path, "model", SETTINGS).write({})
    assert earlier.read_text(errors="surrogateescape") == content
    assert json.loads((tmp_path / "model-2.json").read_text()) == {"settings": SETTINGS | {"layers": [1, 2]}}


def test_a_folder_that_is_gone_is_a_storage_error(tmp_path):
    file = choose_result_file(tmp_path / "gone", "model", SETTINGS)
    with pytest.raises(StorageError, match="cannot be written to"):
        file.write({})


def test_suites_of_one_name_are_told_apart():
    shipped = load_suite("smoke")
    assert suite_settings(shipped) == {"suite": "smoke"}
    drawn = load_suite("smoke", seed=7)
    assert suite_settings(drawn) != suite_settings(replace(drawn, seed=8))
    assert suite_settings(drawn)["suite"] == "smoke"
