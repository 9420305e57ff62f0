"""`python -m mnist_gpu benchmark`: runs the sections on every device, records them and summarizes them."""

import contextlib
import datetime
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from mnist_gpu.chapters import (
    chapter_01,
    chapter_02,
    chapter_03,
    chapter_04,
    chapter_05,
    chapter_06,
    chapter_07,
    chapter_08,
    chapter_09,
    chapter_10,
)
from mnist_gpu.checks import writable
from mnist_gpu.device import describe, environment, pick_device, synchronize, using_threads
from mnist_gpu.measuring import results
from mnist_gpu.measuring.busy import watching
from mnist_gpu.measuring.exercises import listing
from mnist_gpu.measuring.results import BROKEN_OFF, Results, Skipped

ROOMS = (
    chapter_01, chapter_02, chapter_03, chapter_04, chapter_05, chapter_06, chapter_07, chapter_08, chapter_09,
    chapter_10,
)  # fmt: skip
EXERCISES = [exercise for room in ROOMS for exercise in room.EXERCISES]
SECTIONS = {  # in the order in which they run
    "ceilings": chapter_01.SECTION,
    "pipelines": chapter_03.SECTION,
    "account": chapter_06.SECTION,
    "crossover": chapter_05.SECTION,
    "ladder": chapter_07.LADDER,
    "ensemble": chapter_07.ENSEMBLE,
}


def benchmark(
    device: torch.device, *, quick=False, only: Iterable[str] | None = None, on: str | None = None,
    progress: Callable = iter, say=print, keep: Callable[[Results], object] = lambda found: None,
) -> Results:  # fmt: skip
    """Runs the sections `only`, or all, on the CPU, and on `device` if that is another.

    `on` ("cpu" or "gpu") leaves the other out. An interrupt ends it, an error ends a section; what was measured before
    is kept. After every section `keep` gets what there is so far.
    """
    if on == "gpu" and device.type == "cpu":
        raise ValueError("there is no GPU here to measure on")
    found = Results(environment(device), [], datetime.date.today().isoformat(), quick)
    both = {"cpu": torch.device("cpu"), "gpu": device}
    try:
        for here in dict.fromkeys([both[on]] if on else both.values()):
            for name in SECTIONS if only is None else only:
                section = SECTIONS[name]
                if section.once and here != device:
                    continue
                settings = section.quick if quick else section.full
                if "rounds" in settings:
                    settings = settings | {"progress": progress}
                start = time.perf_counter()
                say(f"{name} on {found.hardware(here.type)} ({here.type}) ...")
                try:
                    with watching(say):
                        for one in section.measure(here, **settings):
                            (found.skipped if isinstance(one, Skipped) else found.measurements).append(one)
                        synchronize(here)
                except Exception as error:  # the other sections' results are worth more than a traceback
                    reason = f"{type(error).__name__}: {error}"
                    found.skipped.append(Skipped(name, BROKEN_OFF, here.type, reason))
                    say(f"{name} on {here.type} broken off: {reason}")
                else:
                    say(f"{name} on {here.type}: {time.perf_counter() - start:.0f} s")
                keep(found)
    except KeyboardInterrupt:
        say("interrupted; keeping what is finished")
    return found


def import_seconds(repeats: int = 5) -> list[float]:
    """What `import mnist_gpu.training` takes beyond `import torch`, in fresh processes, in seconds."""
    code = "import time, torch; t = time.perf_counter(); import mnist_gpu.training; print(time.perf_counter() - t)"
    return [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(repeats)]


def ratios(found: Results) -> list[str]:
    """The ratios that the course rests on, each from one run."""
    lines = []
    for device in dict.fromkeys(m.device for m in found.measurements):
        where = f"{found.hardware(device)} ({device})"
        lines += [where + line for section in SECTIONS.values() for line in section.summary(found, device)]
    return lines


def summary(found: Results) -> str:
    """The ratios, and what was skipped."""
    lines = ratios(found)
    lines += [f"skipped: {s.section}, {s.name} ({s.device}): {s.reason}" for s in found.skipped]
    return "\n".join(lines)


@contextlib.contextmanager
def nothing_compiled() -> Iterator[None]:
    """In the block torch.compile finds nothing of an earlier run, which would make its first use look cheap."""
    before = dict(os.environ)  # all of it: at its first use torch.compile sets variables, too, such as TRITON_CACHE_DIR
    with tempfile.TemporaryDirectory() as empty:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = empty
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def continued(record: Path | None, append: bool, device: torch.device, quick: bool) -> Results | None:
    """What is recorded there already and is to be added to, or None. Raises ValueError where it cannot be."""
    writable(record)
    if not (record and record.exists()):
        return None
    if not append:
        raise ValueError(f"{record} is there already: --append adds to it, and another name begins a new one")
    before = results.read(record)
    results.merged(before, Results(environment(device), [], datetime.date.today().isoformat(), quick))
    return before


@using_threads(1)
def run(
    quick: bool = False, only: list[str] | None = None, on: str | None = None, record: Path | None = None,
    append: bool = False,
) -> int:  # fmt: skip
    """Measures this machine and prints the summary; with `record` writes every raw time there, too.

    The file is written after every section, so that a machine that goes away takes one section with it at most. With
    `append` it adds them to what an earlier run on this machine has recorded there. Returns 1 if a section broke off,
    else 0. Raises ValueError, before measuring, if the file cannot be written or continued, or is there already without
    `append`.
    """
    device = pick_device()
    before = continued(record, append, device, quick)
    print(describe(device))
    if record and (load := environment(device)["load_average"] or 0.0) > results.QUIET:
        print(
            f"This machine is busy (load {load:.1f} over the last minute), and every figure will say so. "
            "Better to wait until nothing else runs."
        )

    def progress(iterable):
        return tqdm(iterable, leave=False, disable=None)

    def keep(found: Results) -> None:
        if record:
            results.write(record, results.merged(before, found) if before else found)

    with nothing_compiled():
        found = benchmark(device, quick=quick, only=only, on=on, progress=progress, keep=keep)
    keep(found)  # before the summary, which takes time that an interrupted run may not have
    if record:
        print(f"Recorded {len(found.measurements)} measurements in {record}")
    print(summary(found))
    if not only:  # some seconds
        print(f"import mnist_gpu.training beyond torch: {statistics.median(import_seconds()) * 1000:.1f} ms (median)")
    return 1 if any(s.name == BROKEN_OFF for s in found.skipped) else 0


def exercises(keep: bool = False) -> int:
    """Lists the chapters' exercises, and which of them the reader has answered; `keep` begins to keep that."""
    listing(EXERCISES, keep)
    return 0
