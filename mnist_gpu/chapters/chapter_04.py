"""Chapter 04, the training loop: the figures of what was learned, and the checks of its exercises."""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from mnist_gpu.device import pick_device
from mnist_gpu.measuring.drawing import PALETTE, Drawn, grid, pictures
from mnist_gpu.measuring.exercises import MEND, Exercise, checker, compared, same
from mnist_gpu.measuring.operations import Operations
from mnist_gpu.training import Epoch, Evaluation, evaluate, make_step

Batches = list[tuple[torch.Tensor, torch.Tensor]]


def curves(history: Sequence[Epoch], tests: Sequence[Evaluation]) -> Drawn:
    """The training loss of every batch, and loss and accuracy of the test after every epoch."""
    left, right = plt.subplots(1, 2, figsize=(9, 3.2))[1]
    losses, numbers = [loss for e in history for loss in e.losses], [e.number for e in history]
    epochs = torch.linspace(0, len(history), len(losses) + 1)[1:]  # when each batch was finished
    left.plot(epochs, losses, color=PALETTE[5], linewidth=0.6, label="a batch")
    left.plot(numbers, [t.loss for t in tests], color=PALETTE[1], marker="s", label="test set")
    left.set(xlabel="epoch", ylabel="cross-entropy (nats)", yscale="log")
    left.legend()
    right.plot(numbers, [100 * t.accuracy for t in tests], color=PALETTE[0], marker="o")
    right.set(xlabel="epoch", ylabel="test accuracy (%)", xticks=numbers)
    both = zip(history, tests, strict=True)
    said = [f"After epoch {e.number}: test loss {t.loss:.3f}, accuracy {t.accuracy:.1%}." for e, t in both]
    return Drawn(left, "\n".join([said[0], said[-1]]))


def confusion(matrix: torch.Tensor) -> Drawn:
    """Counts `[10, 10]`, row: true digit, column: predicted digit; the right answers on the diagonal are left pale."""
    wrong, texts = matrix.clone().fill_diagonal_(0), [[str(count) for count in row] for row in matrix.tolist()]
    title, sides = "Test images by true and predicted digit", {"rows": "true digit", "columns": "predicted digit"}
    sides = {side: (what, range(10)) for side, what in sides.items()}
    drawn = grid(wrong, texts, title=title, label="wrong answers", **sides)
    drawn.axes.figure.set_size_inches(6.4, 5)
    true, predicted = divmod(int(wrong.argmax()), 10)
    return drawn._replace(says=f"The commonest: {wrong.max()} times a {true} was taken for a {predicted}.")


def mistakes(images: torch.Tensor, labels: torch.Tensor, answers: torch.Tensor, confidence: torch.Tensor) -> Drawn:
    """Images `[N, 28, 28]` over which stands what they are, what they were taken for, and how certainly."""
    found = zip(labels.tolist(), answers.tolist(), confidence.tolist(), strict=True)
    return pictures(images, [f"{t} → {a} ({c:.0%})" for t, a, c in found], columns=7)


def weights(before: torch.Tensor, after: torch.Tensor, count: int = 10) -> Drawn:
    """The first `count` hidden units' weights `[H, 784]`, before the training and after it, as pictures."""
    both = torch.stack([before[:count], after[:count]]).unflatten(-1, (28, 28))
    drawn = pictures(both.flatten(0, 1), [], columns=count, names=("before", "after"), colorbar="weight")
    least, most = both.abs().amax((1, 2, 3)).tolist()
    return drawn._replace(says=f"The largest of these weights was {least:.2g}, and is {most:.2g} after the training.")


def _batches(sizes: Sequence[int], pixels: int, classes: int) -> Batches:
    """Random ones on the device, each harder than the one before, so that their means differ."""
    device = pick_device()
    drawn = [((1 + 3 * k) * torch.randn(n, pixels), torch.randint(classes, (n,))) for k, n in enumerate(sizes)]
    return [(images.to(device), labels.to(device)) for images, labels in drawn]


def _trainings() -> Iterator[tuple[nn.Module, torch.optim.Optimizer, Batches]]:
    """A small network, its optimizer, and four batches for it."""
    for momentum in (0.0, 0.9, 0.5):
        pixels, hidden, classes = random.randrange(2, 20), random.randrange(1, 12), random.randrange(2, 7)
        batches = _batches([random.randrange(1, 9) for _ in range(4)], pixels, classes)
        layers = nn.Linear(pixels, hidden), nn.Tanh(), nn.Linear(hidden, classes)
        model = nn.Sequential(*layers).to(batches[0][0].device)
        yield model, torch.optim.SGD(model.parameters(), lr=0.2, momentum=momentum), batches


