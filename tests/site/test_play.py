"""The pages that move: made from their templates, in every language, small, and asking nobody else for anything."""

import importlib.util
import re
from pathlib import Path

import pytest
from moving import in_html

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted((ROOT / "site/play").glob("*.html"))
spec = importlib.util.spec_from_file_location("make_play", ROOT / "site/make_play.py")
make_play = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_play)
editions = make_play.editions
TRANSLATED = sorted(path for template in TEMPLATES for path in make_play.translated(template))
every_template = pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
every_translation = pytest.mark.parametrize("path", TRANSLATED, ids=lambda path: f"{path.stem}-{path.parts[-3]}")


@every_template
def test_a_page_is_as_its_template_makes_it(template):
    made = make_play.made(template)
    assert "{{" not in made.replace("${{", "")
    stored = {make_play.MADE / template.name: made} | make_play.translated(template)
    for path, page in stored.items():
        assert path.read_text("utf-8") == page, f"{path.relative_to(ROOT)}: run `python site/make_play.py`"


@pytest.mark.parametrize("path", [*make_play.MADE.glob("*.html"), *TRANSLATED], ids=lambda p: f"{p.stem}-{p.parts[-3]}")
def test_a_page_is_small_and_loads_nothing_from_elsewhere(path):
    page = path.read_text("utf-8")
    assert len(page.encode()) <= 60 * 1024
    loaded = re.findall(r"(?:src|href)=[\"']([^\"'#]+)|url\(([^)]+)\)|import\s+.*from\s+[\"'](.+)[\"']", page)
    links = re.findall(r"<a [^>]*href=[\"']([^\"'#]+)", page)
    elsewhere = [name for names in loaded for name in names if name.startswith(("http", "//")) and name not in links]
    assert not elsewhere


@every_template
def test_every_text_has_a_key_and_can_be_replaced(template):
    """What stands in elements with data-t and in TEXT, and nothing beside: a translator gets to see all of it."""
    page = make_play.made(template)
    html, _, rest = page.partition(in_html.SCRIPTS)
    script = rest.partition("</script>")[0]
    marked, written = {*re.findall(r'data-t="(\w+)"', html)}, in_html.WRITTEN.findall(script)
    assert not {*in_html.WRITTEN.sub("", script).replace("const TEXT = {", "")} - {*",}; \n"}
    keys = [key.strip('"') for key, _, _ in written]
    assert len(marked) > 10 and len({*keys}) == len(keys) and not marked & {*keys}
    assert {*in_html.texts(page)} == marked | {*keys}
    replaced = in_html.texts(in_html.replaced(page, lambda key, _: f'<b>"{key}" 键\\</b>'))
    assert all(text == f'<b>"{key}" 键\\</b>' for key, text in replaced.items())


@every_translation
def test_a_translated_page_has_each_text_as_it_was_translated(path):
    """In English remains what has no translation, or one of an older English: the tool lists that as a note."""
    language, name = path.parts[-3], f"notebooks/play/{path.name}"
    shown = in_html.texts(path.read_text("utf-8"))
    texts = [text for text in editions.texts(name, language) if text.english]
    assert {text.key: shown.pop(text.key) for text in texts} == {
        text.key: text.translation if text.state == "translated" else text.english for text in texts
    }
    assert not shown
    root = re.search(r'<body lang="([^"]+)" data-folder="([^"]+)">', path.read_text("utf-8"))
    assert root[1] == editions.settings(language, "edition.json")["language"]
    assert root[2] == path.parent.relative_to(ROOT).as_posix()


@every_translation
def test_links_of_a_translated_page_lead_to_the_chapters_of_its_language(path):
    header = path.read_text("utf-8").partition("</header>")[0]
    links = re.findall(r'<a [^>]*href="([^"]+)"', header)
    language, there = path.parts[-3], [(path.parent / link).resolve() for link in links]
    assert links and all(target.is_file() for target in there)
    for target in there:
        english = target.relative_to(ROOT).as_posix()
        assert english not in editions.english_files() or not editions.source_of(english, language).exists()


WITH_FIGURES = [template for template in TEMPLATES if 'class="stage"' in template.read_text("utf-8")]


@pytest.mark.parametrize("template", WITH_FIGURES, ids=lambda path: path.stem)
def test_on_a_phone_the_figure_stays_in_sight_while_a_control_moves(serve, visit, template):
    page = visit(f"{serve(make_play.MADE)}/{template.name}", 360)
    for control in page.locator("#controls input, #controls select").all():
        control.focus()
        page.evaluate("document.activeElement.scrollIntoView({ block: 'center' })")
        page.wait_for_function("scrollY === window.before || (window.before = scrollY, false)")  # it has come to rest
        chart, own = page.locator(".chart").bounding_box(), control.bounding_box()
        assert chart["y"] >= 0 and chart["y"] + chart["height"] <= own["y"] < 900, control.get_attribute("name")
