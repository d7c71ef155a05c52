"""The public face: names, laziness, types, docstrings, and the examples and the page that show it."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from quick_protocol import QUICK, SMALL_SUITE

import benchmark
import karel_env

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text()
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
FACES = [(face, name) for face in (benchmark, karel_env) for name in face.__all__]
IDS = [f"{face.__name__}.{name}" for face, name in FACES]


@pytest.mark.parametrize("face", [benchmark, karel_env], ids=lambda face: face.__name__)
def test_the_names_are_sorted_listed_and_typed(face):
    assert face.__all__ == sorted(set(face.__all__))
    assert set(face.__all__) <= set(dir(face))
    source = Path(face.__file__).read_text()
    typed = re.findall(r"^    (?:from [\w.]+ import \w+ as )?(\w+)(?: = [\w.]+)?$", source.split("_HOMES = ")[0], re.M)
    assert sorted(typed) == face.__all__
    assert (Path(face.__file__).parent / "py.typed").is_file()
    with pytest.raises(AttributeError, match="has no attribute 'measur'"):
        _ = face.measur


def test_no_module_of_the_package_hides_a_name():
    modules = {path.stem for path in (ROOT / "benchmark").iterdir() if path.suffix in ("", ".py")}
    assert not modules & set(benchmark.__all__)
    assert "version" in dir(benchmark.__version__) or re.match(r"\d", benchmark.__version__)


def test_a_source_that_is_not_installed_has_a_version(monkeypatch):
    monkeypatch.setattr(benchmark, "DISTRIBUTION", "no-such-distribution")
    assert benchmark.__version__ == benchmark.UNKNOWN_VERSION


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, benchmark, karel_env; dir(benchmark); dir(karel_env); heavy = {'torch', 'transformers', 'numpy', 'numba'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules); import benchmark as kb; "
        "kb.blind_probe_set, kb.measure, kb.load_suite, kb.evaluate, kb.load_model, kb.wrap, kb.hidden_states, kb.read_states; "
        "[getattr(kb, name) for name in kb.__all__]; heavy = {'torch', 'transformers', 'ray', 'pandas'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


def test_the_function_run_and_the_command_of_that_name_are_both_there():
    import importlib

    command = importlib.import_module("karel_env.run")
    assert callable(command.main)
    for run in (karel_env.run, command):
        assert str(run("def run() { move(); }", "> . #")) == ". > #"


@pytest.mark.parametrize(("face", "name"), FACES, ids=IDS)
def test_docstrings_are_complete(face, name):
    member = getattr(sys.modules[home_of(face, name)], attribute_of(face, name))
    if not callable(member):
        source = Path(inspect.getfile(sys.modules[home_of(face, name)])).read_text()
        assert re.search(rf"^{name}\b.* = (.|\n)*?\"\"\"", source, re.M) or name in ("ACTIONS", "CONDITIONS", "FEATURES",
            "STANDARD", "ORIGINAL")  # fmt: skip
        return
    text = inspect.getdoc(member) or ""
    assert len(text.splitlines()[0]) >= 10
    if isinstance(member, type) and issubclass(member, Exception):
        return
    if inspect.isclass(member):
        for field in dataclasses.fields(member):
            assert re.search(rf"\b{field.name}\b", text), field.name
        return
    parameters = inspect.signature(member).parameters
    for parameter in parameters:
        assert re.search(rf"^ +(\w+, )*{parameter}(, \w+)*: ", text, re.M), parameter
    if face is benchmark and member.__module__.startswith("benchmark.api"):
        assert "Source: " in text
        assert "Raises:" in text or name == "token_history_control"
        assert "Returns:" in text or name in ("load_model", "wrap")


def home_of(face, name: str) -> str:
    """The module that defines a name; importing it is a side effect of using the name."""
    getattr(face, name)
    home = face._HOME_OF[name]
    return home if isinstance(home, str) else f"{face.__name__}.{home[0]}"


def attribute_of(face, name: str) -> str:
    home = face._HOME_OF[name]
    return name if isinstance(home, str) else home[1]


def test_methods_and_properties_of_results_have_docstrings():
    for cls in (
        benchmark.Measurement,
        benchmark.BlindProbeSet,
        benchmark.Report,
        benchmark.Model,
        benchmark.PooledStates,
        benchmark.UseMeasurement,
    ):
        for name, member in vars(cls).items():
            if not name.startswith("_"):
                function = getattr(member, "fget", None) or getattr(member, "func", None) or member
                if callable(function) or isinstance(member, classmethod):
                    assert inspect.getdoc(function), f"{cls.__name__}.{name}"


SMALL = ["--suite", "smoke", "--programs", "12", "--trial"]
ARGUMENTS = {
    "evaluate_model": ["--suite", SMALL_SUITE, "--output-dir", "{runs}", "--model", "{model}"],
    "probe_model_in_memory": [*SMALL, "--model", "{model}"],
    "own_activations": [*SMALL, "--model", "{model}", "--folder", "{out}"],
    "play_program": ["--steps", "3"],
}
PRINTED = {
    "evaluate_model": "outcomes of the test tasks",
    "probe_model_in_memory": "gap of shuffled rows",
    "own_activations": "missing: random-init",
    "play_program": "3. move(); row 2, column 3, facing east",
}


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES} == set(ARGUMENTS) == set(PRINTED)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(path, tiny_folder, undisturbed, tmp_path, monkeypatch, capsys):
    words = [word.format(model=tiny_folder, out=tmp_path, runs=undisturbed.parent) for word in ARGUMENTS[path.stem]]
    monkeypatch.setattr(sys, "argv", [str(path), *words])
    monkeypatch.setattr(benchmark, "evaluate", partial(benchmark.evaluate, protocol=QUICK))
    runpy.run_path(str(path), run_name="__main__")
    assert PRINTED[path.stem] in capsys.readouterr().out


def test_the_file_of_models_is_read_by_sweeps():
    from benchmark.models.interface import ModelSpec
    from benchmark.sweep import read_models
    from benchmark.tasks.suite import load_suite

    runs = read_models(ROOT / "examples" / "models.yaml", [])
    assert len(runs) == 5
    for run in runs:
        spec = ModelSpec.parse(run.model)
        assert spec.scheme == "baseline" or (ROOT / spec.target / "config.json").is_file()
        assert load_suite(run.suite)


@pytest.mark.usefixtures("quick")
def test_the_page_runs(tmp_path, monkeypatch, capsys):
    (tmp_path / "submissions").symlink_to(ROOT / "submissions")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark, "evaluate", partial(benchmark.evaluate, protocol=QUICK))
    blocks = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == PAGE.count("```") // 2 == 10
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "api.md", "exec"), namespace)
    printed = capsys.readouterr().out
    assert "479 rows" in printed or "rows; expected 480" in printed


def test_the_page_names_everything_that_computes():
    functions = [name for name in benchmark.__all__ if inspect.isfunction(getattr(benchmark, name))]
    assert not [name for name in functions if not re.search(rf"\b{name}\b", PAGE)]
