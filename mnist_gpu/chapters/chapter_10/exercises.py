"""The exercises of chapter 10: a ring that adds up gradients, a checkpoint that survives, a mean over ranks."""

import contextlib
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from mnist_gpu.measuring.exercises import MEND, WRITE, Exercise, Wrong, checker, compared, count_of


def ring(answer: Callable) -> str:
    """10.1: sends chunks around as the answer says. In place of numbers it keeps whose gradients were added up."""
    every = [4, 2, 3, 1, random.randrange(5, 8), random.randrange(8, 14)]
    for ranks in every:
        after = torch.eye(ranks, dtype=torch.int64).unsqueeze(1).repeat(1, ranks, 1)  # how often: [rank, chunk, whose]
        for step in range(2 * (ranks - 1)):
            before, after = after, after.clone()
            chunks = [answer(rank, step, ranks) for rank in range(ranks)]
            for rank, chunk in enumerate(chunks):
                said = f"{ranks} ranks, step {step}: rank {rank} sends chunk {chunk!r}"
                if chunk not in range(ranks):
                    raise Wrong(f"{said}, but their numbers go from 0 to {ranks - 1}. Is % ranks missing?")
                draw = partial(draw_chunks, before, chunks, f"before step {step}")
                sent, received = before[rank, chunk], after[(rank + 1) % ranks]
                received[chunk] = received[chunk] + sent if step < ranks - 1 else sent
                if received[chunk].max() > 1:
                    raise Wrong(f"{said}, and the next rank has some of its gradients: they would count twice.", draw)
                if step >= ranks - 1 and not sent.all():
                    raise Wrong(f"{said}, which is no whole sum, but would replace that of the next rank.", draw)
        for rank, chunk, _ in (after != 1).nonzero().tolist():
            draw = partial(draw_chunks, after, [], "after the last step")
            raise Wrong(f"{ranks} ranks: after the last step rank {rank} does not have the sum of chunk {chunk}.", draw)
    sent = f"Each of {ranks} sends {2 * (ranks - 1) / ranks:.2f} times its gradient's bytes."
    return f"Every rank has every sum, with {', '.join(map(str, every))} ranks. {sent}"


def draw_chunks(added: torch.Tensor, sent: Sequence[int], when: str) -> None:
    """Of how many ranks the gradients are in each chunk of each rank, and which one each is about to send."""
    from mnist_gpu.measuring.drawing import grid

    counts, each = added.bool().sum(2), range(len(added))
    texts = [[f"{counts[r, c]}{' →' * (sent[r : r + 1] == [c])}" for c in each] for r in each]
    drawn = grid(counts, texts, rows=("rank", each), columns=("chunk", each), title=when, label="ranks")
    drawn._replace(says="Of how many ranks the gradients are in each chunk. With an arrow: it is sent next.").show()


def whole_at_any_moment(answer: Callable) -> str:
    """10.2: there may be an old file, of any name, and the disk may be full."""
    saves = [(name, True, False) for name in ("model.pt", "model.tmp", "model")]
    for name, old, full in (*saves, ("model.pt", False, False), ("model.pt", True, True)):
        with tempfile.TemporaryDirectory() as folder:
            save_watched(answer, Path(folder).resolve() / name, old, full)
    return (
        "At every moment the file is the whole old checkpoint or the whole new one. (Where the power may fail, the new "
        "one has to be synced to the disk before it is renamed: mnist_gpu.checks.atomic_write does that.)"
    )


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
            has = f"has {len(now):,} of {len(new):,} bytes" if now is not None else "does not exist"
            broken.append(f"{path.name} {has} for a moment")

    sys.setprofile(look)  # not settrace, which debuggers and what measures coverage use
    try:
        answer(path, partial(write_in_two_parts, new, full, path.parent))
    except OSError:
        raised = True
        if not full:
            raise
    finally:
        sys.setprofile(profiler)
    if broken:
        raise Wrong(f"{'With the disk full, ' * full}{broken[0]}: a crash then leaves that.")
    if full and not raised:
        raise Wrong("The disk is full before write is done, but the error does not reach the training.")
    left = ", ".join(sorted(file.name for file in path.parent.iterdir()))
    if not full and (left != path.name or path.read_bytes() != new):
        which = "new" if path.read_bytes() == new else "old"
        raise Wrong(f"Afterwards {path.name} is the {which} checkpoint, and the folder has: {left}.")


def write_in_two_parts(new: bytes, full: bool, folder: Path, file) -> None:
    """What `save` is given: writes to a path or an open file, until the disk is full."""
    with contextlib.nullcontext(file) if hasattr(file, "write") else open(file, "wb") as opened:
        if not Path(getattr(opened, "name", folder / "memory")).resolve().is_relative_to(folder):
            raise Wrong("write is told to write to another folder. On another disk, renaming becomes copying.")
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
            "A rank with few images counts as much as one with many.",
        ),
    ],
)
EXERCISES = (
    Exercise("10.1", WRITE, "A ring that adds up gradients", ring),
    Exercise("10.2", MEND, "A checkpoint that a crash destroys", whole_at_any_moment),
    Exercise("10.3", MEND, "The mean over ranks with unequal parts", mean_over_ranks),
)
check = checker(EXERCISES)
