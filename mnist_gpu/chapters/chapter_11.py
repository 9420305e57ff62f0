"""Chapter 11, Beyond one device: what processes cost each other, and a training that survives one's death."""

import ast
import itertools
import operator
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path

import psutil
import torch
from torch import distributed as dist

from mnist_gpu.faster.distributed import Group, join, make_distributed_step
from mnist_gpu.faster.ladder import sgd
from mnist_gpu.measuring.busy import watching
from mnist_gpu.measuring.commands import run_command
from mnist_gpu.measuring.exercises import MEND, WRITE, Exercise, Wrong, checker, compared, count_of, in_time, plain
from mnist_gpu.measuring.timing import alternate
from mnist_gpu.measuring.workloads import repeat
from mnist_gpu.model import make_model, parameter_count
from mnist_gpu.training import make_step


def for_torchrun() -> None:
    """Sets what the processes that a notebook starts find in their environment."""
    os.environ["OMP_NUM_THREADS"] = "1"  # one thread per process; torchrun would set it and say so
    os.environ["USE_LIBUV"] = "0" if sys.platform == "win32" else "1"  # which PyTorch for Windows is built without


def torchrun(processes: int, *arguments, restarts: int = 0) -> list[str]:
    """What the command `torchrun --standalone --nproc-per-node PROCESSES ARGUMENTS` starts."""
    options = ["--standalone", "--nproc-per-node", processes, "--max-restarts", restarts]
    return [sys.executable, "-m", "torch.distributed.run", *map(str, (*options, *arguments))]


def measured(processes: Sequence[int], batches: Sequence[int], hidden: int = 128) -> dict[int, dict]:
    """What `measure` gives with each number of processes, each in a run of its own."""
    code, found = f"from {__name__} import of_one_process; of_one_process({batches!r}, {hidden})", {}
    for n in processes:
        found[n] = ast.literal_eval(run_command(torchrun(n, "--no-python", sys.executable, "-c", code)))
    return found


# What each of the processes does


def of_one_process(batches: Sequence[int], hidden: int) -> None:
    """Measures with the others; rank 0 prints."""
    # To each the others are busy neighbours; who started them says if others are.
    with watching(say=lambda busy: None), join("cpu") as group:
        found = measure(group, batches, hidden)
    if group.rank == 0:
        print(found)


