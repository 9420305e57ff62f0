"""Chapter 08's measurements, taken by the processes themselves: `torchrun ... -m mnist_gpu.measuring.scaling`.

Rank 0 prints one line of JSON: seconds of a training step with the global batch kept (strong scaling) and with the
batch of every process kept (weak), over hidden widths; of the same work without talking to the others; of all-reduces.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import distributed as dist

from mnist_gpu.batches import make_batches
from mnist_gpu.device import set_threads, synchronize
from mnist_gpu.faster.distributed import Group, join, make_distributed_step
from mnist_gpu.faster.ladder import sgd
from mnist_gpu.model import make_model, parameter_count
from mnist_gpu.training import make_step, train


def seconds_of(function: Callable[[], object], group: Group, *, rounds: int = 7, least: float = 0.03) -> list[float]:
    """Seconds of one call, of `rounds` rounds, on all ranks at once; a round repeats it for about `least` seconds."""

    def timed(count):
        if group.processes > 1:
            dist.barrier()
        synchronize(group.device)
        start = time.perf_counter()
        for _ in range(count):
            function()
        synchronize(group.device)
        return (time.perf_counter() - start) / count

    timed(3)
    count = group.share(max(1, int(least / timed(3))))  # the same on all ranks, or they would wait for one another
    return [timed(count) for _ in range(rounds)]


def step_of(group: Group, hidden: int, images: int, talking: bool) -> Callable[[], object]:
    """A step on `images` images a rank, with or without averaging the gradients over the ranks."""
    batch = next(iter(make_batches("device", batch_size=images, device=group.device)))
    model = make_model(hidden, device=group.device)
    make = make_distributed_step if talking and group.processes > 1 else make_step
    step = make(group.wrap(model) if talking else model, sgd(model))
    return lambda: step(*batch)


def all_reduce_of(group: Group, size: int) -> Callable[[], object]:
    """An all-reduce of `size` bytes of float32."""
    numbers = torch.zeros(max(1, size // 4), device=group.device)
    return (lambda: dist.all_reduce(numbers)) if group.processes > 1 else (lambda: None)


def losses_of(group: Group, steps: int) -> list[float]:
    """The first losses of the training itself, batches of 128 shared by all ranks."""
    batches = make_batches("device", device=group.device, part=group.part)
    model = make_model(device=group.device)
    step = (make_distributed_step if group.processes > 1 else make_step)(group.wrap(model), sgd(model))
    few = [batch for batch, _ in zip(batches, range(steps), strict=False)]
    return train(model, step, few, log=lambda *_: None)[0].losses


def measure(group: Group, widths: list[int], sizes: list[int]) -> dict:
    """All of the measurements above; seconds, every raw value."""
    share = 128 // group.processes
    return {
        "processes": group.processes,
        "losses": losses_of(group, 100),
        "strong": {w: seconds_of(step_of(group, w, share, True), group) for w in widths},
        "weak": {w: seconds_of(step_of(group, w, 128, True), group) for w in widths},
        "alone": {w: seconds_of(step_of(group, w, share, False), group) for w in widths},
        "all_reduce": {s: seconds_of(all_reduce_of(group, s), group) for s in sizes},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure a training step on several processes.")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 512])
    arguments = parser.parse_args()
    set_threads(1)
    with join(arguments.device) as joined:
        sizes = [4 * parameter_count(w) for w in arguments.widths] + [4096, 4 * 2**20]
        measured = measure(joined, arguments.widths, sorted(sizes))
        if joined.first:
            print(json.dumps(measured))
