"""Chapter 06's exercises: an account that lacks a cause, and operations against bytes."""

import random
from collections.abc import Iterator
from functools import partial

from mnist_gpu.measuring.exercises import PREDICT, WRITE, Exercise, checker, compared

CAUSES = ("load", "copy", "launch", "compute", "update", "wait")


def missing(whole: float, parts: dict[str, float], without: dict[str, float]) -> str:
    gap = whole - sum(parts.values())
    fits = (c for c, us in without.items() if c not in parts and abs(whole - us - gap) <= 0.05 * whole)
    return "nothing" if abs(gap) <= 0.05 * whole else next(fits, "unexplained")


def accounts() -> Iterator[tuple]:
    """Gaps just below and above the 5 %, and causes that save what is missing, or more or less by just below or above.

    A cause that was found saves as much as is missing in most of them.
    """
    for much in [random.uniform(0.15, 0.2) for _ in range(4)]:
        for gap, off in ((0.045, 0), (0.055, 0), *((much, off) for off in (0.045, -0.045, 0.055, -0.055, 0.5))):
            whole, names = random.uniform(200, 2000), random.sample(CAUSES, 4)
            saves = dict(zip(names, (much, 1 - gap - much, 0.002, gap + off), strict=True))
            parts = {name: whole * saves[name] for name in names[:2]}
            yield whole, parts, {name: whole * (1 - saves[name]) for name in random.sample(names, 4)}


def about_account(whole: float, parts: dict[str, float], without: dict[str, float], answer: object) -> str:
    if answer in parts:
        return f"{answer} is among the parts: it was found before."
    saves = ", ".join(f"{cause} {whole - us:.0f}" for cause, us in without.items() if cause not in parts)
    gap = whole - sum(parts.values())
    return f"{gap:.0f} μs are missing, {gap / whole:.1%} of the whole. Of the causes left, each saves: {saves} μs."


def smallest_batch(inputs: int, outputs: int, ridge: int, *, size=4, weights=1, written=1) -> int | None:
    """The smallest batch whose product has `ridge` operations per byte, with numbers of `size` bytes."""
    gained = 2 * inputs * outputs - ridge * size * (inputs + written * outputs)  # by an image more
    return max(1, -(-ridge * size * weights * inputs * outputs // gained)) if gained > 0 else None


def layers() -> list[tuple[int, int, int]]:
    some = [(random.randrange(20, 2000), random.randrange(20, 2000), random.randrange(2, 60)) for _ in range(20)]
    edges = [(784, 10, 4), (784, 10, 5), (784, 128, 20), (64, 64, 16), (64, 64, 8), (65, 64, 16), (8, 8, 1), (7, 1, 1)]
    return some + edges


def per_byte(batch: int, inputs: int, outputs: int) -> float:
    return 2 * batch * inputs * outputs / (4 * (batch * inputs + inputs * outputs + batch * outputs))


def about_batch(inputs: int, outputs: int, ridge: int, batch: object) -> str:
    if not isinstance(batch, int) or batch < 1:
        return "A batch is a whole number from 1." * (batch is not None)
    these, fewer = (per_byte(n, inputs, outputs) for n in (batch, batch - 1))
    return f"{batch:,} images have {these:.4g} operations per byte; with one fewer it is {fewer:.4g}."


EXERCISES = (
    Exercise("06.1", WRITE, "Which cause is missing in the account?", compared(
        missing, accounts, why=about_account,
        given=lambda whole, parts, without: f"{whole:.0f} μs, of which {', '.join(parts)} were found",
    )),
    Exercise("06.2", PREDICT, "From which batch on is arithmetic the limit?", compared(
        smallest_batch, layers, why=about_batch,
        given=lambda *layer: "{} inputs, {} outputs, a ridge at {} operations per byte".format(*layer),
        hints=(
            (partial(smallest_batch, weights=0), "The weights are read, too, once a batch."),
            (partial(smallest_batch, written=0), "The result, [B, outputs], is written: that is bytes, too."),
            (partial(smallest_batch, size=1), "A float32 has four bytes."),
        ),
    )),
)  # fmt: skip
check = checker(EXERCISES)
