"""Pictures of what a kernel's programs read and write, drawn from the addresses that they used."""

from collections.abc import Sequence
from dataclasses import replace

import matplotlib.pyplot as plt

from mnist_gpu.faster.watched import NOWHERE, Watched
from mnist_gpu.measuring.plots import PALETTE

WIDEST = 16  # cells of a row; what is longer goes on in the next
MISSING = 24  # at most as many cells that do not exist are drawn
VERBS = {"read": ("read",), "written": ("write", "update")}


def touched(found: Watched, panels: Sequence[tuple[str, str]], only: tuple[int, ...] | None = None) -> None:
    """A panel for each (tensor, "read" or "written"): its cells, each with the number of the program that touches it.

    Cells that no program touches are empty. Those that do not exist are hatched, and stand behind the last, or before
    the first. Where several programs touch a cell, the first one stands there with a plus. Says under the figure what
    is wrong with it, if anything is.

    `only`: draw this program alone.
    """
    names = program_names(found)
    colors = {program: PALETTE[i % len(PALETTE)] for i, program in enumerate(names)}
    shown = found.accesses if only is None else [a for a in found.accesses if a.program == (*only, 0, 0)[:3]]
    shown = replace(found, accesses=shown)
    grids = [_grid(shown, tensor, verb) for tensor, verb in panels]
    widths = [max(columns, 3) for _, columns in grids]  # room for the title
    figure, axes = plt.subplots(
        1, len(panels), squeeze=False, width_ratios=widths,
        figsize=(min(12, 1 + 0.42 * sum(widths)), 1.1 + 0.36 * max(rows for rows, _ in grids)),
    )  # fmt: skip
    for axis, (tensor, verb), (_, columns) in zip(axes[0], panels, grids, strict=True):
        programs = shown.programs(tensor, *VERBS[verb])
        outside = _outside(shown, tensor, verb)
        for cell in (*range(shown.sizes[tensor]), *outside):
            row, column = divmod(cell, columns)
            here = programs.get(cell, [])
            look = {"facecolor": colors[here[0]], "alpha": 0.55} if here else {"facecolor": "white"}
            look |= {"hatch": "xxx", "linestyle": ":"} if cell in outside else {}
            axis.add_patch(plt.Rectangle((column, row), 1, 1, edgecolor="black", linewidth=0.7, **look))
            if here:
                text = names[here[0]] + "+" * (len(here) > 1)
                paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.6} if cell in outside else None
                size = 8 if len(text) < 4 else 6
                axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=size, bbox=paper)
        rows = [divmod(cell, columns)[0] for cell in (0, shown.sizes[tensor] - 1, *outside)]
        axis.set(xlim=(-0.05, columns + 0.05), ylim=(max(rows) + 1.05, min(rows) - 0.05), aspect="equal")
        axis.set_title(f"{tensor}, {verb}", fontsize=9)
        axis.set_axis_off()
    figure.supxlabel("a cell: an element; its number and colour: the program", fontsize=8)
    plt.show()
    print(sentence(shown, [tensor for tensor, verb in panels if verb == "written"], every=only is None))


def program_names(found: Watched) -> dict[tuple[int, int, int], str]:
    """The programs by their order: "3", or "1,0" where they are numbered along two axes."""
    programs = dict.fromkeys(a.program for a in found.accesses)
    axes = 2 if any(program[1] for program in programs) else 1
    return {program: ",".join(map(str, program[:axes])) for program in programs}


def _outside(found: Watched, tensor: str, verb: str) -> list[int]:
    """The elements that do not exist, as many as are drawn."""
    return sorted(e for e in found.programs(tensor, *VERBS[verb]) if not 0 <= e < found.sizes[tensor])[:MISSING]


def _grid(found: Watched, tensor: str, verb: str) -> tuple[int, int]:
    """Rows and columns of the cells of a tensor: as it is shaped, or in rows of WIDEST."""
    shape, outside = found.results[tensor].shape, _outside(found, tensor, verb)
    cells = max([found.sizes[tensor], *(e + 1 for e in outside)])
    columns = shape[-1] if len(shape) > 1 else min(WIDEST, cells)
    return -(-cells // columns), columns


def _some(count: int, what: str) -> str:
    return f"One {what}" if count == 1 else f"{count} {what}s"


def sentence(found: Watched, written: Sequence[str], every: bool = True) -> str:
    """What is wrong with the accesses, or that nothing is; `every`: whether all of `written` should be written."""
    said = []
    if found.error:
        said.append(f"The kernel stops: {found.error}.")
    if outside := found.outside():
        first = outside[0]
        kinds = dict.fromkeys(a.kind for a in outside if (a.program, a.tensor) == (first.program, first.tensor))
        at = ", ".join(map(str, first.elements[:4])) + ", ..." * (len(first.elements) > 4)
        where = f"of {first.tensor}, which has {found.sizes[first.tensor]}" if first.tensor != NOWHERE else "far away"
        said.append(
            f"Program {program_names(found)[first.program]} wants to {' and '.join(kinds)} elements that do not exist: "
            f"{at} {where}."
        )
    for tensor in written:
        if races := found.races(tensor):
            are = "is" if len(races) == 1 else "are"
            said.append(f"{_some(len(races), 'element')} of {tensor} {are} written by one program and used by another.")
        if every and (unwritten := found.unwritten(tensor)):
            are = "is" if len(unwritten) == 1 else "are"
            said.append(f"{_some(len(unwritten), 'element')} of {tensor} {are} written by no program.")
    if not said and written and every:
        said.append(f"Every element of {' and '.join(written)} is written, by one program each.")
    return " ".join(said) or "No element is touched that does not exist."
