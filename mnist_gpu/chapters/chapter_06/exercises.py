"""Chapter 06's exercises: an account that lacks a cause, operations against bytes, and what to remove first."""

import random
from collections.abc import Iterator
from functools import partial

from mnist_gpu.measuring.drawing import CAUSES
from mnist_gpu.measuring.exercises import PREDICT, WRITE, Exercise, checker, compared, in_time


def missing(whole: float, parts: dict[str, float], without: dict[str, float], noise: float) -> str:
    gap = whole - sum(parts.values())
    if gap <= noise:
        return "nothing" if gap >= -noise else "too much"
    fits = [c for c, us in without.items() if c not in parts and abs(whole - us - gap) <= noise]
    return fits[0] if len(fits) == 1 else "unexplained"


def accounts() -> Iterator[tuple]:
    """What is missing, and how far two causes are from it, in units of the noise. Mostly a part would fit as well."""
    gaps = ((gap, 0, 4) for gap in (0.9, 1.1, -0.9, -1.1, -7))
    near = ((7, *off) for off in ((0.9, -3), (-0.9, 4), (1.1, 3), (-1.1, 4), (25, -3), (0.4, -0.6)))
    for gap, *off in [*gaps, *near] * 3:
        whole, names, found = random.uniform(200, 2000), random.sample([*CAUSES][:6], 4), abs(gap) + 0.3
        noise = whole * random.uniform(0.01, 0.02)
        saves = [n * noise for n in (found, whole / noise - found - gap, gap + off[0], gap + off[1])]
        without = {name: whole - us for name, us in random.sample([*zip(names, saves, strict=True)], 4)}
        yield whole, dict(zip(names[:2], saves, strict=False)), without, noise


def about_account(whole: float, parts: dict[str, float], without: dict[str, float], noise: float, answer: object):
    saves = ", ".join(f"{cause} {whole - us:.1f}" for cause, us in without.items() if cause not in parts)
    before = f"{answer} was found before. " * (answer in [*parts])
    return f"{before}{whole - sum(parts.values()):.1f} μs are missing. Of the causes left, each saves: {saves} μs."


def smallest_batch(inputs: int, outputs: int, ridge: int) -> int | None:
    gained = 2 * inputs * outputs - ridge * 4 * (inputs + outputs)  # by an image more
    return -(-ridge * 4 * inputs * outputs // gained) if gained > 0 else None


def layers() -> list[tuple[int, int, int]]:
    """Those without an answer first, which a search never finds; and no answer that it takes long to find."""
    edges = [(784, 10, 4), (784, 10, 5), (784, 128, 20), (64, 64, 16), (64, 64, 8), (65, 64, 16), (8, 8, 1), (7, 1, 1)]
    every = edges + [tuple(map(random.randrange, (20, 20, 2), (2000, 2000, 60))) for _ in range(22)]
    found = {layer: smallest_batch(*layer) for layer in every}
    return sorted((f for f in found if (found[f] or 0) < 5000), key=lambda layer: found[layer] is not None)


def about_batch(inputs: int, outputs: int, ridge: int, batch: object) -> str:
    if not isinstance(batch, int) or batch < 1:
        return "A batch is a whole number from 1." * (batch is not None)
    operations, moved = 2 * batch * inputs * outputs, 4 * (batch * inputs + inputs * outputs + batch * outputs)
    return f"{batch:,}: {operations:,} operations, {moved:,} bytes: {operations / moved:.4g}. Is it the smallest?"


def first_to_remove(host: dict[str, float], gpu: dict[str, float], waits=True) -> tuple[str, float]:
    shorter, longer = sorted((host, gpu), key=lambda side: sum(side.values()))
    cause, whole = max(longer, key=longer.get), sum(longer.values())
    return cause, whole / max(whole - longer[cause], waits * sum(shorter.values()))


def programs() -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """The host has more and smaller causes; the GPU takes less, or more, by little or much; or there is none."""
    for times in (0.4, 0.9, 1.2, 3.0, 0.0) * 5:
        host, gpu = ({c: random.uniform(20, 90) for c in random.sample([*CAUSES][:6], n)} for n in (4, 2))
        scale = times * sum(host.values()) / sum(gpu.values())
        yield host, {f"{name} on the GPU": us * scale for name, us in gpu.items() if times}


EXERCISES = (
    Exercise("06.1", WRITE, "Which cause is missing in the account?", compared(
        missing, accounts, why=about_account, run=in_time,
        given=lambda whole, parts, _, noise: f"{whole:.1f} μs, {', '.join(parts)} found, noise {noise:.1f}",
    )),
    Exercise("06.2", PREDICT, "From which batch on is arithmetic the limit?", compared(
        smallest_batch, layers, why=about_batch, run=in_time,
        given=lambda *layer: "{} inputs, {} outputs, a ridge at {} operations per byte".format(*layer),
    )),
    Exercise("06.3", WRITE, "Which cause to remove first?", compared(
        first_to_remove, programs, run=in_time,
        why=lambda *_: "Of the side that takes longer, the largest cause; the time now, over the time without it.",
        given=lambda *sides: "; ".join(", ".join(f"{name} {us:.1f}" for name, us in side.items()) for side in sides),
        hints=(
            (lambda host, gpu: first_to_remove(host | gpu, {}), "Both work at the same time: a step is not their sum."),
            (partial(first_to_remove, waits=False), "A step still waits for the other side."),
        ),
    )),
)  # fmt: skip
check = checker(EXERCISES)
