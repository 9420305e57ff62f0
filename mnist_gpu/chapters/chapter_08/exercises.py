"""The checks of chapter 08's exercises, by counts that hold on any device: pieces of memory, sides, bytes."""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import torch

from mnist_gpu.measuring.exercises import MEND, WRITE, Exercise, checker, compared, count_of, in_time, plain

WARP = 32  # threads that execute the same instruction, on every NVIDIA GPU
PIECE = 8  # float32 numbers in 32 bytes, which memory hands over together


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
