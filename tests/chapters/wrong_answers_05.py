"""Wrong answers to chapter 05's exercises, each with a part of the hint that it gets."""

import statistics

from wrong import WrongAnswers

wrong = WrongAnswers()


def claim(a, b, smallest=1, largest=-2):
    """The right answer, or one by other ratios than the second smallest and the second largest."""
    ratios = sorted(x / y for x, y in zip(a, b, strict=True))
    return "b" if ratios[smallest] > 1 else "a" if ratios[largest] < 1 else "neither"


@wrong("05.1", "that is no claim yet")
def by_medians(a, b):
    return "a" if statistics.median(a) < statistics.median(b) else "b"


@wrong("05.1", "a pair")
def not_in_pairs(a, b):
    return "a" if sorted(a)[-2] < sorted(b)[1] else "b" if sorted(b)[-2] < sorted(a)[1] else "neither"


@wrong("05.1", "below 1 says that a takes less time")
def the_slower_one(a, b):
    return claim(b, a)


@wrong("05.1", "One disturbed round decides nothing")
def by_all_ratios(a, b):
    return claim(a, b, 0, -1)


@wrong("05.1", "one ratio at each end, not two")
def by_six_ratios(a, b):
    return claim(a, b, 2, -3)


@wrong("05.1", "An interval that ends at 1 has 1 in it")
def with_ends_at_1(a, b):
    ratios = sorted(x / y for x, y in zip(a, b, strict=True))
    return "b" if ratios[1] >= 1 else "a" if ratios[-2] <= 1 else "neither"


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


@wrong("05.2", "a first call, which sets things up")
def cold(*given):
    return timed(*given, warm=False)


@wrong("05.2", "still at work on them")
def while_it_is_at_work(*given):
    return timed(*given, idle=False)


@wrong("05.2", "of the asking alone")
def not_waiting(*given):
    return timed(*given, ended=False)


@wrong("05.2", "always taken later")
def one_after_the_other(*given):
    return timed(*given, in_turn=False)


@wrong("05.2", "the seconds of every round")
def one_round_too_few(a, b, rounds, clock, wait):
    return timed(a, b, rounds - 1, clock, wait)
