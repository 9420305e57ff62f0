"""The exercises: kernels to mend, and what checks them.

A kernel is interpreted and watched on several sizes, most of them no multiple of its block; then it is compiled.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch

from mnist_gpu.chapters.chapter_10.compiled import assembly
from mnist_gpu.chapters.chapter_10.watched import Watched, interpreting, touched, watch
from mnist_gpu.measuring.exercises import MEND, Exercise, Wrong, checker, difference, same

BLOCK = 4  # small, so that a picture shows every element


class Broken(NamedTuple):
    """What a kernel is to do."""

    title: str
    arguments: Callable[..., dict]  # of one of the sizes; random, with an empty `out`
    sizes: Sequence[tuple]
    grid: Callable[[dict], tuple[int, ...]]
    right: Callable[[dict], torch.Tensor]  # what has to be in `out`
    hint: str
    launches: Sequence[dict] = ({},)  # what each of several launches gets besides


def mended(name: str, kernel) -> str:
    """The check of an exercise, given a kernel (see mnist_gpu.measuring.exercises.Exercise)."""
    if wrong := interpreting(tried, kernel, name):
        raise Wrong(wrong[0], lambda: touched(wrong[1]).show())
    broken = BROKEN[name]
    for more in broken.launches:
        try:
            assembly(kernel, broken.arguments(*broken.sizes[0]) | more | {"BLOCK": 16}, ["H100"])
        except RuntimeError as error:
            raise Wrong(f"The interpreter takes it, but the compiler does not. {error}") from None
    return f"Tried on {len(broken.sizes)} sizes, and compiled."


def tried(kernel, name: str) -> tuple[str, Watched] | None:
    """The kernel on all sizes: what is wrong with the first that it does wrong, if there is one, and what it did."""
    broken = BROKEN[name]
    for size in broken.sizes:
        arguments = broken.arguments(*size)
        given = ", ".join(f"{name} {list(a.shape)}" for name, a in arguments.items() if torch.is_tensor(a))
        right, said = broken.right(arguments), ""
        for more in broken.launches:
            seen = watch(kernel, broken.grid(arguments), arguments | more | {"BLOCK": BLOCK})
            arguments |= seen.results
            if seen.error or seen.outside() or seen.races():
                said = seen.wrong()
                break
        if said or not same(out := arguments["out"], right):
            said = f"{said or difference(out, right) + '.'} {broken.hint}"
            return f"With {given}, in blocks of {BLOCK}: {said}", seen
    return None


def blocks(n: int) -> int:
    return math.ceil(n / BLOCK)


scaled = Broken(
    "A kernel that leaves its row",
    lambda m, n: {"a": torch.randn(m, n), "scale": torch.randn(m), "out": torch.zeros(m, n), "n": n},
    [(3, 6), (1, 3), (2, 9), (4, 8)],
    lambda a: (len(a["a"]), blocks(a["n"])),
    lambda a: a["a"] * a["scale"][:, None],
    "Behind the end of a row begins the next one. Say which elements of a block are the row's: mask by the column.",
)
counts = Broken(
    "Counts that are lost",
    lambda n: {"labels": torch.randint(10, (n,)), "out": torch.zeros(10, dtype=torch.int32), "n": n},
    [(18,), (5,), (1,), (30,)],
    lambda a: (blocks(a["n"]),),
    lambda a: a["labels"].bincount(minlength=10),
    "Where two read a count, and both add one and store it, one is lost: tl.atomic_add reads, adds and stores as one. "
    "What is masked must not be counted, either.",
)
transposed = Broken(
    "Right for square matrices only",
    lambda m, n: {"a": torch.randn(m, n), "out": torch.zeros(n, m), "m": m, "n": n},
    [(4, 4), (5, 7), (7, 5), (1, 6), (9, 2)],
    lambda a: (blocks(a["m"]), blocks(a["n"])),
    lambda a: a["a"].t().contiguous(),
    "An element lies at row * stride + column. The stride is the length of a row: what is it in a, and what in out?",
)
shares = Broken(
    "Read before it is written",
    lambda n: {"x": torch.rand(n) + 0.5, "parts": torch.zeros(blocks(n)), "out": torch.zeros(n), "n": n},
    [(10,), (3,), (17,), (8,)],
    lambda a: (blocks(a["n"]),),
    lambda a: a["x"] / a["x"].sum(),
    "What other programs write can be read in the next launch, which begins when this one has ended. (A barrier holds "
    "only the threads of one program.)",
    launches=({"PHASE": 0}, {"PHASE": 1}),
)
BROKEN = {"10.1": scaled, "10.2": counts, "10.3": transposed, "10.4": shares}
EXERCISES = [Exercise(name, MEND, broken.title, partial(mended, name)) for name, broken in BROKEN.items()]
check = checker(EXERCISES)
