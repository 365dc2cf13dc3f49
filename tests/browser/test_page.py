"""report.html in a real Chromium: what it shows, what its choices change, and that everyone can use it."""

import pytest
from webdriver import Browser, Sweep


pytestmark = pytest.mark.browser

ENTER, TAB = "\ue007", "\ue004"
SECTIONS = ["curves", "languages", "paired", "blocks", "matrices", "seen", "cost", "tasks", "inside", "runs"]
CHARTS = ["curves", "heat", "paired", "layers", "matrices", "seen", "time", "memory", "tasks", "inside"]


@pytest.fixture
def page(browser: Browser, sweep: Sweep) -> Browser:
    browser.open(sweep.page)
    return browser


def cells(browser: Browser, section: str, column: int) -> list[str]:
    """Return the texts of a column of a section's table, from the top."""
    found: list[str] = browser.run(
        "return [...document.querySelectorAll(`#table-${arguments[0]} tbody tr`)]"
        ".map(row => row.children[arguments[1]].textContent)",
        section,
        column,
    )
    return found


def drawn(browser: Browser, chart: str) -> list[str]:
    """Return the texts in a chart."""
    script = "return [...document.querySelectorAll(`#chart-${arguments[0]} svg text`)].map(each => each.textContent)"
    found: list[str] = browser.run(script, chart)
    return found


def problems(browser: Browser) -> list[str]:
    """Return what the console complains of."""
    return [each["message"] for each in browser.logs("browser") if each["level"] in ("WARNING", "SEVERE")]


def test_everything_is_drawn_and_nothing_is_asked_for(page: Browser) -> None:
    for chart in CHARTS:
        assert page.run(f"return document.querySelectorAll('#chart-{chart} svg path').length") > 3, chart
    for section in SECTIONS:
        assert cells(page, section, 0), section
    assert problems(page) == []
    asked = [each for each in page.requests() if not each.startswith("data:")]
    assert len(asked) == 1
    assert asked[0].endswith("/comparison/report.html")


def test_the_policy_lets_no_other_script_run_and_no_request_leave(page: Browser) -> None:
    tried = page.run_async(
        "const done = arguments[arguments.length - 1];"
        "const script = document.createElement('script'); script.textContent = 'window.entered = true';"
        "document.body.append(script);"
        "fetch('http://127.0.0.1:9/').then(() => done('left'), () => done(String(window.entered)))"
    )
    assert tried == "undefined"
    assert any("Content Security Policy" in each for each in problems(page))


def test_the_finding_is_one_sentence_with_its_interval(page: Browser) -> None:
    headline = page.run("return document.getElementById('headline').textContent")
    assert headline.startswith("At 50 % sparsity, mwanda, cwl (best of 3 against the baseline wanda, uniform) has ")
    assert "lower perplexity, 95 % interval −" in headline
    assert "6 languages, 2 seeds" in headline
    counts = page.run("return document.getElementById('counts').textContent")
    assert "All runs: model some/model, solver threshold, pattern unstructured. " in counts


def test_filters_change_charts_and_tables(page: Browser) -> None:
    assert len(cells(page, "languages", 0)) == 6
    assert any(text.startswith("Arabic") or "arb_Arab" in text for text in drawn(page, "heat"))
    before = cells(page, "curves", 2)
    page.choose("script", "Latn")
    assert cells(page, "languages", 2) == ["Latn"] * 3
    assert not any("arb_Arab" in text for text in drawn(page, "heat"))
    assert cells(page, "curves", 2) != before
    page.choose("family", "Atlantic-Congo")
    assert [each.split(" (")[1] for each in cells(page, "languages", 0)] == ["swh_Latn)"]
    page.run("document.querySelector('button[type=reset]').click()")
    page.settle()
    assert cells(page, "curves", 2) == before
    page.choose("seen", "unseen")
    assert len(cells(page, "languages", 0)) == 2
    page.choose("seen", "")
    page.choose("level", "low")
    assert set(cells(page, "languages", 3)) == {"low"}
    assert problems(page) == []


def test_a_method_can_be_left_out_and_another_sparsity_chosen(page: Browser) -> None:
    assert drawn(page, "curves").count("magnitude, uniform") == 1
    page.run("document.querySelector('#methods input[value=\"magnitude, uniform\"]').click()")
    page.settle()
    assert "magnitude, uniform" not in drawn(page, "curves")
    assert "magnitude, uniform" not in cells(page, "curves", 0)
    half = cells(page, "languages", 4)
    page.choose("sparsity", "0.6")
    assert all(float(one) > float(other) for one, other in zip(cells(page, "languages", 4), half, strict=True))


