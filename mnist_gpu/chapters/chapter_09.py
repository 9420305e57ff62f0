"""Chapter 09, Memory and overlap: the bytes that are there, counted on any device, and the exercises' checks."""

import random
import weakref
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch.nn.utils import parameters_to_vector

from mnist_gpu.measuring.exercises import MEND, Exercise, Wrong, checker, in_time, same
from mnist_gpu.measuring.operations import Operations
from mnist_gpu.model import make_model
from mnist_gpu.torch_private import tree_leaves


class LiveBytes(Operations):
    """The bytes of all storages made in this context and still there: now, peak, and a history (operation, bytes)."""

    def __init__(self):
        super().__init__()
        self.now, self.peak, self.history = 0, 0, []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        there = {id(storage) for storage in _storages((args, kwargs))}
        result = super().__torch_dispatch__(operation, types, args, kwargs)
        for storage in _storages(result):
            if id(storage) not in there:
                there.add(id(storage))
                self._count(storage.nbytes())
                weakref.finalize(storage, self._count, -storage.nbytes())
        self.history.append((operation._opname, self.now))
        return result

    def _count(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)


def _storages(values: object) -> list[torch.UntypedStorage]:
    return [t.untyped_storage() for t in tree_leaves(values) if isinstance(t, torch.Tensor)]


def _in_parts(answer: Callable) -> str:
    for n, parts in ((12, 3), (44, 7), (9, 9), (10, 1), (random.randrange(20, 60), random.randrange(2, 20))):
        model, images, labels = make_model(9).double(), torch.rand(n, 1, 28, 28).double(), torch.randint(10, (n,))
        weights, turns = list(model.parameters()), []
        right, *each = (
            parameters_to_vector(torch.autograd.grad(F.cross_entropy(model(images[at]), labels[at]), weights))
            for at in (torch.arange(n), *torch.arange(n).tensor_split(parts))
        )
        hints = (
            (right + 1, "What was in .grad before is still in it."),
            (each[-1], "Only the last part's gradient is left. What resets the others?"),
            (sum(each), "The means of all parts are added up."),
            (right * n, "It is the gradient of the images' sum, not of their mean."),
            (sum(each) / parts, "The parts' means count the same, whatever their size."),
        )
        for p in weights:
            p.grad = torch.ones_like(p)
        model.register_forward_pre_hook(lambda _, given, turns=turns: turns.append(len(given[0])))
        model.output.weight.register_hook(lambda _, turns=turns: turns.append(0))
        in_time(answer, model, images, labels, parts)
        if max(turns, default=0) > -(-n // parts) or any(turns[1::2]) or len(turns) % 2:
            got = f"{n} images, parts: {parts}. The model got {turns} images, where 0 is a backward pass."
            raise Wrong(f"{got} So the activations of more than a part are kept at once.")
        found = parameters_to_vector([torch.zeros_like(p) if p.grad is None else p.grad for p in weights])
        if not same(found, right):
            hint = next((hint for other, hint in hints if same(found, other)), "It is another gradient.")
            raise Wrong(f"{n} images, parts: {parts}. {hint}")
    return "It is the gradient of the whole batch, whatever the parts."


class _Copies:
    """A queue of copies, each of which reads its source as late as it may, and the batches that are made meanwhile."""

    def __init__(self, batches: torch.Tensor):
        self.batches, self.asked, self.done = batches, [], 0

    def __iter__(self):
        for i, batch in enumerate(self.batches):
            if i and self.done == len(self.asked):
                raise Wrong("A batch is made while no copy is under way: the two take turns.")
            yield batch.clone()

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> SimpleNamespace:
        self.asked.append((target, source))
        return SimpleNamespace(synchronize=partial(self.land, len(self.asked)))

    def land(self, until: int) -> None:
        for target, source in self.asked[self.done : until]:
            target.copy_(source)
        self.done = max(self.done, until)


def _uploaded(answer: Callable) -> str:
    for n in (1, 2, 3, 9, random.randrange(4, 9)):
        buffers, targets, copies = torch.zeros(2, 5), torch.zeros(n, 5), _Copies(torch.rand(n, 5))
        in_time(answer, copies, list(buffers), list(targets), copies.copy)
        copies.land(len(copies.asked))
        if any(source.untyped_storage().data_ptr() != buffers.data_ptr() for _, source in copies.asked):
            raise Wrong("A copy starts from other memory than the two pinned buffers.")
        if wrong := [i for i in range(n) if not torch.equal(targets[i], copies.batches[i])]:
            raise Wrong(f"Of {n}, batch {wrong[0]} does not arrive. Was its buffer filled again before it was copied?")
    return "Every batch arrives, and is copied while the next one is made."


EXERCISES = (
    Exercise("09.1", MEND, "A large batch in parts", _in_parts),
    Exercise("09.2", MEND, "A buffer that is filled too early", _uploaded),
)
check = checker(EXERCISES)
