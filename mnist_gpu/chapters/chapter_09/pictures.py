"""Pictures of what a kernel's programs read and write, drawn from the addresses that they used."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import matplotlib.pyplot as plt

from mnist_gpu.chapters.chapter_09.watched import NOWHERE, Watched
from mnist_gpu.measuring.drawing import PALETTE, Drawn
from mnist_gpu.measuring.exercises import count_of

WIDEST = 16  # cells of a row; what is longer goes on in the next
DRAWN = 24  # so many of the cells that do not exist, on either side
VERBS = {"read": ("read",), "written": ("write", "update")}


def touched(found: Watched, panels: Sequence[tuple[str, str]], only: tuple[int, ...] | None = None) -> Drawn:
    """A panel for each (tensor, "read" or "written"): its cells, each with the number of the program that touches it.

    Cells that no program touches are empty. Those that do not exist are hatched, and stand behind the last, or before
    the first. Where several programs touch a cell, the first one stands there with a plus. The sentence says what is
    wrong, if anything is. `only`: draw this program alone.
    """
    names = program_names(found)
    if only is not None:
        found = replace(found, accesses=[a for a in found.accesses if a.program == (*only, 0, 0)[:3]])
    grids = [_grid(found, *panel) for panel in panels]
    widths = [max(columns, 3) for _, columns in grids]  # room for the title
    size = (min(12, 1 + 0.42 * sum(widths)), 1.1 + 0.36 * max(rows for rows, _ in grids))
    figure, axes = plt.subplots(1, len(panels), squeeze=False, width_ratios=widths, figsize=size)
    for axis, (tensor, verb), (_, columns) in zip(axes[0], panels, grids, strict=True):
        _panel(axis, found, tensor, verb, columns, names)
    figure.supxlabel("a cell: an element; its number and colour: the program", fontsize=8)
    written = [tensor for tensor, verb in panels if verb == "written"]
    return Drawn(axes[0, 0], what_is_wrong(found, written, every=only is None))


def _panel(axis: plt.Axes, found: Watched, tensor: str, verb: str, columns: int, names: Mapping[tuple, str]) -> None:
    programs, outside, numbers = found.programs(tensor, *VERBS[verb]), _outside(found, tensor, verb), list(names)
    for cell in (*range(found.sizes[tensor]), *outside):
        row, column = divmod(cell, columns)
        look = {"edgecolor": "black", "linewidth": 0.7, "facecolor": "white"}
        look |= {"hatch": "xxx", "linestyle": ":"} if cell in outside else {}
        if here := programs.get(cell):
            look |= {"facecolor": PALETTE[numbers.index(here[0]) % len(PALETTE)], "alpha": 0.55}
            text = names[here[0]] + "+" * (len(here) > 1)
            paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.6} if cell in outside else None
            place = {"ha": "center", "va": "center", "fontsize": 8 if len(text) < 4 else 6, "bbox": paper}
            axis.text(column + 0.5, row + 0.5, text, **place)
        axis.add_patch(plt.Rectangle((column, row), 1, 1, **look))
    rows = [cell // columns for cell in (0, found.sizes[tensor] - 1, *outside)]
    axis.set(xlim=(-0.05, columns + 0.05), ylim=(max(rows) + 1.05, min(rows) - 0.05), aspect="equal")
    axis.set_title(f"{tensor}, {verb}", fontsize=9)
    axis.set_axis_off()


def program_names(found: Watched) -> dict[tuple[int, int, int], str]:
    """The programs by their order: "3", or "1,0" where they are numbered along two axes."""
    programs = dict.fromkeys(a.program for a in found.accesses)
    axes = 2 if any(program[1] for program in programs) else 1
    return {program: ",".join(map(str, program[:axes])) for program in programs}


def _outside(found: Watched, tensor: str, verb: str) -> list[int]:
    """The elements that do not exist, and are near enough to be drawn."""
    near = range(-DRAWN, found.sizes[tensor] + DRAWN)
    return sorted(e for e in found.programs(tensor, *VERBS[verb]) if e in near and not 0 <= e < found.sizes[tensor])


def _grid(found: Watched, tensor: str, verb: str) -> tuple[int, int]:
    """Rows and columns of the cells of a tensor: as it is shaped, or in rows of WIDEST."""
    shape = found.results[tensor].shape
    cells = max([found.sizes[tensor], *(e + 1 for e in _outside(found, tensor, verb))])
    columns = shape[-1] if len(shape) > 1 else min(WIDEST, cells)
    return -(-cells // columns), columns


def what_is_wrong(found: Watched, written: Sequence[str], every: bool = True) -> str:
    """What is wrong with the accesses, or that nothing is; `every`: whether all of `written` should be written."""
    said = [f"The kernel stops: {found.error}."] if found.error else []
    if outside := found.outside():
        first = outside[0]
        kinds = dict.fromkeys(a.kind for a in outside if (a.program, a.tensor) == (first.program, first.tensor))
        at = ", ".join(map(str, first.elements[:4])) + ", ..." * (len(first.elements) > 4)
        where = f"of {first.tensor}, which has {found.sizes[first.tensor]}" if first.tensor != NOWHERE else "far away"
        program, wants = program_names(found)[first.program], " and ".join(kinds)
        said.append(f"Program {program} wants to {wants} elements that do not exist: {at} {where}.")
    for tensor in written:
        for elements, why in (
            (found.races(tensor), "written by one program and used by another"),
            (found.unwritten(tensor) if every else [], "written by no program"),
        ):
            if elements:
                are = "is" if len(elements) == 1 else "are"
                said.append(f"{count_of(len(elements), 'element')} of {tensor} {are} {why}.")
    if not said and written and every:
        return f"Every element of {' and '.join(written)} is written, by one program each."
    return " ".join(said) or "No element is touched that does not exist."
