"""Figures of GPUs that others have published, each with its source: data/published/cards.json.

    {"format": "mnist_gpu published 2",
     "sources": {                               where figures were read, and the date of the version that was read
       "napkin-math-gpu": {"title": "...", "url": "https://...", "date": "2026-08-08"}},
     "cards": {
       "A100": {"full_name": "NVIDIA A100 SXM 80 GB",
         "device_names": ["NVIDIA A100-SXM4-80GB"],   what PyTorch calls it; other variants of a card are other cards
         "capability": "8.0",                         NVIDIA's number of the generation, if it is of a known inside
         "figures": [
           {"quantity": "float32", "value": 1.95e13, "kind": "data sheet", "source": "ml-engineering"},
           {"quantity": "float32", "value": 1.9e13, "kind": "measured by others", "source": "napkin-math-gpu"}]}}}

None of them was measured by this course. What nobody published is not there.
"""

import functools
import json
from pathlib import Path
from typing import NamedTuple

CARDS = Path(__file__).resolve().parents[2] / "data" / "published" / "cards.json"
FORMAT = "mnist_gpu published 2"
SHEET, MEASURED = KINDS = ("data sheet", "measured by others")
WARP = 32  # threads that execute the same instruction, on every NVIDIA GPU
# What each quantity is counted in, and what it is.
QUANTITIES = {
    "float32": ("FLOP/s", "matrix products in float32, without reduced precision"),
    "TF32": ("FLOP/s", "matrix products with operands rounded to TF32"),
    "bfloat16": ("FLOP/s", "matrix products in bfloat16"),
    "float16": ("FLOP/s", "matrix products in float16"),
    "memory": ("bytes/s", "the memory's rate"),
    "copy": ("bytes/s", "a copy within the memory, read and written bytes counted"),
    "pinned transfer": ("bytes/s", "from the computer's page-locked memory to the card's"),
    "small kernel": ("s", "one tiny kernel after another"),
    "kernel in a graph": ("s", "launching a kernel inside a CUDA graph"),
    "multiprocessors": ("", "of the card that is sold, which may be fewer than the chip has"),
    "lanes": ("", "float32 lanes of all multiprocessors; each does a multiply-add a cycle"),
    "clock": ("Hz", "the highest that the maker promises"),
    "warps": ("", "that can be resident in a multiprocessor, at most"),
    "blocks": ("", "that can be resident in a multiprocessor, at most"),
    "registers": ("bytes", "of a multiprocessor"),
    "shared memory": ("bytes", "of a multiprocessor, at most"),
    "L2": ("bytes", "the cache that all multiprocessors share"),
    "arithmetic cycles": ("cycles", "from an operation to one that needs its result"),
    "shared memory cycles": ("cycles", "from asking to having"),
    "L2 cycles": ("cycles", "from asking to having"),
    "memory cycles": ("cycles", "from asking to having"),
    "L2 rate": ("bytes/s", "of the L2 cache"),
    "shared memory rate": ("bytes/s", "of the shared memories of all multiprocessors together"),
}


class Source(NamedTuple):
    """Where a figure was read."""

    title: str
    url: str
    date: str  # ISO, of the version that was read


class Figure(NamedTuple):
    """One published figure of one card."""

    card: str
    quantity: str  # of QUANTITIES
    value: float  # in the quantity's unit
    kind: str  # of KINDS
    source: Source


class Card(NamedTuple):
    """All that is published here of one card."""

    name: str
    full_name: str
    device_names: tuple[str, ...]  # what PyTorch calls it
    capability: str | None
    figures: tuple[Figure, ...]

    def get(self, quantity: str, kind: str | None = None) -> float | None:
        """The first figure of a quantity, in its unit, or None where nothing is published. KeyError for no quantity."""
        QUANTITIES[quantity]
        return next((f.value for f in self.figures if f.quantity == quantity and kind in (None, f.kind)), None)

    @property
    def peak(self) -> float | None:
        """FLOP/s in float32: lanes x 2 (a multiply-add is two operations) x clock."""
        lanes, clock = self.get("lanes"), self.get("clock")
        return lanes * 2 * clock if lanes and clock else None

    @property
    def sheet_peak(self) -> float:
        """The same from the data sheet."""
        return self.get("float32", SHEET)

    @property
    def bandwidth(self) -> float:
        """The memory's rate from the data sheet, in bytes/s."""
        return self.get("memory", SHEET)

    @property
    def latency(self) -> float | None:
        """Seconds from asking the card's memory to having the bytes."""
        cycles, clock = self.get("memory cycles"), self.get("clock")
        return cycles / clock if cycles and clock else None


@functools.cache
def cards() -> dict[str, Card]:
    """All cards of the course's file, by name. That the file is as described above is what its test sees to."""
    content = json.loads(CARDS.read_text(encoding="utf-8"))
    sources = {name: Source(**fields) for name, fields in content["sources"].items()}
    found = {}
    for name, c in content["cards"].items():
        figures = [Figure(name, **f | {"source": sources[f["source"]]}) for f in c["figures"]]
        found[name] = Card(name, c["full_name"], tuple(c["device_names"]), c.get("capability"), tuple(figures))
    return found


def named(name: str) -> Card:
    """One card. Raises ValueError for one that is not in the file, with those that are."""
    if name not in cards():
        raise ValueError(f"nothing is published here of {name!r}; there are: {', '.join(cards())}")
    return cards()[name]


def insides() -> list[Card]:
    """The cards of whose inside something is published here."""
    return [c for c in cards().values() if c.capability]


def published(*, card: str | None = None, quantity: str | None = None, kind: str | None = None) -> list[Figure]:
    """The figures of one card, quantity or kind, or of all. Raises ValueError for a card that is not in the file."""
    of = cards().values() if card is None else [named(card)]
    return [f for c in of for f in c.figures if quantity in (None, f.quantity) and kind in (None, f.kind)]


def card_of(device_name: str) -> str | None:
    """The card that PyTorch calls `device_name`, or None if nothing is published here of it."""
    return next((c.name for c in cards().values() if device_name in c.device_names), None)


def sources(figures) -> str:
    """Where figures were read: of which cards, title, address, date."""
    found: dict[Source, dict[str, None]] = {}
    for f in figures:
        found.setdefault(f.source, {})[f.card] = None
    return "\n".join(f"{', '.join(c)}: {s.title}, {s.date}\n    {s.url}" for s, c in found.items())
