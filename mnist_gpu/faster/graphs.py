"""CUDA graphs: the kernels of a step, or of an epoch, recorded once and then launched with one call, without Python.

A graph replays them at the same memory addresses, with the same numbers of the host: shapes and lr are frozen.
"""

import contextlib
import functools
import gc
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster.whole_epoch import WholeEpoch

WARMUP = 3  # calls before a capture: libraries choose their algorithms and allocate their workspaces in the first ones


@contextlib.contextmanager
def _finally(clean_up: Callable[[], object]) -> Iterator[None]:
    """Cleans up afterwards; if both fail, the first error is raised: after it CUDA refuses all, and says no reason."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):
            clean_up()
        raise
    clean_up()


@contextlib.contextmanager
def restored(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Afterwards weights, buffers and momentum (a new one: zero) are as before, in the same memory, as a graph needs.

    For SGD without dampening: the state of other optimizers does not start at zero, or the host reads it.
    """

    def momenta() -> list[torch.Tensor]:
        return [state["momentum_buffer"] for state in optimizer.state.values()]

    tensors = [*model.parameters(), *model.buffers(), *momenta()]
    saved = [t.detach().clone() for t in tensors]

    @torch.no_grad()
    def restore():
        optimizer.zero_grad()
        for momentum in momenta():  # new ones stay zero
            momentum.zero_()
        for tensor, value in zip(tensors, saved, strict=True):
            tensor.copy_(value)

    with _finally(restore):
        yield


def record(function: Callable, *, calls: int = 1, warm_up: Callable | None = None) -> Callable[[], None]:
    """Captures the CUDA kernels of so many calls of `function`, and returns what launches them all, at once.

    The capture runs nothing. Before it, `warm_up` (by default `function`) is called WARMUP times. Every capture has a
    new stream, since a graph has the address of its stream's cuBLAS workspace, which others could free.
    """
    before, collecting = torch.cuda.current_stream(), gc.isenabled()
    warming, capturing, graph = torch.cuda.Stream(), torch.cuda.Stream(), torch.cuda.CUDAGraph()
    warming.wait_stream(before)
    with torch.cuda.stream(warming):  # what autograd ties to the default stream could not be captured
        for _ in range(WARMUP):
            (warm_up or function)()
    before.wait_stream(warming)
    gc.disable()  # an old graph or Triton kernel that is collected during a capture makes CUDA refuse the capture
    try:
        with torch.cuda.stream(before):  # since torch.cuda.graph leaves its own as the current one if the capture fails
            recording = torch.cuda.graph(graph, stream=capturing)
            recording.__enter__()
            with _finally(lambda: recording.__exit__(None, None, None)):
                for _ in range(calls):
                    function()
    finally:
        if collecting:
            gc.enable()

    replay = functools.partial(graph.replay)
    replay.function = function  # keeps its tensors, of which the graph has the addresses only
    return replay


def _graph_of(function: Callable, inputs: Sequence, model: nn.Module, optimizer, warm_up=None) -> Callable:
    """`function(*inputs)` as a graph that trains `model` when it is called; ValueError if the optimizer has changed."""
    at, result = [t.clone() for t in inputs], None  # the addresses that the graph reads from, and writes to
    frozen = [dict(group) for group in optimizer.param_groups]

    def once() -> None:
        nonlocal result
        result = function(*at)

    def warming() -> None:
        (warm_up or once)()
        optimizer.zero_grad()  # so that the capture allocates the gradients in the graph's own memory

    with restored(model, optimizer):
        replay = record(once, warm_up=warming)

    def call(*given: torch.Tensor) -> torch.Tensor:
        for now, then in zip(optimizer.param_groups, frozen, strict=True):
            if changed := ", ".join(f"{k} from {then[k]} to {now[k]}" for k in now if now[k] != then[k]):
                raise ValueError(f"after the capture the optimizer's settings changed: {changed}. Capture again")
        for kept, new in zip(at, given, strict=True):
            kept.copy_(new, non_blocking=True)
        replay()
        return result.clone()  # the next replay overwrites the graph's own

    return call


def capture(step: Callable, model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable:
    """`step` as a CUDA graph under the same contract, captured at the first call, on that batch's shapes.

    A batch of another kind, as the last one of a pass, runs the plain step. `step` may read no tensor on the host.
    """
    graph = kind = None

    def captured(*batch: torch.Tensor) -> torch.Tensor:
        nonlocal graph, kind
        given = [(t.shape, t.dtype, t.device) for t in batch]
        if graph is None:
            graph, kind = _graph_of(step, batch, model, optimizer), given
        return (graph if given == kind else step)(*batch)

    return captured


class EpochGraph(WholeEpoch):
    """A whole epoch as one CUDA graph: gathering, normalizing and training on every batch, the last one included.

    A pass copies the permutation in, and launches the graph. Arguments are those of `capture`.
    """

    def __init__(self, step: Callable, model: nn.Module, optimizer: torch.optim.Optimizer, batches: DeviceBatches):
        super().__init__(batches)
        self.training, self.graph = (step, model, optimizer), None

    def run(self, drawn: Sequence[torch.Tensor]) -> torch.Tensor:
        permutation = torch.cat(drawn)
        if self.graph is None:
            (step, *trained), batches, sizes = self.training, self.batches, [len(index) for index in drawn]

            def epoch(permutation):  # without self, which has the graph, which keeps this: a cycle
                losses = torch.empty(len(sizes), device=permutation.device)
                for i, index in enumerate(permutation.split(sizes)):
                    losses[i].copy_(step(*batches.batch(index)))
                return losses

            few = {len(index): index for index in drawn}.values()  # one of every size
            self.graph = _graph_of(epoch, [permutation], *trained, lambda: [step(*batches.batch(i)) for i in few])
        return self.graph(permutation)
