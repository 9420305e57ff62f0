"""Chapter 01: the first and the last training, a GPU in one picture, its two ceilings, and lines that wait."""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import matplotlib.pyplot as plt
import torch

from mnist_gpu.device import environment, usable_cpus, using_threads
from mnist_gpu.faster.ladder import PLAIN, TEXTBOOK, rungs
from mnist_gpu.measuring.busy import watched
from mnist_gpu.measuring.climb import skipped
from mnist_gpu.measuring.drawing import OWN, PALETTE, PREDICTED, PUBLISHED, RECORDED, Drawn, Series, bars, number, span
from mnist_gpu.measuring.exercises import MEND, PREDICT, WRITE, Exercise, Wrong, checker, compared
from mnist_gpu.measuring.prediction import Card, Figure, predicted_ladders
from mnist_gpu.measuring.results import BROKEN_OFF, Results, Skipped, Timed
from mnist_gpu.measuring.section import Section
from mnist_gpu.measuring.timing import measure
from mnist_gpu.measuring.workloads import launch_seconds, thread_counts, webgpu_call
from mnist_gpu.webgpu.gpu import Gpu, WebGPUError, the_gpu, webgpu_missing

CPU = torch.device("cpu")
LAST = ("CUDA graph of an epoch", "written out, oneDNN", "backward written out", PLAIN)  # the first that can run
UNITS = {"matrix product": "GFLOP/s", "copy": "GB/s"}  # of the two ceilings
SIZES, MEBIBYTES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048), (1, 4, 16, 64, 256)
KINDS = {OWN: "measured", RECORDED: "recorded", PUBLISHED: "data sheets", PREDICTED: "from published figures"}


def first_and_last(device: torch.device) -> list[str]:
    """The rungs of the textbook's training and of the last one; beside a CPU also the last one through WebGPU."""
    last = next(name for name in LAST if not rungs([name])[0].missing(device))
    real = device == CPU and not webgpu_missing() and the_gpu().adapter.kind != "software"
    return [TEXTBOOK, last, *["WebGPU, a submission an epoch"] * real]


def multiples(rows: Sequence[tuple[str, str, float, float]], unit: str) -> Drawn:
    """Bars of (kind, name, least, most), with the multiple of the first that each is: a range where the two differ."""
    series, says, one = [], [], rows[0][2]
    for kind in dict.fromkeys(kind for kind, *_ in rows):
        _, names, lows, highs = zip(*(row for row in rows if row[0] == kind), strict=True)
        ends = [sorted({low, high}) for low, high in zip(lows, highs, strict=True)]
        notes = [f"x {number(each[0] / one) if len(each) == 1 else span(each, one)}" for each in ends]
        values = [each[0] if len(each) == 1 else None for each in ends]
        series.append(Series(KINDS[kind], kind, names, values, lows, highs, notes))
        size = [f"{number(each[0])} {unit}, " if unit in UNITS.values() else "" for each in ends]
        says += [f"{kind}: {name}: {x}{note}" for name, x, note in zip(names, size, notes, strict=True)]
    return Drawn(bars(series, unit=unit).axes, "\n".join(says).replace(",\n", ", "))


def factors(timed: Sequence[Timed], device: torch.device) -> Drawn:
    """How many times as fast as the first, the CPU's textbook; without a GPU of PyTorch's also what cards might be."""
    here, epoch = Results(environment(device), [*timed], ""), torch.tensor(timed[0].per_epoch()).median().item()
    ratios = [(torch.tensor(timed[0].seconds) / torch.tensor(m.seconds)).median().item() for m in timed]
    rows = [(OWN, f"{m.name},\n{here.hardware(m.device)}", x, x) for m, x in zip(timed, ratios, strict=True)]
    for card, seconds in predicted_ladders([]) if device == CPU else []:
        rows.append((PREDICTED, f"{LAST[0]},\n{card.split(',')[0]}", *seconds[LAST[0]].gain_over(epoch)))
    return multiples(rows, "times as fast as the textbook's training on one thread of this CPU")


def rates(name: str, mine: Results, others: Sequence[Results], published: Sequence[Figure]) -> Drawn:
    """A ceiling of the CPU, of GPUs, the reader's and recorded ones, and of published cards."""
    rows = []
    for results in (mine, *others):
        for device in dict.fromkeys(m.device for m in results.select("ceilings", name)):
            if results is mine or device != "cpu":
                m, kind = highest(results, name, device=device), OWN if results is mine else RECORDED
                rows.append((kind, results.whose(m, recorded=kind == RECORDED), *[m.rate(*m.per_call) / 1e9] * 2))
    return multiples([*rows, *((PUBLISHED, f.card, f.value / 1e9, f.value / 1e9) for f in published)], UNITS[name])


