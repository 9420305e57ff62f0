"""The pages with figures, for a keyboard, a screen reader, a narrow or a dark screen, and a translation."""

import re
import shutil
from itertools import pairwise

import pytest
from moving import PLAY, at, in_html, in_signs, words

PAGES = ("roofline", "timeline", "occupancy")
MARKS = ("--one", "--two", "--three", "--edge", "--quiet", "--ink")  # what the figures draw with
DRAWN_FOR_ITS_WIDTH = """() => {
    const svg = document.querySelector("svg[role=img]");
    return Math.abs(svg.viewBox.baseVal.width - svg.getBoundingClientRect().width) < 1;
}"""
CONTRAST = """names => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const light = (name) => {
        canvas.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name);
        canvas.fillRect(0, 0, 1, 1);
        const linear = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3)
            .map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    };
    return names.flatMap((name) => ["--page", "--panel"].map((back) => {
        const [low, high] = [light(name), light(back)].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    }));
}"""
# What is left in words, without the names of cards and sources.
LEFT = """() => {
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
    const skipped = "script, noscript, #card, li a, .quiet a", said = [...document.querySelectorAll("[aria-label]")];
    while (walk.nextNode()) {
        if (!walk.currentNode.parentElement.closest(skipped)) found.push(walk.currentNode.data);
    }
    return [...found, ...said.map((element) => element.getAttribute("aria-label"))].join(" ");
}"""


@pytest.fixture(scope="module")
def address(serve):
    return serve(PLAY.parent)


@pytest.fixture(scope="module")
def scratch(serve, tmp_path_factory):
    """A folder for pages that a test writes, and its address."""
    folder = tmp_path_factory.mktemp("pages")
    return folder, serve(folder)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 1400)])
def test_axe_finds_nothing_and_no_page_scrolls_sideways(visit, axe, address, name, scheme, width):
    page = visit(f"{address}/play/{name}.html", width=width, scheme=scheme)
    assert axe(page) == []
    assert min(page.evaluate(CONTRAST, MARKS)) >= 3
    for narrow in (width, 800, 360):
        page.set_viewport_size({"width": narrow, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= narrow
    page.wait_for_function(DRAWN_FOR_ITS_WIDTH)


@pytest.mark.parametrize("name", PAGES)
def test_a_keyboard_moves_every_control_and_the_figure_says_what_it_shows(visit, address, name):
    page = visit(f"{address}/play/{name}.html")
    headings = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(h => Number(h.tagName[1]))")
    assert headings[0] == 1 and all(b - a <= 1 for a, b in pairwise(headings))
    sliders = page.evaluate("[...document.querySelectorAll('#controls input[type=range]')].map(i => i.id)")
    changes = 0
    for slider in sliders:
        page.locator(f"#{slider}").focus()
        before, address_before = words(page), page.url
        page.keyboard.press("ArrowRight" if slider != "compiled" else "ArrowLeft")
        assert page.url != address_before
        shown = page.evaluate("id => [$(id).getAttribute('aria-valuetext'), $(`${id}-now`).textContent]", slider)
        assert shown[0] == shown[1] != ""
        said = page.evaluate("document.querySelector('svg[role=img]').getAttribute('aria-label')")
        assert said == words(page)
        changes += said != before
    assert changes >= 2  # some settings change only the picture
    tabs = []
    for _ in range(40):
        page.keyboard.press("Tab")
        tabs.append(page.evaluate("document.activeElement.name"))
    assert {*page.evaluate("Object.keys(CONTROLS)")} - {*sliders} <= {*tabs}
    kept = page.evaluate("state()")
    page.reload()
    assert page.evaluate("state()") == kept


@pytest.mark.parametrize("name", PAGES)
def test_an_address_with_nonsense_leaves_what_the_page_begins_with(visit, address, name):
    page = visit(f"{address}/play/{name}.html")
    begin, said = page.evaluate("state()"), words(page)
    nonsense = "&".join(f"{key}=no%3Cb%3E" for key in begin if begin[key] is not False)
    page.evaluate("hash => { location.hash = hash }", f"{nonsense}&other=1&=&toString=1")
    page.wait_for_function("location.hash.length > 3")
    assert (page.evaluate("state()"), words(page)) == (begin, said)


@pytest.mark.parametrize("name", PAGES)
def test_all_words_can_be_replaced(visit, scratch, name):
    (scratch[0] / "signs.html").write_text(in_signs(name), encoding="utf-8")
    page = visit(f"{scratch[1]}/signs.html")
    keys = in_html.texts((PLAY / f"{name}.html").read_text("utf-8"))
    assert {*page.evaluate("Object.keys(TEXT)")} < {*keys}
    names = sorted(page.evaluate("Object.keys(CARDS)"), key=len, reverse=True)
    left = re.sub("|".join(map(re.escape, names)), "", page.evaluate(LEFT))
    units, cpu = {"μs", "ms", "s", "MB", "GB", "TFLOP", "GFLOP"}, {"AMD", "EPYC"}
    assert left.count("§") > 1000 and {*re.findall(r"[^\W\d_]+", left)} <= units | cpu


def test_links_lead_to_notebooks_in_jupyter_and_to_what_the_page_says_elsewhere(visit, scratch):
    served, there = scratch
    for folder in ("files/play", "course/play"):
        (served / folder).mkdir(parents=True)
        shutil.copy(PLAY / "occupancy.html", served / folder)
    href = "document.querySelector('header a').href"
    assert visit(f"{there}/files/play/occupancy.html").evaluate(href) == f"{there}/lab/tree/08_inside_the_gpu.ipynb"
    assert visit(f"{there}/course/play/occupancy.html").evaluate(href) == f"{there}/course/08_inside_the_gpu.ipynb"


@pytest.mark.parametrize("name", PAGES)
def test_it_works_in_a_viewer_that_gives_it_no_address(visit, scratch, name):
    """As JupyterLab shows a trusted file: in a frame with an origin of its own, where a link opens nothing.

    It takes what stands inside <html>, and so not the attributes of that.
    """
    page = re.sub(r"^<!doctype html>\n<html[^>]*>", "", (PLAY / f"{name}.html").read_text("utf-8"))
    (scratch[0] / f"{name}.html").write_text(page, "utf-8")
    (scratch[0] / "viewer.html").write_text(
        f'<link rel="icon" href="data:,"><iframe sandbox="allow-scripts" src="{name}.html" width="800"></iframe>',
        encoding="utf-8",
    )
    frame = visit(f"{scratch[1]}/viewer.html").frames[1]
    before = words(frame)
    frame.locator("#controls input[type=range]").first.press("ArrowRight")
    assert words(frame) != before and frame.locator("header a").count() == 0
    assert "(notebooks/0" in frame.inner_text("header")


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_chapters_that_are_there(name):
    links = re.findall(r'href="(\.\./[^"]+)"', (PLAY / f"{name}.html").read_text("utf-8"))
    assert links and all((PLAY / link).resolve().is_file() for link in links)


@pytest.mark.parametrize("name", PAGES)
def test_without_scripts_a_page_says_how_to_get_them(visit, address, name):
    page = visit(f"{address}/play/{name}.html", java_script_enabled=False)
    assert "Trust HTML" in page.inner_text("noscript")


def test_a_sentence_changes_with_the_address(visit, address):
    page = visit(f"{address}/play/timeline.html#launch=2&kernel=4")
    assert page.evaluate("[state().launch, state().kernel]") == [2, 4]
    assert "do not matter" in words(page) and "do not matter" not in at(page, launch=5, kernel=4)
