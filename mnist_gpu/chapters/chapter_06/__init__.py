"""Chapter 06's room: a step's account in figures, the same on a card that is not here, and what the profiler says."""

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from mnist_gpu.chapters.chapter_06.account import CPU, disturbance, line_of, measure_account, parts_of
from mnist_gpu.chapters.chapter_06.account import SECTION as SECTION
from mnist_gpu.chapters.chapter_06.account import measure_disturbance as measure_disturbance
from mnist_gpu.chapters.chapter_06.exercises import EXERCISES as EXERCISES
from mnist_gpu.chapters.chapter_06.exercises import check as check
from mnist_gpu.data import TRAIN_IMAGES, DeviceBatches
from mnist_gpu.device import synchronize
from mnist_gpu.faster.ladder import PLAIN, TEXTBOOK, Training
from mnist_gpu.faster.whole_epoch import WholeEpoch
from mnist_gpu.measuring import drawing
from mnist_gpu.measuring.drawing import OWN, PREDICTED, Drawn, Series, columns, lines, number, stacked
from mnist_gpu.measuring.prediction import BYTES, Limits, PredictedCard, Range, binding, on_card
from mnist_gpu.measuring.results import Timed, recorded
from mnist_gpu.measuring.timing import measure
from mnist_gpu.measuring.workloads import train_part
from mnist_gpu.model import make_model

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler's engine prints its own log into a notebook
GRAPH, EPOCH = "CUDA graph of a step", "CUDA graph of an epoch"  # rungs of the ladder
ALLOWED = 0.15  # the share of the whole by which the sum of the parts may be off


def line_fit(measured: Mapping[str, Timed], fixed: float, slope: float, *, small: int = 150) -> Drawn:
    """A step over batch sizes, the fitted line, and the batch that is not in the fit; up to `small` images larger.

    Linear axes: on logarithmic ones a line that does not go through the origin is a curve.
    """
    steps = {m.parameters["batch_size"]: 1e6 * m.median for name, m in measured.items() if name.startswith("step of ")}
    xs = sorted({0, 128, *steps})
    series = [
        Series("fixed + slope x images", PREDICTED, xs, [1e6 * (fixed + slope * x) for x in xs]),
        Series("measured", OWN, list(steps), list(steps.values())),
        Series("measured, not in the fit", OWN, [128], [1e6 * measured["step"].median]),
    ]
    axis = lines(series, xlabel="images in the batch", ylabel="µs per step", log="").axes
    axis.lines[1].set_linestyle("")
    inset = axis.inset_axes((0.08, 0.5, 0.34, 0.48))
    look = ("color", "linestyle", "marker", "markerfacecolor")
    for line in axis.lines:
        inset.plot(*line.get_data(), **{key: getattr(line, f"get_{key}")() for key in look})
    axis.set_ylim(0)
    inset.set(xlim=(0, small), ylim=(0, 1.1e6 * max(fixed + slope * small, measured["step"].median)))
    return Drawn(axis, f"fixed {1e6 * fixed:.0f} µs per step, and {1e6 * slope:.2f} µs per image")


def account_bar(parts: Mapping[str, float], seconds: Mapping[str, float], pipeline: str, where: str) -> Drawn:
    """The parts of a step beside the whole, and by how much their sum is off. `where`: on which device."""
    row, whole, total = f"{pipeline}, {where}", seconds[f"whole, {pipeline}"], sum(parts.values())
    shares = {f"{name} ({part / whole:.0%})": 1e6 * part for name, part in parts.items()}
    axes, says = stacked({row: shares}, unit="µs per step", wholes={row: 1e6 * whole})
    within = "within" if abs(total / whole - 1) <= ALLOWED else "NOT within"
    says += f"\nThat is {total / whole:.0%} of the {number(1e6 * whole)} µs measured as a whole,"
    says += f" {within} the {ALLOWED:.0%} we allow."
    extra = disturbance(seconds, pipeline)
    if extra is not None and total < whole:
        says += f"\n{number(1e6 * (whole - total))} µs are missing. Loading and computing in turn take"
        says += f" {number(1e6 * extra)} µs more than the two by themselves."
    return Drawn(axes, says)


