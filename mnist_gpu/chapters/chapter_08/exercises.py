"""The checks of chapter 08's exercises: images enough to fill a card, a warp that does every side, a batch in parts."""

import math
import random
from collections.abc import Callable, Iterator, Sequence

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

from mnist_gpu.measuring.drawing import MARKERS, PALETTE
from mnist_gpu.measuring.exercises import MEND, PREDICT, WRITE, Exercise, Wrong, checker, compared, count_of
from mnist_gpu.measuring.prediction import WARP, insides
from mnist_gpu.model import PIXELS, make_model

MOVED = PIXELS * (1 + 4)  # bytes of an image that is normalized: of each pixel a byte is read, and four are written
LOOPS = (1, 128, 60_000)  # images per kernel


def filling(moved: int) -> Callable[[float, float, float], float]:
    """How many images of so many bytes fill a card of this rate (bytes/s), latency (cycles) and clock (Hz)."""
    return lambda rate, cycles, clock: float(math.ceil(rate * (cycles / clock) / moved))


def published() -> dict[str, tuple[float, float, float]]:
    """The same three of the cards whose latency is published."""
    return {c.name: (c.bandwidth, c.get("memory cycles"), c.get("clock")) for c in insides() if c.latency}


def cards() -> Iterator[tuple[float, float, float]]:
    """Of published cards, and of others."""
    yield from published().values()
    yield from ((random.uniform(1e11, 1e13), random.randrange(200, 900), random.uniform(1e9, 3e9)) for _ in range(10))
    yield from ((2**21 * MOVED * n, 512, 2**30) for n in (1, 250))  # whole images to the byte: powers of 2 do not round
    yield 1e9, 300, 1e9  # less than an image


def filled(answer: Callable) -> str:
    """Which of the three loops fill which published card."""
    said = []
    for name, card in published().items():
        least = answer(*card)
        loops = " and of ".join(f"{n:,}" for n in LOOPS if n >= least)
        said.append(f"The {name} needs {count_of(int(least), 'image')} a kernel: kernels of {loops} fill it.")
    return " ".join(said)


def executed(of_warp: Callable[[torch.Tensor, Sequence[int]], int]) -> Callable:
    """Instructions of every warp, if `of_warp` says them of one: of the sides of its lanes, and what they cost."""
    return lambda side, costs: [of_warp(warp, costs) for warp in side.split(WARP)]


def every_side(warp: torch.Tensor, costs: Sequence[int]) -> int:
    """A warp does each side that one of its lanes takes."""
    return sum(costs[s] for s in warp.unique())


def sides() -> Iterator[tuple[torch.Tensor, list[int]]]:
    """The side that each lane takes, and what each side costs."""
    for n in (100, 5 * WARP, WARP + 1, WARP, WARP - 1, 1, random.randrange(200, 400)):
        costs = [random.randrange(2, 50) for _ in range(random.randrange(3, 6))]
        yield torch.randint(len(costs), (n // 20 + 1,)).repeat_interleave(20)[:n], costs  # neighbours often agree
        yield torch.randint(len(costs), (n,)), costs
        yield torch.full((n,), random.randrange(len(costs))), costs


def one_a_warp(side: torch.Tensor, costs: Sequence[int], found: object) -> str | None:
    """What to say of an answer that is no list with a number for each warp."""
    warps = len(side.split(WARP))
    if not isinstance(found, list | tuple) or len(found) != warps:
        return f"A list with {count_of(warps, 'number')} is wanted: one for each warp, also for one that is not full."


def draw_warps(side: torch.Tensor, costs: Sequence[int], found: object) -> None:
    """Warps as rows of lanes, each marked by the side that it takes, with the instructions that the warp executes."""
    labels = [f"warp {i}: {n}" for i, n in enumerate(executed(every_side)(side, costs), start=1)]
    axis = plt.subplots(figsize=(8, 1.2 + 0.25 * len(labels)))[1]
    for s in side.unique().tolist():
        lane = (side == s).nonzero().flatten()
        axis.scatter(lane % WARP, lane // WARP, s=28, color=PALETTE[s], marker=MARKERS[s], label=f"side {s}")
    axis.set_yticks(range(len(labels)), labels)
    axis.set(xlabel="lane", ylim=(len(labels) - 0.4, -0.6), title="Instructions that each warp executes")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    plt.show()


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


FILLS = compared(
    filling(MOVED), cards, then=filled,
    given=lambda rate, cycles, clock: f"{rate / 1e9:,.1f} GB/s, {cycles:.0f} cycles at {clock / 1e9:.2f} GHz",
    hints=(
        (lambda rate, cycles, _: filling(MOVED)(rate, cycles, 1), "The latency is in cycles, not seconds."),
        (filling(PIXELS), "Reading a byte a pixel is not all: what is written is moved, too."),
        (filling(4 * PIXELS), "Writing four bytes of each pixel is not all: what is read is moved, too."),
    ),
)  # fmt: skip
SIDES = compared(
    executed(every_side), sides, why=one_a_warp, draw=draw_warps,
    given=lambda side, costs: f"{count_of(len(side), 'lane')}, and sides of {costs} instructions",
    hints=(
        (executed(lambda warp, costs: sum(costs[s] for s in warp)), "An instruction counts once, not once a lane."),
        (executed(lambda warp, costs: max(costs[s] for s in warp)), "Its sides follow one another."),
        (executed(lambda warp, costs: sum(costs)), "A side that none of its lanes takes is left out."),
    ),
)  # fmt: skip
PARTS = compared(
    whole, batches, run=left_by,
    given=lambda model, images, labels, parts, old: f"{count_of(len(images), 'image')} in {count_of(parts, 'part')}",
    hints=(
        (lambda *given: whole(*given) + given[-1], "What was in .grad before is still in it."),
        (lambda *given: gradients(*given)[-1], "Only the last part's gradient is left. What resets the others?"),
        (lambda *given: gradients(*given).sum(0), "The means of all parts are added up."),
        (lambda *given: gradients(*given).mean(0), "The parts' means count the same, whatever their size."),
    ),
)  # fmt: skip
EXERCISES = (
    Exercise("08.1", PREDICT, "Which of three loops fills a card?", FILLS),
    Exercise("08.2", WRITE, "Warps of more than two sides", SIDES),
    Exercise("08.3", MEND, "A large batch in parts", PARTS),
)
check = checker(EXERCISES)
