"""A climb of the speed ladder: a rung proves its losses when it is reached, and all are timed in turn at the end."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import torch

from mnist_gpu.data import TRAIN_IMAGES
from mnist_gpu.device import using_threads
from mnist_gpu.faster.graphs import record
from mnist_gpu.faster.ladder import RUNGS, TEXTBOOK, WIDE, Rung, Training, plain, rungs
from mnist_gpu.faster.products import PRODUCTS, five_products, usable_products
from mnist_gpu.measuring.drawing import columns
from mnist_gpu.measuring.results import Skipped, Timed, compare_in_turn
from mnist_gpu.measuring.timing import Comparison, in_turn, interval, rounded
from mnist_gpu.measuring.workloads import repeat, train_part

# The matrix products of an epoch and nothing else, by every library: the fastest is the floor.
FLOORS = tuple(f"products alone, {name}" for name in PRODUCTS)
ROUNDING = 1e-4  # nats: more than two programs differ by in their first steps, less than another update does
CAUSES = (  # by the first step whose loss differs
    "The first loss differs already: by the weights, the images, their pixels (-1 to 1), or the loss.",
    "The first loss is right, and the second is not: look at the first update, and at the second batch.",
    "The first update is right, later ones are not: look at the momentum, at gradients that add up, and at the order.",
)


def floors(device: torch.device, hidden: int, steps: int) -> dict[str, Callable]:
    """The products alone of so many steps, by every library that the device has."""
    found = {}
    for products in usable_products(device):
        five = five_products(products, 128, hidden, device)
        cuda = device.type == "cuda"  # one by one, launching them takes longer than an epoch in a graph
        found[f"products alone, {products}"] = record(five, calls=steps) if cuda else partial(repeat, five, steps)
    return found


def weights(model: torch.nn.Module) -> torch.Tensor:
    """All parameters in one tensor, a copy."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class AnotherTraining(ValueError):
    """The losses or weights are not the plain loop's. The text says how, and where to look."""


class Climb:
    """Rungs of the ladder on one device, for `steps` steps (None: a whole epoch) and with so many threads of the CPU.

    Every rung starts from the same weights and order, so its first pass must have the losses and weights of the plain
    loop's.
    """

    def __init__(self, device: torch.device, hidden: int = 128, steps: int | None = None, threads: int = 1):
        self.device, self.hidden, self.steps, self.threads = device, hidden, steps, threads
        self.count = steps or math.ceil(TRAIN_IMAGES / 128)
        with using_threads(threads):
            self.plain = plain(device, hidden)
            start = weights(self.plain.model)
            self.expected = train_part(self.plain, steps).losses
        self.trained = weights(self.plain.model)
        self.moved = (self.trained - start).norm()
        self.reached: dict[str, tuple[Training, float, dict]] = {}  # its first pass in seconds, and the proof

    def reach(self, rung: Rung, make: Callable[..., Training] | None = None, **options) -> Skipped | None:
        """The first pass of a rung, made by `make` or its own function; returns why it does not count, if so."""
        if not (reason := rung.missing(self.device)):
            try:
                with using_threads(self.threads):
                    training = (make or rung.make)(self.device, self.hidden, **options)
                    start = time.perf_counter()
                    difference = self.prove(training, rung.tolerance)
                    seconds = time.perf_counter() - start
                proof = {"largest_loss_difference": difference, "tolerance": rung.tolerance}
                if products := getattr(training.batches, "products", None):  # which a compiled epoch has chosen
                    proof["products"] = products
                if gpu := getattr(training.batches, "gpu", None):  # which is none of PyTorch's devices
                    proof["hardware"] = gpu.name
                self.reached[rung.name] = training, seconds, proof
                return None
            except AnotherTraining as other:
                reason = str(other)
            except Exception as error:  # torch.compile raises many kinds. A rung that fails is named, and not fatal.
                reason = f"failed: {type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
        return Skipped("ladder", rung.name, rung.hardware or self.device.type, reason)

    def prove(self, training: Training, tolerance: float = 0.02) -> float:
        """A first pass: by how much its losses differ from the plain loop's at most. May raise AnotherTraining."""
        losses = train_part(training, self.steps or self.count + 1).losses
        if len(losses) != len(self.expected):
            raise AnotherTraining(f"is another training: of {len(losses)} steps instead of {len(self.expected)}")
        differences = [abs(a - b) for a, b in zip(losses, self.expected, strict=True)]
        if not all(d <= tolerance for d in differences):  # as for NaN, too
            first = next(i for i, d in enumerate(differences) if not d <= ROUNDING)
            worst = f"is another training: its losses differ by {max(differences):.2g}, more than {tolerance}"
            raise AnotherTraining(f"{worst}, beginning with step {first + 1}. {CAUSES[min(first, 2)]}")
        if not (weights(training.model) - self.trained).norm() < 0.5 * self.moved:  # more than any rounding does
            raise AnotherTraining("has the right losses, but its model not the weights: it has trained a copy")
        return max(differences)

    def show(self, name: str, make: Callable[..., Training] | None = None, **options) -> None:
        """Reaches the rung called `name` and says what its first pass gave, or why it has none."""
        (rung,) = rungs([name])
        if failed := self.reach(rung, make, **options):
            if rung.needs in ("", self.device.type):  # nothing is said of what other devices have
                print(f"{name}: {failed.reason.rstrip('.')}.")
        else:
            _, seconds, proof = self.reached[name]
            differ = f"losses differ by at most {proof['largest_loss_difference']:.1g}"
            print(f"{name}: first {self.count} steps in {seconds:.2f} s; {differ}")

    def measure(self, *, floor: bool = True, rounds: int = 10, progress: Callable = iter) -> Iterator[Timed]:
        """The rungs reached, and, for the floor, the products alone, in turn."""
        sides = {name: partial(train_part, training, self.steps) for name, (training, _, _) in self.reached.items()}
        if self.steps:  # workers that were broken off prepare a few batches more: not in the next side's time
            sides["pause"] = partial(time.sleep, 0.1)
        sides |= floors(self.device, self.hidden, self.count) if floor else {}
        sizes = {"batch_size": 128, "hidden": self.hidden}
        work = {"images": 128 * self.steps if self.steps else TRAIN_IMAGES, "steps": self.count}
        options = {"rounds": rounds, "warmup": 0, "device": self.device, "progress": progress}
        for name, seconds in in_turn(sides, threads=self.threads, **options):
            if name != "pause":
                _, first_use, proof = self.reached.get(name, (None, None, {}))
                where = "webgpu" if "hardware" in proof else self.device.type
                yield Timed("ladder", name, where, self.threads, seconds, sizes, work, first_use, proof)


