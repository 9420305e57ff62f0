"""What the batches cost: every data pipeline alone, without training."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator

import torch

from mnist_gpu.batches import PIPELINES, make_batches
from mnist_gpu.measuring.results import Results, Timed
from mnist_gpu.measuring.sections.section import ROUNDS, Section, comparisons
from mnist_gpu.measuring.timing import in_turn
from mnist_gpu.measuring.workloads import endless


def measure_pipelines(
    device: torch.device, *, batches=100, rounds=10, workers=(2,), progress: Callable = iter
) -> Iterator[Timed]:
    """What it costs to make batches of 128 without training on them: `batches` of every pipeline, one thread."""
    sides = {kind: make_batches(kind, device=device) for kind in PIPELINES}
    for kind in ("dataloader", "memory"):  # pinning changes nothing on a CPU; measured all the same, to show it
        sides[f"{kind}, pinned"] = make_batches(kind, device=device, pin_memory=True)
    for n in workers:
        sides[f"dataloader, {n} workers"] = make_batches("dataloader", device=device, workers=n)

    def one_part(side):
        # Slices of endless passes. Workers begin each with four batches prepared ahead: 4 % of 100, 8 % of 50.
        stream = endless(side)
        return lambda: [None for _ in itertools.islice(stream, batches)]

    parts = {name: one_part(side) for name, side in sides.items()}
    pause = {"pause": lambda: time.sleep(0.1)}  # or the workers would prepare those four in the next side's time
    for name, seconds in in_turn(parts | pause, threads=1, rounds=rounds, device=device, progress=progress):
        if name in sides:
            yield Timed("pipelines", name, device.type, 1, seconds, {"batch_size": 128}, {"images": 128 * batches})


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Every pipeline with the textbook's; a pinned one with the same unpinned."""
    return [(name.removesuffix(", pinned") if "pinned" in name else "dataloader", name) for name in names]


def summary(results: Results, device: str) -> list[str]:
    return comparisons(results, device, "pipelines", pairs)


SECTION = Section(measure_pipelines, full=ROUNDS | {"batches": 100}, quick=ROUNDS | {"batches": 50}, summary=summary)
