"""Chapter 06's room: figures of a step's account, of a profile, and of operations under the device's two limits."""

import os
from collections.abc import Mapping, Sequence

from torch.profiler import profile

from mnist_gpu.chapters.chapter_06.account import SECTION, line_of, measure_account, measure_disturbance  # noqa: F401
from mnist_gpu.chapters.chapter_06.exercises import EXERCISES, check  # noqa: F401
from mnist_gpu.measuring import drawing
from mnist_gpu.measuring.drawing import OWN, PREDICTED, Drawn, Series, lines, number, stacked
from mnist_gpu.measuring.prediction import BYTES, Limits, binding
from mnist_gpu.measuring.results import Timed

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler's engine prints its own log into a notebook


def line_fit(measured: Mapping[str, Timed], fixed: float, slope: float) -> Drawn:
    """A step over batch sizes, the fitted line, and the batch that is not in the fit.

    Linear axes: on logarithmic ones a line that does not go through the origin is a curve.
    """
    steps = {m.parameters["batch_size"]: 1e6 * m.median for name, m in measured.items() if name.startswith("step of ")}
    xs = sorted({0, 128, *steps})
    series = [
        Series("fixed + slope x images", PREDICTED, xs, [1e6 * (fixed + slope * x) for x in xs]),
        Series("measured", OWN, list(steps), list(steps.values())),
        Series("measured, not in the fit", OWN, [128], [1e6 * measured["step"].median]),
    ]
    axis = lines(series, xlabel="images in the batch", ylabel="μs per step", log="").axes
    axis.lines[1].set_linestyle("")
    axis.set_ylim(0)
    return Drawn(axis, f"fixed {1e6 * fixed:.0f} μs per step, and {1e6 * slope:.2f} μs per image")


def account_bar(parts: Mapping[str, float], whole: float, name: str) -> Drawn:
    """The parts of a step beside the whole, seconds, and which parts are smaller than what their sum is off by."""
    total = sum(parts.values())
    shares = {f"{part} ({seconds / total:.0%})": 1e6 * seconds for part, seconds in parts.items()}
    axes, says = stacked({name: shares}, unit="μs per step", wholes={name: 1e6 * whole})
    gap = abs(whole - total)
    unseen = [part for part, seconds in parts.items() if 0 < seconds < gap]
    than = f"more than {', '.join(unseen)}" if unseen else "less than any of its parts"
    says += f"\nMeasured as a whole: {number(1e6 * whole)} μs. The sum is off by {number(1e6 * gap)} μs: {than}."
    return Drawn(axes, says)


def timeline(watched: profile, first: str, *, named: int = 12) -> Drawn:
    """The events from the beginning of the one called `first` on, the `named` longest with their names."""

    def own(name: str) -> bool:  # the profiler's: a name given to a range of time, or its buffers being requested
        return name.startswith(("step ", "ProfilerStep")) or name in ("Activity Buffer Request", "Buffer Flush")

    def depth(event) -> int:  # under the step, which itself is not drawn
        parent = event.cpu_parent
        return 0 if parent is None or own(parent.name) else 1 + depth(parent)

    step = next(e for e in watched.events() if e.name == first and e.device_type.name == "CPU")
    events = []
    for e in watched.events():
        begin, end, row = e.time_range.start / 1e6, e.time_range.end / 1e6, e.device_type.name
        if end > begin >= step.time_range.start / 1e6 and not own(e.name):
            level = depth(e) if row == "CPU" else 0
            row = "CPU, backward" if row == "CPU" and e.thread != step.thread else row
            events.append((row, e.name.split("#")[0], begin, end, level))
    return drawing.timeline(events, named=named)


def roofline(points: Sequence[tuple[str, int, float, float, float]], limits: Limits) -> Drawn:
    """Operations (name, batch size, FLOP, bytes, seconds) under the device's two limits, by FLOP per byte.

    S. Williams, A. Waterman, D. Patterson, Roofline: an insightful visual performance model, 2009.
    """
    series, ridge = [], limits.rate / limits.bandwidth
    for name in dict.fromkeys(p[0] for p in points):
        mine = [p[2:] for p in points if p[0] == name]
        rates = [1e-9 * flop / seconds for flop, _, seconds in mine]
        series.append(Series(name, OWN, [flop / moved for flop, moved, _ in mine], rates))
    axis = lines(series, xlabel="operations per byte (FLOP/byte)", ylabel="GFLOP/s", marks={"the ridge": ridge}).axes
    every = [x for s in series for x in s.xs]
    roof = [min(every) / 2, ridge, 2 * max(*every, ridge)]
    axis.plot(roof, [1e-9 * x / max(limits.parts(x, 1.0).values()) for x in roof], color="black")
    left = sum(binding(limits.parts(flop, moved)) == BYTES for _, _, flop, moved, _ in points)
    says = "The black roof is the two measured limits; on each curve the batch grows from left to right.\n"
    at = f"left of the ridge at {ridge:.1f} FLOP/byte, where memory is the limit."
    return Drawn(axis, f"{says}{left} of {len(points)} points lie {at}")
