"""Wrong answers to chapter 05's exercises, each with a part of the hint that it gets."""

from functools import partial
from statistics import mean, median

from wrong import WrongAnswers

from mnist_gpu.chapters.chapter_05 import MISTAKES

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


def mistakes(report, *, sides=("old", "new"), **rules):
    """The right answer, or one with another rule."""
    made = MISTAKES | {name.replace("_", " "): rule for name, rule in rules.items()}
    found = {name for name, rule in made.items() for side in sides if rule(report[side])}
    return found | {"different work"} if report["old"]["operations"] != report["new"]["operations"] else found


for rule in (
    {"not_waited_for": lambda s: median(s["seconds"]) < s["operations"] / s["rate"]},
    {"not_waited_for": lambda s: min(s["seconds"]) <= s["operations"] / s["rate"]},
    {"cold_start": lambda s: s["seconds"][0] > 10 * median(s["seconds"])},
    {"cold_start": lambda s: s["seconds"][0] > 10 * mean(s["seconds"][1:] or s["seconds"])},
    {"idle_cores": lambda s: s["threads"] == 1 < s["cores"]},
    {"too_few_times": lambda s: len(s["seconds"]) < 7},
    {"too_few_times": lambda s: len(s["seconds"]) < 5},
):
    wrong.value("05.3", f"again of: {min(rule).replace('_', ' ')}.", partial(mistakes, **rule))
wrong.value("05.3", "again of: too few times", partial(mistakes, sides=["old"]))
for name in ("05.1", "05.2", "05.3"):
    wrong.value(name, "had not ended", lambda *given: [0 for _ in iter(int, 1)])
