"""`python -m mnist_gpu gpu`: all that only a GPU can show, in the minutes there are, the most valuable first.

A part that has passed leaves a file, and is not done again. Without a GPU all of it runs on the CPU, as a rehearsal.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import psutil

from mnist_gpu import benchmark
from mnist_gpu.checks import positive
from mnist_gpu.device import describe, device_name, pick_device
from mnist_gpu.measuring import prediction, results
from mnist_gpu.measuring.commands import own_environment

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = [next((ROOT / "notebooks").glob(f"{n:02}_*")) for n in (7, 6, 10, 8, 9, 5, 1, 3)]  # what shows most, first
GRACE, WORTH = 20, 15  # seconds that a part which is stopped has left; seconds under which none is begun
TESTS = "-m pytest {} -q -rfE -p no:cacheprovider -p no:xdist -o addopts=--strict-markers"
# Executes a notebook, and writes it as another, whole or as far as it came.
EXECUTE = """import pathlib, sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
try:
    nbclient.execute(notebook, str(pathlib.Path(sys.argv[1]).parent), kernel_name="python3")
finally:
    nbformat.write(notebook, sys.argv[2])
"""


def parts(folder: Path, record: Path, on: str) -> list[tuple[str, int, list]]:
    """What there is to do on "gpu" or "cpu": a name, seconds at most (for a GPU), and the arguments of Python."""
    bench = ["-m", "mnist_gpu", "benchmark", "--record", record, "--on"]
    return [
        ("doctor", 60, ["-m", "mnist_gpu", "doctor"]),
        ("tests", 150, [*TESTS.format("tests -m gpu").split(), f"--junitxml={folder / 'tests.xml'}"]),
        ("webgpu", 90, TESTS.format("tests/webgpu").split()),
        ("ladder", 300, [*bench, on, "--only=ladder"]),
        ("benchmark", 150, [*bench, on, *(f"--only={name}" for name in benchmark.SECTIONS if name != "ladder")]),
        ("figure", 60, ["-m", "mnist_gpu", "figure", folder / "ladder.png", "--add", record]),
        *((f"chapter-{path.name[:2]}", 180, ["-c", EXECUTE, path, folder / path.name]) for path in CHAPTERS),
        *[("cpu", 600, [*bench, "cpu"])] * (on == "gpu"),
    ]


def do(arguments: list, seconds: float, log: Path) -> tuple[str, str]:
    """Runs a part, and ends it with its children: (passed, failed or stopped; the last line that it printed)."""
    if seconds < WORTH:
        return "skipped", "no time was left"
    command, environment = [sys.executable, *map(str, arguments)], own_environment() | {"PYTHONUNBUFFERED": "1"}
    with log.open("wb") as file:
        process = psutil.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            status = "failed" if process.wait(seconds) else "passed"
        except psutil.TimeoutExpired:
            status = "stopped"
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):  # interrupted, it can write what it has
                family = [process, *process.children(recursive=True)]
                process.send_signal(signal.SIGINT) if os.name == "posix" else process.terminate()
                psutil.wait_procs([process], timeout=GRACE)
                for one in psutil.wait_procs(family, timeout=0)[1]:  # those that are still alive
                    one.kill()
                psutil.wait_procs(family, timeout=GRACE)
    return status, log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]


def run(
    folder: Annotated[Path, "where everything goes; given again, it goes on", {"nargs": "?"}] = Path("gpu-results"),
    minutes: Annotated[float, "how long it may take"] = 10.0,
) -> int:
    """Does what has not passed yet, in `minutes`, and prints a summary. Returns 1 if a part failed, else 0."""
    positive(minutes=minutes)
    end = time.monotonic() + 60 * minutes - GRACE - 5  # to stop the last part, and for the summary
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's shell makes what it starts with & deaf to it
    print(describe(device := pick_device()))
    (folder := folder.resolve()).mkdir(parents=True, exist_ok=True)
    failed, record = False, folder / (re.sub("[^a-z0-9]+", "-", device_name(device).lower()).strip("-") + ".json")
    try:
        for name, seconds, arguments in parts(folder, record, "cpu" if device.type == "cpu" else "gpu"):
            mark, log, seconds = folder / f"{name}.passed", folder / f"{name}.log", min(seconds, end - time.monotonic())
            status, said = ("passed", "before") if mark.exists() else do(arguments, seconds, log)
            if status == "passed":
                mark.touch()
            failed |= status == "failed"
            print(f"{name}: {status}: {said}", flush=True)
    except KeyboardInterrupt:
        print("interrupted; keeping what is finished")
    if record.exists():
        found = results.read(record)
        print("", benchmark.summary(found), prediction.outcomes(found), sep="\n")
    return int(failed)
