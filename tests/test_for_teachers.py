"""The guide for teachers keeps up with the chapters: a page for each, every prediction, every term, no dead link."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "notebooks" / "for_teachers.md"
CHAPTERS = {path.name[:2]: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
PARTS = ["Afterwards learners say", "Predict first", "Misconceptions to expect", "For discussion"]
SECTIONS = ["Before the day", "Schedules", "The chapters", "The failure drill", "Glossary"]
TERM = re.compile(r"^- \*\*(.+)\*\* \(\[(\d\d)\]\(([^)]+)\)\): (.+)$")

# A phrase in italics is a term, and has to be in the glossary, unless it is named here: what is merely stressed, or
# quoted, or the name of one rung. For each chapter apart, since a word stressed in one may be a term in another.
EMPHASISED = {
    "01": {"ask", "data sheet"},
    "02": {
        "not",
        "started",
        "expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!",
    },
    "03": {"in the device's memory already"},
    "04": {"before", "norm", "the same", "true → answered (certainty)"},
    "05": {"all of them", "asked for", "called", "your"},
    "06": {
        *("before", "below", "compute", "cuda graph of an epoch", "no wait per step", "saved", "spent", "whatever"),
        *("whole", "without"),
    },
    "07": {
        *("many", "slightly different networks", "the same tensor", "the same tensors", "which library multiplies"),
        *("whole epoch", "within rounding"),
    },
    "08": {"alone", "at once", "count", "everywhere", "in all", "nowhere", "rate", "two", "whole"},
    "09": {"behind", "compared", "fewer"},
    "10": {
        *(
            "added",
            "alone",
            "another training",
            "any",
            "its",
            "mean over the ranks",
            "one",
            "per parameter",
            "replaces",
        ),
        *("same", "sum", "whole", "your"),
    },
}
# Where the chapters set a term in italics in another form than the glossary's, beyond a plural.
FORMS = {
    "clipped": "clipping",
    "compiles": "compiler",
    "launches": "launch",
    "pageable": "pageable memory",
    "passes": "passes over memory",
    "pinned": "pinned memory",
    "predictions": "predicted",
    "strong": "strong scaling",
    "weak": "weak scaling",
}
# How a chapter writes a term that it does not write as the glossary does.
WRITTEN = {
    "clipping": "clipped",
    "fusing": "fuse",
    "gradient accumulation": "accumulation",
    "pageable memory": "pageable",
    "predicted": "prediction",
}


def section(text: str, heading: str) -> str:
    """What stands under a Markdown heading, up to the next of its rank or a higher one."""
    rank = len(heading.split(" ")[0])
    found = re.search(rf"^{re.escape(heading)}$\n(.*?)(?=^#{{1,{rank}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no {heading!r}"
    return found[1]


def one_line(text: str) -> str:
    return " ".join(text.split())


def prose(path: Path) -> str:
    """A chapter's Markdown cells, without programs and formulas."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return re.sub(r"^```.*?^```$|`[^`]*`|\$\$.*?\$\$|\$[^$\n]*\$", " ", text, flags=re.MULTILINE | re.DOTALL)


def words(path: Path) -> str:
    """A chapter's Markdown as a reader sees it, in one line and in lower case."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return one_line(re.sub(r"[*`]", "", text)).lower()


def in_italics(text: str) -> set[str]:
    """The phrases in *italics*, in lower case; what is **bold** is none."""
    return {
        one_line(phrase).lower()
        for paragraph in re.split(r"\n\s*\n", text)
        for phrase in re.findall(r"(?<![*\w])\*([^*\s](?:[^*]*[^*\s])?)\*(?![*\w])", paragraph.replace("**", ""))
    }


def predictions(path: Path) -> list[str]:
    """From every "Predict first" of a chapter to the end of its paragraph."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(c["source"]) for c in cells)
    return [one_line(found) for found in re.findall(r"predict first.*?(?=\n\s*\n|\Z)", text, re.IGNORECASE | re.DOTALL)]


