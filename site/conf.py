"""Sphinx's settings for the web edition: the notebooks, with their stored outputs, as pages that need no network."""

import html
import json
import os
import posixpath
import re
import shutil
import tomllib
from collections import defaultdict
from pathlib import Path

import latex2mathml.converter
from docutils import nodes
from sphinx.search.zh import SearchChinese
from sphinx.transforms.post_transforms import SphinxPostTransform

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"].get("urls", {}).get("Repository")

# One run of Sphinx builds one language: the English, or the edition that is named here (site/build.py runs all).
EDITION = os.environ.get("EDITION", "")
EDITIONS = {path.parent.name: json.loads(path.read_text("utf-8")) for path in ROOT.glob("translations/*/edition.json")}
WORDS = EDITIONS.get(EDITION, {}).get("site", {})  # what the pages say beside the course's own texts
CHAPTERS = f"notebooks/{EDITION}".rstrip("/")  # the folder of this edition's texts
OF_THE_REPOSITORY = ["INSTALL", "CONTRIBUTING", "CHANGELOG", "data/README"]  # in English only

project = "mnist_gpu"
author = "The mnist_gpu authors"
html_title = WORDS.get("title", "GPU acceleration, measured")
language = WORDS.get("language", "en")
root_doc = f"README.{EDITION}".rstrip(".")
include_patterns = [f"{root_doc}.md", f"{CHAPTERS}/*.ipynb", f"{CHAPTERS}/*.md", f"{CHAPTERS}/for_teachers/*.md"]
if not EDITION:
    include_patterns += [f"{name}.md" for name in OF_THE_REPOSITORY]
extensions = ["myst_nb"]
nb_execution_mode = "off"
highlight_language = "text"  # of a block in a text that names none: a diagram, or what a command printed
nb_ipywidgets_js = {}  # a progress bar of a finished run is nothing to show, and its script would come from elsewhere
nb_code_prompt_show = nb_code_prompt_hide = WORDS.get("Solution", "Solution")
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type"]

# Sphinx 9.0 calls a search's stemmer after its language, but the Chinese search takes the English one for Latin words.
SearchChinese.language_name = "English"

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_js_files = ["course.js"]
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
templates_path = ["_templates"]
html_sidebars = {"**": ["home.html", "search-button-field.html", "sbt-sidebar-nav.html"]}
html_copy_source = True
html_show_copyright = False
html_theme_options = {
    "use_download_button": True,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "navbar_persistent": [],  # the search stands in the sidebar
    "pygments_dark_style": "a11y-dark",  # its comments are quieter than the code
}
if REPOSITORY:
    html_theme_options |= {
        "repository_url": REPOSITORY,
        "repository_branch": "main",
        "path_to_docs": ".",
        "use_repository_button": True,
        "use_issues_button": True,
        "launch_buttons": {"colab_url": "https://colab.research.google.com", "notebook_interface": "jupyterlab"},
    }


# Formulas are MathML, which browsers show and read aloud themselves: no script, no fonts.


def mathml(latex: str, display: str) -> str:
    return latex2mathml.converter.convert(latex, display=display)


def visit_inline(self, node):
    self.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def visit_block(self, node):
    self.body.append(f'<div class="math">{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


# What differs between a page and its source.

TREE = """
```{{toctree}}
:hidden:
:caption: {caption}

{documents}
```
"""
OF_A_CHAPTER = re.compile(r"# (\d\d) \[(.+)\]\(.+\)")  # the heading of a teachers' page


def title_of(path: Path, heading: re.Pattern) -> str:
    return " ".join(heading.search(path.read_text("utf-8")).groups())


TREES = {  # the parts of the table of contents: a document, or a title and its document or address
    "Chapters": [f"{CHAPTERS}/{path.stem}" for path in sorted((ROOT / CHAPTERS).glob("[0-9]*.ipynb"))],
    "In the browser": [  # Sphinx knows no pages but its own, so `finish` writes the addresses
        f"{title_of(path, re.compile('<title[^>]*>(.+)</title>'))} <play://{path.name}>"
        for path in sorted((ROOT / CHAPTERS / "play").glob("*.html"), reverse=True)
    ],
    "Beside them": [
        f"{CHAPTERS}/glossary",
        *([] if EDITION else OF_THE_REPOSITORY),
    ],
    "For teachers": [
        *(f"{CHAPTERS}/for_teachers/{name}" for name in ("README", "before_the_day", "schedules", "drill")),
        *(
            f"{title_of(path, OF_A_CHAPTER)} <{CHAPTERS}/for_teachers/{path.stem}>"
            for path in sorted((ROOT / CHAPTERS / "for_teachers").glob("[0-9]*.md"))
        ),
    ],
}
STORED = "*This page shows a stored run. To run the chapter yourself, see [the first page]({start}).*"
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!\w+:)([^)#\s]+)(#[^)]*)?\)")


def edition_of(document: str) -> str:
    """The code of the edition that a text belongs to, by its path; "" is the English one."""
    return next((e for e in EDITIONS if document.startswith((f"notebooks/{e}/", f"README.{e}"))), "")


def page_of(document: str) -> str:
    """Where the page of a text lies: each edition's are in a folder of its own."""
    return posixpath.join(edition_of(document), posixpath.splitext(document)[0] + ".html")


def elsewhere(document: str, link: re.Match) -> str:
    """A link to what this run makes no page of: to a folder, to a page that moves, or to another edition's page.

    A folder is in the repository, if its address is known, and plain text else.
    """
    text, path, anchor = link[1], link[2], link[3] or ""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(document), path))
    if (ROOT / target).is_dir():
        return f"[{text}]({REPOSITORY}/tree/main/{target})" if REPOSITORY else text
    other = edition_of(target) != EDITION and target.endswith((".md", ".ipynb"))
    if other or target.endswith(".html"):
        here = posixpath.dirname(page_of(f"{document}.md"))
        return f'<a href="{posixpath.relpath("/" + page_of(target), "/" + here)}{anchor}">{text}</a>'
    return link[0]


