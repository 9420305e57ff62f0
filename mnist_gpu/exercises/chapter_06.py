"""Checks of chapter 06's exercises: an account that lacks a cause, operations against bytes, a profile's own times."""

import random
from collections.abc import Callable, Sequence
from functools import partial

from mnist_gpu.exercises.verdicts import MEND, PREDICT, WRITE, Wrong, exercise
from mnist_gpu.measuring import plots

CAUSES = ("load", "copy", "launch", "compute", "update", "wait")


@exercise("06.1", WRITE, "Which cause is missing in the account?")
def missing_cause(answer: Callable) -> str:
    kinds = (lacks_one, sums_up, found_one_saves_as_much, unexplained)
    accounts = [kind() for kind in kinds for _ in range(6)]
    for whole, parts, without, right, hint in accounts:
        said = answer(whole, dict(parts), dict(without))
        if said not in (*without, "nothing", "unexplained"):
            raise Wrong(f'It gives {said!r}, which is no cause of this account, nor "nothing", nor "unexplained".')
        if said != right:
            hint = f"{said} is among the parts: it was found before." if said in parts else hint
            savings = ", ".join(f"{cause} {whole - us:.0f}" for cause, us in without.items())
            raise Wrong(
                f'It says "{said}", but should say "{right}". {hint} The parts ({", ".join(parts)}) sum to '
                f"{sum(parts.values()):.0f} of {whole:.0f} µs. Switched off, each saves: {savings} µs."
            )
    return f"Tried on {len(accounts)} accounts."


def account(shares: Sequence[float], left_out: int, last_saves: float | None = None) -> tuple:
    """Whole, parts, without and the last cause's name, for causes with these shares of the whole.

    As many as `left_out` says of the last ones are in no part. Switching a cause off saves its share; the last one
    `last_saves` instead, if given.
    """
    whole, names = random.uniform(200, 2000), random.sample(CAUSES, len(shares))
    us = {name: whole * share * random.uniform(0.99, 1.01) for name, share in zip(names, shares, strict=True)}
    parts = {name: us[name] for name in names[: len(names) - left_out]}
    without = {name: whole - us[name] for name in random.sample(names, len(names))}
    if last_saves is not None:
        without[names[-1]] = whole * (1 - last_saves)
    return whole, parts, without, names[-1]


def lacks_one():
    share = random.uniform(0.15, 0.3)
    return *account((0.4, 0.6 - share, 0.002, share), 2), "As much is missing as switching that one off saves."


def sums_up():
    share = random.uniform(0.015, 0.035)
    *found, _ = account((0.6, 0.4 - share, 0.002, share), 2)
    return *found, "nothing", "Less than 5 % of the whole is missing."


def found_one_saves_as_much():
    share = random.uniform(0.15, 0.2)
    return *account((share, 0.998 - 2 * share, 0.002, share), 1, 0.98 * share), "It was not found yet, and fits."


def unexplained():
    share = random.uniform(0.15, 0.2)
    *found, _ = account((0.5, 0.5 - share, 0.02, share), 2, random.choice((0.03, 0.4)) * share)
    return *found, "unexplained", "None of the causes that are left saves as much as is missing."


@exercise("06.2", PREDICT, "From which batch on is arithmetic the limit?")
def arithmetic_is_the_limit(answer: Callable) -> str:
    layers = [(random.randrange(20, 2000), random.randrange(20, 2000), random.randrange(2, 60)) for _ in range(20)]
    layers += [
        (784, 10, 4),
        (784, 10, 5),
        (784, 128, 20),
        (64, 64, 16),
        (64, 64, 8),
        (65, 64, 16),
        (8, 8, 1),
        (7, 1, 1),
    ]
    for inputs, outputs, ridge in layers:
        batch, right = answer(inputs, outputs, ridge), smallest_batch(inputs, outputs, ridge)
        if batch == right and not isinstance(batch, float | bool):
            continue
        given = f"{inputs} inputs, {outputs} outputs, a ridge at {ridge} operations per byte: "
        if batch is not None and (not isinstance(batch, int) or batch < 1):
            raise Wrong(f"{given}it says {batch!r}, but a batch is a whole number from 1, or None.")
        draw = partial(draw_batches, inputs, outputs, ridge, batch)
        if batch is None:
            raise Wrong(f"{given}it says that no batch has as many, but {right:,} images have.", draw)
        for hint, instead in INSTEAD.items():
            if batch == smallest_batch(inputs, outputs, ridge, **instead):
                raise Wrong(f"{given}it says {batch:,}. {hint}", draw)
        if right is None or batch < right:
            found = per_byte(batch, inputs, outputs)
            never = " No batch has as many as that." if right is None else ""
            raise Wrong(f"{given}a batch of {batch:,} has only {found:.4g}.{never}", draw)
        raise Wrong(f"{given}{batch:,} images have as many, but {batch - 1:,} have, too.", draw)
    return f"For {len(layers)} layers: with so many images arithmetic is the limit, with one fewer it is memory."