def term_of(phrase: str, terms: set[str]) -> str | None:
    """The glossary's term for a phrase in italics, or None."""
    forms = (FORMS.get(phrase), phrase, phrase.removesuffix("s"), phrase.removesuffix("es"))
    return next((form for form in forms if form in terms), None)


@pytest.fixture(scope="module")
def guide():
    return GUIDE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def glossary(guide):
    """The entries as (term, chapter, link, sentence)."""
    lines = one_line_entries(section(guide, "## Glossary"))
    found = [TERM.match(line) for line in lines]
    assert all(found), f"not an entry: {[line for line, match in zip(lines, found, strict=True) if not match]}"
    return [match.groups() for match in found]


def one_line_entries(text: str) -> list[str]:
    return [one_line("- " + entry) for entry in re.split(r"^- ", text, flags=re.MULTILINE)[1:]]


def page_of(guide: str, number: str) -> str:
    title = re.search(r"^# (\d\d .+)$", prose(CHAPTERS[number]), re.MULTILINE)[1]
    return section(guide, f"### {title}")


def test_the_guide_has_its_sections_in_order_and_the_readme_leads_to_it(guide):
    assert re.findall(r"^## (.+)$", guide, re.MULTILINE) == SECTIONS
    assert "(notebooks/for_teachers.md)" in section((ROOT / "README.md").read_text(encoding="utf-8"), "## For teachers")


@pytest.mark.parametrize("number", CHAPTERS)
def test_every_chapter_has_its_page_with_its_four_parts(guide, number):
    page = page_of(guide, number)
    assert re.findall(r"^#### (.+)$", page, re.MULTILINE) == PARTS
    assert f"({CHAPTERS[number].name})" in page
    for part in PARTS:
        assert len(section(page, f"#### {part}").split()) >= 30, part
    assert section(page, "#### For discussion").count("?") >= 1


@pytest.mark.parametrize("number", CHAPTERS)
def test_every_prediction_is_quoted_and_answered_in_the_chapters_order(guide, number):
    asked = predictions(CHAPTERS[number])
    answered = one_line_entries(section(page_of(guide, number), "#### Predict first"))
    assert len(answered) == len(asked), f"{number} asks {len(asked)} times, and {len(answered)} answers are here"
    for question, answer in zip(asked, answered, strict=True):
        quoted = re.match(r'- \*\*Predict:\*\* "([^"]+)" (.+)', answer)
        assert quoted, f"not a quoted prediction: {answer[:80]}"
        assert quoted[1] in question, f"{quoted[1]!r} is not in {question!r}"
        assert len(quoted[2].split()) >= 20, f"no reasoning: {answer}"


@pytest.mark.parametrize("number", CHAPTERS)
def test_every_misconception_names_a_place_of_the_chapter_that_answers_it(guide, number):
    headings = [one_line(h) for h in re.findall(r"^#+ (.+)$", prose(CHAPTERS[number]), re.MULTILINE)]
    entries = one_line_entries(section(page_of(guide, number), "#### Misconceptions to expect"))
    assert len(entries) >= 3
    for entry in entries:
        said, _, where = entry.partition(" Answered ")
        places = re.findall(r'"([^"]+)"', where)
        assert places, f"no place answers it: {said}"
        for place in places:
            assert any(place in heading for heading in headings), f"{number} has no {place!r}"


@pytest.mark.parametrize("number", CHAPTERS)
def test_every_term_in_italics_is_in_the_glossary_or_named_as_mere_emphasis(glossary, number):
    terms = {term.lower() for term, *_ in glossary}
    italics = in_italics(prose(CHAPTERS[number]))
    stressed = EMPHASISED.get(number, set())
    missing = {phrase for phrase in italics - stressed if not term_of(phrase, terms)}
    assert not missing, f"in italics in {number}; into the glossary, or into EMPHASISED of this test: {missing}"
    assert not (gone := stressed - italics), f"no longer in italics in {number}: {gone}"
    assert not (both := {phrase for phrase in stressed if phrase in terms}), f"a term, too: {both}"


