"""What every program of a kernel reads and writes, element by element: the kernel is interpreted, and watched.

It sees what a GPU does not show: elements that do not exist (which are then neither read nor written, so a kernel
without its mask does no harm here), and elements that one program writes and another one needs.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy
import torch

from mnist_gpu.chapters.chapter_09.processes import kernel_from, process, source_of
from mnist_gpu.faster.with_triton import interpreted

GAP = 1 << 16  # bytes around a copy of a tensor: an address there belongs to the tensor, as an element it does not have
NOWHERE = "no tensor"  # what is further away than that


class Access(NamedTuple):
    """One load or store of one program."""

    program: tuple[int, int, int]
    kind: str  # "read", "write", or "update" for an atomic operation, which is both in one
    tensor: str  # the argument's name
    elements: list[int]  # numbers in the tensor's memory; below 0, or beyond its end, they do not exist


@dataclass
class Watched:
    """What a kernel did to copies of its arguments."""

    sizes: dict[str, int]  # elements, by tensor
    results: dict[str, torch.Tensor]  # the tensors afterwards
    accesses: list[Access] = field(default_factory=list)
    error: str | None = None  # why it stopped

    def outside(self) -> list[Access]:
        """The accesses, cut to elements that do not exist."""
        cut = [(a, [e for e in a.elements if not 0 <= e < self.sizes[a.tensor]]) for a in self.accesses]
        return [a._replace(elements=elements) for a, elements in cut if elements]

    def unwritten(self, tensor: str) -> list[int]:
        """The elements of `tensor` that no program writes."""
        return sorted(set(range(self.sizes[tensor])) - self.programs(tensor, "write", "update").keys())

    def programs(self, tensor: str, *kinds: str) -> dict[int, list[tuple[int, int, int]]]:
        """Which programs did it to each element of `tensor`, by its number; of those that were touched at all."""
        found = {}
        for access in self.accesses:
            if access.tensor == tensor and access.kind in kinds:
                for element in access.elements:
                    found.setdefault(element, {})[access.program] = None  # a set that keeps the order
        return {element: list(programs) for element, programs in found.items()}

    def races(self, tensor: str) -> list[int]:
        """Elements that one program writes and another reads or writes, so that their order would matter."""
        writers, readers = self.programs(tensor, "write"), self.programs(tensor, "read", "update")
        return sorted(e for e, programs in writers.items() if len({*programs, *readers.get(e, [])}) > 1)


def watch(kernel, grid: tuple[int, ...], arguments: dict) -> Watched:
    """Interprets `kernel[grid](**arguments)` on copies of the tensors, which must be contiguous, on the CPU.

    Where this process compiles kernels, another one is started for it. It finds of the kernel's surroundings `triton`
    and `tl` alone. Raises RuntimeError if that process ends too early.
    """
    with interpreter() as watch_there:
        return watch_there(kernel, grid, arguments)


@contextlib.contextmanager
def interpreter() -> Iterator[Callable[..., Watched]]:
    """Gives a function like `watch`, for several launches: they share the process, where it takes one."""

    with contextlib.nullcontext() if interpreted() else process(interpret=True) as call:

        def watch_there(kernel, grid: tuple[int, ...], arguments: dict) -> Watched:
            arguments = {name: a.detach().cpu() if torch.is_tensor(a) else a for name, a in arguments.items()}
            return call(_watch, source_of(kernel), grid, arguments) if call else _watch(kernel, grid, arguments)

        yield watch_there


def _watch(kernel, grid: tuple[int, ...], arguments: dict) -> Watched:
    """`kernel`: or its source, in another process."""
    from triton.runtime.interpreter import interpreter_builder as builder

    kernel = kernel_from(kernel) if isinstance(kernel, str) else kernel
    copies = {name: _guarded(tensor) for name, tensor in arguments.items() if torch.is_tensor(tensor)}
    found = Watched({name: copy.numel() for name, copy in copies.items()} | {NOWHERE: 0}, copies)
    starts, sizes, counts = zip(*((c.data_ptr(), c.element_size(), c.numel()) for c in copies.values()), strict=True)

    def noted(kind: str, pointers, mask):
        """Notes the access, and gives the mask without what does not exist."""
        wanted = numpy.broadcast_to(mask.data, pointers.data.shape).astype(bool)
        # Of every address: which element of each tensor it would be, and how many bytes it is from being one.
        elements = (pointers.data.astype(numpy.int64)[..., None] - starts) // sizes
        beyond = numpy.maximum(-elements, elements - counts + 1).clip(min=0) * sizes
        owner = numpy.where(beyond.min(-1) <= GAP, beyond.argmin(-1), len(copies))
        for i, name in enumerate(found.sizes):
            if (own := wanted & (owner == i)).any():
                numbers = elements[..., i][own].tolist() if name != NOWHERE else [-1] * int(own.sum())
                found.accesses.append(Access(tuple(builder.grid_idx), kind, name, numbers))
        return type(mask)(wanted & (beyond.min(-1) == 0), mask.dtype)

    load, store, atomic = builder.create_masked_load, builder.create_masked_store, builder.create_atomic_rmw
    builder.create_masked_load = lambda at, mask, *rest: load(at, noted("read", at, mask), *rest)
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
