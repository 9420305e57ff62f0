"""Chapter 02: the two ceilings of a step, and exercises about deeper networks and a backward pass."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from mnist_gpu.measuring.exercises import MEND, WRITE, Exercise, checker, compared
from mnist_gpu.measuring.timing import measure
from mnist_gpu.measuring.workloads import training_step, two_ceilings
from mnist_gpu.model import step_bytes


def measured(device: torch.device) -> tuple[float, float, float]:
    """FLOP/s of a large product, bytes/s of a copy of as many bytes as a step moves, and the step's seconds."""
    here = torch.rand(step_bytes() // 8, device=device)  # numbers of four bytes, each read and written
    copy = measure(partial(torch.empty_like(here).copy_, here))
    step = measure(training_step(device, batch_size=128, hidden=128))
    return two_ceilings(device)[0], step_bytes() / copy.median, step.median


def random_networks() -> list[tuple[int, tuple[int, ...]]]:
    """Batch size and widths: deeper than the course's network first, then any, then the smallest ones."""
    found = [(random.randrange(2, 50), tuple(random.sample(range(2, 90), depth))) for depth in (4, 5, 3, 6, 4)]
    return [*found, (1, (9, 7, 5)), (6, (8, 3)), (1, (1, 1, 1, 1))]


def operations(batch: int, widths: Sequence[int]) -> tuple[int, int]:
    """(forward, backward), as PyTorch counts them, of linear layers with a ReLU between each two of them."""
    from torch.utils.flop_counter import FlopCounterMode  # here: it imports Triton, which chapter 09 has to do itself

    layers = [layer for sizes in pairwise(widths) for layer in (nn.Linear(*sizes), nn.ReLU())]
    with FlopCounterMode(display=False) as counter:
        logits = nn.Sequential(*layers[:-1])(torch.rand(batch, widths[0]))
        forward = counter.get_total_flops()
        logits.sum().backward()
    return forward, counter.get_total_flops() - forward


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
