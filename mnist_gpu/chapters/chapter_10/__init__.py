"""Chapter 10: what every program of a kernel reads and writes, element by element, and kernels to mend.

A kernel is interpreted, watched and drawn. What does not exist is seen, and neither read nor written: a kernel without
its mask does no harm here. All of it can be imported where Triton is missing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy
import torch

from mnist_gpu.chapters.chapter_10.compiled import assembly, kernel_from, source_of
from mnist_gpu.faster.with_triton import environment, imported, interpreted, kernel_device  # noqa: F401 - for its cells
from mnist_gpu.measuring.drawing import PALETTE, Drawn
from mnist_gpu.measuring.exercises import MEND, Exercise, Wrong, checker, difference, in_time, same
from mnist_gpu.measuring.processes import process

GAP = 1 << 16  # bytes around a copy of a tensor: an address there is the tensor's, of an element that it does not have
# What is masked and has no `other` can be anything on a GPU. Here it is, in turn, what sums keep and what maxima keep.
UNDEFINED = float("nan"), 1e15


@dataclass
class Watched:
    """What a kernel did to copies of its arguments."""

    results: dict[str, torch.Tensor]  # the tensors afterwards
    # For each tensor and number of an element (below 0, or beyond the end, it does not exist): which programs, "3" or
    # "1,0", did what to it: "read", "write", or "update" for an atomic operation, which is both in one.
    touches: dict[str, dict[int, list[tuple[str, str]]]]
    error: str | None = None  # why it stopped

    def count(self, *tensors: str) -> int:
        """How many elements of these tensors all programs together have read or written."""
        return sum(len(touches) for tensor in tensors for touches in self.touches[tensor].values())

    def wrong(self) -> str:
        """Why it stopped, what it touched that isn't there, and races for elements that not all only read or update."""
        said = [f"The kernel stops: {self.error}."] if self.error else []
        for tensor, elements in self.touches.items():
            count, races = self.results[tensor].numel(), 0
            for element, touches in elements.items():
                programs, kinds = map(set, zip(*touches, strict=True))
                races += len(programs) > 1 and kinds not in ({"read"}, {"update"})
                if not 0 <= element < count and not said:
                    said.append("Program {} wants to {} what does not exist:".format(*touches[0]))
                    said.append(f"element {element} of {tensor}, which has {count}.")
            said += [f"Programs race for {races} of the elements of {tensor}."] * bool(races)
        return " ".join(said)


def watch(kernel, grid: tuple[int, ...], arguments: dict) -> Watched:
    """Interprets `kernel[grid](**arguments)` on copies of the tensors, contiguous."""
    return interpreting(_watch, kernel, grid, arguments)


def interpreting(function: Callable, kernel, *arguments):
    """Calls `function(kernel, *arguments)` where kernels are interpreted: here, or in a process given the source."""
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
        in_time(numpy.errstate(all="ignore")(partial(kernel[grid], **arguments | copies)), seconds=10)  # inf is no news
    except Exception as error:  # whatever a kernel that is not finished may do
        found.error = str(error).rstrip(".")
    finally:
        del builder.create_masked_load, builder.create_masked_store, builder.create_atomic_rmw
    return found


