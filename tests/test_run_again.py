"""Any cell of a chapter runs again: its sections in reverse order, and each exercise after the first cell only."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "notebooks").glob("0[1-7]_*.ipynb"))  # the second edition's

pytestmark = pytest.mark.long  # every notebook is executed without it already


def sections(cells: list, heading: str) -> list[list]:
    """The code cells under each heading of this kind, such as "## "."""
    found = [[]]
    for cell in cells:
        if cell.cell_type == "markdown" and re.search(rf"^{heading}", cell.source, re.MULTILINE):
            found.append([])
        elif cell.cell_type == "code":
            found[-1].append(cell)
    return [cells for cells in found if cells]


def run(parts: list[list]) -> None:
    """Runs cells in this order in one kernel. A cell that fails raises its error."""
    cells = [nbformat.v4.new_code_cell(cell.source) for part in parts for cell in part]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(ROOT / "notebooks"))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_sections_run_again_in_reverse_order(path):
    cells = nbformat.read(path, 4).cells
    text = sections(cells, "## ")
    assert len(text) > 3
    run([*text, *reversed(text)])


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_exercises_run_after_the_first_cell_only(path):
    cells = nbformat.read(path, 4).cells
    first = next(cell for cell in cells if cell.cell_type == "code")
    begin = next(
        i for i, c in enumerate(cells) if c.cell_type == "markdown" and re.search("^## Exercises", c.source, re.M)
    )
    exercises = sections(cells[begin:], "### Exercise")
    assert len(exercises) >= 2
    for exercise in exercises:
        run([[first], exercise])