def measure_ladder(
    device: torch.device, *, names: Iterable[str] | None = None, hidden=128, steps=None, threads=1,
    progress: Callable = iter, **options,
) -> Iterator[Timed | Skipped]:  # fmt: skip
    """The rungs `names`, or all, and the products alone, in turn. `options`: rounds and floor. See Climb."""
    chosen = rungs(names)
    climb = Climb(device, hidden, steps, threads)
    for rung in progress(chosen):
        if failed := climb.reach(rung):
            yield failed
    yield from climb.measure(progress=progress, **options)


def quickest(times: Mapping[str, Sequence[float]], names: Iterable[str]) -> str | None:
    """Which of `names` has the least median time; None if none of them was timed."""
    return min((n for n in names if n in times), key=lambda n: statistics.median(times[n]), default=None)


def fastest_rung(times: Mapping[str, Sequence[float]]) -> str | None:
    """The fastest rung in float32 by PyTorch, whose floor are its float32 products."""
    return quickest(times, [r.name for r in RUNGS if r.name not in WIDE[1:] and not r.hardware])


def gains(measured: Iterable[Timed]) -> dict[str, Comparison]:
    """The rungs of one device against its textbook, by name, in the order of the ladder."""
    found = {m.name: m for m in measured}
    pairs = [(TEXTBOOK, rung.name) for rung in RUNGS if rung.name in found and rung.name != TEXTBOOK]
    return {c.names[1]: c for c in compare_in_turn(found.values(), pairs)}


def known(values: Sequence[float]) -> tuple[str, str]:
    """The median of times, and the interval of the true one, with the digits that this leaves them."""
    value, low, high = rounded(statistics.median(values), *interval(values))
    return value, f"{low} to {high}"


def extra(timed: Timed) -> str:
    """What the first use cost beyond a later one, if that is worth saying."""
    seconds = (timed.first_use_seconds or 0.0) - timed.median
    return f"{seconds:.1f} s" if seconds > 0.3 else "-"


def ladder_table(measured: Sequence[Timed]) -> None:
    """Prints the rungs of one device in their order: seconds per epoch, against the textbook, first use, losses."""
    found = {m.name: m for m in measured}
    times = {name: f"{gain.times}x" for name, gain in gains(measured).items() if gain.differs}
    rows = []
    for m in (found[rung.name] for rung in RUNGS if rung.name in found):
        differ = f"{m.proof['largest_loss_difference']:.1g}"
        rows.append((m.name, *known(m.per_epoch()), times.get(m.name, "-"), extra(m), differ))
    print(columns(["rung", "s per epoch", "interval", "speed-up", "first use", "losses"], rows))


def skipped(measured: Iterable[Timed | Skipped]) -> list[Timed]:
    """Says what could not be measured, and why; returns what was."""
    measured = list(measured)
    for one in measured:
        if isinstance(one, Skipped):
            print(f"{one.name}: {one.reason.rstrip('.')}.")
    return [one for one in measured if isinstance(one, Timed)]
