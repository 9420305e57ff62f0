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


@wrong("06.1", "it was found before")
def one_that_was_found(whole, parts, without):
    return account(whole, parts, without, known=True)


@wrong("06.1", "Of the causes left, each saves")
def the_first_that_is_left(whole, parts, without):
    return account(whole, parts, without, near=1.0)


@wrong("06.1", "should give 'nothing'")
def never_nothing(whole, parts, without):
    return account(whole, parts, without, nothing=0.0)


@wrong("06.1", "should give 'unexplained'")
def one_that_saves_too_much(whole, parts, without):
    gap = whole - sum(parts.values())
    enough = (cause for cause, us in without.items() if cause not in parts and whole - us >= gap - 0.05 * whole)
    return "nothing" if abs(gap) <= 0.05 * whole else next(enough, "unexplained")


wrong.value("06.1", "Of the causes left", lambda *a: account(*a, nothing=0.06, near=0.06))


def batch(inputs, outputs, ridge, *, size=4, weights=1, written=1, most=0):
    """The solution of 06.2, but for what is changed; `most` is added to the batch."""
    image = 2 * inputs * outputs - ridge * size * (inputs + written * outputs)
    return max(1, -(-ridge * size * weights * inputs * outputs // image)) + most if image > 0 else None


@wrong("06.2", "The weights are read, too, once a batch")
def without_the_weights(inputs, outputs, ridge):
    return batch(inputs, outputs, ridge, weights=0)


@wrong("06.2", "The result, [B, outputs], is written")
def without_the_result(inputs, outputs, ridge):
    return batch(inputs, outputs, ridge, written=0)


@wrong("06.2", "A float32 has four bytes")
def numbers_instead_of_bytes(inputs, outputs, ridge):
    return batch(inputs, outputs, ridge, size=1)


@wrong("06.2", "operations per byte; with one fewer it is")
def one_too_many(inputs, outputs, ridge):
    return batch(inputs, outputs, ridge, most=1)


@wrong("06.2", "A batch is a whole number from 1")
def a_fraction(inputs, outputs, ridge):
    found = batch(inputs, outputs, ridge)
    return found and found - 0.5
