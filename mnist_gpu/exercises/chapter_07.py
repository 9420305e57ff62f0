"""Checks of chapter 07's exercises: a rung that proves its losses, a recorded step, the epochs until a rung pays."""

import random
from collections.abc import Callable, Sequence
from functools import partial

import torch

from mnist_gpu.device import pick_device
from mnist_gpu.exercises.verdicts import MEND, PREDICT, WRITE, Wrong, count_of, exercise, sentence
from mnist_gpu.faster.ladder import Training, plain, sgd
from mnist_gpu.faster.whole_epoch import WholeEpoch
from mnist_gpu.measuring import plots
from mnist_gpu.measuring.timing import alternate, compare
from mnist_gpu.measuring.workloads import train_part
from mnist_gpu.model import make_model
from mnist_gpu.training import make_step

STEPS = 24
TOLERANCE = 0.02  # nats, as of the ladder's rungs in float32
ROUNDING = 1e-4  # nats: more than two programs differ by in their first steps, less than another update does


@exercise("07.1", WRITE, "A rung of your own")
def own_rung(answer: Callable) -> str:
    device = pick_device()
    sides, worst = _same_losses(answer, device, 128, STEPS)
    _, worst_of_epoch = _same_losses(answer, device, random.randrange(20, 60), None)  # for its last batch
    found = compare(alternate({n: partial(train_part, t, STEPS) for n, t in sides.items()}, device=device), *sides)
    return f"The losses differ by at most {max(worst, worst_of_epoch):.0e}. {sentence(found)}"


def _same_losses(
    answer: Callable, device: torch.device, hidden: int, steps: int | None
) -> tuple[dict[str, Training], float]:
    """Both trainings after so many steps, and by how much their losses differed. Raises Wrong where it is too much."""
    sides = {"the plain loop": plain(device, hidden), "your rung": _made(answer, device, hidden)}
    expected = train_part(sides["the plain loop"], steps).losses
    losses = train_part(sides["your rung"], steps or len(expected) + 1).losses
    if len(losses) != len(expected):
        raise Wrong(f"Its epoch has {len(losses)} steps instead of {len(expected)}, the last with 96 images.")
    differences = [abs(a - b) for a, b in zip(losses, expected, strict=True)]
    if all(d <= TOLERANCE for d in differences):  # false for NaN, too
        return sides, max(differences)
    first = next(i for i, d in enumerate(differences) if not d <= ROUNDING)
    curves = {name: (range(1, 13), found[:12]) for name, found in zip(sides, (expected, losses), strict=True)}
    raise Wrong(
        f"At width {hidden} it is another training: its losses differ by up to {max(differences):.2g}, "
        f"beginning with step {first + 1}. {_suspect(first, answer, device, hidden)}",
        partial(plots.lines, curves, xlabel="step", ylabel="loss (nats)", log=""),
    )


def _made(answer: Callable, device: torch.device, hidden: int) -> Training:
    training = answer(device, hidden)
    if not isinstance(training, tuple) or len(training) != 3:
        raise Wrong(f"It gives a {type(training).__name__}, but should give Training(model, step, batches).")
    return Training(*training)


def _suspect(first: int, answer: Callable, device: torch.device, hidden: int) -> str:
    """What may be the matter with a rung whose losses differ from this step on, counted from 0."""
    if first == 1:
        return "The first loss is right, and the first update is not: the learning rate is 0.01."
    if first > 1:
        return (
            "The first update is right, and later ones are not: the momentum is 0.9, and gradients begin at zero again."
        )
    mine, its = plain(device, hidden), _made(answer, device, hidden)
    if not all(map(torch.equal, mine.model.parameters(), its.model.parameters())):
        return "It does not begin with the weights that make_model(hidden) gives: another seed, or another width?"
    if isinstance(its.batches, WholeEpoch):
        return "The weights it begins with are the right ones."
    (images, labels), (right, right_labels) = next(iter(its.batches)), next(iter(mine.batches))
    if not torch.equal(labels, right_labels):
        return "Its first batch has other images: the order's seed is 0, the batch size 128."
    if not torch.allclose(images.float(), right, atol=1e-3):
        return "Its first batch has the right images, but other pixels: they go from -1 to 1."
    return "Weights and images are the right ones: less precision, or another loss than the mean?"


