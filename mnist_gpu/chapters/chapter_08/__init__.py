"""Chapter 08, Inside the GPU: what it is made of, what it waits for, and what fills its memory."""

# ruff: noqa: F401, I001 - what the notebook uses
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence

import torch

from mnist_gpu.chapters.chapter_08.exercises import EXERCISES, WARP, check
from mnist_gpu.chapters.chapter_08.memory import LiveBytes, accumulate, cost_of_gradient, costs
from mnist_gpu.faster.graphs import record
from mnist_gpu.measuring.drawing import OWN, PREDICTED, PUBLISHED, Series, columns, lines
from mnist_gpu.measuring.prediction import REGIMES, SHEET, Card, Limits, binding, measured_limits, named, sources
from mnist_gpu.measuring.prediction import predict_graph, predicted_card, step_operations
from mnist_gpu.measuring.timing import alternate, compare_all, interval, measure
from mnist_gpu.measuring.workloads import two_ceilings


def inside(cards: Sequence[Card]) -> str:
    """What is inside cards, and the check that every reader can do: lanes x 2 x clock is the sheet's peak."""
    rows = {
        "multiprocessors": [f"{c.get('multiprocessors'):.0f}" for c in cards],
        "lanes of each": [f"{c.get('lanes') / c.get('multiprocessors'):.0f}" for c in cards],
        "warps resident in each": [f"{c.get('warps'):.0f}" for c in cards],
        "threads resident in all": [f"{c.get('warps') * WARP * c.get('multiprocessors'):,.0f}" for c in cards],
        "clock, GHz": [f"{c.get('clock') / 1e9:.2f}" for c in cards],
        "lanes x 2 x clock, TFLOP/s": [f"{c.get('lanes') * 2 * c.get('clock') / 1e12:.1f}" for c in cards],
        "data sheet, TFLOP/s": [f"{c.get('float32', SHEET) / 1e12:.1f}" for c in cards],
    }
    return columns([PUBLISHED, *(c.name for c in cards)], [(name, *texts) for name, texts in rows.items()])


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
            each = (f"{count:.0f} x " if count else "") + f"{size / 1024:,.0f} KiB" if size else "-"
            shown = [f"{value:,.0f}" if value else "-" for value in (cycles, rate and rate / 1e9)]
            rows.append((f"{PUBLISHED}: {c.name}, {level}", each, *shown))
    table = columns(["memory", "size", "cycles", "GB/s"], rows)
    return f"{table}\ncycles: from asking to having, rounded. '-': not published here."


def timed(function: Callable, *arguments) -> list[float]:
    """Seconds of a call, several times; on an NVIDIA GPU without its launch, in a CUDA graph of 20."""
    call, calls = functools.partial(function, *arguments), 1
    if any(getattr(argument, "is_cuda", False) for argument in arguments):
        call, calls = record(call, calls=20), 20
    return [s / calls for s in measure(call, min_seconds=0.05).times]


def curve(
    name: str, sweep: Mapping[int, Sequence[float]], *, work: Callable[[int], float] | None = None, per: float = 1.0
) -> Series:
    """For `drawing.lines`, over the number that was varied: seconds of a call, or rates of the `work` that it does."""
    rows = []
    for x, seconds in sweep.items():
        values = statistics.median(seconds), *interval(seconds)
        rows.append([work(x) / values[i] / per for i in (0, 2, 1)] if work else [value / per for value in values])
    return Series(name, OWN, list(sweep), *map(list, zip(*rows, strict=True)))
