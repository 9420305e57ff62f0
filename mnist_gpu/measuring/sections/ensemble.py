"""Many small networks trained at once, against one."""

from collections.abc import Callable, Iterator

import torch

from mnist_gpu.batches import make_batches
from mnist_gpu.faster.ensemble import make_ensemble_step
from mnist_gpu.faster.ladder import sgd
from mnist_gpu.measuring.results import Timed
from mnist_gpu.measuring.sections.section import QUICK_ROUNDS, ROUNDS, Section
from mnist_gpu.measuring.timing import in_turn
from mnist_gpu.measuring.workloads import repeat
from mnist_gpu.model import make_model
from mnist_gpu.training import make_step


def measure_ensemble(
    device: torch.device, *, counts=(1, 2, 4, 8, 16, 32), steps=20, rounds=10, progress: Callable = iter
) -> Iterator[Timed]:
    """Many networks trained at once on the same batches (mnist_gpu.faster.ensemble), against one by the plain step."""
    batch = next(iter(make_batches("device", device=device)))
    model = make_model(device=device)
    calls = {0: make_step(model, sgd(model))}  # the plain step
    for n in counts:
        calls[n] = make_ensemble_step([make_model(seed=i, device=device) for i in range(n)])
    sides = {n: lambda step=step: repeat(lambda: step(*batch), steps) for n, step in calls.items()}
    for n, seconds in in_turn(sides, threads=1, rounds=rounds, device=device, progress=progress):
        name = "at once" if n else "plain step"
        work = {"images": 128 * steps * max(1, n), "steps": steps, "networks": max(1, n)}
        yield Timed("ensemble", name, device.type, 1, seconds, {"networks": max(1, n)}, work)


SECTION = Section(measure_ensemble, full=ROUNDS, quick=QUICK_ROUNDS)