class Recording:
    """Stands in for a CUDA graph on any device: a replay is the step itself, on the tensors that were recorded.

    It looks at what it is told to do, and raises Wrong where a graph would silently do something else.
    """

    def __init__(self, step: Callable):
        self.plain_step = step
        self.number = self.steps = self.recorded = 0
        self.batch = None  # that is to be trained on

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        if self.recorded and len(images) == len(self.at[0]):
            raise Wrong(f"Batch {self.number} is as large as the recorded one, and took the plain step: replay it.")
        return self.plain_step(images, labels)

    def record(self, step: Callable, images: torch.Tensor, labels: torch.Tensor) -> tuple[Callable, torch.Tensor]:
        self.recorded += 1
        if self.recorded > 1:
            raise Wrong("It records a second time. Recording costs more than a step: once is enough, before the first.")
        self.at, self.loss = (images, labels), torch.full((), torch.nan, device=images.device)
        return self.replay, self.loss

    def replay(self) -> None:
        self.steps += 1
        (images, labels), sizes = self.batch, f"batch {self.number} has {len(self.batch[0])} images"
        if len(images) != len(self.at[0]):
            raise Wrong(f"The recording is of {len(self.at[0])} images, and {sizes}: that one needs the plain step.")
        for name, given, recorded in (("images", images, self.at[0]), ("labels", labels, self.at[1])):
            if not torch.equal(given, recorded):
                raise Wrong(
                    f"Batch {self.number} is trained on {name} of another one: the recorded tensor still has those."
                )
        self.loss.copy_(self.plain_step(*self.at))


@exercise("07.2", MEND, "A recorded step")
def recorded_step(answer: Callable) -> str:
    device = pick_device()
    for _ in range(4):
        size = random.randrange(8, 30)
        sizes = [size, size, size, random.randrange(2, size), size, size + random.randrange(1, 9), size]
        batches = [(torch.rand(n, 1, 28, 28).to(device), torch.randint(10, (n,)).to(device)) for n in sizes]
        models = [make_model(16, device=device) for _ in range(2)]
        plain_step, its = (make_step(model, sgd(model)) for model in models)
        recording = Recording(its)
        before = [tuple(tensor.clone() for tensor in batch) for batch in batches]
        step = answer(recording.step, recording.record, *batches[0])
        losses = []
        for recording.number, recording.batch in enumerate(before, start=1):
            given = f"Batch {recording.number} has {len(recording.batch[0])} images, the recording {size}"
            try:
                losses.append(step(*batches[recording.number - 1]))
            except RuntimeError as error:
                if len(recording.batch[0]) == size:
                    raise
                raise Wrong(f"{given}: {error}. A batch of another size needs the plain step.") from error
            if not isinstance(losses[-1], torch.Tensor):
                raise Wrong(f"A step gives {losses[-1]!r}, but should give a tensor, without waiting for its value.")
            if (times := recording.steps - recording.number + 1) != 1:
                raise Wrong(f"{given}, and was trained on {times} times.")
        for batch, copy in zip(batches, before, strict=True):
            if not all(map(torch.equal, batch, copy)):
                raise Wrong(
                    "The first batch has changed: a recording needs tensors of its own to copy the others into."
                )
        if len({loss.data_ptr() for loss in losses}) < len(losses):
            raise Wrong("In the end all losses are the last one: every replay leaves its loss in the same tensor.")
        _same([plain_step(*batch) for batch in before], losses)
    return "The losses are those of the plain step, for batches of three sizes."


def _same(expected: Sequence[torch.Tensor], losses: Sequence[torch.Tensor]) -> None:
    for i, (a, b) in enumerate(zip(expected, losses, strict=True), start=1):
        if not abs(a.item() - b.item()) <= ROUNDING:
            raise Wrong(f"Loss {i} is {b.item():.4f}, but should be {a.item():.4f}.")


@exercise("07.3", PREDICT, "After how many epochs does it pay?")
def pays_after(answer: Callable) -> str:
    times = [(random.randrange(100, 20_000), random.randrange(50, 400), random.randrange(50, 400)) for _ in range(20)]
    times += [(3000, 100, 150), (3001, 100, 150), (40, 100, 150), (0, 100, 150), (3000, 150, 150), (3000, 151, 150)]
    for first_use, own, other in times:
        n = answer(first_use, own, other)
        given = f"First use {first_use:,} ms, then {own} ms per epoch against {other} ms: "
        if n is None:
            if own < other:
                raise Wrong(f"{given}it says that it never pays, but every epoch gains {other - own} ms.")
            continue
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise Wrong(f"{given}it says {n!r}, but should say a whole number from 1, or None.")
        draw = partial(draw_totals, first_use, own, other, n)
        if own >= other:
            raise Wrong(f"{given}it says {n:,}, but no epoch gains anything, so it never pays.", draw)
        total, without = first_use + n * own, n * other
        if total > without:
            raise Wrong(f"{given}after {count_of(n, 'epoch')} it took {total:,} ms, more than {without:,}.", draw)
        if n > 1 and total - own <= without - other:
            raise Wrong(f"{given}it pays after {n:,}, but already after {count_of(n - 1, 'epoch')}, too.", draw)
    return f"For {len(times)} pairs of rungs: after so many epochs it pays, after one fewer not yet."


def draw_totals(first_use: int, own: int, other: int, n: int) -> None:
    """What both took after so many epochs, and the answer."""
    epochs = sorted({0, n, *range(0, 2 * n + 2, max(1, n // 10))})
    curves = {"first use and epochs": [first_use + i * own for i in epochs], "plain": [i * other for i in epochs]}
    curves = {name: (epochs, ms) for name, ms in curves.items()}
    plots.lines(curves, xlabel="epochs", ylabel="ms in all", marks={f"{n:,}": n}, log="")
