"""The web edition as a reader meets it: built as `make site` builds it, and opened in a browser without a network."""

import itertools
import json
import posixpath
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.long


class Seen(HTMLParser):
    """What a page links to and loads, its anchors and images, and the headings of its text."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.anchors, self.images, self.headings, self.language = [], set(), [], [], None
        self.in_text = False
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        self.in_text |= tag == "article"
        self.anchors.update(a[name] for name in ("id", "name") if a.get(name))
        self.links += [a[name] for name in ("href", "src") if a.get(name)]
        if tag == "img":
            self.images.append(a)
        if tag == "html":
            self.language = a.get("lang")
        if self.in_text and len(tag) == 2 and tag[0] == "h" and tag[1].isdigit():
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag):
        self.in_text &= tag != "article"


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("sphinx_book_theme", reason="the web edition's packages are not installed: make site")
    out = tmp_path_factory.mktemp("site") / "html"
    built = subprocess.run([sys.executable, "site/build.py", out], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert built.returncode == 0, built.stderr
    return out


def sources() -> dict[str, Path]:
    """Every text of the course, by the path of its page: each translated edition lies in a folder of its own."""
    found = [*ROOT.glob("notebooks/**/*.ipynb"), *ROOT.glob("notebooks/**/*.md"), *ROOT.glob("README*.md")]
    names = [path.relative_to(ROOT).with_suffix(".html").as_posix() for path in found]
    editions = [re.match(r"notebooks/(\w\w)/|README\.(\w\w)\.", name) for name in names]
    return {
        f"{edition[1] or edition[2]}/{name}" if edition else name: path
        for path, name, edition in zip(found, names, editions, strict=True)
        if ".ipynb_checkpoints" not in path.parts
    }


@pytest.fixture(scope="session")
def pages(site) -> dict[str, Seen]:
    """Every page that is made from a text of ours, by its path."""
    found = sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)
    return {path.relative_to(site).as_posix(): Seen(path) for path in found}


@pytest.fixture(scope="session")
def texts(pages) -> list[str]:
    """The pages with a text: not the index of words, the search, and those that move, which have their own tests."""
    return [name for name in pages if not name.endswith(("genindex.html", "search.html")) and "/play/" not in name]


def test_every_chapter_and_text_is_a_page_and_all_are_small(site, pages):
    assert set(sources()) <= set(pages)
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 40e6


def test_every_link_leads_somewhere(site, pages):
    broken = []
    for name, page in pages.items():
        for link in page.links:
            address, anchor = urldefrag(link)
            if ":" in address.split("/")[0]:
                continue
            address = address.partition("?")[0]
            target = ((site / name).parent / unquote(address)).resolve() if address else site / name
            if not target.exists():
                broken.append(f"{name}: {link}")
            elif anchor and target.suffix == ".html":
                other = pages.get(target.relative_to(site).as_posix())
                if other and unquote(anchor) not in other.anchors:
                    broken.append(f"{name}: {link}: no such anchor")
    assert not broken, "\n".join(broken)


def test_every_figure_has_its_sentence(pages):
    for name, path in sources().items():
        if path.suffix == ".ipynb":
            cells = json.loads(path.read_text("utf-8"))["cells"]
            outputs = [o for cell in cells for o in cell.get("outputs", ()) if "image/png" in o.get("data", ())]
            sentences = [" ".join(o["metadata"]["image/png"]["alt"].split()) for o in outputs]
            assert [image["alt"] for image in pages[name].images if "_images" in image["src"]] == sentences
    without = [
        (name, image) for name, page in pages.items() for image in page.images if not image.get("alt", "").strip()
    ]
    assert not without


def test_headings_are_in_order_and_the_language_is_set(pages, texts):
    for name in texts:
        levels = pages[name].headings
        assert levels.count(1) == 1, name
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), (name, levels)
        assert pages[name].language, name


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_no_page_scrolls_sideways(site, serve, visit, texts, width):
    base, page, wrong = serve(site), None, []
    for name in texts:
        page = visit(f"{base}/{name}", width) if page is None else page
        page.goto(f"{base}/{name}", wait_until="load")
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wrong.append(f"{name} scrolls sideways")
        if width == 1400:
            wide = "[...document.querySelectorAll('pre')].filter(e => e.scrollWidth > e.clientWidth + 1)"
            wrong += [f"{name}: {text}" for text in page.evaluate(f"{wide}.map(e => e.textContent.slice(0, 80))")]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("scheme, rules", [("light", ()), ("dark", ["color-contrast"])])
def test_axe_finds_nothing(site, serve, visit, axe, texts, scheme, rules):
    """In the dark the colours are others, and those of all editions are the same."""
    base, page, wrong = serve(site), None, []
    for name in [name for name in texts if scheme == "light" or not re.match(r"\w\w/", name)]:
        page = visit(f"{base}/{name}", scheme=scheme) if page is None else page
        page.goto(f"{base}/{name}", wait_until="load")
        wrong += [f"{name}: {found}" for found in axe(page, *rules)]
    assert not wrong, "\n".join(wrong[:20])


@pytest.mark.parametrize("address", ["search.html?q=occupancy", "zh/search.html?q=占用率"])
def test_the_search_finds_a_term_without_a_network(site, serve, visit, address):
    page = visit(f"{serve(site)}/{address}")
    page.wait_for_selector("#search-results li a")
    found = page.eval_on_selector_all("#search-results a", "links => links.map(link => link.href)")
    assert any("08_inside_the_gpu" in link for link in found)


def test_another_language_keeps_the_page_and_the_place(site, serve, visit):
    page = visit(f"{serve(site)}/notebooks/02_the_model.html")
    page.locator("article h2").nth(4).scroll_into_view_if_needed()
    page.evaluate("document.querySelectorAll('article h2')[4].scrollIntoView()")
    page.locator("a.edition").first.click()
    page.wait_for_url("**/zh/notebooks/zh/02_the_model.html#*")
    heading = page.locator("article h2").nth(4)
    heading.wait_for()
    page.wait_for_function("Math.abs(document.querySelectorAll('article h2')[4].getBoundingClientRect().top) < 200")
    assert page.locator("html").get_attribute("lang") == "zh-CN"


def test_a_solution_is_folded_and_opens_by_keyboard(site, serve, visit):
    page = visit(f"{serve(site)}/notebooks/01_detect_the_gpu.html")
    fold = page.locator("details.hide").first
    assert fold.get_attribute("open") is None
    fold.locator("summary").focus()
    page.keyboard.press("Enter")
    assert fold.get_attribute("open") is not None


def test_the_theme_changes_by_keyboard(site, serve, visit):
    page = visit(f"{serve(site)}/index.html")
    button = page.locator(".theme-switch-button:visible").first
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".theme-change-button[data-mode=dark]:visible")
    assert "theme-switch-button" in page.evaluate("document.activeElement.className")  # so that arrows move in its menu
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")


def test_the_menu_leads_to_the_pages_that_move(site, pages):
    for name in ("index.html", "notebooks/for_teachers/05.html"):
        found = [posixpath.basename(link) for link in pages[name].links if "play/" in link]
        assert {path.name for path in (ROOT / "notebooks/play").glob("*.html")} <= set(found), name


def test_a_search_tells_a_teachers_page_from_its_chapter(site):
    index = (site / "searchindex.js").read_text("utf-8")
    titles = json.loads(index[index.index("{") : index.rindex("}") + 1])["titles"]
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize("width", [360, 1400])
def test_a_formula_is_in_the_middle_and_touches_no_text(site, serve, visit, width):
    page = visit(f"{serve(site)}/notebooks/05_cpu_versus_gpu.html", width)
    gap, left, right = page.evaluate("""() => {
        const block = document.querySelector('div.math'), inner = block.querySelector('math > *');
        const a = block.getBoundingClientRect(), rows = block.querySelector('math').getBoundingClientRect();
        const boxes = [...inner.children].map(e => e.getBoundingClientRect());
        const next = block.nextElementSibling.getBoundingClientRect();
        return [next.top - rows.bottom, boxes[0].left - a.left, a.right - boxes.at(-1).right];
    }""")
    assert gap > 8 and abs(left - right) < 2


def test_a_figure_is_readable_on_a_phone(site, serve, visit):
    """It is not made smaller than 576 pixels: its letters stay as large as small print."""
    page = visit(f"{serve(site)}/notebooks/01_detect_the_gpu.html", 360)
    sizes = page.eval_on_selector_all("article .cell_output img", "all => all.map(e => [e.width, e.naturalWidth])")
    assert sizes and all(width >= min(570, natural) for width, natural in sizes)


def test_a_dark_page_is_printed_as_a_light_one(site, serve, visit):
    page = visit(f"{serve(site)}/notebooks/01_detect_the_gpu.html", scheme="dark")
    themes = page.evaluate("""() => ["beforeprint", "afterprint"].map(name => {
        dispatchEvent(new Event(name));
        return document.documentElement.dataset.theme;
    })""")
    assert themes == ["light", "dark"]


def test_a_printed_chapter_is_readable(site, serve, visit):
    """On paper: no menus, and no line of code or of a table cut off at the edge of an A4 page."""
    page = visit(f"{serve(site)}/notebooks/01_detect_the_gpu.html", width=700)  # A4 less its margins, in CSS pixels
    page.emulate_media(media="print")
    assert not page.locator(".bd-sidebar-primary").is_visible()
    cut = "[...document.querySelectorAll('article pre, article table')].filter(e => e.scrollWidth > e.clientWidth + 1)"
    assert page.evaluate(f"{cut}.map(e => e.textContent.slice(0, 80))") == []
