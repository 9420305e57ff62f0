"""`python -m mnist_gpu benchmark`: plans the sections for this machine, runs them on every device, and records them."""

import datetime
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import cache, partial
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Annotated
from unittest import mock

import torch
from tqdm import tqdm

from mnist_gpu.chapters import chapter_01, chapter_05, chapter_07
from mnist_gpu.checks import writable
from mnist_gpu.device import describe, environment, pick_device, synchronize, using_threads
from mnist_gpu.faster.ladder import plain, textbook
from mnist_gpu.measuring import results
from mnist_gpu.measuring.busy import watching
from mnist_gpu.measuring.results import BROKEN_OFF, Results, Skipped
from mnist_gpu.measuring.workloads import seconds_of, train_part

ROOMS = [import_module(f"mnist_gpu.chapters.chapter_{n:02}") for n in range(1, 13)]
EXERCISES = [exercise for room in ROOMS for exercise in room.EXERCISES]
SECTIONS = {  # in the order in which they run
    "ceilings": chapter_01.SECTION,
    "crossover": chapter_05.SECTION,
    "ladder": chapter_07.LADDER,
}
ONE_OF_SECTIONS = {"choices": SECTIONS, "action": "append", "type": str}
CPU = torch.device("cpu")
# What a section costs: seconds on any machine (to compile, to begin), and so many epochs of the textbook and of the
# plain loop. They fit a run on two quiet cores of an AMD EPYC, where every section says what it took and what was
# expected. For a GPU they are an estimate.
COSTS = {"ceilings": (6, 0, 9), "crossover": (6, 0, 15.4), "ladder": (35, 33, 176)}


def epoch_seconds(device: torch.device) -> list[float]:
    """What an epoch takes on a device, as textbooks write it and by the plain loop; from some steps of each."""
    with using_threads(1):
        parts = ((textbook(device), 20), (plain(device), 100))
        return [seconds_of(partial(train_part, it, n), device) * len(it.batches) / n for it, n in parts]


def plan(device: torch.device, only: Iterable[str] | None, on: str | None) -> list[tuple]:
    """What to run on the CPU and on `device`: (section, device, seconds), these by the time of some steps."""
    devices = {"cpu": [CPU], "gpu": [device]}.get(on) or dict.fromkeys([CPU, device])
    names = [(n, here) for here, n in product(devices, only or SECTIONS) if here == device or not SECTIONS[n].once]
    epochs, found = cache(epoch_seconds), []
    for name, here in names:
        fixed, *each = COSTS[name]
        parts = zip(each, epochs(CPU if SECTIONS[name].once else here), strict=True)
        found.append((name, here, fixed + sum(map(math.prod, parts))))
    return found


def measure(planned: Iterable[tuple], found: Results, keep: Callable[[], object]) -> None:
    """Adds to `found` what the sections measure and skip, and keeps it after each. An error ends a section alone."""
    for name, device, expected in planned:
        start = time.perf_counter()
        print(f"{name} on {found.hardware(device.type)} ({device.type}) ...")
        try:
            with watching():
                for one in SECTIONS[name].measure(device, progress=partial(tqdm, leave=False, disable=None)):
                    (found.skipped if isinstance(one, Skipped) else found.measurements).append(one)
                synchronize(device)
            print(f"{name} on {device.type}: {time.perf_counter() - start:.0f} s, expected {expected:.0f} s")
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            found.skipped.append(Skipped(name, BROKEN_OFF, device.type, reason))
            print(f"{name} on {device.type} broken off: {reason}")
        finally:
            keep()


@using_threads(1)
def run(
    only: Annotated[list | None, "one section; may be given again", ONE_OF_SECTIONS] = None,
    on: Annotated[str | None, "on one of the two alone", {"choices": ["cpu", "gpu"]}] = None,
    record: Annotated[Path | None, "add the raw times to what is recorded there"] = None,
) -> int:
    """Measures this machine and prints the summary; with `record` adds every raw time to it after every section.

    Returns 1 if a section broke off, else 0. Raises ValueError, before measuring, if something cannot be.
    """
    device, begun = pick_device(), time.perf_counter()
    found = Results(environment(device), [], datetime.date.today().isoformat())
    if on == "gpu" and device == CPU:
        raise ValueError("there is no GPU here to measure on: leave --on gpu out")
    writable(record)
    before = results.read(record) if record and record.exists() else None
    whole = (lambda: results.merged(before, found)) if before else lambda: found
    whole()  # which also raises where it is another machine's
    print(describe(device))
    if record and (load := found.environment["load_average"] or 0.0) > results.QUIET:
        print(f"This machine is busy (load {load:.1f}), and every figure will say so: better wait until it is idle.")
    with watching():
        todo = plan(device, only, on)
    about = f"about {long(sum(seconds for *_, seconds in todo))}"
    print(f"This takes {about}. One section (--only) takes less.")
    # torch.compile finds nothing of an earlier run, which would make its first use look cheap. What it sets goes, too.
    with tempfile.TemporaryDirectory() as empty, mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=empty):
        try:
            measure(todo, found, keep=lambda: record and results.write(record, whole()))
            print(f"It took {long(time.perf_counter() - begun)}, expected {about}.")
        except KeyboardInterrupt:
            print("interrupted; keeping what is finished")
    print(summary(found))
    return int(any(s.name == BROKEN_OFF for s in found.skipped))


def long(seconds: float) -> str:
    return f"{seconds / 60:.2g} minutes" if seconds > 100 else f"{seconds:.0f} seconds"


def summary(found: Results) -> str:
    """The ratios that the course rests on, each from one run, and what was skipped."""
    lines = []
    for device in dict.fromkeys(m.device for m in found.measurements):
        where = f"{found.hardware(device)} ({device})"
        lines += [where + line for section in SECTIONS.values() for line in section.summary(found, device)]
    lines += [f"skipped: {s.section}, {s.name} ({s.device}): {s.reason}" for s in found.skipped]
    return "\n".join(lines)


def exercises() -> None:
    """Lists the exercises of all chapters."""
    for e in EXERCISES:
        print(f"{e.name}  {e.kind:7s}  {e.title}")
