"""What fills the memory in a training step, counted on any device, byte by byte, and what two remedies cost."""

import weakref
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn

from mnist_gpu.measuring.drawing import PALETTE, Drawn, columns, number
from mnist_gpu.measuring.operations import Operations
from mnist_gpu.torch_private import tree_leaves


def counted(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> int:
    """The bytes that autograd keeps of a batch's loss for the backward pass, each storage counted once.

    Parameters and batch are there anyway, and not counted.
    """
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = F.cross_entropy(model(images), labels)
    del loss  # only now, or its memory could be given out again, and counted twice
    there = {t.untyped_storage().data_ptr() for t in (*model.parameters(), images, labels)}
    return sum(size for address, size in kept.items() if address not in there)


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
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage.nbytes())
        self.peak = max(self.peak, self.now)
        self.history.append((operation._opname, self.now))
        return result

    def _gone(self, size: int) -> None:
        self.now -= size


def _storages(values: object) -> list[torch.UntypedStorage]:
    return [t.untyped_storage() for t in tree_leaves(values) if isinstance(t, torch.Tensor)]


def live_bytes(history: Sequence[tuple[str, int]], kept: int, title: str) -> Drawn:
    """The bytes of a training step's tensors after each of its operations; `kept`, which stay, are below them."""
    axis = plt.subplots(figsize=(8, 3.2))[1]
    xs, ys = range(len(history)), [(kept + size) / 1e6 for _, size in history]
    axis.fill_between(xs, kept / 1e6, ys, step="mid", color=PALETTE[5], alpha=0.6, label="made in the step")
    axis.fill_between(xs, 0, kept / 1e6, color=PALETTE[0], alpha=0.6, hatch="//", label="there before it")
    top = max(xs, key=ys.__getitem__)
    name = history[top][0]
    axis.annotate(name, (top, ys[top]), (0, 4), textcoords="offset points", fontsize=8, ha="center")
    axis.set(xlabel="operation of the step, in order", ylabel="MB", title=title, ylim=(0, 1.35 * max(ys)))
    axis.legend(loc="upper right", fontsize=8, ncols=2)
    says = f"The most: {number(ys[top])} MB, at the operation {name}, of which {number(kept / 1e6)} were there."
    return Drawn(axis, says)


def accumulate(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, parts: int) -> None:
    """The gradient of a batch's mean loss, added to the parameters' `.grad`, a part of the batch at a time.

    Each part's mean is weighted by its share of the batch, so that the sum is the mean, whatever the parts' sizes.
    """
    for some, theirs in zip(images.chunk(parts), labels.chunk(parts), strict=True):
        (F.cross_entropy(model(some), theirs) * (len(some) / len(images))).backward()


def cost_of_gradient(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, parts: int = 1):
    """What the gradient of a batch in so many parts takes, and the gradient itself, flat. `.grad` is lost.

    kept: bytes, from the forward to the backward pass (of the last part). peak: bytes that were made, at most at once;
    the gradients are among them. operations: of matrix products alone. launched: PyTorch's operations, views included.
    """
    from torch.utils.flop_counter import FlopCounterMode  # here: it imports Triton, which chapter 09 has to do itself

    kept = counted(model, images.chunk(parts)[-1], labels.chunk(parts)[-1])
    model.zero_grad()
    with FlopCounterMode(display=False) as counter:  # apart from the bytes: it holds on to modules and their tensors
        accumulate(model, images, labels, parts)
    model.zero_grad()
    with LiveBytes() as live:
        accumulate(model, images, labels, parts)
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    operations, launched = counter.get_total_flops(), len(live.history)
    return {"kept": kept, "peak": live.peak, "operations": operations, "launched": launched}, gradient


def costs(found: Mapping[int, tuple[dict[str, int], torch.Tensor]], pieces: str) -> str:
    """What gradients take, by the number of `pieces`, against the first of them."""
    (whole, right), *_ = found.values()
    rows = []
    for count, (cost, gradient) in found.items():
        off = (gradient - right).abs().max() / right.abs().max()
        rows.append((count, *(f"{cost[name] / whole[name]:.2f}x" for name in whole), f"{off:.0e}"))
    return columns([pieces, *whole, "gradient differs by"], rows)
