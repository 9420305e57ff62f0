"""Chapter 01: the first and the last training, a GPU in one picture, its two ceilings, and lines that wait."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median

import matplotlib.pyplot as plt
import torch

from mnist_gpu.device import environment, usable_cpus, using_threads
from mnist_gpu.faster.ladder import PLAIN, TEXTBOOK, rungs
from mnist_gpu.measuring.busy import watching
from mnist_gpu.measuring.climb import skipped
from mnist_gpu.measuring.drawing import OWN, PALETTE, PREDICTED, PUBLISHED, RECORDED, Drawn, Series, bars, number, span
from mnist_gpu.measuring.exercises import MEND, PREDICT, WRITE, Exercise, Wrong, checker, compared, count_of, in_time
from mnist_gpu.measuring.prediction import Card, Figure, predicted_ladders
from mnist_gpu.measuring.results import BROKEN_OFF, Results, Skipped, Timed
from mnist_gpu.measuring.timing import measure
from mnist_gpu.measuring.workloads import thread_counts, torch_call, webgpu_call
from mnist_gpu.webgpu.gpu import Gpu, WebGPUError, the_gpu, webgpu_missing

CPU = torch.device("cpu")
LAST = ("CUDA graph of an epoch", "written out, oneDNN", "backward written out", PLAIN)  # the first that can run
UNITS = {"matrix product": "GFLOP/s", "copy": "GB/s"}  # of the two ceilings
SIZES, MEBIBYTES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048), (1, 4, 16, 64, 256)
KINDS = {OWN: "measured", RECORDED: "recorded", PUBLISHED: "data sheets", PREDICTED: "from published figures"}


def own_gpu(device: torch.device) -> Gpu | None:
    """The GPU that WebGPU reaches where PyTorch has none; not a program that acts as one."""
    found = the_gpu() if device == CPU and not webgpu_missing() else None
    return found if found and found.adapter.kind != "software" else None


def first_and_last(device: torch.device) -> list[str]:
    """The rungs of the textbook's training and of the last one; beside a CPU also the last one through WebGPU."""
    last = next(name for name in LAST if not rungs([name])[0].missing(device))
    return [TEXTBOOK, last, *["WebGPU, a submission an epoch"] * bool(own_gpu(device))]


def multiples(rows: Sequence[tuple[str, str, float, float]], unit: str) -> Drawn:
    """Bars of (kind, name, least, most), with the multiple of the first that each is: a range where the two differ."""
    series, one = [], rows[0][2]
    for kind in dict.fromkeys(kind for kind, *_ in rows):
        _, names, lows, highs = zip(*(row for row in rows if row[0] == kind), strict=True)
        values = [low if low == high else None for low, high in zip(lows, highs, strict=True)]
        ends = zip(values, lows, highs, strict=True)
        notes = [f"x {number(low / one) if value else span((low, high), one)}" for value, low, high in ends]
        series.append(Series(KINDS[kind], kind, names, values, lows, highs, notes))
    return bars(series, unit=unit)


def factors(timed: Sequence[Timed], device: torch.device) -> Drawn:
    """How many times as fast as the first, the CPU's textbook; without a GPU of PyTorch's also what cards might be."""
    here, first, rows = Results(environment(device), [*timed], ""), timed[0], []
    for m in timed:
        ratio = median(a / b for a, b in zip(first.seconds, m.seconds, strict=True))
        rows.append((OWN, f"{m.name},\n{here.hardware(m.device)}", ratio, ratio))
    for card, seconds in predicted_ladders([]) if device == CPU else []:
        gain = seconds[LAST[0]].gain_over(median(first.per_epoch()))
        rows.append((PREDICTED, f"{LAST[0]},\n{card.split(',')[0]}", *gain))
    return multiples(rows, "times as fast as the textbook's training on one thread of this CPU")


def rates(name: str, mine: Results, others: Sequence[Results], published: Sequence[Figure]) -> Drawn:
    """A ceiling of the CPU, of GPUs, the reader's and recorded ones, and of published cards."""
    rows, unit = [], UNITS[name]
    for results in (mine, *others):
        for device in dict.fromkeys(m.device for m in results.select("ceilings", name)):
            if results is mine or device != "cpu":
                m, kind = highest(results, name, device=device), OWN if results is mine else RECORDED
                rows.append((kind, results.whose(m, recorded=kind == RECORDED), m.rate(*m.per_call)))
    rows += [(PUBLISHED, figure.card, figure.value) for figure in published]
    return multiples([(k, f"{of},\n{number(x / 1e9)} {unit}", x / 1e9, x / 1e9) for k, of, x in rows], unit)


