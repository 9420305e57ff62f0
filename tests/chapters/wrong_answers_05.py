"""Wrong answers to chapter 05's exercises, each with a part of the hint that it gets."""

import statistics

from wrong import WrongAnswers

wrong = WrongAnswers()


def claim(a, b, smallest=1, largest=-2):
    """The right answer, or one by other ratios than the second smallest and the second largest."""
    ratios = sorted(x / y for x, y in zip(a, b, strict=True))
    return "b" if ratios[smallest] > 1 else "a" if ratios[largest] < 1 else "neither"


def by_medians(a, b):
    return "a" if statistics.median(a) < statistics.median(b) else "b"


def not_in_pairs(a, b):
    return "a" if sorted(a)[-2] < sorted(b)[1] else "b" if sorted(b)[-2] < sorted(a)[1] else "neither"


wrong.value("05.1", "that is no claim yet", by_medians)
wrong.value("05.1", "a pair", not_in_pairs)
wrong.value("05.1", "below 1 says that a takes less time", lambda a, b: claim(b, a))
wrong.value("05.1", "One disturbed round decides nothing", lambda a, b: claim(a, b, 0, -1))
wrong.value("05.1", "one ratio at each end, not two", lambda a, b: claim(a, b, 2, -3))


def timed(a, b, rounds, clock, wait, *, warm=True, idle=True, ended=True, in_turn=True):
    """The right answer, or one with a mistake."""
    seconds = [], []

    def once(function, found):
        if idle:
            wait()
        start = clock()
        function()
        if ended:
            wait()
        found.append(clock() - start)

    for function in (a, b) if warm else ():
        function()
    pairs = list(zip((a, b), seconds, strict=True))
    for pair in pairs * rounds if in_turn else [pair for pair in pairs for _ in range(rounds)]:
        once(*pair)
    return seconds


wrong.value("05.2", "a first call, which sets things up", lambda *given: timed(*given, warm=False))
wrong.value("05.2", "still at work on them", lambda *given: timed(*given, idle=False))
wrong.value("05.2", "of the asking alone", lambda *given: timed(*given, ended=False))
wrong.value("05.2", "always taken later", lambda *given: timed(*given, in_turn=False))
wrong.value("05.2", "the seconds of every round", lambda a, b, rounds, *given: timed(a, b, rounds - 1, *given))
