"""The command `karel-bench`: its subcommands, how options are declared, and what a wrong word is answered with."""

from __future__ import annotations

import importlib
import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from whole_runs import ROOT

import benchmark.run
from benchmark.cli import main as command
from benchmark.cli.declare import argument, build_parser, group, option, parse_options, subcommand
from benchmark.cli.listing import KINDS
from benchmark.cli.main import SUBCOMMANDS
from benchmark.cli.model_spec import expand_models, read_model
from benchmark.cli.run_options import EvaluationOptions, run_config
from benchmark.command import run_command
from benchmark.errors import UsageError
from benchmark.models.architecture import DTYPES
from benchmark.models.interface import DTYPE_NAMES
from benchmark.probing.protocol import STANDARD
from benchmark.runner.run import RunConfig
from karel_env.command import UsageExit, integer

PAGES = [ROOT / "README.md", ROOT / "AGENTS.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RENAMED = {
    "--batch": "--batch-size", "--out": "--output-dir", "--samples": "--n-samples", "--no-states": "--accuracy-only",
    "--grid": "--detail",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A group."""

    count: int = option(1, "set the count", read_with=integer(1, 9), metavar="N", old=("--number",))


@dataclass(frozen=True, kw_only=True)
class First:
    """Do the first thing."""

    names: tuple[str, ...] = argument("names", many=True)
    inner: Inner = group(Inner, count=3)


@dataclass(frozen=True, kw_only=True)
class Second:
    """Do the second thing."""

    place: Path | None = option(None, "name a place", metavar="FOLDER")


@dataclass(frozen=True, kw_only=True)
class Both:
    """Do either."""

    loud: bool = option(False, "print more")
    kind: str = option("a", "select 50% of it", choices=("a", "bc"))
    what: First | Second = subcommand({"first": First, "second": Second})


def parse(*words: str) -> Both:
    return parse_options(Both, list(words), "both")


def problem(*words: str) -> str:
    with pytest.raises(UsageExit) as caught:
        parse(*words)
    return str(caught.value)


def test_a_command_line_becomes_nested_dataclasses():
    assert parse("--loud", "first", "x", "y", "--count", "5") == Both(
        loud=True, kind="a", what=First(names=("x", "y"), inner=Inner(count=5))
    )
    assert parse("first", "x").what == First(names=("x",), inner=Inner(count=3))
    assert parse("--kind=bc", "second", "--place", "here").what == Second(place=Path("here"))
    assert parse("second") == Both(what=Second())


def test_arguments_of_a_parent_come_first_and_its_options_last():
    @dataclass(frozen=True, kw_only=True)
    class Parent:
        """Have an argument."""

        one: str = argument("first")
        late: bool = option(False, "be late")

    @dataclass(frozen=True, kw_only=True)
    class Child(Parent):
        """Have another one."""

        two: str = argument("second")
        early: bool = option(False, "be early")

    assert parse_options(Child, ["a", "b"], "child") == Child(one="a", two="b")
    text = build_parser(Child, "child").format_help()
    assert text.index("--early") < text.index("--late")


def test_help_states_defaults_of_groups_and_signs_of_formats(capsys):
    for words, part in ((["first", "--help"], "(default: 3)"), (["--help"], "select 50% of it (default: a)")):
        with pytest.raises(SystemExit):
            parse(*words)
        assert part in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--louder", "second"],
            "--louder: no such option (did you mean --loud?); see python -m benchmark.both --help",
        ),
        (["--loud-", "second"], "--loud-: no such option (did you mean --loud?)"),
        (["seconds"], "seconds: expected first or second (did you mean second?)"),
        (["--kind", "bcd", "second"], "--kind bcd: expected a or bc (did you mean bc?)"),
        (
            ["second", "--places", "x"],
            "--places: no such option (did you mean --place?); see python -m benchmark.both second",
        ),
        (["second", "more"], "more: not expected here"),
        (["first"], "required: NAMES"),
        (["first", "x", "--count", "0"], "--count 0: expected a whole number, at least 1 and at most 9"),
        (["first", "x", "--number", "0"], "--count 0: expected"),
        (["--entirely-different"], "--entirely-different: no such option; see"),
    ],
)
def test_a_wrong_word_is_one_line_that_names_the_nearest(words, says):
    message = problem(*words)
    assert says in message
    assert "\n" not in message


def test_words_after_two_dashes_are_no_options():
    assert parse("first", "--", "--number", "--loudly").what == First(
        names=("--number", "--loudly"), inner=Inner(count=3)
    )


def test_old_spellings_end_with_a_note_unless_the_command_fails(capsys):
    def command_with(code: int | None) -> int:
        parse("first", "x", "--number=5", "--number", "6")
        if code is None:
            raise UsageError("wrong")
        return code

    for code in (0, 1):
        assert run_command(lambda code=code: command_with(code)) == code
        assert capsys.readouterr().err == "note: --number is now --count; the next release drops the old spelling\n"
    assert run_command(lambda: command_with(None)) == 2
    assert capsys.readouterr().err == "error: wrong\n"


def test_each_renamed_option_of_a_run_is_still_taken():
    parser = build_parser(benchmark.run.RunOptions, "run")
    assert parser.old_spellings == RENAMED
    old = "--batch 4 --out x --samples 3 --no-states --grid full"
    new = "--batch-size 4 --output-dir x --n-samples 3 --accuracy-only --detail full"
    first, second = (parse_options(benchmark.run.RunOptions, words.split(), "run") for words in (old, new))
    assert first == second
    config = run_config(second, "smoke", "", STANDARD)
    assert (config.batch, config.out, config.grid) == (4, Path("x"), "full")
    assert (config.generation.samples, config.generation.states) == (3, False)


def test_defaults_of_the_command_line_are_those_of_a_run():
    options = EvaluationOptions(device="cpu")
    assert run_config(options, "laptop", "", STANDARD) == RunConfig("laptop")
    few = run_config(EvaluationOptions(device="cpu", few_programs=True), "laptop", "", STANDARD)
    assert few == RunConfig("laptop", few_programs=True)


def test_dtypes_can_be_named_without_torch():
    assert tuple(sorted(DTYPES)) == DTYPE_NAMES


def test_subcommands_are_described_as_their_options_say(capsys):
    for name, subcommand_entry in SUBCOMMANDS.items():
        with pytest.raises(SystemExit) as caught:
            command.main([name, "--help"])
        assert caught.value.code == 0
        text = capsys.readouterr().out
        assert text.startswith(f"usage: karel-bench {name} ")
        usage = text.split("\n\n")[0]
        assert len(usage.splitlines()) <= 8, "the first screen has what the command does"
        words = usage.removeprefix(f"usage: karel-bench {name} ").split()
        assert [word for word in words if re.fullmatch(r"\[?([a-z_]+|None)\]?", word)] == [], "values are in capitals"
        assert " ".join(subcommand_entry.help.split()) in " ".join(text.split())
    assert command.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.split()[:1] == [name] for line in lines) for name in SUBCOMMANDS)
    assert all(len(line) <= 120 for line in lines)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sweeps"], "sweeps: no such command (did you mean sweep?); see karel-bench --help"),
        ([], "expected a command: run, sweep"),
        (["--helps"], "--helps: no such command (did you mean --help?); see"),
        (["run", "--suites", "x"], "--suites: no such option (did you mean --suite?); see karel-bench run --help"),
        (["run", "--suite", "labtop"], "or the path of a .yaml file (did you mean laptop?)"),
        (["run", "--model", "randoms"], "(did you mean baseline:random?)"),
        (["run", "--model", "baselines:random"], "(did you mean baseline?)"),
        (["run", "--model", "baseline:searches"], "(did you mean search?)"),
        (["run", "--model", "./nothing"], "--model ./nothing: no such folder"),
        (["train", "gpt-labtop", "--output-dir", "x"], "(did you mean gpt-laptop?)"),
        (["list", "suite"], "expected suites, baselines, recipes or models (did you mean suites?)"),
        (["submit", "validated", "x"], "(did you mean validate?)"),
        (["submit", "validate", "2026-11-25_gpt-labtop"], "(did you mean 2026-11-25_gpt-laptop?)"),
        (["compare", "2026-11-25_gpt-labtop", "x"], "(did you mean 2026-11-25_gpt-laptop?)"),
        (["export", "2026-11-25_gpt-labtop", "--format", "model-index"], "(did you mean 2026-11-25_gpt-laptop?)"),
        (["board", "--suite", "labtop"], "(did you mean laptop?)"),
    ],
)
def test_unknown_names_suggest_the_nearest_in_one_line(words, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(words) in (2, 3)
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert says in err
    assert not list(tmp_path.iterdir())


def test_a_model_can_be_named_by_its_folder_or_on_the_hub(tmp_path, monkeypatch):
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert read_model("org/other") == "hf:org/other"
    assert read_model("org/other@v1.0") == "hf:org/other@v1.0"
    assert expand_models("org/other@{a,b}") == ["hf:org/other@a", "hf:org/other@b"]
    assert read_model(str(tmp_path)) == f"path:{tmp_path}"
    monkeypatch.chdir(tmp_path)
    # What is here comes first, as for transformers.
    assert read_model("org/name") == "path:org/name"
    assert read_model("./org") == "path:./org"
    for spec in ("path:nowhere", "hf:a/b@c", "baseline:search", "py:module:make"):
        assert read_model(spec) == spec
    for wrong in ("", "tiny", "a/b/c", "other:x", "./org/nothing", "~/models"):
        with pytest.raises(UsageError):
            read_model(wrong)


def test_list_names_what_is_there(capsys):
    assert command.main(["list"]) == 0
    text = capsys.readouterr().out
    assert all(f"{kind}\n" in text for kind in KINDS)
    for name in ("laptop", "smoke", "baseline:search", "gpt-laptop", "submissions/2026-11-23_llama-laptop"):
        assert name in text
    assert command.main(["list", "baselines", "--json"]) == 0
    out = capsys.readouterr().out
    assert '"baseline:random": "Answer each prompt' in out
    assert '"suites"' not in out


def test_each_listed_name_is_described():
    for rows in (KINDS["suites"](), KINDS["baselines"](), KINDS["recipes"]()):
        assert rows
        assert all(description.strip().endswith((".", ")")) for _, description in rows)


def test_the_installed_script_is_this_command(capsys):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["karel-bench"].partition(":")
    main = getattr(importlib.import_module(module), function)
    assert main(["--version"]) == command.main(["--version"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second


def documented_commands() -> list[str]:
    """Command lines of this project in the pages: indented blocks and what is quoted, continued lines joined."""
    found: set[str] = set()
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        lines = re.findall(r"^    (\S.*)$", text, re.M) + re.findall(r"`([^`\n]+)`", text)
        for line in lines:
            line = line.partition("  #")[0].strip()
            if re.match(r"(karel-bench|python -m (benchmark|baselines\.train)\b)", line):
                found.add(line)
    return sorted(found)


@pytest.mark.parametrize("line", documented_commands())
def test_documented_commands_parse(line, capsys):
    words = shlex.split(re.sub(r"\[[^]]*\]|\.\.\.", "", line.partition(" > ")[0].partition(" && ")[0]))
    words = words[1:] if words[0] == "karel-bench" else [words[2].rpartition(".")[2], *words[3:]]
    if not words or "NAME" in words[0] or "COMMAND" in words[0] or words[0] == "--help":
        return
    assert words[0] in SUBCOMMANDS, line
    # Unknown options are refused before the help is printed.
    with pytest.raises(SystemExit):
        command.main([*words, "--help"])
    capsys.readouterr()
