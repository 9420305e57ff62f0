"""One operation, and its time over the one number that is varied: size, stride, operations per byte.

A sweep is a dictionary from that number to the seconds of a call, several times, with the threads that are set.
"""

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence

import torch

from mnist_gpu.faster.graphs import record
from mnist_gpu.faster.ladder import rungs
from mnist_gpu.measuring.drawing import OWN, Series
from mnist_gpu.measuring.timing import interval, measure

Sweep = Mapping[int, Sequence[float]]
SIZES = (*(4**i for i in range(4, 13)), 2**25)  # 1 KiB to 128 MiB, more than most caches hold
KS = (1, 2, 4, 8, 16, 32, 64, 256, 1024)


def timed(function: Callable, *arguments, calls: int = 1) -> list[float]:
    """Seconds of a call of `function`, which does so many things at once, for each of them."""
    return [s / calls for s in measure(functools.partial(function, *arguments), min_seconds=0.05).times]


def curve(name: str, sweep: Sweep, *, work: Callable[[int], float] | None = None, per: float = 1.0) -> Series:
    """A sweep for `drawing.lines`, in units of `per`: seconds, or rates of the `work` that a call does."""
    rows = []
    for x, seconds in sweep.items():
        values = statistics.median(seconds), *interval(seconds)
        rows.append([work(x) / values[i] / per for i in (0, 2, 1)] if work else [value / per for value in values])
    return Series(name, OWN, list(sweep), *map(list, zip(*rows, strict=True)))


def multiply_adds(k: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """x * 0.999 + 0.001, k times one after the other, in place: memory for a new result would cost more than that."""

    def chain(x: torch.Tensor) -> torch.Tensor:
        for _ in range(k):
            x.mul_(0.999).add_(0.001)
        return x

    return chain


def fused(k: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """`multiply_adds` compiled into one kernel, which reads and writes each number once; one code for all sizes."""
    chain = multiply_adds(k)
    # A code of its own, or the ninth k would be one recompilation of the same code too many.
    chain.__code__ = chain.__code__.replace()
    return torch.compile(chain, dynamic=True)


def by_size(device: torch.device, sizes: Sequence[int] = SIZES) -> Sweep:
    """One multiplication over the count of its numbers; on an NVIDIA GPU inside a CUDA graph, since launching it would
    hide what the card does."""
    found = {}
    for n in sizes:
        x, calls = torch.rand(n, device=device), 1
        call = functools.partial(torch.mul, x, 2.0, out=torch.empty_like(x))
        if device.type == "cuda":
            call, calls = record(call, calls=20), 20
        found[n] = timed(call, calls=calls)
    return found


def intensities(device: torch.device, elements: int, ks: Sequence[int] = KS) -> dict[str, Sweep]:
    """k multiply-adds on every number: one by one (up to k = 8), and fused into one kernel where there is a compiler.

    The fused ones end where one takes ten times as long as the first.
    """
    x = torch.rand(elements, device=device)
    found = {"one by one": {k: timed(multiply_adds(k), x) for k in ks if k <= 8}}
    for k in ks if rungs(["compiled step"])[0].missing(device) is None else ():
        together = found.setdefault("fused", {})
        together[k] = timed(fused(k), x)
        if statistics.median(together[k]) > 10 * statistics.median(together[ks[0]]):
            break
    return found
