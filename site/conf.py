"""Sphinx's settings for the web edition: the notebooks, with their stored outputs, as pages that need no network."""

import html
import json
import re
import shutil
import tomllib
from collections import defaultdict
from pathlib import Path

import latex2mathml.converter
from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"].get("urls", {}).get("Repository")

project = "mnist_gpu"
author = "The mnist_gpu authors"
html_title = "GPU acceleration, measured"
language = "en"
root_doc = "README"
include_patterns = ["*.md", "data/README.md", "notebooks/*.ipynb", "notebooks/**.md"]
exclude_patterns = ["AGENTS.md"]
extensions = ["myst_nb"]
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # a progress bar of a finished run is nothing to show, and its script would come from elsewhere
nb_code_prompt_show = nb_code_prompt_hide = "Solution"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type"]

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["course.css"]
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
TREES = {  # the parts of the table of contents
    "Chapters": [f"notebooks/{path.stem}" for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))],
    "Beside them": ["notebooks/glossary", "INSTALL", "CONTRIBUTING", "CHANGELOG", "data/README"],
    "For teachers": [
        f"notebooks/for_teachers/{name}"
        for name in ("README", "before_the_day", "schedules", "drill", *(f"{chapter:02}" for chapter in range(1, 13)))
    ],
}

FOLDER = re.compile(r"\[([^\]]+)\]\((?!\w+:)([^)#]+)\)")


def to_a_folder(document: str, link: re.Match) -> str:
    """A link to a folder leads to the repository, where its address is known, and is plain text elsewhere."""
    folder = (ROOT / document).parent / link[2]
    if not folder.is_dir():
        return link[0]
    return f"[{link[1]}]({REPOSITORY}/tree/main/{folder.relative_to(ROOT).as_posix()})" if REPOSITORY else link[1]


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
        for cell in notebook["cells"]:
            if "solution" in cell["metadata"].get("tags", []):
                cell["metadata"]["tags"].append("hide-cell")
            for output in cell.get("outputs", ()):
                if "image/png" in output.get("data", ()):
                    sentences[name].append(output["metadata"]["image/png"]["alt"])
        source[0] = json.dumps(notebook)
    else:
        source[0] = FOLDER.sub(lambda link: to_a_folder(name, link), source[0])
    if name == root_doc:
        for caption, documents in TREES.items():
            source[0] += TREE.format(caption=caption, documents="\n".join(documents))


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


def finish(app, error) -> None:
    """Beside the pages: the pages that move, the data that they read, and the address of the folder itself."""
    if error is None and app.builder.format == "html":
        out = Path(app.outdir)
        (out / "notebooks/play").mkdir(exist_ok=True)
        for page in (ROOT / "notebooks/play").glob("*.html"):
            text = re.sub(r'(href="[^":]+)\.(?:ipynb|md)\b', r"\1.html", page.read_text("utf-8"))
            (out / "notebooks/play" / page.name).write_text(text, "utf-8")
        shutil.copytree(ROOT / "data/MNIST", out / "data/MNIST", dirs_exist_ok=True)
        shutil.copyfile(out / f"{root_doc}.html", out / "index.html")


def setup(app) -> None:
    app.add_html_math_renderer("mathml", inline_renderers=(visit_inline, None), block_renderers=(visit_block, None))
    app.add_post_transform(PrintedLines)
    app.connect("source-read", as_a_page)
    app.connect("doctree-read", give_sentences)
    app.connect("build-finished", finish)


html_math_renderer = "mathml"
