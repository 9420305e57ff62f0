"""Checks of chapter 04's exercises: a step that learns nothing, clipping in the step, and the mean of a whole pass."""

import copy
import itertools
import random
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.utils._python_dispatch import TorchDispatchMode

from mnist_gpu.device import pick_device
from mnist_gpu.exercises.verdicts import MEND, WRITE, Wrong, count_of, exercise
from mnist_gpu.training import evaluate, make_step

Tensors = list[torch.Tensor]


class Fetches(TorchDispatchMode):
    """Counts how often a number is fetched from a tensor, for which Python waits until the device has computed it."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*arguments, **(options or {}))


def random_training(lr: float, momentum: float) -> tuple[list, list, Callable]:
    """A small network on the device with its optimizer, the same once more, and what gives batches for them."""
    device = pick_device()
    pixels, hidden, classes = random.randrange(2, 20), random.randrange(1, 12), random.randrange(2, 7)
    model = nn.Sequential(nn.Linear(pixels, hidden), nn.Tanh(), nn.Linear(hidden, classes)).to(device)
    twins = [[m, torch.optim.SGD(m.parameters(), lr=lr, momentum=momentum)] for m in (model, copy.deepcopy(model))]

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        size = random.randrange(1, 9)
        return torch.randn(size, pixels).to(device), torch.randint(classes, (size,)).to(device)

    return *twins, batch


def close(found: Tensors, right: Tensors) -> bool:
    return all(torch.allclose(f, r, rtol=1e-4, atol=1e-6) for f, r in zip(found, right, strict=True))


def weights(model: nn.Module) -> Tensors:
    return [p.detach().clone() for p in model.parameters()]


def gradients(model: nn.Module) -> Tensors:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def one_step(step: Callable, images: torch.Tensor, labels: torch.Tensor) -> tuple[object, int]:
    """Takes a step of the answer: what it gives, and how many numbers it has fetched."""
    with Fetches() as fetches:
        return step(images, labels), fetches.count


def right_loss(loss: object, fetched: int, right: torch.Tensor) -> None:
    """The loss has to be the batch's before the update, detached, on the device, and fetched by nobody."""
    if isinstance(loss, float):
        raise Wrong("The loss is a number of Python's: to fetch it, Python waits for the device in every step.")
    if not isinstance(loss, torch.Tensor) or loss.dim():
        shown = list(loss.shape) if isinstance(loss, torch.Tensor) else repr(loss)
        raise Wrong(f"The step gives {shown}, but should give the loss, a tensor without dimensions.")
    if fetched:
        raise Wrong(
            "By .item() or an if, a number is fetched from a tensor: Python waits for the device in every step."
        )
    if loss.requires_grad:
        raise Wrong("The loss still carries its graph: as long as a training keeps the loss, it keeps that as well.")
    if loss.device != right.device or not close([loss], [right]):
        raise Wrong(f"The loss is {loss.item():.4f} on {loss.device}, but {right.item():.4f} before the update.")


@exercise("04.1", MEND, "A step that learns nothing")
def learning_step(answer: Callable) -> str:
    for momentum in (0.0, 0.9, 0.5):
        (model, optimizer), (other, others), batch = random_training(random.choice([0.05, 0.2]), momentum)
        plain = make_step(other, others)
        for i in range(1, 5):
            before, (images, labels) = weights(model), batch()
            loss = plain(images, labels)
            found = one_step(partial(answer, model, optimizer), images, labels)
            if close(weights(model), weights(other)):
                right_loss(*found, loss)
                continue
            if all(map(torch.equal, weights(model), before)):
                if any(g.any() for g in gradients(model)):
                    raise Wrong("There is a gradient, but no weight has changed: nothing used it once it was there.")
                raise Wrong("No weight has changed, and there is no gradient: what became of it before the update?")
            if i > 1 and not close(gradients(model), gradients(other)):
                raise Wrong(
                    f"Step 1 is right, step {i} is not: the gradients of the steps before are still in this one."
                )
            raise Wrong(f"Step {i} with momentum {momentum} changes the weights otherwise than the chapter's lines.")
    return "The losses and the weights of the chapter's step, over several steps, with momentum and without."


