"""The README and the guide for teachers keep up with the course: links, chapters, commands, answers to predictions."""

import json
import re
import shlex
from pathlib import Path

import pytest

from mnist_gpu.__main__ import parser

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
GUIDE = sorted((NOTEBOOKS / "for_teachers").glob("*.md"))
OTHERS = ("README.md", "INSTALL.md", "CONTRIBUTING.md", "CHANGELOG.md", "AGENTS.md")
OTHERS += ("notebooks/glossary.md", "data/README.md")
PAGES = [*GUIDE, *(ROOT / name for name in OTHERS)]
CHAPTERS = {path.name[:2]: path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}


def headings(path: Path) -> set[str]:
    """The addresses of a page's headings."""
    found = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("path", [*PAGES, *CHAPTERS.values()], ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = (c for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
        text = re.sub(r"`[^`]*`", "", "\n".join("".join(c["source"]) for c in cells))
    for link in re.findall(r"\]\(([^)]+)\)", text):
        file, _, heading = link.partition("#")
        target = path.parent / file if file else path
        assert link.startswith("https://") or target.exists(), link
        assert not heading or target.suffix != ".md" or heading in headings(target), link


def test_the_readme_names_every_chapter_and_the_guide_has_a_page_for_each():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(CHAPTERS) == 12 and all(chapter.name in text for chapter in CHAPTERS.values())
    assert CHAPTERS.keys() <= {page.stem for page in GUIDE}


@pytest.mark.parametrize("number", CHAPTERS)
def test_the_guide_answers_every_guess_of_a_chapter(number):
    page = (NOTEBOOKS / "for_teachers" / f"{number}.md").read_text(encoding="utf-8")
    answers = re.split(r"^#+ ", page.split("## Predict first")[1], flags=re.MULTILINE)[0]
    cells = json.loads(CHAPTERS[number].read_text(encoding="utf-8"))["cells"]
    asked = re.findall(r"^guess\w* = ", "\n".join("".join(c["source"]) for c in cells), re.MULTILINE)
    assert len(re.findall(r"^- ", answers, re.MULTILINE)) == len(asked)


def test_every_term_of_the_glossary_is_linked_from_the_chapter_that_it_names():
    text = (NOTEBOOKS / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^## (.+)\n\n[^#]*?\(\[chapter (\d\d)\]\((.+?)\)\)", text, re.MULTILINE)
    assert len(terms) == text.count("\n## ") and {number for _, number, _ in terms} == CHAPTERS.keys()
    for term, number, file in terms:
        assert file == CHAPTERS[number].name
        address = re.sub(r"[^\w -]", "", term.lower()).replace(" ", "-")
        assert f"](glossary.md#{address})" in CHAPTERS[number].read_text(encoding="utf-8"), term


def test_the_pages_commands_are_understood():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    commands = re.findall(r"-m mnist_gpu (\w+)([^#`|'\n]*)", text)
    assert {"train", "doctor", "benchmark", "figure", "editions", "gpu"} == {name for name, _ in commands}
    for name, options in commands:
        parser(name).parse_args([name, *shlex.split(options)])
