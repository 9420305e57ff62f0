"""Chapter 11: the same training on several processes: what it gains, what they tell each other, what may go wrong."""

import ast
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import torch
from torch import distributed as dist

from mnist_gpu.chapters.chapter_11.exercises import EXERCISES, check  # noqa: F401 - they are of this room, too
from mnist_gpu.data import make_batches
from mnist_gpu.faster.distributed import Group, make_distributed_step
from mnist_gpu.faster.ladder import Training, sgd
from mnist_gpu.measuring.commands import TEXT, own_environment, run_command, why
from mnist_gpu.measuring.timing import alternate, compare, measure  # noqa: F401 - for a cell
from mnist_gpu.measuring.workloads import repeat, seconds_of, train_part, training_step  # noqa: F401
from mnist_gpu.model import make_model, parameter_count
from mnist_gpu.training import make_step


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


def measured_by(processes: int, *, widths: Sequence[int]) -> SimpleNamespace:
    """What `measure_scaling` gives with so many processes. Raises RuntimeError, with their reason, if they fail."""
    said = run_command(torchrun(processes, "-m", __name__, *widths))
    found = SimpleNamespace(**ast.literal_eval(said.strip().splitlines()[-1]))
    if not found.difference < 0.02:
        raise RuntimeError(f"{processes} processes: another training, its losses differ by up to {found.difference}")
    return found


# What each of the processes does


def together(sides: Mapping[object, Callable], group: Group, *, rounds: int = 10, least: float = 0.03) -> dict:
    """Seconds of a call of every side, repeated for `least` seconds, in turn on all ranks, after a barrier."""
    turns, counts = {}, {}
    for name, side in sides.items():
        # The same on all ranks, or they would wait for one another.
        counts[name] = group.share(max(1, int(least / seconds_of(side, group.device))))
        turns |= {("before", name): dist.barrier, name: partial(repeat, side, counts[name])}
    seconds = alternate(turns, rounds=rounds, device=group.device)
    return {name: [s / count for s in seconds[name]] for name, count in counts.items()}


def training(group: Group, hidden: int = 128, images: int = 128) -> Training:
    """The course's training by this group, in batches of so many images; of one process it is chapter 04's."""
    model, make = make_model(hidden, device=group.device), make_distributed_step if group.processes > 1 else make_step
    batches = make_batches("device", batch_size=images, device=group.device, part=group.part)
    return Training(model, make(group.wrap(model), sgd(model)), batches)


def steps_of(group: Group, hidden: int) -> dict[str, Callable[[], object]]:
    """The steps that are compared for one width."""
    alone, n = Group(0, 1, group.device), group.processes

    def step_of(ranks: Group, images: int) -> Callable[[], object]:
        _, step, batches = training(ranks, hidden, images)
        return partial(step, *next(iter(batches)))

    return {
        "one": step_of(alone, 128) if group.first else lambda: None,  # the others sleep at the next barrier
        "strong": step_of(group, 128),  # all, the batch shared
        "weak": step_of(group, 128 * n),  # all, a whole batch each
        "alone": step_of(alone, 128 // n),  # all, the batch shared, without talking to one another
    }


def measure_scaling(group: Group, widths: Sequence[int]) -> dict:
    """How much the first 100 losses of all differ from those of one, and seconds, every raw value: steps by width and
    name (see `steps_of`), and all-reduces by bytes."""
    sizes = sorted({4096, 4 * 2**20, *(4 * parameter_count(w) for w in widths)})
    numbers = {size: torch.zeros(size // 4, device=group.device) for size in sizes}
    losses = [train_part(training(who), 100).losses for who in (group, Group(0, 1, group.device))]
    return {
        "difference": max(abs(a - b) for a, b in zip(*losses, strict=True)),
        "steps": {w: together(steps_of(group, w), group) for w in widths},
        "all_reduce": together({size: partial(dist.all_reduce, one) for size, one in numbers.items()}, group),
    }


def train_with_two_workers(*, kill: bool = False) -> dict[str, torch.Tensor]:
    """The weights after three epochs by two processes, a checkpoint each; `kill` ends one process after the first."""
    options = ["--device", "cpu", "--epochs", 3, "--batch-size", 512, "--save", "model.pt", "--every-epoch"]
    command = torchrun(2, "-m", "mnist_gpu", "train", *options, "--resume", "model.pt", restarts=1)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **TEXT}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "model.pt"
        process = subprocess.Popen(command, cwd=folder, env=own_environment(), **pipes)
        if kill and sys.platform != "win32":  # where no signal kills
            while process.poll() is None and not checkpoint.exists():
                time.sleep(0.01)
            if process.poll() is None:
                psutil.Process(process.pid).children()[-1].kill()
                print("(one worker killed)")
        said, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(f"the training ended with status {process.returncode}:\n{why(errors)}")
        print("\n".join(line for line in said.splitlines() if line.startswith(("Resumed", "Finished", "Test"))))
        return torch.load(checkpoint, weights_only=True)["model"]
