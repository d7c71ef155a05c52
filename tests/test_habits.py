"""What a public project keeps beside its code: workflows with few rights, forms, hooks, a changelog, one address."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from datetime import date
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from benchmark.cli.main import SUBCOMMANDS
from benchmark.cli.main import main as karel_bench

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ADDRESS: str = PROJECT["urls"]["Repository"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
PAGES = [ROOT / name for name in ("AGENTS.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "README.md")]
# YAML 1.1 reads the key `on` as true.
ON = True
MAY_WRITE = {"comment": {"pull-requests"}, "release": {"contents"}}
"""Rights to write, by workflow; a job that has one runs nothing of the repository or of a change."""
INTERPRETERS = re.compile(
    r"\b(python3?|pip|pytest|npm|node|make|source|eval|exec|curl|wget)\b|\.ci/|^\s*\./|^\s*\. ", re.M
)


def text_files() -> list[Path]:
    """Files in which the project's address may stand."""
    folders = [ROOT / name for name in (".ci", ".github", "baselines", "benchmark", "docs", "karel_env", "tests")]
    kinds = {".cff", ".css", ".html", ".js", ".json", ".md", ".py", ".toml", ".yaml", ".yml", ""}
    found = [path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts]
    return [path for path in [*ROOT.iterdir(), *found] if path.is_file() and path.suffix in kinds]


def read(path: Path) -> dict[Any, Any]:
    loaded = yaml.safe_load(path.read_text())
    assert isinstance(loaded, dict)
    return loaded


def rights(path: Path) -> dict[str, dict[str, str]]:
    """Rights of each job of a workflow: its own, or those of all."""
    workflow = read(path)
    given = {name: job.get("permissions", workflow["permissions"]) for name, job in workflow["jobs"].items()}
    return {name: {"contents": "write-all"} if isinstance(one, str) else one for name, one in given.items()}


