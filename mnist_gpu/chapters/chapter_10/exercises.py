"""The exercises of chapter 10: a ring that adds up gradients, a checkpoint that survives, a mean over ranks."""

import contextlib
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from mnist_gpu.measuring.exercises import MEND, WRITE, Exercise, Wrong, checker, compared, count_of


def ring(answer: Callable) -> str:
    """10.1: sends chunks around as the answer says. In place of numbers it keeps whose gradients were added up."""
    every = [4, 2, 3, 1, random.randrange(5, 14)]
    for ranks in every:
        after = torch.eye(ranks, dtype=torch.int64).unsqueeze(1).repeat(1, ranks, 1)  # how often: [rank, chunk, whose]
        for step in range(2 * (ranks - 1)):
            before, after = after, after.clone()
            for rank in range(ranks):
                chunk = answer(rank, step, ranks)
                said = f"{ranks} ranks, step {step}: rank {rank} sends chunk {chunk!r}"
                if chunk not in range(ranks):
                    raise Wrong(f"{said}, but their numbers go from 0 to {ranks - 1}. Is % ranks missing?")
                sent, received = before[rank, chunk], after[(rank + 1) % ranks]
                received[chunk] = received[chunk] + sent if step < ranks - 1 else sent
                if received[chunk].max() > 1:
                    raise Wrong(f"{said}, and the next rank has some of its gradients: they would count twice.")
                if step >= ranks - 1 and not sent.all():
                    raise Wrong(f"{said}, which is no whole sum, but would replace that of the next rank.")
        for rank, chunk, _ in (after != 1).nonzero().tolist():
            raise Wrong(f"{ranks} ranks: after the last step rank {rank} does not have the sum of chunk {chunk}.")
    sent = f"Each of {ranks} sends {2 * (ranks - 1) / ranks:.2f} times its gradient's bytes."
    return f"Every rank has every sum, with {', '.join(map(str, every))} ranks. {sent}"


def whole_at_any_moment(answer: Callable) -> str:
    """10.2: there may be an old file, of any name, and the disk may be full."""
    saves = [(name, True, False) for name in ("model.pt", "model.tmp", "model")]
    for name, old, full in (*saves, ("model.pt", False, False), ("model.pt", True, True)):
        with tempfile.TemporaryDirectory() as folder:
            save_watched(answer, Path(folder).resolve() / name, old, full)
    return "At every moment the file is the whole old checkpoint or the whole new one."


def save_watched(answer: Callable, path: Path, old: bool, full: bool) -> None:
    """Saves, and looks at the file before and after every call of a function, in the answer and in what it calls.

    A crash leaves the file as it is at that moment, and no handler runs after it. So nothing has to crash.
    """
    before, new = random.randbytes(900) if old else None, random.randbytes(1500)
    if old:
        path.write_bytes(before)
    broken, raised, profiler = [], False, sys.getprofile()

    def look(*_) -> None:
        now = path.read_bytes() if path.exists() else None
        if now not in (before, new):
            broken.append("does not exist" if now is None else f"has {len(now):,} of {len(new):,} bytes")

    sys.setprofile(look)  # not settrace, which debuggers and what measures coverage use
    try:
        answer(path, partial(write_in_two_parts, new, full))
    except OSError:
        raised = True
        if not full:
            raise
    finally:
        sys.setprofile(profiler)
    if broken:
        disk = "With the disk full, " if full else ""
        raise Wrong(f"{disk}{path.name} {broken[0]} for a moment: a crash then leaves that.")
    if full and not raised:
        raise Wrong("The disk is full before write is done, but the error does not reach the training.")
    left = ", ".join(sorted(file.name for file in path.parent.iterdir()))
    if not full and (left != path.name or path.read_bytes() != new):
        which = "new" if path.read_bytes() == new else "old"
        raise Wrong(f"Afterwards {path.name} is the {which} checkpoint, and the folder has: {left}.")


def write_in_two_parts(new: bytes, full: bool, file) -> None:
    """What `save` is given: writes to a path or an open file, until the disk is full."""
    with contextlib.nullcontext(file) if hasattr(file, "write") else open(file, "wb") as opened:
        opened.write(new[:700])
        opened.flush()
        if full:
            raise OSError(28, "No space left on device")
        opened.write(new[700:])


def batches_over_ranks() -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    """Inputs and targets of a linear model with two weights, and how many ranks share them."""
    for images, ranks in ((96, 5), (24, 4), (7, 1), (3, 5), (random.randrange(30, 90), random.randrange(2, 9))):
        yield torch.randn(images, 2, dtype=torch.float64), torch.randn(images, dtype=torch.float64), ranks


def left_by_ddp(loss_of_rank: Callable, x: torch.Tensor, y: torch.Tensor, ranks: int) -> torch.Tensor:
    """The mean over the ranks of the gradients of what `loss_of_rank` returns."""
    gradients, counts = [], [len(part) for part in x.tensor_split(ranks)]
    for rank, (some, theirs) in enumerate(zip(x.tensor_split(ranks), y.tensor_split(ranks), strict=True)):
        weights = torch.ones(2, dtype=torch.float64, requires_grad=True)
        loss = loss_of_rank((some @ weights - theirs) ** 2, list(counts))
        said = f"Rank {rank} of {ranks}, with {count_of(len(some), 'image')}, gives {loss!r}"
        if not isinstance(loss, torch.Tensor) or not loss.requires_grad:
            raise Wrong(f"{said}, which has no .backward(): the other ranks would wait for its gradients.")
        if loss.isnan().any():
            raise Wrong(f"{said}. What is the mean of no losses?")
        gradients.append(torch.autograd.grad(loss, weights)[0])
    return torch.stack(gradients).mean(0)


mistaken = partial(partial, left_by_ddp)  # mistaken(loss_of_rank)(x, y, ranks)
mean_over_ranks = compared(
    lambda x, y, ranks: left_by_ddp(lambda losses, counts: losses.mean(), x, y, 1),  # one rank has all of them
    batches_over_ranks,
    given=lambda x, y, ranks: f"The gradient over {count_of(len(x), 'image')} on {count_of(ranks, 'rank')}",
    run=left_by_ddp,
    hints=[
        (mistaken(lambda losses, counts: losses.sum() / sum(counts)), "DDP divides by the number of ranks, too."),
        (mistaken(lambda losses, counts: losses.sum()), "That is of a sum, divided by the ranks, not by the images."),
        (
            mistaken(lambda losses, counts: losses.sum() / max(1, len(losses))),
            "A small part counts too much.",
        ),
    ],
)
EXERCISES = (
    Exercise("10.1", WRITE, "A ring that adds up gradients", ring),
    Exercise("10.2", MEND, "A checkpoint that a crash destroys", whole_at_any_moment),
    Exercise("10.3", MEND, "The mean over ranks with unequal parts", mean_over_ranks),
)
check = checker(EXERCISES)
