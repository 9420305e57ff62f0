"""Chapter 06: what a step is taken apart into, figures of its account, its profile and its roofs, and the exercises."""

import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import matplotlib.pyplot as plt
import torch
from torch.profiler import profile

from mnist_gpu.data import make_batches
from mnist_gpu.faster.ladder import plain, textbook
from mnist_gpu.measuring import drawing
from mnist_gpu.measuring.drawing import CAUSES, Drawn, number, stacked
from mnist_gpu.measuring.exercises import PREDICT, WRITE, Exercise, checker, compared
from mnist_gpu.measuring.results import Timed
from mnist_gpu.measuring.timing import in_turn
from mnist_gpu.measuring.workloads import First, repeat, train_part, training_step

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler's engine prints its own log into a notebook
NOTES = "step ", "ProfilerStep", "Activity Buffer Request", "Buffer Flush"  # of the profiler's own, not operations
SIZES = (1, 4, 16, 64, 256, 1024), (1, 256, 4096, 32_768)  # on a CPU; on a GPU, where launching hides small ones


def measure_account(device: torch.device, *, steps: int, sizes=None, progress=iter) -> Iterator[Timed]:
    """What chapter 06 takes a training step apart into; one thread, times of one step of the 784-128-10 network.

    whole: the training itself. load: only the batches, not copied. copy: one batch from the host, again and again.
    step: one batch on the device, again and again, also over batch sizes and of the smallest network, which is only
    launches. with steps, on a CPU: batches and steps in turn.
    """
    host, on_device = make_batches("dataloader", device="cpu"), make_batches("device", device=device)
    images, labels = next(iter(make_batches("device")))
    step = training_step(device, 128, 128)
    shapes = {"smallest network": (1, 1)} | {f"step of {n}": (n, 128) for n in sizes or SIZES[device.type != "cpu"]}
    calls = {"copy": lambda: (images.to(device), labels.to(device)), "step, waiting": lambda: step().item()}
    calls |= {"step": step} | {name: training_step(device, *shape) for name, shape in shapes.items()}
    sides = {
        "whole, textbook": partial(train_part, textbook(device), steps),
        "whole, device": partial(train_part, plain(device), steps),
        "load, textbook": partial(between, First(host, steps)),
        "load, device": partial(between, First(on_device, steps)),
    }
    if device.type == "cpu":  # where both are done by the same processor
        sides["load, textbook, with steps"] = partial(between, First(host, steps), calls["step, waiting"])
        sides["load, device, with steps"] = partial(between, First(on_device, steps), step)
    sides |= {name: partial(repeat, call, steps) for name, call in calls.items()}
    for name, seconds in in_turn(sides, threads=1, device=device, progress=progress):
        shape = dict(zip(("batch_size", "hidden"), shapes.get(name, (128, 128)), strict=True))
        yield Timed("account", name, device.type, 1, [s / steps for s in seconds], shape)


def between(batches: Iterable, call: Callable[[], object] = lambda: None) -> None:
    """A pass over `batches`, with a `call` after each of them."""
    for _ in batches:
        call()


def verdict(name: str, parts: Mapping[str, float], whole: float) -> str:
    """What an account, seconds by cause, leaves unexplained of the whole, and which parts are smaller than that."""
    gap = 1e6 * (whole - sum(parts.values()))
    unseen = ", ".join(part for part, seconds in parts.items() if 0 < 1e6 * seconds < abs(gap))
    off = f"{number(gap)} μs are not explained" if gap > 0 else f"the parts sum to {number(-gap)} μs more"
    return f"{name}: {number(1e6 * whole)} μs; {off}. Smaller than that, and so not shown: {unseen or 'no part'}."


def account_bars(accounts: Mapping[str, tuple[Mapping[str, float], float]]) -> Drawn:
    """Accounts (parts, whole), seconds, each in % of the whole, or of its parts where they are more; their verdicts."""
    rows = {}
    for name, (parts, whole) in accounts.items():
        every = parts | {"not explained": max(0.0, whole - sum(parts.values()))}
        rows[name] = {part: 100 * seconds / sum(every.values()) for part, seconds in every.items()}
    axes, says = stacked(rows, unit="% of the step")
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
    axis, ridge = plt.subplots()[1], rate / memory
    points = sorted(points, key=lambda p: (p[2] / p[3], -p[2] / p[4]))  # the name stands at the last
    for name in dict.fromkeys(p[0] for p in points):
        xs, ys = zip(*((p[2] / p[3], 1e-9 * p[2] / p[4]) for p in points if p[0] == name), strict=True)
        axis.plot(xs, ys, marker="o", color="#666666", label=name)  # as colours are of causes
        axis.annotate(name, (xs[-1], ys[-1]), (6, -2), va="top", textcoords="offset points")
    least, most = (f(ridge, *(p[2] / p[3] for p in points)) for f in (min, max))
    for name, bandwidth, style in (("memory", memory, "-"), ("caches", caches, "--")):
        roof = [least / 2, rate / bandwidth, 2 * most]
        axis.plot(roof, [1e-9 * min(rate, x * bandwidth) for x in roof], style, color="black", label=name)
        axis.annotate(name, (roof[0], 1e-9 * roof[0] * bandwidth), (4, 8), textcoords="offset points", rotation=25)
    for cause, a, b in (("bytes", least / 2, ridge), ("operations", ridge, 2 * most)):
        axis.axvspan(a, b, color=CAUSES[cause], alpha=0.12)
        axis.annotate(f"{cause} are the limit", ((a * b) ** 0.5, 1.02), ha="center", xycoords=("data", "axes fraction"))
    axis.set(xlabel="operations per byte (FLOP/byte)", ylabel="GFLOP/s", xscale="log", yscale="log")
    below = sum(p[2] / p[4] < min(rate, memory * p[2] / p[3]) / 2 for p in points)
    says = f"The ridge is at {ridge:.1f} operations per byte. {below} of {len(points)} points reach less than half"
    return Drawn(axis, f"{says} of the roof:\nthey are held back by launches, or their shape leaves the device idle.")


