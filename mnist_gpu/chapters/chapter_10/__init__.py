"""Chapter 10: the same training on several processes: what it gains, what they tell each other, what may go wrong.

The processes themselves import this, too (see __main__.py). So what draws is imported where it is needed.
"""

import ast
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch

from mnist_gpu.chapters.chapter_10.exercises import EXERCISES, check  # noqa: F401 - they are of this room, too
from mnist_gpu.device import usable_cpus
from mnist_gpu.measuring.commands import TEXT, own_environment, run_command, why
from mnist_gpu.measuring.timing import compare, compare_all, measure
from mnist_gpu.measuring.workloads import training_step

STEPS = 469  # of an epoch, with batches of 128


@dataclass(frozen=True)
class Scaling:
    """What `processes` processes measured: losses of the training's first 100 steps, and seconds, every raw value."""

    processes: int
    losses: list[float]
    losses_of_one: list[float]  # of the same training, by one process
    steps: dict[int, dict[str, list[float]]]  # by width, then "one", "strong", "weak", "alone"
    all_reduce: dict[int, list[float]]  # by bytes


def medians(seconds: Mapping) -> dict:
    """Of every list of times, by the same names, in the same order."""
    return {name: statistics.median(times) for name, times in seconds.items()}


def for_torchrun() -> None:
    """Sets what the processes that a notebook starts find in their environment."""
    os.environ["OMP_NUM_THREADS"] = "1"  # one thread per process; torchrun would set it and say so
    os.environ["USE_LIBUV"] = "0" if sys.platform == "win32" else "1"  # which PyTorch for Windows is built without
    os.environ["TQDM_DISABLE"] = "1"  # no progress bars among the output of the processes


def torchrun(processes: int, *arguments, restarts: int = 0) -> list[str]:
    """What the command `torchrun --standalone --nproc-per-node PROCESSES ARGUMENTS` starts."""
    options = ["--standalone", "--nproc-per-node", processes, "--max-restarts", restarts]
    return [sys.executable, "-m", "torch.distributed.run", *map(str, (*options, *arguments))]


def measured_by(processes: int, *, widths: Sequence[int] = (128, 512, 2048), device: str = "cpu") -> Scaling:
    """What so many processes measure (__main__.py). Raises RuntimeError, with their reason, if they fail."""
    said = run_command(torchrun(processes, "-m", __name__, device, *widths))
    return Scaling(**ast.literal_eval(said.strip().splitlines()[-1]))


def train_with_two_workers(*, kill: bool = False) -> dict[str, torch.Tensor]:
    """Trains three epochs with two processes, a checkpoint each, one restart allowed; prints how it began and ended.

    With `kill` one of the two is killed as soon as the first checkpoint is there. Returns the weights. Raises
    RuntimeError if it fails.
    """
    if kill and sys.platform == "win32":
        print("(No worker is killed: that needs a system on which a process can be killed by a signal.)")
        kill = False
    options = ["--device", "cpu", "--epochs", 3, "--batch-size", 512, "--save", "model.pt", "--every-epoch"]
    command = torchrun(2, "-m", "mnist_gpu", "train", *options, "--resume", "model.pt", restarts=1)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **TEXT}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "model.pt"
        process = subprocess.Popen(command, cwd=folder, env=own_environment(), **pipes)
        while kill and process.poll() is None and not checkpoint.exists():
            time.sleep(0.01)
        if kill and process.poll() is None:
            psutil.Process(process.pid).children()[-1].kill()
            print("(one worker killed)")
        said, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(f"the training ended with status {process.returncode}:\n{why(errors)}")
        print("\n".join(line for line in said.splitlines() if line.startswith(("Resumed", "Finished", "Test"))))
        return torch.load(checkpoint, weights_only=True)["model"]


def one_and_several(measured: Mapping[int, Scaling]) -> None:
    """Prints, by the number of processes: an epoch of width 128 beside one process's, and which is faster.

    Raises RuntimeError if it is another training.
    """
    for n, by in measured.items():
        differences = [abs(a - b) for a, b in zip(by.losses, by.losses_of_one, strict=True)]
        if not all(difference < 0.02 for difference in differences):  # false for NaN, too
            raise RuntimeError(f"{n} processes: another training, its losses differ by up to {max(differences):.2g}")
        sides = {"1 process": by.steps[128]["one"], f"{n} processes": by.steps[128]["strong"]}
        said = ", ".join(f"{who} {STEPS * statistics.median(s):.2f} s per epoch" for who, s in sides.items())
        print(f"{said}; their first 100 losses differ by at most {max(differences):.0e}.")
        print(compare(sides, *sides, of=len(measured)))
    print(f"All of it on {usable_cpus()} usable CPUs.")


