"""Measuring how long things take, and saying only what the measurement allows.

Short operations go through torch.utils.benchmark (`measure`). Whole pieces of a training are timed in turn,
A B A B ... (`alternate`), so that a machine that slows down slows both sides, and compared pair by pair (`compare`).
Both notice other processes that keep the CPUs busy meanwhile (mnist_gpu.measuring.neighbours).
"""

import logging
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

# torch.utils.benchmark imports the extension builder, which warns where a CUDA compiler is installed but no GPU is.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
from torch.utils.benchmark import Measurement, TaskSpec  # noqa: E402

from mnist_gpu.checks import at_least_one  # noqa: E402
from mnist_gpu.device import accelerator, synchronize  # noqa: E402
from mnist_gpu.measuring.neighbours import watching  # noqa: E402

BLOCKS = 10  # of a short operation: as many values as a spread needs to leave out the largest and the smallest
FEWEST_PAIRS = 4  # with 3 pairs, two equal sides come out fully apart by chance in 2 of 20 cases; with 4, in 2 of 70


def measure(function: Callable[[], object], *, min_seconds: float = 0.2, label: str = "") -> Measurement:
    """Times a short operation, warm, in BLOCKS blocks of as many calls as take about `min_seconds` together.

    The device is waited for at the beginning and the end of a block, so that waiting is shared by the block's calls. It
    uses the threads that are set. Of the result, `.times` has the seconds a call of every block, `.median` and `.iqr`
    their median and interquartile range.
    """

    # Not torch's Timer.blocked_autorange: it lengthens its blocks until the cost of waiting vanishes, which on a GPU
    # leaves one to four of them, and so no spread.
    def block(calls: int) -> float:
        _wait()
        start = time.perf_counter()
        for _ in range(calls):
            function()
        _wait()
        return time.perf_counter() - start

    task = TaskSpec("function()", setup="", label=label, num_threads=torch.get_num_threads())
    with watching():
        block(2)  # to warm up
        calls = max(1, round(min_seconds / BLOCKS / block(1)))
        return Measurement(calls, [block(calls) for _ in range(BLOCKS)], task)


def _wait() -> None:
    """Waits for the current device, if there is another than the CPU."""
    if found := accelerator():
        synchronize(found)


def alternate(
    sides: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 10,
    warmup: int = 1,
    device: torch.device | str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable = iter,
    into: dict[str, list[float]] | None = None,
) -> dict[str, list[float]]:
    """Runs every side once a round, in turn, and returns each one's seconds, round by round.

    Args:
        sides: what to time, by name. Each call is timed as a whole, from an idle device to an idle device.
        rounds: timed calls of each side.
        warmup: calls of each side before that, not timed.
        device: what to wait for before and after each call.
        clock: gives the time in seconds.
        progress: wraps the iterable of rounds; tqdm, for example.
        into: the dictionary to fill and return. Whoever holds it has every finished round even if this is interrupted.

    Raises:
        ValueError: rounds below 1.
    """
    at_least_one(rounds=rounds)
    seconds = {} if into is None else into
    seconds.update({name: [] for name in sides})
    with watching():
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
    return seconds


def in_turn(sides, **options) -> Iterator[tuple[str, list[float]]]:
    """`alternate`, side by side as (name, seconds). An interrupt or error first gives what finished rounds measured."""
    seconds = {}
    try:
        alternate(sides, into=seconds, **options)
    except BaseException:
        if rounds := min(map(len, seconds.values()), default=0):
            yield from ((name, times[:rounds]) for name, times in seconds.items())
        raise
    yield from seconds.items()


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The range that holds the median with at least 95 % confidence, whatever the distribution of the noise.

    It goes from the k-th smallest to the k-th largest value, with k as large as the binomial distribution allows: the
    chance that fewer than k of n values fall below the true median is P(X < k), X ~ Binomial(n, 1/2) (H. A. David,
    Order Statistics, 1981, section 2.5). Ten values give the second smallest and the second largest; fewer than six
    give all of them, with less confidence. Raises ValueError if there are no values.
    """
    if not values:
        raise ValueError("values is empty, but a spread needs at least one value")
    ordered, n = sorted(values), len(values)
    k, below = 1, 1 / 2**n  # below: P(X < k)
    while below + math.comb(n, k) / 2**n <= 0.025:
        below += math.comb(n, k) / 2**n
        k += 1
    return ordered[k - 1], ordered[n - k]


@dataclass(frozen=True)
class Comparison:
    """Two sides timed in turn. Seconds; a ratio above 1 means that the first side takes longer than the second."""

    names: tuple[str, str]
    medians: tuple[float, float]
    spreads: tuple[tuple[float, float], tuple[float, float]]
    ratio: float  # median of the ratios pair by pair
    ratio_spread: tuple[float, float]
    pairs: int

    @property
    def differs(self) -> bool:
        """Whether a difference may be claimed: enough pairs, and spreads that do not overlap."""
        (low_a, high_a), (low_b, high_b) = self.spreads
        return self.pairs >= FEWEST_PAIRS and (high_a < low_b or high_b < low_a)

    def __str__(self) -> str:
        first, second = self.names
        if self.pairs < FEWEST_PAIRS:
            return f"No claim about {first} and {second}: {self.pairs} pairs are too few (at least {FEWEST_PAIRS})."
        if not self.differs:
            return f"No difference to claim between {first} and {second}: their spreads overlap ({self.pairs} pairs)."
        fast, slow, ratio, (low, high) = second, first, self.ratio, self.ratio_spread
        if self.medians[0] < self.medians[1]:
            fast, slow, ratio, low, high = first, second, 1 / ratio, 1 / high, 1 / low
        return f"{fast} is {ratio:.2f} times faster than {slow} (spread {low:.2f} to {high:.2f}, {self.pairs} pairs)."


def compare(seconds: Mapping[str, Sequence[float]], first: str, second: str) -> Comparison:
    """Compares two sides of what `alternate` returned, pair by pair.

    Raises:
        ValueError: the two have different numbers of values, or none, or one that is not above 0.
    """
    a, b = seconds[first], seconds[second]
    if len(a) != len(b) or not a:
        raise ValueError(
            f"{first!r} has {len(a)} values and {second!r} {len(b)}: each needs the same number, at least one"
        )
    if min(*a, *b) <= 0:
        raise ValueError("a time is not above 0 seconds; the clock may be too coarse for what it times")
    ratios = [x / y for x, y in zip(a, b, strict=True)]
    return Comparison(
        names=(first, second),
        medians=(statistics.median(a), statistics.median(b)),
        spreads=(spread(a), spread(b)),
        ratio=statistics.median(ratios),
        ratio_spread=spread(ratios),
        pairs=len(a),
    )


def fit_line(sizes: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """The line `seconds = fixed + slope * size` whose relative errors are smallest (weighted least squares).

    Returns (fixed, slope). Raises ValueError with fewer than two different sizes.
    """
    if len(set(sizes)) < 2 or len(sizes) != len(seconds):
        raise ValueError(f"a line needs two different sizes and a time for each, but got {len(sizes)}, {len(seconds)}")
    times = torch.tensor(seconds, dtype=torch.float64)
    columns = torch.stack([torch.ones_like(times), torch.tensor(sizes, dtype=torch.float64)], dim=1) / times[:, None]
    fixed, slope = torch.linalg.lstsq(columns, torch.ones_like(times)[:, None]).solution.flatten().tolist()
    return fixed, slope
