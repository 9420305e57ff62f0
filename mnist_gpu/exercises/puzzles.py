"""Chapter 09's puzzles: kernels with a line or two missing, and what checks them.

A kernel is interpreted and watched on several sizes, most of them no multiple of its block, so that an answer that is
right for regular sizes alone is refused. A wrong answer gets the hint that fits it: by what it reads and writes, or by
what it computes instead.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from mnist_gpu.exercises.verdicts import WRITE, Undecided, Wrong, exercise
from mnist_gpu.faster.watched import Watched, watch_each
from mnist_gpu.faster.with_triton import interpreted, kernel_device, triton_missing

BLOCK = 4  # small, so that a picture shows every element


@dataclass(frozen=True)
class Puzzle:
    """What a kernel is given, what it has to leave in `out`, and what may be the matter with a wrong answer."""

    title: str
    sizes: tuple[tuple[int, ...], ...]
    arguments: Callable[..., dict]  # of one of the sizes; random, with an empty `out`
    grid: Callable[[dict, int], tuple[int, ...]]  # of the arguments and the block
    right: Callable[[dict], torch.Tensor]
    outside: str  # the hint where it touches what does not exist
    unwritten: str  # where it leaves a part of out as it was
    instead: tuple[tuple[Callable[[dict], torch.Tensor], str], ...]  # what else it may compute, and the hint
    race: str = "Two programs write the same element: does each begin at one of its own? On a GPU they run together."


def _blocks(n: int, block: int) -> int:
    return -(-n // block)


def _rand(*shape: int) -> torch.Tensor:
    """Numbers below 0, so that a greatest one that counts a masked 0 is seen."""
    return -1 - torch.rand(shape)


def _vector(n: int) -> dict:
    return {"x": _rand(n), "out": torch.zeros(n), "n": n}


def _bias(m: int, n: int) -> dict:
    return {"a": _rand(m, n), "bias": _rand(n), "out": torch.zeros(m, n), "m": m, "n": n}


def _matrix(m: int, n: int) -> dict:
    return {"a": _rand(m, n), "out": torch.zeros(n, m), "m": m, "n": n}


def _rows(m: int, n: int) -> dict:
    return {"a": _rand(m, n), "out": torch.zeros(m), "n": n}


def _labels(n: int) -> dict:
    return {"labels": torch.randint(0, 10, (n,)), "out": torch.zeros(10, dtype=torch.int32), "n": n}


def _gradient(m: int, n: int, k: int) -> dict:
    return {"g": _rand(m, n), "x": _rand(m, k), "out": torch.zeros(n, k), "m": m, "n": n, "k": k}


def _tiles(*sides: str) -> Callable[[dict, int], tuple[int, ...]]:
    """The grid that covers these sides with tiles."""
    return lambda a, block: tuple(_blocks(a[side], block) for side in sides)


def _along_m(a: dict, part: slice) -> torch.Tensor:
    """The product of some of the images alone."""
    return a["g"][part].t() @ a["x"][part]


def _cut(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`values` in their order as `like` is shaped, as much as there is room for; zeros beyond."""
    out = torch.zeros(like.numel(), dtype=values.dtype)
    size = min(out.numel(), values.numel())
    out[:size] = values.flatten()[:size]
    return out.view(like.shape)


