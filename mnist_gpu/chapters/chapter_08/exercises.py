"""The checks of chapter 08's exercises: a warp that does every side, and a batch in parts."""

import random
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from mnist_gpu.measuring.exercises import MEND, WRITE, Exercise, Wrong, checker, compared, count_of
from mnist_gpu.model import make_model

WARP = 32  # threads that execute the same instruction, on every NVIDIA GPU


def sides() -> Iterator[tuple[torch.Tensor, list[int]]]:
    """The side that each lane takes, and what each side costs."""
    for n in (100, 5 * WARP, WARP + 1, WARP, WARP - 1, 1, random.randrange(200, 400)):
        costs = [random.randrange(2, 50) for _ in range(random.randrange(3, 6))]
        yield torch.randint(len(costs), (n // 20 + 1,)).repeat_interleave(20)[:n], costs  # neighbours often agree
        yield torch.randint(len(costs), (n,)), costs
        yield torch.full((n,), random.randrange(len(costs))), costs


def batches() -> Iterator[tuple]:
    """A model, images, labels, the number of parts, and what is in the parameters' .grad before."""
    for n, parts in ((12, 3), (44, 7), (9, 9), (10, 1), (random.randrange(20, 60), random.randrange(2, 20))):
        for old in (0.0, 1.0):
            images = torch.rand(n, 1, 28, 28, dtype=torch.float64)
            yield make_model(9).double(), images, torch.randint(10, (n,)), parts, old


def left_by(answer: Callable, model, images, labels, parts: int, old: float) -> torch.Tensor:
    """What the answer leaves in .grad, flat. Raises Wrong unless each part goes backward before the next forward."""
    turns = []
    model.register_forward_pre_hook(lambda _, given: turns.append(len(given[0])))
    model.output.weight.register_hook(lambda _: turns.append("backward"))
    for p in model.parameters():
        p.grad = torch.full_like(p, old) if old else None
    answer(model, images, labels, parts)
    most, sizes = -(-len(images) // parts), [turn for turn in turns if turn != "backward"]
    said = f"{count_of(len(images), 'image')} in {count_of(parts, 'part')}: the model gets"
    if max(sizes, default=0) > most:
        raise Wrong(f"{said} {max(sizes)} at once, and keeps the activations of more than {most}.")
    if turns[1::2] != ["backward"] * len(sizes):
        raise Wrong(f"{said} the next part before the last one has gone backward, if that ever does: both are kept.")
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def gradients(model, images, labels, parts: int, old: float) -> torch.Tensor:
    """Of each part the gradient of its mean loss `[parts, parameters]`."""
    split = zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True)
    losses = [F.cross_entropy(model(some), theirs) for some, theirs in split]
    each = [torch.autograd.grad(loss, list(model.parameters())) for loss in losses]
    return torch.stack([torch.cat([g.flatten() for g in found]) for found in each])


def whole(model, images, labels, parts: int, old: float) -> torch.Tensor:
    """The gradient of the whole batch's mean loss, flat."""
    return gradients(model, images, labels, 1, old)[0]


EXERCISES = (
    Exercise("08.2", WRITE, "Warps of more than two sides", compared(
        lambda side, costs: [sum(costs[s] for s in warp.unique()) for warp in side.split(WARP)], sides,
        run=lambda answer, *given: list(answer(*given)),
        given=lambda side, costs: f"{count_of(len(side), 'lane')}, and sides of {costs} instructions",
        hints=(
            (lambda side, costs: [sum(costs[s] for s in warp) for warp in side.split(WARP)], "Count it once a warp."),
            (lambda side, costs: [max(costs[s] for s in warp) for warp in side.split(WARP)], "Its sides add up."),
            (lambda side, costs: [sum(costs) for _ in side.split(WARP)], "A side that no lane takes is left out."),
        ),
        why=lambda side, costs, found: "There is one number for each warp, also for one that is not full.",
    )),
    Exercise("08.3", MEND, "A large batch in parts", compared(
        whole, batches, run=left_by,
        given=lambda model, images, labels, parts, _: f"{count_of(len(images), 'image')} in {count_of(parts, 'part')}",
        hints=(
            (lambda *given: whole(*given) + given[-1], "What was in .grad before is still in it."),
            (lambda *given: gradients(*given)[-1], "Only the last part's gradient is left. What resets the others?"),
            (lambda *given: gradients(*given).sum(0), "The means of all parts are added up."),
            (lambda *given: gradients(*given).mean(0), "The parts' means count the same, whatever their size."),
        ),
    )),
)  # fmt: skip
check = checker(EXERCISES)
