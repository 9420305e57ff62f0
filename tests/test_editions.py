"""The translated editions: made from the English as it is, with its form, and the terms and rules of their language."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path

import pytest
from test_canonical import notebooks

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "translations"))
editions, form, in_html = (importlib.import_module(name) for name in ("editions", "form", "in_html"))

FILES = [(name, language) for language in editions.languages() for name in editions.english_files()]
FILES = [(name, language) for name, language in FILES if editions.source_of(name, language).exists()]
every_file = pytest.mark.parametrize(("name", "language"), FILES, ids=lambda part: part)
every_language = pytest.mark.parametrize("language", editions.languages())
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BRANCH = ("GITHUB_REF_NAME", "GITHUB_BASE_REF", "CI_COMMIT_BRANCH", "CI_MERGE_REQUEST_TARGET_BRANCH_NAME")


@cache
def reports() -> list[dict[str, list[str]]]:
    return [editions.report(name, language) for name, language in FILES]


def found(state: str) -> list[str]:
    return [line for report in reports() for line in report[state]]


def committed(name: str, language: str) -> str:
    return (ROOT / editions.made_name(name, language)).read_text(encoding="utf-8")


def to_be_done(lines: list[str], environment: dict[str, str]) -> None:
    """A note, so that whoever mends an English sentence is not stopped; but nothing is released that is not in step."""
    release = any(environment.get(name, "").startswith("release") for name in BRANCH)
    assert not (release and lines), "\n".join(lines)
    if lines:
        warnings.warn("`python -m mnist_gpu editions` says more:\n" + "\n".join(lines), stacklevel=2)


@every_file
def test_an_edition_is_what_the_tool_makes(name, language):
    assert committed(name, language) == editions.made(name, language), "run `make editions`"


@every_language
def test_an_edition_has_no_file_that_nothing_makes(language):
    folder = ROOT / "notebooks" / language
    there = {p.relative_to(ROOT).as_posix() for p in folder.rglob("*") if p.suffix in (".ipynb", ".md", ".html")}
    there = {name for name in there if ".ipynb_checkpoints" not in name}
    assert there == {editions.made_name(n, la) for n, la in FILES if la == language and n.startswith("notebooks/")}
    folder = ROOT / "translations" / language
    sources = {p for p in folder.rglob("*.md") if editions.MARK.search(editions.read(p))} | {*folder.glob("play/*")}
    assert sources == {editions.source_of(n, la) for n, la in FILES if la == language}


@pytest.mark.parametrize(("name", "language"), [f for f in FILES if f[0].endswith(".ipynb")], ids=lambda part: part)
def test_code_and_outputs_are_those_of_the_english_cell_by_cell(name, language):
    english, translated = json.loads(editions.read(ROOT / name)), json.loads(committed(name, language))
    for ours, theirs in zip(english.pop("cells"), translated.pop("cells"), strict=True):
        if ours["cell_type"] == "markdown":
            assert ours.pop("source") and theirs.pop("source")
        assert json.dumps(ours) == json.dumps(theirs)
    assert json.dumps(english) == json.dumps(translated)


def test_every_text_keeps_the_form_of_its_english_and_the_terms_and_rules_of_its_language():
    assert found("wrong") == []


@pytest.mark.filterwarnings("default")
def test_what_is_stale_or_missing_is_a_note_and_on_a_release_branch_an_error():
    to_be_done(found("stale") + found("extra") + found("missing"), dict(os.environ))


@pytest.mark.parametrize("name", BRANCH)
def test_a_stale_text_stops_a_release_and_nothing_else(name):
    with pytest.raises(AssertionError, match="is stale"):
        to_be_done(["README.md: start is stale"], {name: "release/1.0"})
    with pytest.warns(UserWarning, match="is stale"):
        to_be_done(["README.md: start is stale"], {name: "main"})
    to_be_done([], {name: "release/1.0"})


@every_file
def test_links_lead_to_files_and_headings(name, language):
    text, here = committed(name, language), ROOT / editions.made_name(name, language)
    cells = json.loads(text)["cells"] if name.endswith(".ipynb") else []
    text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown") or text
    text = text.partition(in_html.SCRIPTS)[0]
    for link in form.LINK.findall(form.CODE.sub("", text)):
        file, _, heading = link.partition("#")
        target = here.parent / file if file else here
        assert link.startswith(("https://", "data:,")) or target.exists(), link
        assert not heading or target.suffix != ".md" or heading in editions.sections(editions.read(target)), link


@every_language
def test_the_terms_are_those_of_the_glossary_which_gives_the_same_translations(language):
    terms, glossary = editions.settings(language, "terms.json"), "notebooks/glossary.md"
    headings = re.findall(r"^## (.+)$", editions.read(ROOT / glossary), re.MULTILINE)
    assert {term for heading in headings for term in heading.split(", ")} <= terms["terms"].keys()
    assert set(terms["only where linked"]) <= terms["terms"].keys() and all(terms["terms"].values())
    for text in editions.texts(glossary, language)[1:]:
        if text.state == "translated":
            heading, _, body = text.translation.partition("\n\n")
            assert form.address(heading) == text.key, "the links lead to the English heading"
            shown = re.match(r"\*\*(.+?)\*\*", body).group(1)
            of_term = [terms["terms"][term] for term in heading.removeprefix("## ").split(", ")]
            assert all(any(word in shown for word in allowed) for allowed in of_term), body


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_code_of_a_chapter_names_no_file_beside_the_notebook(path):
    """A translated notebook stands one folder deeper, so a path from the working directory would lead elsewhere."""
    code = [c for c in json.loads(editions.read(path))["cells"] if c["cell_type"] == "code"]
    text = notebooks.without_set_up("\n".join("".join(c["source"]) for c in code))
    assert text and not re.findall(
        r"""["'](?:\.\.?/|(?:data|results|notebooks|mnist_gpu|play)/)[^"']*["']|getcwd|cwd\(""", text
    )


RULES = [(la, rule) for la in editions.languages() for rule in editions.settings(la, "edition.json").get("rules", {})]


@pytest.mark.parametrize(("language", "rule"), RULES)
def test_a_rule_finds_what_breaks_it(language, rule):
    edition = editions.settings(language, "edition.json")
    bad, good = edition["rules"][rule]["example"], edition["no example"]
    assert rule in {kind for kind, _ in form.problems("", bad, edition["rules"], {})}
    assert not form.problems(good, good, edition["rules"], {})


ENGLISH = """## A heading

Call `run()` and [see](../README.md#start), by $n^2$, at <https://example.org>.

```sh
make lab    # opens it
```

- one
- two

| a | b |
|---|---|

<details><summary>Hint</summary>

A *word*, and {n} **words**.

</details>"""


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("code", "`run()`", "run"),
        ("block", "make lab ", "make test "),
        ("formula", "$n^2$", "$n^3$"),
        ("placeholder", "{n}", "{m}"),
        ("link", "README.md#start", "README.md"),
        ("link", "example.org", "example.com"),
        ("heading", "## A", "### A"),
        ("list", "- two", "two"),
        ("table", "| a | b |", "| a |"),
        ("tag", "</details>", ""),
        ("emphasis", "**words**", "**words,**for"),
        ("emphasis", "*word*", "*word"),
    ],
)
def test_what_a_translation_loses_is_found(kind, old, new):
    assert form.problems(ENGLISH, ENGLISH.replace("# opens it", "# öffnet es"), {}, {}) == []
    assert {found for found, _ in form.problems(ENGLISH, ENGLISH.replace(old, new, 1), {}, {})} == {kind}


def test_a_term_has_its_translation_wherever_it_is_used_and_the_longest_counts():
    terms = {
        "terms": {"cache": ["Cache"], "cache line": ["Zeile"], "pair": ["Paar"], "SM": ["SM"], "batch": ["Stapel"]},
        "only where linked": ["pair"],
    }

    def kinds(english: str, translation: str) -> list[str]:
        return [kind for kind, _ in form.problems(english, translation, {}, terms)]

    assert kinds("Two cache lines.", "Zwei Zeilen.") == [] and kinds("Caches.", "Speicher.") == ["term cache"]
    assert kinds("Two batches.", "Zwei.") == ["term batch"]
    assert kinds("A pair.", "Zwei.") == [] and kinds("sms, cached, `cache`", "`cache`") == []
    assert kinds("A [pair](g.md#pair).", "[Zwei](g.md#pair).") == ["term pair"]


@pytest.fixture
def course(tmp_path):
    """A small course in English, with the tool, for a language that it has never heard of."""
    (tmp_path / "translations").mkdir()
    for tool in ("editions.py", "form.py", "in_html.py"):
        shutil.copy(ROOT / "translations" / tool, tmp_path / "translations")
    (tmp_path / "notebooks/for_teachers").mkdir(parents=True)
    page = "# Course\n\nRead [one](notebooks/01_one.ipynb) and the [words](notebooks/glossary.md#gpu).\n\n## Start\n\n"
    page += "```sh\n# no heading\n```\n"
    (tmp_path / "README.md").write_text(page, encoding="utf-8")
    (tmp_path / "notebooks/glossary.md").write_text("# Glossary\n\n## GPU\n\nComputes.\n", encoding="utf-8")
    write_notebook(
        tmp_path, first="# 01 One\n\nSee [home](../README.md), [film](play/film.html), [code](../mnist_gpu/)."
    )
    return tmp_path


def write_notebook(course: Path, **cells: str) -> None:
    every = [{"cell_type": "markdown", "id": key, "metadata": {}, "source": [text]} for key, text in cells.items()]
    every.append(
        {"cell_type": "code", "execution_count": 1, "id": "sum", "metadata": {}, "outputs": [], "source": ["1 + 1"]}
    )
    content = json.dumps({"cells": every, "metadata": {"x": 1}, "nbformat": 4, "nbformat_minor": 5})
    (course / "notebooks/01_one.ipynb").write_text(content, encoding="utf-8")


def tool(course: Path, *arguments: str, status: int = 0) -> str:
    command = [sys.executable, "translations/editions.py", *arguments]
    done = subprocess.run(command, cwd=course, capture_output=True, encoding="utf-8")
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def translate(course: Path, file: str, old: str, new: str) -> None:
    path = course / "translations/xx" / file
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def shown(course: Path) -> list[str]:
    cells = json.loads((course / "notebooks/xx/01_one.ipynb").read_text(encoding="utf-8"))["cells"]
    assert cells[-1]["source"] == ["1 + 1"]
    return ["".join(cell["source"]) for cell in cells[:-1]]


def test_a_language_is_a_folder_and_begins_in_english(course):
    tool(course, "new", "xx")
    said = tool(course)
    assert "01_one.md: all missing of 1" in said and "README.md: all missing of 2" in said
    (cell,) = shown(course)
    assert cell.startswith("# 01 One\n\n*[English](../01_one.ipynb)*\n\n*(In English.)*\n\nSee ")
    assert "[home](../../README.xx.md), [film](../play/film.html), [code](../../mnist_gpu/)." in cell
    page = (course / "README.xx.md").read_text(encoding="utf-8")
    assert "[one](notebooks/xx/01_one.ipynb)" in page and "[words](notebooks/xx/glossary.md#gpu)" in page
    assert "[English](README.md)" in page and page.count("```") == 2
    translate(course, "glossary.md", "Computes.", "Rechnet.")
    translate(course, "01_one.md", "See [home]", "Siehe [Haus]")
    assert "01_one.md" not in tool(course, "list"), "the other languages' files are not of interest"
    assert shown(course) == [cell], "a list makes nothing"
    tool(course, "translations/xx/01_one.md")
    assert "Siehe [Haus](../../README.xx.md)" in shown(course)[0] and "(In English.)" not in shown(course)[0]
    assert "Computes." in (course / "notebooks/xx/glossary.md").read_text(encoding="utf-8"), (
        "one file only was asked for"
    )


def test_links_to_hosts_of_notebooks_are_not_translated_and_open_the_edition(course):
    tool(course, "new", "xx")
    translate(course, "01_one.md", "# 01 One", "# 01 Eins")
    translate(course, "README.md", "# Course", "# Kurs")
    edition = course / "translations/xx/edition.json"
    names = {"replace": {"Open in Colab": "In Colab"}}
    edition.write_text(json.dumps(json.loads(edition.read_text(encoding="utf-8")) | names), encoding="utf-8")
    path, readme = course / "notebooks/01_one.ipynb", course / "README.md"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    colab, kaggle = "https://colab.org/x/notebooks/01_one.ipynb", "https://kaggle.org/?src=x/notebooks/01_one.ipynb"
    write_notebook(course, first=cells[0]["source"][0] + f"\n\n[Open in Colab]({colab}), [in Kaggle]({kaggle})")
    badge = f"# Course\n\n[![Open chapter 01 in Colab](https://x/b.svg)]({colab})"
    readme.write_text(readme.read_text(encoding="utf-8").replace("# Course", badge, 1), encoding="utf-8")
    assert "stale" not in tool(course)
    (cell,) = shown(course)
    own = colab.replace("notebooks/", "notebooks/xx/")
    assert cell.startswith(
        f"# 01 Eins\n\n*[English](../01_one.ipynb)*\n\n[In Colab]({own}), [in Kaggle](https://kaggle.org/"
    )
    assert cell.count("Colab") == 1 and kaggle.replace("notebooks/", "notebooks/xx/") in cell
    page = (course / "README.xx.md").read_text(encoding="utf-8")
    assert page.startswith("# Kurs\n\n*[English](README.md)*\n\n[![Open") and f"({own})\n\nRead [one]" in page


def test_a_changed_a_new_and_a_lost_text_are_named_and_what_is_translated_is_kept(course):
    git = ["git", "-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false", "-C", str(course)]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        if shutil.which("git"):
            subprocess.run([*git, *command], check=True)
    write_notebook(course, first="# 01 One", second="An old sentence.", third="A third.")
    if shutil.which("git"):
        subprocess.run([*git, "commit", "-qam", "x"], check=True)
    tool(course, "new", "xx")
    translate(course, "01_one.md", "An old sentence.", "Ein alter Satz.")
    translate(course, "01_one.md", "A third.", "Ein dritter.")
    tool(course)
    assert shown(course)[1] == "Ein alter Satz."

    write_notebook(course, first="# 01 One", second="A sentence between.", third="A third.")
    if shutil.which("git"):
        subprocess.run([*git, "commit", "-qam", "x"], check=True)
    write_notebook(course, first="# 01 One", second="A new sentence.", fourth="A fourth.")
    said = tool(course, "list")
    old, new = editions.hash_of("An old sentence."), editions.hash_of("A new sentence.")
    assert f"second is stale. Mend the translation, then write {new} for {old}." in said and "+ A new sentence." in said
    assert ("- An old sentence." in said) == bool(shutil.which("git"))
    assert "third is no longer in the English" in said and "01_one.md: first, fourth missing of 3" in said
    tool(course)
    assert shown(course)[1:] == ["*(In English.)*\n\nA new sentence.", "*(In English.)*\n\nA fourth."]
    tool(course, "new", "xx")
    source = (course / "translations/xx/01_one.md").read_text(encoding="utf-8")
    assert source.index("Ein alter Satz.") < source.index("A fourth.") < source.index("Ein dritter."), "nothing is lost"
    translate(course, "01_one.md", old, new)
    translate(course, "01_one.md", "Ein alter", "Ein neuer")
    assert "stale" not in tool(course) and shown(course)[1] == "Ein neuer Satz."

    shutil.rmtree(course / ".git", ignore_errors=True)
    write_notebook(course, first="# 01 One", second="A third sentence.")
    if not (course / ".git").exists():
        assert "git does not know" in tool(course, "list")


FILM = """<!doctype html>
<html lang="en">
<title data-t="title">A film</title>
<body lang="en" data-folder="notebooks/play">
<h1 data-t="title">A film</h1>
<p data-t="first">Read <b>chapter</b>
01.</p>
<a data-t="back" href="../01_one.ipynb">Chapter 01</a> <a href="../../README.md">README</a>
<script id="text">
const TEXT = {
  unit: "GPU", "of a film": "{n} of \\"{m}\\"",
  gap: " ",
};
</script>
<script>say("back", "title: \\"A film\\"", 'href="../01_one.ipynb"');</script>
"""


def film(course: Path) -> None:
    (course / "notebooks/play").mkdir()
    (course / "notebooks/play/film.html").write_text(FILM, encoding="utf-8")


def test_a_page_that_moves_is_made_with_its_texts_language_and_links(course):
    film(course)
    tool(course, "new", "xx")
    tool(course)
    made = course / "notebooks/xx/play/film.html"
    own = FILM.replace('"en"', '"xx"').replace('data-folder="notebooks/play"', 'data-folder="notebooks/xx/play"')
    own = own.replace('"../../README.md"', '"../../../README.xx.md"')
    assert made.read_text(encoding="utf-8") == own, "in English, but for where it stands"
    assert "[film](play/film.html)" in shown(course)[0], "a page of the language leads to that of the language"
    source = course / "translations/xx/play/film.json"
    texts = json.loads(source.read_text(encoding="utf-8"))
    assert {key: text["en"] for key, text in texts.items()} == {
        "title": "A film", "first": "Read <b>chapter</b> 01.", "back": "Chapter 01",
        "unit": "GPU", "of a film": '{n} of "{m}"', "gap": " ",
    }  # fmt: skip
    assert not any(text["text"] for text in texts.values())
    assert "film.json: all missing of 6" in tool(course, "list")

    german = {
        "title": "Ein Film",
        "first": "Lies <b>Kapitel</b> 01.",
        "of a film": 'von "{m}" {n}',
        "unit": "GPU",
        "gap": "",
    }
    for key, text in german.items():
        texts[key]["text"] = text
    source.write_text(json.dumps(texts), encoding="utf-8")
    assert "film.json: back missing of 6" in tool(course), "a text may be the same as in English"
    page = made.read_text(encoding="utf-8")
    assert page.count(">Ein Film<") == 2 and ">Lies <b>Kapitel</b> 01.<" in page and ">Chapter 01<" in page
    assert '"of a film": "von \\"{m}\\" {n}"' in page and 'unit: "GPU"' in page and 'gap: ""' in page
    assert page.partition("</script>")[2] == FILM.partition("</script>")[2], "the other scripts are nobody's language"
    tool(course, "new", "xx")
    assert made.read_text(encoding="utf-8") == page and json.loads(source.read_text(encoding="utf-8")) == texts


def test_of_a_page_that_moves_a_stale_text_is_in_english_and_a_wrong_one_is_named(course):
    film(course)
    tool(course, "new", "xx")
    translate(course, "play/film.json", '"A film",\n  "text": null', '"A film",\n  "text": "Ein Film"')
    translate(course, "play/film.json", '"{n} of \\"{m}\\"",\n  "text": null', '"{n} of \\"{m}\\"",\n  "text": "{n}"')
    (course / "notebooks/play/film.html").write_text(FILM.replace("A film", "A new film"), encoding="utf-8")
    said = tool(course, status=1)
    assert "film.json: title is stale. Mend the translation, then write the new English beside it." in said
    assert "- A film" in said and "+ A new film" in said
    assert "film.json: of a film: placeholder: missing '{m}'" in said
    assert (course / "notebooks/xx/play/film.html").read_text(encoding="utf-8").count(">A new film<") == 2
    source = course / "translations/xx/play/film.json"
    texts = json.loads(source.read_text(encoding="utf-8"))
    texts["of a film"]["except"] = ["placeholder"]
    texts["title"]["en"] = "A new film"
    source.write_text(json.dumps(texts), encoding="utf-8")
    assert "stale" not in (said := tool(course)) and "placeholder" not in said
    assert (course / "notebooks/xx/play/film.html").read_text(encoding="utf-8").count(">Ein Film<") == 2
    tool(course, "new", "xx")
    assert json.loads(source.read_text(encoding="utf-8")) == texts, "nothing is lost"


def test_two_texts_of_a_page_that_moves_have_two_keys():
    with pytest.raises(ValueError, match="two texts have the key title"):
        in_html.texts(FILM.replace('<title data-t="title">A film', '<title data-t="title">Another'))


def test_mistakes_are_named_and_may_be_excepted_while_they_are_there(course):
    tool(course, "new", "xx")
    write_notebook(course, first="Call `run()`.")
    tool(course, "new", "xx")
    source = course / "translations/xx/01_one.md"
    mark = f"<!-- text first {editions.hash_of('Call `run()`.')} -->"
    source.write_text(f"{mark}\nRufe es auf.\n", encoding="utf-8")
    assert "01_one.md: first: code: missing '`run()`'" in tool(course, status=1)
    source.write_text(f"{mark.replace(' -->', ' except: code, link -->')}\nRufe es auf.\n", encoding="utf-8")
    tool(course, "new", "xx")
    said = tool(course, status=1)
    assert "first: code:" not in said and "there is no 'link' to except" in said
    source.write_text(f"{mark}\nRufe `run()` auf.\n\n{mark}\nX\n", encoding="utf-8")
    assert "first stands there twice" in (said := tool(course, status=1)) and "Traceback" not in said
    assert "No file of an edition: nothing.md" in tool(course, "nothing.md", status=2)


def test_sections_come_back_as_the_page_and_have_keys_of_their_own():
    page = "Above.\n\n# One, two\n\ntext\n\n## Same\n\n```sh\n# a comment\n```\n\n## Same\n\nmore\n"
    found = editions.sections(page)
    assert list(found) == ["top", "one-two", "same", "same--2"] and "\n\n".join(found.values()) + "\n" == page
    for name in editions.english_files():
        if name.endswith(".md"):
            content = editions.read(ROOT / name)
            assert "\n\n".join(editions.sections(content).values()) + "\n" == content, name


def test_the_command_line_lists_what_is_to_be_done():
    done = subprocess.run(
        [sys.executable, "-m", "mnist_gpu", "editions"], cwd=ROOT, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0 and f"{len(FILES)} files looked at, 0 mistakes found" in done.stdout
