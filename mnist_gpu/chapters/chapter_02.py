"""Chapter 02: a step under the two ceilings, here and on published cards, and exercises about deeper networks."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from mnist_gpu.measuring.drawing import PUBLISHED, Drawn, columns, number, pictures
from mnist_gpu.measuring.exercises import MEND, WRITE, Exercise, checker, compared
from mnist_gpu.measuring.operations import Operations
from mnist_gpu.measuring.prediction import BYTES, MEASURED, OPERATIONS, SHEET, Limits, published, sources
from mnist_gpu.measuring.timing import measure
from mnist_gpu.measuring.workloads import training_step, two_ceilings


def measured(device: torch.device) -> tuple[float, float, float]:
    """FLOP/s of a large product, bytes/s of a large copy, and the seconds of the course's training step."""
    return *two_ceilings(device), measure(training_step(device, batch_size=128, hidden=128)).median


def shares(arithmetic: float, memory: float, step: float, device: torch.device) -> str:
    """What operations and bytes, in seconds, are of a whole step, and what that leaves."""
    said = f"On this {device.type.upper()}, arithmetic would be {arithmetic / step:.0%} of the step "
    rest = 1 - (arithmetic + memory) / step
    left = f"That leaves {rest:.0%} for something else."
    if rest <= 0.02:
        left = "That is all of it, or more: the data stay in the caches, or the two overlap."
    return f"{said}and memory {memory / step:.0%}.\n{left}"


def published_ceilings(cards: Sequence[str], operations: float, moved: float) -> str:
    """What `operations` (FLOP, in float32) and `moved` (bytes) would take at the published rates of `cards`, in µs.

    From a card's data sheet and, where others measured both rates, from theirs; and where those rates were read.
    """
    rows, used = [], []
    for card in cards:
        for kind, memory in ((SHEET, "memory"), (MEASURED, "copy")):
            figures = [f for q in ("float32", memory) for f in published(card=card, quantity=q, kind=kind)[:1]]
            if len(figures) == 2:
                parts = Limits(0.0, *(f.value for f in figures)).parts(operations, moved)
                times = (f"{1e6 * parts[name]:.1f}" for name in (OPERATIONS, BYTES))
                rows.append((f"{PUBLISHED}: {card}", kind, *times))
                used += figures
    return columns(["card", "kind of figure", "arithmetic, µs", "memory, µs"], rows) + f"\n{sources(used)}"


def weights(before: torch.Tensor, after: torch.Tensor, count: int = 10) -> Drawn:
    """The first `count` hidden units' weights `[H, 784]` as pictures, a row before and a row after training."""
    both = torch.stack([before[:count], after[:count]])
    drawn = pictures(both.view(-1, 28, 28), (), columns=count, names=("before", "after"), colorbar="weight")
    first, last = (number(float(side.abs().max())) for side in both)
    return Drawn(drawn.axes, f"The largest of these weights is {first} before, and {last} after, its sign left out.")


def random_networks() -> list[tuple[int, tuple[int, ...]]]:
    """Batch size and widths: deeper than the course's network first, then any, then the smallest ones."""
    found = [(random.randrange(2, 50), tuple(random.sample(range(2, 90), depth))) for depth in (4, 5, 3, 6, 4)]
    return [*found, (1, (9, 7, 5)), (6, (8, 3)), (1, (1, 1, 1, 1))]


def network(batch: int, widths: Sequence[int]) -> tuple[nn.Sequential, torch.Tensor]:
    """Linear layers of these widths, a ReLU between each two of them; and a batch for it."""
    layers = [layer for sizes in pairwise(widths) for layer in (nn.Linear(*sizes), nn.ReLU())]
    return nn.Sequential(*layers[:-1]), torch.rand(batch, widths[0])


def operations(batch: int, widths: Sequence[int]) -> tuple[int, int]:
    """(forward, backward), as PyTorch counts them."""
    from torch.utils.flop_counter import FlopCounterMode  # here: it imports Triton, which chapter 09 has to do itself

    model, images = network(batch, widths)
    with FlopCounterMode(display=False) as counter:
        logits = model(images)
        forward = counter.get_total_flops()
        logits.sum().backward()
    return forward, counter.get_total_flops() - forward


