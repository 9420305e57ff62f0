"""Checks of chapter 08's exercises: images enough to fill a card, a warp that does every side, a batch in parts."""

import random
from collections.abc import Callable, Sequence
from functools import partial

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

from mnist_gpu.exercises.verdicts import MEND, PREDICT, WRITE, Wrong, count_of, exercise
from mnist_gpu.measuring import plots
from mnist_gpu.measuring.chips import WARP, read_chips
from mnist_gpu.measuring.multiprocessor import littles_law
from mnist_gpu.model import PIXELS, make_model

MOVED = PIXELS * (1 + 4)  # bytes of an image that is normalized: of each pixel a byte is read, and four are written
LOOPS = (1, 128, 60_000)  # images per kernel


@exercise("08.1", PREDICT, "Which of three loops fills a card?")
def images_to_fill(answer: Callable) -> str:
    said = []
    for c in read_chips().values():
        if c.latency:
            count = _fills(answer, c.bandwidth, c.get("memory cycles"), c.get("clock"), c.name)
            filled = " and of ".join(f"{n:,}" for n in LOOPS if n >= count)
            said.append(f"The {c.name} needs {count_of(count, 'image')} a kernel: kernels of {filled} fill it.")
    others = [(random.uniform(1e11, 1e13), random.randrange(200, 900), random.uniform(1e9, 3e9)) for _ in range(10)]
    others += [(2**21 * MOVED * n, 512, 2**30) for n in (1, 250)]  # whole images to the byte: powers of 2 do not round
    others += [(1e9, 300, 1e9)]  # less than an image
    for other in others:
        _fills(answer, *other, "Another card")
    return f"{' '.join(said)} And it is right for {count_of(len(others), 'other card')}."


def _fills(answer: Callable, rate: float, cycles: float, clock: float, name: str) -> int:
    """What is answered for a card, if so many images fill it and one fewer do not."""
    images, needed = answer(rate, cycles, clock), littles_law(rate, cycles / clock)
    given = f"{name} ({rate / 1e9:,.1f} GB/s, {cycles:.0f} cycles at {clock / 1e9:.2f} GHz)"
    if isinstance(images, bool) or not isinstance(images, int | float) or images % 1:
        raise Wrong(f"{given}: it says {images!r}, but a number of images is a whole one.")
    if MOVED * images >= needed > MOVED * (images - 1):
        return int(images)
    mistakes = {  # about so many images, and why
        rate * cycles / MOVED: "The latency is given in cycles: how many seconds are they?",
        needed / PIXELS: "Reading a byte of each pixel is not all: what is written is moved, too.",
        needed / (4 * PIXELS): "Writing four bytes of each pixel is not all: what is read is moved, too.",
        needed / (8 * PIXELS): "A pixel that is read is one byte; only what is written are four.",
        needed / 5: "So many pixels are enough. How many are in an image?",
        needed / MOVED: "Is it rounded up, and only where it is not whole already?",
    }
    why = next((why for count, why in mistakes.items() if abs(images - count) <= 1 and needed > 20 * MOVED), "")
    n, seen = (images, "too few") if MOVED * images < needed else (images - 1, "so fewer are enough")
    raise Wrong(
        f"{given}: it says {count_of(int(images), 'image')}. {needed:,.0f} bytes must be in flight. What "
        f"{count_of(int(n), 'image')} would move is {MOVED * n:,.0f} bytes, {seen}. {why}".rstrip()
    )


