"""README: its parts in their order, below 500 words, and what it says of results, task and suites is so."""

from __future__ import annotations

import ast
import gzip
import json
import re
from pathlib import Path

import numpy as np

import benchmark as kb
from benchmark.board.site.project_links import PAPER_ARXIV, PAPER_DOI
from benchmark.installation.paths import DEFAULT_MODEL
from benchmark.tasks import suite as suites
from benchmark.tasks.prompt_template import render_prompts

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
           "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17,
           "eighteen": 18, "nineteen": 19, "twenty": 20, "twenty-one": 21, "twenty-two": 22, "twenty-three": 23}  # fmt: skip


def block(start: str) -> str:
    """The indented block that begins with a text, without its indent."""
    lines = TEXT[TEXT.index(f"    {start}") :].splitlines()
    indented = lines[: next(i for i, line in enumerate(lines) if line and not line.startswith("    "))]
    return "\n".join(line[4:] for line in indented).strip()


def test_its_parts_come_in_order_and_it_is_short():
    parts = [
        "![", "Representing and using come apart", "    input\n", "turn_left();", "pip install -e . && python -m benchmark.run",
        "pip install -e '.[test]' && pytest", "karel-bench run",
        "import benchmark as kb", "| suite |", "## What it refuses to do", "## Links", f"https://doi.org/{PAPER_DOI}",
        f"https://arxiv.org/abs/{PAPER_ARXIV}",
    ]  # fmt: skip
    places = [TEXT.index(part) for part in parts]
    assert places == sorted(places)
    assert len(TEXT.split()) < 500
    assert TEXT.count("![") == 1
    assert (ROOT / re.search(r"!\[[^\]]*\]\(([^)]*)\)", TEXT)[1]).is_file()


def test_three_sentences_say_what_the_board_says():
    result = TEXT.split("\n\n")[2].replace("\n", " ")
    assert len(re.findall(r"\.(?: |$)", result)) == 3
    groups = json.loads((ROOT / "leaderboard.json").read_text())["groups"]
    rows = [row for group in groups if group["track"] == "trained" for row in group["rows"]]
    measured = [row for row in rows if row["represents"] and not row["few_programs"]]
    represents = [row["represents"] == "REPRESENTS" for row in measured]
    uses = [row["uses"] == "USES" for row in measured]
    both = sum(a and b for a, b in zip(represents, uses, strict=True))
    numbers = [NUMBERS[word] for word in re.findall(r"[\w-]+", result.lower()) if word in NUMBERS]
    assert numbers == [len(measured), sum(represents), sum(uses), both]


def test_the_task_is_the_first_of_its_suite_and_the_answer_the_models():
    suite = suites.load_suite("laptop")
    prompt = render_prompts(suite, suites.test_tasks(suite).take(np.array([0])))[0].splitlines()
    *shown, answer = block("input").splitlines()
    cut = shown.index("(two more examples)")
    assert shown[:cut] == prompt[:cut]
    assert shown[cut + 1 :] == prompt[-2:]
    assert prompt.count("input") == 3
    samples = gzip.decompress((ROOT / DEFAULT_MODEL / "samples.jsonl.gz").read_bytes()).splitlines()
    first = next(row for row in map(json.loads, samples) if row["stage"] == "test" and row["task"] == 0)
    assert answer.strip() == first["text"].strip()


def test_five_lines_of_python_call_what_is_there():
    code = block("import benchmark as kb")
    assert len(code.splitlines()) == 5
    called = [node.func.attr for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]  # fmt: skip
    assert called
    assert all(hasattr(kb, name) for name in called)


def test_the_table_names_every_suite():
    table = TEXT.partition("| suite |")[2].partition("\n\n")[0]
    names = {path.stem for path in (ROOT / "benchmark" / "tasks" / "suites").glob("*.yaml")}
    assert set(re.findall(r"`(\w+)`", table)) == names