def measure(group: Group, batches: Sequence[int], hidden: int, often: int = 5) -> dict[tuple, list[float]]:
    """Raw seconds, in turn: of ("one", images), a step by one process; of ("all", images), by all, so many images each;
    of ("sent", bytes), an all-reduce."""
    one, many = make_model(hidden), make_model(hidden)
    steps = {"one": make_step(one, sgd(one)), "all": make_distributed_step(group.wrap(many), sgd(many))}
    calls, turns = {}, {}
    for images in sorted({each for batch in batches for each in (batch // group.processes, batch)}):
        batch = torch.rand(images, 1, 28, 28), torch.randint(10, (images,))
        calls |= {(who, images): partial(step, *batch) for who, step in steps.items()}
    for size in (4096, 4 * parameter_count(hidden), 2**21, 2**22):
        calls["sent", size] = partial(dist.all_reduce, torch.zeros(size // 4))
    for name, call in calls.items():
        times = often if group.rank == 0 or name[0] != "one" else 0  # the others sleep at the next barrier
        turns |= {("before", *name): dist.barrier, name: partial(repeat, call, times)}
    seconds = alternate(turns)
    return {name: [s / often for s in seconds[name]] for name in calls}


def weights_after(command: Sequence[str], *, kill: bool = False) -> dict[str, torch.Tensor]:
    """The weights that a training saves in model.pt; `kill` ends a worker when there is a first checkpoint."""
    ignored = watching(say=lambda busy: None)  # nothing is measured
    with ignored, tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        training = pool.submit(copy_context().run, run_command, command, cwd=folder)
        checkpoint = Path(folder) / "model.pt"
        while kill and not (training.done() or checkpoint.exists()):
            time.sleep(0.01)
        if kill and not training.done() and sys.platform != "win32":  # where no signal kills
            (started,) = (p for p in psutil.Process().children() if "torch.distributed.run" in p.cmdline())
            started.children()[-1].kill()
            print("(one worker killed)")
        said = training.result().splitlines()
        print("\n".join(line for line in said if line.startswith(("Resumed", "Finished", "Test"))))
        return torch.load(checkpoint, weights_only=True)["model"]


# The exercises


def send_around(answer: Callable, ranks: int) -> bool:
    """Sends chunks as the answer says. In place of numbers it keeps whose gradients were added up."""
    after = torch.eye(ranks, dtype=torch.int64).unsqueeze(1).repeat(1, ranks, 1)  # how often: [rank, chunk, whose]
    for step in range(2 * (ranks - 1)):
        before, after = after, after.clone()
        for rank in range(ranks):
            chunk = plain(answer(rank, step, ranks))
            said = f"{ranks} ranks, step {step}: rank {rank} sends chunk {chunk!r}"
            if chunk not in range(ranks):
                raise Wrong(f"{said}, but their numbers go from 0 to {ranks - 1}: take it % ranks.")
            sent, received = before[rank, chunk], after[(rank + 1) % ranks]
            received[chunk] = received[chunk] + sent if step < ranks - 1 else sent
            if received[chunk].max() > 1:
                raise Wrong(f"{said}, and the next rank has some of its gradients: they would count twice.")
            if step >= ranks - 1 and not sent.all():
                raise Wrong(f"{said}, which is no whole sum, but would replace that of the next rank.")
    for rank, chunk, _ in (after != 1).nonzero().tolist():
        raise Wrong(f"{ranks} ranks: after the last step rank {rank} does not have the sum of chunk {chunk}.")
    return True


def left_by_ddp(loss_of_rank: Callable, x: torch.Tensor, y: torch.Tensor, ranks: int) -> torch.Tensor:
    """The mean over the ranks of the gradients of what `loss_of_rank` returns, float32: an answer may divide in it."""
    gradients, counts = [], [len(part) for part in x.tensor_split(ranks)]
    for rank, (some, theirs) in enumerate(zip(x.tensor_split(ranks), y.tensor_split(ranks), strict=True)):
        weights = torch.ones(2, dtype=torch.float64, requires_grad=True)
        loss = loss_of_rank((some @ weights - theirs) ** 2, list(counts))
        said = f"Rank {rank} of {ranks}, with {count_of(len(some), 'image')}, gives {loss!r}"
        try:
            gradients += torch.autograd.grad(loss, weights)
        except (RuntimeError, TypeError, AttributeError):
            raise Wrong(f"{said}. From it no .backward() reaches the weights, and other ranks would wait.") from None
        if loss.isnan():
            raise Wrong(f"{said}. What is the mean of no losses?")
    return torch.stack(gradients).mean(0).float()


def inputs() -> list[tuple[torch.Tensor, torch.Tensor, int]]:
    """Inputs and targets of a linear model with two weights, and how many ranks share them."""
    sizes = (96, 5), (24, 4), (7, 1), (3, 5), (random.randrange(30, 90), random.randrange(2, 9))
    return [(torch.randn(n, 2).double(), torch.randn(n).double(), ranks) for n, ranks in sizes]


def smallest(n, parameters, image, latency, bandwidth, *, part=lambda b, n: -(-b // n)):
    """Images of the smallest batch that pays. Another size of the largest `part` is for a hint."""
    talk = 2 * latency + 2 * (n - 1) / n * 4 * parameters / bandwidth
    return next(b for b in itertools.count(1) if part(b, n) * image + talk < b * image)


def machines() -> Iterator[tuple]:
    """What `smallest` gets: some at random, and one on which 64 images take as long by two as by one."""
    for n in (3, 2, 8, random.randrange(4, 40)):
        speeds = (10 ** random.uniform(*ends) for ends in ((-5, -4), (-5, -3), (9, 10)))
        yield n, random.randrange(10**4, 10**6), *speeds
    yield 2, 2**20, 2**-12, 2**-9, 2.0**30


mistaken = partial(partial, left_by_ddp)  # mistaken(loss_of_rank)(x, y, ranks)
EXERCISES = (
    Exercise("11.1", WRITE, "A ring that adds up gradients", compared(
        lambda ranks: True, lambda: [(4,), (2,), (3,), (1,), (random.randrange(5, 14),)],
        given=lambda ranks: count_of(ranks, "rank"), run=partial(in_time, send_around),
    )),
    Exercise("11.2", MEND, "The mean over ranks with unequal parts", compared(
        lambda x, y, ranks: left_by_ddp(lambda losses, counts: losses.mean(), x, y, 1),  # one rank has all of them
        inputs, run=partial(in_time, left_by_ddp),
        given=lambda x, y, ranks: f"The gradient over {count_of(len(x), 'image')} on {count_of(ranks, 'rank')}",
        hints=[
            (mistaken(lambda losses, counts: losses.sum() / sum(counts)), "DDP divides by the number of ranks, too."),
            (mistaken(lambda losses, _: losses.sum()), "That is of a sum, divided by the ranks, not by the images."),
            (mistaken(lambda losses, counts: losses.sum() / max(1, len(losses))), "A small part counts too much."),
        ],
    )),
    Exercise("11.3", WRITE, "The smallest batch that pays", compared(
        smallest, machines, run=in_time,
        given=lambda n, parameters, *rest: f"n {n}, parameters {parameters:,}, "
        + ", ".join(f"{name} {x:.3g}" for name, x in zip(("image", "latency", "bandwidth"), rest, strict=True)),
        hints=[
            (lambda n, p, i, latency, link: smallest(n, p, i, latency / 2, link), "The loss is a message, too."),
            (partial(smallest, part=lambda b, n: 0), "Each process still computes its part of the batch."),
            (partial(smallest, part=operator.truediv), "The largest part takes longest: a whole number of images."),
        ],
    )),
)  # fmt: skip
check = checker(EXERCISES)