PUZZLES = {
    "09.1": Puzzle(
        title="Turn a vector round",
        sizes=((10,), (3,), (1,), (8,)),
        arguments=_vector,
        grid=_tiles("n"),
        right=lambda a: a["x"].flip(0),
        outside="The last block is not full: which of its elements exist? Loading needs a mask as much as storing. The "
        "last element is n - 1, not n.",
        unwritten="Some elements are written by no program: where does the block of program 1 begin?",
        instead=(
            (lambda a: a["x"], "That is a copy: element i of out comes from the other end of x."),
            (
                lambda a: torch.cat([part.flip(0) for part in a["x"].split(BLOCK)]),
                "Every block is turned by itself. It is x as a whole that is to be turned.",
            ),
        ),
    ),
    "09.2": Puzzle(
        title="A bias for every row",
        sizes=((6, 5), (3, 2), (1, 7), (4, 8)),
        arguments=_bias,
        grid=_tiles("m", "n"),
        right=lambda a: a["a"] + a["bias"],
        outside="A tile at the edge is not full, in two directions: does the mask ask for row and column?",
        unwritten="Some elements are written by no program: does the mask let in every row and column?",
        instead=(
            (lambda a: a["a"], "That is a itself: the bias is not added."),
            (
                lambda a: a["a"] + _cut(a["bias"], torch.zeros(a["m"]))[:, None],
                "The bias goes along the wrong side: every column has one, so it is loaded at the columns, [None, :].",
            ),
        ),
    ),
    "09.3": Puzzle(
        title="Transpose a matrix",
        sizes=((5, 6), (3, 2), (1, 7), (8, 4)),
        arguments=_matrix,
        grid=_tiles("m", "n"),
        right=lambda a: a["a"].t().contiguous(),
        outside="A tile at the edge is not full, or an address goes too far: out has n rows of m elements.",
        unwritten="Some elements of out are written by no program: at which address does row j of out begin?",
        instead=(
            (lambda a: a["a"].reshape(a["n"], a["m"]), "That is a, as it was: row and column have to change places."),
        ),
    ),
    "09.4": Puzzle(
        title="The greatest of each row",
        sizes=((3, 10), (1, 3), (5, 1), (2, 8)),
        arguments=_rows,
        grid=lambda a, block: (len(a["out"]),),
        right=lambda a: a["a"].amax(1),
        outside="The last block of a row is not full, and behind its end the next row begins: mask by the column.",
        unwritten="Some rows have no result: every program writes one.",
        instead=(
            (
                lambda a: a["a"].amax(1).clamp(min=0.0),
                "A 0 takes part that is not in the row. What do masked elements count as? What does best begin with?",
            ),
            (lambda a: a["a"][:, :BLOCK].amax(1), "That is the greatest of the first block: the loop must go on."),
            (
                lambda a: a["a"][:, (a["n"] - 1) // BLOCK * BLOCK :].amax(1),
                "That is the greatest of the last block: what was found in the blocks before must not be lost.",
            ),
        ),
    ),
    "09.5": Puzzle(
        title="Count the labels",
        sizes=((13,), (3,), (1,), (16,)),
        arguments=_labels,
        grid=_tiles("n"),
        right=lambda a: torch.bincount(a["labels"], minlength=10).int(),
        outside="The last block is not full: labels that do not exist must not be counted.",
        unwritten="",  # most classes have no label in so few
        race="Two programs read the same count, add one each, and store it: one is lost. The interpreter runs programs "
        "one after another and hides it. tl.atomic_add reads, adds and stores as one.",
        instead=(
            (
                lambda a: torch.bincount(a["labels"], minlength=10).clamp(max=1).int(),
                "Each class is counted once at most: lanes of a block that have the same label overwrite each other.",
            ),
            (
                lambda a: torch.bincount(
                    torch.cat([a["labels"], torch.zeros(-a["n"] % BLOCK, dtype=torch.int64)]), minlength=10
                ).int(),
                "Masked elements are loaded as 0, and counted as zeros: adding needs the mask as well.",
            ),
        ),
    ),
    "09.6": Puzzle(
        title="The gradient of a layer's weights",
        sizes=((6, 5, 7), (9, 3, 2), (3, 1, 5), (8, 8, 4)),
        arguments=_gradient,
        grid=_tiles("n", "k"),
        right=lambda a: a["g"].t() @ a["x"],
        outside="A tile goes beyond an edge: the loop's last tile is not full along m, either.",
        unwritten="Some elements of out are written by no program: does the mask let in all n rows and k columns?",
        instead=(
            (
                lambda a: _along_m(a, slice(0, BLOCK)) * _blocks(a["m"], BLOCK),
                "Every round multiplies the first tile along m: the addresses have to move on with start.",
            ),
            (
                lambda a: a["g"].reshape(a["n"], a["m"]) @ a["x"],
                "g is read as if it were [n, m]. It is [m, n], and has to be read transposed: from one image to the "
                "next it is n elements.",
            ),
            (
                lambda a: _along_m(a, slice((a["m"] - 1) // BLOCK * BLOCK, None)),
                "That is the last tile's product alone: total must keep what it had.",
            ),
        ),
    ),
}


def _check(puzzle: Puzzle, kernel) -> str:
    if reason := triton_missing():
        raise Undecided(f"not checked. No kernel can run here: {reason}.")
    given = [puzzle.arguments(*size) for size in puzzle.sizes]
    launches = [(puzzle.grid(a, BLOCK), a | {"BLOCK": BLOCK}) for a in given]
    for size, arguments, found in zip(puzzle.sizes, given, watch_each(kernel, launches), strict=True):
        if hint := _wrong(puzzle, arguments, found):
            shape = " x ".join(map(str, size))
            raise Wrong(f"For size {shape}, with blocks of {BLOCK}: {hint}", partial(_draw, found))
    if not interpreted():
        _run_compiled(puzzle, kernel, given)
    return f"Tried on {len(given)} sizes."


def _draw(found: Watched) -> None:
    """What a kernel reads and writes."""
    from mnist_gpu.measuring.kernel_plots import touched  # here: it costs matplotlib

    inputs = [tensor for tensor in found.results if tensor != "out"]
    touched(found, [*((tensor, "read") for tensor in inputs), ("out", "written")])


for _name, _puzzle in PUZZLES.items():
    exercise(_name, WRITE, _puzzle.title)(partial(_check, _puzzle))


def _wrong(puzzle: Puzzle, arguments: dict, found: Watched) -> str | None:
    """The hint for what is wrong, or None if nothing is."""
    if found.error:
        return f"The kernel stops: {found.error}."
    right, out = puzzle.right(arguments), found.results["out"]
    if found.outside():
        return puzzle.outside
    if found.races("out"):
        return puzzle.race
    if _same(out, right):
        return None
    for instead, hint in puzzle.instead:
        wrong = instead(arguments)
        if _same(out, wrong) and not _same(wrong, right):
            return hint
    if puzzle.unwritten and found.unwritten("out"):
        return puzzle.unwritten
    at = int((out - right).abs().flatten().argmax())
    expected, got = (float(t.flatten()[at]) for t in (right, out))
    return f"Element {at} of out is {got:.4g}, but should be {expected:.4g}."


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-4)


def _run_compiled(puzzle: Puzzle, kernel, given: list[dict]) -> None:
    """Runs a kernel that is right also on the GPU, in blocks of 16, the least that tl.dot takes there."""
    for arguments in given:
        there = {name: a.to(kernel_device()) if torch.is_tensor(a) else a for name, a in arguments.items()}
        kernel[puzzle.grid(arguments, 16)](**there, BLOCK=16)
        if not _same(there["out"].cpu(), puzzle.right(arguments)):
            raise Wrong("The interpreter finds it right, but compiled for this GPU it computes something else.")
