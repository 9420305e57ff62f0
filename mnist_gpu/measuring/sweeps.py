"""One operation, and its time over the one number that is varied: size, stride, operations per byte, a condition.

Each function yields a Timed for each value, of the section "inside", with the threads that are set.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from mnist_gpu.faster.graphs import record
from mnist_gpu.faster.ladder import RUNGS
from mnist_gpu.measuring.results import Skipped, Timed
from mnist_gpu.measuring.timing import in_turn, measure
from mnist_gpu.measuring.workloads import seconds_of

SECTION = "inside"
MEBI = 2**20
LARGE = 32 * MEBI  # numbers: 128 MiB, more than most caches hold
READ = 2 * MEBI  # numbers: so many are read, whatever the stride


def _timed(name: str, device: torch.device, function: Callable, parameters: dict, per_call: dict, calls: int = 1):
    found = measure(function, min_seconds=0.05)
    seconds = [s / calls for s in found.times]
    return Timed(SECTION, name, device.type, torch.get_num_threads(), seconds, parameters, per_call)


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
    return next(r for r in RUNGS if r.name == "compiled step").missing(device)


def fused(k: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """`multiply_adds` compiled into one kernel, which reads and writes each number once; one code for all sizes."""
    chain = multiply_adds(k)
    # A code of its own, or the ninth k would be one recompilation of the same code too many. (torch._dynamo.reset would
    # help as well, and everything else in the program would be compiled anew.)
    chain.__code__ = chain.__code__.replace()
    return torch.compile(chain, dynamic=True)


def by_size(device: torch.device, sizes: Sequence[int] | None = None) -> Iterator[Timed]:
    """One element-wise kernel over the number of its elements.

    On an NVIDIA GPU with a compiler the kernel is long, 256 multiply-adds an element, and launched inside a CUDA
    graph, so that what the card does shows and not what launching costs; the sizes go to four times as many threads as
    can be resident. Elsewhere it is one multiplication, and the sizes go to 128 MiB.
    """
    long = device.type == "cuda" and compiler_missing(device) is None
    kernel = fused(256) if long else functools.partial(torch.mul, other=2.0)
    for n in sizes or (_wave_sizes(device) if long else [4**i for i in range(4, 13)] + [LARGE]):
        x = torch.rand(n, device=device)
        out = {} if long else {"out": torch.empty_like(x)}
        call, calls = (lambda x=x, out=out: kernel(x, **out)), 1
        if long:
            call, calls = record(call, calls=20), 20
        yield _timed("kernel", device, call, {"size": n}, {"bytes": 2 * x.nbytes, "elements": n}, calls)


def _wave_sizes(device: torch.device) -> list[int]:
    """Sizes from one block to four waves, a wave being all threads that can be resident at once."""
    properties = torch.cuda.get_device_properties(device)
    wave = properties.multi_processor_count * properties.max_threads_per_multi_processor
    small = itertools.takewhile(lambda n: n < wave / 8, (1024 * 4**i for i in range(20)))
    return [*small, *(wave * i // 8 for i in range(1, 33))]


def copies(device: torch.device, kibibytes: Sequence[int] | None = None) -> Iterator[Timed]:
    """A copy over the size of what is copied; read and written bytes counted. Both together need twice the size."""
    for kib in kibibytes or [2**i for i in range(2, 18)]:
        x = torch.ones(256 * kib, device=device)
        out = torch.empty_like(x)
        copy = lambda x=x, out=out: out.copy_(x)  # noqa: E731
        yield _timed("copy", device, copy, {"kibibytes": kib}, {"bytes": 2 * x.nbytes})


def strides(device: torch.device, steps: Sequence[int] = (1, 2, 4, 8, 16, 32)) -> Iterator[Timed]:
    """Reading the same count of numbers, each `stride` numbers after the last one, and writing them side by side."""
    x, out = torch.ones(READ * max(steps), device=device), torch.empty(READ, device=device)
    for stride in steps:
        seen = x[: READ * stride : stride]
        read = lambda seen=seen: out.copy_(seen)  # noqa: E731
        yield _timed("strided read", device, read, {"stride": stride}, {"elements": READ})


KS = (1, 2, 4, 8, 16, 32, 64, 256, 1024)


def intensities(device: torch.device, ks: Sequence[int] = KS, *, elements: int = 0) -> Iterator[Timed | Skipped]:
    """k multiply-adds on every number: each an operation of PyTorch's by itself (up to k = 8), and fused into one
    kernel, which moves as many bytes whatever k. Without a compiler the second is skipped, with its reason.

    The fused ones end where one takes ten times as long as the first. `elements`: by default 16 Mi on a CPU, 64 Mi on a
    GPU, which is more than their caches hold.
    """
    x = torch.rand(elements or (16 if device.type == "cpu" else 64) * MEBI, device=device)
    for k in (k for k in ks if k <= 8):
        chain, work = multiply_adds(k), {"flop": 2 * k * len(x), "bytes": 4 * x.nbytes * k}  # two operations for each k
        yield _timed("one by one", device, lambda chain=chain: chain(x), {"k": k}, work)
    if reason := compiler_missing(device):
        yield Skipped(SECTION, "fused", device.type, reason)
        return
    least = None
    for k in ks:
        kernel, work = fused(k), {"flop": 2 * k * len(x), "bytes": 2 * x.nbytes}
        yield (one := _timed("fused", device, lambda kernel=kernel: kernel(x), {"k": k}, work))
        least = least or one.median
        if one.median > 10 * least:
            break


def knee(found: Sequence[Timed]) -> float:
    """Operations per byte at which the roof of these kernels has its ridge: the most operations a second that one of
    them reached, over the most bytes a second."""
    return max(m.rate("flop") for m in found) / max(m.rate("bytes") for m in found)


EVERYWHERE, NOWHERE, INK, SHUFFLED = "true everywhere", "true nowhere", "true where there is ink", "the same, shuffled"
ALONE = "the ink's pixels alone, by index"


def conditions(device: torch.device, pixels: torch.Tensor, rounds: int = 10) -> Iterator[Timed]:
    """torch.where(condition, sin(x), x), all in turn: for a condition that is true everywhere, nowhere, where the
    `pixels` (uint8) are ink, and where they are when shuffled; and the sine of the ink's pixels alone, by index.

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
    sides = {name: lambda call=call: [call() for _ in range(count)] for name, call in calls.items()}
    for name, seconds in in_turn(sides, rounds=rounds, device=device):
        yield Timed(SECTION, name, device.type, torch.get_num_threads(), [s / count for s in seconds])


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


def falls(found: Sequence[Timed], least: float = 1.25) -> list[tuple[int, int, float]]:
    """Between which neighbouring sizes of `copies` the rate falls by `least` or more: (KiB, KiB, factor), after its
    highest. The intervals of the two medians must not overlap."""
    top = max(range(len(found)), key=lambda i: found[i].rate("bytes"))
    pairs = itertools.pairwise(found[top:])
    return [
        (a.parameters["kibibytes"], b.parameters["kibibytes"], a.rate("bytes") / b.rate("bytes"))
        for a, b in pairs
        if a.rate("bytes") >= least * b.rate("bytes") and a.rate_interval("bytes")[0] > b.rate_interval("bytes")[1]
    ]


def still_flat(found: Sequence[Timed], factor: float = 1.5) -> Timed:
    """The last of the growing sizes that takes at most `factor` times as long as the fastest of them."""
    least = min(m.median for m in found)
    return [m for m in found if m.median <= factor * least][-1]