sentences = defaultdict(list)  # of a document's figures, in their order; myst-nb does not take them over


def give_sentences(app, doctree) -> None:
    shown = [image for output in doctree.findall(nodes.container) for image in output.findall(nodes.image)
             if "cell_output" in output["classes"]]  # fmt: skip
    for image, sentence in zip(shown, sentences.pop(app.env.docname, []), strict=True):
        image["alt"] = " ".join(sentence.split())


def as_a_page(app, name: str, source: list[str]) -> None:
    """Folds the solutions, notes the sentences of the figures, and adds the table of contents."""
    if app.env.doc2path(name).suffix == ".ipynb":
        notebook = json.loads(source[0])
        start = posixpath.relpath(f"{root_doc}.md", posixpath.dirname(name))
        about = notebook["cells"][0]["source"]
        about.append("\n\n" + WORDS.get("stored", STORED).format(start=start))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = LINK.sub(lambda link: elsewhere(name, link), "".join(cell["source"]))
            if "solution" in cell["metadata"].get("tags", []):
                cell["metadata"]["tags"].append("hide-cell")
            for output in cell.get("outputs", ()):
                if "image/png" in output.get("data", ()):
                    sentences[name].append(output["metadata"]["image/png"]["alt"])
        source[0] = json.dumps(notebook)
    else:
        # a teachers' page is named after its chapter: a search shows which of the two it found
        teachers = rf"\g<0> · {WORDS.get('For teachers', 'For teachers')}"
        source[0] = OF_A_CHAPTER.sub(teachers, source[0], count=1)
        source[0] = LINK.sub(lambda link: elsewhere(name, link), source[0])
    if name == root_doc:
        for caption, documents in filter(lambda tree: tree[1], TREES.items()):
            source[0] += TREE.format(caption=WORDS.get(caption, caption), documents="\n".join(documents))


def printed(line: str) -> str:
    text, columns = html.escape(line), re.search(r"\S {2,}\S", line) and len(line) <= 100
    return f'<span class="columns">{text}</span>' if columns else text


class PrintedLines(SphinxPostTransform):
    """What a cell printed: sentences wrap, and lines with columns stay as they are."""

    default_priority = 1
    formats = ("html",)

    def run(self):
        for output in list(self.document.findall(nodes.container)):
            for block in list(output.findall(nodes.literal_block)) if "cell_output" in output["classes"] else ():
                lines = [printed(line) for line in block.astext().rstrip().split("\n")]
                text = f'<pre class="printed" tabindex="0">{chr(10).join(lines)}</pre>'
                block.replace_self(nodes.raw("", text, format="html"))


def other_editions(app, name: str, template: str, context: dict, doctree) -> None:
    """For the menu: each other edition's name, code and address of this page there, or of its first page."""
    english = name.replace(f"{CHAPTERS}/", "notebooks/", 1).removesuffix(f".{EDITION}")
    here, context["editions"] = posixpath.dirname(posixpath.join(EDITION, name)), []
    for code, edition in {"": {"name": "English", "language": "en"}, **EDITIONS}.items():
        if code == EDITION:
            continue
        there = english.replace("notebooks/", f"notebooks/{code}/", 1) if code else english
        files = [ROOT / f"{there}{suffix}" for suffix in (".md", ".ipynb")]
        if edition_of(f"{there}.md") != code or not any(file.exists() for file in files):
            there = f"README.{code}".rstrip(".")
        page = page_of(f"{there}.md")
        context["editions"].append((edition["name"], edition["language"], posixpath.relpath("/" + page, "/" + here)))


def finish(app, error) -> None:
    """Beside the pages: the pages that move, the data that they read, and the address of the folder itself."""
    if error is None and app.builder.format == "html":
        out = Path(app.outdir)
        for page in (ROOT / CHAPTERS / "play").glob("*.html"):
            text = re.sub(r'(href="[^":]+)\.(?:ipynb|md)\b', r"\1.html", page.read_text("utf-8"))
            (out / CHAPTERS / "play").mkdir(exist_ok=True)
            (out / CHAPTERS / "play" / page.name).write_text(text, "utf-8")
        for page in out.rglob("*.html"):
            folder = posixpath.relpath("/" + CHAPTERS + "/play", "/" + page.relative_to(out).parent.as_posix())
            text = page.read_text("utf-8")
            if 'external" href="play://' in text:
                page.write_text(text.replace('external" href="play://', f'internal" href="{folder}/'), "utf-8")
        if not EDITION:
            shutil.copytree(ROOT / "data/MNIST", out / "data/MNIST", dirs_exist_ok=True)
        shutil.copyfile(out / f"{root_doc}.html", out / "index.html")
        for file in out.glob("_static/*/*.map"):  # 3.5 MB, for whoever debugs the theme
            file.unlink()


def setup(app) -> None:
    app.add_html_math_renderer("mathml", inline_renderers=(visit_inline, None), block_renderers=(visit_block, None))
    app.add_post_transform(PrintedLines)
    app.connect("source-read", as_a_page)
    app.connect("doctree-read", give_sentences)
    app.connect("html-page-context", other_editions)
    app.connect("build-finished", finish)


html_math_renderer = "mathml"
