"""The exercises of every chapter: stubs and solutions as they stand there, and wrong answers, each with its hint."""

import contextlib
import importlib
import io
import itertools
import linecache
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from mnist_gpu.faster.with_triton import CHOICE
from mnist_gpu.measuring.exercises import RIGHT, UNANSWERED, WRONG, judge

ROOT = Path(__file__).resolve().parents[2]
CHECK = re.compile(r'^lab\.check\("(?P<name>[\d.]+)", (?P<answer>\w+)(?P<solution>, solution=True)?\)$', re.M)
CELLS = {path.name[:2]: nbformat.read(path, 4).cells for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))}
CHAPTERS = [name for name in CELLS if importlib.util.find_spec(f"mnist_gpu.chapters.chapter_{name}")]
# Chapter 10's answers are kernels, which need a process of their own: see test_chapter_10.py.
HERE = [name for name in CHAPTERS if (name == "10") == (CHOICE in os.environ)]
ROOMS = {name: importlib.import_module(f"mnist_gpu.chapters.chapter_{name}") for name in HERE}
EXERCISES = {e.name: e for room in ROOMS.values() for e in room.EXERCISES}
ANSWERS = [a for name in HERE for a in importlib.import_module(f"wrong_answers_{name}").wrong]
NUMBERS = itertools.count()


def has(cell, tag):
    return tag in cell.metadata.get("tags", [])


STUBS, SOLUTIONS = (
    {CHECK.search(c.source)["name"]: c.source for name in HERE for c in CELLS[name] if has(c, tag)}
    for tag in ("exercise", "solution")
)


def in_order(sides, **options):
    """In place of `alternate`: every side is run, and the first is said to be the slowest, the last the fastest."""
    for function in sides.values():
        function()
    return {name: [1.0 / (i + 1)] * 10 for i, name in enumerate(sides)}


@pytest.fixture(autouse=True)
def measured_in_order(monkeypatch):
    """What is measured takes the time that `in_order` says, on a computer with two CPUs."""
    for name, module in list(sys.modules.items()):
        if name.startswith("mnist_gpu.chapters.") and hasattr(module, "alternate"):
            monkeypatch.setattr(module, "alternate", in_order)
            monkeypatch.setattr(module, "usable_cpus", lambda: 2, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)  # where there is one, two threads run as well


@pytest.fixture(scope="module")
def first_cells():
    """What a chapter's first code cell defines, which has to be enough for its exercises."""
    found, environment = {}, dict(os.environ)

    def of(chapter):
        if chapter not in found:
            found[chapter] = {"__name__": "__main__"}
            first = next(c.source for c in CELLS[chapter] if c.cell_type == "code")
            with contextlib.redirect_stdout(io.StringIO()):
                exec(TransformerManager().transform_cell(first), found[chapter])  # it may have lines for Colab
        return dict(found[chapter])

    yield of
    for defined in found.values():
        for value in defined.values():
            if isinstance(value, tempfile.TemporaryDirectory):  # it would warn when Python ends
                value.cleanup()
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def answer_of(first_cells):
    """Runs a cell as JupyterLab would, and gives (the exercise, its answer)."""

    def of(source):
        said = CHECK.search(source)
        namespace = first_cells(said["name"][:2])
        stand_ins = {"alternate": in_order, "usable_cpus": lambda: 2}  # for a solution that measures by itself
        namespace |= {name: value for name, value in stand_ins.items() if name in namespace}
        file = f"<cell {next(NUMBERS)}>"
        source = source.replace(said[0], "")
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        exec(compile(source, file, "exec"), namespace)
        return EXERCISES[said["name"]], namespace[said["answer"]]

    return of


def test_every_exercise_has_a_stub_a_solution_and_three_wrong_answers():
    assert list(STUBS) == list(SOLUTIONS) == sorted(EXERCISES)
    for name in EXERCISES:
        assert sum(a.exercise == name for a in ANSWERS) >= 3, name
    assert {a.exercise for a in ANSWERS} <= EXERCISES.keys()


@pytest.mark.parametrize("chapter", CELLS)
def test_exercises_stand_before_the_last_cell_each_with_its_hint_stub_and_folded_solution(chapter):
    cells = CELLS[chapter]
    at = [i for i, c in enumerate(cells) if has(c, "exercise")]
    assert at[-1] == len(cells) - 3 and cells[-1].cell_type == "markdown"
    for before, stub, solution in (cells[i - 1 : i + 2] for i in at):
        assert "</details>" in before.source and UNANSWERED in stub.outputs[0].text and has(solution, "solution")
        # Its outputs, too, which may give the answer away.
        assert solution.metadata["jupyter"] == {"outputs_hidden": True, "source_hidden": True}
        said = "".join(o.text for o in solution.outputs if "text" in o)  # after "(Busy machine ...)", say
        assert re.search(r"^[\d.]+, the solution: (right\. |.*nothing can be claimed)", said, re.M)


@pytest.mark.parametrize("name", STUBS)
def test_a_stub_is_not_answered_yet(name, answer_of):
    assert judge(*answer_of(STUBS[name])).status == UNANSWERED


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SOLUTIONS)
def test_the_solution_is_right(name, seed, answer_of):
    found = judge(*answer_of(SOLUTIONS[name]), seed)
    assert found.status == RIGHT, found.text


@pytest.mark.parametrize("wrong", ANSWERS, ids=lambda wrong: f"{wrong.exercise}: {wrong.hint}")
def test_a_wrong_answer_gets_its_hint(wrong):
    found = judge(EXERCISES[wrong.exercise], wrong.answer)
    assert found.status == WRONG and wrong.hint in found.text, found.text
