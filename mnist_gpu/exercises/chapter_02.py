"""Checks of chapter 02's exercises: operations and bytes of deeper networks, and a backward pass by hand."""

import itertools
import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mnist_gpu.exercises.verdicts import MEND, WRITE, Wrong, count_of, exercise


def network(widths: tuple[int, ...]) -> nn.Sequential:
    """Linear layers of these widths, a ReLU between each two of them."""
    layers = [layer for sizes in itertools.pairwise(widths) for layer in (nn.Linear(*sizes), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def random_networks() -> list[tuple[int, tuple[int, ...]]]:
    """Batch size and widths: deeper than the course's network first, then any, then the smallest ones."""
    found = [(random.randrange(2, 50), tuple(random.sample(range(2, 90), depth))) for depth in (4, 5, 3, 6, 4)]
    return [*found, (1, (9, 7, 5)), (6, (8, 3)), (1, (1, 1, 1, 1))]


@exercise("02.1", WRITE, "The operations of a deeper network")
def deeper_operations(answer: Callable) -> str:
    from torch.utils.flop_counter import FlopCounterMode  # here: it imports Triton, which chapter 09 has to do itself

    networks = random_networks()
    for batch, widths in networks:
        model, images = network(widths), torch.rand(batch, widths[0])
        with FlopCounterMode(display=False) as counter:
            total = model(images).sum()
            forward = counter.get_total_flops()
            total.backward()
        right = (forward, counter.get_total_flops() - forward)
        found = answer(batch, widths)
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise Wrong(f"It gives {found!r}, but two numbers are asked for: forward and backward.")
        if tuple(found) == right:
            continue
        what, at = ("forward", 0) if found[0] != right[0] else ("backward", 1)
        said = (
            f"For {count_of(batch, 'image')} and widths {widths}, {what}: it says {found[at]:,}, but {right[at]:,} run."
        )
        raise Wrong(f"{said} {_why_operations(batch, widths, tuple(found), *right)}".rstrip())
    return f"The operations that PyTorch counts, for {len(networks)} networks."


def _why_operations(batch: int, widths: tuple[int, ...], found: tuple, forward: int, backward: int) -> str:
    products = [2 * batch * m * n for m, n in itertools.pairwise(widths)]
    pairs = {
        (backward, forward): "The two are the wrong way round.",
        (forward // 2, backward // 2): "A multiplication and an addition are two operations.",
        (forward, forward + backward): "That is the whole step. Only backward is asked for.",
        (forward // batch, backward // batch): "That is for one image.",
    }
    if found in pairs:
        return pairs[found]
    forwards = {
        products[0]: "That is the first layer alone.",
        products[0] + products[-1]: "That is the first and the last layer alone. What is between two hidden layers?",
        forward + batch * sum(widths[1:]): "The biases are counted, too. Only the matrix products are asked for.",
    }
    backwards = {
        2 * forward: "That has the gradient of the images. Nobody wants to change them.",
        forward: "That is one product for each layer, of its weights. What carries the gradient further back?",
        2 * forward - products[-1]: "Every layer but one has two products. Which one has a single one?",
        products[0] + 2 * products[-1]: "That is the first and the last layer alone.",
    }
    return (forwards.get(found[0]) if found[0] != forward else backwards.get(found[1])) or ""


class CountBytes(TorchDispatchMode):
    """Adds up the bytes of what goes into the operations and comes out. Views move nothing."""

    bytes = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        out = function(*arguments, **(options or {}))
        if not function.is_view:
            self.bytes += sum(t.nbytes for t in (*arguments, out) if isinstance(t, torch.Tensor))
        return out


@exercise("02.2", WRITE, "The bytes of a deeper network")
def deeper_bytes(answer: Callable) -> str:
    networks = random_networks()
    for batch, widths in networks:
        model, images = network(widths), torch.rand(batch, widths[0])
        with torch.no_grad(), CountBytes() as count:
            model(images)
        found, right = answer(batch, widths), count.bytes
        if found is None:
            raise Wrong("It gives None. Is the return there?")
        if found == right:
            continue
        said = f"For {count_of(batch, 'image')} and widths {widths} it says {found:,} bytes, but {right:,} are moved."
        raise Wrong(f"{said} {_why_bytes(batch, widths, right).get(found, '')}".rstrip())
    return f"The bytes that the operations of {len(networks)} networks fetch and write, watched as they run."


def _why_bytes(batch: int, widths: tuple[int, ...], right: int) -> dict[int, str]:
    biases, hidden, last = 4 * sum(widths[1:]), 4 * batch * sum(widths[1:-1]), 4 * batch * widths[-1]
    weights = 4 * sum(m * n for m, n in itertools.pairwise(widths))
    return {
        right // 4: "That is how many numbers move. One of float32 has four bytes.",
        right - biases: "What else does a linear layer fetch, beside its input and its weights?",
        right - weights - biases: "The weights and biases have to be fetched, too.",
        right + (batch - 1) * weights: "The weights are fetched once for the whole batch.",
        right + (batch - 1) * (weights + biases): "The weights and biases are fetched once for the whole batch.",
        right - 2 * hidden: "The ReLU is an operation of its own: it fetches what the layer wrote, and writes it anew.",
        right - hidden: "One of a hidden layer's four is missing: the layer writes, the ReLU fetches and writes, "
        "the next layer fetches.",
        right - 3 * hidden: "A hidden layer's numbers move four times: the layer writes, the ReLU fetches and writes, "
        "the next layer fetches.",
        right + 2 * last: "There is no ReLU after the last layer: it would leave no logit below zero.",
    }


MISTAKES = {  # to a wrong backward pass, what is said of it
    "mean": "They are those of the sum of the images' losses, but it is their mean that is wanted.",
    "relu": "The gradient comes back through the ReLU everywhere, but it was let through only where z was above 0.",
    "zero": "Where z is exactly 0, autograd lets nothing back through the ReLU: above 0 is what counts.",
    "b1": "That of b1 is averaged over the batch. The mean is in g_logits already; here the images add up.",
    "b2": "That of b2 is averaged over the batch. The mean is in g_logits already; here the images add up.",
}


@exercise("02.3", MEND, "A backward pass by hand")
def backward_by_hand(answer: Callable) -> str:
    sizes = [tuple(random.sample(range(5, 14), 4)) for _ in range(6)]  # batch, pixels, hidden, classes
    sizes += [(1, 5, 4, 3), (7, 3, 1, 2), (1, 1, 1, 1)]
    for batch, pixels, hidden, classes in sizes:
        x, labels = torch.randn(batch, pixels).double(), torch.randint(classes, (batch,))
        shapes = {"w1": (hidden, pixels), "b1": (hidden,), "w2": (classes, hidden), "b2": (classes,)}
        parameters = {name: torch.randn(shape).double() for name, shape in shapes.items()}
        parameters["w1"][0], parameters["b1"][0] = 0, 0  # a unit whose z is exactly 0
        leaves = [p.clone().requires_grad_() for p in parameters.values()]
        w1, b1, w2, b2 = leaves
        F.cross_entropy((x @ w1.T + b1).relu() @ w2.T + b2, labels).backward()
        found = answer(x, labels, *parameters.values())
        if not isinstance(found, tuple | list) or len(found) != 4:
            raise Wrong("It does not give four gradients, of w1, b1, w2, b2. Is the return there?")
        wrong = []
        for name, gradient, leaf in zip(shapes, found, leaves, strict=True):
            if gradient.shape != leaf.shape:
                raise Wrong(f"The gradient of {name} is {list(gradient.shape)}, but should be {list(leaf.shape)}.")
            if not torch.allclose(gradient.double(), leaf.grad, rtol=1e-6, atol=1e-9):
                wrong.append(name)
        if wrong:
            given = f"For {count_of(batch, 'image')} of {pixels} numbers, {hidden} hidden and {classes} classes"
            raise Wrong(f"{given} the gradients of {', '.join(wrong)} are wrong. {_left(found, x, labels, parameters)}")
    return f"Autograd's gradients, for {len(sizes)} sizes."


def _left(found: tuple, x: torch.Tensor, labels: torch.Tensor, parameters: dict[str, torch.Tensor]) -> str:
    """The first of the fewest mistakes with which the found gradients come out, in words."""
    for count in range(1, len(MISTAKES) + 1):
        for mistakes in itertools.combinations(MISTAKES, count):
            made = _with_mistakes(mistakes, x, labels, **parameters)
            if all(torch.allclose(f.double(), m, rtol=1e-6, atol=1e-9) for f, m in zip(found, made, strict=True)):
                return MISTAKES[mistakes[0]] + (" That is not all." if count > 1 else "")
    return "Compare line by line with the chapter's formulas: the chain rule goes from the logits to x."


def _with_mistakes(mistakes: tuple[str, ...], x, labels, w1, b1, w2, b2) -> tuple[torch.Tensor, ...]:
    z = x @ w1.T + b1
    g_logits = (z.relu() @ w2.T + b2).softmax(1) - F.one_hot(labels, len(b2))
    g_logits = g_logits if "mean" in mistakes else g_logits / len(labels)
    g_z = (g_logits @ w2) * (1 if "relu" in mistakes else z >= 0 if "zero" in mistakes else z > 0)
    g_b1, g_b2 = (g.mean(0) if b in mistakes else g.sum(0) for g, b in ((g_z, "b1"), (g_logits, "b2")))
    return g_z.T @ x, g_b1, g_logits.T @ z.relu(), g_b2