def test_a_heading_sorts_by_mouse_and_by_keyboard(page: Browser) -> None:
    page.run("document.querySelector('#languages details').open = true")
    page.run("document.querySelector('#table-languages button[data-key=m0]').click()")
    rising = [float(each) for each in cells(page, "languages", 4)]
    assert rising == sorted(rising)
    heading = "document.querySelector('#table-languages th:nth-child(5)').getAttribute('aria-sort')"
    assert page.run(f"return {heading}") == "ascending"
    page.press(ENTER)  # the focus stays on the heading
    assert [float(each) for each in cells(page, "languages", 4)] == rising[::-1]
    assert page.run(f"return {heading}") == "descending"


def test_the_heat_map_is_grouped_by_family_and_sorted_by_damage(page: Browser) -> None:
    assert "Indo-European" in drawn(page, "heat")
    page.choose("sort", "damage")
    assert "Indo-European" not in drawn(page, "heat")
    worst = [
        max(map(float, row)) for row in zip(*(cells(page, "languages", 4 + each) for each in range(4)), strict=True)
    ]
    assert worst == sorted(worst, reverse=True)


def test_paired_differences_are_ranked_with_their_verdict(page: Browser) -> None:
    page.choose("paired-method", "magnitude, uniform")
    differences = [float(each.split()[0].replace("−", "-")) for each in cells(page, "paired", 1)]
    assert differences == sorted(differences)
    assert "worse" in cells(page, "paired", 5)
    assert "worse" in drawn(page, "paired")


def test_every_number_leads_to_its_run_and_two_runs_to_what_differs(page: Browser) -> None:
    page.run("document.querySelector('#curves details').open = true")
    page.run("document.querySelector('#table-curves tbody a').click()")
    page.settle()
    target = page.run("return document.querySelector('tr.target').textContent")
    assert "mwanda" in target
    page.choose("one", "0")
    page.choose("two", "1")
    assert cells(page, "difference", 0) == ["seed"]
    link = page.run("return document.querySelector('#table-runs a').getAttribute('href')")
    assert link.startswith("../")


def test_what_is_not_complete_is_named(page: Browser) -> None:
    rows = page.run("return [...document.querySelectorAll('#unfinished tbody tr')].map(each => each.textContent)")
    assert rows[0] == "failedfailedModelError: no <b>such</b> model"
    assert rows[1].startswith("torn")


def test_names_stand_alone_whatever_their_direction(page: Browser) -> None:
    assert page.run("return document.querySelector('#table-languages tbody th bdi') !== null")
    assert page.run("return document.querySelector('#table-runs tbody th bdi') !== null")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_no_fault(browser: Browser, sweep: Sweep, axe: str, dark: bool) -> None:
    browser.open(sweep.page, dark=dark)
    browser.run("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    browser.run(axe)
    found = browser.run_async("axe.run(document, {}).then(arguments[arguments.length - 1])")
    assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
    assert len(found["passes"]) > 20
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 22, 26)" if dark else "rgb(255, 255, 255)")


def test_every_chart_has_a_name(page: Browser) -> None:
    tree = page.devtools("Accessibility.getFullAXTree")["nodes"]
    images = [node["name"]["value"] for node in tree if node.get("role", {}).get("value") == "image"]
    assert len(images) == len(CHARTS)
    assert all(len(name) > 20 for name in images)


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_does_not_scroll_sideways(browser: Browser, sweep: Sweep, width: int) -> None:
    browser.open(sweep.page, width, 800)
    browser.run("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert browser.run("return document.documentElement.scrollWidth") <= width
    browser.run("window.scrollTo(100, 0)")
    assert browser.run("return window.scrollX") == 0


def test_no_label_ends_outside_of_its_chart(browser: Browser, sweep: Sweep) -> None:
    browser.open(sweep.page, 390, 800)
    outside = browser.run(
        "const right = (each) => each.getBoundingClientRect().right;"
        "return [...document.querySelectorAll('.chart:not([hidden]) svg')]"
        ".flatMap(svg => [...svg.querySelectorAll('text')].filter(each => right(each) > right(svg) + 1)"
        ".map(each => each.textContent))"
    )
    assert outside == []


def test_print_is_light_and_without_controls(browser: Browser, sweep: Sweep) -> None:
    browser.open(sweep.page, dark=True, media="print")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("return getComputedStyle(document.getElementById('filters')).display") == "none"
    assert len(browser.devtools("Page.printToPDF")["data"]) > 20_000
