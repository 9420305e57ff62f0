"""Checks of chapter 01's exercises: a clock for a device that works on its own, what takes longest, and what works."""

import itertools
import math
import random
import statistics
from collections.abc import Callable

import torch

from mnist_gpu.device import pick_device
from mnist_gpu.exercises.verdicts import MEND, PREDICT, WRITE, Undecided, Wrong, count_of, exercise
from mnist_gpu.measuring import plots
from mnist_gpu.measuring.timing import alternate, compare_all


@exercise("01.1", WRITE, "A clock for work that is only asked for")
def warm_seconds(answer: Callable) -> str:
    devices = [VirtualDevice(random.randrange(5, 20), random.randrange(100, 900), pending) for pending in (700, 0, 90)]
    devices += [VirtualDevice(40, 20, 0), VirtualDevice(300, 0, 0)]  # asking takes longer; a CPU, which has no queue
    for device in devices:
        seconds, right = answer(device.operation, device.wait, device.clock), 1e-6 * (device.asking + device.work)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise Wrong(f"It gives {seconds!r}, but a number of seconds is asked for.")
        if not math.isclose(seconds, right, rel_tol=1e-6):
            text = f"It gives {1e6 * seconds:,.0f} µs, but a warm call takes {1e6 * right:,.0f}. {device.why(seconds)}"
            raise Wrong(text, device.draw if device.readings else None)
    return f"Nothing but the one call is in the time, on {len(devices)} devices with a virtual clock."


class VirtualDevice:
    """A device with a queue, whose time passes only when something is asked of it. Times are whole microseconds."""

    def __init__(self, asking: int, work: int, pending: int):
        self.asking, self.work, self.setup = asking, work, random.randrange(2000, 5000)  # setup: of the first call
        self.now = random.randrange(10**6)
        self.done = self.now + pending  # when the queue will be empty
        self.events = [("device", "work of an earlier user", self.now, self.done)]
        self.calls, self.readings = 0, []  # of the clock: the time, the calls before it, the work still in the queue

    def operation(self) -> None:
        start, self.calls = self.now, self.calls + 1
        self.now += self.asking + (self.setup if self.calls == 1 else 0)
        begin = max(self.done, self.now)
        self.done = begin + self.work
        self.events.append(("Python", f"call {self.calls}: asking", start, self.now))
        self.events.append(("device", f"call {self.calls}: the work", begin, self.done))

    def wait(self) -> None:
        self.now = max(self.now, self.done)

    def clock(self) -> float:
        self.readings.append((self.now, self.calls, max(0, self.done - self.now)))
        return 1e-6 * self.now

    def why(self, seconds: float) -> str:
        """What is the matter with a measurement, as the first two readings of the clock show it."""
        if len(self.readings) < 2:
            return f"The clock was read {count_of(len(self.readings), 'time')}; a duration needs two readings."
        (_, before, queued), (_, after, left) = self.readings[:2]
        if after == before:
            return "Between the first two readings of the clock the operation was not called."
        if left:
            return f"When the clock was stopped, {left} µs of work were still in the queue: it timed the asking."
        if queued:
            whose = "of the warm-up" if before else "of an earlier user"
            return f"When the clock was started, {queued:,} µs of work were still in the queue, {whose}."
        if before == 0:
            return "The first call of the operation is in it, which sets things up."
        if after - before > 1:
            return "In a row of calls, asking for one goes on while the device works on the one before. Time one alone."
        return "Both readings are where they should be. Are these seconds, and of one call?"

    def draw(self) -> None:
        """What Python and the device did, and what was between two readings of the clock."""
        times = [now for now, _, _ in self.readings]
        spans = [("your clock", "measured", *span) for span in zip(times[::2], times[1::2], strict=False)]
        events = sorted(self.events[:12] + spans[:6], key=lambda e: ("your clock", "Python", "device").index(e[0]))
        shown = [(row, name, 1e-6 * begin, 1e-6 * end, 0) for row, name, begin, end in events if end > begin]
        plots.timeline(shown, named=len(shown), since="the beginning")


SIDE = 1024
# Floating-point operations, and bytes read and written.
COSTS = {
    "product": (2 * SIDE**3, 3 * 4 * SIDE**2),
    "copy": (0, 2 * 16 * 2**20),
    "sum": (SIDE**2, 3 * 4 * SIDE**2),
    "matrix times vector": (2 * SIDE**2, 4 * SIDE**2 + 2 * 4 * SIDE),
}
STARTING = "starting alone"  # an operation on a single number


