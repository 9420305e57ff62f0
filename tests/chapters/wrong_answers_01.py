"""Wrong answers to chapter 01's exercises, each with a part of the hint that it gets."""

from functools import partial

from wrong import WrongAnswers

from mnist_gpu.chapters.chapter_01 import in_steps

wrong = WrongAnswers()


def never_ends(*given):
    while True:
        pass


for hint, steps in (
    ("it timed the asking", "owcoc"), ("work of the warm-up was still in the queue", "ocowc"),
    ("The first call of the operation is in it", "wcowc"), ("of one call", "owcooowc"),
):  # fmt: skip
    wrong.value("01.1", hint, partial(in_steps, steps))
wrong.value("01.1", "cannot be used", "owcowc")
wrong.value("01.1", "had not ended after 3 seconds", never_ends)
LINES = {f"size_{i} = loss.shape": 0 for i in range(5)} | {"mean = float(loss) / 128": True}
wrong.value("01.2", "it stops: Python needs a number", LINES | {"wrong = images[logits.argmax(1) != labels]": False})
wrong.value("01.2", "it runs: Python needs no number", LINES | {"logits = images @ weights": True})
wrong.value("01.2", "'print(loss.item())', tried on meta", LINES | {"print(loss.item())": False})
wrong.value("01.2", "Of six lines", {"loss.item()": True})
wrong.value("01.2", "It had not ended", LINES | {"while True: pass": False})
wrong.value("01.2", "must have same reduction dim", LINES | {"images @ images": True})  # stops on every device


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
