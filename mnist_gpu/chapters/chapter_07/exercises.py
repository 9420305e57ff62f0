"""Checks of chapter 07's exercises: a rung that proves its training, and a recorded step."""

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, starmap

import torch

from mnist_gpu.device import pick_device
from mnist_gpu.faster.ladder import Training, plain, sgd
from mnist_gpu.faster.products import PRODUCTS, five_products
from mnist_gpu.measuring.exercises import MEND, WRITE, Exercise, Wrong, checker, compared
from mnist_gpu.measuring.timing import alternate, compare_all
from mnist_gpu.measuring.workloads import repeat, train_part
from mnist_gpu.model import make_model
from mnist_gpu.training import make_step

STEPS = 24
TOLERANCE = 0.02  # nats, as of the ladder's rungs in float32
ROUNDING = 1e-4  # nats: more than two programs differ by in their first steps, less than another update does
PAIRS = (("the plain loop", "your rung"), ("your rung", "the products alone"))
CAUSES = (  # by the first step whose loss differs
    "The first loss differs already: by the weights, the images, their pixels (-1 to 1), or the loss.",
    "The first loss is right, and the second is not: look at the first update, and at the second batch.",
    "The first update is right, later ones are not: look at the momentum, at gradients that add up, and at the order.",
)


def own_rung(answer: Callable) -> str:
    """Proves its losses and weights, once for a whole epoch with its last batch; then times it, beside the floor."""
    device = pick_device()
    worst = max(_difference(answer, device, 128, STEPS), _difference(answer, device, random.randrange(20, 60), None))
    floor = partial(repeat, five_products(PRODUCTS["torch.mm, weights [H, 784]"], device=device), STEPS)
    sides = {"the plain loop": plain(device), "your rung": Training(*answer(device, 128))}
    sides = {name: partial(train_part, training, STEPS) for name, training in sides.items()}
    found = compare_all(alternate(sides | {"the products alone": floor}, device=device), PAIRS)
    return " ".join([f"The losses differ by at most {worst:.0e}.", *map(str, found)])


def _difference(answer: Callable, device: torch.device, hidden: int, steps: int | None) -> float:
    """By how much its losses differ from the plain loop's at most. Raises Wrong where it is another training."""
    its, mine = answer(device, hidden), plain(device, hidden)

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = its[1](images, labels)
        if not isinstance(loss, torch.Tensor) or loss.requires_grad:
            raise Wrong("A step gives a detached tensor, loss.detach(): a number waits, and a graph keeps its memory.")
        return loss

    expected = train_part(mine, steps).losses
    losses = train_part(Training(its[0], step, its[2]), steps or len(expected) + 1).losses
    if len(losses) != len(expected):
        raise Wrong(f"Its epoch has {len(losses)} steps instead of {len(expected)}, the last with 96 images.")
    differences = [abs(a - b) for a, b in zip(losses, expected, strict=True)]
    if not all(d <= TOLERANCE for d in differences):  # as for NaN, too
        first = next(i for i, d in enumerate(differences) if not d <= ROUNDING)
        worst = f"its losses differ by up to {max(differences):.2g}, beginning with step {first + 1}"
        raise Wrong(f"At width {hidden} it is another training: {worst}. {CAUSES[min(first, 2)]}")
    trained = zip(its[0].parameters(), mine.model.parameters(), strict=True)
    if not all(torch.allclose(a, b, atol=TOLERANCE) for a, b in trained):
        raise Wrong("Its losses are right, but not the weights of the model that it gives: it has trained a copy.")
    return max(differences)


class Recording:
    """Stands in for a CUDA graph: a replay is the step itself. Raises Wrong where a graph would do something else."""

    def __init__(self, plain_step: Callable):
        self.plain_step, self.trained, self.at, self.batch = plain_step, 0, None, None

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if not self.at:
            raise Wrong("It trains before it has recorded anything: record once, and then replay.")
        if len(images) == len(self.at[0]):
            raise Wrong("A batch as large as the recorded one took the plain step: replay it.")
        self.trained += 1
        return self.plain_step(images, labels)

    def record(self, step: Callable, images: torch.Tensor, labels: torch.Tensor) -> tuple[Callable, torch.Tensor]:
        if self.at:
            raise Wrong("It records a second time. Recording costs more than a step: once is enough, before the first.")
        self.at, self.loss = (images, labels), torch.full((), torch.nan, device=images.device)
        return self.replay, self.loss

    def replay(self) -> None:
        if len(self.batch[1]) != len(self.at[1]):
            sizes = f"The recording is of {len(self.at[1])} images, the batch of {len(self.batch[1])}"
            raise Wrong(f"{sizes}: that needs the plain step.")
        if not all(map(torch.equal, self.batch, self.at)):
            raise Wrong("It is trained on images or labels of another batch: the recorded tensors still have those.")
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


EXERCISES = (
    Exercise("07.1", WRITE, "A rung of your own", own_rung),
    Exercise("07.2", MEND, "A recorded step", compared(
        plain_losses, several_sizes, run=recorded_losses,
        given=lambda batches: f"Batches of {', '.join(str(len(labels)) for _, labels in batches)} images",
    )),
)  # fmt: skip
check = checker(EXERCISES)
