"""`python -m mnist_gpu gpu`: all that only a GPU can show, in the minutes there are, the most valuable first.

Each part is a program of its own: what it prints goes to a file, it is stopped when its time is up, and what it has
written by then is kept. Started again with the same folder, only what has not passed yet is done. Without a GPU the
same parts run on the CPU, as a rehearsal.
"""

import contextlib
import json
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
import torch

from mnist_gpu.checks import positive
from mnist_gpu.device import describe, device_name, pick_device, using_threads
from mnist_gpu.faster.watched import with_this_package
from mnist_gpu.measuring import benchmark, results, written_predictions

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = ("07", "06", "09", "08", "05", "01", "03")  # that measure a GPU, by what they show of it
GRACE = 20  # seconds that a part which is stopped has to write what it has
WORTH = 15  # seconds under which no further part is begun
LAST = GRACE + 5  # seconds that are kept for stopping the last part, and for the summary
WARNS = "IPKernelApp"  # in the lines that a kernel prints at its start
# Executes the notebook of its first argument and writes it to the second, whole or as far as it came.
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
from pathlib import Path
source, target = map(Path, sys.argv[1:])
notebook = nbformat.read(source, as_version=4)
place = {"metadata": {"path": str(source.parent)}}
try:
    NotebookClient(notebook, timeout=None, kernel_name="python3", resources=place).execute()
finally:
    nbformat.write(notebook, target)
"""


class Part(NamedTuple):
    """One thing to do: a program, for how many seconds at most, and the modules that it needs."""

    name: str
    arguments: list[str]  # of Python
    seconds: float
    needs: tuple[str, ...] = ()


class Done(NamedTuple):
    """How a part ended."""

    name: str
    status: str  # passed, failed, stopped, or skipped
    seconds: float
    said: str


def parts(folder: Path, device: torch.device) -> Iterator[Part]:
    """What there is to do, the most valuable first. The limits are for a GPU; together they are more than ten minutes,
    for the case that one of them is short."""
    own = ["-m", "mnist_gpu"]
    gpu = device.type != "cpu"
    yield Part("doctor", [*own, "doctor"], 60)
    tests = ["-m", "pytest", "tests", "-m", "gpu", "-q", "-rfE", "-p", "no:cacheprovider", "-p", "no:xdist"]
    tests += ["-o", "addopts=--strict-markers", "--ignore=tests/test_in_the_browser.py"]
    yield Part("tests", [*tests, f"--junitxml={folder / 'tests.xml'}"], 150, ("pytest",))
    bench = [*own, "benchmark", "--record", str(record_of(folder, device)), "--append"]
    others = [f"--only={name}" for name in benchmark.NAMES if name not in ("ladder", "peers")]
    on = ["--on", "gpu" if gpu else "cpu"]
    yield Part("ladder", [*bench, *on, "--only=ladder"], 300)
    yield Part("the rest of the benchmark", [*bench, *on, *others], 150)
    figure = str(folder / "ladder.png")
    yield Part("figure", [*own, "figure", figure, "--add", str(record_of(folder, device))], 60)
    for chapter in CHAPTERS:
        (source,) = (ROOT / "notebooks").glob(f"{chapter}_*.ipynb")
        command = ["-c", EXECUTE, str(source), str(folder / source.name)]
        yield Part(f"chapter {chapter}", command, 180, ("nbformat", "nbclient", "ipykernel"))
    if gpu:
        yield Part("the CPU beside it", [*bench, "--on", "cpu", *others], 150)
        yield Part("the CPU's ladder", [*bench, "--on", "cpu", "--only=ladder"], 600)


def slug(text: str) -> str:
    """Text as a file's name: "NVIDIA H200" as "nvidia-h200"."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def record_of(folder: Path, device: torch.device) -> Path:
    """The results file of these parts."""
    return folder / f"{slug(device_name(device))}.json"


def do(part: Part, folder: Path, left: float) -> Done:
    """Runs a part for `left` seconds at most. What it prints is in the folder's file of its name."""
    if missing := [name for name in part.needs if not find_spec(name)]:
        return Done(part.name, "skipped", 0.0, f"{', '.join(missing)} not installed here")
    if left < WORTH:
        return Done(part.name, "skipped", 0.0, "no time was left")
    log, start = folder / f"{slug(part.name)}.log", time.monotonic()
    environment = with_this_package(dict(os.environ)) | {"PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1"}
    with log.open("wb") as file:
        with interruptible():
            process = subprocess.Popen(
                [sys.executable, *part.arguments], cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
            )
        try:
            status = "failed" if process.wait(min(part.seconds, left)) else "passed"
        except subprocess.TimeoutExpired:
            status = "stopped"
            stop(process)
        except KeyboardInterrupt:
            stop(process)
            raise
    said = log.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in said.splitlines() if line.strip() and WARNS not in line]
    return Done(part.name, status, time.monotonic() - start, lines[-1] if lines else "it printed nothing")


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Programs started in this context hear an interrupt, also where this one was started deaf to it.

    A shell that runs a script ignores interrupts for what it starts with &, and whatever that starts inherits it.
    """
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if before == signal.SIG_IGN:
            signal.signal(signal.SIGINT, before)


def stop(process: subprocess.Popen) -> None:
    """Interrupts a program, which lets it write what it has, and ends it and all that it has started."""
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    if process.poll() is None:
        process.send_signal(signal.SIGINT) if os.name == "posix" else process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(children, timeout=GRACE)


def report(done: list[Done], record: Path) -> None:
    """The summary: how every part ended, the ratios, and predictions beside measurements."""
    from mnist_gpu.measuring import tables  # with matplotlib, which other commands need not wait for

    print()
    tables.columns(["part", "", "seconds"], [(d.name, d.status, f"{d.seconds:.0f}") for d in done])
    for d in done:
        if d.status != "passed":
            print(f"{d.name} {d.status}: {d.said}")
    if record.exists():
        found = results.read(record)
        print("", *benchmark.ratios(found), sep="\n")
        if beside := written_predictions.outcomes(written_predictions.read_predictions(), [found]):
            print()
            tables.outcomes(beside)
        print(f"\nTo record this machine: copy {record} to data/reference, then python -m mnist_gpu figure.")


@using_threads()
def run(folder: Path = Path("gpu-results"), minutes: float = 10.0) -> int:
    """Does all parts that have not passed yet, in `minutes`, and prints one summary. Returns 1 if one failed, else 0.

    Raises ValueError if minutes are not above 0.
    """
    positive(minutes=minutes)
    end = time.monotonic() + 60 * minutes - LAST
    device = pick_device()
    print(describe(device))
    if device.type == "cpu":
        print("There is no GPU here: this is a rehearsal on the CPU.")
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "parts.json"
    before = {d[0]: Done(*d) for d in json.loads(state.read_text(encoding="utf-8"))} if state.exists() else {}
    done = []
    try:
        for part in parts(folder, device):
            earlier = before.get(part.name)
            found = earlier if earlier and earlier.status == "passed" else do(part, folder, end - time.monotonic())
            print(f"{found.name}: {found.status}, {found.seconds:.0f} s: {found.said}", flush=True)
            done.append(found)
            before[found.name] = found  # what is further down has passed, or not, as before
            state.write_text(json.dumps(list(before.values())), encoding="utf-8")
    except KeyboardInterrupt:
        print("interrupted; keeping what is finished")
    report(done, record_of(folder, device))
    return 1 if any(d.status == "failed" for d in done) else 0
