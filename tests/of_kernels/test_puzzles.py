"""The puzzles of chapter 09: stubs and solutions as they stand there, and wrong answers, each with its hint."""

import re
from itertools import count
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
import torch

from mnist_gpu.exercises import puzzles
from mnist_gpu.exercises.checking import REPLACE, check, judge
from mnist_gpu.exercises.puzzles import PUZZLES
from mnist_gpu.exercises.verdicts import RIGHT, UNANSWERED, UNDECIDED, WRONG
from mnist_gpu.faster.watched import SOURCE, load_kernel
from mnist_gpu.measuring.compiled_kernels import compile_for_cards
from mnist_gpu.measuring.launches import Launch

CHAPTER = Path(__file__).resolve().parents[2] / "notebooks" / "09_a_kernel_of_your_own.ipynb"
FILES = count()


def cells(tag):
    """The kernels' source, by puzzle."""
    found = [c.source for c in nbformat.read(CHAPTER, 4).cells if tag in c.metadata.get("tags", [])]
    return {re.search(r'check\("([\d.]+)"', source)[1]: source[: source.rindex("\n\n\ncheck(")] for source in found}


STUBS, SOLUTIONS = cells("exercise"), cells("solution")
BLOCK_START = "tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)"
# (puzzle, what is replaced in the solution, by what, a part of the hint)
ANSWERS = [
    ("09.1", "x + n - 1 - i, mask=i < n", "x + n - 1 - i", "last block is not full"),
    ("09.1", "x + n - 1 - i", "x + n - i", "n - 1, not n"),
    ("09.1", "x + n - 1 - i", "x + i", "That is a copy"),
    ("09.1", BLOCK_START, "tl.arange(0, BLOCK)", "does each begin at one of its own"),
    ("09.1", "i = " + BLOCK_START, "i = (tl.program_id(0) + 1) * BLOCK + tl.arange(0, BLOCK)", "block of program 1"),
    ("09.2", "(row[:, None] < m) & (column[None, :] < n)", "(row[:, None] < m) & (column[None, :] >= 0)",
     "row and column"),
    ("09.2", "bias + column, mask=column < n)[None, :]", "bias + row, mask=row < tl.minimum(m, n), other=0.0)[:, None]",
     "along the wrong side"),
    ("09.2", "added = tl.load(bias + column, mask=column < n)[None, :]", "added = 0.0", "bias is not added"),
    ("09.2", "column[None, :] < n)", "column[None, :] < n - 1)", "let in every row and column"),
    ("09.3", "column[None, :] * m + row[:, None]", "row[:, None] * n + column[None, :]", "have to change places"),
    ("09.3", "column[None, :] * m + row[:, None]", "column[None, :] * n + row[:, None]", "out has n rows of m"),
    ("09.3", "column[None, :] * m + row[:, None]", "column[None, :] + row[:, None]", "same element"),
    ("09.3", "column[None, :] * m + row[:, None], value, mask=inside", "column[None, :] * m + row[:, None], value",
     "A tile at the edge is not full"),
    ("09.4", 'mask=j < n, other=-float("inf")', "mask=j < n, other=0.0", "A 0 takes part"),
    ("09.4", 'tl.full((BLOCK,), -float("inf"), dtype=tl.float32)', "tl.zeros((BLOCK,), dtype=tl.float32)",
     "A 0 takes part"),
    ("09.4", "a + row * n + j, mask=j < n", "a + row * n + tl.arange(0, BLOCK), mask=tl.arange(0, BLOCK) < n",
     "greatest of the first block"),
    ("09.4", "best = tl.maximum(best, x)", "best = x", "greatest of the last block"),
    ("09.4", ', mask=j < n, other=-float("inf")', "", "behind its end the next row begins"),
    ("09.5", "tl.atomic_add(out + label, 1, mask=i < n)",
     "tl.store(out + label, tl.load(out + label, mask=i < n) + 1, mask=i < n)", "one is lost"),
    ("09.5", "1, mask=i < n", "1", "counted as zeros"),
    ("09.5", "labels + i, mask=i < n, other=0", "labels + i", "last block is not full"),
    ("09.5", "tl.atomic_add(out + label, 1, mask=i < n)", "tl.store(out + label, 1, mask=i < n)", "one is lost"),
    ("09.6", "image[None, :] * n + row[:, None]", "row[:, None] * m + image[None, :]", "as if it were [n, m]"),
    ("09.6", "(row[:, None] < n) & (image[None, :] < m)", "(row[:, None] < n)", "last tile is not full along m"),
    ("09.6", "tl.dot(g_tile, x_tile, total,", "tl.dot(g_tile, x_tile,", "last tile's product alone"),
    ("09.6", "image = start + tl.arange(0, BLOCK)", "image = tl.arange(0, BLOCK)", "first tile along m"),
]  # fmt: skip


