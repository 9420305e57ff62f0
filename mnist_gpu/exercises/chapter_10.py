"""Checks of chapter 10's exercises: a ring that adds up gradients, a checkpoint that survives, a mean over ranks."""

import contextlib
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

from mnist_gpu.exercises.verdicts import MEND, WRITE, Wrong, count_of, exercise


@exercise("10.1", WRITE, "A ring that adds up gradients")
def ring(answer: Callable) -> str:
    every = [4, 2, 3, 1, random.randrange(5, 8), random.randrange(8, 14)]
    for ranks in every:
        # In place of numbers: of each rank, in each of its chunks, how often each rank's gradient has been added up.
        held = torch.eye(ranks, dtype=torch.int64).unsqueeze(1).repeat(1, ranks, 1)  # [rank, chunk, whose]
        for step in range(2 * (ranks - 1)):
            chunks, after = [answer(rank, step, ranks) for rank in range(ranks)], held.clone()
            for rank, chunk in enumerate(chunks):
                if reason := _send(held, after, rank, chunk, step):
                    raise Wrong(f"{ranks} ranks, {reason}", partial(draw_chunks, held, chunks, f"before step {step}"))
            held = after
        for rank, chunk, _ in (held != 1).nonzero().tolist():
            draw = partial(draw_chunks, held, [], "after the last step")
            raise Wrong(f"{ranks} ranks: after the last step rank {rank} does not have the sum of chunk {chunk}.", draw)
    return (
        f"Every rank has every sum, with {', '.join(map(str, every))} ranks. Each of {ranks} sends {2 * (ranks - 1)} "
        f"chunks, and its gradient has {ranks}: it sends {2 * (ranks - 1) / ranks:.2f} times its gradient's bytes."
    )


def _send(held: torch.Tensor, after: torch.Tensor, rank: int, chunk: object, step: int) -> str | None:
    """Sends a chunk that is `held` before the step to the next rank, as of `after` the step; or says why not."""
    ranks, to = len(held), (rank + 1) % len(held)
    if isinstance(chunk, bool) or not isinstance(chunk, int):
        return f"step {step}: for rank {rank} it says {chunk!r}, but a chunk's number is a whole one."
    if not 0 <= chunk < ranks:
        return f"step {step}: rank {rank} sends chunk {chunk}, but the last is {ranks - 1}. Is % ranks missing?"
    sent, given = held[rank, chunk], f"step {step}: rank {rank} sends chunk {chunk}"
    if step < ranks - 1:
        after[to, chunk] += sent
        for whose in (after[to, chunk] > 1).nonzero().flatten().tolist():
            return f"{given}, but in rank {to}'s the gradient of rank {whose} is already: it would count twice."
    elif not sent.all():
        has = count_of(int(sent.sum()), "rank")
        return f"{given}, with the gradients of {has} in it. It replaces rank {to}'s, so it must be a whole sum."
    else:
        after[to, chunk] = sent
    return None


def draw_chunks(held: torch.Tensor, sent: Sequence[int], title: str) -> None:
    """Of how many ranks the gradients are in each chunk of each rank. What each is about to send has a frame."""
    counts = held.bool().sum(2)
    axis = plt.subplots(figsize=(1.5 + 0.6 * len(held), 1 + 0.4 * len(held)))[1]
    axis.imshow(counts.numpy(), cmap="Blues", vmin=0, vmax=1.6 * len(held), aspect="auto")
    for (rank, chunk), count in zip(torch.ones_like(counts).nonzero().tolist(), counts.flatten().tolist(), strict=True):
        framed = {"facecolor": "none"} if sent[rank : rank + 1] == [chunk] else None
        axis.text(chunk, rank, count, ha="center", va="center", bbox=framed)
    axis.set(xlabel="chunk", ylabel="rank", xticks=range(len(held)), yticks=range(len(held)))
    axis.set_title(f"Ranks whose gradients are in it, {title}", fontsize=10)
    axis.grid(False)
    plt.show()


@exercise("10.2", MEND, "A checkpoint that a crash destroys")
def whole_at_any_moment(answer: Callable) -> str:
    saves = [(name, True, False) for name in ("model.pt", "model.tmp", "model")]
    for name, old, full in (*saves, ("model.pt", False, False), ("model.pt", True, True)):
        with tempfile.TemporaryDirectory() as folder:
            _save_watched(answer, Path(folder).resolve() / name, old, full)
    return (
        "At every moment the file is the whole old checkpoint or the whole new one. (Where the power may fail, the new "
        "one has to be synced to the disk before it is renamed: mnist_gpu.checks.atomic_write does that.)"
    )