@exercise("01.2", PREDICT, "What takes longest?")
def longest(answer: list[str]) -> str:
    if isinstance(answer, str) or sorted(answer) != sorted(COSTS):
        raise Wrong(f"The order has to hold these four, each once: {', '.join(COSTS)}.")
    seconds = seconds_per_call(pick_device())
    typical = {name: statistics.median(values) for name, values in seconds.items()}
    # Below that, it is the starting that takes the time, and neither of the two ceilings says in which order.
    started = {name for name in COSTS if typical[name] < 3 * typical[STARTING]}
    pairs = [(slow, fast) for fast, slow in itertools.combinations(answer, 2)]
    pairs.sort(key=lambda pair: answer.index(pair[0]) - answer.index(pair[1]))  # neighbours first
    shown = [c for c in compare_all(seconds, pairs) if c.differs and not started.issuperset(c.names)]
    for comparison in shown:
        if comparison.ratio < 1:
            slow, fast = comparison.names
            raise Wrong(f"The {fast} is put before the {slow}, but {comparison} {_ceilings(fast, slow)}")
    found = ", ".join(f"{name} {1e6 * typical[name]:,.0f} µs" for name in answer)
    if not shown:
        raise Undecided(f"nothing can be claimed on this machine now: no two of the times can be told apart ({found}).")
    if len(started) > 1:
        found += (
            f". The {' and the '.join(sorted(started))} take little more than their start: any order of them passes"
        )
    return f"Measured: {found}."


def seconds_per_call(device: torch.device) -> dict[str, list[float]]:
    """Of the four, and of starting an operation: timed in turn, each into a tensor that is there already."""
    a, b, out = torch.rand(3, SIDE, SIDE, device=device)
    large, copied = torch.rand(2, 4 * 2**20, device=device)
    vector, short = torch.rand(2, SIDE, device=device)
    one, other, result = torch.rand(3, 1, device=device)
    calls = {  # how many of them make a round, on a CPU
        "product": (1, lambda: torch.mm(a, b, out=out)),
        "copy": (2, lambda: copied.copy_(large)),
        "sum": (5, lambda: torch.add(a, b, out=out)),
        "matrix times vector": (10, lambda: torch.mv(a, vector, out=short)),
        STARTING: (100, lambda: torch.add(one, other, out=result)),
    }

    def often(count, function):
        for _ in range(count):
            function()

    counts = {name: count if device.type == "cpu" else 10 * count for name, (count, _) in calls.items()}
    sides = {name: lambda name=name: often(counts[name], calls[name][1]) for name in calls}
    seconds = alternate(sides, rounds=12, device=device)  # twelve: six comparisons together may then lose a round each
    return {name: [s / counts[name] for s in values] for name, values in seconds.items()}


def _ceilings(first: str, second: str) -> str:
    does = "; the ".join(
        f"{name} does {COSTS[name][0] / 1e6:,.0f} million operations and moves {COSTS[name][1] / 1e6:.0f} MB"
        for name in (first, second)
    )
    if "product" not in (first, second):
        return f"The {does}. Both meet the ceiling of bytes."
    other = second if first == "product" else first
    return (
        f"The {does}. The product meets the ceiling of operations, the {other} that of bytes: divide each by its own."
    )


@exercise("01.3", MEND, "A device that is there and cannot compute")
def working_device(answer: Callable) -> str:
    right = 64**3
    lists = [
        [],
        [right],
        [None],
        [None, right],
        [None, 0, math.nan, math.inf],
        [math.nan, right],
        [right, None, right],
        [0, right],
    ]
    kinds = (right, right, None, 0, right - 64, math.nan, math.inf)  # None: it stops with an error
    lists += [random.choices(kinds, k=random.randrange(2, 7)) for _ in range(40)]
    for sums in lists:
        devices = [f"gpu:{i}" for i in range(len(sums))]
        outcome = dict(zip(devices, sums, strict=True))

        def compute(device, outcome=outcome):
            if outcome[device] is None:
                raise RuntimeError(NO_KERNEL)
            return float(outcome[device])

        working = [device for device in devices if outcome[device] == right]
        said = (
            ", ".join(f"{d} {'stops' if s is None else f'gives {s:,}'}" for d, s in outcome.items())
            or "there is no device"
        )
        try:
            picked = answer(devices, compute)
        except RuntimeError as error:
            if str(error) != NO_KERNEL:
                raise
            raise Wrong(f"Where {said}: nothing catches the error of the device that stops.") from None
        if picked == next(iter(working), "cpu"):
            continue
        given = f"Where {said}, it picks {picked!r}"
        if picked in working:
            raise Wrong(f"{given}, which works, but {working[0]} is the first that does.")
        if picked in devices:
            wrong = "its error was caught, but what then?" if outcome[picked] is None else "is that number looked at?"
            raise Wrong(f"{given}, which does not work: {wrong}")
        raise Wrong(f"{given}, but {f'{working[0]} works' if working else 'where none works it should be the CPU'}.")
    return f"The first that works, or the CPU, in {len(lists)} lists of devices."


NO_KERNEL = "no kernel image is available for execution on the device"
