"""Other processes that keep the CPUs busy while something is measured: noticed, and said in one line beside the result.

Threads that wait for each other spin, so two of them on two CPUs can be tens of times slower than one as soon as
another process wants a CPU (see mnist_gpu.device). On a shared server that is the normal state, and nothing else would
say why.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import psutil

from mnist_gpu.device import usable_cpus

NOTICED = 0.3  # CPUs; JupyterLab and a browser that redraws a page use about 0.1
SHORTEST = 0.3  # seconds; the system counts CPU time in hundredths of a second


class Mark(NamedTuple):
    """A moment: seconds of the clock, and CPU seconds that other processes have used until then."""

    clock: float
    others: float


def mark() -> Mark:
    times = psutil.cpu_times()
    # Not idle, not waiting for a disk, and not guest, which is in user. steal: another virtual machine had the CPU.
    used = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
    return Mark(time.perf_counter(), used - own_seconds())


def own_seconds() -> float:
    """CPU seconds of this process and all that it started: those that have ended, and those that are at work."""
    total, me = 0.0, psutil.Process()
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            total += sum(process.cpu_times()[:4])  # its own, user and system, and those of its children that have ended
    return total


class Seen:
    """What was seen of the others since the last report."""

    def __init__(self, last: Mark):
        self.last, self.watching = last, False  # last: the end of the last measurement
        self.before = self.during = Mark(0.0, 0.0)

    def add(self, name: str, start: Mark, end: Mark) -> None:
        so_far = getattr(self, name)
        setattr(self, name, Mark(so_far.clock + end.clock - start.clock, so_far.others + end.others - start.others))


_seen = Seen(mark())
_reports_cells = False


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """Notes what others use while the block runs. In a notebook the cell's end then says it, if it was much."""
    if _seen.watching:  # a measurement within a measurement
        yield
        return
    _report_after_cells()
    start = mark()
    _seen.add("before", _seen.last, start)
    _seen.watching = True
    try:
        yield
    finally:
        _seen.watching, _seen.last = False, mark()
        _seen.add("during", start, _seen.last)


def sentence(during: Mark, before: Mark, cpus: int, usable: int) -> str | None:
    """What to say of the others, or None if they left this process the CPUs that it may use."""
    if during.clock < SHORTEST:
        return None
    others = during.others / during.clock
    if others < NOTICED or cpus - others > usable - NOTICED:
        return None
    earlier = f", and {before.others / before.clock:.1f} before" if before.clock >= SHORTEST else ""
    return (
        f"(Busy machine: other processes used {others:.1f} of {cpus} CPUs during this measurement{earlier}. "
        "Times are longer and spread more than on an idle one.)"
    )


def report(say: Callable[[str], None] = print) -> None:
    """Says what `watching` has noted since the last report, if it is worth a line."""
    if said := sentence(_seen.during, _seen.before, psutil.cpu_count() or 1, usable_cpus()):
        say(said)
    _seen.before = _seen.during = Mark(0.0, 0.0)


def _report_after_cells() -> None:
    global _reports_cells
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell and not _reports_cells:
        shell.events.register("post_run_cell", lambda result: report())
        _reports_cells = True
