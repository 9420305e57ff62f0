"""What every section of the benchmark has: a generator, its settings, and its lines of the summary."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from mnist_gpu.measuring.results import Results, Skipped, Timed, compare_in_turn

# Of the sections that time their sides in turn. Ten pairs are enough for up to 25 comparisons made together; four are
# enough for none, so a section whose summary compares takes ten also for a look: fewer make no record either.
ROUNDS, QUICK_ROUNDS = {"rounds": 10}, {"rounds": 4}


@dataclass(frozen=True)
class Section:
    """A part of the benchmark: measured in a chapter's room, and a line in mnist_gpu.benchmark."""

    # Called with the device, the settings, and, where it takes rounds, `progress` (see timing.alternate). It yields one
    # measurement at a time, so that what is finished is kept when a run is interrupted.
    measure: Callable[..., Iterator[Timed | Skipped]]
    full: dict = field(default_factory=dict)  # settings of a record
    quick: dict = field(default_factory=dict)  # settings of a look
    # Lines for the results of one device, each to follow the device's name.
    summary: Callable[[Results, str], list[str]] = lambda results, device: []
    once: bool = False  # takes all devices in one run


def comparisons(results: Results, device: str, section: str, pairs: Callable, note: str = "", **fields) -> list[str]:
    """A line of the summary for each of `pairs(times)` that were timed, over the measurements that `fields` select."""
    measured = results.select(section, device=device, **fields)
    asked = [(a, b) for a, b in dict.fromkeys(pairs({m.name: m.seconds for m in measured})) if a != b]
    return [f", {section}{note}: {one}" for one in compare_in_turn(measured, asked)]
