"""The page in a real Chromium: sorting, filtering, the player by keyboard alone, hostile rows, contrast, narrow screens."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from shown_board import IMAGE, ROWS, add_hostile, copy_rows, rendered

from benchmark.probing.readout import load_readout
from benchmark.probing.verdict import load_blind_set
from benchmark.runner.record import read_record
from benchmark.tasks.suite import blind_tasks, load_suite
from karel_env.execution.stepping import snapshots
from karel_env.world import HEADINGS

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
expect = playwright.expect
PATIENCE = 600_000
"""Milliseconds; nothing is late, however busy the machine is."""
expect.set_options(timeout=PATIENCE)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SLUG = "2026-11-25-gpt-laptop"
SCHEMES = ("light", "dark")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason=f"no Chromium found: {', '.join(NAMES)}, or a path in CHROMIUM"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The page over three rows and a hostile one."""
    target = copy_rows(tmp_path_factory.mktemp("rows"))
    add_hostile(target)
    path = tmp_path_factory.mktemp("site") / "index.html"
    path.write_text(rendered(target))
    return path.as_uri()


@pytest.fixture
def opened(browser, site):
    """Opens the page with settings of its own; at the end, nothing was fetched and nothing went wrong."""
    pages, wrong, asked = [], [], []

    def open_page(fragment: str = "", **settings):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url.partition("#")[0]))
        page.goto(site + fragment)
        pages.append(page)
        return page

    yield open_page
    hacked = [page.evaluate("window.hacked") for page in pages]
    for page in pages:
        page.context.close()
    assert wrong == []
    assert set(asked) == {site}
    assert set(hacked) == {None}


SETTLED = """async () => {
  for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame);
  const finite = document.getAnimations().filter(one => one.effect.getComputedTiming().endTime !== Infinity);
  await Promise.allSettled(finite.map(one => one.finished));
}"""


def settle(page) -> None:
    """Wait until what was asked for is drawn and nothing moves towards it any more."""
    page.evaluate(SETTLED)


def column(page, key: str) -> list[str]:
    cells = page.locator(f".group:last-of-type table.board tbody tr:visible [data-key={key}]")
    return [cells.nth(i).get_attribute("data-order") for i in range(cells.count())]


def test_columns_sort_both_ways_and_what_is_missing_comes_last(opened):
    page = opened()
    head = page.locator("table.board th[data-key=held_out]")
    for wanted, order in (("descending", -1), ("ascending", 1)):
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == wanted
        values = [float(value) for value in column(page, "held_out")]
        assert values == sorted(values, key=lambda v: order * v)
        assert len(values) == 4
    for key in ("represents", "uses", "merges"):
        page.locator(f"table.board th[data-key={key}]").get_by_role("button").click()
        assert page.locator(f"table.board th[data-key={key}]").get_attribute("aria-sort") == "descending"
        values = column(page, key)
        assert float(values[0]) > 0
        assert values[1:] == ["", "", ""]
    assert page.locator("table.board th[aria-sort]").count() == 1
    page.get_by_label("Sort by").select_option("family")
    families = column(page, "family")
    assert families == sorted(families, key=str.lower)


def test_filters_by_family_status_and_suite(opened):
    page = opened()
    rows = page.locator("table.board tbody tr:visible")
    assert rows.count() == 4
    page.get_by_label("Family", exact=True).select_option("gpt")
    assert [row.get_attribute("data-family") for row in rows.all()] == ["gpt"]
    assert page.locator("#shown").text_content() == "1 row shown"
    page.get_by_label("Status", exact=True).select_option("flagged")
    assert rows.count() == 0
    assert page.get_by_text("No row of this suite matches the filter.").is_visible()
    page.get_by_label("Family", exact=True).select_option("")
    assert [row.get_attribute("data-status") for row in rows.all()] == ["flagged"]
    assert rows.first.locator(".rank").text_content() == "-"
    page.get_by_label("Suite", exact=True).select_option(index=1)
    assert rows.count() == 1


