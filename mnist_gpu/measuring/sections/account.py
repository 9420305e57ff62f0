"""What a training step is taken apart into: load, copy, launch, compute, wait."""

import collections
from collections.abc import Callable, Iterable, Iterator

import torch

from mnist_gpu.batches import make_batches
from mnist_gpu.device import set_threads
from mnist_gpu.faster.ladder import plain, textbook
from mnist_gpu.measuring.results import Timed
from mnist_gpu.measuring.sections.section import QUICK_ROUNDS, ROUNDS, Section
from mnist_gpu.measuring.timing import in_turn
from mnist_gpu.measuring.workloads import First, repeat, train_part, training_step


def measure_account(
    device: torch.device, *, sizes=None, steps=50, rounds=10, progress: Callable = iter
) -> Iterator[Timed]:
    """What chapter 06 takes a training step apart into; one thread, times of one step of the 784-128-10 network.

    whole: the training itself, with the textbook's pipeline (waiting for every loss) and with the data on the device.
    load: the batches alone, not copied. copy: one batch from the host, again and again. step: one batch that is on the
    device, again and again, waiting for every loss or not; also over batch sizes, and of the smallest network there is
    (one image, one hidden unit), which is nothing but launches. with steps, on a CPU: the batches alone and the step on
    that other batch in turn, which differs from their sum by what the two do to each other's caches and predictions.
    """
    set_threads(1)
    sizes = sizes or ((1, 4, 16, 64, 256, 1024) if device.type == "cpu" else (1, 16, 256, 4096, 16384, 65536))
    host = make_batches("dataloader", device="cpu")
    on_device = make_batches("device", device=device)
    images, labels = next(iter(make_batches("device")))
    sides = {}
    for name, training in (("whole, textbook", textbook(device)), ("whole, device", plain(device))):
        sides[name] = lambda training=training: train_part(training, steps)
    for name, batches in (("load, textbook", host), ("load, device", on_device)):
        sides[name] = lambda batches=batches: collections.deque(First(batches, steps), maxlen=0)
    step = training_step(device, 128, 128)
    calls = {
        "copy": lambda: (images.to(device), labels.to(device)),
        "step, waiting": lambda: step().item(),
        "step": step,
        "smallest network": training_step(device, 1, 1),
    }
    calls |= {f"step of {n}": training_step(device, n, 128) for n in sizes}
    if device.type == "cpu":  # where both are done by the same processor
        sides["load, textbook, with steps"] = lambda: between(First(host, steps), calls["step, waiting"])
        sides["load, device, with steps"] = lambda: between(First(on_device, steps), step)
    sides |= {name: lambda call=call: repeat(call, steps) for name, call in calls.items()}
    batch_sizes = {f"step of {n}": n for n in sizes} | {"smallest network": 1}
    for name, seconds in in_turn(sides, rounds=rounds, device=device, progress=progress):
        sizes_of = {"batch_size": batch_sizes.get(name, 128), "hidden": 1 if name == "smallest network" else 128}
        yield Timed("account", name, device.type, 1, [s / steps for s in seconds], sizes_of)


def between(batches: Iterable, call: Callable[[], object]) -> None:
    """A pass over `batches`, with a `call` after each of them."""
    for _ in batches:
        call()


SECTION = Section(measure_account, full=ROUNDS, quick=QUICK_ROUNDS)
