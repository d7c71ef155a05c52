"""A row in one sentence: every combination of verdicts, also of missing ones; and no p value is 0."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmark.board.sections.row_sentence import row_sentence, share_in_words
from benchmark.board.tables import format_p
from benchmark.causal import report

REPRESENTS = ("REPRESENTS", "RECORD-ONLY", "NOTHING READ", "INCONCLUSIVE", None)
USES = ("USES", "NOT SHOWN", "N/A", None)


def sentence(represents: str | None, uses: str | None, parameters: int = 5, shown: float = 0.962) -> str:
    record = SimpleNamespace(
        accuracy=SimpleNamespace(shown=SimpleNamespace(value=shown)), model=SimpleNamespace(parameters=parameters)
    )
    verdicts = {"represents": represents, "uses": uses}
    return row_sentence(SimpleNamespace(record=record, measurements=SimpleNamespace(verdicts=verdicts)))


def test_every_combination_of_verdicts_is_a_sentence_of_its_own():
    texts = {(represents, uses): sentence(represents, uses) for represents, uses in product(REPRESENTS, USES)}
    assert len(set(texts.values())) == len(REPRESENTS) * len(USES)
    for (represents, uses), text in texts.items():
        assert re.fullmatch(r"[A-Z][^.]*\.", text), text
        assert text.startswith("Writes a program that is right on the shown examples for 96% of the tasks; ")
        assert ("its states hold the robot's rotation;" in text) == (represents == "REPRESENTS")
        assert ("; it uses " in text) == (uses == "USES")
        assert ("is not shown" in text) == (uses == "NOT SHOWN")
        assert text.count("not measured") == (
            1 if represents is None and uses is None else (represents is None) + (uses is None)
        )


def test_the_sentence_of_the_issue():
    assert sentence("REPRESENTS", "USES").endswith(
        "for 96% of the tasks; its states hold the robot's rotation; it uses it when it writes the next word."
    )
    assert sentence(None, "N/A", parameters=0).endswith("; it is no neural network and has no hidden states.")


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.0, "none"), (1.0, "all"), (0.9999, "more than 99%"), (0.0001, "less than 1%"), (0.5, "50%"), (0.01, "1%")],
)
def test_all_and_none_are_exact(share, words):
    assert share_in_words(share) == words
    assert f"for {words} of the tasks" in sentence(None, None, shown=share)


def test_every_p_value_is_printed_by_these_functions():
    """A format of its own, such as `{p:.2g}`, would print a p value that is too small for a float as 0."""
    own = re.compile(r"\{[\w.]*\bp(_holm|_rand|_value)?:[^{}]*\}")
    root = Path(__file__).parents[2] / "benchmark"
    lines = [
        f"{path.name}: {line.strip()}"
        for path in root.rglob("*.py")
        for line in path.read_text().splitlines()
        if own.search(line)
    ]
    assert len(lines) == 2, lines
    assert {line.partition(": ")[0] for line in lines} == {"report.py", "tables.py"}


@pytest.mark.parametrize("p", [0.0, 5e-324, 1e-301, 1e-9, 0.00049])
def test_a_p_value_is_never_0(p):
    for text in (format_p(p), report.format_p(p)):
        assert "<" in text or float(text) > 0
