"""Checks of chapter 07's exercises: a rung scored by its distance to the floor, a recorded step, a rung mended."""

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, starmap

import torch

from mnist_gpu.device import pick_device
from mnist_gpu.faster.ladder import Training, plain, sgd
from mnist_gpu.measuring.climb import FLOORS, AnotherTraining, Climb, floors, quickest
from mnist_gpu.measuring.exercises import MEND, WRITE, Exercise, Undecided, Wrong, checker, compared, in_time
from mnist_gpu.measuring.timing import alternate, compare
from mnist_gpu.measuring.workloads import train_part
from mnist_gpu.model import make_model
from mnist_gpu.training import make_step

STEPS, SECONDS, TOLERANCE = 24, 90, 0.02  # nats, as of the ladder's rungs in float32
PLAIN, YOURS = "the plain loop", "your rung"


def same_training(answer: Callable) -> str:
    """Proves some steps at the ladder's width, and a whole epoch at a small one, with its last, smaller batch."""
    differences = []
    for width, steps in ((128, STEPS), (random.randrange(20, 60), None)):
        climb = Climb(pick_device(), width, steps)
        training = Training(*answer(climb.device, width))
        try:
            proved = in_time(climb.prove, training._replace(step=fresh(training.step)), seconds=SECONDS)
        except (AnotherTraining, TimeoutError) as found:
            raise Wrong(f"At width {width} it {str(found).removeprefix('it ')}") from None
        if not steps:
            later = [train_part(one).losses for one in (training, climb.plain)]
            if not all(abs(a - b) <= TOLERANCE for a, b in zip(*later, strict=True)):
                raise Wrong("Its first epoch is right, and its second is another training: look at the order.")
        differences.append(proved)
    return f"The losses differ by at most {max(differences):.0e}."


def fresh(step: Callable) -> Callable:
    """The step. Raises Wrong for a loss that is no fresh, detached tensor."""
    given = []

    def checked(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = step(images, labels)
        if not isinstance(loss, torch.Tensor) or loss.requires_grad:
            raise Wrong("A step gives a detached tensor, loss.detach(): a number waits, and a graph keeps its memory.")
        if given and loss.data_ptr() == given[-1].data_ptr():
            raise Wrong("In the end all losses are the last one: every step gives the same tensor.")
        given.append(loss)
        return loss

    return checked


def own_rung(answer: Callable) -> str:
    """Proves the training; then times it beside the plain loop and the floor. Undecided if no difference is shown."""
    device, proof = pick_device(), same_training(answer)
    made = {PLAIN: plain(device, 128), YOURS: Training(*answer(device, 128))}
    sides = {name: partial(train_part, training, STEPS) for name, training in made.items()}
    times = alternate(sides | floors(device, 128, STEPS), device=device)
    gain, floor = compare(times, PLAIN, YOURS), quickest(times, FLOORS)
    score, before = (compare(times, name, floor).ratio for name in (YOURS, PLAIN))
    said = f"It takes {score:.2f} times as long as the products alone, the plain loop {before:.2f} times. {gain}"
    if not gain.differs:
        raise Undecided(f"nothing can be claimed. {proof} {said}")
    if gain.ratio < 1:
        raise Wrong(f"{said} So it is further from the floor.")
    return f"{proof} Score: {score:.2f}. {said}"


def plain_losses(batches: Sequence[tuple]) -> torch.Tensor:
    model = make_model(16, device=batches[0][0].device)
    return torch.stack(list(starmap(make_step(model, sgd(model)), batches)))


def recorded_losses(answer: Callable, batches: Sequence[tuple]) -> torch.Tensor:
    """The losses of the answer's step, whose replay is the step itself. Raises Wrong where a graph would do else."""
    model = make_model(16, device=batches[0][0].device)
    true_step, recorded, done, losses = make_step(model, sgd(model)), [], [], []

    def step(*batch: torch.Tensor) -> torch.Tensor:
        done.append((False, *batch))
        return true_step(*batch)

    def record(_: Callable, *at: torch.Tensor) -> tuple[Callable, torch.Tensor]:
        recorded.append(len(at[0]))
        loss = torch.full((), torch.nan, device=at[0].device)

        def replay() -> None:
            done.append((True, *(tensor.clone() for tensor in at)))
            loss.copy_(true_step(*at))

        return replay, loss

    given = copy.deepcopy(batches)
    mine = answer(step, record, *given[0])
    for batch, whole in zip(given, batches, strict=True):
        done.clear()
        losses.append(mine(*batch))
        if len(recorded) != 1:
            raise Wrong(f"It has recorded {len(recorded)} times. Recording costs more than a step: record once.")
        if len(done) != 1:
            raise Wrong(f"A batch of {len(batch[0])} images was trained on {len(done)} times.")
        replayed, *used = done[0]
        if not all(map(torch.equal, used, whole)):
            raise Wrong(
                "It was trained on images or labels of another batch, or size: the recorded tensors have those."
            )
        if not replayed and len(used[0]) == recorded[0]:
            raise Wrong("A batch as large as the recorded one took the plain step: replay it.")
    if not all(map(torch.equal, chain(*given), chain(*batches))):
        raise Wrong("The first batch has changed: a recording needs tensors of its own to copy the others into.")
    if len({loss.data_ptr() for loss in losses}) < len(losses):
        raise Wrong("In the end all losses are the last one: every replay leaves its loss in the same tensor.")
    return torch.stack(losses)


def several_sizes() -> Iterator[tuple]:
    for _ in range(4):
        n = random.randrange(8, 30)
        sizes = [n, n, n, random.randrange(2, n), n, n + random.randrange(1, 9), n]
        batches = [(torch.rand(n, 1, 28, 28), torch.randint(10, (n,))) for n in sizes]
        yield ([(images.to(pick_device()), labels.to(pick_device())) for images, labels in batches],)


EXERCISES = (
    Exercise("07.1", WRITE, "A rung of your own", own_rung),
    Exercise("07.2", MEND, "A recorded step", compared(
        plain_losses, several_sizes, run=partial(in_time, recorded_losses),
        given=lambda batches: f"Batches of {', '.join(str(len(labels)) for _, labels in batches)} images",
    )),
    Exercise("07.3", MEND, "A rung that is too fast", same_training),
)  # fmt: skip
check = checker(EXERCISES)
