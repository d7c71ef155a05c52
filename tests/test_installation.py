"""Which commit the source is of, where its files are, and what a build packs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.installation.paths import (
    BUILD_FILE,
    CALIBRATION_FILE,
    DEFAULT_MODEL,
    SHIPPED_FILES,
    SHIPPED_FOLDER,
    SOURCE_ROOT,
    shipped_path,
    submissions_folder,
    work_folder,
)
from benchmark.installation.source_state import (
    BuildRecord,
    checkout_state,
    make_build_record,
    packages_digest,
    read_build_record,
    source_state,
    write_build_record,
)
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from karel_env.shadowing import shadowing_message, shadowing_path

COMMIT = "c" * 40


def git(folder: Path, *arguments: str) -> None:
    """Run git in a folder."""
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with the three packages, as an installer leaves them, without a record of the build."""
    for name, text in (("benchmark/run.py", "1\n"), ("benchmark/tasks/a.yaml", "a: 1\n"), ("karel_env/x.py", "2\n"),
                       ("baselines/y.py", "3\n")):  # fmt: skip
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text)
    return tmp_path / "root"


def record(root: Path, commit: str | None = COMMIT, is_dirty: bool | None = False) -> None:
    """Write the record that a build of these files would hold."""
    write_build_record(BuildRecord(commit, is_dirty, packages_digest(root)), root)


def test_a_build_that_nobody_edited_is_of_its_commit(installed):
    record(installed)
    (installed / "benchmark" / "__pycache__").mkdir()
    (installed / "benchmark" / "__pycache__" / "run.cpython-311.pyc").write_bytes(b"x")
    (installed / SHIPPED_FOLDER).mkdir()
    (installed / SHIPPED_FOLDER / "config.json").write_text("{}")
    state = source_state(installed)
    assert (state.commit, state.dirty, state.problem) == (COMMIT, False, "")


@pytest.mark.parametrize("edit", ["benchmark/run.py", "benchmark/tasks/a.yaml", "karel_env/new.py"])
def test_an_edited_build_is_of_no_known_commit(installed, edit):
    record(installed)
    (installed / edit).write_text("edited\n")
    state = source_state(installed)
    assert (state.commit, state.dirty) == (COMMIT, True)
    assert state.problem == f"source edited after build of commit {COMMIT[:12]}"


def test_a_deleted_module_is_an_edit(installed):
    record(installed)
    (installed / "baselines" / "y.py").unlink()
    assert source_state(installed).dirty


@pytest.mark.parametrize(
    ("commit", "is_dirty", "problem"),
    [(None, None, "built outside of a git checkout"), (COMMIT, True, "built from a checkout with uncommitted changes")],
)
def test_a_build_of_no_commit_is_told_so(installed, commit, is_dirty, problem):
    record(installed, commit, is_dirty)
    assert problem in source_state(installed).problem


@pytest.mark.parametrize("text", [None, "", "[]", '{"commit": "c"}', "\udcff"])
def test_without_a_readable_record_no_commit_is_known(installed, text):
    if text is not None:
        (installed / BUILD_FILE).write_text(text, errors="surrogateescape")
    assert read_build_record(installed) is None
    state = source_state(installed)
    assert (state.commit, state.dirty) == (None, None)
    assert "no commit of the source is known" in state.problem


def test_a_checkout_is_of_its_commit_until_a_package_is_edited(installed):
    git(installed, "init", "-q")
    git(installed, "add", ".")
    git(installed, "commit", "-q", "-m", "first")
    commit, is_dirty = checkout_state(installed)
    assert len(commit or "") == 40
    assert is_dirty is False
    (installed / "notes.txt").write_text("not a package")
    assert checkout_state(installed) == (commit, False)
    (installed / "karel_env" / "x.py").write_text("edited\n")
    assert checkout_state(installed) == (commit, True)
    assert source_state(installed).problem == "the source has uncommitted changes"


def test_a_checkout_that_git_cannot_read_is_named(installed):
    (installed / ".git").write_text("gitdir: nowhere")
    state = source_state(installed)
    assert (state.commit, state.dirty) == (None, None)
    assert state.problem == f"no commit of the source is known: git cannot read {installed}"


