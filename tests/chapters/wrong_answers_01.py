"""Wrong answers to chapter 01's exercises, each with a part of the hint that it gets."""

from wrong import WrongAnswers

wrong = WrongAnswers()


@wrong("01.1", "it timed the asking")
def never_waits_at_the_end(operation, wait, clock):
    operation()
    wait()
    start = clock()
    operation()
    return clock() - start


@wrong("01.1", "work of the warm-up was still in the queue")
def does_not_wait_for_the_warm_up(operation, wait, clock):
    operation()
    start = clock()
    operation()
    wait()
    return clock() - start


@wrong("01.1", "The first call of the operation is in it")
def cold(operation, wait, clock):
    wait()
    start = clock()
    operation()
    wait()
    return clock() - start


wrong.value("01.1", "of one call", lambda operation, wait, clock: operation() or clock())
wrong.value("01.2", "The sum is put before", ["sum", "matrix times vector", "copy", "product"])
wrong.value("01.2", "The product is put before the copy", ["matrix times vector", "sum", "product", "copy"])
wrong.value("01.2", "These four, each once", ["matrix times vector", "sum", "copy"])


@wrong("01.3", "no kernel image is available")
def catches_nothing(devices, compute):
    return next((device for device in devices if compute(device) == 64**3), "cpu")


def sum_of(device, compute):
    """What the device gives, or None if it stops."""
    try:
        return compute(device)
    except RuntimeError:
        return None


@wrong("01.3", "Is the number looked at that it gives?")
def believes_every_number(devices, compute):
    return next((device for device in devices if sum_of(device, compute)), "cpu")


@wrong("01.3", "Its error was caught, but what then?")
def takes_the_one_that_stops(devices, compute):
    return next((device for device in devices if sum_of(device, compute) in (None, 64**3)), "cpu")


@wrong("01.3", "it gives None, but should give 'cpu'")
def forgets_the_cpu(devices, compute):
    return next((device for device in devices if sum_of(device, compute) == 64**3), None)