def test_the_player_by_keyboard_alone_shows_what_was_read(opened):
    """From the top of the board with Tab and Enter to the row, with Tab to the worlds, with arrows through the program."""
    page = opened()
    active = "document.activeElement"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(f"{active}.getAttribute('href')") == f"#{SLUG}":
            break
    page.keyboard.press("Enter")
    expect(page.locator(f"[id='{SLUG}']")).to_be_focused()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(f"{active}.className") == "stage":
            break
    row = page.locator(f"[id='{SLUG}']")
    said = row.locator(".player").get_by_role("status")
    assert said.text_content().startswith("Before the first step.")
    folder, suite = Path(__file__).parents[2] / "submissions" / ROWS[0], load_suite("laptop")
    probe_set, _ = load_blind_set(suite, read_record(folder / "record.json").protocol)
    original = load_readout(folder, probe_set).by_semantics[0]
    task = load_readout(folder, probe_set).task[0]
    worlds = snapshots(blind_tasks(suite).programs.program(task), blind_tasks(suite).inputs[task, 0])
    for step, (is_, read, share) in enumerate(
        zip(original.true[0], original.read[0], original.probability[0], strict=True), 1
    ):
        page.keyboard.press("ArrowRight")
        r, c, heading = worlds.robot[step].tolist()
        place = f"row {r}, column {c}, facing {HEADINGS[heading]}."
        words = said.text_content()
        assert words.startswith(f"Step {step} of 6: ")
        assert place in words
        assert f"The probe predicts {HEADINGS[read]}; probability of {HEADINGS[is_]}: {share:.2f}." in words
        assert place in row.locator(".player .world svg").first.get_attribute("aria-label")
        cells = row.locator(".player .reads tr[aria-current] td").all_text_contents()
        assert HEADINGS[is_] in cells[1]
        assert HEADINGS[read] in cells[2]
        assert ("✓" in cells[2]) == (is_ == read)
    page.keyboard.press("Home")
    assert row.locator(".player .reads tr[aria-current]").count() == 0
    page.keyboard.press("End")
    assert said.text_content().startswith("Step 6 of 6")
    page.keyboard.press("Space")
    assert row.get_by_role("button", name="Pause").is_visible()
    expect(said).to_have_text(re.compile("^Step 1"))
    page.keyboard.press("ArrowLeft")
    assert row.get_by_role("button", name="Play").is_visible()
    page.go_back()
    expect(page.locator("#board")).to_have_class(re.compile("open"))


def test_a_test_task_is_played_to_its_end(opened):
    page = opened(f"#{SLUG}")
    row = page.locator(f"[id='{SLUG}']")
    for kind, end in (("solved", "Output matches."), ("wrong output", "Output does not match.")):
        value = row.locator(f"optgroup[label='Test tasks: {kind}'] option").first.get_attribute("value")
        row.get_by_label("What to play").select_option(value)
        example = row.get_by_label("Example")
        options = example.locator("option").all_text_contents()
        place = next(i for i, one in enumerate(options) if one.endswith("right" if kind == "solved" else "wrong"))
        example.select_option(str(place))
        row.locator(".player").get_by_role("button", name="Last step").click()
        assert row.locator(".player").get_by_role("status").text_content().endswith(f" {end}")
        now, wanted = row.locator(".player .world svg").all()
        assert (now.get_attribute("aria-label") == wanted.get_attribute("aria-label")) == (kind == "solved")


def test_a_turn_shows_the_stored_word_in_every_world(opened):
    """By keyboard: a turn is pressed, the words that were written are said, and worlds are those of the stored data."""
    page = opened(f"#{SLUG}")
    part = page.locator(f"[id='{SLUG}'] .steering")
    stored = page.evaluate("slug => JSON.parse(document.getElementById('data').textContent).rows[slug].steering", SLUG)
    said = part.get_by_role("status")
    assert said.text_content().endswith("Press a turn to see what it writes after the edit.")
    names = {"3": "turn left", "2": "half turn", "1": "turn right"}
    spoken = lambda word: {"}": "the closing bracket"}.get(stored["words"][word], stored["words"][word][:-3])  # noqa: E731
    for index, entry in enumerate(stored["prefixes"]):
        part.get_by_label("Task and prefix").select_option(str(index))
        for turn, name in names.items():
            assert part.get_by_role("button", name=name).is_disabled() == (turn not in entry["turns"])
        for turn, written in entry["turns"].items():
            part.get_by_role("button", name=names[turn]).press("Enter")
            assert part.get_by_role("button", name=names[turn]).get_attribute("aria-pressed") == "true"
            words = said.text_content()
            assert f"Unedited, the model writes {spoken(entry['unedited']['word'])}." in words
            assert f"in its state it writes {spoken(written['word'])}, " in words
            assert ("which is the right word there" in words) == (written["word"] == written["target"])
            pictures = part.locator(".edit-row").nth(1).locator("svg")
            assert pictures.count() == stored["shown"]
            r, c, heading = written["steps"][0][1]
            assert f"row {r}, column {c}, facing {HEADINGS[heading]}." in pictures.first.get_attribute("aria-label")
    worlds = part.locator(".edits")
    worlds.press("Home")
    assert said.text_content().startswith("Step 0 of 5: the input worlds.")
    worlds.press("ArrowRight")
    assert said.text_content().startswith("Step 1 of 5: after ")
    worlds.press("End")
    assert said.text_content().startswith("Step 5 of 5: the next word is executed.")
    part.get_by_role("button", name="no edit").press("Space")
    assert part.locator(".edit-row").count() == 2


