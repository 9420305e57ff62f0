"""The pages that move: each is made from its template, is small, and asks nobody else for anything."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted((ROOT / "site/play").glob("*.html"))
spec = importlib.util.spec_from_file_location("make_play", ROOT / "site/make_play.py")
make_play = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_play)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_a_page_is_as_its_template_makes_it(template):
    made = make_play.made(template)
    stored = (make_play.MADE / template.name).read_text("utf-8")
    assert stored == made, f"{template.name}: run `python site/make_play.py`"
    assert "{{" not in made.replace("${{", "")


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_a_page_is_small_and_loads_nothing_from_elsewhere(template):
    page = make_play.made(template)
    assert len(page.encode()) <= 60 * 1024
    loaded = re.findall(r"(?:src|href)=[\"']([^\"'#]+)|url\(([^)]+)\)|import\s+.*from\s+[\"'](.+)[\"']", page)
    links = re.findall(r"<a [^>]*href=[\"']([^\"'#]+)", page)
    elsewhere = [name for names in loaded for name in names if name.startswith(("http", "//")) and name not in links]
    assert not elsewhere


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
