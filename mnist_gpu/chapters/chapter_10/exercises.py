"""The puzzles: kernels with a line or two missing, and what checks them.

A kernel is interpreted and watched on several sizes, most of them no multiple of its block; then it is compiled.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mnist_gpu.chapters.chapter_10.compiled import assembly
from mnist_gpu.chapters.chapter_10.watched import UNDEFINED, interpreter, touched
from mnist_gpu.faster.with_triton import interpreted, kernel_device, triton_missing
from mnist_gpu.measuring.exercises import WRITE, Exercise, Undecided, Wrong, checker, compared, same

BLOCK, LEAST = 4, 16  # small, so that a picture shows every element; and the least that tl.dot takes on a GPU
MASKED = (
    "What is masked, and has no `other`, can be anything on a GPU (here it is NaN or 1e15): name what it counts as."
)


@dataclass(frozen=True)
class Puzzle:
    """Called with a kernel, checks it (see mnist_gpu.measuring.exercises.Exercise)."""

    arguments: Callable[..., dict]  # of one of the sizes; random, with an empty `out`
    sizes: Sequence[tuple]
    grid: Callable[[dict, int], tuple[int, ...]]  # of the arguments and the block
    right: Callable[[dict], torch.Tensor]  # what has to be in `out`
    hints: Sequence[tuple[Callable[[dict], torch.Tensor], str]]  # what may be there instead, and the hint
    outside: str  # the hint where it touches what does not exist
    race: str = "Two programs write the same element: does each begin at one of its own? On a GPU they run together."

    def __call__(self, kernel) -> str:
        if reason := triton_missing():
            raise Undecided(f"not checked. No kernel can run here: {reason}.")
        with interpreter() as watch:
            seen = None  # what the kernel did on the last size

            def run(kernel, arguments: dict) -> torch.Tensor:
                nonlocal seen
                seen = watch(kernel, self.grid(arguments, BLOCK), arguments | {"BLOCK": BLOCK})
                out = seen.results["out"]
                for wrong, hint in (
                    (seen.error, f"The kernel stops: {seen.error}."),
                    (seen.outside(), self.outside),
                    (seen.races("out"), self.race),
                    (out.isnan().any() or (out == UNDEFINED[1]).any(), MASKED),
                ):
                    if wrong:
                        raise Wrong(f"{given(arguments)}: {hint}", draw)
                return out

            def draw(*_) -> None:
                panels = [(tensor, "written" if tensor == "out" else "read") for tensor in seen.results]
                touched(seen, panels).show()

            options = {"hints": self.hints, "run": run, "then": self.compiled, "draw": draw}
            return compared(self.right, self.inputs, given=given, **options)(kernel)

    def inputs(self) -> list[tuple[dict]]:
        return [(self.arguments(*size),) for size in self.sizes]

    def compiled(self, kernel) -> str:
        """Compiles a kernel that the interpreter finds right, for a card; and runs it, if there is a GPU."""
        try:
            assembly(kernel, self.inputs()[0][0] | {"BLOCK": LEAST}, ["H100"])
        except RuntimeError as error:
            raise Wrong(f"The interpreter takes it, but the compiler does not: {error}") from None
        for (arguments,) in [] if interpreted() else self.inputs():
            there = {name: a.to(kernel_device()) if torch.is_tensor(a) else a for name, a in arguments.items()}
            kernel[self.grid(arguments, LEAST)](**there, BLOCK=LEAST)
            if not same(there["out"].cpu(), self.right(arguments)):
                raise Wrong("The interpreter finds it right, but compiled for this GPU it computes something else.")
        return f"Tried on {len(self.sizes)} sizes, and compiled."


def given(arguments: dict) -> str:
    """The sizes of an input, in words."""
    shapes = (f"{name} {list(a.shape)}" for name, a in arguments.items() if torch.is_tensor(a))
    return f"With {', '.join(shapes)}, and blocks of {BLOCK}"


greatest = Puzzle(
    # All are below 0, some as far as float32 goes, so that only -inf lies below them.
    lambda m, n, scale: {"a": (-1 - torch.rand(m, n)) * scale, "out": torch.zeros(m), "n": n},
    sizes=((3, 10, 1.0), (1, 3, 1.7e38), (5, 1, 1.0), (2, 9, 1.7e38)),
    grid=lambda a, block: (len(a["a"]),),
    right=lambda a: a["a"].amax(1),
    hints=(
        (lambda a: a["a"].amax(1).clamp(min=0.0), "A 0 takes part: what counts as less than all? best begins there."),
        (lambda a: a["a"][:, :BLOCK].amax(1), "That is the greatest of the first block: the loop must go on."),
    ),
    outside="The last block of a row is not full, and behind its end the next row begins: mask by the column.",
)

counts = Puzzle(
    lambda n: {"labels": torch.randint(0, 10, (n,)), "out": torch.zeros(10, dtype=torch.int32), "n": n},
    sizes=((18,), (5,), (1,), (30,)),
    grid=lambda a, block: (math.ceil(a["n"] / block),),
    right=lambda a: a["labels"].bincount(minlength=10),
    hints=(
        (lambda a: a["labels"].bincount(minlength=10).clamp(max=1), "Lanes with the same label overwrite each other."),
        (
            lambda a: torch.cat([a["labels"], torch.zeros(-a["n"] % BLOCK).long()]).bincount(minlength=10),
            "Masked elements are loaded as 0, and counted as zeros: adding needs the mask as well.",
        ),
    ),
    outside="The last block is not full: labels that do not exist must not be counted.",
    race="Two programs read the same count, add one each, and store it: one is lost. The interpreter, which runs one "
    "program after another, hides it. tl.atomic_add reads, adds and stores as one.",
)
gradient = Puzzle(
    lambda m, n, k: {"g": torch.randn(m, n), "x": torch.randn(m, k), "out": torch.zeros(n, k), "m": m, "n": n, "k": k},
    sizes=((6, 5, 7), (9, 3, 2), (3, 1, 5), (8, 8, 4)),
    grid=lambda a, block: (math.ceil(a["n"] / block), math.ceil(a["k"] / block)),
    right=lambda a: a["g"].t() @ a["x"],
    hints=(
        (
            lambda a: a["g"].reshape(a["n"], a["m"]) @ a["x"],
            "g is read as if it were [n, m]: a row has n elements.",
        ),
        (lambda a: a["g"].split(BLOCK)[-1].t() @ a["x"].split(BLOCK)[-1], "That is the last tile's product alone."),
    ),
    outside="A tile goes beyond an edge: the loop's last tile is not full along m, either.",
)

EXERCISES = (
    Exercise("10.1", WRITE, "The greatest of each row", greatest),
    Exercise("10.2", WRITE, "Count the labels", counts),
    Exercise("10.3", WRITE, "The gradient of a layer's weights", gradient),
)
check = checker(EXERCISES)