def recorded_accounts(device: torch.device) -> Iterator[Drawn]:
    """The accounts of the recorded machines' GPUs, but for those that are as this one, which has `device`."""
    for results in recorded(unlike=device):
        for step in results.select("account", "step"):
            if step.device != "cpu":
                measured = {m.name: m for m in results.select("account", device=step.device)}
                seconds = {name: m.median for name, m in measured.items()}
                for pipeline in ("textbook", "device"):
                    parts = parts_of(seconds, *line_of(measured), pipeline)
                    yield account_bar(parts, seconds, pipeline, results.whose(step))


class Host(NamedTuple):
    """What the computer around a card takes for a step of 128 images, with one thread, in seconds."""

    launch: float  # asking for the operations: the smallest network's step on the CPU
    textbook: float  # a batch of the textbook's pipeline
    device: float  # a batch of the pipeline "device", on the CPU
    disturbance: float  # what the textbook's batch and a step take in turn, beyond the two by themselves
    loop: float  # what is left of an epoch if its steps take no time


def measure_host(measured: Mapping[str, Timed] | None = None, rounds: int = 10) -> Host:
    """This computer's, from what `measure_account` found, or, if that was on no CPU, measured (ten seconds)."""
    if measured is None or measured["step"].device != "cpu":
        measured = {m.name: m for m in measure_account(CPU, sizes=(1, 64), steps=20, rounds=rounds)}
    seconds = {name: m.median for name, m in measured.items()}
    loads = seconds["load, textbook"], seconds["load, device"]
    # An epoch in which nothing is computed: drawing the order, going through it, stacking losses.
    images, labels = torch.empty(TRAIN_IMAGES, 28, 28, dtype=torch.uint8), torch.empty(TRAIN_IMAGES, dtype=torch.int64)
    epoch = WholeEpoch(DeviceBatches(images, labels))
    epoch.run = lambda drawn: torch.zeros(len(drawn))
    loop = measure(lambda: train_part(Training(make_model(1), epoch.step, epoch))).median / len(epoch)
    return Host(seconds["smallest network"], *loads, disturbance(seconds, "textbook"), loop)


def predict_accounts(card: PredictedCard, host: Host) -> dict[str, dict[str, Sequence[float]]]:
    """What a step is made of on the rungs that the model can say something about, width 128.

    Seconds by part, at least and at most: load and launch are the host's; "compute" is the card's, beyond what
    launching hides. The textbook's rung waits for every loss, so its step follows its loading. The copy of its images
    is left out: some tens of microseconds of a step that takes a hundred times as long. Around the graph of an epoch
    the host still goes through the loop, nearly all of it before the graph is launched or after it has ended.
    """
    graph = on_card(card, fused=True, batches=True)

    def launched(work: Range) -> dict[str, Sequence[float]]:
        return {"launch": (host.launch, host.launch), "compute": (max(0.0, work.low - host.launch), work.high)}

    return {
        TEXTBOOK: {"load": (host.textbook, host.textbook + host.disturbance)} | launched(on_card(card)),
        # The host asks for a batch's kernels, too: at least in no time, at most in what the CPU takes to make it.
        PLAIN: {"load": (0.0, host.device)} | launched(on_card(card, batches=True)),
        GRAPH: {"load": (0.0, host.device), "compute": graph},
        EPOCH: {"launch": (host.loop, host.loop), "compute": graph},
    }


def predict_ladder(card: PredictedCard, host: Host) -> dict[str, Range]:
    """Seconds per epoch of those rungs: the sums of their accounts."""
    steps = math.ceil(TRAIN_IMAGES / 128)
    accounts = predict_accounts(card, host).items()
    return {rung: Range(*(steps * sum(ends) for ends in zip(*parts.values(), strict=True))) for rung, parts in accounts}


def predicted_accounts(own: Mapping[str, float], card: PredictedCard, host: Host, rungs=(PLAIN, EPOCH)) -> Drawn:
    """This machine's parts of a step beside those predicted for a card on some rungs, at least and at most."""
    compute = own["compute: update"] + own["compute: images"]
    rows = {OWN: {"load": 1e6 * own["load"], "launch": 1e6 * own["launch"], "compute": 1e6 * compute}}
    for rung in rungs:
        parts = predict_accounts(card, host)[rung]
        for i, end in enumerate(("at least", "at most")):
            rows[f"{PREDICTED}: {card.name},\n{rung}, {end}"] = {name: 1e6 * ends[i] for name, ends in parts.items()}
    return stacked(rows, unit="µs per step", hollow=list(rows)[1:])