@exercise("04.2", WRITE, "Gradients of limited length")
def clipping_step(answer: Callable) -> str:
    # What is allowed, as a share of the first gradients' norm, and the momentum. First so little that one number at
    # least is above it: who limits tensors or numbers one by one is told so, and not that nothing was limited.
    cases = [(0.05, 0.0), (2.0, 0.0), (0.01, 0.9), (0.9, 0.9), (1.5, 0.9), (random.uniform(0.1, 0.8), 0.0)]
    for share, momentum in cases:
        (model, optimizer), (other, others), batch = random_training(1.0, momentum)
        images, labels = batch()
        plain = list(torch.autograd.grad(F.cross_entropy(other(images), labels), list(other.parameters())))
        largest = share * get_total_norm(plain).item()
        step = answer(model, optimizer, largest)
        if not callable(step):
            raise Wrong(f"make_clipping_step gives {step!r}, but a step is asked for. Is the return there?")
        for i in range(1, 4):
            before = weights(model)
            others.zero_grad()
            loss = F.cross_entropy(other(images), labels)
            loss.backward()
            clip_grad_norm_(other.parameters(), largest)
            others.step()
            found = one_step(step, images, labels)
            if not close(weights(model), weights(other)):
                if i > 1:
                    raise Wrong(f"Step 1 is right, step {i} is not. Does it forget the gradients of the step before?")
                moved = [b - w for b, w in zip(before, weights(model), strict=True)]
                raise Wrong(_why_clipped(moved, plain, largest, gradients(model)))
            right_loss(*found, loss.detach())
            images, labels = batch()
    return f"The plain step where the norm is small enough, and the limited one where not: {len(cases)} trainings."


def _why_clipped(moved: Tensors, plain: Tensors, largest: float, kept: Tensors) -> str:
    """What the first update shows: what was subtracted at a learning rate of 1, and the gradients that were kept."""
    norm, length = get_total_norm(plain).item(), get_total_norm(moved).item()
    said = f"All gradients together have norm {norm:.3g}, and {largest:.3g} is allowed. The weights moved by the "
    said += f"learning rate, which is 1, times {length:.3g}"
    if length == 0:
        return f"{said}. Which of the five lines are missing?"
    if norm <= largest:
        return f"{said}. What is short enough has to stay as it is."
    if close(moved, plain):
        if abs(get_total_norm(kept).item() - largest) < 1e-3 * largest:
            return f"{said}: they were limited after the optimizer had used them."
        return f"{said}: nothing was limited. Are there gradients already where it is done?"
    if close(moved, [g * min(1, largest / max(g.norm().item(), 1e-12)) for g in plain]):
        return f"{said}: each tensor was limited by itself, but it is their norm together that counts."
    if close(moved, [g.clamp(-largest, largest) for g in plain]):
        return f"{said}: each number was limited by itself, which gives another direction."
    if close(moved, [g * min(1, largest / norm**2) for g in plain]):
        return f"{said}: was the limit divided by the norm, or by its square?"
    return f"{said}, which should be {largest:.3g}, in the direction of the gradients."


@exercise("04.3", MEND, "The mean of a pass")
def mean_of_a_pass(answer: Callable) -> str:
    device = pick_device()
    sizes = [[7, 7, 7, 2], [30, 1], [5], [1, 1], [random.randrange(20, 40)] * 3 + [random.randrange(1, 10)], [3, 9, 4]]
    for parts, training in itertools.product(sizes, (True, False)):
        model = nn.Sequential(nn.Linear(6, 11), nn.ReLU(), nn.Dropout(0.5), nn.Linear(11, 4)).to(device)
        # Every batch is harder than the one before, so that their means differ.
        batches = [((1 + 3 * k) * torch.randn(n, 6), torch.randint(4, (n,))) for k, n in enumerate(parts)]
        batches = [(images.to(device), labels.to(device)) for images, labels in batches]
        means, seen = [evaluate(model, [batch]).loss for batch in batches], []
        model.train(training).register_forward_hook(partial(_note, seen))
        found = answer(model, batches)
        if found is None:
            raise Wrong("It gives None. Is the return there?")
        if any(mode for mode, _ in seen):
            raise Wrong("The model was in its mode for training: dropout leaves out other units at every call.")
        if any(recorded for _, recorded in seen):
            raise Wrong("Gradients were recorded: the activations of all batches are kept for a backward pass.")
        _mean(float(found), means, parts)
        if model.training != training:
            was, now = ("training", "evaluation")[:: 1 if training else -1]
            raise Wrong(f"The model came in its mode for {was}, and was left in its mode for {now}.")
    return f"The mean of all images, for batches of {', '.join(map(str, sizes[:3]))} and others; the mode stays."


def _note(seen: list, model: nn.Module, *_) -> None:
    seen.append((model.training, torch.is_grad_enabled()))


def _mean(found: float, means: list[float], sizes: list[int]) -> None:
    total, images, batches = sum(m * n for m, n in zip(means, sizes, strict=True)), sum(sizes), len(sizes)

    def same(other: float) -> bool:
        return abs(found - other) < 1e-4 * abs(other) + 1e-6

    if same(total / images):
        return
    said = f"For batches of {sizes} the mean loss is {total / images:.4f}, but it gives {found:.4f}."
    few = f"{count_of(sizes[-1], 'image')} of the last batch count as much as the {sizes[0]} of the first"
    hints = {
        sum(means) / batches: f"That is the mean of the batches' means, in which the {few}.",
        total: "That is the sum of all losses.",
        total / batches: "The sum of all losses was divided by the number of batches.",
        sum(means) / images: "The batches' means were divided by the number of images.",
    }
    raise Wrong(" ".join([said, *(hint for value, hint in hints.items() if same(value))][:2]))
