"""What the tests of the pages that move share."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLAY = ROOT / "notebooks/play"
sys.path.append(str(ROOT / "translations"))
import editions  # noqa: E402, F401
import in_html  # noqa: E402


def in_signs(name: str) -> str:
    """The page in a language that has a sign for every letter."""

    def signs(_: str, english: str) -> str:
        return re.sub(r"(\{\w+\})|.", lambda found: found[1] or "§", re.sub(r"<[^>]*>", "", english))

    return in_html.replaced((PLAY / f"{name}.html").read_text("utf-8"), signs)


def words(page) -> str:
    """The sentence that stands below the figure, without the kind of its numbers."""
    return page.evaluate("[...$('says').childNodes].filter(n => n.nodeType === 3).map(n => n.data).join('').trim()")


def at(page, **values) -> str:
    """The page with its controls set by the address; its sentence."""
    values = {name: str(value) for name, value in values.items()}
    page.evaluate("values => { location.hash = new URLSearchParams(values) }", values)
    page.wait_for_function("values => Object.entries(values).every(([k, v]) => String(state()[k]) === v)", arg=values)
    return words(page)
