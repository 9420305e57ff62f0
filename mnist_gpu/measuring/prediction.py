"""From the data sheet to the range: what others have published of a GPU, and the time of a training step on it.

A step takes launches, operations and bytes, each with its limit; what a card's published figures leave open is a range.
"""

import functools
import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster.ladder import sgd
from mnist_gpu.measuring.drawing import columns, number, span
from mnist_gpu.measuring.operations import Operations, step_bytes, step_flops
from mnist_gpu.measuring.results import Results
from mnist_gpu.model import make_model
from mnist_gpu.training import make_step

PUBLISHED = Path(__file__).resolve().parents[2] / "data" / "published"
SHEET, MEASURED = "data sheet", "measured by others"  # the kinds of figures
DRAWN = ("T4", "H100")  # an old card that hosted notebooks lend, and one of a data centre


class Figure(NamedTuple):
    """One published figure of one card."""

    card: str
    quantity: str
    value: float  # in the quantity's unit
    kind: str  # SHEET or MEASURED
    source: tuple[str, str, str]  # where it was read: title, address, date (ISO, of the version that was read)


class Card(NamedTuple):
    """All that is published here of one card."""

    name: str
    full_name: str
    device_names: tuple[str, ...]  # what PyTorch calls it
    figures: tuple[Figure, ...]

    def get(self, quantity: str, kind: str | None = None) -> float | None:
        """The first figure of a quantity, in its unit, or None where nothing is published."""
        return next((f.value for f in self.figures if f.quantity == quantity and kind in (None, f.kind)), None)

    @property
    def bandwidth(self) -> float:
        """The memory's rate from the data sheet, in bytes/s."""
        return self.get("memory", SHEET)


@functools.cache
def cards() -> dict[str, Card]:
    """All cards of cards.json, by name."""
    content = json.loads((PUBLISHED / "cards.json").read_text(encoding="utf-8"))
    sources = {name: (s["title"], s["url"], s["date"]) for name, s in content["sources"].items()}
    found = {}
    for name, c in content["cards"].items():
        figures = [Figure(name, **f | {"source": sources[f["source"]]}) for f in c["figures"]]
        found[name] = Card(name, c["full_name"], tuple(c["device_names"]), tuple(figures))
    return found


def named(name: str) -> Card:
    """One card. Raises ValueError for one that is not in the file, with those that are."""
    if name not in cards():
        raise ValueError(f"nothing is published here of {name!r}; there are: {', '.join(cards())}")
    return cards()[name]


def published(*, quantity: str | None = None, kind: str | None = None) -> list[Figure]:
    """The figures of all cards: of one quantity or kind, or all of them."""
    every = (f for card in cards().values() for f in card.figures)
    return [f for f in every if quantity in (None, f.quantity) and kind in (None, f.kind)]


def sources(figures: Iterable[Figure]) -> str:
    """Where figures were read: of which cards, title, address, date."""
    found = {}
    for f in figures:
        found.setdefault(f.source, {})[f.card] = None
    return "\n".join(f"{', '.join(c)}: {title}, {date}\n    {url}" for (title, url, date), c in found.items())


# The model


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


class PredictedCard(NamedTuple):
    """A card's limits as others' figures leave them."""

    name: str
    kernel: Range  # seconds that a kernel takes at least, however little it computes
    rate: Range  # FLOP/s of products in float32
    bandwidth: Range  # bytes/s


def predictable() -> list[str]:
    """The cards there are predictions for: NVIDIA's. What launching a kernel takes is published of theirs alone."""
    return [c.name for c in cards().values() if c.full_name.startswith("NVIDIA")]


def _measured(card: str, quantity: str) -> list[Figure]:
    """What others have measured on this card; if nobody has, on every card there are predictions for."""
    found = [f for f in published(quantity=quantity, kind=MEASURED) if f.card in predictable()]
    return [f for f in found if f.card == card] or found


def predicted_card(name: str) -> PredictedCard:
    """A card's limits, as ranges. Raises ValueError for a card that there is no prediction for, with those there are.

    Rate and bandwidth: from the least that others have measured to what the data sheet promises; where nobody has, from
    the least to the greatest share of the data sheet on any card. A kernel: the published ones of any card.
    """
    if name not in predictable():
        raise ValueError(f"no prediction for {name!r}; there are: {', '.join(predictable())}")

    def rate(quantity: str, promised: str) -> Range:
        figures, sheet = _measured(name, quantity), named(name).get(promised, SHEET)
        shares = [f.value / named(f.card).get(promised, SHEET) for f in figures]
        return Range(sheet * min(shares), sheet * max(*shares, 1.0 if figures[0].card == name else 0.0))

    seconds = [f.value for quantity in ("small kernel", "kernel in a graph") for f in published(quantity=quantity)]
    return PredictedCard(name, Range(min(seconds), max(seconds)), rate("float32", "float32"), rate("copy", "memory"))