def steps(job: dict[str, Any], key: str) -> list[Any]:
    return [step[key] for step in job["steps"] if key in step]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_the_least_rights(path):
    workflow = read(path)
    assert set(workflow) >= {"name", ON, "permissions", "jobs"}
    assert workflow["name"] == path.stem
    triggers = set(workflow[ON])
    assert "pull_request_target" not in triggers, "it would run with the repository's rights on what a change brings"
    for name, given in rights(path).items():
        written = {right for right, level in given.items() if level not in ("read", "none")}
        assert written <= MAY_WRITE.get(path.stem, set()), f"{name} may write {written}"
        job = workflow["jobs"][name]
        if written:
            assert not triggers & {"pull_request", "issue_comment", "issues"}
            assert not any("checkout" in action for action in steps(job, "uses"))
            assert not any(INTERPRETERS.search(script) for script in steps(job, "run"))
    assert {"push", "pull_request"}.isdisjoint(triggers) or "cancel-in-progress" in workflow["concurrency"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_ends_and_its_scripts_hold_no_expression(path):
    for job in read(path)["jobs"].values():
        assert 0 < job["timeout-minutes"] <= 120
        assert re.fullmatch(r"[a-z]+-[0-9.]+", job["runs-on"]), "a fixed version of the machine"
        for step in job["steps"]:
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False
            if "run" in step:
                assert "${{" not in step["run"], "an expression in a script could hold what a change says"
                subprocess.run(["bash", "-n"], input=step["run"], text=True, check=True, capture_output=True)


def test_actions_are_pinned_by_commit_and_each_once():
    pinned: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        lines = [line.strip() for line in path.read_text().splitlines() if re.search(r"\buses:", line)]
        for line in lines:
            match = re.fullmatch(r"(?:- )?uses: ([\w-]+/[\w./-]+)@([0-9a-f]{40}) # v\d+(?:\.\d+)*", line)
            assert match, f"{path.name}: {line}: expected owner/name@(40 digits of a commit) # v1.2.3"
            pinned.setdefault(match[1], set()).add(match[2])
        assert len(lines) == sum(len(steps(job, "uses")) for job in read(path)["jobs"].values())
    assert pinned
    assert {action: len(commits) for action, commits in pinned.items()} == dict.fromkeys(pinned, 1)


def test_continuous_integration_runs_on_every_supported_python():
    (job,) = read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"].values()
    versions = job["strategy"]["matrix"]["python"]
    classifier = "Programming Language :: Python :: 3."
    assert versions == [f"3.{c.removeprefix(classifier)}" for c in PROJECT["classifiers"] if c.startswith(classifier)]
    assert PROJECT["requires-python"] == f">={versions[0]}"
    assert steps(job, "run") == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    scheduled = read(ROOT / ".github" / "workflows" / "ci.yml")[ON]["schedule"]
    assert len(scheduled) == 1
    assert "'schedule' && '1'" in job["env"]["CI_SLOW"]


def test_every_address_is_that_of_the_project():
    """No index of packages is named, and the project's own address comes from one place."""
    slug = ADDRESS.rpartition("/")[2]
    assert all(url == ADDRESS or url.startswith(f"{ADDRESS}/") for url in PROJECT["urls"].values())
    for path in text_files():
        text = path.read_text()
        for prefix in re.findall(rf"https?://[\w./-]*/{slug}\b", text):
            assert prefix == ADDRESS, f"{path.relative_to(ROOT)}: {prefix}, expected {ADDRESS}"
        if path.is_relative_to(ROOT / ".github") or path.is_relative_to(ROOT / ".ci") or path.name.startswith(".pre"):
            assert all(url.startswith(ADDRESS) for url in re.findall(r"https?://[^\s\"')>]*", text)), path


ELEMENTS = {"markdown", "textarea", "input", "dropdown", "checkboxes"}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_is_one_that_is_shown(path):
    form = read(path)
    assert set(form) <= {"name", "description", "title", "labels", "body"}
    assert all(form[key] for key in ("name", "description", "body"))
    asked = [element for element in form["body"] if element["type"] != "markdown"]
    assert any(element.get("validations", {}).get("required") for element in asked)
    ids = [element["id"] for element in asked]
    assert len(set(ids)) == len(ids)
    for element in form["body"]:
        assert element["type"] in ELEMENTS
        attributes = element["attributes"]
        if element["type"] == "markdown":
            assert attributes["value"]
            continue
        assert re.fullmatch(r"[a-z_-]+", element["id"])
        assert attributes["label"]
        options = attributes.get("options", [])
        assert bool(options) == (element["type"] in ("dropdown", "checkboxes"))
        labels = [one["label"] if element["type"] == "checkboxes" else one for one in options]
        assert len(set(labels)) == len(labels)


def test_there_is_a_form_for_each_kind_and_no_blank_issue():
    assert {path.stem for path in FORMS} == {"bug", "model_row", "question"}
    config = read(ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml")
    assert config["blank_issues_enabled"] is False
    assert all(set(link) == {"name", "url", "about"} for link in config["contact_links"])
    assert any(link["url"].endswith("/security/advisories/new") for link in config["contact_links"])


def commands() -> list[str]:
    """Command lines in the pages for contributors and in templates: indented blocks and what is quoted."""
    pages = [
        *(page for page in PAGES[:-1] if page.name != "CHANGELOG.md"),
        *FORMS,
        ROOT / ".github" / "pull_request_template.md",
    ]
    text = "\n".join(page.read_text() for page in pages)
    lines = [line.partition("  #")[0] for line in re.findall(r"^    (\S.*)$", text, re.M)]
    lines += re.findall(r"`([^`\n]+)`", text)
    starts = ("pip ", "pytest", "python -m", "python .", "karel-bench", "ruff ", "mypy", ".ci/run", "pre-commit ")
    found = [part.strip() for line in lines for part in line.split("&&") if part.strip().startswith(starts)]
    return sorted(set(found))


def entry_point(module: str) -> Callable[[list[str]], int]:
    """The function `main` of `python -m MODULE`."""
    known = SUBCOMMANDS.get(module.removeprefix("benchmark."))
    main: Callable[[list[str]], int] = importlib.import_module(known.module if known else module).main
    return main


@pytest.mark.parametrize("line", commands())
def test_a_command_for_contributors_exists(line):
    program, *words = line.replace("'", "").split()
    if program == "python" and words[0] == "-m":
        if "NAME" in words[1]:
            return
        # Unknown options are refused before the help is printed.
        with pytest.raises(SystemExit):
            entry_point(words[1])([*words[2:], "--help"])
    elif program == "karel-bench":
        if not words or words[0].isupper():
            return
        if words == ["--help"]:
            assert karel_bench(words) == 0
            return
        with pytest.raises(SystemExit):
            karel_bench([*words, "--help"])
    elif program == "python":
        assert (ROOT / words[0]).is_file()
    elif "/" in program:
        assert os.access(ROOT / program, os.X_OK)
    elif program == "pip":
        extras = re.findall(r"\[(\w+)\]", line)
        assert set(extras) <= set(PROJECT["optional-dependencies"])
        assert extras or words == ["install", "pre-commit"] or words == ["list"]
    else:
        assert program == "pre-commit" or any(
            one.startswith(program) for one in PROJECT["optional-dependencies"]["test"]
        )
        named = [word for word in words if "/" in word]
        assert all((ROOT / word).exists() for word in named)
        if "-m" in words:
            markers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
            assert any(marker.startswith(f"{words[words.index('-m') + 1]}:") for marker in markers)


def test_the_commands_are_found():
    assert {"pip install -e '.[test]'", "mypy", "pytest", "pytest -m slow", ".ci/run", "ruff check ."} <= set(
        commands()
    )


def test_places_that_the_page_for_editors_names_are_there():
    text = (ROOT / "AGENTS.md").read_text()
    assert len(text.splitlines()) <= 75, "one page"
    for path in re.findall(r"`([\w.]+(?:/[\w.]+)*/?)`", text):
        assert (ROOT / path).exists() or "/" not in path, path


@pytest.mark.parametrize("page", PAGES[:-1], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_hooks_take_the_versions_of_continuous_integration():
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    hooks = {hook["id"]: hook for hook in repository["hooks"]}
    assert [hook["entry"].split()[:2] for hook in hooks.values()][:2] == [["ruff", "check"], ["ruff", "format"]]
    assert "typos" in hooks
    for hook in hooks.values():
        (requirement,) = hook["additional_dependencies"]
        program = hook["entry"].split()[0]
        assert requirement.startswith(program)
        known = [one for one in PROJECT["optional-dependencies"]["test"] if one.startswith(program)]
        assert known in ([], [requirement])


@pytest.mark.skipif(shutil.which("typos", path=Path(sys.executable).parent) is None, reason="typos is not installed")
def test_nothing_is_misspelt():
    program = shutil.which("typos", path=Path(sys.executable).parent)
    assert program is not None
    spelling = subprocess.run([program, "--format", "brief"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert spelling.returncode == 0, spelling.stdout


def load_check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_release", ROOT / ".ci" / "check_release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CHECK = load_check()
GOOD = {"version": "1.2.3", "urls": {"Repository": "https://example.org/a/b"}}
LOG = "# Changelog\n\n## Unreleased\n\n## 1.2.3 (2026-01-31)\n\n- news\n\n## 1.2.2 (2026-01-01)\n\n- old\n"


def test_the_changelog_has_a_dated_heading_for_each_version():
    text = (ROOT / "CHANGELOG.md").read_text()
    titles = list(CHECK.sections(text))
    assert titles[0] == CHECK.UNRELEASED
    dated = [CHECK.DATED.fullmatch(title) for title in titles[1:]]
    assert dated
    assert all(dated), titles
    versions = [tuple(map(int, one["version"].split("."))) for one in dated]
    days = [date.fromisoformat(one["date"]) for one in dated]
    assert all(newer > older for newer, older in pairwise(versions))
    assert all(newer >= older for newer, older in pairwise(days))
    assert tuple(map(int, PROJECT["version"].split("."))) >= versions[0]


def test_what_breaks_something_is_marked_in_the_changelog():
    """Each entry below a heading "Breaking" bears the mark, and no other heading has one unmarked."""
    text = (ROOT / "CHANGELOG.md").read_text()
    below = re.findall(r"^### Breaking\n(.*?)(?=^##|\Z)", text, re.M | re.S)
    assert below
    entries = [entry for part in below for entry in re.findall(r"^- .*", part, re.M)]
    assert entries
    assert all(entry.startswith("- **Breaking**: ") for entry in entries)


def test_notes_are_the_section_of_the_tagged_version():
    assert CHECK.release_notes(GOOD, LOG, "v1.2.3", "https://example.org/a/b") == "- news\n"


@pytest.mark.parametrize(
    ("tag", "repository", "changelog", "says"),
    [
        ("v1.2.4", "https://example.org/a/b", LOG, "expected v1.2.3, the version in pyproject.toml"),
        ("1.2.3", "https://example.org/a/b", LOG, "tag 1.2.3, expected v1.2.3"),
        ("v1.2.3", "https://example.org/c/b", LOG, "expected https://example.org/c/b; replace it"),
        (
            "v1.2.3",
            "https://example.org/a/b",
            LOG.replace("Unreleased\n", "Unreleased\n\n- more\n"),
            "under Unreleased",
        ),
        (
            "v1.2.3",
            "https://example.org/a/b",
            LOG.replace("1.2.3 (2026-01-31)", "1.2.3"),
            "newest heading .* is 1.2.3,",
        ),
        ("v1.2.3", "https://example.org/a/b", LOG.replace("1.2.3 (", "1.2.4 ("), "newest heading .* is 1.2.4"),
        ("v1.2.3", "https://example.org/a/b", "# Changelog\n", "is nothing, expected 1.2.3"),
    ],
)
def test_what_is_not_fit_to_be_released_is_told_in_one_line(tag, repository, changelog, says):
    with pytest.raises(CHECK.NotFitError, match=says) as caught:
        CHECK.release_notes(GOOD, changelog, tag, repository)
    assert "\n" not in str(caught.value)


def test_the_check_of_a_release_is_a_command(tmp_path, capsys):
    words = ["--repository", ADDRESS, "--notes", str(tmp_path / "notes.md")]
    assert CHECK.main(["--tag", "v0.0.0", *words]) == 2
    assert capsys.readouterr().err.startswith("error: tag v0.0.0, expected v")
    assert not (tmp_path / "notes.md").exists()


def test_a_release_is_made_of_what_was_built(tmp_path):
    """The steps of the job that may write, with a stand-in for the command of GitHub that notes what it is asked."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gh").write_text(
        '#!/usr/bin/env bash\nprintf "%s\\n" "$*" >> calls\n'
        'if [ "$1" = run ]; then mkdir -p release/dist; touch release/dist/a.whl release/dist/a.tar.gz release/notes.md; fi\n'
    )
    (tmp_path / "bin" / "gh").chmod(0o755)
    job = read(ROOT / ".github" / "workflows" / "release.yml")["jobs"]["publish"]
    for script in steps(job, "run"):
        subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script], cwd=tmp_path, check=True,
            env={"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "RUN": "5", "TAG": "v1.2.3"},
        )  # fmt: skip
    fetched, made = (tmp_path / "calls").read_text().splitlines()
    assert fetched == "run download 5 --name release --dir release"
    assert made.startswith("release create v1.2.3 release/dist/a.tar.gz release/dist/a.whl ")
    assert "--notes-file release/notes.md" in made
