"""Checks of chapter 07's exercises: a rung that proves its losses, a recorded step, the epochs until a rung pays."""

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, starmap

import torch

from mnist_gpu.device import pick_device
from mnist_gpu.faster.ladder import Training, plain, sgd
from mnist_gpu.faster.whole_epoch import WholeEpoch
from mnist_gpu.measuring.drawing import OWN, PREDICTED, Series, lines
from mnist_gpu.measuring.exercises import MEND, PREDICT, WRITE, Exercise, Wrong, checker, compared
from mnist_gpu.measuring.timing import alternate, compare
from mnist_gpu.measuring.workloads import train_part
from mnist_gpu.model import make_model
from mnist_gpu.training import make_step

STEPS = 24
TOLERANCE = 0.02  # nats, as of the ladder's rungs in float32
ROUNDING = 1e-4  # nats: more than two programs differ by in their first steps, less than another update does


def own_rung(answer: Callable) -> str:
    """The losses of two trainings, one of them a whole epoch for its last batch; then both rungs are timed."""
    device = pick_device()
    worst = max(_difference(answer, device, 128, STEPS), _difference(answer, device, random.randrange(20, 60), None))
    sides = {"the plain loop": plain(device), "your rung": Training(*answer(device, 128))}
    found = compare(alternate({n: partial(train_part, t, STEPS) for n, t in sides.items()}, device=device), *sides)
    return f"The losses differ by at most {worst:.0e}. {str(found)[0].upper()}{str(found)[1:]}"


def _difference(answer: Callable, device: torch.device, hidden: int, steps: int | None) -> float:
    """By how much its losses differ from the plain loop's at most. Raises Wrong where it is another training."""
    its = answer(device, hidden)
    if not isinstance(its, tuple) or len(its) != 3:
        raise Wrong(f"It gives a {type(its).__name__}, but should give Training(model, step, batches).")
    expected = train_part(plain(device, hidden), steps).losses
    losses = train_part(Training(*its), steps or len(expected) + 1).losses
    if len(losses) != len(expected):
        raise Wrong(f"Its epoch has {len(losses)} steps instead of {len(expected)}, the last with 96 images.")
    differences = [abs(a - b) for a, b in zip(losses, expected, strict=True)]
    if all(d <= TOLERANCE for d in differences):  # false for NaN, too
        return max(differences)
    first = next(i for i, d in enumerate(differences) if not d <= ROUNDING)
    both = {"the plain loop": expected[:12], "your rung": losses[:12]}
    curves = [Series(name, OWN, range(1, 13), found) for name, found in both.items()]
    raise Wrong(
        f"At width {hidden} it is another training: its losses differ by up to {max(differences):.2g}, beginning with "
        f"step {first + 1}. {_cause(first, answer(device, hidden), plain(device, hidden))}",
        lambda: lines(curves, xlabel="step", ylabel="loss (nats)", log="").show(),
    )


def _cause(first: int, its: Training, mine: Training) -> str:
    """What may be the matter with a rung whose losses differ from this step on, counted from 0."""
    if first == 1:
        return "The first loss is right, and the first update is not: the learning rate is 0.01."
    if first > 1:
        return "The first update is right, later ones are not: the momentum is 0.9, and gradients begin at zero again."
    if not all(map(torch.equal, its[0].parameters(), mine.model.parameters())):
        return "It does not begin with the weights that make_model(hidden) gives: another seed, or another width?"
    if not isinstance(its[2], WholeEpoch) and not torch.equal(next(iter(its[2]))[1], next(iter(mine.batches))[1]):
        return "Its first batch has other images: the order's seed is 0, the batch size 128."
    return "It begins with the right weights: other pixels than from -1 to 1, or another loss than the mean?"


