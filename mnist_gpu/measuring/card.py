"""A GPU that is not here: what a training step would take on it, predicted from figures that others have published.

A prediction is a range, from what the figures leave open. The operations and bytes of a step are chapter 02's, its
kernels are counted, and the host's part is measured on the computer at hand. Nothing here was measured on the card.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mnist_gpu.batches import DeviceBatches
from mnist_gpu.faster.ladder import PLAIN, TEXTBOOK, Training, sgd
from mnist_gpu.faster.whole_epoch import WholeEpoch
from mnist_gpu.measuring.published import MEASURED, SHEET, Figure, published
from mnist_gpu.measuring.results import Timed
from mnist_gpu.measuring.sections.account import account_of
from mnist_gpu.measuring.timing import measure
from mnist_gpu.measuring.workloads import train_part
from mnist_gpu.mnist import TRAIN_IMAGES
from mnist_gpu.model import PIXELS, make_model, step_bytes, step_flops
from mnist_gpu.training import make_step

GRAPH, EPOCH = "CUDA graph of a step", "CUDA graph of an epoch"  # rungs of the ladder
LAUNCHING = ("small kernel", "kernel in a graph")


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


class Card(NamedTuple):
    """What is published of a card, as far as a prediction needs it."""

    name: str
    rate: Range  # FLOP/s of products in float32
    bandwidth: Range  # bytes/s
    kernel: Range  # seconds that a kernel takes at least, however little it computes


def predictable() -> list[str]:
    """The cards there are predictions for: NVIDIA's. What launching a kernel takes is published of theirs alone."""
    return list(dict.fromkeys(f.card for f in published() if f.full_name.startswith("NVIDIA")))


def card_numbers(name: str) -> Card:
    """A card's published numbers, as ranges.

    Rate and bandwidth: from the least that others have measured to what the data sheet promises. Where nobody's
    measurement is known, the data sheet's times the least and the greatest share of it that others have measured on
    any card. A kernel: from what is published of one inside a CUDA graph to one that the host launches, on any card.

    Raises ValueError for a card that there is no prediction for, with those there are.
    """
    if name not in predictable():
        why = " (how long it takes to launch a kernel is published of NVIDIA's alone)" * any(
            f.card == name for f in published()
        )
        raise ValueError(f"no prediction for {name!r}{why}; there are: {', '.join(predictable())}")
    kernels = [f.value for quantity in LAUNCHING for f in published(quantity=quantity)]
    return Card(
        name, _rate(name, "float32", "float32"), _rate(name, "copy", "memory"), Range(min(kernels), max(kernels))
    )


def _rate(card: str, quantity: str, promised: str) -> Range:
    measured = {c: [f.value for f in published(card=c, quantity=quantity, kind=MEASURED)] for c in predictable()}
    sheets = {f.card: f.value for f in published(quantity=promised, kind=SHEET)}
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


class Operation(NamedTuple):
    """One of PyTorch's operations, as it was called."""

    name: str
    bytes: int  # of the tensors that it reads and writes


