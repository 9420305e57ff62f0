"""Checks of chapter 05's exercises: what ten rounds allow one to claim, a timing mended, where more threads pay."""

import random
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import matplotlib.pyplot as plt
import torch

from mnist_gpu.device import usable_cpus
from mnist_gpu.exercises.verdicts import MEND, PREDICT, WRITE, Undecided, Wrong, count_of, exercise
from mnist_gpu.measuring import plots
from mnist_gpu.measuring.timing import alternate, compare, compare_all
from mnist_gpu.measuring.workloads import repeat, training_step

WIDTHS = (32, 128, 512, 2048)
SPREAD = 1.5  # an interval whose ends are farther apart is of a machine that is busy: it would be another next time


@exercise("05.1", WRITE, "May a claim be made?")
def may_be_claimed(answer: Callable) -> str:
    kinds = (clear, equal, slowing, partial(disturbed, 1), partial(disturbed, 2), coarse_clock)
    cases = [kind() for kind in kinds for _ in range(4)]
    for seconds, hint in cases:
        said, found = answer(*map(list, seconds.values())), compare(seconds, "a", "b")
        right = "neither" if not found.differs else "a" if found.ratio < 1 else "b"
        if said not in ("a", "b", "neither"):
            raise Wrong(f'It gives {said!r}, but the answer is "a", "b" or "neither".')
        if said != right:
            draw = partial(draw_ratios, seconds)
            raise Wrong(f'It says "{said}", but should say "{right}". {hint} These are the ratios:', draw)
    return f"As `compare` decides, for {len(cases)} times ten rounds."


def either(slow: list[float], fast: list[float]) -> dict[str, list[float]]:
    """The seconds of a and b, one of which is the slow one."""
    return {"a": slow, "b": fast} if random.random() < 0.5 else {"a": fast, "b": slow}


def rounds(ratio: float, noise: float, speeds: Sequence[float] = (1.0,) * 10) -> tuple[list[float], list[float]]:
    """Ten seconds of two sides, the first of which takes `ratio` times as long; in round i all takes `speeds[i]`."""
    return tuple([0.1 * take * s * random.uniform(1, 1 + noise) for s in speeds] for take in (ratio, 1.0))


def clear():
    seconds = either(*rounds(random.uniform(1.2, 3.0), 0.05))
    below = seconds["a"] < seconds["b"]
    return seconds, f"All ratios a / b are {'below' if below else 'above'} 1: {'ab'[not below]} takes less time."


def equal():
    while compare(seconds := either(*rounds(1.0, 0.2)), "a", "b").differs:
        pass
    return (
        seconds,
        "Some rounds say a, some say b. Two medians, or two best times, always differ: that is no claim yet.",
    )


def slowing():
    speeds = [1 + 0.3 * i * random.uniform(0.9, 1.1) for i in range(10)]
    hint = "The machine grows slower, for a and b alike. The i-th time of a belongs to the i-th of b: they are a pair."
    return either(*rounds(1.05, 0.01, speeds)), hint


def disturbed(times: int):
    """In so many rounds the faster side is disturbed."""
    slow, fast = rounds(1.1, 0.02)
    for i in random.sample(range(10), times):
        fast[i] *= random.uniform(2, 5)
    if times == 1:
        hint = "One disturbed round decides nothing: the interval leaves out the smallest ratio and the largest."
    else:
        hint = "Two of the ten rounds say the opposite: the interval leaves out one ratio at each end, not two."
    return either(slow, fast), hint


def coarse_clock():
    slow, fast = [0.03] * 10, [0.03] * 10
    for i in random.sample(range(10), random.choice((7, 8))):
        slow[i] += 0.01
    return either(slow, fast), "In some rounds the two are equal, and an interval that ends at 1 has 1 in it."


def draw_ratios(seconds: dict[str, list[float]]) -> None:
    """The ratio of every round, the interval and the line where both are equal."""
    ratios, (low, high) = [a / b for a, b in zip(*seconds.values(), strict=True)], compare(seconds, "a", "b").interval
    axis = plt.subplots(figsize=(8, 3))[1]
    axis.axhspan(low, high, color=plots.PALETTE[5], alpha=0.3, label="the interval")
    axis.axhline(1, color="black", linestyle=":", label="equal")
    axis.plot(range(1, 11), ratios, "o", color=plots.PALETTE[0], label="a / b")
    axis.set(xlabel="round", ylabel="ratio of the times", xticks=range(1, 11))
    axis.legend()
    plt.show()
    print(f"Second smallest {low:.3f}, second largest {high:.3f}.")


