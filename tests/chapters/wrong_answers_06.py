"""Wrong answers to chapter 06's exercises."""

import itertools
from functools import partial

from wrong import WrongAnswers

wrong = WrongAnswers()


def account(whole, parts, without, noise, *, known=False, nothing=1.0, near=1.0, most=1, too_much="too much"):
    """The solution of 06.1, but for what is changed."""
    gap = whole - sum(parts.values())
    if abs(gap) <= nothing * noise:
        return "nothing"
    if gap < 0:
        return too_much
    fits = [c for c in without if (known or c not in parts) and -noise <= whole - without[c] - gap <= near * noise]
    return fits[0] if 1 <= len(fits) <= most else "unexplained"


wrong.value("06.1", "was found before", partial(account, known=True, most=2))
wrong.value("06.1", "should give 'nothing'", partial(account, nothing=0.0))
wrong.value("06.1", "should give 'too much'", partial(account, too_much="unexplained"))
wrong.value("06.1", "should give 'unexplained'", partial(account, most=2))
wrong.value("06.1", "Of the causes left, each saves", partial(account, near=1.2))


def batch(inputs, outputs, ridge, *, size=4, weights=1, written=1, most=0):
    """The solution of 06.2, but for what is changed; `most` is added to the batch."""
    image = 2 * inputs * outputs - ridge * size * (inputs + written * outputs)
    return max(1, -(-ridge * size * weights * inputs * outputs // image)) + most if image > 0 else None


wrong.value("06.2", "Is it the smallest?", partial(batch, weights=0))
wrong.value("06.2", "Is it the smallest?", partial(batch, written=0))
wrong.value("06.2", "Is it the smallest?", partial(batch, size=1))
wrong.value("06.2", "A batch is a whole number from 1", partial(batch, most=-0.5))
wrong.value("06.2", "had not ended", lambda *layer: next(b for b in itertools.count(1) if batch(*layer) == b))


def removed(host, gpu, *, largest=max, least=True):
    """The solution of 06.3, but for what is changed."""
    longer, shorter = (host, gpu) if sum(host.values()) > sum(gpu.values()) else (gpu, host)
    cause, now = largest(longer, key=longer.get), sum(longer.values())
    return cause, now / max(now - longer[cause], least * sum(shorter.values()))


wrong.value("06.3", "a step is not their sum", lambda host, gpu: removed(host | gpu, {}))
wrong.value("06.3", "A step still waits for the other side", lambda *sides: removed(*sides, least=False))
wrong.value("06.3", "the largest cause", lambda *sides: removed(*sides, largest=min))
for name in ("06.1", "06.3"):
    wrong.value(name, "had not ended", lambda *given: [0 for _ in iter(int, 1)])
wrong.value("06.3", "the time now", lambda *sides: (removed(*sides)[0], 1 / removed(*sides)[1]))
