"""What every program of a kernel reads and writes, element by element: the kernel is interpreted, watched and drawn.

What does not exist is seen, and neither read nor written: a kernel without its mask does no harm here.
"""

import contextlib
import inspect
import linecache
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy
import torch

from mnist_gpu.faster.with_triton import environment, interpreted
from mnist_gpu.measuring.drawing import PALETTE, Drawn
from mnist_gpu.measuring.processes import process

GAP = 1 << 16  # bytes around a copy of a tensor: an address there belongs to the tensor, as an element it does not have
# What is masked and has no `other` can be anything on a GPU. Here it is, in turn, what sums keep and what maxima keep.
UNDEFINED = float("nan"), 1e15
VERBS = {"read": ("read",), "written": ("write", "update")}


class Access(NamedTuple):
    """One load or store of one program."""

    program: tuple[int, int, int]
    kind: str  # "read", "write", or "update" for an atomic operation, which is both in one
    tensor: str  # the argument's name
    elements: list[int]  # numbers in the tensor's memory; below 0, or beyond its end, they do not exist


@dataclass
class Watched:
    """What a kernel did to copies of its arguments."""

    results: dict[str, torch.Tensor]  # the tensors afterwards
    axes: int  # of the grid
    accesses: list[Access] = field(default_factory=list)
    error: str | None = None  # why it stopped

    def outside(self) -> list[Access]:
        """The accesses, cut to elements that do not exist."""
        cut = [(a, [e for e in a.elements if not 0 <= e < self.results[a.tensor].numel()]) for a in self.accesses]
        return [a._replace(elements=elements) for a, elements in cut if elements]

    def programs(self, tensor: str, *kinds: str) -> dict[int, list[tuple[int, int, int]]]:
        """Which programs did it to each element of `tensor`, by its number; of those that were touched at all."""
        found = {}
        for access in self.accesses:
            for element in access.elements if access.tensor == tensor and access.kind in kinds else []:
                found.setdefault(element, {})[access.program] = None  # a set that keeps the order
        return {element: list(programs) for element, programs in found.items()}

    def name(self, program: tuple[int, int, int]) -> str:
        """ "3", or "1,0" where programs are numbered along two axes."""
        return ",".join(map(str, program[: self.axes]))

    def unwritten(self, tensor: str) -> list[int]:
        """The elements of `tensor` that no program writes."""
        return sorted(set(range(self.results[tensor].numel())) - self.programs(tensor, *VERBS["written"]).keys())

    def races(self, tensor: str) -> list[int]:
        """Elements that one program writes and another reads or writes, so that their order would matter."""
        writers, readers = self.programs(tensor, "write"), self.programs(tensor, "read", "update")
        return sorted(e for e, programs in writers.items() if len({*programs, *readers.get(e, [])}) > 1)


def watch(kernel, grid: tuple[int, ...], arguments: dict) -> Watched:
    """Interprets `kernel[grid](**arguments)` on copies of the tensors, contiguous; if need be in another process."""
    with interpreter() as watch_there:
        return watch_there(kernel, grid, arguments)


@contextlib.contextmanager
def interpreter() -> Iterator[Callable[..., Watched]]:
    """Gives a function like `watch`, for several launches: they share the process, where it takes one."""
    with contextlib.nullcontext() if interpreted() else process(environment(interpret=True)) as call:

        def watch_there(kernel, grid: tuple[int, ...], arguments: dict) -> Watched:
            arguments = {name: a.detach().cpu() if torch.is_tensor(a) else a for name, a in arguments.items()}
            return call(_watch, source_of(kernel), grid, arguments) if call else _watch(kernel, grid, arguments)

        yield watch_there


def source_of(kernel) -> str:
    """A kernel for another process, which cannot be given the kernel itself."""
    source = textwrap.dedent(inspect.getsource(kernel.fn))
    head = "import triton\nimport triton.language as tl\n\n\n@triton.jit\n"
    return head + source[re.search(r"^def ", source, re.MULTILINE).start() :]


def kernel_from(source: str):
    """The kernel that a source ends with. Triton reads the source again, so it is kept where Python keeps a cell's."""
    file = f"<kernel {hash(source)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    defined = {"__name__": file}
    exec(compile(source, file, "exec"), defined)
    return [*defined.values()][-1]


