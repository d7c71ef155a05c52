"""The spread between seeds of a recipe: which rows share one, Student's and Welch's intervals against SciPy."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from forged import SHIPPED
from scipy import stats

from benchmark.board.overview_figure import read_overview
from benchmark.board.ranking import rank_groups, read_board
from benchmark.board.sections.seed_spread import (
    FIGURES,
    SAME_NETWORK,
    compare_recipes,
    comparison_rows,
    measure_spread,
    read_recipes,
    rows_by_recipe,
    spread_lines,
    spread_rows,
    spreads_of_group,
)
from benchmark.board.site.documents import Links, render_group, render_index, render_row
from benchmark.board.site.group_table import build_tables, represents_uses_chart
from benchmark.board.site.result_sentence import result_sentence
from benchmark.board.site.row_body import RowBody
from benchmark.statistics import Estimate


@pytest.fixture(scope="module")
def rows():
    return read_board(SHIPPED)


def estimates(values):
    return [Estimate(value, value - 0.01, value + 0.03, 100) for value in values]


def test_rows_of_one_recipe_are_those_that_differ_in_the_seed_only(rows):
    recipes = read_recipes(SHIPPED, rows)
    by_recipe = {}
    for folder, recipe in recipes.items():
        by_recipe.setdefault(recipe, set()).add(folder.partition("_")[2])
    assert {"gpt-laptop", "gpt-laptop-2", "gpt-laptop-3"} in by_recipe.values()
    (small,) = (names for names in by_recipe.values() if "gpt-small-laptop-2" in names)
    assert {"gpt-small-laptop-2", "gpt-small-laptop-3"} <= small
    assert "gpt-small-laptop" not in small, "trained in bfloat16"
    assert sum(len(names) > 1 for names in by_recipe.values()) == 2
    assert "seed" in SAME_NETWORK


def test_another_precision_is_no_seed_of_the_same_recipe(rows, tmp_path):
    trainings = [
        {"recipe": {"tasks": 8, "seed": 1}, "precision": "bf16"},
        {"recipe": {"tasks": 8, "seed": 2}, "precision": "no"},
        {"recipe": {"tasks": 8, "seed": 3}},
    ]
    for row, training in zip(rows[:3], trainings, strict=True):
        (tmp_path / row.folder).mkdir()
        (tmp_path / row.folder / "training.json").write_text(json.dumps(training))
    bfloat16, *float32 = read_recipes(tmp_path, rows).values()
    assert len(set(float32)) == 1
    assert bfloat16 not in float32


def test_a_damaged_or_missing_recipe_is_left_out(rows, tmp_path):
    seeded = {"recipe": {"tasks": 1, "seed": 1}}
    texts = ['{"recipe": "x"}', "{", json.dumps({"recipe": {"tasks": 1}})]
    texts += [json.dumps({**seeded, "precision": value}) for value in ("<b>", ["bf16"], None)]
    for row, text in zip(rows[: len(texts)], texts, strict=True):
        (tmp_path / row.folder).mkdir()
        (tmp_path / row.folder / "training.json").write_text(text)
    assert read_recipes(tmp_path, rows) == {}


def test_intervals_are_those_of_students_t():
    values = [0.191, 0.142, 0.17]
    spread = measure_spread("recipe", "use", estimates(values))
    expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (spread.mean.low, spread.mean.high) == pytest.approx(expected)
    assert spread.deviation == pytest.approx(np.std(values, ddof=1))
    assert spread.row_half_width == pytest.approx(0.02)
    assert spread.mean.n == 3


def test_recipes_are_compared_by_welchs_t():
    first, second = [0.2, 0.3, 0.25, 0.22], [0.1, 0.02]
    spreads = [measure_spread(name, "uses: use", estimates(part)) for name, part in (("a", first), ("b", second))]
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    compared = compare_recipes(*spreads)
    assert (compared.low, compared.high) == pytest.approx((expected.low, expected.high))
    assert compared.n == 2
    same = compare_recipes(*(measure_spread("c", "use", estimates([0.5, 0.5])) for _ in range(2)))
    assert (same.low, same.high) == (0, 0)
    (line,) = comparison_rows(spreads)
    assert line["recipes"] == "a - b"


def test_the_board_shows_the_spread_of_the_shipped_recipe(rows):
    (group,) = (group for group in rank_groups(rows) if (group.suite, group.track) == ("laptop", "trained"))
    recipes = read_recipes(SHIPPED, rows)
    spreads = spreads_of_group(group, recipes)
    names = ["gpt-laptop, bfloat16", "gpt-small-laptop, float32"]
    assert [(spread.recipe, spread.figure) for spread in spreads] == [
        (name, figure) for name in names for figure in FIGURES
    ]
    assert [len(spread.values) for spread in spreads[: len(FIGURES)]] == [3] * len(FIGURES)
    delta = spreads[list(FIGURES).index("represents: delta")]
    # Another network of the recipe differs by more than the interval of a row says.
    assert delta.deviation > delta.row_half_width
    lines = spread_lines(group, recipes, lambda table: f"{len(table)} rows of {sorted(table[0])[0]}")
    assert lines[1] == "### Spread between seeds"
    assert f"{len(spread_rows(spreads))} rows of figure" in lines
    unranked = replace(group, rows=tuple(replace(row, rank=None) for row in group.rows))
    assert spread_lines(unranked, recipes, str) == []


def test_a_row_read_from_few_programs_is_counted_with_no_other(rows):
    group = next(group for group in rank_groups(rows) if (group.suite, group.track) == ("laptop", "trained"))
    first = next(ranked for ranked in group.rows if ranked.row.measurements.represents)
    measurements = first.row.measurements
    few = replace(measurements, represents=measurements.represents.model_copy(update={"few_programs": True}))
    other = replace(first, row=replace(first.row, measurements=few))
    read_delta = FIGURES["represents: delta"]
    assert read_delta(first.row) is not None
    assert read_delta(other.row) is None
    changed = replace(group, rows=tuple(other if ranked is first else ranked for ranked in group.rows))
    counted, counted_after = (
        int(re.search(r"Of (\d+) networks", result_sentence(build_tables([part], None, ())))[1])
        for part in (group, changed)
    )
    assert counted_after == counted - 1
    kinds = dict.fromkeys((ranked.row.family for ranked in group.rows), 0)
    drawn, drawn_after = (
        sum(len(series.marks) for series in represents_uses_chart(build_tables([part], None, ())[0].rows, kinds).series)
        for part in (group, changed)
    )
    assert drawn_after == drawn - 1
    (overview,) = read_overview([other.row], SHIPPED, "laptop")
    assert overview.represents is None


def test_two_recipes_whose_rows_have_the_same_name_are_kept_apart(rows):
    (group,) = (group for group in rank_groups(rows) if (group.suite, group.track) == ("laptop", "trained"))
    first, second, third, fourth = (ranked.row.folder for ranked in group.rows[:4])
    recipes = {first: '["no", {"tasks": 1}]', second: '["no", {"tasks": 1}]'}
    recipes |= {third: '["no", {"tasks": 2}]', fourth: '["no", {"tasks": 2}]'}
    declared = group.rows[0].row.declared.model_copy(update={"name": "m-1"})
    same_name = [replace(ranked, row=replace(ranked.row, declared=declared)) for ranked in group.rows]
    by_recipe = rows_by_recipe(replace(group, rows=tuple(same_name)), recipes)
    assert [{row.folder for row in of_recipe} for of_recipe in by_recipe.values()] == [{first, second}, {third, fourth}]
    assert list(by_recipe) == ["m, float32", f"{min(third, fourth)}, float32"]


def test_the_page_shows_the_spread_below_the_table_and_on_the_rows_of_the_recipe(rows):
    (group,) = (group for group in rank_groups(rows) if (group.suite, group.track) == ("laptop", "trained"))
    (table,) = build_tables([group], None, (), read_recipes(SHIPPED, rows))
    links = Links("#board", lambda slug: f"rows/{slug}.html")
    delta = spreads_of_group(group, read_recipes(SHIPPED, rows))[list(FIGURES).index("represents: delta")]
    for html in (render_index([table], links, True), render_group(table, links)):
        part = html.partition("Spread between training seeds</summary>")[2].partition("</details>")[0]
        assert f">{delta.deviation:.3f}</td>" in part
    assert "Spread between training seeds" not in render_index([table], links, False), "it is on the group's page"
    pages = {row.ranked_row.row.name: render_row(table, row, RowBody("", "{}", ["x"], {}), links) for row in table.rows}
    page = pages["gpt-laptop-3"]
    assert "trained 3 times" in page
    assert ">gpt-laptop</a>" in page
    assert ">gpt-laptop-2</a>" in page
    assert f"{min(delta.values):.3f} to {max(delta.values):.3f} (3)" in page
    assert [name for name, text in pages.items() if "Other seeds" in text] == [
        name
        for name in pages
        if name in ("gpt-laptop", "gpt-laptop-2", "gpt-laptop-3") or name.startswith("gpt-small-laptop-")
    ]
    (plain,) = build_tables([group], None, ())
    assert "between training seeds" not in render_index([plain], links, True)
