"""One operation, and its time over the one number that is varied: size, stride, operations per byte, a condition.

A sweep is a dictionary from that number to the seconds of a call, several times, with the threads that are set.
"""

import functools
import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from mnist_gpu.faster.graphs import record
from mnist_gpu.faster.ladder import rungs
from mnist_gpu.measuring.drawing import OWN, Series
from mnist_gpu.measuring.timing import alternate, interval, measure
from mnist_gpu.measuring.workloads import repeat, seconds_of

Sweep = Mapping[int, Sequence[float]]
LARGE = 32 * 2**20  # numbers: 128 MiB, more than most caches hold
KS = (1, 2, 4, 8, 16, 32, 64, 256, 1024)
EVERYWHERE, NOWHERE, INK, SHUFFLED = "true everywhere", "true nowhere", "true where there is ink", "the same, shuffled"
ALONE = "the ink's pixels alone, by index"


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


def still_flat(sweep: Sweep, factor: float = 1.5) -> int:
    """The last size that takes at most `factor` times as long as the fastest of them."""
    medians = {x: statistics.median(seconds) for x, seconds in sweep.items()}
    return [x for x, median in medians.items() if median <= factor * min(medians.values())][-1]


def caches(device: torch.device, folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> dict[str, int]:
    """Bytes of the caches that hold data, by name, the nearest first; of a CPU only where Linux tells, else {}."""
    if device.type == "cuda":
        return {"L2": torch.cuda.get_device_properties(device).L2_cache_size}
    found = {}
    for index in sorted(folder.glob("index*")) if device.type == "cpu" else ():
        level, kind, size = ((index / name).read_text(encoding="utf-8").strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            found[f"L{level}"] = int(size.removesuffix("K")) * 1024
    return found


def binary(size: float) -> str:
    """ "164 KiB", "40 MiB"."""
    return f"{size / 2**10:,.0f} KiB" if size < 2**20 else f"{size / 2**20:,.0f} MiB"


def steps_down(copies: Series, caches: Mapping[str, int], least: float = 1.25) -> str:
    """The highest rate of copies, in GB/s by their KiB, and where, from there on, it falls by `least` or more.

    The intervals of the two neighbouring rates must not overlap. `caches` are those that the system names.
    """
    xs, ys = copies.xs, copies.ys
    top = max(range(len(ys)), key=ys.__getitem__)
    said = [f"The highest rate, {ys[top]:.0f} GB/s, is at {xs[top]:,} KiB."]
    for i in range(top, len(ys) - 1):
        if ys[i] >= least * ys[i + 1] and copies.lows[i] > copies.highs[i + 1]:
            said.append(f"From {xs[i]:,} to {xs[i + 1]:,} KiB it falls to 1/{ys[i] / ys[i + 1]:.1f}.")
    if caches:
        named = ", ".join(f"{name} {binary(size)}" for name, size in caches.items())
        said.append(f"The system names these caches: {named}.")
    return "\n".join(said)


def multiply_adds(k: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """x * 0.999 + 0.001 in place of x, k times one after the other: 2 k operations on each number.

    In place, since memory for a new result of some MiB, fresh from the system, costs more than the operation.
    """

    def chain(x: torch.Tensor) -> torch.Tensor:
        for _ in range(k):
            x.mul_(0.999).add_(0.001)
        return x

    return chain


def compiler_missing(device: torch.device) -> str | None:
    """Why torch.compile cannot generate code for this device here, or None: what the ladder's compiled rungs say."""
    return rungs(["compiled step"])[0].missing(device)


def fused(k: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """`multiply_adds` compiled into one kernel, which reads and writes each number once; one code for all sizes."""
    chain = multiply_adds(k)
    # A code of its own, or the ninth k would be one recompilation of the same code too many. (torch._dynamo.reset would
    # help as well, and everything else in the program would be compiled anew.)
    chain.__code__ = chain.__code__.replace()
    return torch.compile(chain, dynamic=True)


def by_size(device: torch.device, sizes: Sequence[int] | None = None) -> Sweep:
    """One element-wise kernel over the number of its elements.

    On an NVIDIA GPU with a compiler the kernel is long, 256 multiply-adds an element, and launched inside a CUDA
    graph, so that what the card does shows and not what launching costs; the sizes go to four times as many threads as
    can be resident. Elsewhere it is one multiplication, and the sizes go to 128 MiB.
    """
    found = {}
    if device.type == "cuda" and compiler_missing(device) is None:
        kernel = fused(256)
        for n in sizes or wave_sizes(device):
            x = torch.rand(n, device=device)
            found[n] = timed(record(functools.partial(kernel, x), calls=20), calls=20)
    else:
        for n in sizes or [*(4**i for i in range(4, 13)), LARGE]:
            x = torch.rand(n, device=device)
            found[n] = timed(functools.partial(torch.mul, x, 2.0, out=torch.empty_like(x)))
    return found


def wave_sizes(device: torch.device) -> list[int]:
    """Sizes from one block to four waves, a wave being all threads that can be resident at once."""
    properties = torch.cuda.get_device_properties(device)
    wave = properties.multi_processor_count * properties.max_threads_per_multi_processor
    small = itertools.takewhile(lambda n: n < wave / 8, (1024 * 4**i for i in range(20)))
    return [*small, *(wave * i // 8 for i in range(1, 33))]


def intensities(device: torch.device, elements: int, ks: Sequence[int] = KS) -> dict[str, Sweep]:
    """k multiply-adds on every number: each an operation of PyTorch's by itself (up to k = 8), and, where there is a
    compiler, fused into one kernel, which moves as many bytes whatever k.

    The fused ones end where one takes ten times as long as the first.
    """
    x = torch.rand(elements, device=device)
    found = {"one by one": {k: timed(multiply_adds(k), x) for k in ks if k <= 8}}
    for k in ks if compiler_missing(device) is None else ():
        together = found.setdefault("fused", {})
        together[k] = timed(fused(k), x)
        if statistics.median(together[k]) > 10 * statistics.median(together[ks[0]]):
            break
    return found


def own_ridge(found: Mapping[str, Sweep], device: torch.device, elements: int) -> str:
    """How many multiply-adds were free in the fused kernels of `intensities`, and where their roof has its ridge."""
    if (sweep := found.get("fused")) is None:
        return f"fused: {compiler_missing(device)}."
    flops = curve("", sweep, work=lambda k: 2 * k * elements).ys
    moved = curve("", sweep, work=lambda k: 8 * elements).ys
    rate, best = max(zip(flops, sweep, strict=True))
    ridge = rate / max(moved)
    flat = [k for k, speed in zip(sweep, moved, strict=True) if 1.5 * speed >= moved[0]][-1]
    said = [
        f"Fused, k = {flat} takes at most 1.5 times as long as k = 1.",
        f"These kernels reach {rate / 1e9:,.0f} GFLOP/s (at k = {best}) and {max(moved) / 1e9:,.0f} GB/s: "
        f"their own ridge is at {ridge:.1f} FLOP/byte, k = {4 * ridge:.0f}.",
    ]
    if flops[-1] < 0.8 * rate:
        said.append(f"At k = {list(sweep)[-1]} the rate is down to {flops[-1] / rate:.0%} of that.")
    return "\n".join(said)


def conditions(device: torch.device, pixels: torch.Tensor, rounds: int = 10) -> dict[str, list[float]]:
    """Seconds of torch.where(condition, sin(x), x), all in turn: for a condition that is true everywhere, nowhere,
    where the `pixels` (uint8) are ink, and where they are when shuffled; and of the ink's pixels alone, by index.

    On a GPU the pixels are repeated up to LARGE, or launching would take longer than the work.
    """
    ink = pixels.flatten() > 0
    shuffled = ink[torch.randperm(len(ink), generator=torch.Generator().manual_seed(0))]
    repeats = 1 if device.type == "cpu" else math.ceil(LARGE / len(ink))
    ink, shuffled = (mask.repeat(repeats).to(device) for mask in (ink, shuffled))
    x = torch.rand(len(ink), device=device)
    masks = {EVERYWHERE: torch.ones_like(ink), NOWHERE: torch.zeros_like(ink), INK: ink, SHUFFLED: shuffled}
    calls = {name: lambda mask=mask: torch.where(mask, torch.sin(x), x) for name, mask in masks.items()}
    index = ink.nonzero().squeeze(1)  # before the clock: the host has to wait for how many there are, as with x[ink]
    calls[ALONE] = lambda: torch.sin(x.index_select(0, index))
    count = max(1, round(0.005 / seconds_of(calls[NOWHERE], device)))
    sides = {name: functools.partial(repeat, call, count) for name, call in calls.items()}
    times = alternate(sides, rounds=rounds, device=device)
    return {name: [s / count for s in seconds] for name, seconds in times.items()}
