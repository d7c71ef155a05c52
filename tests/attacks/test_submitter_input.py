"""Evaluating what a submitter wrote.

Wang, Mang, Cheung, Sen and Song (UC Berkeley RDI), "How We Broke Top AI Agent Benchmarks: And What Comes Next", April 2026:
evaluators called `eval()` on text of the agent that they graded.

Every place that holds text gets expressions that would write a file if anything evaluated them.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hostile import append, entry, sample, write
from proposals import NGRAM, copy_row

from benchmark.runner.redaction import has_paths
from benchmark.submit.command import main
from benchmark.tasks.scoring import OUTCOMES, score_programs
from benchmark.tasks.suite import load_suite
from benchmark.tasks.suite import test_tasks as drawn_tasks


class Writes:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "ran")


def expressions(path: Path) -> list[str]:
    return [
        f"__import__('pathlib').Path({str(path)!r}).write_text('ran')",
        f"{{{{ cycler.__init__.__globals__.os.system('touch {path}') }}}}",
        f"${{jndi:file://{path}}}", f"$(touch {path})", f"`touch {path}`", f"!!python/object/apply:os.system ['touch {path}']",
        f"'; touch {path}; '", f"=cmd|'/c touch {path}'!A0", f"%(touch {path})s", f"{{0.__class__.__init__.__globals__[os].system({path})}}",
    ]  # fmt: skip


@pytest.fixture
def ran(tmp_path):
    path = tmp_path / "ran"
    yield path
    assert not path.exists(), "something was evaluated"


def test_programs_are_parsed_as_karel_alone(ran):
    suite = load_suite("smoke")
    tasks = drawn_tasks(suite)
    texts = (expressions(ran) * 4)[: len(tasks)]
    scores = score_programs(suite, tasks, texts)
    assert not scores.shown.any()
    assert {OUTCOMES[i] for i in scores.outcome} == {"unparsable"}


@pytest.mark.parametrize("number", range(10))
def test_descriptions_and_records_are_text(number, ran, tmp_path, capsys):
    text = expressions(ran)[number]
    folder = copy_row(NGRAM, tmp_path / NGRAM)
    for field in ("family", "training.command", "training.data", "evaluation.command", "evaluation.hardware"):
        entry(field, text)(folder)
    entry("authors", [text])(folder)
    entry("provenance.command", text, "record.json")(folder)
    sample(lambda row: row.update(text=text, outcome="unparsable"))(folder)
    append("README.md", text)(folder)
    # A text that names a file of this machine is refused before anything is compared.
    assert main(["verify", str(folder), "--incoming"]) == (3 if has_paths(text) else 4)
    capsys.readouterr()


def test_what_holds_objects_is_refused(ran, tmp_path, capsys):
    content = pickle.dumps(Writes(ran))
    for number, (name, document) in enumerate(
        [("model.safetensors", content), ("probes.data", content), ("pytorch_model.bin", content),
         ("submission.yaml", f"name: !!python/object/apply:os.system ['touch {ran}']\n".encode()),
         ("tokenizer_config.json", json.dumps({"auto_map": "x"}).encode())]
    ):  # fmt: skip
        folder = copy_row(NGRAM, tmp_path / str(number) / NGRAM)
        write(name, document)(folder)
        assert main(["verify", str(folder), "--incoming"]) == 3, name
    capsys.readouterr()