def profiled(step: Callable[[], object], count: int, device: torch.device) -> profile:
    """A profile of `count` calls of `step`, named "step 0", "step 1", ... among its events.

    As many calls go before, under the profiler, and are not kept: on a GPU the first ones hold its own start.
    """
    activities = [ProfilerActivity.CPU]
    if device.type in ("cuda", "xpu"):
        activities.append(getattr(ProfilerActivity, device.type.upper()))
    cycle = schedule(wait=0, warmup=1, active=1, repeat=1)
    with profile(activities=activities, schedule=cycle, acc_events=True) as watched:
        for _ in range(2):
            for i in range(count):
                with record_function(f"step {i}"):
                    step()
            synchronize(device)
            watched.step()
    return watched


def _own(name: str) -> bool:
    """Whether an event is the profiler's: a name given to a range of time, or its own buffers being requested."""
    return name.startswith(("step ", "ProfilerStep")) or name in ("Activity Buffer Request", "Buffer Flush")


def _where(event) -> str:
    """ "CPU", or a GPU's type: "CUDA"."""
    return str(event.device_type).rpartition(".")[2]


def operators(watched: profile) -> list:
    """The operators on the CPU, those that take longest first: `key`, `count`, `self_cpu_time_total` and
    `self_device_time_total` (µs; a GPU's kernels stand with the operator that launched them)."""
    found = [e for e in watched.key_averages() if _where(e) == "CPU" and not _own(e.key)]
    return sorted(found, key=lambda e: -(e.self_cpu_time_total + e.self_device_time_total))


def operators_table(watched: profile, count: int, *, rows: int = 12) -> str:
    """The operators of `count` steps that took longest by themselves, per step."""
    every = operators(watched)
    total = sum(e.self_cpu_time_total for e in every)
    head = ("operator", "calls per step", "self, CPU µs per step", "share", "self, GPU µs per step")
    texts = []
    for e in every[:rows]:
        cpu, gpu = e.self_cpu_time_total, e.self_device_time_total
        texts.append((e.key[:44], e.count // count, f"{cpu / count:.1f}", f"{cpu / total:.0%}", f"{gpu / count:.1f}"))
    calls = sum(e.count for e in every) // count
    return f"{columns(head, texts)}\n{len(every)} different operators, {calls} calls per step"


def seconds_a_step(watched: profile, count: int) -> float:
    """How long one of the `count` steps took while it was watched."""
    steps = [e.time_range for e in watched.events() if e.name.startswith("step ") and _where(e) == "CPU"]
    return (max(t.end for t in steps) - min(t.start for t in steps)) / 1e6 / count


def timeline(watched: profile, i: int, *, named: int = 12) -> Drawn:
    """The events from the beginning of step `i` on, the `named` longest with their names."""
    step = next(e for e in watched.events() if e.name == f"step {i}" and _where(e) == "CPU")

    def depth(event) -> int:  # under the step, which itself is not drawn
        parent = event.cpu_parent
        return 0 if parent is None or _own(parent.name) else 1 + depth(parent)

    events = []
    for e in watched.events():
        begin, end, where = e.time_range.start / 1e6, e.time_range.end / 1e6, _where(e)
        if end > begin >= step.time_range.start / 1e6 and not _own(e.name):
            row = "CPU, backward" if where == "CPU" and e.thread != step.thread else where
            events.append((row, e.name.split("#")[0], begin, end, depth(e) if where == "CPU" else 0))
    return drawing.timeline(events, named=named)


def trace_file() -> Path:
    """Where to write a trace: beside the notebook, or, where nothing may be written there, among temporary files."""
    return (Path.cwd() if os.access(Path.cwd(), os.W_OK) else Path(tempfile.gettempdir())) / "trace.json"


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
    says = "The black roof is the two measured limits; on each curve the batch grows from left to right."
    says += (
        f"\n{left} of {len(points)} points lie left of the ridge at {ridge:.1f} FLOP/byte, where memory is the limit."
    )
    return Drawn(axis, says)
