"""Chapter 07: the ladder, a section of the benchmark, and its figure."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import torch

from mnist_gpu.chapters.chapter_07.exercises import EXERCISES, check  # noqa: F401 - for a cell
from mnist_gpu.checks import atomic_write, writable
from mnist_gpu.device import usable_cpus
from mnist_gpu.faster.ladder import ALL_THREADS, PLAIN, RUNGS, TEXTBOOK, WIDE
from mnist_gpu.measuring import drawing
from mnist_gpu.measuring.climb import FLOORS, fastest_rung, gains, known, measure_ladder, quickest
from mnist_gpu.measuring.drawing import Drawn, Series, span
from mnist_gpu.measuring.prediction import predicted_ladders
from mnist_gpu.measuring.results import REFERENCE, Results, Skipped, Timed, compare_in_turn, read, recorded
from mnist_gpu.measuring.section import ROUNDS, Section, comparisons
from mnist_gpu.measuring.timing import Comparison, compare_all, interval

# The rungs that tell the story, for a figure that is seen at a glance.
LAST, FLOOR = "CUDA graph of an epoch", "the floor: products alone"
FEW = (TEXTBOOK, "tensors in memory", PLAIN, "compiled epoch", "WebGPU, a submission an epoch", LAST)


def all_ladders(device: torch.device, *, steps: int | None = None, **options) -> Iterator[Timed | Skipped]:
    """All rungs; on a CPU some with all its threads, too, a GPU's fair opponent; and reduced precision when wide."""
    yield from measure_ladder(device, steps=steps, **options)
    if device.type == "cpu" and usable_cpus() > 1:
        yield from measure_ladder(device, names=ALL_THREADS, steps=steps, threads=usable_cpus(), **options)
    yield from measure_ladder(device, names=WIDE, hidden=2048, steps=50, floor=False, **options)


def pairs(times: Mapping[str, Sequence[float]]) -> list[tuple[str, str]]:
    """Every rung, and the floor, with the textbook; the plain loop and the fastest rung with the floor."""
    names, floor = [name for name in times if name not in FLOORS], quickest(times, FLOORS)
    return [*((TEXTBOOK, name) for name in (*names, floor)), (PLAIN, floor), (fastest_rung(times), floor)]


def summary(results: Results, device: str) -> list[str]:
    if device == "webgpu":  # timed in turn with the CPU
        measured = [m for m in results.select("ladder", hidden=128, threads=1) if m.device in ("cpu", device)]
        sides = [(first, m.name) for first in (TEXTBOOK, PLAIN) for m in measured if m.device == device]
        return [f", ladder: {one}" for one in compare_in_turn(measured, sides)]
    wide = comparisons(results, device, "ladder", lambda times: [WIDE], ", width 2048", hidden=2048)
    return comparisons(results, device, "ladder", pairs, hidden=128, threads=1) + wide


LADDER = Section(all_ladders, full=ROUNDS, quick=ROUNDS | {"steps": 50}, summary=summary)


def against_base(measured: Iterable[Timed]) -> list[Comparison]:
    """Every rung against the one that it changes."""
    times = {m.name: m.seconds for m in measured}
    return compare_all(times, [(rung.base, rung.name) for rung in RUNGS if {rung.base, rung.name} <= times.keys()])


def _dots(kind: str, label: str, measured: Sequence[Timed]) -> Series:
    """The rungs of one side, all of the reader's and a few of others, and the fastest products."""
    timed = {m.name: m.per_epoch() for m in measured}
    names = [r.name for r in RUNGS if kind == drawing.OWN or r.name in FEW]
    times = {name: timed[name] for name in names if name in timed}
    if floor := quickest(timed, FLOORS):
        times[FLOOR] = timed[floor]
    shown = {name: f", x {gain.times}" for name, gain in gains(measured).items() if gain.differs}
    notes = [f"{known(seconds)[0]} s{shown.get(name, '')}" for name, seconds in times.items()]
    medians, ends = map(statistics.median, times.values()), map(interval, times.values())
    return Series(label, kind, [*times], [*medians], *zip(*ends, strict=True), notes)


def ladder_figure(machines: Sequence[Results], own: Results | None = None) -> Drawn:
    """Seconds per epoch of the rungs, `own` and recorded, of CPUs and of GPUs, and what is predicted for cards.

    Raises ValueError if there is no ladder at all.
    """
    sides, panels = {}, {"On a CPU": [], "On a GPU": []}
    every = [(r, m) for r in [*([own] if own else []), *machines] for m in r.select("ladder", hidden=128)]
    for results, m in every:
        if m.threads == 1 or any(other.device != "cpu" for _, other in every):  # one is no fair opponent of a GPU
            kind = drawing.OWN if results is own else drawing.RECORDED
            sides.setdefault((kind, results.whose(m, recorded=results is not own)), []).append(m)
    if not sides:
        raise ValueError(f"no machine's ladder is recorded in {REFERENCE}")
    for side, measured in sides.items():
        panels["On a CPU" if measured[0].device == "cpu" else "On a GPU"].append(_dots(*side, measured))
    for label, found in predicted_ladders([r for r, _ in every]):
        names, base = [name for name in FEW if name in found], found[TEXTBOOK].middle
        notes = [f"{span(found[name])} s, x {span(found[name].gain_over(base))}" for name in names]
        notes[0] = f"{span(found[TEXTBOOK])} s"
        ends = zip(*(found[name] for name in names), strict=True)
        panels["On a GPU"].append(Series(label, drawing.PREDICTED, names, [None] * len(names), *ends, notes))
    return drawing.dots(panels, unit="seconds per epoch", order=[*(r.name for r in RUNGS), FLOOR])


def draw_ladder(
    file: Annotated[Path, "a PNG file", {"nargs": "?"}] = REFERENCE / "ladder.png",
    add: Annotated[Path | None, "a results file to draw beside the recorded ones"] = None,
) -> int:
    """Draws a few rungs of all recorded machines and of the results file `add`. Raises ValueError if there is none."""
    writable(file)
    plt.switch_backend("agg")  # a file is wanted, no window
    axes, says = ladder_figure(recorded() + ([read(add)] if add else []))
    with atomic_write(file) as out:
        axes.figure.savefig(out, format="png", dpi=130, metadata={"Description": says})
    plt.close(axes.figure)
    print(f"Drew {file}\n{says}")
    return 0
