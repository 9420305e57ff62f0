"""What is timed: pieces of a training as functions without arguments."""

import functools
import itertools
from collections.abc import Callable, Iterable
from functools import partial

import numpy
import torch

from mnist_gpu.data import DeviceBatches, load_mnist
from mnist_gpu.device import usable_cpus, using_threads
from mnist_gpu.faster.ladder import Training, sgd
from mnist_gpu.faster.whole_epoch import WholeEpoch
from mnist_gpu.measuring.timing import alternate, measure
from mnist_gpu.model import make_model
from mnist_gpu.training import Epoch, make_step, train
from mnist_gpu.webgpu.gpu import Call, Gpu

_load = functools.cache(load_mnist)  # it takes a fifth of a second; a map of 16 cells and three sides asks 48 times


def thread_counts(device: torch.device) -> list[int]:
    """On a CPU one thread and all usable ones, since the work decides which is faster; on a GPU one, to feed it."""
    return sorted({1, usable_cpus()}) if device.type == "cpu" else [1]


def training_step(device: torch.device, batch_size: int, hidden: int) -> Callable[[], object]:
    """The plain step on one batch of real images that is already on the device, as a function without arguments."""
    images, labels = _load(train=True)
    index = torch.arange(batch_size) % len(images)
    batch = next(iter(DeviceBatches(images[index], labels[index], batch_size, seed=None, device=device)))
    model = make_model(hidden, device=device)
    step = make_step(model, sgd(model))
    return lambda: step(*batch)


def repeat(function: Callable[[], object], count: int, threads: int | None = None) -> None:
    """Calls `function` `count` times, with so many threads (setting them takes microseconds) or those that are set."""
    with using_threads(threads):
        for _ in range(count):
            function()


def seconds_of(function: Callable[[], object], device: torch.device) -> float:
    """A rough time of one call, warm, to choose how often to repeat it."""
    return min(alternate({"it": function}, rounds=2, warmup=2, device=device)["it"])


def webgpu_call(gpu: Gpu, size: int = 0, mebibytes: int = 0) -> Call:
    """A product of two matrices, a workgroup for 64 x 64 of its results; or a copy, 1,024 workgroups for each MiB."""
    size = min(size, 256) if gpu.adapter.kind == "software" else size  # or one call could take a minute
    values = numpy.random.rand(size**2 or mebibytes * 2**18).astype(numpy.float32)
    arrays, tiles = [gpu.array(values) for _ in range(3 if size else 2)], -(-size // 64)
    if size:
        return Call(gpu.kernel("product"), arrays, (tiles, tiles), (size, size, size))
    return Call(gpu.kernel("copy"), arrays, (1024, mebibytes))


def torch_call(device: torch.device, size: int = 0, mebibytes: int = 0) -> Callable[[], object]:
    """The same by PyTorch, as a function without arguments."""
    if size:
        a, b, out = torch.rand(3, size, size, device=device)
        return partial(torch.mm, a, b, out=out)
    there = torch.ones(mebibytes * 2**18, device=device)  # 2^18 numbers of 4 bytes
    return partial(torch.empty_like(there).copy_, there)


def two_ceilings(device: torch.device) -> tuple[float, float]:
    """A device's two limits, with the threads that are set: FLOP/s of a large product, bytes/s of a copy of 256 MiB."""
    for n in (1024, 2048, 4096, 8192, 16_384):  # until launching is a small part
        product = torch_call(device, size=n)
        if seconds_of(product, device) >= 0.002:
            break
    copy = torch_call(device, mebibytes=256)  # larger than any processor's caches but a server's
    return 2 * n**3 / measure(product).median, 2 * 2**28 / measure(copy).median


class First:
    """The first `n` batches of a pass: `for batch in First(batches, 100)`. None takes them all."""

    def __init__(self, batches: Iterable, n: int | None):
        self.batches, self.n = batches, n

    def __iter__(self):
        if isinstance(self.batches, WholeEpoch):  # of which a pass that is broken off would train on all
            return self.batches.first(self.n)
        return itertools.islice(iter(self.batches), self.n)


def train_part(training: Training, steps: int | None = None) -> Epoch:
    """One pass over its batches, or the first `steps` of them, with no log lines printed."""
    model, step, batches = training
    return train(model, step, First(batches, steps), log=lambda *_: None)[0]
