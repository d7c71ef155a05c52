"""Chat templates are rendered as by transformers, with a fixed date, no random filters, and bounded work."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from baselines.tokenizer import build_tokenizer
from benchmark.errors import ModelError
from benchmark.tasks.chat_template import render, render_chat
from benchmark.tasks.prompt_template import FEWSHOT, build_prompt_template
from benchmark.tasks.suite import load_suite

TURNS = [
    {"role": "user", "content": "one\n"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "<3>"},
]
TEMPLATES = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "blocks": "{{- bos_token }}\n{%- set ns = namespace(first=true) %}\n{%- for m in messages %}\n"
    "    {%- if m['role'] == 'user' and not ns.first %}{{ '\\n' }}{%- endif %}\n{%- set ns.first = false %}"
    "{%- generation %}{{ m.content | trim | tojson }}{%- endgeneration %}{%- if loop.index > 5 %}{%- break %}{%- endif %}"
    "\n{%- endfor %}\n{%- if tools is not none %}tools{%- endif %}{{ dict(a=1)['a'] }}",
    "macro": "{% macro turn(m) %}[{{ m.role | upper }}]{{ m.content }}{% endmacro %}"
    "{% for m in messages %}{{ turn(m) }}{% endfor %}{{ eos_token }}",
}  # fmt: skip
DATED = "{{ strftime_now('%Y-%m-%d %H:%M:%S %f') }}" + TEMPLATES["chatml"]
SUITE = replace(load_suite("smoke"), tasks=20, probe_programs=50, sha256="")


@pytest.mark.parametrize("name", TEMPLATES)
def test_as_transformers_renders_it(name):
    tokenizer = build_tokenizer()
    tokenizer.bos_token = "<start>"
    expected = tokenizer.apply_chat_template(
        TURNS, chat_template=TEMPLATES[name], tokenize=False, add_generation_prompt=True
    )
    special = {key: str(value) for key, value in tokenizer.special_tokens_map.items()}
    assert render_chat(TEMPLATES[name], TURNS, special, {}) == expected


def test_the_date_is_fixed():
    first = render(DATED, {"messages": TURNS})
    time.sleep(0.002)
    assert render(DATED, {"messages": TURNS}) == first
    assert first.startswith("2026-01-01 00:00:00")


@pytest.mark.parametrize("template", ["{{ [1, 2, 3] | random }}", "{{ lipsum() }}"])
def test_random_filters_are_removed(template):
    with pytest.raises(ModelError, match="chat template: "):
        render(template, {"messages": TURNS})


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{% for a in range(9999) %}{% for b in range(9999) %}{% set c = a %}{% endfor %}{% endfor %}",
            "2,000,000 steps",
        ),
        ("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", "recursion|steps"),
        ("{% for a in range(50000) %}{{ 'x' * 1000 }}{% endfor %}", "4,000,000 characters"),
        ("{{ messages[0].__class__.__mro__ }}", "unsafe"),
        ("{{ raise_exception('only one\nturn') }}", "chat template: only one turn; remove it"),
        ("{% if", "chat template: "),
    ],
)
def test_unbounded_work_is_stopped(template, message):
    with pytest.raises(ModelError, match=message) as caught:
        render(template, {"messages": TURNS})
    assert "\n" not in str(caught.value)


def test_memory_is_bounded():
    with pytest.raises(ModelError, match=r"chat template: took more than 1\.1 GB of memory"):
        render_chat("{{ ('x' * 9999999999) | length }}", TURNS, {}, {})


THINKING = (
    TEMPLATES["chatml"]
    + "{% if enable_thinking | default(true) %}<think>\n{% else %}<think>\n\n</think>\n\n{% endif %}"
)


def test_a_prompt_that_ends_inside_a_thinking_block_is_refused():
    tokenizer = build_tokenizer()
    tokenizer.chat_template = THINKING
    frame = build_prompt_template(SUITE, FEWSHOT, tokenizer)
    assert frame.after.endswith("</think>\n\ndef run() {")
    tokenizer.chat_template = TEMPLATES["chatml"] + "<think>\n"
    with pytest.raises(ModelError, match=r"chat template: the prompt ends inside a thinking block \(.*<think>'\)"):
        build_prompt_template(SUITE, FEWSHOT, tokenizer)
