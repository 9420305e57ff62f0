"""The time of a training step, predicted: on this machine from three measured numbers, on a card from published ones.

A step takes launches, operations and bytes, and each of the three has a limit: one model for a device that is here, for
a card that is not, and for a single kernel. What a card's figures leave open becomes a range. Predictions that were
written down before a card was measured are data (data/published/predictions.json), and never change:

    {"format": "mnist_gpu predictions 1",
     "date": "2026-01-31",
     "cpu_name": "AMD EPYC",                  the computer around the card, whose times went into the predictions
     "host": {"launch": 0.00025, ...},        in seconds
     "predictions": [                         of what a results file has under the same section, name and parameters
       {"card": "T4", "section": "crossover", "name": "step", "parameters": {"batch_size": 32, "hidden": 32},
        "seconds": [0.00025, 0.0004]}]}       at least, at most; a step, or an epoch of the ladder
"""

import functools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from mnist_gpu.data import DeviceBatches
from mnist_gpu.device import using_threads
from mnist_gpu.faster.ladder import sgd
from mnist_gpu.measuring.operations import Operation, Operations
from mnist_gpu.measuring.published import CARDS, MEASURED, SHEET, Figure, card_of, cards, named, published
from mnist_gpu.measuring.results import Results
from mnist_gpu.measuring.timing import measure
from mnist_gpu.measuring.workloads import training_step, two_ceilings
from mnist_gpu.model import PIXELS, make_model, step_bytes, step_flops
from mnist_gpu.training import make_step

PREDICTIONS = CARDS.parent / "predictions.json"
DRAWN = ("T4", "H100")  # an old card that hosted notebooks lend, and one of a data centre
LAUNCHES, BYTES, OPERATIONS = REGIMES = ("launches", "bytes", "operations")
LAUNCHING = ("small kernel", "kernel in a graph")


class Limits(NamedTuple):
    """What a device can do at most."""

    launch: float  # seconds that it takes to start a step's operations, or a kernel
    rate: float  # FLOP/s
    bandwidth: float  # bytes/s

    def parts(self, operations: float, moved: float) -> dict[str, float]:
        """Seconds that each of the three would take by itself."""
        return {LAUNCHES: self.launch, BYTES: moved / self.bandwidth, OPERATIONS: operations / self.rate}

    def of_step(self, batch_size: int = 128, hidden: int = 128) -> dict[str, float]:
        """The same of a training step."""
        return self.parts(sum(step_flops(batch_size, hidden)), step_bytes(batch_size, hidden))


def binding(parts: Mapping[str, float]) -> str:
    """What takes longest: launches, bytes or operations."""
    return max(parts, key=parts.get)


def measured_limits(device: torch.device, threads: int = 1) -> Limits:
    """A device's, each measured by itself: the step of the smallest network there is, a large product, a large copy."""
    with using_threads(threads):
        launch = measure(training_step(device, batch_size=1, hidden=1)).median
        return Limits(launch, *two_ceilings(device))


class Range(NamedTuple):
    """A number that is predicted to be at least `low` and at most `high`, both above 0."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """Of the two ends by their ratio: the geometric mean."""
        return math.sqrt(self.low * self.high)

    def gain_over(self, seconds: float) -> "Range":
        """How many times as fast as something that takes `seconds`, if this range is a time."""
        return Range(seconds / self.high, seconds / self.low)

    def __contains__(self, value: object) -> bool:
        return self.low <= value <= self.high


class PredictedCard(NamedTuple):
    """A card's limits as others' figures leave them."""

    name: str
    kernel: Range  # seconds that a kernel takes at least, however little it computes
    rate: Range  # FLOP/s of products in float32
    bandwidth: Range  # bytes/s

    @property
    def middle(self) -> Limits:
        return Limits(self.kernel.middle, self.rate.middle, self.bandwidth.middle)

    def seconds(self, operations: float, moved: float, kernels: Range = Range(1, 1)) -> Range:  # noqa: B008 - a tuple
        """What the card takes for so many kernels with these operations and bytes.

        At least: a start for every kernel, and operations and bytes at the same time. At most: the slower start, and
        one after the other.
        """
        return Range(
            kernels.low * self.kernel.low + max(operations / self.rate.high, moved / self.bandwidth.high),
            kernels.high * self.kernel.high + operations / self.rate.low + moved / self.bandwidth.low,
        )


def predictable() -> list[str]:
    """The cards there are predictions for: NVIDIA's. What launching a kernel takes is published of theirs alone."""
    return [c.name for c in cards().values() if c.full_name.startswith("NVIDIA")]


def predicted_card(name: str) -> PredictedCard:
    """A card's limits, as ranges.

    Rate and bandwidth: from the least that others have measured to what the data sheet promises. Where nobody's
    measurement is known, the data sheet's times the least and the greatest share of it that others have measured on
    any card. A kernel: from what is published of one inside a CUDA graph to one that the host launches, on any card.

    Raises ValueError for a card that there is no prediction for, with those there are.
    """
    if name not in predictable():
        why = " (how long it takes to launch a kernel is published of NVIDIA's alone)" * (name in cards())
        raise ValueError(f"no prediction for {name!r}{why}; there are: {', '.join(predictable())}")
    kernels = [f.value for quantity in LAUNCHING for f in published(quantity=quantity)]
    rates = (_rate(name, *quantities) for quantities in (("float32", "float32"), ("copy", "memory")))
    return PredictedCard(name, Range(min(kernels), max(kernels)), *rates)