def smallest_batch(inputs, outputs, ridge, *, flop=2, size=4, x=1, weights=1, y=1) -> int | None:
    """The smallest batch whose product has `ridge` operations per byte: flop B inputs outputs operations, and bytes of
    `size` for each number read or written, so often as `x`, `weights` and `y` say."""
    gained = flop * inputs * outputs - ridge * size * (x * inputs + y * outputs)  # by an image more
    return max(1, -(-ridge * size * weights * inputs * outputs // gained)) if gained > 0 else None


INSTEAD = {  # what may be forgotten, by its hint
    "The weights are read, too, once a batch.": {"weights": 0},
    "The weights are read, too, and the result is written.": {"weights": 0, "y": 0},
    "The result, [B, outputs], is written: that is bytes, too.": {"y": 0},
    "The images, [B, inputs], are read: that is bytes, too.": {"x": 0},
    "A float32 has four bytes.": {"size": 1},
    "An addition comes with every multiplication: two operations.": {"flop": 1},
}


def per_byte(batch: int, inputs: int, outputs: int) -> float:
    return 2 * batch * inputs * outputs / (4 * (batch * inputs + inputs * outputs + batch * outputs))


def draw_batches(inputs: int, outputs: int, ridge: int, batch: int | None) -> None:
    """Operations per byte over the batch, the ridge, and the batch that was answered."""
    sizes = [2**i for i in range(max(14, (batch or 1).bit_length() + 1))]
    found = [per_byte(size, inputs, outputs) for size in sizes]
    marks = {} if batch is None else {f"batch {batch:,}": batch}
    curves = {"operations per byte": (sizes, found), "the ridge": (sizes, [ridge] * len(sizes))}
    plots.lines(curves, xlabel="images in a batch", ylabel="FLOP/byte", marks=marks)


@exercise("06.3", MEND, "A profile that counts some time twice")
def own_times(answer: Callable) -> str:
    step = ("step", 0, 100, 0)
    cases = [
        ([step, ("linear", 20, 60, 1)], "step called linear: that time is not its own."),
        ([step, ("linear", 10, 90, 1), ("addmm", 20, 80, 2)], "step called addmm through linear alone."),
        ([step, ("mm", 5, 25, 1), ("mm", 40, 90, 1)], "There are two of mm."),
        ([step, ("mm", 5, 25, 1), ("mm", 25, 90, 1)], "The second mm begins as the first one ends, and not in it."),
        ([("add", 0, 90, 0), ("add", 20, 70, 1), ("add", 30, 40, 2)], "add calls itself."),
        ([("mm", 60, 90, 1), step, ("relu", 10, 50, 1)], "The events are not in the order in which they began."),
        ([("mm", 0, 30, 1), step], "mm begins in the same moment as step, which called it."),
    ]
    cases += [(random_events(), "Many levels, and the same names in several.") for _ in range(20)]
    for events, hint in cases:
        found, right = answer([event[:3] for event in events]), self_times(events)
        if not isinstance(found, dict) or found.keys() != right.keys():
            raise Wrong(f"It gives {found!r}, but should give a dictionary with the names {', '.join(right)}.")
        wrong = next((name for name in right if abs(found[name] - right[name]) > 1e-9), None)
        if wrong:
            lasted = sum(end - start for _, start, end, depth in events if depth == 0)
            raise Wrong(
                f"{wrong} has {right[wrong]} µs of its own, but it says {found[wrong]}. {hint} The parts sum to "
                f"{sum(found.values())} µs, and should sum to {lasted}.",
                partial(draw_events, events),
            )
    return f"Tried on {len(cases)} profiles: the parts sum to the whole."


def self_times(events: Sequence[tuple[str, int, int, int]]) -> dict[str, int]:
    """The reference, from the depths, which an answer is not told."""
    found = dict.fromkeys((name for name, *_ in events), 0)
    for name, start, end, depth in events:
        inside = [e for e in events if e[3] == depth + 1 and start <= e[1] and e[2] <= end]
        found[name] += end - start - sum(e[2] - e[1] for e in inside)
    return found


def random_events() -> list[tuple[str, int, int, int]]:
    """(name, start, end, depth), nested, in microseconds, in the order in which a profiler notes them: as they end."""

    def fill(start: int, end: int, depth: int) -> list:
        found = []
        while end - start > 4 and random.random() < (0.9 if depth else 1.0) - 0.15 * depth:
            begin = start + random.choice((0, random.randrange(1, 20)))
            stop = begin + random.randrange(2, max(3, (end - start) // 2))
            if stop >= end:
                break
            found += [*fill(begin, stop, depth + 1), (random.choice(("mm", "add", "relu")), begin, stop, depth)]
            start = stop
        return found

    return fill(0, 400, 0) or random_events()


def draw_events(events: Sequence[tuple[str, int, int, int]]) -> None:
    rows = [("the thread", name, 1e-6 * start, 1e-6 * end, depth) for name, start, end, depth in events]
    plots.timeline(rows, named=min(12, len(rows)))