def _trained(step: Callable, model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches) -> tuple:
    """Losses, weights after them, how many losses are bare numbers on the device, and how often Python waited for one.

    Bare: without a graph. `step` gets the model, its optimizer, images and labels.
    """
    with Operations() as operations:
        losses = [step(model, optimizer, *batch) for batch in batches]
    tensors = [loss for loss in losses if isinstance(loss, torch.Tensor)]
    bare = sum((loss.device, loss.dim(), loss.requires_grad) == (batches[0][0].device, 0, False) for loss in tensors)
    values = torch.stack([torch.as_tensor(loss).detach().cpu() for loss in losses])
    return values, parameters_to_vector(model.parameters()).detach(), bare, operations.fetches()


def _plain(model: nn.Module, optimizer: torch.optim.Optimizer, *batch: torch.Tensor) -> torch.Tensor:
    return make_step(model, optimizer)(*batch)


def _keeping_gradients(model: nn.Module, optimizer: torch.optim.Optimizer, *batch: torch.Tensor) -> torch.Tensor:
    optimizer.zero_grad = lambda: None
    return make_step(model, optimizer)(*batch)


def _why(model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches, found: tuple) -> str | None:
    _, weights, bare, fetched = found
    if same(weights, parameters_to_vector(model.parameters())):
        return "No weight has changed: is there a gradient when the optimizer is to use it, and does it use it?"
    if fetched:
        return "By .item(), float() or an if, a number is fetched from the device: Python waits for it in every step."
    if bare < len(batches):
        return "A step gives its loss as a tensor without its graph: who keeps the loss would keep that as well."


def _passes() -> Iterator[tuple[nn.Module, Batches]]:
    some = [random.randrange(20, 40)] * 3 + [random.randrange(1, 10)]
    for sizes, training in product([[7, 7, 7, 2], [30, 1], [5], [1, 1], some, [3, 9, 4]], (True, False)):
        batches = _batches(sizes, 6, 4)
        model = nn.Sequential(nn.Linear(6, 11), nn.ReLU(), nn.Dropout(0.5), nn.Linear(11, 4)).to(batches[0][0].device)
        yield model.train(training), batches


def _passed(answer: Callable, model: nn.Module, batches: Batches) -> tuple:
    """The mean that is given, the passes in the mode for training, those that record gradients, and the mode after."""
    passes = []  # was it in its mode for training, and were gradients recorded?
    model.register_forward_hook(lambda model, *_: passes.append((model.training, torch.is_grad_enabled())))
    found = torch.as_tensor(answer(model, batches)).detach().cpu()
    return found, sum(mode for mode, _ in passes), sum(recorded for _, recorded in passes), model.training


def _mean(combine: Callable) -> Callable:
    """What gives the same of a mean that is made from the batches' own means and sizes, and does all else right."""

    def passed(model: nn.Module, batches: Batches) -> tuple:
        means = torch.tensor([evaluate(model, [batch]).loss for batch in batches])
        return combine(means, torch.tensor([len(labels) for _, labels in batches])), 0, 0, model.training

    return passed


def _why_no_mean(model: nn.Module, batches: Batches, found: tuple) -> str | None:
    _, training, recorded, mode = found
    if training:
        return "In its mode for training the model's dropout leaves out other units at every call."
    if recorded:
        return "Gradients were recorded: the activations of all batches are kept for a backward pass."
    if mode != model.training:
        return "The model has to be left in the mode in which it came."


EXERCISES = (
    Exercise("04.1", MEND, "A step that learns nothing", compared(
        partial(_trained, _plain), _trainings, run=_trained, why=_why,
        given=lambda model, optimizer, batches: f"{len(batches)} steps with momentum {optimizer.defaults['momentum']} "
                                                "(losses, weights, losses without a graph, numbers fetched)",
        hints=[(partial(_trained, _keeping_gradients), "The gradients of the steps before are still in each step's.")],
    )),
    Exercise("04.3", MEND, "The mean of a pass", compared(
        _mean(lambda means, sizes: (means * sizes).sum() / sizes.sum()), _passes, run=_passed, why=_why_no_mean,
        given=lambda model, batches: f"Batches of {[len(labels) for _, labels in batches]} (the mean, passes in the "
                                     "mode for training, passes that record gradients, the mode after)",
        hints=[
            (_mean(lambda means, sizes: means.mean()), "Images of a small batch count for more than others."),
            (_mean(lambda means, sizes: (means * sizes).mean()), "That is the sum over the number of batches."),
            (_mean(lambda means, sizes: means.sum() / sizes.sum()), "Means of batches were added, not of images."),
        ],
    )),
)  # fmt: skip
check = checker(EXERCISES)
