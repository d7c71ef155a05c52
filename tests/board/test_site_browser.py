"""The site as a folder in a real Chromium, opened from the file system: links, players, old addresses, hostile rows."""

from __future__ import annotations

import os
import re
from dataclasses import replace

import pytest
from measured_rows import few_pairs
from shown_board import IMAGE, add_hostile, copy_rows
from test_browser import CHROMIUM, CONTRAST, PATIENCE, SCHEMES, SLUG, assert_policy_stops, expect, settle

from benchmark.board.page import main
from benchmark.board.ranking import rank_groups, read_leaderboard_rows
from benchmark.board.site.documents import render_index
from benchmark.board.site.folder import INDEX_LINKS
from benchmark.board.site.group_table import build_tables
from benchmark.installation.paths import SOURCE_ROOT

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found, or a path in CHROMIUM")
MANY = 1_000


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site over three rows and a hostile one."""
    target = copy_rows(tmp_path_factory.mktemp("rows"))
    add_hostile(target)
    folder = tmp_path_factory.mktemp("site")
    with few_pairs():
        assert main(["--submissions", str(target), "--output-dir", str(folder)]) == 0
    return folder


@pytest.fixture
def opened(browser, site):
    """Opens a document; at the end nothing but documents of the site was loaded, and nothing went wrong."""
    pages, problems, requests = [], [], []

    def open_page(path: str = "index.html", **settings):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append((request.resource_type, re.split("[?#]", request.url)[0])))
        page.goto(f"{site.as_uri()}/{path}")
        pages.append(page)
        return page

    yield open_page
    hacked = [page.evaluate("window.hacked") for page in pages]
    for page in pages:
        page.context.close()
    assert problems == []
    assert {kind for kind, _ in requests} == {"document"}
    assert {url for _, url in requests} <= {path.as_uri() for path in site.rglob("*.html")}
    assert set(hacked) == {None}


def test_a_row_is_opened_from_the_board_and_plays(opened):
    page = opened()
    rows = page.locator("table.board tbody tr:visible")
    assert rows.count() == 4
    page.locator("table.board th[data-key=held_out]").first.get_by_role("button").click()
    shares = [float(cell.get_attribute("data-order")) for cell in page.locator("[data-key=held_out][role=cell]").all()]
    assert shares == sorted(shares, reverse=True)
    page.locator(f"a[href='rows/{SLUG}.html']").first.click()
    expect(page).to_have_title(re.compile("^gpt-laptop - "))
    assert page.locator("article:visible").count() == 1
    player = page.locator(".player")
    player.get_by_role("button", name="Last step").click()
    assert re.match(r"Step (\d+) of \1: ", player.get_by_role("status").text_content())
    turns = page.locator(".steering .turns button:enabled")
    turns.first.press("Enter")
    assert "in its state it writes " in page.locator(".steering").get_by_role("status").text_content()
    page.get_by_role("link", name="← Leaderboard").click()
    expect(page.locator("#board")).to_be_visible()


def test_an_address_of_a_row_in_the_single_file_leads_to_its_page(opened, site):
    page = opened(f"index.html#{SLUG}")
    page.wait_for_url(f"{site.as_uri()}/rows/{SLUG}.html")
    page = opened("index.html#nothing%")
    assert page.locator("#board").is_visible()


def test_filters_and_order_stand_in_the_address(opened, site):
    """What is chosen can be shared: the address gives the same view in another window."""
    page = opened()
    page.get_by_label("Family").select_option("gpt")
    page.get_by_label("Columns").select_option("all")
    page.locator("table.board th[data-key=valid]").first.get_by_role("button").click()
    page.locator("table.board th[data-key=valid]").first.get_by_role("button").click()
    query = page.evaluate("location.search")
    assert query == "?family=gpt&columns=all&sort=valid&order=ascending"
    shown = page.locator("table.board tbody tr:visible").all_text_contents()
    assert 0 < len(shown) < 4
    other = opened(f"index.html{query}")
    assert other.locator("table.board tbody tr:visible").all_text_contents() == shown
    assert other.get_by_label("Sort by").input_value() == "valid"
    assert other.locator("th[data-key=valid]").first.get_attribute("aria-sort") == "ascending"
    page.get_by_label("Family").select_option("")
    page.get_by_label("Sort by").select_option("rank")
    page.get_by_label("Columns").select_option("few")
    assert page.evaluate("location.search") == ""
    page = opened("index.html?family=nobody&sort=%3Cb%3E&order=x&suite=none")
    assert page.locator("table.board tbody tr:visible").count() == 4


def test_few_columns_at_first_and_each_leads_to_its_definition(opened):
    page = opened()
    heads = page.locator("table.board").first.locator("th[data-key]:visible")
    few = ["rank", "model", "held_out", "represents", "uses", "merges", "status"]
    assert [head.get_attribute("data-key") for head in heads.all()] == few
    assert page.locator("table.board").first.locator("tbody tr:visible").first.locator("> *:visible").count() == len(
        few
    )
    page.get_by_label("Sort by").select_option("exact")
    assert page.locator("th[data-key=exact]").first.is_visible(), "what rows are sorted by is shown"
    page.get_by_label("Sort by").select_option("rank")
    assert page.locator("th[data-key=exact]").first.is_hidden()
    meaning = page.locator("#column-held-out dd")
    assert meaning.is_hidden()
    head = page.locator("th[data-key=held_out]").first
    head.get_by_role("link", name="Definition of held-out %").click()
    expect(meaning).to_be_visible()
    assert meaning.text_content() == f"{head.get_attribute('title')}."
    expect(opened("index.html#column-merges").locator("#column-merges")).to_be_in_viewport()


@pytest.mark.parametrize("width", [360, 1024, 1280])
def test_nothing_is_clipped(opened, width):
    """The page is as wide as the screen, each table as wide as its frame, and no text of the picture is outside of it."""
    wide = ["index.html?columns=all"] if width == 1280 else []
    for path in ("index.html", f"rows/{SLUG}.html", *wide):
        page = opened(path, viewport={"width": width, "height": 900})
        settle(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        clipped = page.evaluate(
            "[...document.querySelectorAll('.cards')].filter(e => e.scrollWidth > e.clientWidth).length"
        )
        assert clipped == 0
        outside = page.evaluate(
            """[...document.querySelectorAll('.chart svg text, .chart svg path')].filter((e) => {
                const inner = e.getBoundingClientRect(), outer = e.closest('.chart').getBoundingClientRect();
                return e.checkVisibility() && (inner.left < outer.left || inner.right > outer.right);
            }).map((e) => e.textContent)"""
        )
        assert outside == []


def test_the_result_and_its_picture_come_first(opened):
    page = opened()
    result = page.locator(".result")
    assert "to use it when" in result.text_content()
    places = [page.locator(part).first.bounding_box()["y"] for part in (".result", "#filters", "table.board")]
    assert places == sorted(places)


def test_an_unknown_address_says_so(opened):
    page = opened("index.html#nobody")
    assert page.get_by_role("alert").text_content() == "No row has this address: nobody"
    assert page.locator("#board").is_visible()
    assert opened().locator("#unknown").is_hidden()


def test_hostile_rows_are_words(opened):
    page = opened()
    row = page.locator("table.board tr[data-status=flagged]")
    assert row.locator(".family").text_content() == IMAGE
    row.locator("th a").click()
    expect(page.locator("article h1")).to_have_text("search")
    assert page.get_by_text(IMAGE).count() >= 2
    value = page.locator("optgroup[label*=unparsable] option").first.get_attribute("value")
    page.get_by_label("What to play").select_option(value)
    assert IMAGE in page.locator(".player pre").text_content()
    assert page.locator("img").count() == 0
    assert page.locator("body script:not([type])").count() == 1


@pytest.mark.parametrize("path", ["index.html", f"rows/{SLUG}.html"])
def test_the_policy_stops_what_would_get_in(browser, site, path):
    page = browser.new_page()
    page.goto(f"{site.as_uri()}/{path}")
    script = site / "rows" / "evil.js"
    script.write_text("window.hacked = 1")
    attempt = """
        const inline = document.createElement("script");
        inline.textContent = "window.hacked = 1";
        const loaded = document.createElement("script");
        loaded.src = location.href.includes("/rows/") ? "evil.js" : "rows/evil.js";
        const frame = document.createElement("iframe");
        frame.src = "index.html";
        document.body.append(inline, loaded, frame);
        await fetch("https://example.invalid/").catch(() => 0);
        document.body.setAttribute("style", "color: red");
    """
    assert_policy_stops(page, attempt, {"script-src-elem", "frame-src", "connect-src", "style-src-attr"})
    page.close()
    script.unlink()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("path", ["index.html", f"rows/{SLUG}.html"])
def test_text_has_contrast_and_narrow_screens_do_not_scroll_sideways(opened, path, scheme):
    page = opened(path, viewport={"width": 360, "height": 740}, color_scheme=scheme)
    settle(page)
    measured = page.evaluate(CONTRAST)
    assert len(measured) > 60
    assert measured[0][0] >= 4.5, measured[:5]
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator("h1:visible").count() == 1


@pytest.mark.parametrize("path", ["index.html", f"rows/{SLUG}.html"])
def test_without_scripts_everything_can_be_read(opened, path):
    page = opened(path, java_script_enabled=False)
    assert page.locator(".needs-js:visible").count() == 0
    assert page.locator("table:visible").count() >= 1
    words = page.locator("main").text_content()
    assert "REPRESENTS" in words
    assert "96.2 [9" in words


def test_a_long_table_shows_its_first_rows_and_the_others_on_request(browser, site):
    """Three hundred copies of a line: sorted and filtered as a whole."""
    text = (site / "index.html").read_text()
    line = re.search(r"<tr><td>.*?</tr>", text, re.DOTALL).group(0)
    lines = [re.sub(r"(<td) data-order=\"[^\"]*\"", rf'\1 data-order="{number / 1000}"', line) for number in range(300)]
    (site / "long.html").write_text(text.replace(line, "\n".join(lines)).replace('class="board"', 'class="board long"'))
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto((site / "long.html").as_uri())
    rows = page.locator("table.board").first.locator("tbody tr:visible")
    total = page.locator("table.board tbody tr").count()
    num_first = page.locator("table.board").first.locator("tbody tr").count()
    assert num_first >= 300
    assert rows.count() == 200
    assert page.locator("#shown").text_content() == f"{total - num_first + 200} of {total} rows shown"
    head = page.locator("table.board").first.locator("th[data-key=held_out]").get_by_role("button")
    head.click()
    orders = [row.locator("[data-key=held_out]").get_attribute("data-order") for row in (rows.first, rows.nth(1))]
    assert float(orders[0]) > float(orders[1]) >= 0.298, (
        "the largest of all rows come first, not of those that were shown"
    )
    page.get_by_role("button", name=f"Show all {num_first} rows").click()
    assert rows.count() == num_first
    assert rows.nth(num_first - 1).locator("[data-key=held_out] .value").count() <= 1
    assert page.locator("#shown").text_content() == f"{total} rows shown"
    assert page.get_by_role("button", name=re.compile("Show all")).count() == 0
    page.close()
    (site / "long.html").unlink()


@pytest.mark.slow
def test_the_first_page_of_a_thousand_rows_in_a_browser(browser, tmp_path, capsys):
    """Seconds until the document is there with its script run; rows that are visible at first."""
    shipped = read_leaderboard_rows(SOURCE_ROOT / "submissions")
    rows = [replace(shipped[i % len(shipped)], folder=f"row-{i}") for i in range(MANY)]
    document = render_index(build_tables(rank_groups(rows), None, ()), INDEX_LINKS, is_detailed=False)
    path = tmp_path / "index.html"
    path.write_text(document)
    assert path.stat().st_size < 1e6
    page = browser.new_page()
    page.goto(path.as_uri())
    loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd / 1000")
    painted = page.evaluate("performance.getEntriesByType('paint')[0].startTime / 1000")
    num_visible = page.locator("table.board tbody tr:visible").count()
    page.close()
    assert 200 <= num_visible < MANY
    with capsys.disabled():
        size, load = path.stat().st_size / 1e6, os.getloadavg()[0]
        print(
            f"\n{MANY:,} rows, {size:.2f} MB: painted after {painted:.2f} s, loaded after {loaded:.2f} s, load {load:.1f}"
        )
