"""The README and the guide for teachers keep up with the course: links, chapters, commands, answers to predictions."""

import json
import re
import shlex
from pathlib import Path

import pytest

from mnist_gpu.__main__ import parser

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("notebooks/for_teachers.md", "README.md", "INSTALL.md", "CONTRIBUTING.md", "data/README.md")
PAGES = GUIDE, README, *_ = [ROOT / name for name in NAMES]
CHAPTERS = {path.name[:2]: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_links_lead_to_files_and_headings(path):
    text = path.read_text(encoding="utf-8")
    headings = {"#" + h.lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert link in headings or link.startswith("https://") or (path.parent / link).exists(), link
    assert path not in (GUIDE, README) or all(chapter.name in text for chapter in CHAPTERS.values())


@pytest.mark.parametrize("number", CHAPTERS)
def test_the_guide_answers_every_prediction_of_a_chapter(number):
    page = re.split(rf"^### {number} ", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1]
    answers = re.split(r"^#+ ", page.split("#### Predict first")[1], flags=re.MULTILINE)[0]
    cells = json.loads(CHAPTERS[number].read_text(encoding="utf-8"))["cells"]
    asked = re.findall(r"predict first", "\n".join("".join(c["source"]) for c in cells), re.IGNORECASE)
    assert len(re.findall(r"^- ", answers, re.MULTILINE)) == len(asked)


def test_the_pages_commands_are_understood():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    commands = re.findall(r"-m mnist_gpu (\w+)([^#`|'\n]*)", text)
    assert {"train", "doctor", "benchmark", "predict", "exercises", "figure", "gpu"} == {name for name, _ in commands}
    for name, options in commands:
        parser(name).parse_args([name, *shlex.split(options)])
