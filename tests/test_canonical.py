"""The notebooks are stored in one form, and what is made from the repository's public address is there if it is set."""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("canonical_notebooks", ROOT / ".ci/canonical_notebooks.py")
notebooks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(notebooks)

STORED = sorted((ROOT / "notebooks").glob("*.ipynb"))
ADDRESS = "https://github.com/someone/a-course"
FORM = notebooks.canonical


def first_cell(path: Path) -> str:
    return next(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code")


def test_every_notebook_is_in_its_one_form():
    found = [path.relative_to(ROOT).as_posix() for path in notebooks.mended(ROOT)]
    assert not found, f"Run `.venv/bin/python .ci/canonical_notebooks.py`; it mends {', '.join(found)}."


def test_the_lines_for_colab_and_kaggle_are_there_if_and_only_if_the_address_is_set():
    address = notebooks.repository(ROOT)
    begin = notebooks.SET_UP.format(address=address) if address else ""
    assert STORED
    for path in STORED:
        first = first_cell(path)
        assert first == begin + notebooks.without_set_up(first) and first.count("git clone") == bool(address)


def used(text: str) -> str:
    """A notebook as it may come back: from a run with times and a progress bar, JupyterLab, VS Code and Colab."""
    notebook = json.loads(text)
    widgets = {"application/vnd.jupyter.widget-state+json": {"state": {}, "version_major": 2, "version_minor": 0}}
    notebook["metadata"] |= {"widgets": widgets, "toc-autonumbering": True}
    notebook["metadata"]["colab"] = {"provenance": [], "name": "a.ipynb", "gpuType": "L4"}
    notebook["metadata"]["language_info"]["version"] = "3.99.0"
    notebook["metadata"]["kernelspec"] = {"display_name": ".venv", "name": "my-kernel"}
    notebook["nbformat_minor"] = 0
    bar = {"data": {notebooks.WIDGET: {"model_id": "a"}, "text/plain": ["0%"]}, "metadata": {}}
    for cell in notebook["cells"]:
        cell["metadata"] |= {"editable": True, "scrolled": True, "slideshow": {"slide_type": ""}, "collapsed": False}
        cell["metadata"] |= {"id": cell.pop("id"), "colab_type": cell["cell_type"], "vscode": {"languageId": "python"}}
        if cell["cell_type"] == "code":
            cell["metadata"]["execution"] = {"iopub.status.busy": "2026-01-01T00:00:00.000000Z"}
            cell["metadata"]["jupyter"] = {"is_executing": True, "source_hidden": True}
            outputs = []
            for output in cell["outputs"]:
                if output["output_type"] == "stream":
                    outputs += [output | {"text": [line]} for line in output["text"]]
                else:
                    output["metadata"] |= {"needs_background": "light"}
                    output["metadata"].get("image/png", {})["width"] = 640
                    outputs.append(output | {"transient": {}, "jetTransient": {}})
            cell["outputs"] = [*outputs, bar | {"output_type": "display_data"}]
    return json.dumps(notebook)


@pytest.mark.parametrize("path", STORED, ids=lambda p: p.stem)
def test_what_a_run_or_an_editor_leaves_goes_and_nothing_else(path):
    stored, address = path.read_text(encoding="utf-8"), notebooks.repository(ROOT)
    assert FORM(used(stored), path.name, address) == stored
    assert "widget" not in json.dumps(json.loads(stored)["metadata"]) and "codemirror_mode" in stored
    figures = sum("image/png" in o.get("data", {}) for c in json.loads(stored)["cells"] for o in c.get("outputs", []))
    assert stored.count('"alt": ') == figures


def test_a_cell_without_an_id_of_its_own_gets_one_that_nobody_has():
    empty = {"cell_type": "code", "metadata": {}, "source": ["1"], "outputs": [], "execution_count": None}
    cells = [empty | {"id": id} for id in ("a", "a", "cell-00", "no id", "cell-01")]
    title = {"cell_type": "markdown", "metadata": {}, "source": ["# A"], "id": "b"}
    notebook = {"cells": [title, *cells], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    made = FORM(json.dumps(notebook), "a.ipynb", None)
    assert [c["id"] for c in json.loads(made)["cells"]] == ["b", "a", "cell-02", "cell-00", "cell-03", "cell-01"]
    assert FORM(made, "a.ipynb", None) == made


def test_what_is_made_from_the_address_comes_with_it_and_goes_with_it(tmp_path):
    """In a copy, twice each way, and from one address to the next."""
    (tmp_path / "notebooks").mkdir()
    for path in (*STORED, ROOT / "README.md", ROOT / "CITATION.cff"):
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    setting = tmp_path / "pyproject.toml"

    def contents(written: str) -> dict[Path, str]:
        setting.write_text(written, encoding="utf-8")
        notebooks.main(tmp_path)
        assert not notebooks.mended(tmp_path)
        return {p: p.read_text(encoding="utf-8") for p in tmp_path.rglob("*.*") if p.is_file() and p != setting}

    without = contents("")
    for address in (ADDRESS, "https://gitlab.com/someone/a-course"):
        found = contents(f'[project.urls]\nRepository = "{address}.git"')
        chapters = [text for path, text in found.items() if path.suffix == ".ipynb"]
        assert chapters and all(f"git clone -q --depth 1 {address} course" in text for text in chapters)
        on_github = address == ADDRESS
        assert all(("Open in Colab" in text) == on_github for text in chapters)
        assert found[tmp_path / "README.md"].count("Open chapter 01 in Colab") == on_github
        assert f'\nrepository-code: "{address}"\n' in found[tmp_path / "CITATION.cff"]
    assert contents("[project]\n") == without and not any("git clone -q" in text for text in without.values())


def test_the_addresses_of_a_chapter_in_colab_and_kaggle():
    path = "someone/a-course/blob/main/notebooks/01_a.ipynb"
    assert notebooks.hosted(ADDRESS, "01_a.ipynb") == (
        f"https://colab.research.google.com/github/{path}",
        f"https://kaggle.com/kernels/welcome?src=https://github.com/{path}",
    )
    assert notebooks.hosted(None, "01_a.ipynb") is None


@pytest.mark.parametrize(
    ("folder", "hosted"), [("/content", True), ("/kaggle/working", True), ("/content/course", False)]
)
def test_a_chapter_gets_the_course_on_colab_and_kaggle_and_does_nothing_elsewhere(monkeypatch, folder, hosted):
    class Shell:
        calls = ()

        def system(self, command):
            self.calls += (command,)

        def run_line_magic(self, *words):
            self.calls += (" ".join(words),)

    shell = Shell()
    monkeypatch.setattr(os, "getcwd", lambda: folder)
    cell = TransformerManager().transform_cell(notebooks.SET_UP.format(address=ADDRESS))
    exec(cell, {"get_ipython": lambda: shell})
    wanted = (f"git clone -q --depth 1 {ADDRESS} course", "pip install -q -e course", "cd -q course")
    assert shell.calls == (wanted if hosted else ())
