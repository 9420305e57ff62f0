"""What is inside published cards: their lanes and their memories."""

from collections.abc import Sequence

from mnist_gpu.measuring.drawing import PUBLISHED, columns
from mnist_gpu.measuring.prediction import WARP, Card


def inside(cards: Sequence[Card]) -> str:
    """What is inside cards, and the check that every reader can do: lanes x 2 x clock is the sheet's peak."""
    rows = [
        ("multiprocessors", lambda c: f"{c.get('multiprocessors'):.0f}"),
        ("lanes of each", lambda c: f"{c.get('lanes') / c.get('multiprocessors'):.0f}"),
        ("warps resident in each", lambda c: f"{c.get('warps'):.0f}"),
        ("blocks resident in each", lambda c: f"{c.get('blocks'):.0f}"),
        ("threads resident in all", lambda c: f"{c.get('warps') * WARP * c.get('multiprocessors'):,.0f}"),
        ("clock, GHz", lambda c: f"{c.get('clock') / 1e9:.2f}"),
        ("lanes x 2 x clock, TFLOP/s", lambda c: f"{c.peak / 1e12:.1f}"),
        ("data sheet, TFLOP/s", lambda c: f"{c.sheet_peak / 1e12:.1f}"),
    ]
    table = columns([PUBLISHED, *(c.name for c in cards)], [(name, *map(text, cards)) for name, text in rows])
    off = max(abs(c.peak / c.sheet_peak - 1) for c in cards)
    return f"{table}\nLanes x 2 x clock is the data sheet's float32 peak to within {off:.1%}."


def memories(cards: Sequence[Card]) -> str:
    """The memories of cards: size, cycles from asking to having, and rate of all multiprocessors together."""
    levels = {  # what is published of each: its size, how many there are, cycles, rate
        "registers": ("registers", "multiprocessors", None, None),
        "shared memory": ("shared memory", "multiprocessors", "shared memory cycles", "shared memory rate"),
        "L2": ("L2", None, "L2 cycles", "L2 rate"),
        "the card's memory": (None, None, "memory cycles", "memory"),
        "the bus": (None, None, None, "pinned transfer"),
    }
    rows = []
    for c in cards:
        for level, quantities in levels.items():
            size, count, cycles, rate = (q and c.get(q) for q in quantities)
            each = (f"{count:.0f} x " if count else "") + f"{size / 1024:,.0f} KiB" if size else "-"
            shown = [f"{value:,.0f}" if value else "-" for value in (cycles, rate and rate / 1e9)]
            rows.append((f"{PUBLISHED}: {c.name}, {level}", each, *shown))
    table = columns(["memory", "size", "cycles", "GB/s"], rows)
    return f"{table}\ncycles: from asking to having, rounded. '-': not published here."
