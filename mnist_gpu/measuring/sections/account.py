"""What a training step is taken apart into: load, copy, launch, compute, wait."""

import collections
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch

from mnist_gpu.batches import make_batches
from mnist_gpu.device import synchronize, using_threads
from mnist_gpu.faster.ladder import plain, textbook
from mnist_gpu.measuring.results import Timed
from mnist_gpu.measuring.sections.section import QUICK_ROUNDS, ROUNDS, Section
from mnist_gpu.measuring.timing import alternate, fit_line, in_turn
from mnist_gpu.measuring.workloads import First, endless, repeat, seconds_of, train_part, training_step


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
    host = make_batches("dataloader", device="cpu")
    on_device = make_batches("device", device=device)
    images, labels = next(iter(make_batches("device")))
    sides = {}
    for name, training in (("whole, textbook", textbook(device)), ("whole, device", plain(device))):
        sides[name] = lambda training=training: train_part(training, steps)
    for name, batches in (("load, textbook", host), ("load, device", on_device)):
        sides[name] = lambda batches=batches: collections.deque(First(batches, steps), maxlen=0)
    step = training_step(device, 128, 128)
    with using_threads(1):
        by_size = {n: training_step(device, n, 128) for n in sizes} if sizes else growing_steps(device)
    calls = {
        "copy": lambda: (images.to(device), labels.to(device)),
        "step, waiting": lambda: step().item(),
        "step": step,
        "smallest network": training_step(device, 1, 1),
    }
    calls |= {f"step of {n}": call for n, call in by_size.items()}
    if device.type == "cpu":  # where both are done by the same processor
        sides["load, textbook, with steps"] = lambda: between(First(host, steps), calls["step, waiting"])
        sides["load, device, with steps"] = lambda: between(First(on_device, steps), step)
    sides |= {name: lambda call=call: repeat(call, steps) for name, call in calls.items()}
    batch_sizes = {f"step of {n}": n for n in by_size} | {"smallest network": 1}
    for name, seconds in in_turn(sides, threads=1, rounds=rounds, device=device, progress=progress):
        sizes_of = {"batch_size": batch_sizes.get(name, 128), "hidden": 1 if name == "smallest network" else 128}
        yield Timed("account", name, device.type, 1, [s / steps for s in seconds], sizes_of)


def growing_steps(device: torch.device, *, factor: int = 10, largest: int = 65_536) -> dict[int, Callable]:
    """Steps on 1, 4, 16, ... images, up to one that takes `factor` times as long as the first: where a line shows.

    A CPU comes there with some hundred images. A fast GPU, on which launching hides the computing of small batches,
    needs ten thousands of them, which would keep a slow one busy for minutes.
    """
    steps, n = {1: training_step(device, 1, 128)}, 1
    least = seconds_of(steps[1], device)
    while n < largest and (n < 64 or seconds_of(steps[n], device) < factor * least):
        n *= 4
        steps[n] = training_step(device, n, 128)
    return steps


def between(batches: Iterable, call: Callable[[], object]) -> None:
    """A pass over `batches`, with a `call` after each of them."""
    for _ in batches:
        call()


def step_after(before: Callable[[], object], step: Callable[[], object], steps: int, device: torch.device) -> float:
    """Seconds of one step, of so many, with `before` called ahead of each of them, outside the clock."""
    seconds = 0.0
    for _ in range(steps):
        before()
        start = time.perf_counter()
        step()
        synchronize(device)
        seconds += time.perf_counter() - start
    return seconds / steps


def measure_disturbance(device: torch.device, *, steps=20, rounds=10, progress: Callable = iter) -> Iterator[Timed]:
    """The step on one batch, again and again, with something else before each of them, which is outside the clock.

    Nothing; a batch made by the textbook's pipeline; and three things that take as long as that, and which it is made
    of: time that passes, Python code that touches no data, and data (reading 16 MiB again and again).
    """
    step = training_step(device, 128, 128)
    host = make_batches("dataloader", device="cpu")
    stream = endless(host)
    with using_threads(1):
        gap = seconds_of(lambda: next(stream), device)
    data = torch.ones(16 * 2**18)

    def for_the_gap(call):
        def run():
            end = time.perf_counter() + gap
            while time.perf_counter() < end:
                call()

        return run

    befores = {
        "nothing": lambda: None,
        "loading": lambda: next(stream),
        "a pause": lambda: time.sleep(gap),
        "other code": for_the_gap(lambda: None),
        "other data": for_the_gap(data.sum),
    }
    clocks = {name: [] for name in befores}
    sides = {
        name: lambda name=name: clocks[name].append(step_after(befores[name], step, steps, device)) for name in befores
    }
    with using_threads(1):
        alternate(sides, rounds=rounds, device=device, progress=progress)
    for name, seconds in clocks.items():  # the first is the warm-up
        yield Timed("account", f"step after {name}", device.type, 1, seconds[1:], {"batch_size": 128, "hidden": 128})


@dataclass(frozen=True)
class Account:
    """What a training step is made of, in seconds: parts that were measured apart, and the step as a whole.

    `disturbance` is what loading and computing take in turn beyond the two by themselves, measured on a CPU. It is no
    part: it says what is missing where the sum of the parts falls short.
    """

    parts: dict[str, float]
    whole: float
    disturbance: float | None

    @property
    def sum(self) -> float:
        return sum(self.parts.values())


def line_of(found: Mapping[str, Timed]) -> tuple[float, float]:
    """(fixed, slope), seconds and seconds per image, of a step over batch sizes; the batch of 128 is not in the fit."""
    steps = [m for name, m in found.items() if name.startswith("step of ")]
    return fit_line([m.parameters["batch_size"] for m in steps], [m.median for m in steps])


def account_of(found: Mapping[str, Timed], pipeline: str) -> Account:
    """The account of a step with the "textbook" pipeline or the one on the "device", from what measure_account found.

    A step's fixed part is launching, which the smallest network's step is nothing but, and the update of the
    parameters; what grows with the batch is computing on the images.
    """
    seconds = {name: m.median for name, m in found.items()}
    fixed, slope = line_of(found)
    launch, textbook = seconds["smallest network"], pipeline == "textbook"
    step = seconds["step, waiting" if textbook else "step"]
    parts = {
        "load": seconds[f"load, {pipeline}"],
        # With the data on the device there is nothing to copy, and nobody waits.
        "copy": seconds["copy"] if textbook else 0.0,
        "launch": launch,
        "compute: update": max(0.0, fixed - launch),
        "compute: images": slope * 128,
        "wait": max(0.0, step - seconds["step"]),
    }
    together = seconds.get(f"load, {pipeline}, with steps")
    disturbance = None if together is None else max(0.0, together - step - seconds[f"load, {pipeline}"])
    return Account(parts, seconds[f"whole, {pipeline}"], disturbance)


def account_and_disturbance(device: torch.device, **settings) -> Iterator[Timed]:
    yield from measure_account(device, **settings)
    if device.type == "cpu":  # where the same processor loads and computes
        yield from measure_disturbance(device, **settings)


SECTION = Section(account_and_disturbance, full=ROUNDS, quick=QUICK_ROUNDS)
