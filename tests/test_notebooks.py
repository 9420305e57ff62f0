"""What is stored in the notebooks; that they run is tested by nbmake, which executes each of them."""

import ast
import importlib.util
import json
import re
from pathlib import Path

import nbformat
import pytest
from test_canonical import notebooks

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)

# A number with a unit of something that is measured. Sizes (28 x 28, 47 MB as bytes) and settings are not.
MEASURED = re.compile(
    r"\d[\d.,]*\s*(μs|us|ms|s|seconds?|GB/s|MB/s|[GT]?FLOP/s|images/s|%|percent|x|times)\s+"
    r"(faster|slower|longer|as long|more|less|(an?|per) (epoch|step|image)|of the time)"
    r"|\d[\d.,]*\s*(μs|us|ms|seconds|GB/s|MB/s|[MGT]FLOP/s|images/s)\b",
    re.I,
)
ALLOWED = {"1 GFLOP/s"}  # the unit, explained


def cells(path: Path, kind: str) -> list:
    return [c for c in nbformat.read(path, 4).cells if c.cell_type == kind]


def tree(node: ast.AST) -> str:
    """The syntax tree as text, without docstrings and annotations."""
    for inner in ast.walk(node):
        for name in ("annotation", "returns"):
            if hasattr(inner, name):
                setattr(inner, name, None)
        if isinstance(inner, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(inner):
            inner.body = inner.body[1:]
    return ast.dump(node)


@every_notebook
def test_is_stored_after_one_clean_run_with_no_path_of_the_machine_and_no_warning(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    code = cells(path, "code")
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    outputs = [o for c in code for o in c.outputs]
    assert outputs and not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    stored = json.dumps(outputs)
    text = re.sub(r'"image/png": "[^"]*"', "", stored)
    assert not re.search(r"/(home|root|tmp|Users|work|usr|opt)/|[A-Z]:\\\\", text)
    assert "Warning" not in text


@every_notebook
def test_begins_and_ends_as_every_chapter_does(path):
    notebook = nbformat.read(path, 4)
    first, last = notebook.cells[0].source, notebook.cells[-1].source
    assert re.match(rf"# {path.name[:2]} \w+", first)
    assert first.count("\n# - ") + first.count("\n- ") == 3, "three things the reader will be able to do"
    assert "**Time:**" in first and "**Builds on:**" in first
    assert last.startswith("## Key points")
    assert "setup()" in cells(path, "code")[0].source
    assert cells(path, "code")[0].outputs[0].text.startswith("Device: ")


@every_notebook
def test_prose_types_no_measured_number(path):
    found = [m.group() for c in cells(path, "markdown")[1:] for m in MEASURED.finditer(c.source)]
    assert not [f for f in found if f not in ALLOWED]


def test_the_search_for_measured_numbers_finds_them():
    for text in ("takes 3.5 ms", "26,000 images/s", "7 times faster", "90 % of the time", "1.3 s per epoch", "35 GB/s"):
        assert MEASURED.search(text), text
    for text in ("28 x 28 pixels", "47 MB as bytes", "128 images", "0 to 255", "10 minutes to read"):
        assert not MEASURED.search(text), text


@every_notebook
def test_a_chapter_is_small_enough_to_be_read(path):
    every = nbformat.read(path, 4).cells
    begin = next(
        i for i, c in enumerate(every) if c.cell_type == "markdown" and re.search("^## Exercises", c.source, re.M)
    )
    text = [c.source for c in every[:begin] if c.cell_type == "markdown"]
    assert begin <= 30 and len(" ".join(text).split()) <= 1500
    code = [c for c in every[:begin] if c.cell_type == "code"]
    assert len(notebooks.without_set_up(code[0].source).splitlines()) <= 12
    for cell in cells(path, "code"):
        lines = notebooks.without_set_up(cell.source).splitlines()
        assert len(lines) <= 20 and max(map(len, lines)) <= 88, cell.source
    guesses = [c for c in code if re.match(r"guess\w* = ", c.source)]
    assert len(guesses) <= 4 and sum("you_said(" in c.source for c in code) >= len(guesses)
    figures = [o for c in code for o in c.outputs if "image/png" in o.get("data", {})]
    assert len(figures) <= 4
    says = [o.metadata["image/png"]["alt"] for o in figures]
    assert all(re.search(r"\d", text) for text in says), "a text with the numbers, for those who can't see the figure"


COPIES = [
    pytest.param(c.source, m.group(1), m.group(2), id=f"{p.stem}-{m.group(2)}")
    for p in NOTEBOOKS
    for c in cells(p, "code")
    for m in re.finditer(r"^# same as (mnist_gpu(?:\.\w+)+)\.(\w+)$", c.source, re.M)
]


def test_there_are_notebooks_and_deliberate_copies_in_them():
    assert [p.name[:2] for p in NOTEBOOKS] == [f"{i:02d}" for i in range(1, len(NOTEBOOKS) + 1)]
    assert len(NOTEBOOKS) == 12 and len(COPIES) >= 4


@pytest.mark.parametrize(("source", "module", "name"), COPIES)
def test_deliberate_copy_equals_its_source(source, module, name):
    def definition(text):
        return next(n for n in ast.parse(text).body if getattr(n, "name", None) == name)

    # Found, not imported: the kernels' module needs a process in which nobody has imported Triton before.
    original = Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")
    assert tree(definition(source)) == tree(definition(original))
