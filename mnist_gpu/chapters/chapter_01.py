"""Chapter 01: the two ceilings of a device, what a transfer costs, and clocks that stop too soon."""

import datetime
import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations

import torch

from mnist_gpu.device import environment, pick_device, using_threads
from mnist_gpu.measuring.busy import watched
from mnist_gpu.measuring.drawing import OWN, PUBLISHED, RECORDED, Drawn, Series, lines, number
from mnist_gpu.measuring.exercises import MEND, PREDICT, WRITE, Exercise, Undecided, Wrong, checker, compared
from mnist_gpu.measuring.prediction import Figure
from mnist_gpu.measuring.results import Results, Timed
from mnist_gpu.measuring.section import Section
from mnist_gpu.measuring.timing import alternate, compare_all, measure
from mnist_gpu.measuring.workloads import launch_seconds, repeat, thread_counts

# The two ceilings: the parameter that is varied, what it is, and the unit of the rate.
AXES = {"matrix product": ("size", "n, of an n x n product", "GFLOP/s"), "copy": ("mebibytes", "MiB copied", "GB/s")}


@watched
def measure_ceilings(
    device: torch.device, *, sizes=(64, 128, 256, 512, 1024, 2048), mebibytes=(1, 4, 16, 64, 256), seconds=0.2
) -> Iterator[Timed]:
    """The two limits of a device, float32: matrix products of n x n (2 n^3 FLOP), and copies (read and written bytes).

    Also how soon the call of the largest product returns, and on a GPU transfers from pageable and pinned host memory.
    """
    for threads in thread_counts(device):

        def timed(name, make, parameters, per_call, threads=threads):
            # A function holds its tensors, and goes when it is measured: of the largest copy they are half a gigabyte.
            with using_threads(threads):
                times = measure(make(), min_seconds=seconds).times
            return Timed("ceilings", name, device.type, threads, list(times), parameters, per_call)

        for n in sizes:
            yield timed("matrix product", partial(_product, n, device), {"size": n}, {"flop": 2 * n**3})
        # The largest product again, timed as many do it: without waiting for the device. On a GPU this is the launch.
        with using_threads(threads):
            launched = launch_seconds(_product(n, device), device)
        yield Timed("ceilings", "launch", device.type, threads, launched, {"size": n})
        for mib in mebibytes:
            yield timed("copy", partial(_copy, mib, device, device), {"mebibytes": mib}, {"bytes": 2 * mib * 2**20})
            for kind in ("pageable", "pinned") if device.type in ("cuda", "xpu") else ():
                transfer = partial(_copy, mib, "cpu", device, pin_memory=kind == "pinned")
                yield timed(f"transfer, {kind}", transfer, {"mebibytes": mib}, {"bytes": mib * 2**20})


def _product(n: int, device: torch.device) -> Callable[[], object]:
    """A product of two n x n matrices, into a third."""
    a, b = torch.rand(2, n, n, device=device)
    return partial(torch.mm, a, b, out=torch.empty_like(a))


def _copy(mib: int, source: torch.device | str, target: torch.device, **memory) -> Callable[[], object]:
    """A copy of so many MiB between tensors that are there already; `memory` is of the source: pin_memory."""
    there = torch.ones(mib * 2**18, device=source, **memory)  # 2^18 numbers of 4 bytes
    return partial(torch.empty_like(there, device=target, pin_memory=False).copy_, there)


def highest(results: Results, name: str, **side) -> Timed | None:
    """The fastest product, or copy of the largest size, which no cache holds: of one side, or of all."""
    measured = results.select("ceilings", name, **side)
    return max(measured, key=lambda m: (m.parameters.get("mebibytes"), m.rate(*m.per_call)), default=None)


def summary(results: Results, device: str) -> list[str]:
    said = []
    if m := highest(results, "matrix product", device=device):
        said.append(f": matrix products up to {m.rate('flop') / 1e9:,.0f} GFLOP/s ({m.threads} threads)")
    if m := highest(results, "copy", device=device):
        mib = m.parameters["mebibytes"]
        said.append(f": copies of {mib} MiB at {m.rate('bytes') / 1e9:,.0f} GB/s ({m.threads} threads)")
    return said


SECTION = Section(measure_ceilings, quick={"seconds": 0.02}, summary=summary)


def ceilings_here(device: torch.device) -> Results:
    """A short measurement of the CPU and of `device`."""
    measured = [m for each in dict.fromkeys([torch.device("cpu"), device]) for m in measure_ceilings(each, seconds=0.1)]
    return Results(environment(device), measured, datetime.date.today().isoformat(), quick=True)


def rates(name: str, mine: Results, others: Sequence[Results], published: Sequence[Figure]) -> Drawn:
    """Rate over size of a ceiling, of every device and number of threads, the reader's and recorded ones.

    `published` figures, one of each card, are of no size: a line from side to side, with the card's name.
    """
    size, xlabel, unit = AXES[name]
    series = []
    for results in (mine, *others):
        for device, threads in dict.fromkeys((m.device, m.threads) for m in results.select("ceilings", name)):
            measured = results.select("ceilings", name, device=device, threads=threads)
            xs, ys = [m.parameters[size] for m in measured], [m.rate(*m.per_call) / 1e9 for m in measured]
            ends = [[end / 1e9 for end in m.rate_interval(*m.per_call)] for m in measured]
            who, kind = results.whose(measured[0], recorded=results is not mine), OWN if results is mine else RECORDED
            series.append(Series(who, kind, xs, ys, *zip(*ends, strict=True)))
    sides = [most(x for s in series for x in s.xs) for most in (min, max)]
    cards = [Series(f"{f.card} ({f.kind})", PUBLISHED, sides, [f.value / 1e9] * 2) for f in published]
    axis, says = lines(series + cards, xlabel=xlabel, ylabel=unit)
    for f in published:
        axis.annotate(f.card, (sides[1], f.value / 1e9), (8, -3), textcoords="offset points", fontsize=8)
    said = [f"{card.label}: {number(card.ys[0])} {unit}." for card in cards]
    return Drawn(axis, "\n".join([*says.splitlines()[: len(series)], *said]))


