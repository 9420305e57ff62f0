"""Pictures of what a kernel's programs read and write, drawn from the addresses that they used."""

from collections.abc import Sequence

import matplotlib.pyplot as plt

from mnist_gpu.faster.watched import NOWHERE, Watched
from mnist_gpu.measuring.plots import PALETTE

WIDEST = 16  # cells of a row; what is longer goes on in the next
MISSING = 24  # at most as many cells that do not exist are drawn
VERBS = {"read": ("read",), "written": ("write", "update")}


def program_name(program: tuple[int, int, int], grid: int) -> str:
    """ "3", or "1,0" where programs are numbered along two axes."""
    return ",".join(map(str, program[:grid]))


def touched(found: Watched, panels: Sequence[tuple[str, str]], only: tuple[int, ...] | None = None) -> None:
    """A panel for each (tensor, "read" or "written"): its cells, each with the number of the program that touches it.

    Cells that no program touches are empty. Those that do not exist are hatched, and stand behind the last, or before
    the first. Where several programs touch a cell, the first one stands there with a plus. Says under the figure what
    is wrong with it, if anything is.

    `only`: draw this program alone.
    """
    if only is not None:
        only = (*only, 0, 0)[:3]
        found = Watched(found.sizes, found.results, [a for a in found.accesses if a.program == only], found.error)
    axes_of_grid = 2 if any(a.program[1] for a in found.accesses) or (only and only[1]) else 1
    order = {p: i for i, p in enumerate(dict.fromkeys(a.program for a in found.accesses))}
    grids = [_grid(found, tensor) for tensor, _ in panels]
    widths = [columns for _, columns in grids]
    figure, axes = plt.subplots(
        1, len(panels), squeeze=False, width_ratios=widths,
        figsize=(min(12, 1 + 0.42 * sum(widths)), 1.1 + 0.36 * max(rows for rows, _ in grids)),
    )  # fmt: skip
    for axis, (tensor, verb), (rows, columns) in zip(axes[0], panels, grids, strict=True):
        programs = found.programs(tensor, *VERBS[verb])
        outside = sorted(e for e in programs if not 0 <= e < found.sizes[tensor])[:MISSING]
        for cell in (*range(found.sizes[tensor]), *outside):
            row, column = divmod(cell, columns)
            here = programs.get(cell, [])
            color = PALETTE[order[here[0]] % len(PALETTE)] if here else "white"
            look = {"facecolor": color, "alpha": 0.55} if here else {"facecolor": color}
            edge = {"hatch": "xxx", "linestyle": ":"} if cell in outside else {}
            axis.add_patch(plt.Rectangle((column, row), 1, 1, edgecolor="black", linewidth=0.7, **look, **edge))
            if here:
                text = program_name(here[0], axes_of_grid) + "+" * (len(here) > 1)
                axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=8 if len(text) < 4 else 6)
        ends = [divmod(cell, columns)[0] for cell in outside]
        axis.set(xlim=(0, columns), ylim=(max([rows - 1, *ends]) + 1, min([0, *ends])), aspect="equal")
        axis.set_title(f"{tensor}, {verb}", fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
        for side in axis.spines.values():
            side.set_visible(False)
    figure.supxlabel("a cell: an element; its number and colour: the program", fontsize=8)
    plt.show()
    print(sentence(found, [tensor for tensor, verb in panels if verb == "written"], every=only is None))


def _grid(found: Watched, tensor: str) -> tuple[int, int]:
    """Rows and columns of the cells of a tensor: as it is shaped, or in rows of WIDEST."""
    shape = found.results[tensor].shape
    columns = shape[-1] if len(shape) > 1 else min(WIDEST, max(1, found.sizes[tensor]))
    return -(-found.sizes[tensor] // columns), columns


def sentence(found: Watched, written: Sequence[str], every: bool = True) -> str:
    """What is wrong with the accesses, or that nothing is; `every`: whether all of `written` should be written."""
    said = []
    if found.error:
        said.append(f"The kernel stops: {found.error}.")
    for access in found.outside()[:1]:
        where = "in no tensor at all" if access.tensor == NOWHERE else f"of {access.tensor}"
        at = ", ".join(map(str, access.elements[:4])) + ", ..." * (len(access.elements) > 4)
        said.append(
            f"Program {program_name(access.program, 2)} wants to {access.kind} elements that do not exist: {at} {where}"
            f", which has {found.sizes[access.tensor]}."
        )
    for tensor in written:
        if races := found.races(tensor):
            said.append(f"{len(races)} elements of {tensor} are written by one program and used by another.")
        if every and (unwritten := found.unwritten(tensor)):
            said.append(
                f"{len(unwritten)} elements of {tensor} are written by no program, the first is {unwritten[0]}."
            )
    if not said and written and every:
        said.append(
            f"Every element of {', '.join(written)} is written by one program, and no other element is touched."
        )
    return " ".join(said) or "No element is touched that does not exist."
