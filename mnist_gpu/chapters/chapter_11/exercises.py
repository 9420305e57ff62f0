"""The exercises of chapter 11: a ring that adds up gradients, a mean over ranks."""

import random
from collections.abc import Callable, Iterator
from functools import partial

import torch

from mnist_gpu.measuring.exercises import MEND, WRITE, Exercise, Wrong, checker, compared, count_of


def ring(answer: Callable) -> str:
    """11.1: sends chunks around as the answer says. In place of numbers it keeps whose gradients were added up."""
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
        (mistaken(lambda losses, counts: losses.sum() / max(1, len(losses))), "A small part counts too much."),
    ],
)
EXERCISES = (
    Exercise("11.1", WRITE, "A ring that adds up gradients", ring),
    Exercise("11.2", MEND, "The mean over ranks with unequal parts", mean_over_ranks),
)
check = checker(EXERCISES)
