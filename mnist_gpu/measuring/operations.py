"""What PyTorch is asked to do: every operation that runs in a context, with the bytes that it touches."""

from typing import NamedTuple

import torch

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
            self.noted(result)
        return result

    def noted(self, result: object) -> None:
        """Gets what an operation has given: for a class of its own."""

    def fetches(self) -> int:
        """How often a number was fetched from a tensor, for which Python waits until the device has computed it."""
        return sum(o.name == "_local_scalar_dense" for o in self.seen)
