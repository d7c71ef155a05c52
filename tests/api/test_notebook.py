"""Results in a notebook: tables, figures, the player and a bar; the example notebook is executed, in a kernel if there is one."""

from __future__ import annotations

import ast
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

import benchmark as kb
from benchmark.api import evaluation, notebook_progress
from benchmark.api.inline import PLAYER_HEIGHT, Player, html_table
from benchmark.api.notebook_progress import NotebookProgress

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "in_a_notebook.ipynb"
PNG = b"\x89PNG\r\n"


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.fixture(scope="module")
def values() -> list[Any]:
    """The value of the last expression of each cell, executed one after another as a kernel does."""
    names: dict[str, Any] = {}
    results = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        for source in code_cells():
            *statements, last = ast.parse(source).body
            exec(compile(ast.Module(statements, []), NOTEBOOK.name, "exec"), names)
            if isinstance(last, ast.Expr):
                results.append(eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), names))
            else:
                exec(compile(ast.Module([last], []), NOTEBOOK.name, "exec"), names)
    return results


def test_a_report_is_a_table_with_a_figure(values) -> None:
    report, rows, figure, _ = values
    html = report._repr_html_()
    assert "<table>" in html
    assert "on smoke, 6 tasks, trained" in html
    assert [row["figure"] for row in rows][:2] == ["solved, shown examples", "solved, held-out examples"]
    assert rows[0] == {
        "figure": "solved, shown examples", "value": report.record.accuracy.shown.value,
        "low": report.record.accuracy.shown.low, "high": report.record.accuracy.shown.high, "n": 6,
    }  # fmt: skip
    assert html.count("<tr>") == 1 + len(rows)
    assert figure._repr_png_().startswith(PNG)
    assert "data:image/png;base64," in html
    assert 'alt="accuracies of ' in html


def test_the_player_holds_every_step_and_fetches_nothing(values) -> None:
    report, _, _, player = values
    assert player.tasks
    (page,) = re.findall(r'srcdoc="([^"]*)"', player._repr_html_())
    page = unescape(page)
    data, _ = json.JSONDecoder().raw_decode(page.partition("const tasks = ")[2])
    assert data == json.loads(json.dumps(player.tasks))
    assert not re.search(r"https?://|<link|src=", page)
    assert f'height="{PLAYER_HEIGHT}"' in player._repr_html_()
    assert [entry["task"] for entry in report.player(3).tasks] == [3]
    with pytest.raises(kb.InputError, match="expected a number from 0 to 5"):
        report.player(6)


def test_what_a_model_wrote_cannot_leave_the_player() -> None:
    entry = {
        "task": 0,
        "kind": "unparsable",
        "text": '</script><img src=x onerror=alert(1)>"',
        "problem": "no",
        "examples": [],
    }
    html = Player([entry])._repr_html_()
    assert html.count("<") == 2, "of the frame itself"
    assert 'sandbox="allow-scripts"' in html
    page = unescape(re.findall(r'srcdoc="([^"]*)"', html)[0])
    assert page.count("</script>") == 1
    assert "<td>&lt;b&gt;</td>" in html_table([{"text": "<b>", "value": 0.5}], "caption")


def test_the_figures_of_a_report_in_pandas(values) -> None:
    pandas = pytest.importorskip("pandas")
    frame = values[0].to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.loc["solved, shown examples", "n"] == 6


class Shown:
    """What a notebook shows of one output: the last HTML, and how often it changed."""

    def __init__(self) -> None:
        self.htmls: list[str] = []

    def __call__(self, html: str):
        self.htmls.append(html)
        return self.htmls.append


def test_the_bar_of_a_notebook() -> None:
    shown, now = Shown(), [0.0]
    progress = NotebookProgress(shown, lambda: now[0])
    progress.start("evaluating: test", 40)
    for seconds, steps in ((10.0, 1), (20.0, 19)):
        now[0] = seconds
        progress.advance(steps)
    progress.write("<b>accuracy</b>: 50%")
    html = shown.htmls[-1]
    assert '<progress value="20" max="40"' in html
    assert "evaluating: test · 20 of 40" in html
    assert "&lt;b&gt;accuracy" in html
    assert "0:00:20 so far, about 0:00:20 left" in html
    with progress.displayed():
        pass
    assert "finished" in shown.htmls[-1]


def test_a_bar_is_redrawn_four_times_per_second() -> None:
    shown, now = Shown(), [0.0]
    progress = NotebookProgress(shown, lambda: now[0])
    progress.start("reading", 1000)
    for _ in range(1000):
        now[0] += 0.01
        progress.advance(1)
    assert 35 <= len(shown.htmls) <= 50
    assert '<progress value="1000" max="1000"' in shown.htmls[-1]


@pytest.mark.parametrize(("shell", "is_bar"), [(None, False), (type("Kernel", (), {"kernel": 1})(), True)])
def test_a_bar_is_shown_where_somebody_watches(shell, is_bar, tiny_folder, monkeypatch) -> None:
    shown = Shown()
    monkeypatch.setattr(notebook_progress, "current_shell", lambda: shell)
    monkeypatch.setattr(evaluation, "NotebookProgress", lambda: NotebookProgress(shown))
    kb.evaluate(tiny_folder, suite="smoke", limit=1, accuracy_only=True)
    assert bool(shown.htmls) == is_bar
    if is_bar:
        assert "finished" in shown.htmls[-1]


def test_measurements_are_tables_with_figures(tiny_folder) -> None:
    probes = kb.blind_probe_set("smoke", programs=12, protocol=kb.TRIAL)
    hidden = kb.hidden_states(kb.load_model(tiny_folder), probes)
    result = kb.measure(probes, hidden, {"other": hidden[:, ::-1]}, features=["facing", "obstacle"])
    assert result.figure()._repr_png_().startswith(PNG)
    assert result._repr_html_().count("<tr>") == 3
    uses = kb.measure_use("baseline:search", settings=kb.TRIAL_PAIRS)
    assert "N/A: " in uses._repr_html_()
    with pytest.raises(kb.InputError, match="expected a model whose states were edited"):
        uses.figure()


@pytest.mark.slow
def test_the_notebook_runs_in_a_kernel(monkeypatch) -> None:
    """Needs nbclient and ipykernel, which nothing else here does."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, 4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()
    evaluated, *_, figure, player = [cell for cell in notebook.cells if cell.cell_type == "code"][1:]
    bar, report = evaluated.outputs
    assert "finished" in bar.data["text/html"]
    assert "<table>" in report.data["text/html"]
    assert figure.outputs[0].data["image/png"]
    assert "srcdoc=" in player.outputs[0].data["text/html"]
