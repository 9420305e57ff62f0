"""Wrong answers to chapter 06's exercises."""

from wrong import WrongAnswers

wrong = WrongAnswers()


def account(whole, parts, without, *, known=False, nothing=0.05, near=0.05):
    """The solution of 06.1, but for what is changed."""
    gap = whole - sum(parts.values())
    if abs(gap) <= nothing * whole:
        return "nothing"
    for cause, us in without.items():
        if (known or cause not in parts) and abs(whole - us - gap) <= near * whole:
            return cause
    return "unexplained"


def one_that_saves_too_much(whole, parts, without):
    gap = whole - sum(parts.values())
    enough = (cause for cause, us in without.items() if cause not in parts and whole - us >= gap - 0.05 * whole)
    return "nothing" if abs(gap) <= 0.05 * whole else next(enough, "unexplained")


wrong.value("06.1", "it was found before", lambda *given: account(*given, known=True))
wrong.value("06.1", "should give 'nothing'", lambda *given: account(*given, nothing=0.0))
wrong.value("06.1", "should give 'unexplained'", one_that_saves_too_much)
wrong.value("06.1", "Of the causes left, each saves", lambda *given: account(*given, nothing=0.06))
wrong.value("06.1", "Of the causes left, each saves", lambda *given: account(*given, near=0.06))


def batch(inputs, outputs, ridge, *, size=4, weights=1, written=1, most=0):
    """The solution of 06.2, but for what is changed; `most` is added to the batch."""
    image = 2 * inputs * outputs - ridge * size * (inputs + written * outputs)
    return max(1, -(-ridge * size * weights * inputs * outputs // image)) + most if image > 0 else None


wrong.value("06.2", "The weights are read, too, once a batch", lambda *layer: batch(*layer, weights=0))
wrong.value("06.2", "The result, [B, outputs], is written", lambda *layer: batch(*layer, written=0))
wrong.value("06.2", "A float32 has four bytes", lambda *layer: batch(*layer, size=1))
wrong.value("06.2", "operations per byte; with one fewer it is", lambda *layer: batch(*layer, most=1))
wrong.value("06.2", "A batch is a whole number from 1", lambda *layer: batch(*layer, most=-0.5))
