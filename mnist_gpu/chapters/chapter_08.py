"""Chapter 08: published cards, kernels timed on the reader's GPU, and exercises, whose counts hold on any device."""

import math
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch

from mnist_gpu.faster.ladder import rungs
from mnist_gpu.measuring.drawing import OWN, PUBLISHED, Series, columns, number  # noqa: F401 - for the notebook
from mnist_gpu.measuring.exercises import MEND, WRITE, Exercise, checker, compared, count_of, in_time, plain
from mnist_gpu.measuring.prediction import SHEET, Card, named, sources  # noqa: F401
from mnist_gpu.measuring.timing import interval, measure
from mnist_gpu.webgpu.gpu import Call, Gpu

WARP = 32  # threads that execute the same instruction, on every NVIDIA GPU
PIECE = 8  # float32 numbers in 32 bytes, which memory hands over together


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


def read_by(answer: Callable, threads: int, count: int) -> str:
    """What threads read together, warp by warp, if they read the numbers that the answer says."""
    seen, pieces = Counter(), 0
    for step in range(math.ceil(count / threads)):
        for first in range(0, threads, WARP):
            found = [answer(thread, step, threads, count) for thread in range(first, first + WARP)]
            found = [plain(i.item() if isinstance(i, torch.Tensor) else i) for i in found if i is not None]
            if outside := [i for i in found if i not in range(count)]:
                return f"number {outside[0]}, where the last is {count - 1}"
            seen.update(found)
            pieces += len({i // PIECE for i in found})
    if len(seen) < count:
        return f"{len(seen):,} of {count_of(count, 'number')}"
    if max(seen.values()) > 1:
        return f"{sum(n > 1 for n in seen.values()):,} of {count_of(count, 'number')} more than once"
    return f"each number once, in {count_of(pieces, 'piece')} of 32 bytes"


def loops() -> Iterator[tuple[int, int]]:
    """Numbers of threads, and how many numbers they are to read."""
    yield from ((32, 64), (64, 64), (64, 1), (64, 1000), (96, 95), (128, 1001), (32, random.randrange(500, 900)))
    yield WARP * random.randrange(3, 9), random.randrange(2000, 4000)


def sides() -> Iterator[tuple[torch.Tensor, list[int]]]:
    """The side that each lane takes, and what each side costs."""
    for n in (100, 5 * WARP, WARP + 1, WARP, WARP - 1, 1, random.randrange(200, 400)):
        costs = [random.randrange(2, 50) for _ in range(random.randrange(2, 5))]
        costs.append(costs[0])  # two sides may cost the same
        yield torch.randint(len(costs), (n // 20 + 1,)).repeat_interleave(20)[:n], costs  # neighbours often agree
        yield torch.randint(len(costs), (n,)), costs
        yield torch.full((n,), random.randrange(len(costs))), costs


def products() -> Iterator[tuple]:
    """Sizes m, n, k of products, tiles to choose from, bytes of shared memory, multiprocessors."""
    for _ in range(40):
        tiles = random.sample([*range(4, 33), 48, 64, 96, 100, 128], random.randrange(2, 9))
        largest = random.choice(tiles)
        shared = 8 * largest**2 + random.choice((0, 0, -1, 1, 5000))
        yield *(random.randrange(1, 1000) for _ in range(3)), tiles, shared, random.choice((1, 2, 20, 50, 132))
    yield 64, 64, 64, [16, 8], 100, 1  # nothing fits
    yield 64, 5, 128, [16, 8], 10**5, 1  # equally many bytes
    yield 64, 64, 5, [32, 8], 10**5, 1  # as many, with whole tiles at the end of k
    yield 64, 64, 64, [32, 16], 10**5, 16  # just enough blocks, and as few bytes as memory allows


def tile_of(m, n, k, tiles, shared, multiprocessors, *, fits=True, fills=True, largest=False) -> int | None:
    """The right tile, or the one of an answer that leaves a rule out."""

    def moved(t: int) -> int:
        return math.ceil(m / t) * math.ceil(n / t) * math.ceil(k / t) * 2 * 4 * t**2

    enough = [t for t in tiles if not fits or 8 * t**2 <= shared]
    enough = [t for t in enough if not fills or math.ceil(m / t) * math.ceil(n / t) >= multiprocessors]
    return max(enough, default=None) if largest else min(enough, key=lambda t: (moved(t), t), default=None)


EXERCISES = (
    Exercise("08.1", MEND, "From a CPU's loop to a GPU's", compared(
        lambda threads, count: f"each number once, in {count_of(math.ceil(count / PIECE), 'piece')} of 32 bytes",
        loops, run=partial(in_time, read_by),
        given=lambda threads, count: f"{threads} threads and {count_of(count, 'number')}",
        why=lambda threads, count, found: "Which numbers does a warp read together?" * ("piece" in str(found)),
    )),
    Exercise("08.2", WRITE, "Warps of more than two sides", compared(
        lambda side, costs: [sum(costs[s] for s in warp.unique()) for warp in side.split(WARP)], sides,
        run=lambda answer, *given: in_time(lambda: list(answer(*given))),
        given=lambda side, costs: f"{count_of(len(side), 'lane')}, and sides of {costs} instructions",
        hints=(
            (lambda side, costs: [sum(costs[s] for s in warp) for warp in side.split(WARP)], "Count it once a warp."),
            (lambda side, costs: [max(costs[s] for s in warp) for warp in side.split(WARP)], "Its sides add up."),
            (lambda side, costs: [sum(costs) for _ in side.split(WARP)], "A side that no lane takes is left out."),
            (lambda side, costs: [sum({costs[s] for s in w}) for w in side.split(WARP)], "Sides may cost the same."),
        ),
        why=lambda side, costs, found: "There is one number for each warp, also for one that is not full."
        * (len(found) != math.ceil(len(side) / WARP)),
    )),
    Exercise("08.3", WRITE, "A tile's size", compared(
        tile_of, products, run=in_time,
        given=lambda m, n, k, tiles, shared, sms: f"[{m}, {k}] times [{k}, {n}], tiles of {tiles}, {shared:,} bytes "
        f"of shared memory, {count_of(sms, 'multiprocessor')}",
        hints=(
            (partial(tile_of, fits=False), "Two tiles have to fit into the shared memory at once."),
            (partial(tile_of, fills=False), "Some multiprocessors have no block."),
            (partial(tile_of, largest=True), "Tiles at the edges are whole, so the largest need not fetch the fewest."),
        ),
    )),
)  # fmt: skip
check = checker(EXERCISES)
