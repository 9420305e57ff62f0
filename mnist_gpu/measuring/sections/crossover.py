"""A training step over batch sizes and widths, on every device and with every number of threads."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator

import torch

from mnist_gpu.device import using_threads
from mnist_gpu.measuring.results import Timed
from mnist_gpu.measuring.sections.section import QUICK_ROUNDS, ROUNDS, Section
from mnist_gpu.measuring.timing import Comparison, alternate, compare
from mnist_gpu.measuring.workloads import repeat, seconds_of, thread_counts, training_step
from mnist_gpu.model import step_bytes, step_flops


def sides_of(device: torch.device) -> list[tuple[torch.device, int]]:
    """Every (device, threads) to compare: the CPU with one and with all usable threads, and `device` if it is a GPU."""
    cpu = torch.device("cpu")
    return [(on, threads) for on in dict.fromkeys([cpu, device]) for threads in thread_counts(on)]


def measure_crossover(
    device: torch.device,
    *,
    batch_sizes=(32, 128, 512, 2048),
    widths=(32, 128, 512, 2048),
    rounds=10,
    call_seconds=0.02,
    progress: Callable = iter,
) -> Iterator[Timed]:
    """Time of a training step over batch size x hidden width, data already on the device, all sides timed in turn.

    A timed call repeats the step until it takes about `call_seconds`; the times yielded are of one step.
    """
    for batch_size, hidden in progress(list(itertools.product(batch_sizes, widths))):
        calls, counts = {}, {}
        for on, threads in sides_of(device):
            with using_threads(threads):
                step = training_step(on, batch_size, hidden)
                counts[on.type, threads] = count = max(1, math.ceil(call_seconds / seconds_of(step, on)))
            calls[on.type, threads] = lambda step=step, threads=threads, count=count: repeat(step, count, threads)
        times = alternate(calls, rounds=rounds, device=device, progress=iter)
        parameters = {"batch_size": batch_size, "hidden": hidden}
        work = {
            "flop": sum(step_flops(batch_size, hidden)),
            "bytes": step_bytes(batch_size, hidden),
            "images": batch_size,
        }
        for (on, threads), seconds in times.items():
            count = counts[on, threads]
            yield Timed("crossover", "step", on, threads, [s / count for s in seconds], parameters, work)


def crossover_table(measured: Iterable[Timed], side: tuple[str, int]) -> list[list[Timed]]:
    """The steps of one side (type of the device, threads): a row for every batch size, a column for every width."""
    rows = {}
    for m in measured:
        if (m.device, m.threads) == side:
            rows.setdefault(m.parameters["batch_size"], {})[m.parameters["hidden"]] = m
    return [[row[width] for width in sorted(row)] for _, row in sorted(rows.items())]


def crossover_map(first: list[list[Timed]], second: list[list[Timed]]) -> list[list[Comparison]]:
    """Two sides' tables compared cell by cell, with intervals that hold together."""
    cells = sum(len(row) for row in first)
    return [
        [compare({"a": x.seconds, "b": y.seconds}, "a", "b", of=cells) for x, y in zip(*rows, strict=True)]
        for rows in zip(first, second, strict=True)
    ]


# All devices in one run, in turn: so it is run once, for the device that is asked for.
SECTION = Section(measure_crossover, full=ROUNDS, quick=QUICK_ROUNDS, once=True)
