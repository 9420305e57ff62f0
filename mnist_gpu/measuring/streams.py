"""Copies and steps in one stream and in two, by a GPU's own clock, or predicted for a card that is not here."""

from collections.abc import Callable

import torch

from mnist_gpu.batches import normalize
from mnist_gpu.checks import at_least_one
from mnist_gpu.faster.ladder import sgd
from mnist_gpu.measuring.card import card_numbers, predict_graph
from mnist_gpu.measuring.published import published
from mnist_gpu.mnist import load_mnist
from mnist_gpu.model import PIXELS, make_model
from mnist_gpu.training import make_step

Event = tuple[str, str, float, float, int]  # row, name, begin and end in seconds, depth: for plots.timeline
ONE, TWO = "one stream", "two streams"
HOST_BYTES = 4 * PIXELS + 8  # of an image as float32, and its label


def streams_missing(device: torch.device) -> str | None:
    """Why streams cannot be watched on this device, or None."""
    return None if device.type in ("cuda", "xpu") else "needs a GPU with memory, streams and a clock of its own"


def predicted_overlap(card: str, steps: int = 4, batch_size: int = 128, hidden: int = 128) -> list[Event]:
    """The timeline of so many copies and steps on a card that is not here, in one stream and in two.

    A copy: the batch's bytes at the card's published rate from pinned memory. A step: the middle of what is predicted
    for it as a CUDA graph. In one stream each waits for the one before; in two a copy waits for the copy before alone.

    Raises ValueError for a card whose transfers nobody has published, and for one that there is no prediction for.
    """
    at_least_one(steps=steps, batch_size=batch_size, hidden=hidden)
    rates = published(card=card, quantity="pinned transfer")
    if not rates:
        known = dict.fromkeys(f.card for f in published(quantity="pinned transfer"))
        raise ValueError(f"how fast {card} is reached is published of none but {', '.join(known)}")
    copy = batch_size * HOST_BYTES / rates[0].value
    step = predict_graph(card_numbers(card), batch_size, hidden).middle
    events, now = [], 0.0
    for _ in range(steps):
        for name, seconds in (("copy", copy), ("step", step)):
            events.append((f"{ONE}", name, now, now + seconds, 0))
            now += seconds
    copied = done = 0.0
    for _ in range(steps):
        events.append((f"{TWO}: copies", "copy", copied, copied + copy, 0))
        copied += copy
        begin = max(copied, done)
        done = begin + step
        events.append((f"{TWO}: steps", "step", begin, done, 0))
    return events


def overlap(device: torch.device, steps: int = 4, batch_size: int = 128, hidden: int = 128) -> list[Event]:
    """The same timeline, as events of the GPU saw it. Raises ValueError where streams cannot be watched."""
    at_least_one(steps=steps)
    if reason := streams_missing(device):
        raise ValueError(f"a timeline of streams {reason}")
    return [e for ahead in (False, True) for e in _watched(device, ahead, steps, batch_size, hidden)]


def _watched(device: torch.device, ahead: bool, steps: int, batch_size: int, hidden: int) -> list[Event]:
    images, labels = (t[:batch_size] for t in load_mnist(train=True))
    host = [t.pin_memory() for t in (normalize(images), labels)]
    model = make_model(hidden, device=device)
    train = make_step(model, sgd(model, fused=True))
    for _ in range(3):  # to warm up
        train(*(t.to(device) for t in host))
    torch.accelerator.synchronize(device)
    main = torch.accelerator.current_stream(device)
    side = torch.Stream(device) if ahead else main
    marks = []

    def marked(stream: torch.Stream, row: str, name: str, work: Callable):
        begin, end = (torch.Event(device, enable_timing=True) for _ in range(2))
        with stream:
            begin.record(stream)
            result = work()
            end.record(stream)
        marks.append((row, name, begin, end))
        return result, end

    def fetch():
        row = f"{TWO}: copies" if ahead else ONE
        return marked(side, row, "copy", lambda: [t.to(device, non_blocking=True) for t in host])

    batch, copied = fetch()
    for i in range(steps):
        more = fetch() if ahead and i + 1 < steps else None  # asked for before the step, and so beside it
        main.wait_event(copied)
        for tensor in batch:
            tensor.record_stream(main)  # or its memory could be given out again before the step has read it
        marked(main, f"{TWO}: steps" if ahead else ONE, "step", lambda batch=batch: train(*batch))
        if i + 1 < steps:
            batch, copied = more or fetch()
    torch.accelerator.synchronize(device)
    first = marks[0][2]
    return [
        (row, name, first.elapsed_time(begin) / 1e3, first.elapsed_time(end) / 1e3, 0)
        for row, name, begin, end in marks
    ]


def saved(events: list[Event]) -> tuple[float, float]:
    """Seconds from the first event to the last, in one stream and in two."""
    rows = {kind: [e for e in events if e[0].startswith(kind)] for kind in (ONE, TWO)}
    one, two = (max(e[3] for e in found) - min(e[2] for e in found) for found in rows.values())
    return one, two