def test_hostile_rows_are_words(opened):
    page = opened()
    row = page.locator("table.board tr[data-status=flagged]")
    assert row.locator(".family").text_content() == IMAGE
    row.locator("th a").click()
    view = page.locator(".view.open")
    assert view.locator("h1").text_content() == "search"
    view.get_by_text(IMAGE).nth(1).wait_for()
    assert view.get_by_text(IMAGE).count() >= 2
    value = view.locator("optgroup[label*=unparsable] option").first.get_attribute("value")
    view.get_by_label("What to play").select_option(value)
    assert IMAGE in view.locator(".player pre").text_content()
    assert page.locator("img").count() == 0
    assert page.locator("body script:not([type])").count() == 1


VIOLATIONS = """async ([expected, patience]) => {
    const names = new Set(), end = performance.now() + patience;
    addEventListener("securitypolicyviolation", (event) => names.add(event.effectiveDirective));
    ATTEMPT
    while (performance.now() < end && !expected.every((name) => names.has(name)))
        await new Promise((done) => setTimeout(done, 20));
    return [window.hacked ?? null, ...names];
}"""


def assert_policy_stops(page, attempt: str, directives: set[str]) -> None:
    """JavaScript statements that try to get in are reported as violations of each of the directives, and change nothing."""
    script = VIOLATIONS.replace("ATTEMPT", attempt)
    hacked, *violated = page.evaluate(script, [sorted(directives), PATIENCE])
    assert directives <= set(violated)
    assert hacked is None


def test_the_policy_stops_what_would_get_in(browser, site):
    page = browser.new_page()
    page.goto(site)
    attempt = """
        const script = document.createElement("script");
        script.textContent = "window.hacked = 1";
        const image = document.createElement("img");
        image.setAttribute("onerror", "window.hacked = 1");
        image.src = "x.png";
        document.body.append(script, image);
        await fetch("https://example.invalid/").catch(() => 0);
        document.body.setAttribute("style", "color: red");
    """
    assert_policy_stops(page, attempt, {"script-src-elem", "img-src", "connect-src", "style-src-attr"})
    page.close()


CONTRAST = """() => {
  const parse = (text) => {
    const numbers = text.match(/[\\d.]+/g).map(Number);
    const scale = text.startsWith("color(") ? 255 : 1;
    return [...numbers.slice(0, 3).map((n) => n * scale), numbers.length > 3 ? numbers[3] : 1];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour[3] > 0.99) return colour;
    }
    throw new Error("no background");
  };
  const found = [], walker = document.createTreeWalker(document.querySelector("body"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const words = walker.currentNode.textContent.trim();
    if (!words || !element.checkVisibility() || ["SCRIPT", "STYLE", "OPTION", "TITLE"].includes(element.tagName.toUpperCase())) continue;
    const style = getComputedStyle(element);
    const text = element.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const under = element.classList.contains("count") ? getComputedStyle(document.querySelector(".marker")).fill : null;
    const a = light(parse(text)), b = light(under ? parse(under) : behind(element));
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), words.slice(0, 40), element.className.baseVal ?? element.className]);
  }
  return found.sort((x, y) => x[0] - y[0]);
}"""


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("toggled", [False, True])
def test_text_has_contrast_in_both_themes(opened, scheme, toggled):
    """At least 4.5 to 1 (WCAG 2.2, 1.4.3), by the system's setting and by the page's own, against the system's."""
    page = opened(color_scheme=SCHEMES[1 - SCHEMES.index(scheme)] if toggled else scheme)
    if toggled:
        button = page.get_by_role("button", name=re.compile("Colour theme"))
        while button.inner_text().split()[-1] != scheme:
            button.click()
        assert button.get_attribute("aria-label") == f"Colour theme: {scheme}"
    dark = (
        sum(map(float, re.findall(r"[\d.]+", page.evaluate("getComputedStyle(document.body).backgroundColor")))) < 380
    )
    assert dark == (scheme == "dark")
    for fragment in ("", f"#{SLUG}", "#2026-11-23-llama-laptop"):
        page.evaluate("slug => location.hash = slug", fragment or "#board")
        settle(page)
        if fragment:
            page.locator(".view.open .stage").press("ArrowRight")
            settle(page)
        found = page.evaluate(CONTRAST)
        assert len(found) > 60
        assert found[0][0] >= 4.5, found[:5]