@exercise("08.2", WRITE, "Warps of more than two sides")
def every_side(answer: Callable) -> str:
    sizes = [100, 5 * WARP, WARP + 1, WARP, WARP - 1, 1, random.randrange(200, 400)]
    for n in sizes:
        costs = [random.randrange(2, 50) for _ in range(random.randrange(3, 6))]
        runs = torch.randint(len(costs), (n // 20 + 1,)).repeat_interleave(20)[:n]  # neighbours often agree
        for side in (runs, torch.randint(len(costs), (n,)), torch.full((n,), random.randrange(len(costs)))):
            _same_warps(answer(side, list(costs)), side, costs)
    return f"Every warp does every side that one of its lanes takes, for {3 * len(sizes)} vectors."


def executed(side: torch.Tensor, costs: Sequence[int]) -> list[int]:
    """Instructions of each warp: those of every side that one of its lanes takes. (Of two sides: `both_sides`.)"""
    return [sum(costs[s] for s in set(warp.tolist())) for warp in side.split(WARP)]


def _same_warps(found: object, side: torch.Tensor, costs: Sequence[int]) -> None:
    found, warps = found.tolist() if isinstance(found, torch.Tensor) else found, side.split(WARP)
    given = f"{count_of(len(side), 'lane')} are {count_of(len(warps), 'warp')}"
    if not isinstance(found, list | tuple):
        raise Wrong(f"{given}, so it should give a list with a number for each warp, but it gives {found!r}.")
    if len(found) == len(side) // WARP < len(warps):
        raise Wrong(f"{given}, and the last one is missing. It is not full, but executes instructions all the same.")
    if len(found) != len(warps):
        raise Wrong(f"{given}, but the list has {count_of(len(found), 'number')}: one is wanted for each warp.")
    for i, (says, right) in enumerate(zip(found, executed(side, costs), strict=True)):
        if says != right:
            each = [costs[s] for s in warps[i].tolist()]
            mistakes = {  # what it says, and why; of equal numbers the last counts, the likeliest
                sum(costs): "A side that none of its lanes takes is left out.",
                each[0]: "Its first lane does not decide for the others.",
                max(each): "It has one instruction at a time, so the sides follow one another.",
                sum(each): "An instruction is for all lanes at once: it counts once, not once a lane.",
                sum(each) / len(each): "A warp is no average of its lanes: each waits while the others have a turn.",
            }
            taken = " and ".join(f"side {s} ({costs[s]} instructions)" for s in sorted(set(warps[i].tolist())))
            why = next((why for number, why in mistakes.items() if number == says), "")
            draw = partial(draw_warps, warps, executed(side, costs))
            raise Wrong(
                f"Warp {i + 1} of {len(warps)} has lanes that take {taken}; it says {says}. {why}".rstrip(), draw
            )


def draw_warps(warps: Sequence[torch.Tensor], instructions: Sequence[int]) -> None:
    """Warps as rows of lanes, each marked by the side that it takes, with the instructions that the warp executes."""
    axis = plt.subplots(figsize=(8, 1.2 + 0.25 * len(warps)))[1]
    lanes = [(x, y, s) for y, warp in enumerate(warps, start=1) for x, s in enumerate(warp.tolist())]
    for s in sorted({s for _, _, s in lanes}):
        xs, ys = zip(*((x, y) for x, y, other in lanes if other == s), strict=True)
        axis.scatter(xs, ys, s=28, color=plots.PALETTE[s], marker=plots.MARKERS[s], label=f"side {s}")
    axis.set_yticks(range(1, len(warps) + 1), [f"warp {i}: {n}" for i, n in enumerate(instructions, start=1)])
    axis.set(xlabel="lane", ylim=(len(warps) + 0.6, 0.4), title="Instructions that each warp executes")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    plt.show()


@exercise("08.3", MEND, "A large batch in parts")
def batch_in_parts(answer: Callable) -> str:
    splits = [(12, 3), (44, 7), (9, 9), (10, 1), (random.randrange(20, 60), random.randrange(2, 20))]
    for n, parts in splits:
        model, images = make_model(9).double(), torch.rand(n, 1, 28, 28, dtype=torch.float64)
        labels, turns = torch.randint(10, (n,)), []
        model.register_forward_pre_hook(lambda _, given, turns=turns: turns.append(len(given[0])))
        model.output.weight.register_hook(lambda _, turns=turns: turns.append("backward"))
        for old in (0.0, 1.0):  # what is in .grad before
            for p in model.parameters():
                p.grad = torch.full_like(p, old) if old else None
            turns.clear()
            answer(model, images, labels, parts)
            try:
                _one_by_one(turns, n, parts)
                _same_gradient(model, images, labels, parts, old)
            except Wrong as wrong:
                raise Wrong(f"{count_of(n, 'image')} in {count_of(parts, 'part')}: {wrong}") from None
    return f"The whole batch's gradient, from a part at a time, for {len(splits)} ways to split."


def _one_by_one(turns: Sequence, n: int, parts: int) -> None:
    """Whether each part went forward, and backward before the next one."""
    seen, most = [turn for turn in turns if turn != "backward"], -(-n // parts)
    if max(seen, default=0) > most:
        raise Wrong(f"the model gets {max(seen)} images at once, and keeps the activations of more than {most}.")
    if sum(seen) != n:
        raise Wrong(f"the model gets {count_of(sum(seen), 'image')} in all.")
    if len(seen) == len(turns):
        raise Wrong("no part goes backward.")
    if turns[1::2] != ["backward"] * len(seen):
        raise Wrong("a part goes forward before the last one has gone backward: both parts' activations are kept.")


def _same_gradient(model, images, labels, parts: int, old: float) -> None:
    parameters = list(model.parameters())

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])

    if any(p.grad is None for p in parameters):
        raise Wrong("there is no gradient in .grad.")
    found, right = torch.cat([p.grad.flatten() for p in parameters]), gradient(F.cross_entropy(model(images), labels))
    near = partial(torch.allclose, found, rtol=1e-9, atol=1e-12)  # but for rounding, in float64
    if near(right):
        return
    split = zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True)
    means = [gradient(F.cross_entropy(model(some), theirs)) for some, theirs in split]
    last, added = means[-1], sum(means)
    if old and near(right + old):
        raise Wrong("what was in .grad before the batch is still in it.")
    if near(last * (found @ last) / (last @ last)):
        raise Wrong("only the last part's gradient is left. What resets the others?")
    if near(added):
        raise Wrong(f"the means of all parts are added up, so .grad is about {parts} times too large.")
    if near(added / parts):
        least = len(images) // parts
        raise Wrong(f"the parts' means count the same, though some parts have {least} and some {least + 1} images.")
    if near(right * len(images)):
        raise Wrong(f"that is the gradient of the losses' sum, {len(images)} times that of their mean.")
    off = (found - right).abs().max() / right.abs().max()
    raise Wrong(f".grad is off by {off:.1g} of the largest number in the whole batch's gradient.")
