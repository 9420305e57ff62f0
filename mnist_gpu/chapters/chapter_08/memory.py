"""What fills the memory in a training step, counted on any device, byte by byte, and what two remedies cost."""

import weakref
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from mnist_gpu.measuring.drawing import columns
from mnist_gpu.measuring.operations import Operations
from mnist_gpu.torch_private import tree_leaves


class LiveBytes(Operations):
    """The bytes of all tensors made in this context and still there: now, peak, and a history (operation, bytes).

    It looks at PyTorch's storages: what an operation uses inside, and what an allocator holds back, it does not see.
    """

    def __init__(self):
        super().__init__()
        self.now, self.peak, self.history = 0, 0, []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        there = {id(storage) for storage in _storages((args, kwargs))}
        result = super().__torch_dispatch__(operation, types, args, kwargs)
        for storage in _storages(result):
            if id(storage) not in there:
                there.add(id(storage))
                self.count(storage.nbytes())
                weakref.finalize(storage, self.count, -storage.nbytes())
        self.history.append((operation._opname, self.now))
        return result

    def count(self, size: int) -> None:
        """So many bytes more."""
        self.now += size
        self.peak = max(self.peak, self.now)


def _storages(values: object) -> list[torch.UntypedStorage]:
    return [t.untyped_storage() for t in tree_leaves(values) if isinstance(t, torch.Tensor)]


def accumulate(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, parts: int) -> None:
    """Adds the gradient of a batch's mean loss to `.grad`, part by part, each weighted by its share of the batch."""
    for some, theirs in zip(images.chunk(parts), labels.chunk(parts), strict=True):
        (F.cross_entropy(model(some), theirs) * (len(some) / len(images))).backward()


def cost_of_gradient(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, parts: int = 1):
    """What the gradient of a batch in so many parts takes, and the gradient itself, flat. `.grad` is lost.

    peak: of the bytes made. operations: of matrix products only. launched: PyTorch's operations, views included.
    """
    from torch.utils.flop_counter import FlopCounterMode  # here: it imports Triton, which chapter 10 has to do itself

    model.zero_grad()
    with FlopCounterMode(display=False) as counter:  # apart from the bytes: it holds on to modules and their tensors
        accumulate(model, images, labels, parts)
    model.zero_grad()
    with LiveBytes() as live:
        accumulate(model, images, labels, parts)
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    return {"peak": live.peak, "operations": counter.get_total_flops(), "launched": len(live.history)}, gradient


def costs(found: Mapping[int, tuple[dict[str, int], torch.Tensor]], pieces: str) -> str:
    """What gradients take, by the number of `pieces`, against the first of them."""
    (whole, right), *_ = found.values()
    rows = []
    for count, (cost, gradient) in found.items():
        off = (gradient - right).abs().max() / right.abs().max()
        rows.append((count, *(f"{cost[name] / whole[name]:.2f}x" for name in whole), f"{off:.0e}"))
    return columns([pieces, *whole, "gradient differs by"], rows)
