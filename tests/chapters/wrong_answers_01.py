"""Wrong answers to chapter 01's exercises, each with a part of the hint that it gets."""

from functools import partial

from wrong import WrongAnswers

wrong = WrongAnswers()


def steps(text, *given):
    start, end = [now for step in text if (now := given["owc".index(step)]()) is not None]
    return end - start


wrong("01.1", "it timed the asking")(partial(steps, "owcoc"))
wrong("01.1", "work of the warm-up was still in the queue")(partial(steps, "ocowc"))
wrong("01.1", "The first call of the operation is in it")(partial(steps, "wcowc"))
wrong("01.1", "of one call")(partial(steps, "owcooowc"))
wrong("01.1", "had not ended after 3 seconds")(lambda *given: [0 for _ in iter(int, 1)])
wrong.value("01.1", "cannot be used", "owcowc")
LINES = {f"size_{i} = loss.shape": 0 for i in range(5)} | {"mean = float(loss) / 128": True}
wrong.value("01.2", "it stops: Python needs a number", LINES | {"wrong = images[logits.argmax(1) != labels]": False})
wrong.value("01.2", "it runs: Python needs no number", LINES | {"logits = images @ weights": True})
wrong.value("01.2", "'print(loss.item())', tried on meta", LINES | {"print(loss.item())": False})
wrong.value("01.2", "Of six lines", {"loss.item()": True})
wrong.value("01.2", "It had not ended", LINES | {"while True: pass": False})
wrong.value("01.2", "must have same reduction dim", LINES | {"images @ images": True})  # stops on every device


def sum_of(device, compute):
    """What the device gives, or None if it stops."""
    try:
        return compute(device)
    except RuntimeError:
        return None


def first(found, good=(64**3,), otherwise="cpu"):
    return next((device for device, given in found if given in good), otherwise)


def all_of(devices, compute):
    return [(device, sum_of(device, compute)) for device in devices]


wrong("01.3", "no kernel image is available")(lambda devices, compute: first((d, compute(d)) for d in devices))
wrong("01.3", "Is the number looked at that it gives?")(
    lambda *given: next((device for device, found in all_of(*given) if found), "cpu")
)
wrong("01.3", "Its error was caught, but what then?")(lambda *given: first(all_of(*given), (None, 64**3)))
wrong("01.3", "it gives None, but should give 'cpu'")(lambda *given: first(all_of(*given), otherwise=None))
