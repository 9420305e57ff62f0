"""Chapter 10's measurements, taken by the processes themselves: `torchrun ... -m mnist_gpu.measuring.scaling`.

For several widths, in turn, a training step of: one process on the whole batch (one), all processes with the batch
shared (strong scaling), all with a whole batch each (weak), and all with the batch shared but without talking to one
another (alone). Beside it all-reduces by themselves. Rank 0 prints them as one line of JSON.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import distributed as dist

from mnist_gpu.batches import make_batches
from mnist_gpu.device import set_threads, synchronize
from mnist_gpu.faster.distributed import Group, join, make_distributed_step
from mnist_gpu.faster.ladder import sgd
from mnist_gpu.measuring.commands import run_command, torchrun
from mnist_gpu.model import make_model, parameter_count
from mnist_gpu.training import make_step, train


def together(
    sides: Mapping[str, Callable], group: Group, *, rounds: int = 10, least: float = 0.03
) -> dict[str, list[float]]:
    """Seconds of one call of every side, in turn, as timing.alternate does it, but on all ranks at once.

    Every timed call repeats its side for about `least` seconds; before it the ranks wait for one another.
    """

    def timed(name, count):
        if group.processes > 1:
            dist.barrier()
        synchronize(group.device)
        start = time.perf_counter()
        for _ in range(count):
            sides[name]()
        synchronize(group.device)
        return (time.perf_counter() - start) / count

    counts = {}
    for name in sides:
        timed(name, 3)
        # The same on all ranks, or they would wait for one another.
        counts[name] = group.share(max(1, int(least / timed(name, 3))))
    seconds = {name: [] for name in sides}
    for _ in range(rounds):
        for name in sides:
            seconds[name].append(timed(name, counts[name]))
    return seconds


def step_of(group: Group, hidden: int, images: int, talking: bool) -> Callable[[], object]:
    """A step on `images` images per rank, with or without averaging the gradients over the ranks."""
    batch = next(iter(make_batches("device", batch_size=images, device=group.device)))
    model = make_model(hidden, device=group.device)
    make = make_distributed_step if talking and group.processes > 1 else make_step
    step = make(group.wrap(model) if talking else model, sgd(model))
    return lambda: step(*batch)


def all_reduce_of(group: Group, size: int) -> Callable[[], object]:
    """An all-reduce of `size` bytes of float32."""
    numbers = torch.zeros(max(1, size // 4), device=group.device)
    return (lambda: dist.all_reduce(numbers)) if group.processes > 1 else (lambda: None)


def steps_of(group: Group, hidden: int) -> dict[str, Callable[[], object]]:
    """What is compared for one width: the names are those of the module's description."""
    share = 128 // group.processes
    return {
        # Rank 0 by itself, while the others sleep at the next barrier.
        "one": step_of(group, hidden, 128, talking=False) if group.first else lambda: None,
        "strong": step_of(group, hidden, share, talking=True),
        "weak": step_of(group, hidden, 128, talking=True),
        "alone": step_of(group, hidden, share, talking=False),
    }


def losses_of(group: Group, steps: int) -> list[float]:
    """The first losses of the training itself, batches of 128 shared by all ranks of the group."""
    batches = make_batches("device", device=group.device, part=group.part)
    model = make_model(device=group.device)
    step = (make_distributed_step if group.processes > 1 else make_step)(group.wrap(model), sgd(model))
    few = [batch for batch, _ in zip(batches, range(steps), strict=False)]
    return train(model, step, few, log=lambda *_: None)[0].losses


@dataclass(frozen=True)
class Scaling:
    """What `processes` processes measured: losses of the training's first 100 steps, and seconds, every raw value."""

    processes: int
    losses: list[float]
    losses_of_one: list[float]  # of the same training, by one process
    steps: dict[int, dict[str, list[float]]]  # by width, then "one", "strong", "weak", "alone"
    all_reduce: dict[int, list[float]]  # by bytes


def measure(group: Group, widths: list[int]) -> Scaling:
    """The measurements of the module's description."""
    sizes = sorted({4096, 4 * 2**20, *(4 * parameter_count(w) for w in widths)})
    return Scaling(
        group.processes,
        losses_of(group, 100),
        losses_of(Group(0, 1, group.device), 100),
        {w: together(steps_of(group, w), group) for w in widths},
        together({size: all_reduce_of(group, size) for size in sizes}, group),
    )


def measured_by(processes: int, *, widths: Sequence[int] = (128, 512, 2048), device: str = "cpu") -> Scaling:
    """`measure` by that many processes, started by torchrun. Raises RuntimeError, with their reason, if they fail."""
    options = ["--device", device, "--widths", *widths]
    said = run_command(torchrun(processes, "-m", "mnist_gpu.measuring.scaling", *options))
    found = json.loads(said.strip().splitlines()[-1])
    for name in ("steps", "all_reduce"):
        found[name] = {int(size): value for size, value in found[name].items()}  # JSON's keys are text
    return Scaling(**found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure a training step on several processes.")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 512])
    arguments = parser.parse_args()
    set_threads(1)
    with join(arguments.device) as joined:
        measured = measure(joined, arguments.widths)
        if joined.first:
            print(json.dumps(asdict(measured)))