class VirtualDevice:
    """A device with a queue, whose time passes only when something is asked of it. Times are whole microseconds."""

    def __init__(self, asking: int, work: int, pending: int):
        self.asking, self.work, self.setup = asking, work, random.randrange(2000, 5000)  # setup: of the first call
        self.now = random.randrange(1, 10**6)
        self.done = self.now + pending  # when the queue will be empty

    def operation(self) -> None:
        self.now += self.asking + self.setup
        self.setup = 0
        self.done = max(self.done, self.now) + self.work

    def wait(self) -> None:
        self.now = max(self.now, self.done)

    def clock(self) -> float:
        return 1e-6 * self.now


def between(steps: str) -> Callable[[VirtualDevice], float]:
    """Seconds between two readings of the clock: of "owcowc", a call, waiting, the clock, and so on."""

    def seconds(device: VirtualDevice) -> float:
        does = {"o": device.operation, "w": device.wait, "c": device.clock}
        start, end = [reading for step in steps if (reading := does[step]())]
        return end - start

    return seconds


COSTS = {  # of the four pieces of work
    "product": "2 * 1024**3 operations, 13 MB",
    "copy": "no operation, 34 MB",
    "sum": "1024**2 operations, 13 MB",
    "matrix times vector": "2 * 1024**2 operations, 4 MB",
}


def measured_order(answer: list[str]) -> str:
    """Times the four in turn, ten calls a round. Raises Wrong where one is put before a clearly faster one."""
    device = pick_device()
    a, b, out = torch.rand(3, 1024, 1024, device=device)
    large, copied = torch.rand(2, 4 * 2**20, device=device)
    calls = [
        partial(torch.mm, a, b, out=out),
        partial(copied.copy_, large),
        partial(torch.add, a, b, out=out),
        partial(torch.mv, a, b[0], out=out[0]),
    ]
    sides = {name: partial(repeat, call, 10) for name, call in zip(COSTS, calls, strict=True)}
    seconds = alternate(sides, rounds=12, device=device)  # twelve: six comparisons together may then lose a round each
    found = compare_all(seconds, combinations(answer[::-1], 2))
    if not any(c.differs for c in found):
        raise Undecided("nothing can be claimed on this machine now: no two of the times can be told apart.")
    for c in found:
        if c.differs and c.interval[1] < 0.8:  # two that are hardly more than started may come in any order
            slow, fast = c.names
            work = f"The {fast}: {COSTS[fast]}; the {slow}: {COSTS[slow]}. Divide both by the two ceilings."
            raise Wrong(f"The {fast} is put before the {slow}, but {c} {work}")
    times = ", ".join(f"{name} {1e5 * statistics.median(seconds[name]):,.0f} μs" for name in answer)
    return f"Measured: {times}."


WORKS = 64**3
# What the devices of some computers give for the sum of the product; None where they stop with an error.
SUMS = (WORKS, WORKS, None, 0, WORKS - 64, math.nan, math.inf)


def first(good: Callable[[float | None], bool], given: list[float | None]) -> str:
    """The first device whose sum is good."""
    return next((f"gpu:{i}" for i, found in enumerate(given) if good(found)), "cpu")


def picked(answer: Callable, given: list[float | None]) -> object:
    def compute(device: str) -> float:
        if (found := given[int(device[4:])]) is None:
            raise RuntimeError("no kernel image is available for execution on the device")
        return float(found)

    return answer([f"gpu:{i}" for i in range(len(given))], compute)


EXERCISES = (
    Exercise("01.1", WRITE, "A clock for work that is only asked for", compared(
        between("owcowc"),
        lambda: [(VirtualDevice(*random.choices(range(5, 900), k=2), pending),) for pending in (700, 0, 90, 0, 300)],
        run=lambda answer, device: answer(device.operation, device.wait, device.clock),
        given=lambda device: f"Asking takes {device.asking} μs, the work {device.work} μs; in seconds",
        hints=(
            (between("owcoc"), "When the clock was stopped, work was still in the queue: it timed the asking."),
            (between("ocowc"), "When the clock was started, work of the warm-up was still in the queue."),
            (between("cowc"), "The first call of the operation is in it, which sets things up."),
        ),
        why=lambda device, found: "Are these seconds, of one call, between two readings of the clock?",
    )),
    Exercise("01.2", PREDICT, "What takes longest?", compared(
        lambda: sorted(COSTS), lambda: [()], run=sorted, then=measured_order, given=lambda: "These four, each once",
    )),
    Exercise("01.3", MEND, "A device that is there and cannot compute", compared(
        partial(first, lambda found: found == WORKS),
        lambda: [([],), ([None],), *((random.choices(SUMS, k=random.randrange(2, 7)),) for _ in range(40))],
        run=picked,
        given=lambda given: f"Where the devices give {given} (None: an error)",
        hints=(
            (partial(first, bool), "Is the number looked at that it gives?"),
            (partial(first, lambda found: found in (None, WORKS)), "Its error was caught, but what then?"),
        ),
    )),
)  # fmt: skip
check = checker(EXERCISES)