class Operations(TorchDispatchMode):
    """Collects in `seen` PyTorch's operations that are no mere views: on a GPU each is a kernel at least."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if operation.namespace != "profiler" and not operation.is_view:
            written = args[0] if result is None else result  # in place on a list of tensors: nothing is returned
            tensors = [t for t in tree_leaves((args, kwargs, written)) if isinstance(t, torch.Tensor)]
            self.seen.append(Operation(operation._opname, sum(t.nbytes for t in tensors)))
        return result


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
    found = Operations()
    if batches:
        with found:
            batch = next(made)
    else:
        batch = next(made)
    with found:
        step(*batch)
    return found.seen


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


def on_card(card: Card, batch_size: int = 128, hidden: int = 128, *, fused=False, batches=False) -> Range:
    """Seconds that the card itself takes for a training step, and, with `batches`, for making its batch.

    At least: a start for every kernel, and operations and bytes at the same time. At most: the slower start, and one
    after the other.
    """
    count = kernels(fused=fused, batches=batches)
    operations = sum(step_flops(batch_size, hidden))
    moved = step_bytes(batch_size, hidden) + (batch_bytes(batch_size) if batches else 0)
    return Range(
        count.low * card.kernel.low + max(operations / card.rate.high, moved / card.bandwidth.high),
        count.high * card.kernel.high + operations / card.rate.low + moved / card.bandwidth.low,
    )


def predict_step(card: Card, launch: float, batch_size: int = 128, hidden: int = 128) -> Range:
    """Seconds of a training step on the card, the plain one, whose operations the host launches one by one.

    `launch` is what that takes the host, in seconds: the smallest network's step. Launching and computing overlap
    entirely, at least, and at most not at all.
    """
    alone = on_card(card, batch_size, hidden)
    return Range(max(launch, alone.low), launch + alone.high)


def predict_graph(card: Card, batch_size: int = 128, hidden: int = 128) -> Range:
    """Seconds of a training step on the card as a CUDA graph: the host has nothing to do but to start it."""
    return on_card(card, batch_size, hidden, fused=True)


def predicted_map(card: Card, launch: float, measured: Sequence[Sequence[Timed]]) -> list[list[Range]]:
    """How many times as fast as each `measured` step (of section crossover) the plain step is on the card."""
    return [
        [
            predict_step(card, launch, m.parameters["batch_size"], m.parameters["hidden"]).gain_over(m.median)
            for m in row
        ]
        for row in measured
    ]


def pays_from(gains: Sequence[Range], sizes: Sequence[int]) -> tuple[int | None, int | None]:
    """From which of the growing `sizes` on a gain is surely above 1, and perhaps; None if from none of them on."""

    def first(ends: Sequence[float]) -> int | None:
        below = max((i for i, end in enumerate(ends) if end <= 1), default=-1)
        return sizes[below + 1] if below + 1 < len(sizes) else None

    return first([g.low for g in gains]), first([g.high for g in gains])


class Host(NamedTuple):
    """What the computer around a card takes for a step of 128 images, with one thread, in seconds."""

    launch: float  # asking for the operations: the smallest network's step on the CPU
    textbook: float  # a batch of the textbook's pipeline
    device: float  # a batch of the pipeline "device", on the CPU
    disturbance: float  # what the textbook's batch and a step take in turn, beyond the two by themselves
    loop: float = 0.0  # what is left of an epoch if its steps take no time; 0 in predictions of before it was measured


def host_of(found: Mapping[str, Timed]) -> Host:
    """From what `measure_account` found on a CPU, by name; the loop is measured here (0.2 seconds)."""
    seconds = {name: m.median for name, m in found.items()}
    launch, disturbance = seconds["smallest network"], account_of(found, "textbook").disturbance
    return Host(launch, seconds["load, textbook"], seconds["load, device"], disturbance, _measure_loop())


def _measure_loop() -> float:
    """Seconds a step of an epoch in which nothing is computed: drawing the order, going through it, stacking losses."""
    images, labels = torch.empty(TRAIN_IMAGES, 28, 28, dtype=torch.uint8), torch.empty(TRAIN_IMAGES, dtype=torch.int64)
    epoch = WholeEpoch(DeviceBatches(images, labels))
    epoch.run = lambda drawn: torch.zeros(len(drawn))
    return measure(lambda: train_part(Training(make_model(1), epoch.step, epoch))).median / len(epoch)


def predict_accounts(card: Card, host: Host) -> dict[str, tuple[dict[str, float], dict[str, float]]]:
    """What a step is made of on the rungs that the model can say something about, width 128: (at least, at most).

    Seconds by part: load and launch are the host's; "compute" is the card's, beyond what launching hides. The
    textbook's rung waits for every loss, so its step follows its loading. The copy of its images is left out: some tens
    of microseconds of a step that takes a hundred times as long. Around the graph of an epoch the host still goes
    through the loop, nearly all of it before the graph is launched or after it has ended.
    """
    step, with_batch, graph = on_card(card), on_card(card, batches=True), on_card(card, fused=True, batches=True)

    def launched(most: bool, work: Range, load: float) -> dict[str, float]:
        compute = work.high if most else max(0.0, work.low - host.launch)
        return {"load": load, "launch": host.launch, "compute": compute}

    textbook = host.textbook, host.textbook + host.disturbance
    return {
        TEXTBOOK: (launched(False, step, textbook[0]), launched(True, step, textbook[1])),
        # The host asks for a batch's kernels, too: at least in no time, at most in what the CPU takes to make it.
        PLAIN: (launched(False, with_batch, 0.0), launched(True, with_batch, host.device)),
        GRAPH: ({"compute": graph.low}, {"load": host.device, "compute": graph.high}),
        EPOCH: ({"launch": host.loop, "compute": graph.low}, {"launch": host.loop, "compute": graph.high}),
    }


def predict_ladder(card: Card, host: Host) -> dict[str, Range]:
    """Seconds per epoch of those rungs: the sums of their accounts."""
    steps = math.ceil(TRAIN_IMAGES / 128)
    return {
        rung: Range(*(steps * sum(parts.values()) for parts in ends))
        for rung, ends in predict_accounts(card, host).items()
    }
