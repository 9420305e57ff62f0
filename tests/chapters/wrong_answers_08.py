"""Wrong answers to chapter 08's exercises, each with a part of the hint that it gets."""

import math

from wrong import WrongAnswers

wrong = WrongAnswers()


@wrong("08.1", "Which numbers does a warp read together")
def a_share_each(thread, step, threads, count):
    i = thread * math.ceil(count / threads) + step
    return i if i < count else None


wrong.value("08.1", "more than once", lambda thread, step, threads, count: min(step * threads + thread, count - 1))
wrong.value("08.1", "where the last is", lambda thread, step, threads, count: step * threads + thread)
wrong.value("08.1", "gives '32 of 64 numbers'", lambda thread, step, threads, count: None if step else thread)
wrong.value("08.1", "number 0.5, where the last", lambda thread, step, threads, count: step * threads + thread + 0.5)
wrong.value("08.1", "had not ended", lambda *_: [None for _ in iter(int, 1)])

wrong.value("08.2", "once a warp", lambda side, costs: [sum(costs[s] for s in w.tolist()) for w in side.split(32)])
wrong.value("08.2", "sides add up", lambda side, costs: [max(costs[s] for s in w) for w in side.split(32)])
wrong.value("08.2", "that no lane takes", lambda side, costs: [sum(costs) for _ in side.split(32)])
wrong.value("08.2", "may cost the same", lambda s, costs: [sum({costs[i] for i in w.tolist()}) for w in s.split(32)])
wrong.value("08.2", "for one that is not full", lambda s, costs: [sum(costs)] * (len(s) // 32))


def tile(m, n, k, tiles, shared, multiprocessors, *, copies=2, fills=True, bytes_of=None, largest_of_equals=False):
    """The right answer, or one with another rule."""

    def moved(t):
        return math.ceil(m / t) * math.ceil(n / t) * math.ceil(k / t) * t * t, -t if largest_of_equals else t

    found = [t for t in tiles if 4 * copies * t * t <= shared]
    found = [t for t in found if not fills or math.ceil(m / t) * math.ceil(n / t) >= multiprocessors]
    return min(found, key=bytes_of or moved, default=None)


wrong.value("08.3", "Two tiles have to fit", lambda *given: tile(*given, copies=0))
wrong.value("08.3", "have no block", lambda *given: tile(*given, fills=False))
wrong.value("08.3", "largest need not fetch the fewest", lambda *given: tile(*given, bytes_of=lambda t: -t))
wrong.value("08.3", "gives 32, but should give 8", lambda m, n, k, *given: tile(m, n, 10**9, *given))
wrong.value("08.3", "but should give None", lambda *given: tile(*given) or 8)
wrong.value("08.3", "gives 16, but should give 8", lambda *given: tile(*given, largest_of_equals=True))
