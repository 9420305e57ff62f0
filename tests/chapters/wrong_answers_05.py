"""Wrong answers to chapter 05's exercises, each with a part of the hint that it gets."""

from functools import partial
from statistics import median

from wrong import WrongAnswers

wrong = WrongAnswers()


def claim(a, b, smallest=1, largest=-2):
    """The right answer, or one by other ratios than the second smallest and the second largest."""
    ratios = sorted(x / y for x, y in zip(a, b, strict=True))
    return "b" if ratios[smallest] > 1 else "a" if ratios[largest] < 1 else "neither"


wrong.value("05.1", "claim nothing yet", lambda a, b: "a" if median(a) < median(b) else "b")
wrong.value("05.1", "a pair", lambda a, b: claim(sorted(a), sorted(b, reverse=True)))
wrong.value("05.1", "below 1 says that a takes less time", lambda a, b: claim(b, a))
wrong.value("05.1", "One disturbed round decides nothing", lambda a, b: claim(a, b, 0, -1))
wrong.value("05.1", "one ratio at each end, not two", lambda a, b: claim(a, b, 2, -3))


def timed(a, b, rounds, clock, wait, *, warm=True, idle=True, ended=True, in_turn=True, warm_each=False):
    """The right answer, or one with a mistake."""
    seconds = [], []

    for function in (a, b) if warm else ():
        function()
    pairs = list(zip((a, b), seconds, strict=True))
    for function, found in pairs * rounds if in_turn else [pair for pair in pairs for _ in range(rounds)]:
        for before in [function] * warm_each + [wait] * idle:
            before()
        start = clock()
        function()
        if ended:
            wait()
        found.append(clock() - start)
    return seconds


wrong.value("05.2", "a first call in it", partial(timed, warm=False))
wrong.value("05.2", "still at work on them", partial(timed, idle=False))
wrong.value("05.2", "of the asking only", partial(timed, ended=False))
wrong.value("05.2", "always taken later", partial(timed, in_turn=False))
wrong.value("05.2", "the seconds of every round", lambda a, b, rounds, clock, wait: ([1.0] * rounds, [1.0] * rounds))
wrong.value("05.2", "other calls are in it", lambda *given: [[min(each)] * given[2] for each in timed(*given)])
wrong.value("05.2", "the seconds of every round", lambda a, b, rounds, *given: timed(a, b, rounds - 1, *given))
for name in ("05.1", "05.2"):
    wrong.value(name, "had not ended", lambda *given: [0 for _ in iter(int, 1)])