def missing(whole: float, parts: dict[str, float], without: dict[str, float], noise: float) -> str:
    gap = whole - sum(parts.values())
    if gap <= noise:
        return "nothing" if gap >= -noise else "too much"
    fits = [c for c, us in without.items() if c not in parts and abs(whole - us - gap) <= noise]
    return fits[0] if len(fits) == 1 else "unexplained"


def accounts() -> Iterator[tuple]:
    """What is missing, and how far two causes are from it, in units of the noise. Mostly a part would fit as well."""
    gaps = ((gap, 0, 4) for gap in (0.9, 1.1, -0.9, -1.1, -7))
    near = ((7, *off) for off in ((0.9, -3), (-0.9, 4), (1.1, 3), (-1.1, 4), (25, -3), (0.4, -0.6)))
    for gap, *off in [*gaps, *near] * 3:
        whole, names, found = random.uniform(200, 2000), random.sample([*CAUSES][:6], 4), abs(gap) + 0.3
        noise = whole * random.uniform(0.01, 0.02)
        saves = [n * noise for n in (found, whole / noise - found - gap, gap + off[0], gap + off[1])]
        without = {name: whole - us for name, us in random.sample([*zip(names, saves, strict=True)], 4)}
        yield whole, dict(zip(names[:2], saves, strict=False)), without, noise


def about_account(whole: float, parts: dict[str, float], without: dict[str, float], noise: float, answer: object):
    saves = ", ".join(f"{cause} {whole - us:.1f}" for cause, us in without.items() if cause not in parts)
    before = f"{answer} was found before. " * (answer in [*parts])
    return f"{before}{whole - sum(parts.values()):.1f} μs are missing. Of the causes left, each saves: {saves} μs."


def smallest_batch(inputs: int, outputs: int, ridge: int) -> int | None:
    gained = 2 * inputs * outputs - ridge * 4 * (inputs + outputs)  # by an image more
    return -(-ridge * 4 * inputs * outputs // gained) if gained > 0 else None


def layers() -> list[tuple[int, int, int]]:
    """Those without an answer first, which a search never finds; and no answer that it takes long to find."""
    edges = [(784, 10, 4), (784, 10, 5), (784, 128, 20), (64, 64, 16), (64, 64, 8), (65, 64, 16), (8, 8, 1), (7, 1, 1)]
    every = edges + [tuple(map(random.randrange, (20, 20, 2), (2000, 2000, 60))) for _ in range(22)]
    found = {layer: smallest_batch(*layer) for layer in every}
    return sorted((f for f in found if (found[f] or 0) < 5000), key=lambda layer: found[layer] is not None)


def about_batch(inputs: int, outputs: int, ridge: int, batch: object) -> str:
    if not isinstance(batch, int) or batch < 1:
        return "A batch is a whole number from 1." * (batch is not None)
    operations, moved = 2 * batch * inputs * outputs, 4 * (batch * inputs + inputs * outputs + batch * outputs)
    return f"{batch:,}: {operations:,} operations, {moved:,} bytes: {operations / moved:.4g}. Is it the smallest?"


def first_to_remove(host: dict[str, float], gpu: dict[str, float], waits=True) -> tuple[str, float]:
    shorter, longer = sorted((host, gpu), key=lambda side: sum(side.values()))
    cause, whole = max(longer, key=longer.get), sum(longer.values())
    return cause, whole / max(whole - longer[cause], waits * sum(shorter.values()))


def programs() -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """The host has more and smaller causes; the GPU takes less, or more, by little or much; or there is none."""
    for times in (0.4, 0.9, 1.2, 3.0, 0.0) * 5:
        host, gpu = ({c: random.uniform(20, 90) for c in random.sample([*CAUSES][:6], n)} for n in (4, 2))
        scale = times * sum(host.values()) / sum(gpu.values())
        yield host, {f"{name} on the GPU": us * scale for name, us in gpu.items() if times}


EXERCISES = (
    Exercise("06.1", WRITE, "Which cause is missing in the account?", compared(
        missing, accounts, why=about_account,
        given=lambda whole, parts, _, noise: f"{whole:.1f} μs, {', '.join(parts)} found, noise {noise:.1f}",
    )),
    Exercise("06.2", PREDICT, "From which batch on is arithmetic the limit?", compared(
        smallest_batch, layers, why=about_batch,
        given=lambda *layer: "{} inputs, {} outputs, a ridge at {} operations per byte".format(*layer),
    )),
    Exercise("06.3", WRITE, "Which cause to remove first?", compared(
        first_to_remove, programs,
        why=lambda *_: "Of the side that takes longer, the largest cause; the time now, over the time without it.",
        given=lambda *sides: "; ".join(", ".join(f"{name} {us:.1f}" for name, us in side.items()) for side in sides),
        hints=(
            (lambda host, gpu: first_to_remove(host | gpu, {}), "Both work at the same time: a step is not their sum."),
            (partial(first_to_remove, waits=False), "A step still waits for the other side."),
        ),
    )),
)  # fmt: skip
check = checker(EXERCISES)
