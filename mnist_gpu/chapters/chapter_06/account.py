"""What a training step is taken apart into: load, copy, launch, compute, wait."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch

from mnist_gpu.data import make_batches
from mnist_gpu.faster.ladder import plain, textbook
from mnist_gpu.measuring.busy import watched
from mnist_gpu.measuring.results import Timed
from mnist_gpu.measuring.section import QUICK_ROUNDS, ROUNDS, Section
from mnist_gpu.measuring.timing import in_turn
from mnist_gpu.measuring.workloads import First, repeat, train_part, training_step

SIZES = (1, 4, 16, 64, 256, 1024), (1, 256, 4096, 32_768)  # on a CPU; on a GPU, where launching hides small ones


@watched
def measure_account(device: torch.device, *, sizes=None, steps=50, rounds=10, progress=iter) -> Iterator[Timed]:
    """What chapter 06 takes a training step apart into; one thread, times of one step of the 784-128-10 network.

    whole: the training itself. load: only the batches, not copied. copy: one batch from the host, again and again.
    step: one batch on the device, again and again, also over batch sizes and of the smallest network, which is only
    launches. with steps, on a CPU: batches and steps in turn.
    """
    host, on_device = make_batches("dataloader", device="cpu"), make_batches("device", device=device)
    images, labels = next(iter(make_batches("device")))
    step = training_step(device, 128, 128)
    shapes = {"smallest network": (1, 1)} | {f"step of {n}": (n, 128) for n in sizes or SIZES[device.type != "cpu"]}
    calls = {"copy": lambda: (images.to(device), labels.to(device)), "step, waiting": lambda: step().item()}
    calls |= {"step": step} | {name: training_step(device, *shape) for name, shape in shapes.items()}
    sides = {
        "whole, textbook": partial(train_part, textbook(device), steps),
        "whole, device": partial(train_part, plain(device), steps),
        "load, textbook": partial(between, First(host, steps)),
        "load, device": partial(between, First(on_device, steps)),
    }
    if device.type == "cpu":  # where both are done by the same processor
        sides["load, textbook, with steps"] = partial(between, First(host, steps), calls["step, waiting"])
        sides["load, device, with steps"] = partial(between, First(on_device, steps), step)
    sides |= {name: partial(repeat, call, steps) for name, call in calls.items()}
    for name, seconds in in_turn(sides, threads=1, rounds=rounds, device=device, progress=progress):
        shape = dict(zip(("batch_size", "hidden"), shapes.get(name, (128, 128)), strict=True))
        yield Timed("account", name, device.type, 1, [s / steps for s in seconds], shape)


def between(batches: Iterable, call: Callable[[], object] = lambda: None) -> None:
    """A pass over `batches`, with a `call` after each of them."""
    for _ in batches:
        call()


SECTION = Section(measure_account, full=ROUNDS, quick=QUICK_ROUNDS)
