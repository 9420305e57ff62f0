"""Chapter 01: the two ceilings of a device, what a transfer costs, and clocks that stop too soon."""

import copy
import datetime
import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from mnist_gpu.device import environment, pick_device, using_threads
from mnist_gpu.measuring.busy import watched
from mnist_gpu.measuring.drawing import OWN, PUBLISHED, RECORDED, Drawn, Series, bars, lines, number, timeline
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
    a, b = torch.rand(n, n, device=device), torch.rand(n, n, device=device)
    return partial(torch.mm, a, b, out=torch.empty_like(a))


def _copy(mib: int, source: torch.device | str, target: torch.device, **memory) -> Callable[[], object]:
    """A copy of so many MiB between tensors that are there already; `memory` is of the source: pin_memory."""
    there = torch.ones(mib * 2**18, device=source, **memory)  # 2^18 numbers of 4 bytes
    return partial(torch.empty_like(there, device=target, pin_memory=False).copy_, there)


def _rate(m: Timed) -> float:
    """FLOP/s or bytes/s."""
    return m.rate(*m.per_call)


def highest(results: Results, name: str, **side) -> Timed | None:
    """The fastest product, or copy of the largest size, which no cache holds: of one side, or of all."""
    measured = results.select("ceilings", name, **side)
    return max(measured, key=lambda m: (m.parameters.get("mebibytes"), _rate(m)), default=None)


def summary(results: Results, device: str) -> list[str]:
    said = []
    if m := highest(results, "matrix product", device=device):
        said.append(f": matrix products up to {_rate(m) / 1e9:,.0f} GFLOP/s ({m.threads} threads)")
    if m := highest(results, "copy", device=device):
        mib = m.parameters["mebibytes"]
        said.append(f": copies of {mib} MiB at {_rate(m) / 1e9:,.0f} GB/s ({m.threads} threads)")
    return said


SECTION = Section(measure_ceilings, quick={"seconds": 0.02}, summary=summary)


def ceilings_here(device: torch.device) -> Results:
    """A short measurement of the CPU and of `device`."""
    measured = [m for each in dict.fromkeys([torch.device("cpu"), device]) for m in measure_ceilings(each, seconds=0.1)]
    return Results(environment(device), measured, datetime.date.today().isoformat(), quick=True)


def _series(results: Results, measured: Sequence[Timed], xs: Sequence, own: bool) -> Series:
    """Rates of one side, in 1e9 a second, with their intervals."""
    ends = [[end / 1e9 for end in m.rate_interval(*m.per_call)] for m in measured]
    ys, kind = [_rate(m) / 1e9 for m in measured], OWN if own else RECORDED
    return Series(results.whose(measured[0], recorded=not own), kind, xs, ys, *zip(*ends, strict=True))


def rates(name: str, mine: Results, others: Sequence[Results], published: Sequence[Figure]) -> Drawn:
    """Rate over size of a ceiling, of every device and number of threads, the reader's and recorded ones.

    `published` figures are of no size: a card's reach from side to side, its highest, with its name, and its lowest.
    """
    size, xlabel, unit = AXES[name]
    series = []
    for results in (mine, *others):
        for device, threads in dict.fromkeys((m.device, m.threads) for m in results.select("ceilings", name)):
            measured = results.select("ceilings", name, device=device, threads=threads)
            series.append(_series(results, measured, [m.parameters[size] for m in measured], results is mine))
    count, sizes = len(series), sorted({x for s in series for x in s.xs})
    ends = (sizes[0], sizes[-1])
    cards = list(dict.fromkeys(f.card for f in sorted(published, key=lambda f: f.value)))
    for card in cards:
        figures = [f for f in published if f.card == card]
        said = ", ".join(f"{number(f.value / 1e9)} {unit} ({f.kind})" for f in figures)
        high, low = (most(f.value for f in figures) / 1e9 for most in (max, min))
        series.append(Series(f"{card}, {said}", PUBLISHED, (*ends, *ends[::-1]), (high, high, low, low)))
    axis, says = lines(series, xlabel=xlabel, ylabel=unit)
    axis.set_xticks(sizes)
    axis.set_xticks([], minor=True)
    for i, (card, s) in enumerate(zip(cards, series[count:], strict=True)):
        at = (8 + 44 * (i % 2), -3)  # in points: beside its neighbour's name, not over it
        axis.annotate(card, (ends[1], s.ys[0]), at, textcoords="offset points", fontsize=8)
    return Drawn(axis, "\n".join([*says.splitlines()[:count], *(f"{s.label}." for s in series[count:])]))


