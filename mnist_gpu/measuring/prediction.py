"""The time of a training step, predicted from three numbers of a device and two of the work."""

from collections.abc import Iterable
from typing import NamedTuple

import torch

from mnist_gpu.device import using_threads
from mnist_gpu.measuring.results import Results, Timed
from mnist_gpu.measuring.timing import Comparison, measure
from mnist_gpu.measuring.workloads import training_step, two_ceilings
from mnist_gpu.model import step_bytes, step_flops


class ThreeNumbers(NamedTuple):
    """What chapter 05's model knows of a device."""

    launch: float  # seconds that starting a step's operations takes
    rate: float  # FLOP/s
    bandwidth: float  # bytes/s


def three_numbers(device: torch.device, threads: int) -> ThreeNumbers:
    """Measured, each by itself: the step of the smallest network there is, a large product, a large copy."""
    with using_threads(threads):
        launch = measure(training_step(device, batch_size=1, hidden=1)).median
        return ThreeNumbers(launch, *two_ceilings(device))


def recorded_numbers(results: Results, device: str, threads: int) -> ThreeNumbers | None:
    """The same three of a recorded machine, or None where one of them is not recorded.

    Its launching time is that of one thread, as no other is recorded.
    """
    launch = results.select("account", "smallest network", device=device)
    products = results.select("ceilings", "matrix product", device=device, threads=threads)
    copies = results.select("ceilings", "copy", device=device, threads=threads)
    if not (launch and products and copies):
        return None
    largest = max(copies, key=lambda m: m.parameters["mebibytes"])
    return ThreeNumbers(launch[0].median, max(m.rate("flop") for m in products), largest.rate("bytes"))


def predict(numbers: ThreeNumbers, batch_size: int, hidden: int) -> float:
    """Seconds of a training step: launching, operations and bytes, one after the other."""
    operations, moved = sum(step_flops(batch_size, hidden)), step_bytes(batch_size, hidden)
    return numbers.launch + operations / numbers.rate + moved / numbers.bandwidth


def off_by(numbers: ThreeNumbers, measured: Iterable[Timed]) -> list[float]:
    """By which factor, 1 or more, each measured step (of section `crossover`) is longer or shorter than predicted."""
    ratios = [predict(numbers, m.parameters["batch_size"], m.parameters["hidden"]) / m.median for m in measured]
    return [max(ratio, 1 / ratio) for ratio in ratios]


def right_sides(predicted: list[list[float]], measured: list[list[Comparison]]) -> tuple[int, int]:
    """Of the cells of a map in which a side wins: in how many the predicted ratio names it, and how many there are."""
    pairs = [(p, c) for ps, cs in zip(predicted, measured, strict=True) for p, c in zip(ps, cs, strict=True)]
    decided = [(p > 1) == (c.ratio > 1) for p, c in pairs if c.differs]
    return sum(decided), len(decided)
