"""What fills the memory in a training step: derived by formula, and counted on any device, byte by byte.

Weights, gradients and momentum stay. Activations are what the forward pass keeps for the backward pass. Two remedies
where they are too many: gradient accumulation and activation checkpointing.
"""

import weakref
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint_sequential
from torch.utils.flop_counter import FlopCounterMode

from mnist_gpu.checks import at_least_one
from mnist_gpu.model import CLASSES, PIXELS, parameter_count


class Held(NamedTuple):
    """Bytes that a training step in float32 holds."""

    weights: int
    gradients: int
    momentum: int
    activations: int  # that the backward pass will need, without the images and the labels


def derived(batch_size: int = 128, hidden: int = 128) -> Held:
    """By formula, for the 784-hidden-10 network and SGD with momentum; 4 bytes a number.

    The backward pass needs, of each image, the output of ReLU (hidden numbers: where it is above zero, and as the input
    of the second layer) and the logarithms of the probabilities (10 numbers); and the loss keeps one number, the sum of
    the images' weights.
    """
    at_least_one(batch_size=batch_size, hidden=hidden)
    parameters = 4 * parameter_count(hidden)
    return Held(parameters, parameters, parameters, 4 * (batch_size * (hidden + CLASSES) + 1))


def saved_bytes(forward: Callable[[], torch.Tensor], known: Iterable[torch.Tensor]) -> int:
    """The bytes that autograd keeps after `forward()` for the backward pass, each storage counted once.

    `known` are tensors that are there anyway, the parameters and the input: their storages are not counted. Counted
    with torch.autograd.graph.saved_tensors_hooks, by which autograd hands over every tensor that it keeps.
    """
    there = {t.untyped_storage().data_ptr() for t in known}
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()  # held until here, or its memory could be given out again, and counted twice
    del result
    return sum(size for address, size in kept.items() if address not in there)


def counted(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> int:
    """`saved_bytes` of the model's loss on a batch."""
    known = [*model.parameters(), images, labels]
    return saved_bytes(lambda: F.cross_entropy(model(images), labels), known)


class LiveBytes(TorchDispatchMode):
    """The bytes of all tensors that were made in this context and are still there: `now`, `peak`, and `history`.

    `history` has the live bytes after each operation, with the operation's name. Works on any device, since it looks at
    PyTorch's own storages: what an operation uses inside, and what an allocator holds back, it does not see.
    """

    def __init__(self):
        super().__init__()
        self.now, self.peak, self.history = 0, 0, []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        before = {id(t.untyped_storage()) for t in _tensors((args, kwargs))}
        result = operation(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if id(storage) not in before:
                before.add(id(storage))
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage.nbytes())
        self.peak = max(self.peak, self.now)
        self.history.append((operation._opname, self.now))
        return result

    def _gone(self, size: int) -> None:
        self.now -= size


def _tensors(values: object) -> list[torch.Tensor]:
    return [t for t in tree_leaves(values) if isinstance(t, torch.Tensor)]


def accumulate(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, parts: int) -> None:
    """The gradient of a batch's mean loss, added to the parameters' `.grad`, a part of the batch at a time.

    Each part's mean is weighted by its share of the batch, so that the sum is the mean over the whole batch, whatever
    the sizes of the parts. Raises ValueError for parts that are not from 1 to the number of images.
    """
    at_least_one(parts=parts)
    if parts > len(images):
        raise ValueError(f"parts is {parts}, but must be at most {len(images)}, the number of images")
    for some, theirs in zip(images.chunk(parts), labels.chunk(parts), strict=True):
        (F.cross_entropy(model(some), theirs) * (len(some) / len(images))).backward()


class Price(NamedTuple):
    """What the gradient of one batch takes."""

    kept: int  # bytes, from the forward to the backward pass: of the whole batch, or of the last of its parts
    peak: int  # bytes that were made, at most at once; the gradients are among them
    operations: int  # floating-point operations, matrix products alone
    launched: int  # PyTorch's operations, views included
    gradient: torch.Tensor  # of all parameters, flat


def price(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, parts: int = 1) -> Price:
    """Takes the gradient of a batch in so many parts, three times, and counts. The parameters' `.grad` is lost."""
    some, theirs = images.chunk(parts)[-1], labels.chunk(parts)[-1]
    kept = counted(model, some, theirs)
    model.zero_grad()
    with FlopCounterMode(display=False) as counter:  # apart from the bytes: it holds on to modules and their tensors
        accumulate(model, images, labels, parts)
    model.zero_grad()
    with LiveBytes() as live:
        accumulate(model, images, labels, parts)
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    return Price(kept, live.peak, counter.get_total_flops(), len(live.history), gradient)


class Deep(nn.Module):
    """A network deep enough for checkpointing: 784 inputs, 10 outputs, and 1 + `layers` hidden layers with ReLU.

    The `layers` are cut into `segments` pieces. Of all but the last the activations between them are kept, and those
    within a piece are computed again when the backward pass comes to it (torch.utils.checkpoint).
    Images `[B, 1, 28, 28]` to logits `[B, 10]`.
    """

    def __init__(self, layers: int, hidden: int, segments: int = 1):
        super().__init__()
        at_least_one(layers=layers, hidden=hidden, segments=segments)
        self.first, self.last = nn.Linear(PIXELS, hidden), nn.Linear(hidden, CLASSES)
        self.hidden = nn.Sequential(*(nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU()) for _ in range(layers)))
        self.segments = segments

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = F.relu(self.first(images.flatten(1)))
        return self.last(checkpoint_sequential(self.hidden, self.segments, found, use_reentrant=False))
