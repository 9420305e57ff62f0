"""What the tests of the pages with figures share."""

from pathlib import Path

PLAY = Path(__file__).resolve().parents[2] / "notebooks/play"


def words(page) -> str:
    """The sentence that stands below the figure, without the kind of its numbers."""
    return page.evaluate("[...$('says').childNodes].filter(n => n.nodeType === 3).map(n => n.data).join('').trim()")


def at(page, **values) -> str:
    """The page with its controls set by the address; its sentence."""
    values = {name: str(value) for name, value in values.items()}
    page.evaluate("values => { location.hash = new URLSearchParams(values) }", values)
    page.wait_for_function("values => Object.entries(values).every(([k, v]) => String(state()[k]) === v)", arg=values)
    return words(page)
