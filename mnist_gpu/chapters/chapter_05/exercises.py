"""Checks of chapter 05's exercises: what ten rounds allow one to claim, and a timing mended."""

import random
import statistics
from collections.abc import Callable, Iterator
from functools import partial

from mnist_gpu.measuring.exercises import compared


def agreed(a: list[float], b: list[float], left_out: int = 1) -> str:
    """What an interval claims that leaves out so many of the ratios at each end: one, of ten."""
    ratios = sorted(x / y for x, y in zip(a, b, strict=True))[left_out : len(a) - left_out]
    return "b" if ratios[0] > 1 else "a" if ratios[-1] < 1 else "neither"


def timed_rounds(ratio: float, noise: float, slowing: float = 0.0) -> list[list[float]]:
    """Ten seconds of two sides, of which the first takes `ratio` times as long, on a machine that may grow slower."""
    return [[side * (1 + slowing * i) * random.uniform(1, 1 + noise) for i in range(10)] for side in (ratio, 1.0)]


def ten_rounds() -> Iterator[list[list[float]]]:
    """Four times each: a clear case, a machine that grows slower, equal sides, and disturbed rounds."""
    for _ in range(4):
        equal = timed_rounds(1.0, 0.2)
        while not 4 <= sum(x > y for x, y in zip(*equal, strict=True)) <= 6:
            equal = timed_rounds(1.0, 0.2)
        once, twice = timed_rounds(1.1, 0.02), timed_rounds(1.1, 0.02)
        for times, (_, fast) in enumerate((once, twice), start=1):
            for i in random.sample(range(10), times):
                fast[i] *= random.uniform(2, 5)
        for pair in (timed_rounds(1.5, 0.05), timed_rounds(1.05, 0.01, slowing=0.3), equal, once, twice):
            yield random.sample(pair, 2)


may_be_claimed = compared(
    agreed,
    ten_rounds,
    given=lambda a, b: f"Ratios a / b, sorted: {' '.join(f'{r:.3g}' for r in sorted(map(float.__truediv__, a, b)))}",
    hints=[
        (partial(agreed, left_out=0), "One disturbed round decides nothing: the interval leaves out one at each end."),
        (partial(agreed, left_out=2), "The interval leaves out one ratio at each end, not two."),
        (lambda a, b: agreed(b, a), "A ratio a / b below 1 says that a takes less time."),
        (lambda a, b: agreed(sorted(a), sorted(b)[::-1]), "The i-th time of a belongs to the i-th of b: a pair."),
    ],
    why=lambda a, b, found: (
        'The answer is "a", "b", or, if 1 lies in the interval, "neither": two medians, or two '
        "best times, always differ, and that is no claim yet."
    ),
)


class Machine:
    """A device with a clock of its own. It works after a call has returned, and every call takes it a little longer."""

    LAUNCH, SETUP, DRIFT = 0.01, 50.0, 0.02  # seconds, seconds, share of the work by which a call is slower

    def __init__(self, *work: float):
        self.now = self.idle_at = self.calls = 0.0
        self.true = [[] for _ in work]  # what each call takes by itself, from an idle device to an idle one
        self.functions = [partial(self.call, *each) for each in zip(work, self.true, strict=True)]

    def call(self, seconds: float, true: list[float]) -> None:
        self.now += self.LAUNCH + (0.0 if true else self.SETUP)
        seconds *= 1 + self.DRIFT * self.calls
        self.calls += 1
        self.idle_at = max(self.now, self.idle_at) + seconds
        true.append(seconds + self.LAUNCH)

    def clock(self) -> float:
        return self.now

    def wait(self) -> None:
        self.now = max(self.now, self.idle_at)


FAIR = "times of one warm call each, from an idle device to an idle one"


def times_of(answer: Callable, ratio: float, rounds: int) -> str:
    """What the answer's times of two functions on a machine are."""
    machine = Machine(ratio, 1.0)
    given = answer(*machine.functions, rounds, machine.clock, machine.wait)
    for seconds, true in zip(given, machine.true, strict=True):
        if not isinstance(seconds, list | tuple) or len(seconds) != rounds:
            return "something else than a list of the seconds of every round for each of the two"
        for found in seconds:
            if any(abs(found - one) < 1e-6 for one in true[1:]):
                continue
            if found > Machine.SETUP or abs(found - true[0]) < 1e-6:
                return "times of a first call, which sets things up: it belongs outside the clock"
            if found < min(true):
                return "times of the asking alone: a call works on after it has returned"
            return "times of earlier calls, too: was the device still at work on them when the clock started?"
    median = statistics.median(a / b for a, b in zip(*given, strict=True))
    fair = abs(median / ratio - 1) <= 1.5 * Machine.DRIFT
    return FAIR if fair else "times of which one side's were always taken later, and the machine grows slower"


fair_times = compared(
    lambda ratio, rounds: FAIR,
    lambda: [(1.0, 10), (1.0, 1), *((random.uniform(0.5, 2), random.randrange(6, 20)) for _ in range(4))],
    given=lambda ratio, rounds: f"{rounds} rounds of a function that takes {ratio:.2f} times as long as the other",
    run=times_of,
)
