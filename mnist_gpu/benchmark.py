"""`python -m mnist_gpu benchmark`: runs the sections on every device, and records them."""

import datetime
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated
from unittest import mock

import torch
from tqdm import tqdm

from mnist_gpu.chapters import chapter_01, chapter_05, chapter_07
from mnist_gpu.checks import writable
from mnist_gpu.device import describe, environment, pick_device, synchronize, using_threads
from mnist_gpu.measuring import results
from mnist_gpu.measuring.busy import watching
from mnist_gpu.measuring.results import BROKEN_OFF, Results, Skipped

SECTIONS = {  # in the order in which they run: what figures and predictions are compared with
    # A function of the device and `progress` (see timing.in_turn). It yields one measurement at a time, so that what is
    # finished is kept when a run is interrupted.
    "ceilings": chapter_01.measure_ceilings,
    "crossover": chapter_05.measure_crossover,
    "ladder": chapter_07.all_ladders,
}
ONCE = "crossover"  # takes all devices in one run, in turn
ONE_OF_SECTIONS = {"choices": SECTIONS, "action": "append", "type": str}
CPU = torch.device("cpu")


def plan(device: torch.device, only: Iterable[str] | None, on: str | None) -> list[tuple[str, torch.device]]:
    """What to run: sections, each on the CPU and on `device`, or on one of the two."""
    devices = {"cpu": [CPU], "gpu": [device]}.get(on) or dict.fromkeys([CPU, device])
    return [(n, here) for here, n in product(devices, only or SECTIONS) if here == device or n != ONCE]


def measure(planned: Iterable[tuple], found: Results, keep: Callable[[], object]) -> None:
    """Adds to `found` what the sections measure and skip, and keeps it after each. An error ends a section alone."""
    for name, device in planned:
        start = time.perf_counter()
        print(f"{name} on {found.hardware(device.type)} ({device.type}) ...")
        try:
            with watching():
                for one in SECTIONS[name](device, progress=partial(tqdm, leave=False, disable=None)):
                    (found.skipped if isinstance(one, Skipped) else found.measurements).append(one)
                synchronize(device)
            print(f"{name} on {device.type}: {time.perf_counter() - start:.0f} s")
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
    device = pick_device()
    found = Results(environment(device), [], datetime.date.today().isoformat())
    if on == "gpu" and device == CPU:
        raise ValueError("there is no GPU here to measure on: leave --on gpu out")
    writable(record)
    before = results.read(record) if record and record.exists() else None
    whole = (lambda: results.merged(before, found)) if before else lambda: found
    whole()  # which also raises where it is another machine's
    print(describe(device))
    print("The ladder takes most of the time. An interrupt keeps what is finished.")
    # torch.compile finds nothing of an earlier run, which would make its first use look cheap. What it sets goes, too.
    with tempfile.TemporaryDirectory() as empty, mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=empty):
        try:
            measure(plan(device, only, on), found, keep=lambda: record and results.write(record, whole()))
        except KeyboardInterrupt:
            print("interrupted; keeping what is finished")
    print(summary(found))
    return int(any(s.name == BROKEN_OFF for s in found.skipped))


def summary(found: Results) -> str:
    """The ratios that the course rests on, each from one run, and what was skipped."""
    lines = []
    for device in dict.fromkeys(m.device for m in found.measurements):
        where = f"{found.hardware(device)} ({device})"
        lines += [where + line for room in (chapter_01, chapter_07) for line in room.summary(found, device)]
    lines += [f"skipped: {s.section}, {s.name} ({s.device}): {s.reason}" for s in found.skipped]
    return "\n".join(lines)
