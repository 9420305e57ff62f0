"""The rungs of the speed ladder, each with its proof that it is the same training, and the floor under them."""

import math
import time
from collections.abc import Callable, Iterable, Iterator

import torch

from mnist_gpu.device import set_threads
from mnist_gpu.faster.ladder import PLAIN, TEXTBOOK, WIDE, plain, rungs
from mnist_gpu.faster.written_out import onednn_missing, onednn_product
from mnist_gpu.measuring.results import Results, Skipped, Timed
from mnist_gpu.measuring.sections.section import QUICK_ROUNDS, ROUNDS, Section, comparisons
from mnist_gpu.measuring.timing import in_turn
from mnist_gpu.measuring.workloads import repeat, train_part
from mnist_gpu.mnist import TRAIN_IMAGES
from mnist_gpu.training import LossNotFinite

FLOOR, FLOOR_ONEDNN = "matrix products alone", "matrix products alone, oneDNN"


def measure_ladder(
    device: torch.device, *, names: Iterable[str] | None = None, hidden=128, steps=None, rounds=10, progress=iter
) -> Iterator[Timed | Skipped]:
    """The rungs of the ladder, in turn, one thread, and the matrix products alone. See mnist_gpu.faster.ladder.

    A timed call is a whole epoch of 469 steps, or `steps` steps. The first starts from the same weights and order on
    every rung: its losses must be those of the plain loop, or the rung is skipped. Later ones go on from there.
    """
    set_threads(1)
    count = steps or math.ceil(TRAIN_IMAGES / 128)
    chosen = rungs(names)
    expected = train_part(plain(device, hidden), steps).losses
    parts, first, proofs = {}, {}, {}
    for rung in progress(chosen):
        reason = rung.missing(device)
        if not reason:
            try:
                training = rung.make(device, hidden)
                start = time.perf_counter()
                losses = train_part(training, steps).losses
                first[rung.name] = time.perf_counter() - start
                differences = [abs(a - b) for a, b in zip(losses, expected, strict=True)]
                difference = max(differences)
                proofs[rung.name] = {"largest_loss_difference": difference, "tolerance": rung.tolerance}
                if not all(d <= rung.tolerance for d in differences):  # false for NaN, too
                    reason = f"is another training: its losses differ by {difference:.2g}, more than {rung.tolerance}."
            except LossNotFinite as error:
                reason = f"failed: {type(error).__name__}: {error}"
            except Exception as error:  # torch.compile raises many kinds. A rung that fails is named, and not fatal.
                reason = f"failed: {type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
        if reason:
            wrong = rung.suspect and ("another training" in reason or "LossNotFinite" in reason)
            yield Skipped("ladder", rung.name, device.type, f"{reason} {rung.suspect}" if wrong else reason)
        else:
            parts[rung.name] = lambda training=training: train_part(training, steps)
    if steps:  # workers that were broken off prepare a few batches more: not in the next side's time
        parts["pause"] = lambda: time.sleep(0.1)
    for name, onednn in ((FLOOR, False), (FLOOR_ONEDNN, True)):
        if not (onednn and (device.type != "cpu" or onednn_missing())):
            products = matrix_products(device, 128, hidden, onednn)
            parts[name] = lambda products=products: repeat(products, count)
    work = {"images": 128 * steps if steps else TRAIN_IMAGES, "steps": count}
    sizes = {"batch_size": 128, "hidden": hidden}
    for name, seconds in in_turn(parts, rounds=rounds, warmup=0, device=device, progress=progress):
        if name != "pause":
            yield Timed("ladder", name, device.type, 1, seconds, sizes, work, first.get(name), proofs.get(name, {}))


def matrix_products(device: torch.device, batch_size: int = 128, hidden: int = 128, onednn=False) -> Callable:
    """The matrix products of one training step and nothing else: the floor under every step in float32.

    With `onednn` the two large ones are oneDNN's instead of those of `torch.mm` (see mnist_gpu.faster.written_out).
    """

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, device=device)

    images, activations, logits = rand(batch_size, 784), rand(hidden, batch_size), rand(10, batch_size)
    weights_1, weights_2 = rand(hidden, 784), rand(10, hidden)
    product = onednn_product if onednn else lambda a, b: a @ b.t()

    def products():
        product(weights_1, images)
        weights_2 @ activations
        logits @ activations.t()
        weights_2.t() @ logits
        product(activations, images.t())

    return products


def both_widths(device: torch.device, *, steps: int | None = None, **options) -> Iterator[Timed | Skipped]:
    """All rungs, and those of reduced precision on a wide network too, where the products take the time."""
    yield from measure_ladder(device, steps=steps, **options)
    yield from measure_ladder(device, names=WIDE, hidden=2048, steps=50, **options)


def pairs(names: list[str]) -> list[tuple[str, str]]:
    """Every rung with the textbook, and what comes near the floor with it."""
    floors = [(PLAIN, FLOOR), ("backward written out", FLOOR), ("written out, oneDNN", FLOOR_ONEDNN)]
    return [(TEXTBOOK, name) for name in names] + floors


def wide_pairs(names: list[str]) -> list[tuple[str, str]]:
    return [(WIDE[0], name) for name in names]


def summary(results: Results, device: str) -> list[str]:
    lines = comparisons(results, device, "ladder", pairs, hidden=128)
    return lines + comparisons(results, device, "ladder", wide_pairs, ", width 2048", hidden=2048)


SECTION = Section(both_widths, full=ROUNDS, quick=QUICK_ROUNDS | {"steps": 50}, summary=summary)