def transfers(mine: Results, others: Sequence[Results], published: Sequence[Figure]) -> Drawn:
    """Large copies from the host to a GPU as bars: the reader's, recorded ones, and pinned ones measured by others."""
    kinds = ("transfer, pageable", "transfer, pinned")
    series = []
    for results in (mine, *others):
        if measured := [m for kind in kinds if (m := highest(results, kind))]:
            series.append(_series(results, measured, [m.name for m in measured], results is mine))
    series += [Series(f"{f.card} ({f.kind})", PUBLISHED, kinds[1:], [f.value / 1e9]) for f in published]
    return bars(series, unit="GB/s", log=True, title="Large copies from the host to the GPU")


class VirtualDevice:
    """A device with a queue, whose time passes only when something is asked of it. Times are whole microseconds."""

    def __init__(self, asking: int, work: int, pending: int):
        self.asking, self.work, self.setup = asking, work, random.randrange(2000, 5000)  # setup: of the first call
        self.now = random.randrange(10**6)
        self.done = self.now + pending  # when the queue will be empty
        self.events, self.readings = [("device", "work of an earlier user", self.now, self.done)], []

    def operation(self) -> None:
        start, setup, self.setup = self.now, self.setup, 0
        self.now += self.asking + setup
        begin = max(self.done, self.now)
        self.done = begin + self.work
        self.events += [("Python", "asking", start, self.now), ("device", "the work", begin, self.done)]

    def wait(self) -> None:
        self.now = max(self.now, self.done)

    def clock(self) -> float:
        self.readings.append(self.now)
        return 1e-6 * self.now

    def seconds(self, steps: str) -> float:
        """Between two readings, on a copy of this device: of "owcowc", a call, waiting, the clock, and so on."""
        device = copy.deepcopy(self)
        for step in steps:
            {"o": device.operation, "w": device.wait, "c": device.clock}[step]()
        return 1e-6 * (device.readings[1] - device.readings[0])

    def draw(self) -> None:
        """What Python and the device did, and what was between two readings of the clock."""
        readings = zip(self.readings[::2], self.readings[1::2], strict=False)
        spans = [("your clock", "measured", *span) for span in readings]
        events = [(*names, 1e-6 * a, 1e-6 * b, 0) for *names, a, b in sorted(spans[:6] + self.events[:12]) if b > a]
        timeline(events, named=len(events)).show()


MISTAKEN = {  # what wrong clocks do, and what is said of it
    "owcoc": "When the clock was stopped, work was still in the queue: it timed the asking.",
    "ocowc": "When the clock was started, work of the warm-up was still in the queue.",
    "cowc": "The first call of the operation is in it, which sets things up.",
}


def check_clock(answer: Callable) -> str:
    devices = [VirtualDevice(random.randrange(5, 20), random.randrange(100, 900), pending) for pending in (700, 0, 90)]
    devices += [VirtualDevice(40, 20, 0), VirtualDevice(300, 0, 0)]  # asking takes longer; a CPU, which has no queue
    for device in devices:
        wrong = {device.seconds(steps): text for steps, text in MISTAKEN.items()}
        right, found = device.seconds("owcowc"), answer(device.operation, device.wait, device.clock)
        if not math.isclose(found, right, rel_tol=1e-6):
            other = "Are these seconds, of one call alone, between two readings of the clock?"
            hint = next((text for seconds, text in wrong.items() if math.isclose(found, seconds)), other)
            raise Wrong(f"It gives {found:.6f} s, but a warm call takes {right:.6f} s. {hint}", device.draw)
    return f"Nothing but the one call is in the time, on {len(devices)} devices with a virtual clock."


COSTS = {  # of the four pieces of work
    "product": "2 * 1024**3 operations, 13 MB",
    "copy": "no operation, 34 MB",
    "sum": "1024**2 operations, 13 MB",
    "matrix times vector": "2 * 1024**2 operations, 4 MB",
}
STARTING = "starting alone"  # an operation on a single number


