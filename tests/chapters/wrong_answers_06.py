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


def own_times(events, *, ordered=True, callers=slice(-1, None), ended=lambda end, start: end <= start):
    """The solution of 06.3, but for what is changed."""
    found, running = {}, []
    for name, start, end in sorted(events, key=lambda event: (event[1], -event[2])) if ordered else events:
        while running and ended(running[-1][1], start):
            running.pop()
        found[name] = found.get(name, 0) + end - start
        for caller, _ in running[callers]:
            found[caller] -= end - start
        running.append((name, end))
    return found


@wrong("06.3", "What an event called is in its time")
def nothing_is_taken_away(events):
    return own_times(events, callers=slice(0))


@wrong("06.3", "Take an event's time from the one that called it, and from none above")
def taken_from_all_above(events):
    return own_times(events, callers=slice(None))


@wrong("06.3", "step from 0 to 100")
def the_second_is_in_the_first_if_it_begins_as_that_ends(events):
    return own_times(events, ended=lambda end, start: end < start)


@wrong("06.3", "mm from 60 to 90, step from 0 to 100")
def in_the_order_given(events):
    return own_times(events, ordered=False)