def line(messages: Mapping[int, float]) -> tuple[float, float]:
    """(latency, per_byte) of the line `latency + per_byte * bytes` whose relative errors are smallest, in seconds."""
    sizes, seconds = np.array(list(messages.items())).T
    per_byte, latency = np.polyfit(sizes, seconds, 1, w=1 / seconds).tolist()
    return latency, per_byte


def widths(measured: Scaling, predicted: Mapping[int, float]) -> None:
    """A step of one process against one of all, by width, beside what was `predicted` for all, in seconds."""
    from mnist_gpu.measuring.drawing import columns, number

    sides = {f"{who} {width}": times[who] for width, times in measured.steps.items() for who in ("one", "strong")}
    gains = compare_all(sides, [(f"one {width}", f"strong {width}") for width in measured.steps])
    rows = []
    for (width, times), gain in zip(measured.steps.items(), gains, strict=True):
        one, several, expected = 1e3 * medians(times)["one"], 1e3 * medians(times)["strong"], 1e3 * predicted[width]
        rows.append((width, *map(number, (one, expected, several)), f"{one / expected:.2f}x", f"{gain.times}x"))
    n = measured.processes
    head = ["width", "1 process, ms", f"{n} predicted", f"{n} measured", "gain predicted", "gain measured"]
    print(columns(head, rows))
    best, at = max(zip(gains, measured.steps, strict=True), key=lambda c: c[0].ratio)
    print(f"{n} processes {'gain most' if best.ratio > 1 else 'lose least'} at width {at}: {best.times} times as fast.")
    print("That pays." if best.differs and best.ratio > 1 else "Within these widths it does not pay on this machine.")


def break_even(saved: float, spent: float, latency: float) -> None:
    """Says from which width on a second process pays, if it saves and spends so many seconds per parameter."""
    print(f"A second process saves {saved * 1e9:.1f} ns per parameter and step; sending costs {spent * 1e9:.1f} ns.")
    if saved > 1.2 * spent:
        width = float(f"{2 * max(latency, 0) / (saved - spent) / (784 + 1 + 10):.2g}")  # parameters per hidden unit
        print(f"What is left has to pay for two latencies: from a width of about {width:,.0f} on it should.")
    elif spent > 1.2 * saved:
        print("So with this batch two processes should pay at no width, however wide.")
    else:
        print("The two are too close to tell whether there is a width from which on it pays.")


def scaling(measured: Mapping[int, Scaling]):
    """Images/s of width 128 over the number of processes, of strong and weak scaling, beside the ideal."""
    from mnist_gpu.measuring.drawing import OWN, Series, lines

    one, counts = 128 / medians(next(iter(measured.values())).steps[128])["one"], [1, *measured]

    def rate(n: int, kind: str) -> float:
        """From the ratio to the one process beside them."""
        pairs = zip(measured[n].steps[128]["one"], measured[n].steps[128][kind], strict=True)
        return one * (n if kind == "weak" else 1) * statistics.median(a / b for a, b in pairs)

    rates = {kind: [one, *(rate(n, kind) for n in measured)] for kind in ("strong", "weak")}
    series = [Series(f"{kind} scaling", OWN, counts, found) for kind, found in rates.items()]
    drawn = lines(series, xlabel="processes", ylabel="images/s")
    drawn.axes.plot(counts, [n * one for n in counts], ":", color="black", label="ideal")
    drawn.axes.set_xticks(counts)
    drawn.axes.legend()
    return drawn


def smallest_step() -> float:
    """Seconds of a step of the smallest network on the CPU, which is all launching."""
    return measure(training_step(torch.device("cpu"), batch_size=1, hidden=1)).median


def at_scale(predicted: Callable, cases: Mapping[str, tuple[object, int, int]], devices=(1, 8, 64, 1024)) -> None:
    """What `predicted(machine, devices, batch, parameters)`, in seconds of computing and of talking, says of `cases`.

    A case is (machine, batch, parameters); every device needs an image at least.
    """
    from mnist_gpu.measuring.drawing import columns, number

    rows = []
    for name, (machine, batch, parameters) in cases.items():
        for n in (n for n in devices if n <= batch):
            work, talk = predicted(machine, n, batch, parameters)
            gain = float(f"{sum(predicted(machine, 1, batch, parameters)) / (work + talk):.2g}")
            binds = "all-reduce" if talk > work else "compute"
            rows.append((name if n == 1 else "", n, number(1e3 * work), number(1e3 * talk), f"{number(gain)}x", binds))
    print(columns(["", "devices", "compute, ms", "all-reduce, ms", "gain", "binds"], rows))
