"""The rungs of the speed ladder, each with its proof that it is the same training, and the floor under them."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch

from mnist_gpu.batches import DeviceBatches
from mnist_gpu.device import usable_cpus, using_threads
from mnist_gpu.faster.compiled_epoch import CompiledEpoch
from mnist_gpu.faster.graphs import record
from mnist_gpu.faster.ladder import ALL_THREADS, PLAIN, RUNGS, TEXTBOOK, WIDE, Rung, Training, plain, rungs
from mnist_gpu.faster.products import PRODUCTS, five_products, usable_products
from mnist_gpu.measuring.results import Results, Skipped, Timed
from mnist_gpu.measuring.sections.section import ROUNDS, Section, comparisons
from mnist_gpu.measuring.timing import in_turn, measure
from mnist_gpu.measuring.workloads import repeat, train_part
from mnist_gpu.mnist import TRAIN_IMAGES, load_mnist
from mnist_gpu.training import LossNotFinite

# The matrix products of an epoch and nothing else, by every library and layout: the fastest is the floor.
FLOORS = {f"products alone, {name}": products for name, products in PRODUCTS.items()}


class Climb:
    """Rungs of the ladder on one device: each is proved when it is reached (`reach`), all are timed in turn at the end.

    Args:
        device, hidden: where, and how wide the network is.
        steps: how many steps a rung is timed for; None: a whole epoch of 469.
        threads: of the CPU.
        others: recorded results, for `show`.

    Every rung starts from the same weights and order, so the losses of its first pass must be those of the plain loop.
    Later passes go on from there. `first_use` (seconds) and `proofs` have, by rung, what the first pass gave.
    """

    def __init__(self, device: torch.device, hidden: int = 128, steps: int | None = None, threads: int = 1, others=()):
        self.others = others
        self.device, self.hidden, self.steps, self.threads = device, hidden, steps, threads
        self.count = steps or math.ceil(TRAIN_IMAGES / 128)
        with using_threads(threads):
            self.expected = train_part(plain(device, hidden), steps).losses
        self.trainings, self.first_use, self.proofs = {}, {}, {}

    def reach(self, rung: Rung, make: Callable[..., Training] | None = None, **options) -> Skipped | None:
        """The first pass of a rung, made by `make`, with `options`, or by its own function.

        Returns why it does not count, if so.
        """
        if not (reason := rung.missing(self.device)):
            try:
                with using_threads(self.threads):
                    training = (make or rung.make)(self.device, self.hidden, **options)
                    start = time.perf_counter()
                    losses = train_part(training, self.steps).losses
                    seconds = time.perf_counter() - start
                differences = [abs(a - b) for a, b in zip(losses, self.expected, strict=True)]
                if all(d <= rung.tolerance for d in differences):  # false for NaN, too
                    self.trainings[rung.name], self.first_use[rung.name] = training, seconds
                    self.proofs[rung.name] = {"largest_loss_difference": max(differences), "tolerance": rung.tolerance}
                    if isinstance(training.batches, CompiledEpoch):
                        self.proofs[rung.name]["products"] = training.batches.products.name
                    return None
                reason = (
                    f"is another training: its losses differ by {max(differences):.2g}, more than {rung.tolerance}."
                )
            except LossNotFinite as error:
                reason = f"failed: {type(error).__name__}: {error}"
            except Exception as error:  # torch.compile raises many kinds. A rung that fails is named, and not fatal.
                reason = f"failed: {type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
            if rung.suspect and ("another training" in reason or "LossNotFinite" in reason):
                reason = f"{reason} {rung.suspect}"
        return Skipped("ladder", rung.name, self.device.type, reason)

    def show(self, name: str, make: Callable[..., Training] | None = None, **options) -> None:
        """Reaches the rung called `name` and says what its first pass gave, or why it has none."""
        rung = rungs([name])[0]
        if (failed := self.reach(rung, make, **options)) is None:
            worst, seconds = self.proofs[name]["largest_loss_difference"], self.first_use[name]
            print(f"{name}: first {self.count} steps in {seconds:.2f} s; losses differ by at most {worst:.0e}")
            return
        others = self.others if rung.missing(self.device) else ()  # which have what is missing; not where it failed
        times = "; ".join(
            f"{r.hardware(m.device)}: {statistics.median(m.per_epoch()):.3g} s per epoch (recorded {r.date})"
            for r in others
            for m in r.select("ladder", name, hidden=self.hidden, threads=1)
        )
        print(f"{name}: {failed.reason.rstrip('.')}. {times}".rstrip())

    def measure(self, *, floor: bool = True, rounds: int = 10, progress: Callable = iter) -> Iterator[Timed]:
        """The rungs reached, and, for the floor, the products alone, in turn."""
        parts = {}
        for name, training in self.trainings.items():
            parts[name] = lambda training=training: train_part(training, self.steps)
        if self.steps:  # workers that were broken off prepare a few batches more: not in the next side's time
            parts["pause"] = lambda: time.sleep(0.1)
        for name, products in FLOORS.items():
            if floor and products in usable_products(self.device):
                five = five_products(products, 128, self.hidden, self.device)
                if self.device.type == "cuda":  # one by one, launching them takes longer than an epoch in a graph
                    parts[name] = record(five, calls=self.count)
                else:
                    parts[name] = lambda five=five: repeat(five, self.count)
        work = {"images": 128 * self.steps if self.steps else TRAIN_IMAGES, "steps": self.count}
        sizes = {"batch_size": 128, "hidden": self.hidden}
        where = self.device.type, self.threads
        options = {"rounds": rounds, "warmup": 0, "device": self.device, "progress": progress}
        for name, seconds in in_turn(parts, threads=self.threads, **options):
            if name != "pause":
                first, proof = self.first_use.get(name), self.proofs.get(name, {})
                yield Timed("ladder", name, *where, seconds, sizes, work, first, proof)


def measure_ladder(
    device: torch.device, *, names: Iterable[str] | None = None, hidden=128, steps=None, rounds=10, threads=1,
    floor=True, progress=iter,
) -> Iterator[Timed | Skipped]:  # fmt: skip
    """The rungs `names`, or all, and the products alone, in turn. See Climb."""
    chosen = rungs(names)
    climb = Climb(device, hidden, steps, threads)
    for rung in progress(chosen):
        if skipped := climb.reach(rung):
            yield skipped
    yield from climb.measure(floor=floor, rounds=rounds, progress=progress)


def quickest(times: Mapping[str, Sequence[float]], names: Iterable[str]) -> str | None:
    """Which of `names` has the least median time; None if none of them was timed."""
    return min((n for n in names if n in times), key=lambda n: statistics.median(times[n]), default=None)


def fastest_rung(times: Mapping[str, Sequence[float]]) -> str | None:
    """The fastest rung in float32, whose floor are float32 products."""
    return quickest(times, [r.name for r in RUNGS if r.name not in WIDE[1:]])


def above_the_floor(
    measured: Iterable[Timed],
    names: Sequence[str] = (PLAIN, "fused optimizer", "backward written out", "compiled epoch"),
) -> dict[str, dict[str, float]]:
    """What a step of these rungs on the CPU is made of, in seconds, by rung; {} where no products were timed.

    - "products": by the library and in the layout that are fastest here, the floor;
    - "a slower library": what the rung's own products take beyond that;
    - "launches": the same training with next to no data, one image a batch and one hidden unit: Python, PyTorch's
      dispatch, autograd. They do not depend on the size of the data. Measured here, warm;
    - "passes over memory": the rest. Every operation between two products reads and writes its tensors.

    The compiled epoch is compiled once more for that, which takes some seconds.
    """
    timed = {m.name: m.median / m.per_call["steps"] for m in measured}
    threads = {m.name: m.threads for m in measured}
    own = {m.name: f"products alone, {m.proof.get('products', 'torch.mm, weights [H, 784]')}" for m in measured}
    own["written out, oneDNN"] = "products alone, oneDNN, weights [H, 784]"
    if not (floor := quickest({name: [seconds] for name, seconds in timed.items()}, FLOORS)):
        return {}
    found, few = {}, DeviceBatches(*(t[:64] for t in load_mnist(train=True)), batch_size=1)
    for name in names:
        if name in timed:
            with using_threads(threads[name]):
                model, step, batches = rungs([name])[0].make(torch.device("cpu"), 1)
                if isinstance(batches, CompiledEpoch):
                    batches = CompiledEpoch(model, few, products=own[name].removeprefix("products alone, "))
                    step = batches.step
                else:
                    batches = few
                launches = measure(lambda s=step, bs=batches: [s(*batch) for batch in bs]).median / len(few)
            parts = {
                "products": timed[floor],
                "a slower library": timed[own[name]] - timed[floor],
                "launches": launches,
            }
            found[name] = parts | {"passes over memory": timed[name] - sum(parts.values())}
    return found


def all_ladders(device: torch.device, *, steps: int | None = None, **options) -> Iterator[Timed | Skipped]:
    """All rungs with one thread; on a CPU some of them with all its threads, too, since that is what a GPU has to be
    compared with; and those of reduced precision on a wide network, where the products take the time."""
    yield from measure_ladder(device, steps=steps, **options)
    if device.type == "cpu" and usable_cpus() > 1:
        yield from measure_ladder(device, names=ALL_THREADS, steps=steps, threads=usable_cpus(), **options)
    yield from measure_ladder(device, names=WIDE, hidden=2048, steps=50, floor=False, **options)


def pairs(times: Mapping[str, Sequence[float]]) -> list[tuple[str, str]]:
    """Every rung with the textbook; the plain loop and the fastest rung with the floor."""
    floor = quickest(times, FLOORS)
    return [(TEXTBOOK, name) for name in (*(n for n in times if n not in FLOORS), floor)] + [
        (PLAIN, floor),
        (fastest_rung(times), floor),
    ]


def wide_pairs(times: Mapping[str, Sequence[float]]) -> list[tuple[str, str]]:
    return [(WIDE[0], name) for name in times]


def summary(results: Results, device: str) -> list[str]:
    lines = comparisons(results, device, "ladder", pairs, hidden=128, threads=1)
    return lines + comparisons(results, device, "ladder", wide_pairs, ", width 2048", hidden=2048)


SECTION = Section(all_ladders, full=ROUNDS, quick=ROUNDS | {"steps": 50}, summary=summary)