def _save_watched(answer: Callable, path: Path, old: bool, full: bool) -> None:
    """Saves, and looks at the file all the time. `old`: there is a checkpoint before. `full`: the disk gets full.

    A crash leaves the file as it is at that moment, and no handler runs after it. So nothing has to crash: the file is
    looked at before and after every call of a function, in the answer and in what it calls.
    """
    before, new = random.randbytes(900) if old else None, random.randbytes(1500)
    broken, written = [], []  # the answer's line and what the file was; where write() has written
    if old:
        path.write_bytes(before)

    def look(frame, event, argument) -> None:
        now = path.read_bytes() if path.exists() else None
        if now not in (before, new) and not broken:
            while frame.f_back and frame.f_code is not getattr(answer, "__code__", None):
                frame = frame.f_back
            broken.append((frame.f_lineno, now))

    def write(file) -> None:
        with contextlib.nullcontext(file) if hasattr(file, "write") else open(file, "wb") as opened:
            written.append(Path(getattr(opened, "name", path.with_name("memory"))).resolve())
            opened.write(new[:700])
            opened.flush()
            if full:
                raise OSError(28, "No space left on device")
            opened.write(new[700:])

    raised, profiler = False, sys.getprofile()
    sys.setprofile(look)  # not settrace, which debuggers and what measures coverage use
    try:
        answer(path, write)
    except Exception:
        raised = True
        if not full and not broken:
            raise
    finally:
        sys.setprofile(profiler)
    if not written:
        raise Wrong("write is not called, so nothing is saved.")
    if not all(path.parent in file.parents for file in written):
        raise Wrong("write is told to write to another folder. If that is on another disk, renaming becomes copying.")
    if broken:
        raise Wrong(_broken(*broken[0], path, path in written, full, len(new)))
    if full and not raised:
        raise Wrong("The disk is full before write is done, but the error does not reach the training.")
    if not full and path.read_bytes() != new:
        raise Wrong(f"Afterwards {path.name} is still the old checkpoint.")
    if not full and (left := [file.name for file in path.parent.iterdir() if file != path]):
        raise Wrong(f"Afterwards {', '.join(left)} is left in the folder.")


def _broken(line: int, now: bytes | None, path: Path, itself: bool, full: bool, size: int) -> str:
    given, leaves = f"In line {line} of its cell", f"a crash then leaves {len(now or ''):,} of {size:,} bytes"
    if now is None:
        return f"{given} there is a moment without any {path.name}: a crash then leaves no checkpoint."
    if itself:
        return f"{given} write is told to write to {path.name} itself: {leaves}."
    if full:
        return f"{given} it goes on, though the disk was full before write was done: {leaves}."
    return f"{given} {path.name} is overwritten, which takes time: {leaves}."


@exercise("10.3", MEND, "The mean over ranks with unequal parts")
def mean_over_ranks(answer: Callable) -> str:
    cases = [(96, 5), (24, 4), (7, 1), (3, 5), (random.randrange(30, 90), random.randrange(2, 9))]
    for images, ranks in cases:
        weights = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
        x, labels = torch.randn(images, 6, dtype=torch.float64), torch.randint(4, (images,))
        parts = list(zip(x.tensor_split(ranks), labels.tensor_split(ranks), strict=True))
        counts, given = [len(part[0]) for part in parts], f"{count_of(images, 'image')} over {count_of(ranks, 'rank')}"
        handed_in, means = [], []
        for rank, (some, theirs) in enumerate(parts):
            losses = F.cross_entropy(some @ weights, theirs, reduction="none")
            loss = answer(losses, list(counts))
            handed_in.append(_gradient(loss, weights, f"{given}: rank {rank}, with {count_of(len(some), 'image')},"))
            means.append(torch.autograd.grad(F.cross_entropy(some @ weights, theirs), weights)[0])
        right = torch.autograd.grad(F.cross_entropy(x @ weights, labels), weights)[0]
        near = partial(torch.allclose, torch.stack(handed_in).mean(0), rtol=1e-9, atol=1e-12)  # what DDP leaves
        mistakes = (
            (right / ranks, f"the gradient is {ranks} times too small. DDP divides by the number of ranks, too."),
            (right * images, f"the gradient is {images} times too large: that of the sum of all losses."),
            (
                right * images / ranks,
                "the gradient is that of the losses' sum, divided by the ranks, not by the images.",
            ),
            (torch.stack(means).mean(0), f"{counts[-1]} images count as much as another rank's {counts[0]}."),
        )
        if not near(right):
            why = next((why for other, why in mistakes if near(other)), "that is not the mean over all images.")
            raise Wrong(f"{given}: {why}")
    return f"What DDP leaves is the gradient of the batch's mean loss, for {len(cases)} batches over ranks."


def _gradient(loss: object, weights: torch.Tensor, given: str) -> torch.Tensor:
    """What a rank hands in to DDP."""
    if not isinstance(loss, torch.Tensor) or not loss.requires_grad:
        raise Wrong(f"{given} gives {loss!r}, which has no .backward(): the other ranks would wait for its gradients.")
    if loss.numel() != 1:
        raise Wrong(f"{given} gives {list(loss.shape)} numbers, but .backward() needs a single one.")
    if loss.isnan():
        raise Wrong(f"{given} gives nan, and so would be every loss that is printed. What is the mean of no losses?")
    return torch.autograd.grad(loss, weights)[0]
