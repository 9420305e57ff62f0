"""The puzzles: kernels with a line or two missing, and what checks them.

A kernel is interpreted and watched on several sizes, most of them no multiple of its block, so that an answer that is
right for regular sizes alone is refused. A wrong answer gets the hint that fits it: by what it reads and writes, or by
what it computes instead.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mnist_gpu.chapters.chapter_09.pictures import touched
from mnist_gpu.chapters.chapter_09.watched import interpreter
from mnist_gpu.faster.with_triton import interpreted, kernel_device, triton_missing
from mnist_gpu.measuring.exercises import WRITE, Exercise, Undecided, Wrong, checker, compared, same

BLOCK = 4  # small, so that a picture shows every element


@dataclass(frozen=True)
class Puzzle:
    """Called with a kernel, checks it (see mnist_gpu.measuring.exercises.Exercise)."""

    arguments: Callable[..., dict]  # of one of the sizes; random, with an empty `out`
    sizes: Sequence[tuple[int, ...]]
    grid: Callable[[dict, int], tuple[int, ...]]  # of the arguments and the block
    right: Callable[[dict], torch.Tensor]  # what has to be in `out`
    hints: Sequence[tuple[Callable[[dict], torch.Tensor], str]]  # what may be there instead, and the hint
    outside: str  # the hint where it touches what does not exist
    unwritten: str = "A part of out is written by no program: where do the blocks begin, and what does the mask let in?"
    race: str = "Two programs write the same element: does each begin at one of its own? On a GPU they run together."

    def __call__(self, kernel) -> str:
        if reason := triton_missing():
            raise Undecided(f"not checked. No kernel can run here: {reason}.")
        with interpreter() as watch:
            seen = None  # what the kernel did on the last size

            def run(kernel, arguments: dict) -> torch.Tensor:
                nonlocal seen
                seen = watch(kernel, self.grid(arguments, BLOCK), arguments | {"BLOCK": BLOCK})
                stops = seen.error and f"The kernel stops: {seen.error}."
                if hint := stops or (seen.outside() and self.outside) or (seen.races("out") and self.race):
                    raise Wrong(f"{given(arguments)}: {hint}", draw)
                return seen.results["out"]

            def why(*_) -> str:
                return self.unwritten if seen.unwritten("out") else ""

            def draw(*_) -> None:
                inputs = [(tensor, "read") for tensor in seen.results if tensor != "out"]
                touched(seen, [*inputs, ("out", "written")]).show()

            options = {"hints": self.hints, "why": why, "run": run, "then": self.run_compiled, "draw": draw}
            return compared(self.right, self.inputs, given=given, **options)(kernel)

    def inputs(self) -> list[tuple[dict]]:
        return [(self.arguments(*size),) for size in self.sizes]

    def run_compiled(self, kernel) -> str:
        """Runs a kernel that is right on the GPU, if there is one, in blocks of 16, the least that tl.dot takes."""
        for (arguments,) in [] if interpreted() else self.inputs():
            there = {name: a.to(kernel_device()) if torch.is_tensor(a) else a for name, a in arguments.items()}
            kernel[self.grid(arguments, 16)](**there, BLOCK=16)
            if not same(there["out"].cpu(), self.right(arguments)):
                raise Wrong("The interpreter finds it right, but compiled for this GPU it computes something else.")
        return f"Tried on {len(self.sizes)} sizes."


def given(arguments: dict) -> str:
    """The sizes of an input, in words."""
    shapes = (f"{name} {list(a.shape)}" for name, a in arguments.items() if torch.is_tensor(a))
    return f"With {', '.join(shapes)}, and blocks of {BLOCK}"


def tiles(*sides: str) -> Callable[[dict, int], tuple[int, ...]]:
    """The grid that covers these sides with blocks."""
    return lambda a, block: tuple(-(-a[side] // block) for side in sides)


def negative(*shape: int) -> torch.Tensor:
    """Random numbers below 0, so that a greatest one that counts a masked 0 is seen."""
    return -1 - torch.rand(shape)


def counted(labels: torch.Tensor) -> torch.Tensor:
    return torch.bincount(labels, minlength=10).int()


turned = Puzzle(
    lambda n: {"x": negative(n), "out": torch.zeros(n), "n": n},
    sizes=((10,), (3,), (1,), (8,)),
    grid=tiles("n"),
    right=lambda a: a["x"].flip(0),
    hints=(
        (lambda a: a["x"], "That is a copy: element i of out comes from the other end of x."),
        (
            lambda a: torch.cat([part.flip(0) for part in a["x"].split(BLOCK)]),
            "Each block is turned by itself, not x.",
        ),
    ),
    outside="The last block is not full: which of its elements exist? Loading needs a mask as much as storing. And the "
    "last element of x is n - 1, not n.",
)

with_bias = Puzzle(
    lambda m, n: {"a": negative(m, n), "bias": negative(n), "out": torch.zeros(m, n), "m": m, "n": n},
    sizes=((6, 5), (3, 2), (1, 7), (4, 8)),
    grid=tiles("m", "n"),
    right=lambda a: a["a"] + a["bias"],
    hints=(
        (lambda a: a["a"], "That is a itself: the bias is not added."),
        (
            lambda a: a["a"] + torch.cat([a["bias"], torch.zeros(a["m"])])[: a["m"], None],
            "The bias goes along the wrong side: every column has one, so it is loaded at the columns, [None, :].",
        ),
    ),
    outside="A tile at the edge is not full, in two directions: does the mask ask for row and column?",
)

transposed = Puzzle(
    lambda m, n: {"a": negative(m, n), "out": torch.zeros(n, m), "m": m, "n": n},
    sizes=((5, 6), (3, 2), (1, 7), (8, 4)),
    grid=tiles("m", "n"),
    right=lambda a: a["a"].t().contiguous(),
    hints=((lambda a: a["a"].reshape(a["n"], a["m"]), "That is a, as it was: row and column have to change places."),),
    outside="A tile at the edge is not full, or an address goes too far: out has n rows of m elements.",
)

greatest = Puzzle(
    lambda m, n: {"a": negative(m, n), "out": torch.zeros(m), "n": n},
    sizes=((3, 10), (1, 3), (5, 1), (2, 8)),
    grid=lambda a, block: (len(a["a"]),),
    right=lambda a: a["a"].amax(1),
    hints=(
        (
            lambda a: a["a"].amax(1).clamp(min=0.0),
            "A 0 takes part that is not in the row. What do masked elements count as? What does best begin with?",
        ),
        (lambda a: a["a"][:, :BLOCK].amax(1), "That is the greatest of the first block: the loop must go on."),
        (lambda a: a["a"].split(BLOCK, 1)[-1].amax(1), "That is the greatest of the last block: keep those before it."),
    ),
    outside="The last block of a row is not full, and behind its end the next row begins: mask by the column.",
)

counts = Puzzle(
    lambda n: {"labels": torch.randint(0, 10, (n,)), "out": torch.zeros(10, dtype=torch.int32), "n": n},
    sizes=((13,), (3,), (1,), (16,)),
    grid=tiles("n"),
    right=lambda a: counted(a["labels"]),
    hints=(
        (
            lambda a: counted(a["labels"]).clamp(max=1),
            "Lanes with the same label overwrite each other.",
        ),
        (
            lambda a: counted(torch.cat([a["labels"], torch.zeros(-a["n"] % BLOCK, dtype=torch.int64)])),
            "Masked elements are loaded as 0, and counted as zeros: adding needs the mask as well.",
        ),
    ),
    outside="The last block is not full: labels that do not exist must not be counted.",
    unwritten="",  # most classes have no label in so few
    race="Two programs read the same count, add one each, and store it: one is lost. The interpreter runs programs one "
    "after another and hides it. tl.atomic_add reads, adds and stores as one.",
)

gradient = Puzzle(
    lambda m, n, k: {"g": negative(m, n), "x": negative(m, k), "out": torch.zeros(n, k), "m": m, "n": n, "k": k},
    sizes=((6, 5, 7), (9, 3, 2), (3, 1, 5), (8, 8, 4)),
    grid=tiles("n", "k"),
    right=lambda a: a["g"].t() @ a["x"],
    hints=(
        (
            lambda a: a["g"][:BLOCK].t() @ a["x"][:BLOCK] * len(a["x"].split(BLOCK)),
            "Every round multiplies the first tile along m: the addresses have to move on with start.",
        ),
        (
            lambda a: a["g"].reshape(a["n"], a["m"]) @ a["x"],
            "g is read as if it were [n, m]: from one image to the next it is n elements.",
        ),
        (
            lambda a: a["g"].split(BLOCK)[-1].t() @ a["x"].split(BLOCK)[-1],
            "That is the last tile's product alone: total must keep what it had.",
        ),
    ),
    outside="A tile goes beyond an edge: the loop's last tile is not full along m, either.",
)

EXERCISES = (
    Exercise("09.1", WRITE, "Turn a vector round", turned),
    Exercise("09.2", WRITE, "A bias for every row", with_bias),
    Exercise("09.3", WRITE, "Transpose a matrix", transposed),
    Exercise("09.4", WRITE, "The greatest of each row", greatest),
    Exercise("09.5", WRITE, "Count the labels", counts),
    Exercise("09.6", WRITE, "The gradient of a layer's weights", gradient),
)
check = checker(EXERCISES)
