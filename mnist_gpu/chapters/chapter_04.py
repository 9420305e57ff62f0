"""Chapter 04, the training loop: the figure of a training, and the checks of its exercises."""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector
from torch.overrides import TorchFunctionMode

from mnist_gpu.device import pick_device
from mnist_gpu.measuring.drawing import PALETTE, Drawn
from mnist_gpu.measuring.exercises import MEND, Exercise, checker, compared, in_time, same
from mnist_gpu.training import Epoch, Evaluation, evaluate, make_step

READS = {"item", "cpu", "tolist", "numpy", "equal", "nonzero", "__array__", "__bool__", "__float__", "__int__"}
READS |= {"__index__", "__format__", "__repr__"}


def curves(history: Sequence[Epoch], validated: Sequence[Evaluation]) -> Drawn:
    """The training loss of every batch, and the validation set's after every epoch; its accuracy is in the sentence."""
    axis = plt.subplots()[1]
    losses, numbers = [loss for e in history for loss in e.losses], [e.number for e in history]
    epochs = torch.linspace(0, len(history), len(losses) + 1)[1:]  # when each batch was finished
    axis.plot(epochs, losses, color=PALETTE[5], linewidth=0.6, label="a batch of the training set")
    axis.plot(numbers, [v.loss for v in validated], color=PALETTE[1], marker="s", label="the validation set")
    axis.set(xlabel="epoch", ylabel="cross-entropy (nats)", yscale="log", xticks=numbers)
    axis.legend()
    said = [f"Epoch {n}: validation loss {v.loss:.3f}, accuracy {v.accuracy:.1%}." for n, v in enumerate(validated, 1)]
    return Drawn(axis, "\n".join([said[0], said[-1]]))


class Watch(TorchFunctionMode):
    """Notes how a program of so many steps reads values, for which Python waits, in other steps than every 100th."""

    def __init__(self, steps: int):
        super().__init__()
        self.steps, self.step, self.reads = steps, 0, set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        self.step += name == "cross_entropy"  # each step has one, before there is a loss to be read
        name = "cpu" if name == "to" and "cpu" in [*args[1:], *(kwargs or {}).values()] else name
        if self.step % 100 and self.step < self.steps and name in READS:
            self.reads.add(name)
        return function(*args, **(kwargs or {}))


def _batches(sizes: Sequence[int], pixels: int, classes: int) -> list:
    """Random ones on the device, each harder than the one before, so that their means differ."""
    device = pick_device()
    drawn = [((1 + k % 50 * 3) * torch.randn(n, pixels), torch.randint(classes, (n,))) for k, n in enumerate(sizes)]
    return [(images.to(device), labels.to(device)) for images, labels in drawn]


def _trainings(*counts: int) -> Iterator[tuple[nn.Module, torch.optim.Optimizer, list]]:
    """A small network, its optimizer, and so many batches for it."""
    for count, momentum in zip(counts, (0.0, 0.9, 0.5), strict=True):
        pixels, hidden, classes = (random.randrange(2, most) for most in (20, 12, 7))
        batches = _batches([random.randrange(1, 9) for _ in range(count)], pixels, classes)
        model = nn.Sequential(nn.Linear(pixels, hidden), nn.Tanh(), nn.Linear(hidden, classes)).to(pick_device())
        yield model, torch.optim.SGD(model.parameters(), lr=0.2, momentum=momentum), batches


def _trained(answer: Callable, model: nn.Module, optimizer: torch.optim.Optimizer, batches: list) -> tuple:
    """The numbers in the rows that `answer` gives, the weights after it, and what is wrong with how it got there."""
    before, wrong = parameters_to_vector(model.parameters()).detach(), ""
    with Watch(len(batches)) as watch:
        given = [x for row in answer(model, optimizer, batches) for x in row]
    weights = parameters_to_vector(model.parameters()).detach()
    if same(weights, before):
        wrong = "No weight has changed: is there a gradient when the optimizer needs it, and does it use it?"
    elif watch.reads:
        wrong = f"Python waits in too many steps: it calls {', '.join(sorted(watch.reads))} (print calls __repr__)."
    elif any(torch.is_tensor(x) and x.requires_grad for x in given):
        wrong = "A loss with its graph keeps all that the graph needs: every activation."
    return torch.tensor([float(torch.as_tensor(x).detach()) for x in given]), weights, wrong


def _losses(model: nn.Module, optimizer: torch.optim.Optimizer, batches: list, keep: bool = False) -> list:
    """Of right steps; with `keep`, of steps that add their gradients to those of the steps before."""
    optimizer.zero_grad = (lambda: None) if keep else optimizer.zero_grad
    return [[make_step(model, optimizer)(*batch)] for batch in batches]


def _reports(model: nn.Module, optimizer: torch.optim.Optimizer, batches: list) -> list:
    hundreds = torch.tensor(_losses(model, optimizer, batches)).split(100)
    return [[h.mean().item(), h.max().item()] for h in hundreds if len(h) == 100]


def _passes() -> Iterator[tuple[nn.Module, list]]:
    for i, sizes in enumerate([[7, 7, 7, 2], [30, 1], [5], [1, 1], [25, 25, 4], [3, 9, 4]] * 2):
        batches = _batches(sizes, 6, 4)
        model = nn.Sequential(nn.Linear(6, 11), nn.ReLU(), nn.Dropout(0.5), nn.Linear(11, 4)).to(batches[0][0].device)
        yield model.train(i < 6), batches


def _passed(answer: Callable, model: nn.Module, batches: list) -> tuple:
    """The mean that is given, and what is wrong with how it was found."""
    before, passes = model.training, []  # of each: was it in training mode, and were gradients recorded?
    model.register_forward_hook(lambda model, *_: passes.append((model.training, torch.is_grad_enabled())))
    found, wrong = torch.as_tensor(answer(model, batches)).detach().cpu(), ""
    if any(training for training, _ in passes):
        wrong = "In training mode the model's dropout leaves out other units at every call."
    elif any(recorded for _, recorded in passes):
        wrong = "Gradients were recorded: the activations of all batches are kept for a backward pass."
    elif model.training != before:
        wrong = "The model has to be left in the mode in which it came."
    return found, wrong


EXERCISES = (
    Exercise("04.1", MEND, "A step that learns nothing", compared(
        partial(_trained, _losses), partial(_trainings, 4, 4, 4),
        run=lambda step, *training: in_time(_trained, lambda m, o, all_: [[step(m, o, *b)] for b in all_], *training),
        given=lambda _model, _sgd, batches: f"{len(batches)} steps (their losses, the weights, what is wrong)",
        hints=[(partial(_trained, partial(_losses, keep=True)), "The gradients of the steps before are still there.")],
    )),
    Exercise("04.2", MEND, "The hidden waits", compared(
        partial(_trained, _reports), partial(_trainings, 203, 99, 100), run=partial(in_time, _trained, seconds=10.0),
        given=lambda _model, _sgd, batches: f"{len(batches)} steps (the reports, the weights, what is wrong)",
    )),
    Exercise("04.3", MEND, "The mean of a pass", compared(
        partial(_passed, lambda *pass_: evaluate(*pass_).loss), _passes, run=partial(in_time, _passed),
        given=lambda _model, batches: f"Batches of {[len(labels) for _, labels in batches]} (the mean, what is wrong)",
        why=lambda _model, _batches, found: "Every image counts once: add them all, then divide." * (not found[1]),
    )),
)  # fmt: skip
check = checker(EXERCISES)