def _rate(card: str, quantity: str, promised: str) -> Range:
    measured = {c: [f.value for f in published(card=c, quantity=quantity, kind=MEASURED)] for c in predictable()}
    sheets = {c: named(c).get(promised, SHEET) for c in predictable()}
    if measured[card]:
        return Range(min(measured[card]), max(*measured[card], sheets[card]))
    shares = [value / sheets[c] for c, values in measured.items() for value in values]
    return Range(sheets[card] * min(shares), sheets[card] * max(shares))


def figures_for(card: str) -> list[Figure]:
    """The published figures that a prediction for this card rests on; of launching a kernel those of any card."""
    quantities = ("float32", "memory", "copy")
    own = [f for f in published(card=card) if f.quantity in quantities]
    rates = [f for q in quantities for f in published(quantity=q) if f.kind == MEASURED and f.card in predictable()]
    borrowed = [] if {f.quantity for f in own if f.kind == MEASURED} >= {"float32", "copy"} else rates
    return [*own, *borrowed, *(f for q in LAUNCHING for f in published(quantity=q))]


@functools.cache
def step_operations(
    batch_size: int = 128, hidden: int = 128, *, fused: bool = False, batches: bool = False
) -> list[Operation]:
    """The operations of a training step, and, with `batches`, of making its batch, in their order. They are run here.

    `fused` is the optimizer of the rungs with a CUDA graph; else it is the one that PyTorch takes on a GPU by default
    (foreach).
    """
    images = torch.zeros(2 * batch_size, 28, 28, dtype=torch.uint8)
    made = iter(DeviceBatches(images, torch.zeros(2 * batch_size, dtype=torch.int64), batch_size))
    model = make_model(hidden)
    step = make_step(model, sgd(model, fused=True) if fused else sgd(model, foreach=True))
    step(*next(made))  # which makes the momentum
    with Operations() as making:
        batch = next(made)
    with Operations() as training:
        step(*batch)
    return [o for o in [*(making.seen if batches else []), *training.seen] if not o.is_view]


def kernels(*, fused: bool = False, batches: bool = False) -> Range:
    """How many kernels a GPU runs in a training step, and, with `batches`, to make its batch: its `step_operations`.

    At least one for each operation. A matrix product can be two: parts of it, and their sum.
    """
    names = [o.name for o in step_operations(1, 1, fused=fused, batches=batches)]
    return Range(len(names), len(names) + sum(name in ("mm", "addmm") for name in names))


def batch_bytes(batch_size: int = 128) -> int:
    """Bytes that making a batch from uint8 images on the device reads and writes, operation by operation.

    Gathering reads and writes a byte a pixel, scaling reads one and writes four, shifting reads and writes four.
    """
    return batch_size * (PIXELS * (2 + 5 + 8) + 2 * 8)


def on_card(card: PredictedCard, batch_size: int = 128, hidden: int = 128, *, fused=False, batches=False) -> Range:
    """Seconds that the card itself takes for a training step, and, with `batches`, for making its batch."""
    moved = step_bytes(batch_size, hidden) + (batch_bytes(batch_size) if batches else 0)
    return card.seconds(sum(step_flops(batch_size, hidden)), moved, kernels(fused=fused, batches=batches))


def predict_step(card: PredictedCard, launch: float, batch_size: int = 128, hidden: int = 128) -> Range:
    """Seconds of a training step on the card, the plain one, whose operations the host launches one by one.

    `launch` is what that takes the host, in seconds: the smallest network's step. Launching and computing overlap
    entirely, at least, and at most not at all.
    """
    alone = on_card(card, batch_size, hidden)
    return Range(max(launch, alone.low), launch + alone.high)


def predict_graph(card: PredictedCard, batch_size: int = 128, hidden: int = 128) -> Range:
    """Seconds of a training step on the card as a CUDA graph: the host has nothing to do but to start it."""
    return on_card(card, batch_size, hidden, fused=True)


class Predicted(NamedTuple):
    """One prediction that was written down. `seconds` of a step (section crossover) or an epoch (section ladder)."""

    card: str
    section: str
    name: str
    parameters: dict[str, int]
    seconds: Range


class Outcome(NamedTuple):
    """A prediction beside what was measured on the card later, in seconds."""

    predicted: Predicted
    measured: float

    @property
    def factor(self) -> float:
        """What was measured, in times of the range's middle."""
        return self.measured / self.predicted.seconds.middle


@functools.cache
def written_down() -> tuple[str, list[Predicted]]:
    """(with which CPU and when, the predictions) that were written down before a card was measured."""
    content = json.loads(PREDICTIONS.read_text(encoding="utf-8"))
    found = [Predicted(**p | {"seconds": Range(*p["seconds"])}) for p in content["predictions"]]
    return f"with the CPU {content['cpu_name']} ({content['date']})", found


def predicted_ladders(machines: Sequence[Results]) -> list[tuple[str, dict[str, Range]]]:
    """(card and CPU, seconds per epoch by rung) of the cards that figures show: a few, and those recorded since."""
    when, found = written_down()
    ladders = {}
    for p in found:
        if p.section == "ladder":
            ladders.setdefault(p.card, {})[p.name] = p.seconds
    recorded = [card_of(results.environment["device_name"]) for results in machines]
    return [(f"{card}, {when}", ladders[card]) for card in dict.fromkeys([*DRAWN, *recorded]) if card in ladders]


def outcomes(machines: Sequence[Results]) -> list[Outcome]:
    """Every prediction of a card that is among the recorded `machines`, beside what was measured there."""
    found = []
    for results in machines:
        card = card_of(results.environment["device_name"])
        for p in written_down()[1]:
            for m in results.select(p.section, p.name, **p.parameters) if p.card == card else []:
                if m.device != "cpu":
                    seconds = statistics.median(m.per_epoch()) if p.section == "ladder" else m.median
                    found.append(Outcome(p, seconds))
    return found
