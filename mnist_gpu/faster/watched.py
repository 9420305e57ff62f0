"""What every program of a kernel reads and writes, element by element: the kernel is interpreted, and watched.

It sees what a GPU does not show: elements that do not exist (which are then neither read nor written, so a kernel
without its mask does no harm here), and elements that one program writes and another one needs.
"""

import inspect
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import NamedTuple

import numpy
import torch

from mnist_gpu.faster.with_triton import choose, environment, interpreted

GAP = 1 << 16  # bytes around a copy of a tensor: an address there belongs to the tensor, as an element it does not have
NOWHERE = "no tensor"  # what is further away than that
CHILD = "import sys; from mnist_gpu.faster.watched import child; child(sys.argv[1])"
SOURCE = "import triton\nimport triton.language as tl\n\n\n"  # what a kernel's source may rely on


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
                    programs = found.setdefault(element, [])
                    if access.program not in programs:
                        programs.append(access.program)
        return found

    def races(self, tensor: str) -> list[int]:
        """Elements that one program writes and another reads or writes, so that their order would matter."""
        writers, readers = self.programs(tensor, "write"), self.programs(tensor, "read", "update")
        return sorted(e for e, programs in writers.items() if len({*programs, *readers.get(e, [])}) > 1)


def watch(kernel, grid: tuple[int, ...], arguments: dict) -> Watched:
    """Interprets `kernel[grid](**arguments)` on copies of the tensors, which must be contiguous, on the CPU."""
    return watch_each(kernel, [(grid, arguments)])[0]


def watch_each(kernel, launches: Sequence[tuple[tuple[int, ...], dict]]) -> list[Watched]:
    """`watch` for several launches, (grid, arguments), of one kernel.

    Where this process compiles kernels, another one is started for all of them. It finds of the kernel's surroundings
    `triton` and `tl` alone.

    Raises RuntimeError if that process fails.
    """
    launches = [
        (grid, {name: a.detach().cpu() if torch.is_tensor(a) else a for name, a in arguments.items()})
        for grid, arguments in launches
    ]
    if interpreted():
        return [_watch_here(kernel, grid, arguments) for grid, arguments in launches]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "kernel.py").write_text(SOURCE + inspect.getsource(kernel.fn), encoding="utf-8")
        (Path(folder) / "asked").write_bytes(pickle.dumps((kernel.fn.__name__, launches)))
        done = subprocess.run(
            [sys.executable, "-c", CHILD, folder],
            env=with_this_package(environment(interpret=True)),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"the process that interprets kernels failed:\n{done.stderr[-2000:]}")
        return pickle.loads((Path(folder) / "found").read_bytes())


def with_this_package(environment: dict[str, str]) -> dict[str, str]:
    """The environment of a process that finds this very package, wherever it is started.

    What it prints, and what it starts prints, is in UTF-8, whatever the system's code page.
    """
    path = [str(Path(__file__).resolve().parents[2]), *filter(None, [environment.get("PYTHONPATH")])]
    return environment | {"PYTHONPATH": os.pathsep.join(path), "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8"}


def load_kernel(file: Path, name: str):
    """The kernel of this name from a file of Python: Triton reads a kernel's source, so it needs a file."""
    spec = spec_from_file_location(file.stem, file)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def _watch_here(kernel, grid, arguments) -> Watched:
    from triton.runtime.interpreter import interpreter_builder as builder

    class Place(NamedTuple):
        name: str
        start: int  # address of the first element
        size: int  # bytes of an element
        count: int

    copies, places = {}, []
    for name, tensor in arguments.items():
        if torch.is_tensor(tensor):
            gap = GAP // tensor.element_size()
            storage = torch.zeros(tensor.numel() + 2 * gap, dtype=tensor.dtype)
            copies[name] = storage[gap : gap + tensor.numel()].view(tensor.shape).copy_(tensor)
            places.append(Place(name, copies[name].data_ptr(), tensor.element_size(), tensor.numel()))
    found = Watched({p.name: p.count for p in places} | {NOWHERE: 0}, copies)

    def noted(kind: str, pointers, mask):
        """Notes the access, and gives the mask without what does not exist."""
        addresses = pointers.data.astype(numpy.int64)
        exists = numpy.zeros(addresses.shape, dtype=bool)
        wanted = far = numpy.broadcast_to(mask.data, addresses.shape).astype(bool)
        for place in places:
            near = (addresses >= place.start - GAP) & (addresses < place.start + place.count * place.size + GAP)
            elements = (addresses - place.start) // place.size
            if (near & wanted).any():
                numbers = elements[near & wanted].ravel().tolist()
                found.accesses.append(Access(tuple(builder.grid_idx), kind, place.name, numbers))
            exists |= near & (elements >= 0) & (elements < place.count)
            far = far & ~near
        if far.any():
            found.accesses.append(Access(tuple(builder.grid_idx), kind, NOWHERE, [-1] * int(far.sum())))
        return type(mask)(wanted & exists, mask.dtype)

    load, store, atomic = builder.create_masked_load, builder.create_masked_store, builder.create_atomic_rmw
    watching = {
        "create_masked_load": lambda ptrs, mask, *rest: load(ptrs, noted("read", ptrs, mask), *rest),
        "create_masked_store": lambda ptrs, value, mask, *rest: store(ptrs, value, noted("write", ptrs, mask), *rest),
        "create_atomic_rmw": lambda op, ptrs, value, mask, *rest: atomic(
            op, ptrs, value, noted("update", ptrs, mask), *rest
        ),
    }
    try:
        for name, function in watching.items():
            setattr(builder, name, function)
        kernel[grid](**arguments | copies)
    except Exception as error:  # whatever a kernel that is not finished may do
        found.error = str(error)
    finally:
        for name in watching:
            delattr(builder, name)
    return found


def child(folder: str) -> None:
    """In a process of its own: reads what to watch, and writes what it did."""
    choose()
    name, launches = pickle.loads((Path(folder) / "asked").read_bytes())
    kernel = load_kernel(Path(folder) / "kernel.py", name)
    found = [_watch_here(kernel, grid, arguments) for grid, arguments in launches]
    (Path(folder) / "found").write_bytes(pickle.dumps(found))
