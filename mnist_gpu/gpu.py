"""`python -m mnist_gpu gpu`: all that only a GPU can show, in the minutes there are, the most valuable first.

Each part is a program. What it prints is in its log; when its time is up it may write what it has. One that has passed
leaves a file, and is passed over the next time. Without a GPU all of it runs on the CPU, as a rehearsal.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import psutil

from mnist_gpu import benchmark
from mnist_gpu.checks import positive
from mnist_gpu.device import describe, device_name, pick_device, using_threads
from mnist_gpu.measuring import prediction, results
from mnist_gpu.measuring.commands import own_environment

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = ("07", "06", "09", "08", "05", "01", "03")  # that measure a GPU, by what they show of it
GRACE, WORTH = 20, 15  # seconds that a part which is stopped has left; seconds under which none is begun
TESTS = "-m pytest tests -m gpu -q -rfE -p no:cacheprovider -p no:xdist -o addopts=--strict-markers"
# Executes a notebook, and writes it as another, whole or as far as it came.
EXECUTE = """import pathlib, sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
try:
    nbclient.execute(notebook, str(pathlib.Path(sys.argv[1]).parent), kernel_name="python3")
finally:
    nbformat.write(notebook, sys.argv[2])
"""


class Part(NamedTuple):
    name: str
    seconds: float  # at most
    arguments: list  # of Python
    needs: tuple[str, ...] = ()  # modules


def parts(folder: Path, record: Path, on: str) -> Iterator[Part]:
    """What there is to do on "gpu" or "cpu". The limits are for a GPU, and more than ten minutes together."""
    bench = ["-m", "mnist_gpu", "benchmark", "--record", record, "--append", "--on"]
    others = [f"--only={name}" for name in benchmark.SECTIONS if name != "ladder"]
    browser, junit = "--ignore=tests/test_in_the_browser.py", f"--junitxml={folder / 'tests.xml'}"
    yield Part("doctor", 60, ["-m", "mnist_gpu", "doctor"])
    yield Part("tests", 150, [*TESTS.split(), browser, junit], ("pytest",))
    yield Part("ladder", 300, [*bench, on, "--only=ladder"])
    yield Part("the rest of the benchmark", 150, [*bench, on, *others])
    yield Part("figure", 60, ["-m", "mnist_gpu", "figure", folder / "ladder.png", "--add", record])
    for source in (next((ROOT / "notebooks").glob(f"{chapter}_*.ipynb")) for chapter in CHAPTERS):
        execute = ["-c", EXECUTE, source, folder / source.name]
        yield Part(f"chapter {source.name[:2]}", 180, execute, ("nbclient", "ipykernel"))
    if on == "gpu":
        yield Part("the CPU beside it", 150, [*bench, "cpu", *others])
        yield Part("the CPU's ladder", 600, [*bench, "cpu", "--only=ladder"])


def slug(text: str) -> str:
    """Text as a file's name: "NVIDIA H200" as "nvidia-h200"."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def do(part: Part, folder: Path, left: float) -> tuple[str, str]:
    """(passed, failed, stopped or skipped; its last line, or why it is skipped) of a part in `left` seconds at most."""
    if missing := [name for name in part.needs if not find_spec(name)]:
        return "skipped", f"{', '.join(missing)} not installed here"
    if left < WORTH:
        return "skipped", "no time was left"
    environment = own_environment() | {"PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1"}
    # A shell's script makes what it starts with & deaf to interrupts, and so what that starts in turn.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with (folder / f"{slug(part.name)}.log").open("wb") as log:
        try:
            command = [sys.executable, *map(str, part.arguments)]
            process = psutil.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
        finally:
            signal.signal(signal.SIGINT, before)
        try:
            status = "failed" if process.wait(min(part.seconds, left)) else "passed"
        except psutil.TimeoutExpired:
            status = "stopped"
        finally:
            stop(process)
    lines = Path(log.name).read_text(encoding="utf-8", errors="replace").split("\n")
    last = [line.strip() for line in lines if line.strip() and "IPKernelApp" not in line]  # which warns at its start
    return status, last[-1] if last else "it printed nothing"


def stop(process: psutil.Popen) -> None:
    """Interrupts a program that is still running, so that it can write what it has, and ends it with its children."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [process, *process.children(recursive=True)]
        process.send_signal(signal.SIGINT) if os.name == "posix" else process.terminate()
        psutil.wait_procs([process], timeout=GRACE)
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(family, timeout=GRACE)


@using_threads()
def run(folder: Path = Path("gpu-results"), minutes: float = 10.0) -> int:
    """Does what has not passed yet, in `minutes`, and prints a summary. Returns 1 if a part failed, else 0.

    Raises ValueError if minutes are not above 0.
    """
    positive(minutes=minutes)
    end = time.monotonic() + 60 * minutes - GRACE - 5  # to stop the last part, and for the summary
    device, folder, failed = pick_device(), folder.resolve(), False
    on, record = "cpu" if device.type == "cpu" else "gpu", folder / f"{slug(device_name(device))}.json"
    print(describe(device), "\nThere is no GPU here: this is a rehearsal on the CPU." * (on == "cpu"), sep="")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for part in parts(folder, record, on):
            mark, start = folder / f"{slug(part.name)}.passed", time.monotonic()
            status, said = ("passed", "before") if mark.exists() else do(part, folder, end - time.monotonic())
            if status == "passed":
                mark.touch()
            failed |= status == "failed"
            print(f"{part.name}: {status}, {time.monotonic() - start:.0f} s: {said}", flush=True)
    except KeyboardInterrupt:
        print("interrupted; keeping what is finished")
    if record.exists():
        report(results.read(record))
        print(f"\nTo record this machine: copy {record} to data/reference, then python -m mnist_gpu figure.")
    return int(failed)


def report(found: results.Results) -> None:
    """The ratios, and predictions beside measurements."""
    print("", *benchmark.ratios(found), "", prediction.outcomes([found]), sep="\n")