def touched(found: Watched, only: Sequence[str] = ()) -> Drawn:
    """Each tensor, for reads and for writes: cells with their programs, or `only` these; hatched: not there."""
    flat = all(tensor.dim() == 1 for tensor in found.results.values())  # one below the other, or side by side
    axis, x, y, said = plt.subplots()[1], 0, 0, []
    for name, verb in product(found.results, ("read", "written")):
        programs, count = {}, found.results[name].numel()
        for element, touches in found.touches[name].items():
            if here := dict.fromkeys(p for p, kind in touches if (kind == "read") == (verb == "read")):
                programs[element] = [p for p in here if not only or p in only]
        if not programs:
            continue
        columns = 16 if flat else [1, *found.results[name].shape][-1 if found.results[name].dim() > 1 else 0]
        axis.text(x, y - 0.15, f"{name}, {verb}")
        said.append(f"{sum(map(bool, programs.values()))} of {name} {verb}")
        for cell in range(max(count, min(max(programs) + 1, count + 8))):
            here, corner = programs.get(cell, []), (x + cell % columns, y + cell // columns)
            color = PALETTE[sum(map(int, here[0].split(","))) % 6] if len(here) == 1 else ("white", "grey")[bool(here)]
            look = {"facecolor": (color, 0.55), "edgecolor": "black", "hatch": "//" * (cell >= count)}
            axis.add_patch(plt.Rectangle(corner, 1, 1, **look))
            text = " ".join(here) if len(" ".join(here)) <= 5 else f"{here[0]}+"
            axis.text(corner[0] + 0.5, corner[1] + 0.5, text, ha="center", va="center")
        x, y = (0, y + 2.2 + (count - 1) // columns) if flat else (x + max(columns, 4) + 0.8, 0)
    width, height = axis.dataLim.p1.clip(1) + numpy.array((0.2, 0.7))
    axis.set(xlim=(-0.1, width - 0.1), ylim=(height - 0.6, -0.6), aspect="equal")
    axis.set_axis_off()
    axis.figure.set_size_inches(0.45 * width, 0.45 * height)
    return Drawn(
        axis, f"Elements: {', '.join(said) or 'none'}.\n{found.wrong() or 'All exist, and no two programs race.'}"
    )


# Kernels to mend: interpreted and watched on several sizes, most no multiple of a block, and compiled

BLOCK = 4  # small, so that a picture shows every element


class Broken(NamedTuple):
    """What a kernel is to do."""

    title: str
    launch: Callable[..., tuple]  # of one of the sizes: the grid, and arguments, random, with an empty `out`
    sizes: Sequence[tuple]
    right: Callable[[dict], torch.Tensor]  # what has to be in `out`
    hint: str
    launches: Sequence[dict] = ({},)  # what each of several launches gets besides


def mended(name: str, kernel) -> str:
    """The check of an exercise, given a kernel (see mnist_gpu.measuring.exercises.Exercise)."""
    if wrong := interpreting(tried, kernel, name):
        raise Wrong(wrong)
    broken = BROKEN[name]
    for more in broken.launches:
        try:
            assembly(kernel, broken.launch(*broken.sizes[0])[1] | more | {"BLOCK": 16}, ["H100"])
        except RuntimeError as error:
            raise Wrong(f"The interpreter takes it, but the compiler does not. {error}") from None
    return f"Tried on {len(broken.sizes)} sizes, and compiled."


def tried(kernel, name: str) -> str | None:
    """The kernel on all sizes: what is wrong with the first that it does wrong, if there is one."""
    broken = BROKEN[name]
    for size in broken.sizes:
        grid, arguments = broken.launch(*size)
        given = ", ".join(f"{name} {list(a.shape)}" for name, a in arguments.items() if torch.is_tensor(a))
        right = broken.right(arguments)
        for more in broken.launches:
            seen = watch(kernel, grid, arguments | more | {"BLOCK": BLOCK})
            arguments |= seen.results
            if said := seen.wrong():
                break
        if said or not same(out := seen.results["out"], right):
            hint = "" if seen.error else f" {broken.hint}"
            return f"With {given}, in blocks of {BLOCK}: {said or difference(out, right) + '.'}{hint}"


def blocks(n: int) -> int:
    return -(-n // BLOCK)


scaled = Broken(
    "A kernel that leaves its row",
    lambda m, n: ((m, blocks(n)), {"a": torch.randn(m, n), "scale": torch.randn(m), "out": torch.zeros(m, n), "n": n}),
    [(3, 6), (1, 3), (2, 9), (4, 8)],
    lambda a: a["a"] * a["scale"][:, None],
    "A row times its own scale. Behind the end of a row begins the next one: which elements of a block are the row's?",
)
counts = Broken(
    "Counts that are lost",
    lambda n: ((blocks(n),), {"labels": torch.randint(10, (n,)), "out": torch.zeros(10, dtype=torch.int32), "n": n}),
    [(18,), (5,), (1,), (30,)],
    lambda a: a["labels"].bincount(minlength=10),
    "tl.atomic_add reads, adds and stores as one, so that no one is lost. What is masked must not be counted.",
)
transposed = Broken(
    "Right for square matrices only",
    lambda m, n: ((blocks(m), blocks(n)), {"a": torch.randn(m, n), "out": torch.zeros(n, m), "m": m, "n": n}),
    [(4, 4), (5, 7), (7, 5), (1, 6), (9, 2)],
    lambda a: a["a"].t().contiguous(),
    "An element lies at row * stride + column. The stride is the length of a row: what is it in a, and what in out?",
)
shares = Broken(
    "Read before it is written",
    lambda n: ((blocks(n),), {"x": 1 + torch.rand(n), "parts": torch.zeros(blocks(n)), "out": torch.zeros(n), "n": n}),
    [(10,), (3,), (17,), (8,)],
    lambda a: a["x"] / a["x"].sum(),
    "What other programs write can be read in the next launch, which begins when this one has ended. No barrier helps.",
    launches=({"PHASE": 0}, {"PHASE": 1}),
)
BROKEN = {"10.1": scaled, "10.2": counts, "10.3": transposed, "10.4": shares}
EXERCISES = [Exercise(name, MEND, broken.title, partial(mended, name)) for name, broken in BROKEN.items()]
check = checker(EXERCISES)
