"""The guide for teachers keeps up with the chapters: a page for each, an answer to every prediction, no dead link."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "notebooks" / "for_teachers.md"
CHAPTERS = {path.name[:2]: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}


def section(text: str, heading: str) -> str:
    """What stands under a Markdown heading, up to the next of its rank or a higher one."""
    rank = len(heading.split(" ")[0])
    found = re.search(rf"^{re.escape(heading)}[^\n]*$\n(.*?)(?=^#{{1,{rank}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no {heading!r}"
    return found[1]


@pytest.fixture(scope="module")
def guide():
    return GUIDE.read_text(encoding="utf-8")


@pytest.mark.parametrize("number", CHAPTERS)
def test_every_chapter_has_its_page_with_an_answer_to_every_prediction(guide, number):
    page = section(guide, f"### {number} ")
    assert f"({CHAPTERS[number].name})" in page
    cells = json.loads(CHAPTERS[number].read_text(encoding="utf-8"))["cells"]
    asked = re.findall(r"predict first", "\n".join("".join(c["source"]) for c in cells), re.IGNORECASE)
    answered = re.findall(r"^- ", section(page, "#### Predict first"), re.MULTILINE)
    assert len(answered) == len(asked), f"{number} asks {len(asked)} times, and {len(answered)} answers are here"


def test_the_glossarys_terms_are_unique_and_sorted_and_lead_to_their_chapters(guide):
    terms = re.findall(r"^- \*\*(.+)\*\* \(\[(\d\d)\]\(([^)]+)\)\): ", section(guide, "## Glossary"), re.MULTILINE)
    names = [term.casefold() for term, *_ in terms]
    assert len(names) >= 60 and names == sorted(names) and len(set(names)) == len(names)
    assert all(link == CHAPTERS[number].name for _, number, link in terms)


def test_links_lead_to_files_and_headings(guide):
    headings = {h.lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", guide, re.MULTILINE)}
    links = re.findall(r"\]\(([^)]+)\)", guide)
    assert links
    for link in links:
        if link.startswith("#"):
            assert link[1:] in headings, link
        elif not link.startswith("https://"):
            assert (GUIDE.parent / link).is_file(), link


def test_a_schedules_minutes_follow_each_other_and_end_as_its_heading_says(guide):
    schedules = section(guide, "## Schedules")
    for heading, last in (("### 90 minutes", 90), ("### Half a day", 240)):
        rows = re.findall(r"^\| (\d+) to (\d+) \| (\d\d)? ?\|", section(schedules, heading), re.MULTILINE)
        assert [int(begin) for begin, _, _ in rows] == [0, *(int(end) for _, end, _ in rows[:-1])]
        assert int(rows[-1][1]) == last and {chapter for *_, chapter in rows if chapter} <= CHAPTERS.keys()
    days = re.findall(r"(\d+) to (\d+) \| ([^|]*?) \|", section(schedules, "### Two days"))
    for day in (days[0::2], days[1::2]):
        assert [int(begin) for begin, *_ in day] == [0, *(int(end) for _, end, _ in day[:-1])]
    taught = [chapter for day in (days[0::2], days[1::2]) for *_, what in day for chapter in re.findall(r"^\d\d", what)]
    assert taught == list(CHAPTERS)
