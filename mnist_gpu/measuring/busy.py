"""Other processes that keep the CPUs busy while something is measured: noticed, and said in one line beside the result.

Threads that wait for each other spin, so two of them on two CPUs can be tens of times slower than one as soon as
another process wants a CPU (see mnist_gpu.device). On a shared server that is the normal state.
"""

import contextlib
import contextvars
import time
from collections.abc import Callable, Iterator

import psutil

from mnist_gpu.device import usable_cpus

NOTICED = 0.3  # CPUs; JupyterLab and a browser that redraws a page use about 0.1
SHORTEST = 0.3  # seconds; the system counts CPU time in hundredths of a second
_within = contextvars.ContextVar("within", default=False)  # a measurement, so that one in it says nothing


def others_seconds() -> float:
    """CPU seconds that other processes have used so far, or another virtual machine has taken."""
    times, me = psutil.cpu_times(), psutil.Process()
    # Not idle, not waiting for a disk, and not guest, which is in user.
    used = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            used -= sum(process.cpu_times()[:4])  # its own, and those of its children that have ended
    return used


@contextlib.contextmanager
def watching(say: Callable[[str], object] = print) -> Iterator[None]:
    """Says after the block whether others used CPUs that this process could have had while it ran."""
    clock, before, outermost = time.perf_counter(), others_seconds(), not _within.get()
    _within.set(True)
    try:
        yield
    finally:
        _within.set(not outermost)
        took, cpus = time.perf_counter() - clock, psutil.cpu_count() or 1
        others = (others_seconds() - before) / took if took >= SHORTEST else 0.0
        if outermost and others >= NOTICED and cpus - others <= usable_cpus() - NOTICED:
            said = f"other processes used {others:.1f} of {cpus} CPUs during this measurement"
            say(f"(Busy machine: {said}. Times are longer and spread more than on an idle one.)")
