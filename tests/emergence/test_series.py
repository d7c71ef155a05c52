"""Which checkpoints an argument names, in which order, and the step, tasks and tokens of each."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from hub_server import Repository, folder_files, serving
from huggingface_hub import constants

from benchmark.emergence.series import Moment, list_series, moment_of_name, series_name
from benchmark.errors import UsageError
from benchmark.models.interface import LoadOptions


def save(tiny_folder: Path, folder: Path, **files: dict[str, object]) -> Path:
    """A checkpoint with JSON files besides; links instead of copies."""
    shutil.copytree(tiny_folder, folder, copy_function=os.link)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def trainer_folder(tiny_folder, tmp_path):
    """An output folder of a Trainer: its last model, and checkpoints whose names sort in another order."""
    folder = save(tiny_folder, tmp_path / "my-model")
    for step in (20, 100, 3):
        state = {"global_step": step, "num_input_tokens_seen": 0 if step == 3 else 64 * step}
        save(tiny_folder, folder / f"checkpoint-{step}", trainer_state=state)
    return folder


def moments(*arguments: object, **loading: bool) -> dict[str, list[tuple]]:
    series = list_series([str(argument) for argument in arguments], LoadOptions(**loading))
    return {name: [(m.step, m.tasks, m.tokens, m.is_ordinal) for m in part] for name, part in series.items()}


EXPECTED = [(3, None, None, False), (20, None, 1280, False), (100, None, 6400, False)]


def test_an_output_folder_of_a_trainer_is_a_series(trainer_folder):
    # What is being written is no checkpoint yet.
    (trainer_folder / "checkpoint-100.new").mkdir()
    assert moments(trainer_folder) == {"my-model": EXPECTED}
    assert moments(f"path:{trainer_folder}") == {"my-model": EXPECTED}


@pytest.mark.parametrize(
    "names", [["checkpoint-{100,3,20}"], ["checkpoint-*"], ["checkpoint-100", "checkpoint-20", "checkpoint-3"]]
)
def test_braces_wildcards_and_what_a_shell_makes_of_them_name_the_same_series(trainer_folder, names):
    assert moments(*(f"path:{trainer_folder}/{name}" for name in names)) == {"my-model": EXPECTED}
    if len(names) == 3:
        assert moments(*(trainer_folder / name for name in names)) == {"my-model": EXPECTED}


def test_a_step_is_of_the_name_where_no_file_tells_it(trainer_folder):
    for path in trainer_folder.glob("checkpoint-*/trainer_state.json"):
        path.unlink()
    assert moments(trainer_folder) == {"my-model": [(step, None, None, False) for step in (3, 20, 100)]}


def test_checkpoints_without_steps_are_in_the_order_of_the_arguments(tiny_folder, tmp_path):
    for name in ("late", "early"):
        save(tiny_folder, tmp_path / "own" / name)
    text = f"path:{tmp_path}/own/{{early,late}}"
    assert moments(text) == {"own": [(0, None, None, True), (1, None, None, True)]}
    (part,) = list_series([text]).values()
    assert [m.checkpoint.name for m in part] == ["early", "late"]


def test_a_training_of_this_project_tells_tasks_and_tokens(tiny_folder, tmp_path):
    for step in (8, 0):
        entries = {"step": step, "tasks_seen": 128 * step, "tokens_seen": 9000 * step}
        save(tiny_folder, tmp_path / "run" / "checkpoints" / f"step-{step:07d}", training=entries)
    assert moments(tmp_path / "run") == {"run": [(0, 0, 0, False), (8, 1024, 72000, False)]}
    (tmp_path / "run" / "checkpoints" / "step-0000008" / "training.json").write_text("{}")
    with pytest.raises(UsageError, match=r"training\.json.*expected step, tasks_seen, tokens_seen"):
        moments(tmp_path / "run")


def test_revisions_of_the_hub_are_a_series(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        repository = hub.repositories["org/tiny"] = Repository()
        files = folder_files(tiny_folder)
        state = json.dumps({"global_step": 90}).encode()
        repository.commit(files | {"trainer_state.json": state}, "step100")
        repository.commit(files, "step20-tokens5M")
        assert moments("org/tiny@{step100,step20-tokens5M}") == {
            "org-tiny": [(20, None, 5_000_000, False), (90, None, None, False)]
        }


def test_factories_of_a_module_are_a_series(tmp_path, monkeypatch):
    source = "class Words:\n    def generate(self, prompts, max_new_words, decoding=None):\n        return []\n\n\n"
    source += "def step10(random_seed=None):\n    return Words()\n\n\nstep2 = early = step10\n"
    (tmp_path / "own_series.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert moments("py:own_series:{step10,step2}", own_code=True) == {
        "own_series": [(2, None, None, False), (10, None, None, False)]
    }
    assert [m[3] for m in moments("py:own_series:{step10,early}", own_code=True)["own_series"]] == [True, True]


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("checkpoint-300", Moment(300)), ("step1000", Moment(1000)), ("step-0000031", Moment(31)),
        ("stage1-step140000-tokens2B", Moment(140_000, None, 2 * 10**9)), ("main", Moment()), ("v2", Moment()),
    ],
)  # fmt: skip
def test_a_name_tells_step_and_tokens(name, moment):
    assert moment_of_name(name) == moment


def test_what_is_no_series_is_refused(trainer_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no checkpoints/step-N or checkpoint-N in it"):
        moments(tmp_path / "empty")
    with pytest.raises(UsageError, match="second series of the name my-model"):
        moments(trainer_folder, trainer_folder)
    (trainer_folder / "checkpoint-20" / "trainer_state.json").write_text('{"global_step": 3}')
    with pytest.raises(UsageError, match="two checkpoints of step 3"):
        moments(trainer_folder)


def test_a_series_has_the_name_of_what_holds_it(trainer_folder, tmp_path):
    assert series_name(str(trainer_folder)) == "my-model"
    assert series_name("hf:org/name@{a,b}") == "org-name"
    assert series_name("py:own.models:{a,b}") == "own.models"
    assert series_name(f"path:{tmp_path}/run/checkpoints/step-1") == "run"