def test_italics_are_told_from_bold_and_products():
    text = "a *warp* of **all *lanes* here**, 2 * 3 * 4, *two\nwords*, `x *y* z`\n\n*open\n\nnew*, **bold**, *a b*."
    assert in_italics(re.sub(r"`[^`]*`", " ", text)) == {"warp", "lanes", "two words", "a b"}


def test_terms_are_unique_sorted_and_a_sentence_each(glossary):
    terms = [term for term, *_ in glossary]
    assert len(terms) >= 60
    assert terms == sorted(terms, key=str.casefold)
    assert len({term.casefold() for term in terms}) == len(terms)
    for term, _, _, sentence in glossary:
        assert sentence.endswith(".") and ". " not in sentence, f"{term}: not one sentence"
        assert len(sentence.split()) >= 6, f"{term}: says too little"


def test_every_linked_chapter_contains_the_term(glossary):
    for term, number, link, _ in glossary:
        assert link == CHAPTERS[number].name, term
        written = WRITTEN.get(term.lower(), term.lower())
        assert re.search(rf"(?<!\w){re.escape(written)}", words(CHAPTERS[number])), f"{number} has no {written!r}"


def test_links_lead_to_files_and_headings(guide):
    headings = {h.lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", guide, re.MULTILINE)}
    links = re.findall(r"\]\(([^)]+)\)", guide)
    assert links
    for link in links:
        assert "://" not in link or link.startswith("https://")
        if link.startswith("#"):
            assert link[1:] in headings, link
        elif "://" not in link:
            assert (GUIDE.parent / link).is_file(), link


def test_the_drill_has_eight_failures_each_with_cause_sight_and_remedy(guide):
    drill = section(guide, "## The failure drill")
    failures = re.findall(r"^### (\d)\. ", drill, re.MULTILINE)
    assert failures == list("12345678")
    for lead in ("How to bring it about.", "What one sees.", "What to do."):
        assert drill.count(f"**{lead}**") == 8, lead


def test_a_schedules_minutes_follow_each_other_and_end_as_its_heading_says(guide):
    schedules = section(guide, "## Schedules")
    for heading, last in (("90 minutes: why the GPU does not help, and what does", 90), ("Half a day", 240)):
        rows = re.findall(r"^\| (\d+) to (\d+) \| (\d\d)? ?\|", section(schedules, f"### {heading}"), re.MULTILINE)
        assert [int(begin) for begin, _, _ in rows] == [0, *(int(end) for _, end, _ in rows[:-1])]
        assert int(rows[-1][1]) == last and {chapter for *_, chapter in rows if chapter} <= CHAPTERS.keys()
    days = re.findall(r"(\d+) to (\d+) \| ([^|]*?) \|", section(schedules, "### Two days"))
    first, second = ([row for row in days[i::2]] for i in (0, 1))
    for day in (first, second):
        assert [int(begin) for begin, *_ in day] == [0, *(int(end) for _, end, _ in day[:-1])]
    taught = [chapter for day in (first, second) for *_, what in day for chapter in re.findall(r"^\d\d", what)]
    assert taught == list(CHAPTERS)


def test_the_headings_that_a_schedule_quotes_are_in_the_chapters(guide):
    rows = re.findall(r"^\| \d+ to \d+ \| (\d\d) \| (.*?) \| (.*?) \|$", section(guide, "## Schedules"), re.MULTILINE)
    quoted = [(number, words) for number, *cells in rows for cell in cells for words in re.findall(r'"([^"]+)"', cell)]
    assert len(quoted) > 10
    for number, heading in quoted:
        text = CHAPTERS[number].read_text(encoding="utf-8")
        assert re.search(rf'"#+ {re.escape(heading)}', text), f"{number} has no heading {heading!r}"