def picture(card: Card) -> Drawn:
    """Host and device: cores, streaming multiprocessors, and the lanes of one; under them the memories, and the bus."""
    many, lanes = (int(card.get(name)) for name in ("multiprocessors", "lanes"))
    rate, transfer = f"{card.bandwidth / 1e9:,.0f} GB/s", card.get("pinned transfer")
    bus = f"bus, {transfer / 1e9:.0f} GB/s" if transfer else "bus"
    axes = plt.subplots(1, 3, figsize=(9, 1.6))[1]
    for axis, count, color, over, noun, under in (
        (axes[0], usable_cpus(), PALETTE[5], "HOST: a CPU, ", "core", f"main memory; {bus}"),
        (axes[1], many, PALETTE[4], f"DEVICE: {card.name}, ", "multiprocessor", f"its memory, {rate}"),
        (axes[2], lanes // many, PALETTE[2], "one multiprocessor: ", "lane", "its own small memory"),
    ):
        i, columns = torch.arange(count), max(3, math.ceil(math.sqrt(3 * count)))
        axis.scatter(i % columns, -(i // columns), (110 / columns) ** 2, color, marker="s")
        axis.set(xlim=(-1, columns), ylim=(-columns / 3 - 0.7, 1), xticks=(), yticks=(), xlabel=under)
        axis.set_title(over + count_of(count, noun), fontsize=10)
        axis.spines["left"].set_visible(False)
    says = f"{card.full_name}, published: {many} multiprocessors, {lanes:,} lanes; memory {rate}; {bus}."
    return Drawn(axes[0], says)


def measure_ceilings(device, *, sizes=SIZES, mebibytes=MEBIBYTES, seconds=0.2, progress=iter) -> Iterator:
    """The two limits of a device, float32 products of n x n and copies; after the CPU's those of the reader's GPU."""
    for threads in progress(thread_counts(device)):
        for name, parameters, per_call in work(sizes, mebibytes):
            with using_threads(threads):  # a call holds its tensors, and goes when it is measured
                times = measure(torch_call(device, **parameters), min_seconds=seconds).times
            yield Timed("ceilings", name, device.type, threads, list(times), parameters, per_call)
    try:
        if gpu := own_gpu(device):
            mebibytes = [mib for mib in mebibytes if mib * 2**20 <= gpu.adapter.largest_buffer]
            for name, parameters, per_call in work(sizes, mebibytes):
                one = webgpu_call(gpu, **parameters)
                times = list(measure(partial(gpu.run, [one]), min_seconds=seconds).times)
                yield Timed("ceilings", name, "webgpu", 1, times, parameters, per_call, proof={"hardware": gpu.name})
                for array in one.arrays:
                    array.release()
    except WebGPUError as error:
        yield Skipped("ceilings", BROKEN_OFF, "webgpu", str(error))


def work(sizes: Sequence[int], mebibytes: Sequence[int]) -> list[tuple[str, dict, dict]]:
    """What is measured: its name, its parameters, and what a call does: FLOP, or bytes that are read and written."""
    products = [("matrix product", {"size": n}, {"flop": 2 * n**3}) for n in sizes]
    return products + [("copy", {"mebibytes": mib}, {"bytes": mib * 2**21}) for mib in mebibytes]


def highest(results: Results, name: str, **side) -> Timed | None:
    """The fastest product, or copy of the largest size, which no cache holds: of one side, or of all."""
    measured = results.select("ceilings", name, **side)
    return max(measured, key=lambda m: (m.parameters.get("mebibytes"), m.rate(*m.per_call)), default=None)


def summary(results: Results, device: str) -> list[str]:
    """Lines for the results of one device, each to follow the device's name."""
    found = [m for name in UNITS if (m := highest(results, name, device=device))]
    return [f": {m.name} at {m.rate(*m.per_call) / 1e9:,.0f} {UNITS[m.name]} ({m.threads} threads)" for m in found]


def ceilings_here(device: torch.device) -> Results:
    """A short measurement of the CPU, of `device`, and of a GPU through WebGPU."""
    sides = {CPU: (8, 64, 256, 1024), device: (8, 64, 256, 1024) if device == CPU else (8, 64, 512, 4096)}
    every = (m for d, n in sides.items() for m in measure_ceilings(d, sizes=n, mebibytes=(1, 16, 256), seconds=0.1))
    with watching():
        return Results(environment(device), skipped(every), "")


def played(answer: Callable, asking: int, work: int, pending: int, setup: int) -> object:
    """What an answer gives on a device whose time passes only when it is asked something; in μs."""
    at = {"now": 5000, "done": 5000 + pending, "setup": setup}  # setup: of the first call

    def operation() -> None:
        at["now"], at["setup"] = at["now"] + asking + at["setup"], 0
        at["done"] = max(at["done"], at["now"]) + work

    def wait() -> None:
        at["now"] = max(at["done"], at["now"])

    found = in_time(answer, operation, wait, lambda: 1e-6 * at["now"])
    return found.item() if isinstance(found, torch.Tensor) else found


def judged(answer: dict[str, bool]) -> str:
    """Runs each line on `meta`, whose tensors have no values: a line that needs a number stops there."""
    shapes = {"images": (8, 784), "weights": (784, 10), "labels": (8,), "logits": (8, 10), "loss": ()}
    if len(answer) < 6:
        raise Wrong(f"Of six lines there are {len(answer)} left.")
    for line, said in answer.items():
        try:
            exec(line, {"torch": torch} | {name: torch.rand(shape, device="meta") for name, shape in shapes.items()})
            found = "runs: Python needs no number"
        except (RuntimeError, TypeError) as error:
            if "meta" not in str(error).lower():  # another mistake in it
                raise
            found = "stops: Python needs a number"
        if bool(said) != ("stops" in found):
            raise Wrong(f"{line!r}, tried on meta, a device whose tensors have no values: it {found}.")
    return f"On meta, a device whose tensors have no values, {sum(answer.values())} of {len(answer)} lines stop."


WORKS = 64**3
SUMS = (WORKS, WORKS, None, 0, WORKS - 64, torch.nan, torch.inf)  # what devices give; None: they stop with an error


def first(good: Callable[[float | None], bool], given: list[float | None]) -> str:
    """The first device whose sum is good."""
    return next((f"gpu:{i}" for i, found in enumerate(given) if good(found)), "cpu")


def picked(answer: Callable, given: list[float | None]) -> object:
    def compute(device: str) -> float:
        found = WORKS if device == "cpu" else given[int(device[4:])]
        if found is None:
            raise RuntimeError("no kernel image is available for execution on the device")
        return float(found)

    return in_time(answer, [f"gpu:{i}" for i in range(len(given))], compute)


EXERCISES = (
    Exercise("01.1", WRITE, "A clock for work that is only asked for", compared(
        lambda asking, work, pending, setup: 1e-6 * (asking + work),
        lambda: [(*random.choices(range(5, 900), k=2), pending, 3000) for pending in (700, 0, 90, 0, 300)], run=played,
        given=lambda asking, work, *_: f"Asking takes {asking} μs, the work {work} μs; in seconds", hints=(
            (lambda asking, *_: 1e-6 * asking,
             "When the clock was stopped, work was still in the queue: it timed the asking."),
            (lambda asking, work, *_: 1e-6 * (max(asking, work) + work),
             "When the clock was started, work of the warm-up was still in the queue."),
            (lambda asking, work, pending, setup: 1e-6 * (setup + asking + work),
             "The first call of the operation is in it, which sets things up."),
        ),
        why=lambda *_: "Are these seconds, of one call, between two readings of the clock?",
    )),
    Exercise("01.2", PREDICT, "Which lines wait?", partial(in_time, judged)),
    Exercise("01.3", MEND, "A device that is there and cannot compute", compared(
        partial(first, lambda found: found == WORKS),
        lambda: [([],), ([None],), *((random.choices(SUMS, k=random.randrange(2, 7)),) for _ in range(40))],
        run=picked, given=lambda given: f"Where the devices give {given} (None: an error)",
        hints=((partial(first, bool), "Is the number looked at that it gives?"),
               (partial(first, lambda found: found in (None, WORKS)), "Its error was caught, but what then?")),
    )),
)  # fmt: skip
check = checker(EXERCISES)