def picture(card: Card) -> Drawn:
    """Host and device: cores, streaming multiprocessors, and the lanes of one; under them the memories, and the bus."""
    cores, many, lanes = (int(n) for n in (usable_cpus(), card.get("multiprocessors"), card.get("lanes")))
    rate, transfer = f"{card.bandwidth / 1e9:,.0f} GB/s", card.get("pinned transfer")
    bus = f"bus, {transfer / 1e9:.0f} GB/s" if transfer else "bus"
    bare = {"xlim": (-8, 180), "ylim": (-32, 10), "frame_on": False, "xticks": (), "yticks": ()}
    axis = plt.subplots(figsize=(9, 2.8), subplot_kw=bare)[1]
    for left, columns, side, count, color, over, under in (
        (0, 4, 9, min(cores, 12), PALETTE[5], f"HOST: a CPU, {cores} cores", f"main memory  <--  {bus}  -->"),
        (62, 22, 3, many, PALETTE[4], f"DEVICE: {card.name}, {many} multiprocessors", f"L2 cache\nmemory, {rate}"),
        (144, 16, 2, lanes // many, PALETTE[2], f"one of them: {lanes // many} lanes", "registers,\nshared memory"),
    ):
        i = torch.arange(count)
        axis.scatter(left + side * (i % columns), -0.85 * side * (i // columns), s=7 * side**2, marker="s", color=color)
        axis.text(left - 2, 7, over)
        axis.text(left - 1, -30, under, bbox={"facecolor": "white"})
    return Drawn(axis, f"{card.full_name}, published: {many} multiprocessors, {lanes:,} lanes; memory {rate}; {bus}.")


@watched
def measure_ceilings(device, *, sizes=SIZES, mebibytes=MEBIBYTES, seconds=0.2) -> Iterator[Timed | Skipped]:
    """The two limits of a device, float32: matrix products of n x n (2 n^3 FLOP), and copies (read and written bytes).

    Also how soon the call of the largest product returns; on a GPU transfers; after the CPU the GPU that WebGPU finds.
    """
    for threads in thread_counts(device):
        for name, parameters, per_call, make in _work(device, sizes, mebibytes):
            with using_threads(threads):  # what `make` gives holds its tensors, and goes when it is measured
                now = launch_seconds(make(), device) if name == "launch" else measure(make(), min_seconds=seconds).times
            yield Timed("ceilings", name, device.type, threads, list(now), parameters, per_call)
    if device == CPU and not webgpu_missing():
        try:
            yield from _through_webgpu(the_gpu(), sizes, mebibytes, seconds)
        except WebGPUError as error:
            yield Skipped("ceilings", BROKEN_OFF, "webgpu", str(error))


def _work(device: torch.device, sizes: Sequence[int], mebibytes: Sequence[int]) -> Iterator[tuple]:
    """What is measured on a device of PyTorch's: its name, parameters, what a call does, and what makes the call."""

    def product(n: int) -> Callable[[], object]:
        a, b, out = torch.rand(3, n, n, device=device)
        return partial(torch.mm, a, b, out=out)

    def copy(mib: int, source: torch.device, **memory) -> Callable[[], object]:
        there = torch.ones(mib * 2**18, device=source, **memory)  # 2^18 numbers of 4 bytes
        return partial(torch.empty_like(there, device=device, pin_memory=False).copy_, there)

    for n in sizes:
        yield "matrix product", {"size": n}, {"flop": 2 * n**3}, partial(product, n)
    yield "launch", {"size": n}, {}, partial(product, n)  # timed as many do it: without waiting
    for mib in mebibytes:
        yield "copy", {"mebibytes": mib}, {"bytes": mib * 2**21}, partial(copy, mib, device)
        for kind in ("pageable", "pinned") if device.type in ("cuda", "xpu") else ():
            make = partial(copy, mib, CPU, pin_memory=kind == "pinned")
            yield f"transfer, {kind}", {"mebibytes": mib}, {"bytes": mib * 2**20}, make


def _through_webgpu(gpu: Gpu, sizes: Sequence[int], mebibytes: Sequence[int], seconds: float) -> Iterator[Timed]:
    """The same, in submissions of as many calls as take a tenth of `seconds`; through a software driver only little."""
    most = 2**20 if gpu.adapter.kind == "software" else min(2**28, gpu.adapter.largest_buffer)  # bytes
    work = [("matrix product", {"size": n}, {"flop": 2 * n**3}) for n in sizes if 16 * n * n <= most]
    work += [("copy", {"mebibytes": mib}, {"bytes": mib * 2**21}) for mib in mebibytes if mib * 2**20 <= most]
    for name, parameters, per_call in work:
        call, count = webgpu_call(gpu, **parameters), 1
        while launch_seconds(partial(gpu.run, [call] * count), CPU, 1)[0] < seconds / 10 and count < 1000:
            count *= 2
        times = [t / count for t in launch_seconds(partial(gpu.run, [call] * count), CPU)]
        yield Timed("ceilings", name, "webgpu", 1, times, parameters, per_call, proof={"hardware": gpu.name})
        for array in call.arrays:
            array.release()


def highest(results: Results, name: str, **side) -> Timed | None:
    """The fastest product, or copy of the largest size, which no cache holds: of one side, or of all."""
    measured = results.select("ceilings", name, **side)
    return max(measured, key=lambda m: (m.parameters.get("mebibytes"), m.rate(*m.per_call)), default=None)


def summary(results: Results, device: str) -> list[str]:
    found = [m for name in UNITS if (m := highest(results, name, device=device))]
    return [f": {m.name} at {m.rate(*m.per_call) / 1e9:,.0f} {UNITS[m.name]} ({m.threads} threads)" for m in found]


SECTION = Section(measure_ceilings, quick={"seconds": 0.02}, summary=summary)


def ceilings_here(device: torch.device) -> Results:
    """A short measurement of the CPU, of `device`, and of a GPU through WebGPU."""
    sides = {CPU: (8, 64, 256, 1024), device: (8, 64, 256, 1024) if device == CPU else (8, 64, 512, 4096)}
    every = (m for d, n in sides.items() for m in measure_ceilings(d, sizes=n, mebibytes=(1, 16, 256), seconds=0.1))
    return Results(environment(device), skipped(every), "", quick=True)


def played(answer: Callable | str, asking: int, work: int, pending: int, setup: int) -> float:
    """What an answer, or its steps ("owcowc"), gives on a device whose time passes only when it is asked something."""
    at = {"now": 5000, "done": 5000 + pending, "setup": setup}  # μs; setup: of the first call

    def operation() -> None:
        at["now"], at["setup"] = at["now"] + asking + at["setup"], 0
        at["done"] = max(at["done"], at["now"]) + work

    def wait() -> None:
        at["now"] = max(at["done"], at["now"])

    if not isinstance(answer, str):
        return answer(operation, wait, lambda: 1e-6 * at["now"])
    start, end = [now for step in answer if (now := {"o": operation, "w": wait, "c": lambda: at["now"]}[step]())]
    return 1e-6 * (end - start)


def judged(answer: dict[str, bool]) -> str:
    """Runs each line on `meta`, whose tensors have no values: a line that needs a number stops there."""
    shapes = {"images": (8, 784), "weights": (784, 10), "labels": (8,), "logits": (8, 10), "loss": ()}
    if len(answer) < 6:
        raise Wrong(f"Of six lines there are {len(answer)} left.")
    for line, said in answer.items():
        found = "it runs: Python needs no number"
        try:
            exec(line, {name: torch.rand(shape, device="meta") for name, shape in shapes.items()})
        except (RuntimeError, TypeError):  # which PyTorch raises there
            found = "it stops: Python needs a number"
        if bool(said) != ("stops" in found):
            raise Wrong(f"{line!r}, tried on meta, a device whose tensors have no values: {found}.")
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

    return answer([f"gpu:{i}" for i in range(len(given))], compute)


EXERCISES = (
    Exercise("01.1", WRITE, "A clock for work that is only asked for", compared(
        partial(played, "owcowc"),
        lambda: [(*random.choices(range(5, 900), k=2), pending, 3000) for pending in (700, 0, 90, 0, 300)],
        run=lambda answer, *device: played(answer.__call__, *device),
        given=lambda asking, work, *_: f"Asking takes {asking} μs, the work {work} μs; in seconds",
        hints=[(partial(played, steps), hint) for steps, hint in (
            ("owcoc", "When the clock was stopped, work was still in the queue: it timed the asking."),
            ("ocowc", "When the clock was started, work of the warm-up was still in the queue."),
            ("cowc", "The first call of the operation is in it, which sets things up."),
        )],
        why=lambda *_: "Are these seconds, of one call, between two readings of the clock?",
    )),
    Exercise("01.2", PREDICT, "Which lines wait?", judged),
    Exercise("01.3", MEND, "A device that is there and cannot compute", compared(
        partial(first, lambda found: found == WORKS),
        lambda: [([],), ([None],), *((random.choices(SUMS, k=random.randrange(2, 7)),) for _ in range(40))],
        run=picked, given=lambda given: f"Where the devices give {given} (None: an error)",
        hints=((partial(first, bool), "Is the number looked at that it gives?"),
               (partial(first, lambda found: found in (None, WORKS)), "Its error was caught, but what then?")),
    )),
)  # fmt: skip
check = checker(EXERCISES)
