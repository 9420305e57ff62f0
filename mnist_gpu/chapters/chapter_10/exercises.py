"""Kernels to mend, and their check: interpreted and watched on several sizes, most no multiple of a block; compiled."""

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
    launch: Callable[..., tuple]  # of one of the sizes: the grid, and arguments, random, with an empty `out`
    sizes: Sequence[tuple]
    right: Callable[[dict], torch.Tensor]  # what has to be in `out`
    hint: str
    launches: Sequence[dict] = ({},)  # what each of several launches gets besides


def mended(name: str, kernel) -> str:
    """The check of an exercise, given a kernel (see mnist_gpu.measuring.exercises.Exercise)."""
    if wrong := interpreting(tried, kernel, name):
        said, seen = wrong
        raise Wrong(said, (lambda: touched(seen).show()) if any(seen.touches.values()) else None)
    broken = BROKEN[name]
    for more in broken.launches:
        try:
            assembly(kernel, broken.launch(*broken.sizes[0])[1] | more | {"BLOCK": 16}, ["H100"])
        except RuntimeError as error:
            raise Wrong(f"The interpreter takes it, but the compiler does not. {error}") from None
    return f"Tried on {len(broken.sizes)} sizes, and compiled."


def tried(kernel, name: str) -> tuple[str, Watched] | None:
    """The kernel on all sizes: what is wrong with the first that it does wrong, if there is one, and what it did."""
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
            return f"With {given}, in blocks of {BLOCK}: {said or difference(out, right) + '.'}{hint}", seen


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
