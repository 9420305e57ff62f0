"""Chapter 06's room: figures of a step's account, of a profile, and of operations under the device's limits."""

import os
from collections.abc import Mapping, Sequence

from torch.profiler import profile
from tqdm.auto import tqdm  # noqa: F401 - for a cell

from mnist_gpu.chapters.chapter_06.account import SECTION, measure_account, measure_disturbance  # noqa: F401
from mnist_gpu.chapters.chapter_06.exercises import EXERCISES, check  # noqa: F401
from mnist_gpu.faster.ladder import webgpu_epoch  # noqa: F401
from mnist_gpu.measuring import drawing
from mnist_gpu.measuring.drawing import CAUSES, OWN, Drawn, Series, lines, number, stacked
from mnist_gpu.webgpu.gpu import the_gpu, webgpu_missing  # noqa: F401

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler's engine prints its own log into a notebook
NOTES = "step ", "ProfilerStep", "Activity Buffer Request", "Buffer Flush"  # of the profiler's own, not operations
PRODUCTS = ("aten::mm", "aten::addmm")


def verdict(name: str, parts: Mapping[str, float], whole: float) -> str:
    """What an account, seconds by cause, leaves unexplained of the whole, and of which parts it thus says nothing."""
    gap = whole - sum(parts.values())
    unseen = [part for part, seconds in parts.items() if 0 < seconds < abs(gap)]
    what = "not explained" if gap > 0 else "counted twice, as happens where things run at the same time"
    than = f"more than {', '.join(unseen)}: of these it says nothing" if unseen else "less than any of its parts"
    return f"{name}: {number(1e6 * whole)} μs, and {number(1e6 * abs(gap))} μs are {what}. That is {than}."


def shares(parts: Mapping[str, float], whole: float) -> dict[str, int]:
    """Of an account in per cent that sum to 100: of the whole, or of the parts where they are more."""
    parts = parts | {"not explained": max(0.0, whole - sum(parts.values()))}
    found = {name: round(100 * seconds / sum(parts.values())) for name, seconds in parts.items()}
    largest = max(found, key=found.get)
    return found | {largest: found[largest] + 100 - sum(found.values())}


def account(accounts: Mapping[str, tuple[Mapping[str, float], float]]) -> Drawn:
    """Accounts (parts, whole), seconds, one below the other, each as 100 %, with the verdict on each."""
    axes, says = stacked({name: shares(*one) for name, one in accounts.items()}, unit="% of the step")
    for bars in axes.containers:
        texts = [f"{width:.0f} %" if width >= 4 else "" for width in bars.datavalues]
        axes.bar_label(bars, texts, label_type="center", fontsize=8, bbox={"color": "white", "pad": 1.5})
    return Drawn(axes, "\n".join([says, *(verdict(name, *one) for name, one in accounts.items())]))


def timeline(watched: profile, first: str, *, named: int = 8) -> Drawn:
    """The events from the beginning of the one called `first` on, the `named` longest with their names."""

    def depth(event) -> int:  # under the step, which itself is not drawn
        parent = event.cpu_parent
        return 0 if parent is None or parent.name.startswith(NOTES) else 1 + depth(parent)

    step = next(e for e in watched.events() if e.name == first and e.device_type.name == "CPU")
    events, colors, busy = [], {"Optimizer.step": CAUSES["bytes"]}, 0.0
    for e in watched.events():
        begin, end, row = e.time_range.start / 1e6, e.time_range.end / 1e6, e.device_type.name
        if end > begin >= step.time_range.start / 1e6 and not e.name.startswith(NOTES):
            name, work = e.name.split("#")[0], e.name in PRODUCTS or row != "CPU"
            colors.setdefault(name, CAUSES["operations" if work else "launches"])
            busy += work * (end - begin)
            where = "CPU, backward" if row == "CPU" and e.thread != step.thread else row
            events.append((where, name, begin, end, depth(e) if row == "CPU" else 0))
    axes, says = drawing.timeline(events, named=named, colors=colors)
    whole = max(e[3] for e in events) - min(e[2] for e in events)
    what = "kernels" if {e[0] for e in events} - {"CPU", "CPU, backward"} else "products"
    return Drawn(axes, f"The {what} (green) take {1e6 * busy:.0f} of {1e6 * whole:.0f} μs. The longest:\n{says}")


def roofline(points: Sequence[tuple], rate: float, memory: float, caches: float) -> Drawn:
    """Operations (name, batch size, FLOP, bytes, seconds) under a device's FLOP/s and bytes/s, by FLOP per byte.

    S. Williams, A. Waterman, D. Patterson, Roofline: an insightful visual performance model, 2009.
    """
    series, ridge = [], rate / memory
    for name in dict.fromkeys(p[0] for p in points):
        mine = [p[1:] for p in points if p[0] == name]
        series.append(Series(name, OWN, [p[1] / p[2] for p in mine], [1e-9 * p[1] / p[3] for p in mine]))
    axis = lines(series, xlabel="operations per byte (FLOP/byte)", ylabel="GFLOP/s").axes
    every = [x for s in series for x in s.xs]
    least, most = min(*every, ridge) / 2, 2 * max(*every, ridge)
    for name, bandwidth, style in (("memory", memory, "-"), ("caches", caches, "--")):
        roof = [least, rate / bandwidth, most]
        axis.plot(roof, [1e-9 * min(rate, x * bandwidth) for x in roof], style, color="black")
        axis.annotate(name, (least, 1e-9 * least * bandwidth), (4, 6), textcoords="offset points", rotation=30)
    for cause, left, right in (("bytes", least, ridge), ("operations", ridge, most)):
        axis.axvspan(left, right, color=CAUSES[cause], alpha=0.1)
        place = {"xycoords": axis.get_xaxis_transform(), "ha": "center"}
        axis.annotate(f"{cause} are the limit", ((left * right) ** 0.5, 1.02), **place)
    below = sum(p[2] / p[4] < min(rate, memory * p[2] / p[3]) / 2 for p in points)
    says = f"The ridge is at {ridge:.1f} operations per byte. {below} of {len(points)} points reach less than half"
    return Drawn(axis, f"{says} of the roof: their limit is the launch, or a shape that leaves the device idle.")
