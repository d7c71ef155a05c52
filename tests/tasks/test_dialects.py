"""Programs as Python text: the same tasks, prompts, extraction of answers, alignment with tokens, grammar."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from byte_pairs import byte_pairs

from benchmark.errors import ModelError
from benchmark.models.decoding import Grammar, find_program_end
from benchmark.models.token_alignment import align_tokens
from benchmark.tasks.extraction import count_headers, extract_program
from benchmark.tasks.prompt_template import FEWSHOT, build_prompt_template, describe_language, render_prompts
from benchmark.tasks.prompts import prompt_ids
from benchmark.tasks.suite import identify_suite, load_suite, set_prompts, shot_tasks
from benchmark.tasks.suite import test_tasks as tasks_of
from karel_env.language import HEADER_TEXT, Programs
from karel_env.syntax.dialects import DIALECTS, HEADERS, KAREL, PYTHON, parse_program, program_bodies, word_spans
from karel_env.syntax.parser import parse

SMOKE = replace(load_suite("smoke"), tasks=20, probe_programs=50, sha256="")
CONTROL = replace(load_suite("control"), tasks=20, probe_programs=50, sha256="")
NESTED = (
    "def run() { move(); ifelse (not markers_present()) { repeat (3) { turn_left(); }; } else { while (front_is_clear()) "
    "{ move(); }; }; if (no_markers_present()) { put_marker(); pick_marker(); turn_right(); }; }"
)
FLAT = "move(); turn_left(); }"
CANONICAL_TEMPLATES = {"laptop": "fb70c6603e9b", "control": "ecb99fe20f4a"}
"""First digits of the digests of few-shot templates, as before there was a second dialect."""


def merging():
    """A tokenizer as many models of code have: punctuation keeps the line breaks after it."""
    pattern = r" ?\w+| ?[^\s\w]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    return byte_pairs(pattern, ("def run():\n    move()\n    turn_left()\n",) * 9)


@pytest.mark.parametrize("suite", [SMOKE, CONTROL], ids=lambda suite: suite.name)
def test_python_prompts_have_the_same_tasks(suite) -> None:
    python = set_prompts(suite, dialect=PYTHON)
    assert (shot_tasks(python).key == shot_tasks(suite).key).all()
    templates = {dialect: build_prompt_template(set_prompts(suite, dialect=dialect), FEWSHOT) for dialect in DIALECTS}
    tasks = tasks_of(suite).take(np.arange(3))
    prompts = {name: render_prompts(suite, tasks, template=template) for name, template in templates.items()}
    for number, (canonical, code) in enumerate(zip(prompts[KAREL], prompts[PYTHON], strict=True)):
        assert code.endswith("program\ndef run():")
        worlds = render_prompts(suite, tasks)[number].removesuffix(HEADER_TEXT)
        assert worlds in code
        assert worlds in canonical
    shown = templates[PYTHON].before.split("program\n")[1:]
    words = [parse_program(part.partition("\n\n")[0], PYTHON).tolist() for part in shown]
    assert words == [parse(text).tolist() for text in shot_tasks(suite).programs.texts()]
    description = describe_language(python)
    assert ("for _ in range(N):" in description) == (suite is CONTROL)
    assert "{" not in description


@pytest.mark.parametrize(("name", "digest"), CANONICAL_TEMPLATES.items())
def test_canonical_prompts_are_as_they_were(name, digest) -> None:
    assert build_prompt_template(load_suite(name), FEWSHOT).digest.startswith(digest)


@pytest.mark.parametrize("suite", [SMOKE, CONTROL], ids=lambda suite: suite.name)
def test_fewer_examples_are_the_first_ones(suite) -> None:
    everything, fewer = shot_tasks(suite), shot_tasks(set_prompts(suite, 2))
    assert (fewer.key == everything.key[:2]).all()
    more = shot_tasks(set_prompts(suite, 7))
    assert (more.key[: len(everything)] == everything.key).all()
    template = build_prompt_template(set_prompts(suite, 0), FEWSHOT)
    assert (template.shots, template.before) == (0, f"{describe_language(suite)}\n\n")


def test_the_identity_of_a_suite_holds_what_differs_from_before() -> None:
    assert "dialect" not in identify_suite(SMOKE)
    assert identify_suite(set_prompts(SMOKE, dialect=PYTHON))["dialect"] == PYTHON
    assert identify_suite(set_prompts(SMOKE, SMOKE.shots)) == identify_suite(SMOKE)
    assert identify_suite(set_prompts(SMOKE, 1)) != identify_suite(SMOKE)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        ("\n    move()\n    turn_left()", FLAT),
        ("\n\tmove()\n\tturn_left()\n\nNext: something", FLAT),
        (" move(); turn_left()", FLAT),
        ("\n    # a comment\n    move()\n\n    turn_left()  # and one more\n```\nThis moves.", FLAT),
        (" pass\n\n```python\ndef run():\n    move()\n    turn_left()\n```", FLAT),
        ("\n  Sure:\n  def run():\n      move()\n      turn_left()\n  done", FLAT),
        ("\n    fly()\ndef run():\n    move()\n    turn_left()\ndef run():\n    move()", FLAT),
        ("\n    if not left_is_clear():\n        move()\n    else:\n        put_marker()",
         "ifelse (not left_is_clear()) { move(); } else { put_marker(); }; }"),
    ],
)  # fmt: skip
def test_the_program_of_an_answer_in_python(answer, body) -> None:
    assert extract_program(answer, PYTHON) == body


@pytest.mark.parametrize(
    "answer", [" move(); }", "\n    move(", "\n    fly()", " { move(); }", "\n    import os\n    move()"]
)
def test_an_answer_without_python_is_no_program_of_either_dialect(answer) -> None:
    text = extract_program(answer, PYTHON)
    assert answer in text
    with pytest.raises(ValueError, match=r"expected"):
        parse(f"{HEADER_TEXT} {text}")
    assert extract_program(" \n ", PYTHON).strip() == ""


def test_headers_are_counted_wherever_they_are() -> None:
    text = "A program is def run(): so.\n[INST] def run():\n    move()\ndef  run ( ) :"
    assert (count_headers(text, PYTHON), count_headers(text)) == (3, 0)


@pytest.mark.parametrize("make", [byte_pairs, merging], ids=["plain", "merging"])
def test_every_word_of_python_text_has_its_tokens(make) -> None:
    """The tokens of a word hold it, and none of the next word, also where a line break could merge with the prompt."""
    tokenizer, prompt = make(), "program\ndef run():"
    words = parse(NESTED)
    (body,) = program_bodies(Programs.of([words]), PYTHON)
    alignment, spans = align_tokens(tokenizer, prompt, body), word_spans(body)
    assert len(alignment.first) == len(spans) == len(words) - 3
    assert tokenizer.decode(alignment.ids) == body
    ends = [len(tokenizer.decode(alignment.ids[: i + 1])) for i in range(len(alignment.ids))]
    starts = [0, *ends[:-1]]
    visible = np.flatnonzero(spans[:, 1] > spans[:, 0])
    assert len(visible) == sum(word not in "{}};" for word in NESTED.split()[3:])
    for index, following in zip(visible, [*visible[1:], None], strict=True):
        (start, end), first, last = spans[index], alignment.first[index] - 1, alignment.last[index] - 1
        start -= body[start - 1] == " "
        assert starts[first] <= start < ends[first]
        assert starts[last] < end <= ends[last]
        if following is not None:
            assert ends[last] <= spans[following][0]
    joint = tokenizer(prompt + body)["input_ids"]
    is_merged = joint[: len(prompt_ids(tokenizer, prompt))] != prompt_ids(tokenizer, prompt)
    assert is_merged == (make is merging)


def test_a_token_across_two_words_is_refused() -> None:
    class Across:
        """One token for everything."""

        def __call__(self, text, **options):
            return {"input_ids": [7], "offset_mapping": [(0, len(text))], "special_tokens_mask": [0]}

    with pytest.raises(ModelError, match=r"one token holds the end of move\(\) and what follows"):
        align_tokens(Across(), "def run():", "\n    move()\n    turn_left()")


def test_where_a_function_ends() -> None:
    assert find_program_end("\n    move()\n\n    move()", PYTHON) is None
    assert find_program_end("\n    move()\n\ninput", PYTHON) == len("\n    move()\n")
    assert find_program_end(" move(); } x", KAREL) == len(" move(); }")


@pytest.mark.parametrize(
    ("text", "is_program"),
    [
        ("\n    move()\n    turn_left()", True),
        (
            "\n    if not left_is_clear():\n        move()\n    else:\n        for _ in range(19):\n            move()",
            True,
        ),
        ("\n    while front_is_clear():\n        move()\n\n", True),
        ("\n    while front_is_clear():\n    move()", False),
        ("\n  move()", False),
        ("\n    for _ in range(20):\n        move()", False),
        (" move(); }", False),
    ],
)
def test_the_grammar_of_python(text, is_program) -> None:
    tokenizer = byte_pairs()
    matcher = Grammar(tokenizer, len(tokenizer), PYTHON).matcher()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    is_accepted = matcher.validate_tokens(ids) == len(ids) and matcher.consume_tokens(ids) and matcher.is_accepting()
    assert is_accepted == is_program


def test_headers_are_those_that_prompts_end_with() -> None:
    assert HEADERS == {KAREL: "def run() {", PYTHON: "def run():"}
