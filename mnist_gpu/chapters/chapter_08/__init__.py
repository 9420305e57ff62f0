"""Chapter 08's room: tables of published cards, and kernels timed on the reader's own GPU."""

import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial

import torch

from mnist_gpu.chapters.chapter_08.exercises import EXERCISES, WARP, check  # noqa: F401
from mnist_gpu.faster.ladder import rungs
from mnist_gpu.measuring.drawing import OWN, PUBLISHED, Series, columns, number  # noqa: F401
from mnist_gpu.measuring.prediction import SHEET, Card, named, sources  # noqa: F401
from mnist_gpu.measuring.timing import interval, measure
from mnist_gpu.webgpu.gpu import Call, Gpu


def inside(cards: Sequence[Card]) -> str:
    """What is inside cards, and the check that every reader can do: lanes x 2 x clock is the sheet's peak."""
    rows = {
        "streaming multiprocessors": [f"{c.get('multiprocessors'):.0f}" for c in cards],
        "lanes of each": [f"{c.get('lanes') / c.get('multiprocessors'):.0f}" for c in cards],
        "warps resident in each": [f"{c.get('warps'):.0f}" for c in cards],
        "registers of each, KiB": [f"{c.get('registers') / 1024:.0f}" for c in cards],
        "shared memory of each, KiB": [f"{c.get('shared memory') / 1024:.0f}" for c in cards],
        "L2 cache, MiB": [f"{c.get('L2') / 2**20:.0f}" for c in cards],
        "threads resident in all": [f"{c.get('warps') * WARP * c.get('multiprocessors'):,.0f}" for c in cards],
        "clock, GHz": [f"{c.get('clock') / 1e9:.2f}" for c in cards],
        "lanes x 2 x clock, TFLOP/s": [f"{c.get('lanes') * 2 * c.get('clock') / 1e12:.1f}" for c in cards],
        "data sheet, TFLOP/s": [f"{c.get('float32', SHEET) / 1e12:.1f}" for c in cards],
    }
    return columns([PUBLISHED, *(c.name for c in cards)], [(name, *texts) for name, texts in rows.items()])


def timed(gpu: Gpu, kernel: str, *given, least: float = 0.01, rounds: int = 10) -> list[float]:
    """Seconds of a kernel `given` what a `Call` takes, several times: from when it is asked for until it is done."""

    def of(count: int) -> float:
        gpu.submit([Call(gpu.kernel(kernel), *given)] * count)  # at once: what comes before their start is not timed
        start = time.perf_counter()
        gpu.wait()
        return time.perf_counter() - start

    count = 1
    while of(count) < least and count < 4096:
        count *= 2
    return [of(count) / count for _ in range(rounds)]


def relative(name: object, sweep: Mapping[int, Sequence[float]]) -> Series:
    """For `lines`: how many times as long as the first of a sweep, whose seconds are given by what was varied."""
    first = statistics.median(next(iter(sweep.values())))
    ends = [[end / first for end in interval(seconds)] for seconds in sweep.values()]
    middles = [statistics.median(seconds) / first for seconds in sweep.values()]
    return Series(str(name), OWN, list(sweep), middles, *map(list, zip(*ends, strict=True)))


def fused(device: torch.device, ks: Sequence[int], count: int = 2**24) -> dict[int, list[float]]:
    """Seconds of k multiply-adds on `count` numbers as one kernel, by k; {} where torch.compile has no compiler."""

    @torch.compile
    def multiply_adds(x: torch.Tensor, k: int) -> None:
        for _ in range(k):
            x.mul_(0.5).add_(1.0)

    if rungs(["compiled step"])[0].missing(device):
        return {}
    x = torch.rand(count, device=device)
    return {k: measure(partial(multiply_adds, x, k), min_seconds=0.02).times for k in ks}
