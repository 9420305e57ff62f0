"""Chapter 06's room: figures of a step's account, of a profile, and of operations under the device's limits."""

import os
from collections.abc import Mapping, Sequence

from torch.profiler import profile

from mnist_gpu.chapters.chapter_06.account import SECTION, measure_account  # noqa: F401
from mnist_gpu.chapters.chapter_06.exercises import EXERCISES, check  # noqa: F401
from mnist_gpu.measuring import drawing
from mnist_gpu.measuring.drawing import CAUSES, OWN, Drawn, Series, lines, number, stacked

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler's engine prints its own log into a notebook
NOTES = "step ", "ProfilerStep", "Activity Buffer Request", "Buffer Flush"  # of the profiler's own, not operations


def verdict(name: str, parts: Mapping[str, float], whole: float) -> str:
    """What an account, seconds by cause, leaves unexplained of the whole, and which parts are smaller than that."""
    gap = 1e6 * (whole - sum(parts.values()))
    unseen = ", ".join(part for part, seconds in parts.items() if 0 < 1e6 * seconds < abs(gap))
    off = f"{number(gap)} μs are not explained" if gap > 0 else f"the parts sum to {number(-gap)} μs more"
    return f"{name}: {number(1e6 * whole)} μs; {off}. Smaller than that, and so not shown: {unseen or 'no part'}."


def shares(parts: Mapping[str, float], whole: float) -> dict[str, int]:
    """Of an account in per cent that sum to 100: of the whole, or of the parts where they are more."""
    parts = parts | {"not explained": max(0.0, whole - sum(parts.values()))}
    found = {name: round(100 * seconds / sum(parts.values())) for name, seconds in parts.items()}
    largest = max(found, key=found.get)
    return found | {largest: found[largest] + 100 - sum(found.values())}


def account_bars(accounts: Mapping[str, tuple[Mapping[str, float], float]]) -> Drawn:
    """Accounts (parts, whole), seconds, one below the other, each as 100 %, with the verdict on each."""
    axes, says = stacked({name: shares(*one) for name, one in accounts.items()}, unit="% of the step")
    for bars in axes.containers:
        axes.bar_label(bars, fmt=lambda w: f"{w:.0f} %" * int(w >= 4), label_type="center", size=8, bbox={"color": "w"})
    return Drawn(axes, "\n".join([says, *(verdict(name, *one) for name, one in accounts.items())]))


def timeline(watched: profile, first: str, *, named: int = 8) -> Drawn:
    """The events from the beginning of the one called `first` on, the `named` longest with their names."""

    def depth(event) -> int:  # under the step, which itself is not drawn
        parent = event.cpu_parent
        return 0 if parent is None or parent.name.startswith(NOTES) else 1 + depth(parent)

    step = next(e for e in watched.events() if e.name == first and e.device_type.name == "CPU")
    events, colors, busy = [], {"Optimizer.step": CAUSES["bytes"]}, 0.0
    works = ("aten::mm", "aten::addmm") if all(e.device_type.name == "CPU" for e in watched.events()) else ()
    for e in watched.events():
        begin, end, row = e.time_range.start / 1e6, e.time_range.end / 1e6, e.device_type.name
        if end > begin >= step.time_range.start / 1e6 and not e.name.startswith(NOTES):
            name, work = e.name.split("#")[0], e.name in works or row != "CPU"
            colors.setdefault(name, CAUSES["operations" if work else "launches"])
            busy += work * (end - begin)
            where = "CPU, backward" if row == "CPU" and e.thread != step.thread else row
            events.append((where, name, begin, end, depth(e) if row == "CPU" else 0))
    axes, says = drawing.timeline(events, named=named, colors=colors)
    whole = max(e[3] for e in events) - min(e[2] for e in events)
    return Drawn(axes, f"Work (green) takes {1e6 * busy:.0f} of {1e6 * whole:.0f} μs. The longest of all:\n{says}")


def roofline(points: Sequence[tuple], rate: float, memory: float, caches: float) -> Drawn:
    """Operations (name, batch size, FLOP, bytes, seconds) under a device's FLOP/s and bytes/s, by FLOP per byte."""
    series, ridge = [], rate / memory
    points = sorted(points, key=lambda p: (p[2] / p[3], -p[2] / p[4]))  # the name stands at the last
    for name in dict.fromkeys(p[0] for p in points):
        xs, ys = zip(*((p[2] / p[3], 1e-9 * p[2] / p[4]) for p in points if p[0] == name), strict=True)
        series.append(Series(name, OWN, xs, ys))
    axis = lines(series, xlabel="operations per byte (FLOP/byte)", ylabel="GFLOP/s").axes
    axis.get_legend().remove()
    least, most = (f(ridge, *(x for s in series for x in s.xs)) for f in (min, max))
    for s, line in zip(series, axis.lines, strict=True):
        line.set_color("#666666")  # as colours are of causes
        axis.annotate(s.name, (s.xs[-1], s.ys[-1]), (6, -2), va="top", textcoords="offset points")
    for name, bandwidth, style in (("memory", memory, "-"), ("caches", caches, "--")):
        roof = [least / 2, rate / bandwidth, 2 * most]
        axis.plot(roof, [1e-9 * min(rate, x * bandwidth) for x in roof], style, color="black", label=name)
        axis.annotate(name, (roof[0], 1e-9 * roof[0] * bandwidth), (4, 8), textcoords="offset points", rotation=25)
    for cause, a, b in (("bytes", least / 2, ridge), ("operations", ridge, 2 * most)):
        axis.axvspan(a, b, color=CAUSES[cause], alpha=0.12)
        axis.annotate(f"{cause} are the limit", ((a * b) ** 0.5, 1.02), ha="center", xycoords=("data", "axes fraction"))
    below = sum(p[2] / p[4] < min(rate, memory * p[2] / p[3]) / 2 for p in points)
    says = f"The ridge is at {ridge:.1f} operations per byte. {below} of {len(points)} points reach less than half"
    return Drawn(axis, f"{says} of the roof:\nthey are held back by launches, or their shape leaves the device idle.")
