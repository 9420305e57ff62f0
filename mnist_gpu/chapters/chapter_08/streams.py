"""Copies and steps in one stream and in two, by a GPU's own clock, or predicted for a card that is not here."""

import collections
import functools
from collections.abc import Callable, Mapping

import torch

from mnist_gpu.data import load_mnist, normalize
from mnist_gpu.faster.ladder import sgd
from mnist_gpu.measuring.drawing import OWN, PREDICTED, Drawn, timeline
from mnist_gpu.measuring.prediction import named, predict_graph, predicted_card
from mnist_gpu.model import PIXELS, make_model
from mnist_gpu.training import make_step

Event = tuple[str, str, float, float, int]  # row, name, begin and end in seconds, depth: for drawing.timeline
ONE, TWO = "one stream", "two streams"
ROWS = {ONE: {"copy": ONE, "step": ONE}, TWO: {"copy": f"{TWO}: copies", "step": f"{TWO}: steps"}}


def predicted_overlap(card: str, steps: int = 4, batch_size: int = 128) -> dict[str, list[Event]]:
    """The timeline of so many copies and steps on a card, in one stream and in two, from published figures.

    A copy: the batch's bytes at the rate from pinned memory. A step: the middle of what is predicted of a CUDA graph.
    """
    copy = batch_size * (4 * PIXELS + 8) / named(card).get("pinned transfer")  # an image as float32, and its label
    step = predict_graph(predicted_card(card), batch_size).middle
    events = {ONE: [], TWO: []}
    for streams, found in events.items():
        copied = done = 0.0
        for _ in range(steps):
            begin = copied if streams == TWO else done
            copied = begin + copy
            ready = max(copied, done)
            done = ready + step
            found.append((ROWS[streams]["copy"], "copy", begin, copied, 0))
            found.append((ROWS[streams]["step"], "step", ready, done, 0))
    return events


def overlap(device: torch.device, steps: int = 4, batch_size: int = 128) -> dict[str, list[Event]]:
    """The same timeline, as events of the GPU saw it."""
    images, labels = (t[:batch_size] for t in load_mnist(train=True))
    host = [t.pin_memory() for t in (normalize(images), labels)]
    model = make_model(device=device)
    train = make_step(model, sgd(model, fused=True))
    # In two streams the next batch is asked for before the step, and so copied beside it.
    turns = {ONE: ["copy", "step"] * steps, TWO: ["copy", *["copy", "step"] * (steps - 1), "step"]}
    _watched(device, ONE, turns[ONE], host, train)  # to warm up
    return {streams: _watched(device, streams, turns[streams], host, train) for streams in turns}


def _watched(device: torch.device, streams: str, turns: list[str], host: list[torch.Tensor], train: Callable):
    main = torch.accelerator.current_stream(device)
    side = torch.Stream(device) if streams == TWO else main
    events, batches = [], collections.deque()

    def marked(stream: torch.Stream, name: str, work: Callable):
        begin, end = (torch.Event(device, enable_timing=True) for _ in range(2))
        with stream:
            begin.record(stream)
            result = work()
            end.record(stream)
        events.append((name, begin, end))
        return result, end

    for turn in turns:
        if turn == "copy":
            batches.append(marked(side, turn, lambda: [t.to(device, non_blocking=True) for t in host]))
        else:
            batch, copied = batches.popleft()
            main.wait_event(copied)
            for tensor in batch:
                tensor.record_stream(main)  # or its memory could be given out again before the step has read it
            marked(main, turn, functools.partial(train, *batch))
    torch.accelerator.synchronize(device)
    since = events[0][1].elapsed_time
    return [(ROWS[streams][name], name, since(begin) / 1e3, since(end) / 1e3, 0) for name, begin, end in events]


def seconds_in(events: Mapping[str, list[Event]]) -> tuple[float, float]:
    """Seconds from the first event to the last, in one stream and in two."""
    return tuple(max(e[3] for e in events[s]) - min(e[2] for e in events[s]) for s in (ONE, TWO))


def copies_and_steps(device: torch.device, card: str) -> Drawn:
    """The timeline of both on this device, or, where it has no streams to watch, predicted for `card`."""
    here = device.type in ("cuda", "xpu")
    events, who = (overlap(device), OWN) if here else (predicted_overlap(card), f"{PREDICTED}: {card}")
    every = [(f"{who}, {row}", *rest) for found in events.values() for row, *rest in found]
    axes, says = timeline(every, named=len(every))
    one, two = seconds_in(events)
    said = f"{who}: {1e6 * one:.0f} μs in one stream, {1e6 * two:.0f} μs in two: {one / two:.2f} times as fast."
    return Drawn(axes, f"{says}\n{said}")
