"""CUDA graphs: the kernels of a step, or of an epoch, recorded once and from then on launched with one call.

A small network leaves a GPU waiting for Python, which launches its kernels one by one. A graph replays them without
Python, on the same memory addresses and with the same numbers read on the host: shapes and learning rate are frozen.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster.whole_epoch import WholeEpoch

WARMUP = 3  # calls before a capture: libraries choose their algorithms and allocate their workspaces in the first ones


@contextlib.contextmanager
def _finally(clean_up: Callable[[], object]) -> Iterator[None]:
    """Cleans up afterwards. If that fails after an error, the reader sees the first error, with the second as a note.

    After a capture that failed, CUDA refuses the next calls, too, with messages that do not say why.
    """
    try:
        yield
    except BaseException as error:
        try:
            clean_up()
        except Exception as second:
            error.add_note(f"Cleaning up after it failed, too: {type(second).__name__}: {second}")
        raise
    clean_up()


@contextlib.contextmanager
def restored(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Afterwards weights, buffers, the optimizer's state and the random states are as they were before.

    All of it is restored in place, since a graph captured meanwhile refers to these very tensors. State that did not
    exist before (SGD's momentum, before its first step) is set to zero: with no dampening, that is where SGD starts.

    Raises:
        ValueError: another optimizer than SGD, whose state may start elsewhere; or a parameter group with dampening
            that has no momentum yet, since its first step differs from one with a momentum of zero.
    """
    if type(optimizer) is not torch.optim.SGD:
        raise ValueError(
            f"the optimizer is {type(optimizer).__name__}, but must be torch.optim.SGD to capture a CUDA graph: the "
            "state of others does not start at zero, or the host reads it"
        )
    tensors = [t for t in (*model.parameters(), *model.buffers())]
    saved = [t.detach().clone() for t in tensors]
    state = {p: {k: v.clone() for k, v in s.items() if torch.is_tensor(v)} for p, s in optimizer.state.items()}
    if any(group.get("dampening") and p not in state for group in optimizer.param_groups for p in group["params"]):
        raise ValueError("SGD with dampening treats its first step differently: take one step before capturing")
    on_gpu = any(t.is_cuda for t in tensors)
    random = torch.get_rng_state(), torch.cuda.get_rng_state_all() if on_gpu else None

    @torch.no_grad()
    def restore():
        torch.set_rng_state(random[0])  # first what a GPU in trouble cannot refuse
        optimizer.zero_grad()
        for tensor, value in zip(tensors, saved, strict=True):
            tensor.copy_(value)
        for p, values in optimizer.state.items():
            for key, value in values.items():
                if torch.is_tensor(value):
                    value.copy_(state[p][key]) if key in state.get(p, {}) else value.zero_()
        if on_gpu:
            torch.cuda.set_rng_state_all(random[1])

    with _finally(restore):
        yield


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A context in which Python's garbage collector does not run by itself.

    It may run at any allocation of an object. If it then finds an old CUDA graph or a Triton kernel, that is unloaded,
    which CUDA refuses while it captures, and the capture is lost. torch.cuda.graph leaves the collector on. (Nothing is
    collected before, either: that takes a quarter of a second, and there may be dozens of graphs.)
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def record(
    function: Callable[[], object], *, calls: int = 1, warm_up: Callable[[], object] | None = None
) -> Callable[[], None]:
    """Captures the CUDA kernels of so many calls of `function`, and returns what launches them all, at once.

    The capture runs nothing. Before it, `warm_up` (by default `function`) is called WARMUP times.

    Every capture has a stream of its own, in which nothing else ever runs. PyTorch keeps a workspace of cuBLAS for each
    stream, and a graph has its address. In a new stream it is allocated by the capture, in memory that this graph owns.
    In the stream that PyTorch takes for captures, all graphs would share the first one's, which goes when that graph
    does. In the warm-up's stream, it would go when torch.compile records a graph, since that clears all workspaces.
    """
    before = torch.cuda.current_stream()
    warming, capturing, graph = torch.cuda.Stream(), torch.cuda.Stream(), torch.cuda.CUDAGraph()
    warming.wait_stream(before)
    with torch.cuda.stream(warming):  # what autograd ties to the default stream could not be captured
        for _ in range(WARMUP):
            (warm_up or function)()
    before.wait_stream(warming)
    # The outer stream, since torch.cuda.graph leaves its own as the current one if the capture fails.
    with torch.cuda.stream(before), _no_garbage_collection():
        recording = torch.cuda.graph(graph, stream=capturing)
        recording.__enter__()
        with _finally(lambda: recording.__exit__(None, None, None)):
            for _ in range(calls):
                function()

    def replay() -> None:
        graph.replay()

    replay.function = function  # keeps its tensors, of which the graph has the addresses only
    return replay


