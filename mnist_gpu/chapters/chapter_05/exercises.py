"""Checks of chapter 05's exercises: what ten rounds allow one to claim, a timing mended, the mistakes of a report."""

import random
import statistics
from collections.abc import Callable, Iterator
from functools import partial

from mnist_gpu.measuring.exercises import MEND, WRITE, Exercise, checker, compared, in_time


def agreed(a: list[float], b: list[float], left_out: int = 1) -> str:
    """What an interval claims that leaves out so many of the ratios at each end: one, of ten."""
    ratios = sorted(x / y for x, y in zip(a, b, strict=True))[left_out : len(a) - left_out]
    return "b" if ratios[0] > 1 else "a" if ratios[-1] < 1 else "neither"


def ten_rounds() -> Iterator[list[list[float]]]:
    """Four times each: a clear case, a machine that grows slower, equal sides, one and two disturbed rounds."""
    kinds = ((1.5, 0.05, 0, 0), (1.05, 0.01, 0.3, 0), (1.0, 0.2, 0, 0), (1.1, 0.02, 0, 1), (1.1, 0.02, 0, 2))
    for ratio, noise, slowing, disturbed in 4 * kinds:
        a, b = ([x * (1 + slowing * i) * random.uniform(1, 1 + noise) for i in range(10)] for x in (ratio, 1.0))
        for i in random.sample(range(10), disturbed):
            b[i] *= random.uniform(2, 5)
        yield random.sample([a, b], 2)


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

    def wait(self) -> None:
        self.now = max(self.now, self.idle_at)


def times_of(answer: Callable, ratio: float, rounds: int) -> str:
    """What is wrong with the answer's times of two functions on a machine."""
    machine = Machine(ratio, 1.0)
    given = [list(seconds) for seconds in answer(*machine.functions, rounds, lambda: machine.now, machine.wait)]
    if [*map(len, given)] != [rounds, rounds] or not all(machine.true):
        return "it has to be two lists, with the seconds of every round"
    for seconds, (first, *warm) in zip(given, machine.true, strict=True):
        least = min([first, *warm])
        for found in seconds:
            if own := next((one for one in warm if abs(found - one) < 1e-6), None):
                warm.remove(own)  # each is the time of one round
            elif found > Machine.SETUP or abs(found - first) < 1e-6:
                return "there is a first call in it, which sets things up: it belongs outside the clock"
            elif found < least:
                return "these are times of the asking only: a call works on after it has returned"
            else:
                return "other calls are in it, too: was the device still at work on them when the clock started?"
    off = statistics.median(a / b for a, b in zip(*given, strict=True)) / ratio - 1
    later = "one side's times were always taken later, and the machine grows slower"
    return later if abs(off) > 3 * Machine.DRIFT else ""  # which leaves room for a call to warm up before each


MISTAKES = {  # that one side of a report may make
    "not waited for": lambda s: min(s["seconds"]) < s["operations"] / s["rate"],
    "cold start": lambda s: s["seconds"][0] > 10 * statistics.median(s["seconds"][1:] or s["seconds"]),
    "idle cores": lambda s: s["threads"] < s["cores"],
    "too few times": lambda s: len(s["seconds"]) < 6,
}


def mistakes(report: dict) -> list[str]:
    a, b = report.values()
    found = [name for name, made in MISTAKES.items() if made(a) or made(b)]
    return sorted(found + ["different work"] * (a["operations"] != b["operations"]))


def one_side(operations: int) -> dict:
    """Each mistake in some, and near misses: a time just possible, or only long; six times; some of the cores."""
    cores, count, slow, last = (random.choice(c) for c in ((1, 4, 9), (1, 2, 5, 6, 20), (1, 4, 30), (1, 1, 0.01, 40)))
    seconds = [random.choice((2.0, 2.4, 2.9)) for _ in range(count)]
    seconds[0] *= slow
    seconds[-1] *= last
    threads, rate = random.choice((cores, cores, max(1, cores // 2))), random.choice((4.0, 9.0))
    return {"operations": operations, "rate": rate, "threads": threads, "cores": cores, "seconds": seconds}


EXERCISES = (
    Exercise("05.1", WRITE, "May a claim be made?", compared(
        agreed, ten_rounds,
        given=lambda a, b: f"Ratios a / b: {' '.join(f'{r:.3g}' for r in sorted(map(float.__truediv__, a, b)))}",
        hints=[
            (partial(agreed, left_out=0), "One disturbed round decides nothing: leave out one ratio at each end."),
            (partial(agreed, left_out=2), "The interval leaves out one ratio at each end, not two."),
            (lambda a, b: agreed(b, a), "A ratio a / b below 1 says that a takes less time."),
            (lambda a, b: agreed(sorted(a), sorted(b)[::-1]), "The i-th time of a belongs to the i-th of b: a pair."),
        ],
        why=lambda *_: 'If 1 lies in the interval, it is "neither": two medians always differ, and claim nothing yet.',
        run=in_time,
    )),
    Exercise("05.2", MEND, "A comparison that favours one side", compared(
        lambda ratio, rounds: "",
        lambda: [(1.0, 10), (1.0, 1), *((random.uniform(0.5, 2), random.randrange(6, 20)) for _ in range(4))],
        given=lambda ratio, rounds: f"{rounds} rounds, a takes {ratio:.2f} times as long as b (what is wrong)",
        run=partial(in_time, times_of),
    )),
    Exercise("05.3", WRITE, "Which mistakes does a report make?", compared(
        mistakes,
        lambda: [({"old": one_side(8), "new": one_side(random.choice((8, 8, 6)))},) for _ in range(40)],
        given=lambda report: f"The report {report}",
        why=lambda report, found: f"Read the rule again of: {', '.join(sorted({*found} ^ {*mistakes(report)}))}.",
        run=lambda answer, report: sorted({*in_time(answer, report)}),
    )),
)  # fmt: skip
check = checker(EXERCISES)
