"""The canonical training loop. It is written once; what varies is chosen before it starts.

- `batches`: an iterable of `(images, labels)` on the model's device; one pass is one epoch (mnist_gpu.data).
- `step(images, labels) -> loss`: one optimization step. It returns a fresh, detached 0-d tensor on the device, the
  batch's mean cross-entropy in nats, and never waits for the device.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from mnist_gpu.checks import at_least_one
from mnist_gpu.device import synchronize


@dataclass(frozen=True)
class Epoch:
    """What one pass over the batches gave."""

    number: int  # counted from 1
    losses: list[float]  # the mean loss of every batch, in nats
    logged: list[float]  # the means that were logged, one every log_every batches
    images: int
    seconds: float


class Evaluation(NamedTuple):
    """How well the model does on labelled images."""

    loss: float  # mean cross-entropy, in nats
    accuracy: float  # share of right answers, 0 to 1


class LossNotFinite(ArithmeticError):
    """The training loss became NaN or infinite."""


def print_loss(epoch: int, i: int, loss: float) -> None:
    """The textbook's log line."""
    print(f"[{epoch}, {i:5d}] loss: {loss:.3f}")


def make_step(model: nn.Module, optimizer: torch.optim.Optimizer, autocast=None) -> Callable:
    """The plain step: forward, loss, backward, update. `autocast` is a context such as torch.autocast(...)."""
    autocast = autocast or contextlib.nullcontext()

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        with autocast:
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def train(model, step, batches, *, epochs=1, log_every=100, log=print_loss, history=None) -> list[Epoch]:
    """Trains for `epochs` passes over `batches`, and returns the history: one Epoch a pass. May raise LossNotFinite.

    Pass a list as `history` to go on from where it ends, and to keep the finished epochs if one is interrupted.
    """
    at_least_one(epochs=epochs, log_every=log_every)
    history = [] if history is None else history
    device = next(model.parameters()).device
    for epoch in range(len(history) + 1, len(history) + epochs + 1):
        model.train()
        losses, logged, n, start = [], [], 0, now(device)
        for i, (images, labels) in enumerate(batches, start=1):
            losses.append(step(images, labels))  # stays on the device: .item() here would wait for it every step
            n += len(labels)
            if i % log_every == 0:
                logged.append(finite_mean(losses[-log_every:], epoch, i))  # the one wait per log_every steps
                log(epoch, i, logged[-1])
        finite_mean(losses, epoch, len(losses))  # an epoch may end between two log points
        seconds = now(device) - start
        history.append(Epoch(epoch, torch.stack(losses).tolist(), logged, n, seconds))
    return history


def now(device: torch.device) -> float:
    """The time in seconds, as soon as `device` has done all that it was given."""
    synchronize(device)
    return time.perf_counter()


def finite_mean(losses: list[torch.Tensor], epoch: int, i: int) -> float:
    """The mean of 0-d tensors as a number. Raises LossNotFinite if it is none, ValueError if there are no losses."""
    if not losses:
        raise ValueError("batches yielded nothing: one pass over it must give at least one (images, labels)")
    if math.isfinite(mean := torch.stack(losses).mean().item()):
        return mean
    raise LossNotFinite(
        f"the loss is {mean} at epoch {epoch}, step {i}. Finished epochs are in the history. Usual causes: a learning "
        f"rate that is too high (try a tenth of it), images that are not normalized, too little precision."
    )


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable) -> Evaluation:
    """How well `model` does on one pass of `batches`; it is left in its mode."""
    training, images_seen = model.training, 0
    loss = right = 0.0  # become tensors on the device; read once, at the end
    model.eval()
    for images, labels in batches:
        logits = model(images)
        loss += F.cross_entropy(logits, labels, reduction="sum")
        right += (logits.argmax(1) == labels).sum()
        images_seen += len(labels)
    model.train(training)
    return Evaluation(float(loss) / images_seen, float(right) / images_seen)
