"""The same training in float64, where it agrees to about 1e-12 over an epoch by any number of processes."""

import json
import multiprocessing
import os
from pathlib import Path
from typing import NamedTuple

import torch

from mnist_gpu.data import make_batches
from mnist_gpu.faster.distributed import join, make_distributed_step
from mnist_gpu.model import make_model
from mnist_gpu.training import make_step, train


class Case(NamedTuple):
    kind: str
    batch_size: int
    images: int = 10_000


CASES = {
    "batches of 127": Case("device", 127, 60_000),  # divides by nothing; the last batch of a pass has 56 images
    # One image is left to the last batch, so that of several ranks some have none.
    "a rank without images": Case("device", 3333),
    "a rank without images, dataloader": Case("dataloader", 3333),
}


def one_rank(path: Path, rank: int, processes: int, port: int) -> None:
    """What every one of the `processes` runs; rank 0 writes the losses to `path`."""
    place = {"RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    torch.set_num_threads(1)
    losses = {}
    with join("cpu") as group:
        for name, case in CASES.items():
            batches = make_batches(case.kind, case.images == 60_000, case.batch_size, part=(rank, processes))
            model = make_model(32).double()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            step = (make_distributed_step if group.processes > 1 else make_step)(group.wrap(model), optimizer)
            in_float64 = ((images.double(), labels) for images, labels in batches)
            (epoch,) = train(model, step, in_float64, log=lambda *line: None)
            losses[name] = epoch.losses
        if group.rank == 0:
            path.write_text(json.dumps(losses), encoding="utf-8")


def losses_of(path: Path, processes: int, port: int) -> dict[str, list[float]]:
    """The losses of CASES, batch by batch, by that many processes."""
    context = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")  # no import of PyTorch anew
    ranks = [context.Process(target=one_rank, args=(path, rank, processes, port)) for rank in range(processes)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(240)
    assert [rank.exitcode for rank in ranks] == [0] * processes
    return json.loads(path.read_text(encoding="utf-8"))
