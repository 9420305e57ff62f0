"""Figures of GPUs that others have published, each with its source: data/published/cards.json.

    {"format": "mnist_gpu published 1",
     "sources": {                               where figures were read, and the date of the version that was read
       "napkin-math-gpu": {"title": "...", "url": "https://...", "date": "2026-08-08"}},
     "cards": {
       "A100": {"full_name": "NVIDIA A100 SXM 80 GB",
         "device_names": ["NVIDIA A100-SXM4-80GB"],   what PyTorch calls it; other variants of a card are other cards
         "figures": [
           {"quantity": "float32", "value": 1.95e13, "kind": "data sheet", "source": "ml-engineering"},
           {"quantity": "float32", "value": 1.9e13, "kind": "measured by others", "source": "napkin-math-gpu"}]}}}

None of them was measured by this course. What nobody published is not there.
"""

import datetime
import json
import math
from pathlib import Path
from typing import NamedTuple

FORMAT = "mnist_gpu published 1"
CARDS = Path(__file__).resolve().parents[2] / "data" / "published" / "cards.json"
SHEET, MEASURED = KINDS = ("data sheet", "measured by others")
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
}


class Source(NamedTuple):
    """Where a figure was read."""

    title: str
    url: str
    date: str  # ISO, of the version that was read


class Figure(NamedTuple):
    """One published figure of one card."""

    card: str
    full_name: str
    device_names: tuple[str, ...]  # what PyTorch calls it
    quantity: str  # of QUANTITIES
    value: float  # in the quantity's unit
    kind: str  # of KINDS
    source: Source

    @property
    def unit(self) -> str:
        return QUANTITIES[self.quantity][0]


def read_published(path: str | Path = CARDS) -> list[Figure]:
    """All figures of a file, in its order.

    Raises ValueError for anything but the format above: a figure without a source, a value that is no number above 0,
    an unknown quantity or kind, the same figure twice, a word that the format does not know.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        need_keys(content, "the file", "format", "sources", "cards")
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
        sources = {name: read_source(name, fields) for name, fields in content["sources"].items()}
        found = [f for card, fields in content["cards"].items() for f in _figures(card, fields, sources)]
    except (ValueError, TypeError, AttributeError) as error:  # JSONDecodeError is a ValueError
        raise ValueError(f"{path} is not a file of format {FORMAT!r}: {error}") from error
    return found


def need_keys(fields: dict, whose: str, *names: str) -> None:
    """Raises ValueError unless `fields`, which are `whose`, have these names and no other."""
    if set(fields) != set(names):
        raise ValueError(f"{whose} has {', '.join(sorted(fields)) or 'nothing'}, but must have {', '.join(names)}")


def read_source(name: str, fields: dict) -> Source:
    """A source of a file of published figures. Raises ValueError without a title, an address and a date."""
    need_keys(fields, f"source {name}", *Source._fields)
    datetime.date.fromisoformat(fields["date"])
    if not (fields["title"] and fields["url"].startswith("https://")):
        raise ValueError(f"source {name} needs a title and an address that begins with https://")
    return Source(**fields)


def need_number(value: object, what: str) -> float:
    """The value, if it is a number above 0; raises ValueError if not."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{what} is {value!r}, but must be a number above 0")
    return float(value)


def _figures(card: str, fields: dict, sources: dict[str, Source]) -> list[Figure]:
    need_keys(fields, card, "full_name", "device_names", "figures")
    names = tuple(fields["device_names"])
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{card}: device_names is {fields['device_names']!r}, but must be a list of names")
    found = {}
    for figure in fields["figures"]:
        need_keys(figure, f"a figure of {card}", "quantity", "value", "kind", "source")
        quantity, value, kind, source = (figure[k] for k in ("quantity", "value", "kind", "source"))
        for what, word, known in (
            ("quantity", quantity, QUANTITIES),
            ("kind", kind, KINDS),
            ("source", source, sources),
        ):
            if word not in known:
                raise ValueError(f"{card}: {what} {word!r} is none of {', '.join(known)}")
        value = need_number(value, f"{card}: {quantity}")
        if (quantity, kind, source) in found:
            raise ValueError(f"{card}: {quantity} of {source} is there twice")
        found[quantity, kind, source] = Figure(card, fields["full_name"], names, quantity, value, kind, sources[source])
    return list(found.values())


def published(*, card: str | None = None, quantity: str | None = None, kind: str | None = None) -> list[Figure]:
    """The figures of the course's file, of one card, quantity or kind, or of all.

    Raises ValueError for a card of which there are none, with those there are.
    """
    every = read_published()
    cards = list(dict.fromkeys(f.card for f in every))
    if card not in (None, *cards):
        raise ValueError(f"nothing is published here of {card!r}; there are: {', '.join(cards)}")
    return [f for f in every if card in (None, f.card) and quantity in (None, f.quantity) and kind in (None, f.kind)]


def card_of(device_name: str) -> str | None:
    """The card that PyTorch calls `device_name`, or None if nothing is published here of it."""
    return next((f.card for f in published() if device_name in f.device_names), None)
