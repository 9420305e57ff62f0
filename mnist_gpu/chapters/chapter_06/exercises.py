"""Chapter 06's exercises: an account that lacks a cause, operations against bytes, a profile's own times."""

import random
from collections.abc import Iterator, Sequence
from functools import partial

from mnist_gpu.measuring.drawing import OWN, PREDICTED, Series, lines, timeline
from mnist_gpu.measuring.exercises import MEND, PREDICT, WRITE, Exercise, checker, compared

CAUSES = ("load", "copy", "launch", "compute", "update", "wait")


def missing(whole: float, parts: dict[str, float], without: dict[str, float]) -> str:
    gap = whole - sum(parts.values())
    fits = (c for c, us in without.items() if c not in parts and abs(whole - us - gap) <= 0.05 * whole)
    return "nothing" if abs(gap) <= 0.05 * whole else next(fits, "unexplained")


def accounts() -> Iterator[tuple]:
    """Of four kinds: a cause is missing, next to nothing is, one that was found saves as much, none saves as much."""
    for much, little in [(random.uniform(0.15, 0.2), random.uniform(0.015, 0.035)) for _ in range(6)]:
        for *shares, found, saves in (
            (0.4, 0.6 - much, 0.002, much, 2, much),
            (0.6, 0.4 - little, 0.002, little, 2, little),
            (much, 0.998 - 2 * much, 0.002, much, 3, 0.98 * much),
            (0.5, 0.5 - much, 0.02, much, 2, random.choice((0.03, 0.4)) * much),
        ):
            whole, names = random.uniform(200, 2000), random.sample(CAUSES, 4)
            us = {name: whole * share * random.uniform(0.99, 1.01) for name, share in zip(names, shares, strict=True)}
            without = {name: whole - us[name] for name in random.sample(names, 4)}
            yield whole, {name: us[name] for name in names[:found]}, without | {names[-1]: whole * (1 - saves)}


def about_account(whole: float, parts: dict[str, float], without: dict[str, float], answer: object) -> str:
    if answer in parts:
        return f"{answer} is among the parts: it was found before."
    saves = ", ".join(f"{cause} {whole - us:.0f}" for cause, us in without.items() if cause not in parts)
    gap = whole - sum(parts.values())
    return f"{gap:.0f} µs are missing, {gap / whole:.1%} of the whole. Of the causes left, each saves: {saves} µs."


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


def draw_batches(inputs: int, outputs: int, ridge: int, batch: object) -> None:
    """Operations per byte over the batch, the ridge, and the batch that was answered."""
    sizes = [2**i for i in range(15)]
    product = Series("the product", OWN, sizes, [per_byte(size, inputs, outputs) for size in sizes])
    both = [product, Series("the ridge", PREDICTED, sizes, [ridge] * len(sizes))]
    marks = {f"batch {batch:,}": batch} if isinstance(batch, int) and batch > 0 else {}
    lines(both, xlabel="images in a batch", ylabel="FLOP/byte", marks=marks).show()


def self_times(events: Sequence[tuple[str, int, int, int]], *, below: int = 1) -> dict[str, int]:
    """Each name's time without the events up to so many levels below, which an answer has to find by itself."""
    times = dict.fromkeys((name for name, *_ in events), 0)
    for name, start, end, depth in events:
        inside = [e for e in events if 0 < e[3] - depth <= below and start <= e[1] and e[2] <= end]
        times[name] += end - start - sum(e[2] - e[1] for e in inside)
    return times


def profiles() -> Iterator[tuple]:
    """Events (name, start, end, depth) in microseconds, in the order in which a profiler notes them, or in another."""
    step = ("step", 0, 100, 0)
    yield ([step, ("linear", 20, 60, 1)],)
    yield ([step, ("linear", 10, 90, 1), ("addmm", 20, 80, 2)],)
    yield ([step, ("mm", 5, 25, 1), ("mm", 25, 90, 1)],)  # the second begins as the first one ends, and not in it
    yield ([("add", 0, 90, 0), ("add", 20, 70, 1), ("add", 30, 40, 2)],)
    yield ([("mm", 60, 90, 1), step, ("relu", 10, 50, 1)],)
    yield ([("mm", 0, 30, 1), step],)  # in the same moment as step, which called it
    for _ in range(20):
        yield ([*called(0, 400, 1), ("step", 0, 400, 0)],)


def called(start: int, end: int, depth: int) -> list[tuple[str, int, int, int]]:
    """Random events one after another, each with those that it called before it."""
    events = []
    while end - start > 4 and random.random() < 1 - 0.15 * depth:
        begin, stop = sorted(random.sample(range(start, end), 2))
        events += [*called(begin, stop, depth + 1), (random.choice(("mm", "add", "relu")), begin, stop, depth)]
        start = stop
    return events


def draw_profile(events: Sequence[tuple], times: object) -> None:
    rows = [("the thread", name, 1e-6 * start, 1e-6 * end, depth) for name, start, end, depth in events]
    timeline(rows, named=min(12, len(rows))).show()


EXERCISES = (
    Exercise("06.1", WRITE, "Which cause is missing in the account?", compared(
        missing, accounts, why=about_account,
        given=lambda whole, parts, without: f"{whole:.0f} µs, of which {', '.join(parts)} were found",
    )),
    Exercise("06.2", PREDICT, "From which batch on is arithmetic the limit?", compared(
        smallest_batch, layers, why=about_batch, draw=draw_batches,
        given=lambda *layer: "{} inputs, {} outputs, a ridge at {} operations per byte".format(*layer),
        hints=(
            (partial(smallest_batch, weights=0), "The weights are read, too, once a batch."),
            (partial(smallest_batch, written=0), "The result, [B, outputs], is written: that is bytes, too."),
            (partial(smallest_batch, size=1), "A float32 has four bytes."),
        ),
    )),
    Exercise("06.3", MEND, "A profile that counts some time twice", compared(
        self_times, profiles, draw=draw_profile,
        run=lambda answer, events: answer([event[:3] for event in events]),
        given=lambda events: ", ".join("{} from {} to {}".format(*event) for event in events[:4]),
        hints=(
            (partial(self_times, below=0), "What an event called is in its time: that is not its own."),
            (partial(self_times, below=99), "Take an event's time from the one that called it, and from none above."),
        ),
    )),
)  # fmt: skip
check = checker(EXERCISES)