def _watch(kernel, grid: tuple[int, ...], arguments: dict) -> Watched:
    """`kernel`: or its source, in another process."""
    from triton.runtime.interpreter import interpreter_builder as builder

    kernel = kernel_from(kernel) if isinstance(kernel, str) else kernel
    copies = {name: _guarded(tensor) for name, tensor in arguments.items() if torch.is_tensor(tensor)}
    found = Watched(copies, len(grid))
    starts, sizes, counts = zip(*((c.data_ptr(), c.element_size(), c.numel()) for c in copies.values()), strict=True)

    def noted(kind: str, pointers, mask):
        """Notes the access, and gives the mask without what does not exist."""
        wanted = numpy.broadcast_to(mask.data, pointers.data.shape).astype(bool)
        # Of every address: which element of each tensor it would be, and how many bytes it is from being one.
        elements = (pointers.data.astype(numpy.int64)[..., None] - starts) // sizes
        beyond = numpy.maximum(-elements, elements - counts + 1).clip(min=0) * sizes
        for i, name in enumerate(copies):
            if (own := wanted & (beyond.argmin(-1) == i)).any():  # the nearest tensor's
                found.accesses.append(Access(tuple(builder.grid_idx), kind, name, elements[..., i][own].tolist()))
        return type(mask)(wanted & (beyond.min(-1) == 0), mask.dtype)

    def load(at, mask, other, *rest):
        if other is None and str(at.get_element_ty()) == "fp32":
            other = type(at)(numpy.resize(numpy.float32(UNDEFINED), at.data.shape), at.get_element_ty())
        return plain_load(at, noted("read", at, mask), other, *rest)

    plain_load, store, atomic = builder.create_masked_load, builder.create_masked_store, builder.create_atomic_rmw
    builder.create_masked_load = load
    builder.create_masked_store = lambda at, new, mask, *rest: store(at, new, noted("write", at, mask), *rest)
    builder.create_atomic_rmw = lambda op, at, new, mask, *rest: atomic(op, at, new, noted("update", at, mask), *rest)
    try:
        kernel[grid](**arguments | copies)
    except Exception as error:  # whatever a kernel that is not finished may do
        found.error = str(error)
    finally:
        del builder.create_masked_load, builder.create_masked_store, builder.create_atomic_rmw
    return found


def _guarded(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in the middle of memory of its own, filled with zeros."""
    gap = GAP // tensor.element_size()
    storage = torch.zeros(tensor.numel() + 2 * gap, dtype=tensor.dtype)
    return storage[gap : gap + tensor.numel()].view(tensor.shape).copy_(tensor)


def touched(found: Watched, panels: Sequence[tuple[str, str]]) -> Drawn:
    """A panel for each (tensor, "read" or "written"): its cells, each with the number of the program that touches it.

    What does not exist is hatched; a plus says that more programs touch a cell. The sentence says what is wrong.
    """
    every = [found.results[tensor] for tensor, _ in panels]
    widths = [t.shape[-1] if t.dim() > 1 else min(16, len(t) + 2) for t in every]
    rows = max(t.numel() / columns for t, columns in zip(every, widths, strict=True))
    size = min(14, 1 + 0.5 * sum(widths)), 1.7 + 0.5 * rows
    figure, axes = plt.subplots(1, len(panels), squeeze=False, width_ratios=widths, figsize=size)
    for axis, (tensor, verb), columns in zip(axes[0], panels, widths, strict=True):
        _panel(axis, found, tensor, verb, columns)
    figure.supxlabel("a cell: an element; its number and colour: the program", fontsize=9)
    return Drawn(axes[0, 0], what_is_wrong(found, [tensor for tensor, verb in panels if verb == "written"]))


def _panel(axis: plt.Axes, found: Watched, tensor: str, verb: str, columns: int) -> None:
    programs, count = found.programs(tensor, *VERBS[verb]), found.results[tensor].numel()
    for cell in (*range(count), *(e for e in programs if count <= e < count + 8)):
        (row, column), here = divmod(cell, columns), programs.get(cell)
        color = (PALETTE[(here[0][0] + 2 * here[0][1]) % len(PALETTE)], 0.55) if here else "white"
        hatch = "" if cell < count else "//"
        axis.add_patch(plt.Rectangle((column, row), 1, 1, facecolor=color, edgecolor="black", hatch=hatch))
        if here:
            text = found.name(here[0]) + "+" * (len(here) > 1)
            axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=9)
    axis.autoscale_view()
    axis.set(ylim=axis.get_ylim()[::-1], aspect="equal", title=f"{tensor}, {verb}")
    axis.set_axis_off()


def what_is_wrong(found: Watched, written: Sequence[str]) -> str:
    """What is wrong with the accesses, or that nothing is."""
    said = [f"The kernel stops: {found.error}."] if found.error else []
    for program, kind, tensor, elements in found.outside()[:1]:
        which = f"{', '.join(map(str, elements[:4]))} of {tensor}, which has {found.results[tensor].numel()}"
        said.append(f"Program {found.name(program)} wants to {kind} elements that do not exist: {which}.")
    for tensor in found.results:
        if races := found.races(tensor):
            said.append(f"Programs race for {len(races)} of {tensor}'s elements.")
        if tensor in written and (missing := found.unwritten(tensor)):
            said.append(f"No program writes {len(missing)} of {tensor}'s elements.")
    return " ".join(said) or "Nothing is touched that does not exist, and no two programs race."
