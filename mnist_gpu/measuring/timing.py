"""Measuring how long things take, and saying only what the measurement allows.

Short operations are timed by themselves (`measure`). Whole pieces of a training are timed in turn, A B A B ...
(`alternate`), so that a machine that slows down slows both sides, and compared pair by pair (`compare`). Both notice
other processes that keep the CPUs busy meanwhile (mnist_gpu.measuring.busy).
"""

import logging
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import NamedTuple

import torch

from mnist_gpu.checks import at_least_one
from mnist_gpu.device import accelerator, synchronize, using_threads
from mnist_gpu.measuring.busy import watching

# The extension builder, which PyTorch's own timer imports, warns where a CUDA compiler is installed but no GPU is.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
BLOCKS = 10  # of a short operation: as many values as an interval needs to leave out the largest and the smallest
CONFIDENCE = 0.95


def measure(function: Callable[[], object], *, min_seconds: float = 0.2) -> SimpleNamespace:
    """Times a short operation, warm, in BLOCKS blocks of as many calls as take about `min_seconds` together.

    The device is waited for at both ends of a block, so its calls share the waiting. Of the result, `.times` has the
    seconds per call of every block, `.median` their median.
    """

    # Not torch's Timer.blocked_autorange: it lengthens its blocks until the cost of waiting vanishes, which on a GPU
    # leaves one to four of them, and so no spread.
    def block(calls: int) -> float:
        synchronize(device)
        start = time.perf_counter()
        for _ in range(calls):
            function()
        synchronize(device)
        return time.perf_counter() - start

    device = accelerator() or "cpu"
    with watching():
        block(2)  # to warm up
        calls = max(1, round(min_seconds / BLOCKS / block(1)))
        times = [block(calls) / calls for _ in range(BLOCKS)]
    return SimpleNamespace(times=times, median=statistics.median(times))


def in_turn(
    sides: Mapping[str, Callable[[], object]], *, threads: int | None = None, rounds: int = 10, warmup: int = 1,
    device: torch.device | str = "cpu", clock: Callable[[], float] = time.perf_counter, progress: Callable = iter,
) -> Iterator[tuple[str, list[float]]]:  # fmt: skip
    """Runs every side once per round, in turn, and gives (name, seconds round by round) of each at the end.

    Each call is timed as a whole, from an idle device to an idle device, after `warmup` calls of each side. CPU threads
    are as many as asked for, and as before when something is given. `progress` wraps the rounds: tqdm, say. An
    interrupt or error first gives what finished rounds measured. Raises ValueError for rounds below 1.
    """
    at_least_one(rounds=rounds)
    seconds = {name: [] for name in sides}
    try:
        with using_threads(threads), watching():
            for function in sides.values():
                for _ in range(warmup):
                    function()
            for _ in progress(range(rounds)):
                for name, function in sides.items():
                    synchronize(device)
                    start = clock()
                    function()
                    synchronize(device)
                    seconds[name].append(clock() - start)
    except BaseException:
        if finished := min(map(len, seconds.values()), default=0):
            yield from ((name, times[:finished]) for name, times in seconds.items())
        raise
    yield from seconds.items()


def alternate(sides: Mapping[str, Callable[[], object]], **options) -> dict[str, list[float]]:
    """Each side's seconds, round by round, timed `in_turn`, which explains the `options`."""
    return dict(in_turn(sides, **options))


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """An interval that holds the true median with at least `confidence`, whatever the distribution of the noise.

    It goes from the k-th smallest to the k-th largest value, with k as large as the binomial distribution allows: fewer
    than k of n values fall below the true median with the chance P(X < k), X ~ Binomial(n, 1/2) (H. A. David, Order
    Statistics, 1981, section 2.5). Of ten values it is the second smallest to the second largest; of fewer than six all
    of them, with less confidence.
    """
    ordered, n = sorted(values), len(values)
    k, below = 1, 1 / 2**n  # below: P(X < k)
    while below + math.comb(n, k) / 2**n <= (1 - confidence) / 2:
        below += math.comb(n, k) / 2**n
        k += 1
    return ordered[k - 1], ordered[n - k]


def fewest_pairs(of: int = 1) -> int:
    """How many pairs an interval needs for one of `of` comparisons made together: six for one, nine for ten."""
    return math.ceil(math.log2(2 * of / (1 - CONFIDENCE)) - 1e-9)


class Comparison(NamedTuple):
    """Two sides timed in turn, compared pair by pair. A ratio above 1 means that the first takes longer."""

    names: tuple[str, str]
    ratio: float  # median of the pairs' ratios
    interval: tuple[float, float]  # that holds the true median of the ratio
    pairs: int
    of: int = 1  # comparisons made together

    @property
    def differs(self) -> bool:
        """Whether a difference may be claimed: enough pairs, and an interval of the ratio that excludes 1."""
        return self.pairs >= fewest_pairs(self.of) and not self.interval[0] <= 1 <= self.interval[1]

    @property
    def times(self) -> str:
        """The ratio, with the digits that its interval leaves it: "1.44", "12.0", "100"."""
        return rounded(self.ratio, *self.interval)[0]

    def __str__(self) -> str:
        first, second = self.names
        if self.pairs < (least := fewest_pairs(self.of)):
            return f"No claim about {first} and {second}: {self.pairs} pairs are too few (at least {least})."
        fast, slow, ratio, (low, high) = second, first, self.ratio, self.interval
        if ratio < 1:
            fast, slow, ratio, low, high = first, second, 1 / ratio, 1 / high, 1 / low
        ratio, low, high = rounded(ratio, low, high)
        seen = f"interval {low} to {high}, {self.pairs} pairs"
        if not self.differs:
            return f"No difference shown between {first} and {second} ({seen})."
        return f"{fast} is {ratio} times as fast as {slow} ({seen})."


def rounded(value: float, low: float, high: float) -> tuple[str, str, str]:
    """A value above 0 and its interval as text: the value to the digits that the interval leaves it, three at most (or
    thousandths, near 1); the ends of the interval to one more, so that one sees on which side of 1 they are."""

    def most(x: float) -> int:
        return 3 if abs(x - 1) < 0.05 else 2 - math.floor(math.log10(x))

    known = -math.floor(math.log10((high - low) / 2)) if high > low else 3
    known = max(known, -math.floor(math.log10(value)))  # one digit at least

    def text(x: float, places: int) -> str:
        return f"{round(x, places):,.{max(0, places)}f}"

    return tuple(text(x, min(most(x), known + more)) for x, more in ((value, 0), (low, 1), (high, 1)))


def compare(seconds: Mapping[str, Sequence[float]], first: str, second: str, *, of: int = 1) -> Comparison:
    """Compares two sides of what `alternate` returned, pair by pair. Raises ValueError for times that are no pairs.

    Of comparisons made together, `of` so many, each interval has a confidence of 1 - 0.05 / of (Bonferroni), so that
    all of them hold the true value with 95 %. No interval inside a run shows that a program started again, at other
    addresses and another clock speed, can differ by more.
    """
    ratios = [x / y for x, y in zip(seconds[first], seconds[second], strict=True)]
    ends = interval(ratios, 1 - (1 - CONFIDENCE) / of)
    return Comparison((first, second), statistics.median(ratios), ends, len(ratios), of)


def compare_all(seconds: Mapping[str, Sequence[float]], pairs: Iterable[tuple[str, str]]) -> list[Comparison]:
    """`compare` for every (first, second) of `pairs`, with intervals that hold together."""
    pairs = list(pairs)
    return [compare(seconds, *pair, of=len(pairs)) for pair in pairs]