class Machine:
    """A device with a clock of its own. It works after a call has returned, and every call takes it a little longer."""

    LAUNCH, SETUP, DRIFT = 0.01, 50.0, 0.02  # seconds, seconds, share of the work by which a call is slower

    def __init__(self, **work: float):
        self.now = self.idle_at = self.calls = 0.0
        self.true = {name: [] for name in work}  # what each call takes by itself, from an idle device to an idle one
        self.functions = [partial(self.call, name, seconds) for name, seconds in work.items()]

    def call(self, name: str, seconds: float) -> None:
        self.now += self.LAUNCH + (0.0 if self.true[name] else self.SETUP)
        seconds *= 1 + self.DRIFT * self.calls
        self.calls += 1
        self.idle_at = max(self.now, self.idle_at) + seconds
        self.true[name].append(seconds + self.LAUNCH)

    def clock(self) -> float:
        return self.now

    def wait(self) -> None:
        self.now = max(self.now, self.idle_at)


@exercise("05.2", MEND, "A comparison that favours one side")
def fair_times(answer: Callable) -> str:
    cases = [(10, 1.0), (1, 1.0), *((random.randrange(6, 20), random.uniform(0.5, 2)) for _ in range(4))]
    for rounds, ratio in cases:
        machine = Machine(a=ratio, b=1.0)
        given = answer(*machine.functions, rounds, machine.clock, machine.wait)
        for (name, true), seconds in zip(machine.true.items(), given, strict=True):
            other, true_of_other = next(item for item in machine.true.items() if item[0] != name)
            if not isinstance(seconds, list | tuple):
                raise Wrong(f"For {name} it gives {seconds!r}, but should give a list: the seconds of every round.")
            if len(seconds) != rounds:
                raise Wrong(f"For {name} it gives {count_of(len(seconds), 'time')} of {count_of(rounds, 'round')}.")
            if all(any(abs(found - right) < 1e-6 for right in true_of_other) for found in seconds):
                raise Wrong(f"What it gives as the seconds of {name} are those of {other}.")
            for i, found in enumerate(seconds, start=1):
                _time_of_one_call(f"Time {i} of {name} is {found:.3g} s. ", found, true)
        median = statistics.median(a / b for a, b in zip(*given, strict=True))
        if abs(median / ratio - 1) > 1.5 * Machine.DRIFT:
            raise Wrong(
                f"a takes {ratio:.2f} times as long as b, but the times say {median:.2f}. The machine grows slower all "
                "the time: which of the two is always timed later?"
            )
    return f"On a simulated machine that grows slower, for {len(cases)} pairs of functions."


def _time_of_one_call(text: str, found: float, true: Sequence[float]) -> None:
    """Raises Wrong if `found` is not what one warm call took."""
    if any(abs(found - seconds) < 1e-6 for seconds in true[1:]):
        return
    if found > Machine.SETUP or abs(found - true[0]) < 1e-6:
        raise Wrong(text + "That is a first call, which sets things up. It belongs outside the clock.")
    if found < min(true):
        raise Wrong(text + f"Calls took {min(true):.3g} s and more: this is the asking alone, not the work.")
    raise Wrong(
        text + f"Calls took {max(true):.3g} s and less: was the device still at work on earlier ones when it began?"
    )


@exercise("05.3", PREDICT, "From which width on do more threads pay?")
def threads_pay(answer: object) -> str:
    if answer not in (*WIDTHS, "never"):
        raise Wrong(f'The answer is {answer!r}, but should be one of {", ".join(map(str, WIDTHS))} or "never".')
    if (threads := usable_cpus()) == 1:
        raise Undecided("this computer has one usable CPU: more threads than one cannot be tried.")
    sides = {}
    for width in WIDTHS:
        step, count = training_step(torch.device("cpu"), 128, width), max(1, 256 // width)
        for who, with_threads in (("one thread", 1), (f"{threads} threads", threads)):
            sides[f"{who} at width {width}"] = partial(repeat, step, count, with_threads)
    pairs = list(zip(*[iter(sides)] * 2, strict=True))
    found = dict(zip(WIDTHS, compare_all(alternate(sides), pairs), strict=True))
    shown = {width: c.ratio for width, c in found.items() if c.differs and c.interval[1] < SPREAD * c.interval[0]}
    said = " ".join(f"Width {w}: {c.times}{'' if w in shown else ' (nothing shown)'}." for w, c in found.items())
    said = f"{threads} threads are so many times as fast as one: {said}"
    first = float("inf") if answer == "never" else answer
    if wrong := [width for width, ratio in shown.items() if ratio > 1 and width < first]:
        raise Wrong(f"At width {wrong[0]}, below the answer, more threads pay already. {said}")
    if wrong := [width for width, ratio in shown.items() if ratio < 1 and width >= first]:
        raise Wrong(f"At width {wrong[-1]} more threads do not pay. {said}")
    if (answer if answer in WIDTHS else WIDTHS[-1]) not in shown:
        raise Undecided(f"nothing can be claimed about {answer} on this machine now. {said}")
    return said
