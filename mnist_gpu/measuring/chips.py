"""What is inside some GPUs, as others have published it, each fact with its source: data/published/chips.json.

    {"format": "mnist_gpu chips 1",
     "sources": {                               as in cards.json
       "cccl": {"title": "...", "url": "https://...", "date": "2026-11-21"}},
     "chips": {
       "A100": {"capability": "8.0",            NVIDIA's number of the generation
         "facts": [{"quantity": "multiprocessors", "value": 108, "source": "..."}]}}}

What nobody published is not there. The names are those of cards.json, which has what the whole card promises.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mnist_gpu.measuring.published import CARDS, SHEET, Source, need_keys, need_number, published, read_source

FORMAT = "mnist_gpu chips 1"
CHIPS = CARDS.with_name("chips.json")
WARP = 32  # threads that execute the same instruction, on every NVIDIA GPU
# What each quantity is counted in, and what it is.
QUANTITIES = {
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


class Fact(NamedTuple):
    """One published number."""

    value: float  # in the quantity's unit
    source: Source


class Chip(NamedTuple):
    """What is known of the inside of one card."""

    name: str
    capability: str
    facts: Mapping[str, Fact]  # by quantity

    def get(self, quantity: str) -> float | None:
        """A number in its quantity's unit, or None where nothing is published here. KeyError for no such quantity."""
        QUANTITIES[quantity]
        return self.facts[quantity].value if quantity in self.facts else None

    @property
    def peak(self) -> float | None:
        """FLOP/s in float32: lanes x 2 (a multiply-add is two operations) x clock."""
        lanes, clock = self.get("lanes"), self.get("clock")
        return lanes * 2 * clock if lanes and clock else None

    @property
    def sheet_peak(self) -> float:
        """The same from the card's data sheet (cards.json)."""
        return published(card=self.name, quantity="float32", kind=SHEET)[0].value

    @property
    def bandwidth(self) -> float:
        """The memory's rate from the card's data sheet, in bytes/s."""
        return published(card=self.name, quantity="memory", kind=SHEET)[0].value

    @property
    def latency(self) -> float | None:
        """Seconds from asking the card's memory to having the bytes."""
        cycles, clock = self.get("memory cycles"), self.get("clock")
        return cycles / clock if cycles and clock else None


def read_chips(path: str | Path = CHIPS) -> dict[str, Chip]:
    """All chips of a file, by name.

    Raises ValueError for anything but the format above: a fact without a source, a value that is no number above 0, an
    unknown quantity, the same quantity twice, a word that the format does not know.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        need_keys(content, "the file", "format", "sources", "chips")
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
        sources = {name: read_source(name, fields) for name, fields in content["sources"].items()}
        return {name: _chip(name, fields, sources) for name, fields in content["chips"].items()}
    except (ValueError, TypeError, AttributeError) as error:  # JSONDecodeError is a ValueError
        raise ValueError(f"{path} is not a file of format {FORMAT!r}: {error}") from error


def _chip(name: str, fields: dict, sources: Mapping[str, Source]) -> Chip:
    need_keys(fields, name, "capability", "facts")
    facts = {}
    for fact in fields["facts"]:
        need_keys(fact, f"a fact of {name}", "quantity", "value", "source")
        quantity, source = fact["quantity"], fact["source"]
        if quantity not in QUANTITIES:
            raise ValueError(f"{name}: quantity {quantity!r} is none of {', '.join(QUANTITIES)}")
        if source not in sources:
            raise ValueError(f"{name}: source {source!r} is none of {', '.join(sources)}")
        if quantity in facts:
            raise ValueError(f"{name}: {quantity} is there twice")
        facts[quantity] = Fact(need_number(fact["value"], f"{name}: {quantity}"), sources[source])
    return Chip(name, fields["capability"], facts)


def chip(name: str) -> Chip:
    """One chip of the course's file. Raises ValueError for one that is not in it, with those there are."""
    every = read_chips()
    if name not in every:
        raise ValueError(f"nothing is published here of the inside of {name!r}; there are: {', '.join(every)}")
    return every[name]
