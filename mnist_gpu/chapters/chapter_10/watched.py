"""What every program of a kernel reads and writes, element by element: the kernel is interpreted, watched and drawn.

What does not exist is seen, and neither read nor written: a kernel without its mask does no harm here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy
import torch

from mnist_gpu.chapters.chapter_10.compiled import kernel_from, source_of
from mnist_gpu.faster.with_triton import environment, interpreted
from mnist_gpu.measuring.drawing import PALETTE, Drawn
from mnist_gpu.measuring.processes import process

GAP = 1 << 16  # bytes around a copy of a tensor: an address there is the tensor's, of an element that it does not have
# What is masked and has no `other` can be anything on a GPU. Here it is, in turn, what sums keep and what maxima keep.
UNDEFINED = float("nan"), 1e15
VERBS = {"read": ("read",), "written": ("write", "update")}


@dataclass
class Watched:
    """What a kernel did to copies of its arguments."""

    results: dict[str, torch.Tensor]  # the tensors afterwards
    # For each tensor and number of an element (below 0, or beyond the end, it does not exist): which programs, "3" or
    # "1,0", did what to it: "read", "write", or "update" for an atomic operation, which is both in one.
    touches: dict[str, dict[int, list[tuple[str, str]]]]
    error: str | None = None  # why it stopped

    def programs(self, tensor: str, *kinds: str) -> dict[int, list[str]]:
        """The elements that were touched in this way, and by which programs."""
        of = {e: dict.fromkeys(p for p, kind in found if kind in kinds) for e, found in self.touches[tensor].items()}
        return {element: list(programs) for element, programs in of.items() if programs}

    def count(self, *tensors: str) -> int:
        """How many elements of these tensors all programs together have read or written."""
        return sum(len(touches) for tensor in tensors for touches in self.touches[tensor].values())

    def outside(self) -> list[tuple[str, int]]:
        """The elements, of which tensor, that were touched and do not exist."""
        every = ((tensor, e) for tensor, elements in self.touches.items() for e in elements)
        return [(tensor, e) for tensor, e in every if not 0 <= e < self.results[tensor].numel()]

    def races(self) -> dict[str, list[int]]:
        """Elements that several programs touch so that their order matters: not all only read, not all update."""
        found = {}
        for tensor, elements in self.touches.items():
            for element, touches in elements.items():
                programs, kinds = map(set, zip(*touches, strict=True))
                if len(programs) > 1 and kinds not in ({"read"}, {"update"}):
                    found.setdefault(tensor, []).append(element)
        return found

    def wrong(self) -> str:
        """What is wrong with the accesses, or that nothing is."""
        said = [f"The kernel stops: {self.error}."] if self.error else []
        for tensor, element in self.outside()[:1]:
            program, kind = self.touches[tensor][element][0]
            which = f"element {element} of {tensor}, which has {self.results[tensor].numel()}"
            said.append(f"Program {program} wants to {kind} what does not exist: {which}.")
        said += [f"Programs race for {len(found)} of {tensor}'s elements." for tensor, found in self.races().items()]
        return " ".join(said) or "Nothing is touched that does not exist, and no two programs race."


def watch(kernel, grid: tuple[int, ...], arguments: dict) -> Watched:
    """Interprets `kernel[grid](**arguments)` on copies of the tensors, contiguous."""
    return interpreting(_watch, kernel, grid, arguments)


def interpreting(function: Callable, kernel, *arguments):
    """Calls `function(kernel, *arguments)` where kernels are interpreted: here, or elsewhere with the kernel's source."""
    if interpreted():
        return function(kernel, *arguments)
    with process(environment(interpret=True)) as call:
        return call(function, source_of(kernel), *arguments)


def _watch(kernel, grid: tuple[int, ...], arguments: dict) -> Watched:
    from triton.runtime.interpreter import interpreter_builder as builder

    kernel = kernel_from(kernel) if isinstance(kernel, str) else kernel
    tensors = {name: a.detach().cpu() for name, a in arguments.items() if torch.is_tensor(a)}
    names, given = list(tensors), tensors.values()
    span = (max(t.nbytes for t in given) // GAP + 3) * GAP
    memory = torch.zeros(len(names) * span, dtype=torch.uint8)
    places = (memory[i * span + GAP :][: t.nbytes] for i, t in enumerate(given))
    copies = {n: p.view(t.dtype).view(t.shape).copy_(t) for n, p, t in zip(names, places, given, strict=True)}
    found = Watched(copies, {name: {} for name in names})
    sizes, counts = (numpy.array(numbers) for numbers in zip(*((t.itemsize, t.numel()) for t in given), strict=True))

    def noted(kind: str, pointers, mask):
        """Notes the access, and gives the mask without what does not exist."""
        wanted = numpy.broadcast_to(mask.data, pointers.data.shape).astype(bool)
        offset = pointers.data.astype(numpy.int64) - memory.data_ptr()
        which = (offset // span).clip(0, len(names) - 1)  # of the tensors
        elements = (offset - which * span - GAP) // sizes[which]
        program = ",".join(map(str, builder.grid_idx[: len(grid)]))
        for i, element in zip(which[wanted].tolist(), elements[wanted].tolist(), strict=True):
            found.touches[names[i]].setdefault(element, []).append((program, kind))
        return type(mask)(wanted & (elements >= 0) & (elements < counts[which]), mask.dtype)

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


def touched(found: Watched, only: Sequence[str] = ()) -> Drawn:
    """A panel for each tensor read, and for each written: its cells, each with the programs, or `only` these, in it.

    What does not exist is hatched. The sentence says what is wrong.
    """
    flat = all(tensor.dim() == 1 for tensor in found.results.values())  # one below the other, or side by side
    axis, x, y = plt.subplots()[1], 0, 0
    for name, verb in ((name, verb) for name in found.results for verb in VERBS):
        tensor, count, programs = found.results[name], found.results[name].numel(), found.programs(name, *VERBS[verb])
        columns = 16 if flat else tensor.shape[1] if tensor.dim() > 1 else 1
        axis.text(x, y - 0.15, f"{name}, {verb}" * bool(programs))
        for cell in range(max(count, min(max(programs) + 1, count + 8)) if programs else 0):
            here = [program for program in programs.get(cell, []) if not only or program in only]
            color = PALETTE[sum(map(int, here[0].split(","))) % len(PALETTE)] if len(here) == 1 else "white"
            look = {"facecolor": (color, 0.55), "edgecolor": "black", "hatch": "//" * (cell >= count)}
            axis.add_patch(plt.Rectangle((x + cell % columns, y + cell // columns), 1, 1, **look))
            text = " ".join(here) if len(" ".join(here)) <= 5 else f"{here[0]}+"
            axis.text(x + cell % columns + 0.5, y + cell // columns + 0.5, text, ha="center", va="center")
        if programs:
            x, y = (0, y + 2.2 + (count - 1) // columns) if flat else (x + max(columns, 4) + 0.8, 0)
    box = axis.dataLim
    axis.set(xlim=(-0.1, box.x1 + 0.1), ylim=(box.y1 + 0.1, -0.6), aspect="equal")
    axis.set_axis_off()
    axis.figure.set_size_inches(0.45 * box.width, 0.45 * box.height + 0.7)
    axis.figure.supxlabel("a cell: an element, with the programs that touch it", fontsize=9)
    return Drawn(axis, found.wrong())