def _frozen(optimizer: torch.optim.Optimizer) -> list[dict]:
    """The settings that a graph freezes: learning rate, momentum and the like of every parameter group."""
    return [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]


def _check_frozen(optimizer: torch.optim.Optimizer, frozen: list[dict]) -> None:
    for now, then in zip(_frozen(optimizer), frozen, strict=True):
        if now != then:
            changed = ", ".join(f"{k} from {then[k]} to {now[k]}" for k in now if now[k] != then.get(k))
            raise ValueError(
                f"the optimizer changed after the capture ({changed}), which a graph ignores: capture again"
            )


def _need_cuda(model: nn.Module) -> None:
    if (found := next(model.parameters()).device.type) != "cuda":
        raise ValueError(f"the model is on {found!r}, but CUDA graphs need a CUDA device")


def capture(step: Callable, model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable:
    """`step` as a CUDA graph, under the same contract: `step(images, labels) -> loss`, fresh, detached, not waiting.

    It is captured at the first call, on that batch's shapes, after a warm-up that leaves weights, momentum and random
    states as they were. A batch of another size (the last one of a pass) runs the plain step on the same weights.

    Args:
        step, model, optimizer: the plain step and what it trains. Nothing in it may read a tensor's value on the host.

    Raises:
        ValueError: the model is not on a CUDA device. At the first call, see `restored`. At a call, the batch differs
            from the captured one in more than its size; or the optimizer's settings changed, which a graph ignores.
    """
    _need_cuda(model)
    replay = at = loss = frozen = None

    def captured(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal replay, at, loss, frozen
        if replay is None:
            at = images.clone(), labels.clone()  # the addresses that the graph reads from
            frozen = _frozen(optimizer)

            def once():
                nonlocal loss
                optimizer.zero_grad()  # so that the gradients are allocated in the graph's own memory
                loss = step(*at)

            with restored(model, optimizer):
                replay = record(once)
        for name, given, kept in (("images", images, at[0]), ("labels", labels, at[1])):
            if (given.shape[1:], given.dtype, given.device) != (kept.shape[1:], kept.dtype, kept.device):
                raise ValueError(
                    f"{name} are {given.dtype} {list(given.shape)} on {given.device}, but were captured as "
                    f"{kept.dtype} {list(kept.shape)} on {kept.device}: only the number of images may differ"
                )
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images but {len(labels)} labels: there must be one label an image")
        _check_frozen(optimizer, frozen)
        if len(images) != len(at[0]):
            return step(images, labels)
        at[0].copy_(images, non_blocking=True)
        at[1].copy_(labels, non_blocking=True)
        replay()
        return loss.clone()  # the next replay overwrites the graph's own

    return captured


class EpochGraph(WholeEpoch):
    """A whole epoch as one CUDA graph: gathering, normalizing and training on every batch, the last one included.

    A pass copies the permutation in, launches the graph, and then only hands out the losses while the device works. See
    WholeEpoch.

    Args:
        step, model, optimizer: as for `capture`.
        batches: where the images come from, and in which order.

    Raises:
        ValueError: the model is not on a CUDA device. At the first pass, see `restored`; at a later one, the optimizer
            was changed.
    """

    def __init__(self, step, model, optimizer, batches: DeviceBatches):
        _need_cuda(model)
        super().__init__(batches)
        self.plain_step, self.model, self.optimizer, self.replay = step, model, optimizer, None

    def _capture(self, permutation: torch.Tensor, sizes: list[int]) -> None:
        self.permutation = permutation.clone()
        self.losses = losses = torch.empty(len(sizes), device=permutation.device)
        parts, step, batches, optimizer = self.permutation.split(sizes), self.plain_step, self.batches, self.optimizer

        def epoch(parts):  # without self, which has the replay, which keeps this: a cycle
            optimizer.zero_grad()  # see `capture`
            for i, index in enumerate(parts):
                losses[i].copy_(step(*batches.batch(index)))

        self.frozen = _frozen(self.optimizer)
        with restored(self.model, self.optimizer):
            one_of_every_size = {len(part): part for part in parts}.values()
            self.replay = record(lambda: epoch(parts), warm_up=lambda: epoch(one_of_every_size))

    def run(self, drawn: Sequence[torch.Tensor]) -> torch.Tensor:
        permutation, sizes = torch.cat(drawn), [len(index) for index in drawn]
        if self.replay is None:
            self._capture(permutation, sizes)
        _check_frozen(self.optimizer, self.frozen)
        self.permutation.copy_(permutation)
        self.replay()
        return self.losses.clone()  # the next replay overwrites the graph's own