def test_an_environment_in_another_projects_checkout_has_not_its_commit(installed):
    """The usual place of a virtual environment is a folder that the project around it ignores."""
    project = installed.parent
    (project / ".gitignore").write_text("root/\n")
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "theirs")
    assert checkout_state(installed) == (None, None)
    assert source_state(installed).problem


def test_a_source_distribution_hands_its_commit_on(installed, tmp_path):
    record(installed)
    assert make_build_record(installed, installed) == BuildRecord(COMMIT, False, packages_digest(installed))


def test_an_edited_source_distribution_is_built_as_edited(installed):
    record(installed)
    (installed / "benchmark" / "run.py").write_text("edited\n")
    made = make_build_record(installed, installed)
    assert made == BuildRecord(COMMIT, True, packages_digest(installed))
    write_build_record(made, installed)
    source_state.cache_clear()
    assert "uncommitted changes" in source_state(installed).problem


def test_files_that_commands_read_are_in_the_repository():
    for name in SHIPPED_FILES:
        assert shipped_path(name).is_file(), name


def test_the_packed_model_is_the_submitted_one(tmp_path):
    """The files that are left out of the package are not part of what identifies the model."""
    packed = tmp_path / Path(DEFAULT_MODEL).name
    packed.mkdir()
    for name in SHIPPED_FILES:
        if name.startswith(DEFAULT_MODEL):
            (packed / Path(name).name).write_bytes((SOURCE_ROOT / name).read_bytes())
    one, two = (open_checkpoint(ModelSpec("path", str(path))) for path in (packed, SOURCE_ROOT / DEFAULT_MODEL))
    assert replace(one, spec="", folder=Path()) == replace(two, spec="", folder=Path())


def test_an_installed_package_works_in_the_current_folder(installed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert work_folder(installed) == tmp_path
    assert shipped_path(CALIBRATION_FILE, installed) == installed / SHIPPED_FOLDER / CALIBRATION_FILE


def test_a_checkout_serves_folders_without_submissions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert work_folder() == SOURCE_ROOT
    (tmp_path / "submissions").mkdir()
    assert submissions_folder() == tmp_path / "submissions"


def test_a_build_packs_every_source_file_and_its_record(tmp_path):
    pytest.importorskip("setuptools")
    lib = tmp_path / "lib"
    (lib / "benchmark").mkdir(parents=True)
    (lib / "benchmark" / "removed.py").write_text("of an earlier build")
    command = [
        sys.executable,
        "setup.py",
        "-q",
        "egg_info",
        "--egg-base",
        str(tmp_path),
        "build_py",
        "--build-lib",
        str(lib),
    ]
    subprocess.run(command, cwd=SOURCE_ROOT, check=True, capture_output=True)
    stored = json.loads((lib / BUILD_FILE).read_text())
    assert stored["digest"] == packages_digest(lib) == packages_digest()
    assert [stored["commit"], stored["dirty"]] == list(checkout_state())
    assert not (lib / "benchmark" / "removed.py").exists()
    assert not (SOURCE_ROOT / BUILD_FILE).exists()
    for name in SHIPPED_FILES:
        assert (lib / SHIPPED_FOLDER / name).read_bytes() == (SOURCE_ROOT / name).read_bytes()


@pytest.mark.parametrize("theirs", ["baselines.py", "baselines/__init__.py"])
def test_a_package_of_the_users_is_named(tmp_path, monkeypatch, theirs):
    (tmp_path / theirs).parent.mkdir(exist_ok=True)
    (tmp_path / theirs).write_text("")
    for name in [name for name in sys.modules if name.split(".")[0] == "baselines"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = shadowing_path("baselines")
    assert path == tmp_path / theirs.removesuffix("/__init__.py")
    message = shadowing_message()
    assert str(path) in message
    assert str(SOURCE_ROOT / "baselines") in message


def test_our_own_packages_shadow_nothing():
    assert shadowing_message() == ""


def test_the_entry_names_a_package_that_shadows_ours(tmp_path):
    """A new process, since this one has imported `benchmark` already."""
    (tmp_path / "benchmark.py").write_text("raise SystemExit('the wrong one')")
    code = f"import sys; sys.path.insert(0, {str(SOURCE_ROOT)!r}); sys.path.insert(0, ''); from karel_bench import main; sys.exit(main(['run']))"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("error: the name benchmark is taken by ")
    assert str(tmp_path / "benchmark.py") in run.stderr
    assert len(run.stderr.splitlines()) == 1