def forward_bytes(batch: int, widths: Sequence[int]) -> int:
    """What the operations fetch and write, watched as they run."""
    model, images = network(batch, widths)
    with torch.no_grad(), Operations() as running:
        model(images)
    return sum(o.bytes for o in running.seen if not o.is_view)


def backward_passes() -> list[tuple]:
    """(a parameter's name, x, labels, w1, b1, w2, b2): from the logits back, so that mistakes show one at a time."""
    sizes = [tuple(random.sample(range(5, 14), 4)) for _ in range(6)]  # batch, pixels, hidden, classes
    found = []
    for batch, pixels, hidden, classes in [*sizes, (1, 5, 4, 3), (7, 3, 1, 2), (1, 1, 1, 1)]:
        shapes = (batch, pixels), (hidden, pixels), (hidden,), (classes, hidden), (classes,)
        x, w1, b1, w2, b2 = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
        w1[0] = b1[0] = 0  # a unit whose z is exactly 0
        labels = torch.randint(classes, (batch,))
        found += [(name, x, labels, w1, b1, w2, b2) for name in ("w2", "b2", "w1", "b1")]
    return found


def gradient(name: str, x, labels, w1, b1, w2, b2, through: Callable = torch.relu) -> torch.Tensor:
    """Autograd's of the mean loss; `through` has the derivative that the ReLU is said to have."""
    wanted = {"w1": w1, "b1": b1, "w2": w2, "b2": b2}[name].requires_grad_()
    z = x @ w1.T + b1
    h = through(z) + (z.relu() - through(z)).detach()  # the value is the ReLU's
    return torch.autograd.grad(F.cross_entropy(h @ w2.T + b2, labels), wanted)[0]


EXERCISES = (
    Exercise("02.1", WRITE, "The operations of a deeper network", compared(
        operations, random_networks, given=lambda batch, widths: f"Batch size {batch}, widths {widths}",
        hints=(
            (lambda *sizes: (operations(*sizes)[0], 2 * operations(*sizes)[0]),
             "Backward has the gradient of the images, too. Nobody wants to change them."),
            (lambda *sizes: (operations(*sizes)[0], operations(*sizes)[0]),
             "Backward is one product for each layer, of its weights. What carries the gradient further back?"),
            (lambda *sizes: tuple(n // 2 for n in operations(*sizes)),
             "A multiplication and an addition are two operations."),
        ),
    )),
    Exercise("02.2", WRITE, "The bytes of a deeper network", compared(
        forward_bytes, random_networks, given=lambda batch, widths: f"Batch size {batch}, widths {widths}",
        hints=(
            (lambda *sizes: forward_bytes(*sizes) // 4, "These are numbers. One of float32 has four bytes."),
            (lambda batch, widths: forward_bytes(batch, widths) - 8 * batch * sum(widths[1:-1]),
             "The ReLU is an operation of its own: it fetches what the layer wrote, and writes it anew."),
            (lambda batch, widths: forward_bytes(batch, widths) + 8 * batch * widths[-1],
             "There is no ReLU after the last layer: it would leave no logit below zero."),
        ),
    )),
    Exercise("02.3", MEND, "A backward pass by hand", compared(
        gradient, backward_passes,
        run=lambda answer, name, *tensors: dict(zip(("w1", "b1", "w2", "b2"), answer(*tensors), strict=True))[name],
        given=lambda name, x, labels, w1, *_: f"The gradient of {name}, with x {list(x.shape)} and w1 {list(w1.shape)}",
        hints=(
            (lambda name, x, *rest: gradient(name, x, *rest) * len(x),
             "That is of the sum of the images' losses, but their mean is wanted."),
            (lambda name, x, *rest: gradient(name, x, *rest) / len(x),
             "It is averaged twice. The mean is in g_logits already; here the images add up."),
            (partial(gradient, through=lambda z: z),
             "It comes back through the ReLU everywhere, but it was let through only where z was above 0."),
            (partial(gradient, through=lambda z: z * (z >= 0)),
             "Where z is exactly 0, autograd lets nothing back through the ReLU: above 0 is what counts."),
        ),
    )),
)  # fmt: skip
check = checker(EXERCISES)