def kernel_of(source, folder):
    file = folder / f"answer_{next(FILES)}.py"
    file.write_text(SOURCE + source, encoding="utf-8")
    return load_kernel(file, re.search(r"def (\w+)", source)[1])


def test_there_are_six_and_each_has_a_stub_a_solution_and_wrong_answers():
    assert list(PUZZLES) == list(STUBS) == list(SOLUTIONS) == [f"09.{i}" for i in range(1, 7)]
    for name in PUZZLES:
        assert len([a for a in ANSWERS if a[0] == name]) >= 3
    for puzzle in PUZZLES.values():  # sizes that are no multiple of the block, below it, of one
        assert {side % puzzles.BLOCK == 0 for size in puzzle.sizes for side in size} == {True, False}
        assert any(1 in size for size in puzzle.sizes) and any(min(size) < puzzles.BLOCK for size in puzzle.sizes)


@pytest.mark.parametrize("name", PUZZLES)
def test_a_stub_is_not_answered_yet(name, tmp_path, capsys):
    kernel = kernel_of(STUBS[name], tmp_path)
    assert judge(name, kernel).status == UNANSWERED
    check(name, kernel)
    assert capsys.readouterr().out == f"{name}: not answered yet. {REPLACE}\n"


@pytest.mark.parametrize("name", PUZZLES)
def test_the_solution_is_right(name, tmp_path):
    verdict = judge(name, kernel_of(SOLUTIONS[name], tmp_path))
    assert (verdict.status, verdict.text) == (RIGHT, f"{name}: right. Tried on 4 sizes.")


@pytest.mark.parametrize(("name", "line", "instead", "hint"), ANSWERS)
def test_a_wrong_answer_gets_its_hint(name, line, instead, hint, tmp_path):
    assert SOLUTIONS[name].count(line) == 1
    verdict = judge(name, kernel_of(SOLUTIONS[name].replace(line, instead), tmp_path))
    assert verdict.status == WRONG and hint in verdict.text, verdict.text


def test_a_wrong_answer_is_drawn(tmp_path, capsys, monkeypatch):
    drawn = []
    monkeypatch.setattr(plt, "show", lambda: drawn.append(plt.gcf()))
    check("09.1", kernel_of(SOLUTIONS["09.1"].replace("x + n - 1 - i, mask=i < n", "x + n - 1 - i"), tmp_path))
    assert len(drawn) == 1 and [axis.get_title() for axis in drawn[0].axes] == ["x, read", "out, written"]
    assert "Program 2 wants to read elements that do not exist: -1, -2 of x, which has 10." in capsys.readouterr().out
    plt.close("all")


def test_a_kernel_that_stops_is_a_wrong_answer(tmp_path):
    source = SOLUTIONS["09.1"].replace("tl.arange(0, BLOCK)", "tl.arange(0, 3)")
    verdict = judge("09.1", kernel_of(source, tmp_path))
    assert verdict.status == WRONG and "The kernel stops" in verdict.text and "power of 2" in verdict.text


def test_a_wrong_number_is_named(tmp_path):
    verdict = judge("09.1", kernel_of(SOLUTIONS["09.1"].replace("out + i, value", "out + i, value + 1"), tmp_path))
    assert re.search(r"Element \d+ of out is -0\.\d+, but should be -1\.\d+\.", verdict.text)


def test_an_unknown_puzzle_is_named():
    with pytest.raises(ValueError, match=r"there is no exercise '09.7'; there are: .*09.6"):
        judge("09.7", None)


def test_without_triton_a_puzzle_is_not_checked(monkeypatch, capsys):
    monkeypatch.setattr(puzzles, "triton_missing", lambda: "there is none")
    check("09.1", None)
    assert judge("09.1", None).status == UNDECIDED
    assert capsys.readouterr().out == "09.1: not checked. No kernel can run here: there is none.\n"


def test_where_kernels_are_compiled_a_right_one_is_run_on_the_gpu_too(tmp_path, monkeypatch):
    """Here the process only says that it compiles."""
    kernel, ran = kernel_of(SOLUTIONS["09.6"], tmp_path), []
    monkeypatch.setattr(puzzles, "interpreted", lambda: False)
    monkeypatch.setattr(puzzles, "_same", lambda a, b: ran.append(a) or torch.allclose(a, b, atol=1e-4))
    assert judge("09.6", kernel).status == RIGHT and len(ran) == 8  # watched and run, four sizes each
    monkeypatch.setattr(puzzles, "_same", lambda a, b: len(ran.append(a) or ran) <= 12)
    assert "compiled for this GPU it computes something else" in judge("09.6", kernel).text


def test_the_solutions_compile(tmp_path):
    asked = {}
    for name, puzzle in PUZZLES.items():
        arguments = puzzle.arguments(*puzzle.sizes[0]) | {"BLOCK": 16}
        asked[name] = Launch(kernel_of(SOLUTIONS[name], tmp_path), (1,), arguments, {})
    assert list(compile_for_cards(asked, ("A100",))) == list(PUZZLES)
