"""What the processes of chapter 10 do: `torchrun ... -m mnist_gpu.chapters.chapter_10 DEVICE WIDTH ...` measures.

For each width, in turn, a training step of: one process on the whole batch (one), all processes with the batch shared
(strong scaling), all with a whole batch each (weak), and all with the batch shared but without talking to one another
(alone). Beside it all-reduces by themselves. Rank 0 prints them as the last line, a dict: the fields of Scaling.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import distributed as dist

from mnist_gpu.data import make_batches
from mnist_gpu.device import set_threads
from mnist_gpu.faster.distributed import Group, join, make_distributed_step
from mnist_gpu.faster.ladder import sgd
from mnist_gpu.measuring.busy import watching
from mnist_gpu.measuring.timing import alternate
from mnist_gpu.measuring.workloads import repeat, seconds_of
from mnist_gpu.model import make_model, parameter_count
from mnist_gpu.training import make_step, train


def together(sides: Mapping[object, Callable], group: Group, *, rounds: int = 10, least: float = 0.03) -> dict:
    """Seconds of one call of every side, in turn on all ranks at once; before each the ranks wait for one another.

    A timed call repeats its side for about `least` seconds.
    """
    turns, counts = {}, {}
    for name, side in sides.items():
        # The same on all ranks, or they would wait for one another.
        counts[name] = group.share(max(1, int(least / seconds_of(side, group.device))))
        turns |= {("before", name): dist.barrier, name: partial(repeat, side, counts[name])}
    seconds = alternate(turns, rounds=rounds, device=group.device)
    return {name: [s / count for s in seconds[name]] for name, count in counts.items()}


def model_and_step(group: Group, hidden: int = 128) -> tuple[torch.nn.Module, Callable]:
    """The course's training by this group; of one process it is chapter 04's."""
    model = make_model(hidden, device=group.device)
    return model, (make_distributed_step if group.processes > 1 else make_step)(group.wrap(model), sgd(model))


def steps_of(group: Group, hidden: int) -> dict[str, Callable[[], object]]:
    """What is compared for one width: the names are those of the file's description."""
    alone, share = Group(0, 1, group.device), 128 // group.processes

    def step_of(ranks: Group, images: int) -> Callable[[], object]:
        batch = next(iter(make_batches("device", batch_size=images, device=group.device)))
        step = model_and_step(ranks, hidden)[1]
        return lambda: step(*batch)

    return {
        # Rank 0 by itself, while the others sleep at the next barrier.
        "one": step_of(alone, 128) if group.first else lambda: None,
        "strong": step_of(group, share),
        "weak": step_of(group, 128),
        "alone": step_of(alone, share),
    }


def losses_of(group: Group, steps: int) -> list[float]:
    """The first losses of the training itself, batches of 128 shared by all ranks of the group."""
    batches = make_batches("device", device=group.device, part=group.part)
    few = [batch for batch, _ in zip(batches, range(steps), strict=False)]
    return train(*model_and_step(group), few, log=lambda *_: None)[0].losses


def measure_scaling(group: Group, widths: Sequence[int]) -> dict:
    """The measurements of the file's description."""
    sizes = sorted({4096, 4 * 2**20, *(4 * parameter_count(w) for w in widths)})
    numbers = {size: torch.zeros(size // 4, device=group.device) for size in sizes}
    return {
        "processes": group.processes,
        "losses": losses_of(group, 100),
        "losses_of_one": losses_of(Group(0, 1, group.device), 100),
        "steps": {w: together(steps_of(group, w), group) for w in widths},
        "all_reduce": together({size: partial(dist.all_reduce, one) for size, one in numbers.items()}, group),
    }


if __name__ == "__main__":
    set_threads(1)
    # To each rank the others are busy neighbours. Whether the machine is busy is said by the program that starts them.
    with watching(say=lambda busy: None), join(sys.argv[1]) as joined:
        measured = measure_scaling(joined, [int(width) for width in sys.argv[2:]])
        if joined.first:
            print(measured)