def test_everything_has_a_name_and_a_place(opened):
    page = opened()
    for fragment in ("#board", f"#{SLUG}"):
        page.evaluate("slug => location.hash = slug", fragment)
        settle(page)
        tree = page.locator("body").aria_snapshot()
        # A role without a name behind it ends its line, or has a colon only.
        nameless = [
            line for line in tree.splitlines()
            if re.match(r"\s*- (button|link|combobox|slider|img|region|figure|article)( \[[^\]]*\])*:?$", line)
            and "figure" not in line
        ]  # fmt: skip
        assert nameless == []
        assert page.locator("h1:visible").count() == 1
        assert page.get_by_role("main").count() == 1
        unlabelled = page.evaluate(
            "[...document.querySelectorAll('select,input')].filter(e => e.checkVisibility() && !e.labels.length"
            " && !e.ariaLabel).length"
        )
        assert unlabelled == 0
        assert page.evaluate("[...document.querySelectorAll('th')].filter(e => !e.scope).length") == 0
        assert page.evaluate("[...document.querySelectorAll('[tabindex]')].filter(e => e.tabIndex > 0).length") == 0
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("[aria-live=polite]").count() == 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_narrow_screens_do_not_scroll_sideways(opened, scheme):
    page = opened(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    slugs = page.evaluate("[...document.querySelectorAll('.row-page')].map(e => e.id)")
    assert len(slugs) == 4
    for slug in ("board", *slugs):
        page.evaluate("slug => location.hash = slug", slug)
        expect(page.locator(f"[id='{slug}']")).to_have_class(re.compile("open"))
        assert page.evaluate("document.documentElement.scrollWidth") == 360, slug
    small = page.evaluate(
        "[...document.querySelectorAll('.view.open button')].filter(e => e.checkVisibility())"
        ".map(e => e.getBoundingClientRect()).filter(b => Math.min(b.width, b.height) < 24).length"
    )
    assert small == 0


def test_rows_stay_rows_on_narrow_screens(opened):
    """Cards by style; in the browser's accessibility tree still a table with named cells."""
    page = opened(viewport={"width": 360, "height": 740})
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    by_id = {node["nodeId"]: node for node in nodes}

    def below(node: dict) -> list[str]:
        children = [by_id[one] for one in node.get("childIds", [])]
        return [node["role"]["value"], *(role for child in children for role in below(child))]

    board = below(next(node for node in nodes if node["role"]["value"] == "table"))
    counts = {role: board.count(role) for role in ("row", "rowheader", "columnheader", "cell")}
    assert counts == {"row": 5, "rowheader": 4, "columnheader": 7, "cell": 4 * 6}
    page.get_by_label("Columns").select_option("all")
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    by_id = {node["nodeId"]: node for node in nodes}
    board = below(next(node for node in nodes if node["role"]["value"] == "table"))
    counts = {role: board.count(role) for role in ("row", "rowheader", "columnheader", "cell")}
    assert counts == {"row": 5, "rowheader": 4, "columnheader": 11, "cell": 4 * 10}


def test_motion_is_left_out_where_it_is_not_wanted(opened):
    duration = "getComputedStyle(document.querySelector('table.board tbody tr')).transitionDuration"
    assert opened(reduced_motion="reduce").evaluate(duration) == "0s"
    assert opened(reduced_motion="no-preference").evaluate(duration) == "0.12s"


def test_without_scripts_everything_can_be_read(opened):
    page = opened(java_script_enabled=False)
    assert page.locator("article.row-page:visible").count() == 4
    assert page.locator(".needs-js:visible").count() == 0