@functools.cache
def kernels(*, fused: bool = False, batches: bool = False) -> Range:
    """How many kernels a GPU runs for a training step, counted on a small one here; with `batches`, also for its batch.

    One for each operation, or, for a product, two: its parts, and their sum. The optimizer is the one that PyTorch
    takes on a GPU by default (foreach), or, with `fused`, that of a CUDA graph.
    """
    made = iter(DeviceBatches(torch.zeros(2, 28, 28, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), 1))
    model = make_model(1)
    step = make_step(model, sgd(model, fused=True) if fused else sgd(model, foreach=True))
    step(*next(made))  # which makes the momentum
    with Operations() as found:
        batch = next(made)
        begin = 0 if batches else len(found.seen)
        step(*batch)
    names = [o.name for o in found.seen[begin:] if not o.is_view]
    return Range(len(names), len(names) + sum(name in ("mm", "addmm") for name in names))


def on_card(card: PredictedCard, batch_size: int = 128, hidden: int = 128, *, fused: bool = False) -> Range:
    """Seconds that the card itself takes for a training step, of which operations and bytes may overlap or not."""
    count, operations, moved = kernels(fused=fused), sum(step_flops(batch_size, hidden)), step_bytes(batch_size, hidden)
    return Range(
        count.low * card.kernel.low + max(operations / card.rate.high, moved / card.bandwidth.high),
        count.high * card.kernel.high + operations / card.rate.low + moved / card.bandwidth.low,
    )


def predict_step(card: PredictedCard, launch: float, batch_size: int = 128, hidden: int = 128) -> Range:
    """Likely seconds of a step, by the host's smallest step: `launch` seconds, nearly all of it launching."""
    count, size = kernels(), (batch_size, hidden)
    operations, moved = sum(step_flops(*size)), step_bytes(*size)
    least = count.low * card.kernel.low + operations / card.rate.high  # the bytes may stay in the caches
    most = count.high * card.kernel.high + operations / card.rate.low
    most += moved / card.bandwidth.low
    asked = Range(launch / 2, launch + count.high * card.kernel.high)  # fewer operations on a GPU; CUDA's share
    return Range(max(asked.low, least), asked.high + most)  # both at the same time, or one after the other


# Seconds of a training step on the card as a CUDA graph: the host has nothing to do but to start it.
predict_graph = functools.partial(on_card, fused=True)


# What was written down before a card was measured


@functools.cache
def written_down() -> tuple[str, list[dict]]:
    """With which CPU and when, and the predictions: seconds of a step (section crossover) or an epoch (ladder)."""
    content = json.loads((PUBLISHED / "predictions.json").read_text(encoding="utf-8"))
    found = [p | {"seconds": Range(*p["seconds"])} for p in content["predictions"]]
    return f"with the CPU {content['cpu_name']} ({content['date']})", found


def card_of(results: Results) -> str | None:
    """The published card that a machine has, by what PyTorch calls it, or None."""
    name = results.environment["device_name"]
    return next((c.name for c in cards().values() if name in c.device_names), None)


def predicted_ladders(machines: Iterable[Results]) -> list[tuple[str, dict[str, Range]]]:
    """(card and CPU, seconds per epoch by rung) of the cards that figures show: a few, and those recorded since."""
    (when, found), shown, ladders = written_down(), {*DRAWN, *map(card_of, machines)}, {}
    for p in (p for p in found if p["section"] == "ladder" and p["card"] in shown):
        ladders.setdefault(f"{p['card']}, {when}", {})[p["name"]] = p["seconds"]
    return [*ladders.items()]


def outcomes(results: Results) -> str:
    """A table of every prediction of a machine's card, beside what was measured there; "" where there is none."""
    rows = []
    for p in (p for p in written_down()[1] if p["card"] == card_of(results)):
        name, sizes, seconds, ladder = p["name"], p["parameters"], p["seconds"], p["section"] == "ladder"
        what = ", ".join([f"{p['card']}: {name}", *(f"{key.replace('_', ' ')} {n}" for key, n in sizes.items())])
        per, unit = (1, "s") if ladder else (1e-6, "μs")
        for m in (m for m in results.select(p["section"], name, **sizes) if m.device not in ("cpu", "webgpu")):
            time = statistics.median(m.per_epoch()) if ladder else m.median
            times = f"{span(seconds, per)} {unit}", number(time / per), f"{time / seconds.middle:.2f}x"
            rows.append((what, *times, "yes" if seconds.low <= time <= seconds.high else "NO"))
    right = sum(row[-1] == "yes" for row in rows)
    table = columns(["what", "predicted", "measured", "of the middle", "in the range"], rows)
    return f"{table}\n{right} of {len(rows)} measured times lie in the predicted range." if rows else ""
