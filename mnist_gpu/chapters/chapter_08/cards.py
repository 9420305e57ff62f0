"""What is inside published cards: their lanes, their memories, and what these ask of a program."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

from mnist_gpu.chapters.chapter_08.lanes import vector_lanes
from mnist_gpu.chapters.chapter_08.sweeps import binary
from mnist_gpu.device import usable_cpus
from mnist_gpu.measuring.drawing import PUBLISHED, Drawn, columns
from mnist_gpu.measuring.operations import Operation
from mnist_gpu.measuring.prediction import SHEET, WARP, Card


def inside(cards: Sequence[Card]) -> str:
    """What is inside cards, and the check that every reader can do: lanes x 2 x clock is the sheet's peak."""
    rows = [
        ("multiprocessors", lambda c: f"{c.get('multiprocessors'):.0f}"),
        ("lanes of each", lambda c: f"{c.get('lanes') / c.get('multiprocessors'):.0f}"),
        ("warps resident in each", lambda c: f"{c.get('warps'):.0f}"),
        ("blocks resident in each", lambda c: f"{c.get('blocks'):.0f}"),
        ("threads resident in all", lambda c: f"{c.get('warps') * WARP * c.get('multiprocessors'):,.0f}"),
        ("clock, GHz", lambda c: f"{c.get('clock') / 1e9:.2f}"),
        ("lanes x 2 x clock, TFLOP/s", lambda c: f"{c.peak / 1e12:.1f}"),
        ("data sheet, TFLOP/s", lambda c: f"{c.sheet_peak / 1e12:.1f}"),
    ]
    table = columns([PUBLISHED, *(c.name for c in cards)], [(name, *map(text, cards)) for name, text in rows])
    off = max(abs(c.peak / c.sheet_peak - 1) for c in cards)
    return f"{table}\nLanes x 2 x clock is the data sheet's float32 peak to within {off:.1%}."


def _dots(count: int, lanes: int) -> torch.Tensor:
    """A picture of `count` multiprocessors or cores, a dot for each lane."""
    wide = 16 if lanes > 64 else 8 if lanes > 16 else 4
    across = max(1, round((1.5 * count * lanes / wide**2) ** 0.5))
    one = F.pad(torch.ones(lanes // wide, wide), (0, 2, 0, 2))
    there = torch.arange(-(-count // across) * across).view(-1, across) < count
    return torch.kron(there.float(), one)


def lanes_to_scale(cards: Sequence[Card]) -> Drawn:
    """This machine's CPU and cards side by side, drawn to scale: a dot for each lane."""
    here = usable_cpus() * vector_lanes()
    rows = [(f"this CPU\n{torch.backends.cpu.get_cpu_capability()}", usable_cpus(), vector_lanes())]
    rows += [(f"{PUBLISHED}:\n{c.name}", n := int(c.get("multiprocessors")), int(c.get("lanes")) // n) for c in cards]
    axis, left, tallest = plt.subplots(figsize=(9, 3.4))[1], 0, 0
    for name, count, lanes in rows:
        high, wide = (picture := _dots(count, lanes)).shape
        look = {"cmap": "Blues", "vmin": 0, "vmax": 1.2, "interpolation": "nearest"}
        axis.imshow(picture.numpy(), extent=(left, left + wide, high, 0), **look)
        axis.text(left, -4, f"{name}\n{count} x {lanes}", fontsize=9)
        left, tallest = left + max(wide, 50) + 10, max(tallest, high)
    axis.set(xlim=(0, left), ylim=(tallest, 0))
    axis.axis("off")
    every = [(c.name, c.get("lanes")) for c in cards]
    times = [f"{PUBLISHED}: {name}: {n:,.0f} lanes, {n / here:,.0f} times this CPU's {here}." for name, n in every]
    return Drawn(axis, "\n".join(times))


def memories(cards: Sequence[Card]) -> str:
    """The memories of cards: size, cycles from asking to having, and rate of all multiprocessors together."""
    levels = {  # what is published of each: its size, how many there are, cycles, rate
        "registers": ("registers", "multiprocessors", None, None),
        "shared memory": ("shared memory", "multiprocessors", "shared memory cycles", "shared memory rate"),
        "L2": ("L2", None, "L2 cycles", "L2 rate"),
        "the card's memory": (None, None, "memory cycles", "memory"),
        "the bus": (None, None, None, "pinned transfer"),
    }
    rows = []
    for c in cards:
        for level, quantities in levels.items():
            size, count, cycles, rate = (q and c.get(q) for q in quantities)
            each = (f"{count:.0f} x " if count else "") + binary(size) if size else "-"
            shown = [f"{value:,.0f}" if value else "-" for value in (cycles, rate and rate / 1e9)]
            rows.append((f"{PUBLISHED}: {c.name}, {level}", each, *shown))
    table = columns(["memory", "size", "cycles", "GB/s"], rows)
    return f"{table}\ncycles: from asking to having, rounded. '-': not published here."


def in_flight(cards: Sequence[Card], operations: Sequence[Operation]) -> str:
    """Little's law for cards, beside the bytes that the operations of a training step move."""
    rows = []
    for c in (c for c in cards if c.latency):
        needed = c.bandwidth * c.latency
        enough = sum(o.bytes >= needed for o in operations)
        rows.append((c.name, f"{1e9 * c.latency:.0f}", f"{c.bandwidth / 1e9:,.0f}", f"{needed / 1e3:,.0f}",
                     f"{needed / c.get('multiprocessors') / 1e3:.1f}", f"{enough} of {len(operations)}"))  # fmt: skip
    head = [PUBLISHED, "latency, ns", "GB/s", "in flight, KB", "of a multiprocessor", "operations that move as much"]
    return columns(head, rows)


def ridges(cards: Sequence[Card]) -> str:
    """From which size of a product on operations bind instead of bytes, by card and precision."""
    rows = []
    for c in cards:
        for precision, size in (("float32", 4), ("TF32", 4), ("bfloat16", 2), ("float16", 2)):
            if rate := c.get(precision, SHEET):
                ridge = rate / c.bandwidth  # and n, from 2 n^3 / (3 n^2 size) = ridge
                row = f"{rate / 1e12:,.1f}", f"{ridge:,.0f}", f"{1.5 * size * ridge:,.0f}"
                rows.append((f"{PUBLISHED}: {c.name}", precision, *row))
    return columns(["card", "precision", "TFLOP/s", "ridge, FLOP/byte", "n, at least"], rows)
