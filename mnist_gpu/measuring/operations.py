"""What a training step computes and moves: counted by formula, or operation by operation as PyTorch is asked for it."""

from typing import NamedTuple

import torch

from mnist_gpu.model import CLASSES, PIXELS, parameter_count
from mnist_gpu.torch_private import TorchDispatchMode, tree_leaves


class Operation(NamedTuple):
    """One of PyTorch's operations, as it was called."""

    name: str
    bytes: int  # of the tensors that it reads and writes
    is_view: bool  # which computes and moves nothing


class Operations(TorchDispatchMode):
    """Collects in `seen` the operations that run while it is entered: on a GPU each is a kernel at least, or a view."""

    def __init__(self):
        super().__init__()
        self.seen: list[Operation] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if operation.namespace != "profiler":
            written = args[0] if result is None else result  # in place on a list of tensors: nothing is returned
            tensors = [t for t in tree_leaves((args, kwargs, written)) if isinstance(t, torch.Tensor)]
            self.seen.append(Operation(operation._opname, sum(t.nbytes for t in tensors), operation.is_view))
        return result


def step_flops(batch_size: int = 128, hidden: int = 128) -> tuple[int, int]:
    """Floating-point operations of one training step: (forward, backward), matrix products alone.

    A product of [m, k] and [k, n] counts 2 m k n. Backward has one for each layer's weight gradient, as large as in the
    forward pass, and one for the gradient of the hidden activations, but none for the images'.
    """
    first, second = 2 * batch_size * PIXELS * hidden, 2 * batch_size * hidden * CLASSES
    return first + second, first + second + second


def step_bytes(batch_size: int = 128, hidden: int = 128) -> int:
    """Bytes that one training step in float32 reads and writes if every operation goes to memory for its operands."""
    images, activations, logits = batch_size * PIXELS, batch_size * hidden, batch_size * CLASSES
    linear_1 = images + PIXELS * hidden + hidden + activations  # as many for its weights' gradient
    linear_2 = activations + hidden * CLASSES + CLASSES + logits  # as many for both of its gradients
    forward = linear_1 + 2 * activations + linear_2 + 2 * logits  # linear, ReLU, linear, softmax and loss
    backward = 2 * logits + 2 * linear_2 + 3 * activations + linear_1  # a ReLU's reads two tensors and writes one
    update = (2 + 3 + 3) * parameter_count(hidden)  # scale the momentum, add the gradient, update the parameter
    return 4 * (forward + backward + update)