def seconds_per_call(device: torch.device) -> dict[str, list[float]]:
    """Of the four, and of starting an operation: timed in turn, each into a tensor that is there already."""
    a, b, out = torch.rand(3, 1024, 1024, device=device)
    large, copied = torch.rand(2, 4 * 2**20, device=device)
    calls = {  # how many of them make a round, on a CPU
        "product": (1, partial(torch.mm, a, b, out=out)),
        "copy": (2, partial(copied.copy_, large)),
        "sum": (5, partial(torch.add, a, b, out=out)),
        "matrix times vector": (10, partial(torch.mv, a, b[0], out=out[0])),
        STARTING: (100, partial(torch.add, a[0, :1], b[0, :1], out=out[0, :1])),
    }
    counts = {name: count if device.type == "cpu" else 10 * count for name, (count, _) in calls.items()}
    sides = {name: partial(repeat, call, counts[name]) for name, (_, call) in calls.items()}
    seconds = alternate(sides, rounds=12, device=device)  # twelve: six comparisons together may then lose a round each
    return {name: [s / counts[name] for s in values] for name, values in seconds.items()}


def measured_order(answer: list[str]) -> str:
    """What the measurement says of an order of the four. Raises Wrong, or Undecided where no two can be told apart."""
    seconds = seconds_per_call(pick_device())
    typical = {name: statistics.median(values) for name, values in seconds.items()}
    # Below that, it is the starting that takes the time, and neither of the two ceilings says in which order.
    started = {name for name in COSTS if typical[name] < 3 * typical[STARTING]}
    pairs = [(answer[i + apart], answer[i]) for apart in (1, 2, 3) for i in range(4 - apart)]  # neighbours first
    differing = [c for c in compare_all(seconds, pairs) if c.differs and not started.issuperset(c.names)]
    for c in differing:
        if c.ratio < 1:
            slow, fast = c.names
            work = f"The {fast}: {COSTS[fast]}; the {slow}: {COSTS[slow]}. Divide both by the two ceilings."
            raise Wrong(f"The {fast} is put before the {slow}, but {c} {work}")
    times = ", ".join(f"{name} {1e6 * typical[name]:,.0f} µs" for name in answer)
    if not differing:
        raise Undecided(f"nothing can be claimed on this machine now: no two of the times can be told apart ({times}).")
    if len(started) > 1:
        names = " and the ".join(sorted(started))
        times += f". The {names} take little more than their start: any order of them passes"
    return f"Measured: {times}."


WORKS, NO_KERNEL = 64**3, "no kernel image is available for execution on the device"


def sums() -> list[tuple[list[float | None]]]:
    """What the devices of some computers give for the sum of the product; None where they stop with an error."""
    few = [[], [WORKS], [None], [None, WORKS], [None, 0, math.nan, math.inf], [math.nan, WORKS], [WORKS, None, WORKS]]
    kinds = (WORKS, WORKS, None, 0, WORKS - 64, math.nan, math.inf)
    return [(given,) for given in [*few, *(random.choices(kinds, k=random.randrange(2, 7)) for _ in range(40))]]


def first(good: Callable[[float | None], bool], given: list[float | None]) -> str:
    """The first device whose sum is good."""
    return next((f"gpu:{i}" for i, found in enumerate(given) if good(found)), "cpu")


def picked(answer: Callable, given: list[float | None]) -> object:
    def compute(device: str) -> float:
        if (found := given[int(device[4:])]) is None:
            raise RuntimeError(NO_KERNEL)
        return float(found)

    return answer([f"gpu:{i}" for i in range(len(given))], compute)


EXERCISES = (
    Exercise("01.1", WRITE, "A clock for work that is only asked for", check_clock),
    Exercise("01.2", PREDICT, "What takes longest?", compared(
        lambda: sorted(COSTS), lambda: [()], run=sorted, then=measured_order, given=lambda: "These four, each once",
    )),
    Exercise("01.3", MEND, "A device that is there and cannot compute", compared(
        partial(first, lambda found: found == WORKS), sums, run=picked,
        given=lambda given: f"Where the devices give {given} (None: an error)",
        hints=(
            (partial(first, bool), "Is the number looked at that it gives?"),
            (partial(first, lambda found: found in (None, WORKS)), "Its error was caught, but what then?"),
        ),
    )),
)  # fmt: skip
check = checker(EXERCISES)