class Recording:
    """Stands in for a CUDA graph on any device: a replay is the step itself, on the tensors that were recorded.

    It looks at what it is told to do, and raises Wrong where a graph would silently do something else.
    """

    def __init__(self, plain_step: Callable):
        self.plain_step, self.trained, self.at, self.batch = plain_step, 0, None, None

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.at and len(images) == len(self.at[0]):
            raise Wrong("A batch as large as the recorded one took the plain step: replay it.")
        self.trained += 1
        return self.plain_step(images, labels)

    def record(self, step: Callable, images: torch.Tensor, labels: torch.Tensor) -> tuple[Callable, torch.Tensor]:
        if self.at:
            raise Wrong("It records a second time. Recording costs more than a step: once is enough, before the first.")
        self.at, self.loss = (images, labels), torch.full((), torch.nan, device=images.device)
        return self.replay, self.loss

    def replay(self) -> None:
        for name, given, kept in zip(("images", "labels"), self.batch, self.at, strict=True):
            if len(given) != len(kept):
                raise Wrong(
                    f"The recording is of {len(kept)} {name}, the batch of {len(given)}: that needs the plain step."
                )
            if not torch.equal(given, kept):
                raise Wrong(f"It is trained on {name} of another batch: the recorded tensor still has those.")
        self.trained += 1
        self.loss.copy_(self.plain_step(*self.at))


def plain_losses(batches: Sequence[tuple]) -> torch.Tensor:
    model = make_model(16, device=batches[0][0].device)
    return torch.stack(list(starmap(make_step(model, sgd(model)), batches)))


def recorded_losses(answer: Callable, batches: Sequence[tuple]) -> torch.Tensor:
    """The losses of the answer's step. Raises Wrong where a graph would do something else."""
    model = make_model(16, device=batches[0][0].device)
    recording = Recording(make_step(model, sgd(model)))
    losses, given = [], copy.deepcopy(batches)
    step = answer(recording.step, recording.record, *given[0])
    for batch, recording.batch in zip(given, batches, strict=True):
        recording.trained = 0
        losses.append(step(*batch))
        if recording.trained != 1:
            raise Wrong(f"A batch of {len(batch[0])} images was trained on {recording.trained} times.")
    if not all(map(torch.equal, chain(*given), chain(*batches))):
        raise Wrong("The first batch has changed: a recording needs tensors of its own to copy the others into.")
    found = torch.stack(losses)
    if len({loss.data_ptr() for loss in losses}) < len(losses):
        raise Wrong("In the end all losses are the last one: every replay leaves its loss in the same tensor.")
    return found


def several_sizes() -> Iterator[tuple]:
    for _ in range(4):
        n = random.randrange(8, 30)
        sizes = [n, n, n, random.randrange(2, n), n, n + random.randrange(1, 9), n]
        batches = [(torch.rand(n, 1, 28, 28), torch.randint(10, (n,))) for n in sizes]
        yield ([(images.to(pick_device()), labels.to(pick_device())) for images, labels in batches],)


def some_rungs() -> list[tuple[int, int, int]]:
    """Milliseconds of a first use, of an epoch, and of an epoch of the plain loop."""
    found = [(random.randrange(100, 20_000), random.randrange(50, 400), random.randrange(50, 400)) for _ in range(20)]
    return [*found, (3000, 100, 150), (3001, 100, 150), (0, 100, 150), (3000, 150, 150), (3000, 151, 150)]


def draw_totals(first_use: int, own: int, other: int, n: object) -> None:
    """What both took after so many epochs."""
    epochs = range(0, 2 * n + 2, max(1, n // 10)) if isinstance(n, int) and n > 0 else range(0, 101, 10)
    totals = {"first use and epochs": [first_use + i * own for i in epochs], "plain": [i * other for i in epochs]}
    series = [Series(name, PREDICTED, epochs, ms) for name, ms in totals.items()]
    lines(series, xlabel="epochs", ylabel="ms in all", log="").show()


EXERCISES = (
    Exercise("07.1", WRITE, "A rung of your own", own_rung),
    Exercise("07.2", MEND, "A recorded step", compared(
        plain_losses, several_sizes, run=recorded_losses,
        given=lambda batches: f"Batches of {', '.join(str(len(labels)) for _, labels in batches)} images",
    )),
    Exercise("07.3", PREDICT, "After how many epochs does it pay?", compared(
        lambda first, own, other: max(1, -(-first // (other - own))) if own < other else None,
        some_rungs, draw=draw_totals,
        given=lambda first, own, other: f"First use {first:,} ms, then {own} ms per epoch against {other} ms",
        hints=[
            (lambda first, own, other: max(1, first // max(1, other - own)), "By then it has not caught up."),
            (lambda first, own, other: max(1, -(-first // other)), "An epoch gains the difference of the two."),
        ],
        why=lambda first, own, other, n: (
            "At least one epoch is trained." if n == 0 else f"An epoch gains {other - own} ms."
        ),
    )),
)  # fmt: skip
check = checker(EXERCISES)
