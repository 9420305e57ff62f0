"""CUDA graphs: the kernels of a step, or of an epoch, recorded once and from then on launched with one call.

A small network leaves a GPU waiting for Python, which launches its kernels one by one. A graph replays them without
Python, on the same memory addresses and with the same numbers read on the host: shapes and learning rate are frozen.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from mnist_gpu.batches import DeviceBatches
from mnist_gpu.faster.whole_epoch import WholeEpoch

WARMUP = 3  # calls before a capture: libraries choose their algorithms and allocate their workspaces in the first ones


@contextlib.contextmanager
def restored(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Afterwards weights, buffers, the optimizer's state and the random states are as they were before.

    All of it is restored in place, since a graph captured meanwhile refers to these very tensors. State that did not
    exist before (SGD's momentum, before its first step) is set to zero: with no dampening, that is where SGD starts.

    Raises:
        ValueError: such state, and a parameter group with dampening, whose first step differs from a zero momentum.
    """
    tensors = [t for t in (*model.parameters(), *model.buffers())]
    saved = [t.detach().clone() for t in tensors]
    state = {p: {k: v.clone() for k, v in s.items() if torch.is_tensor(v)} for p, s in optimizer.state.items()}
    if any(group.get("dampening") and p not in state for group in optimizer.param_groups for p in group["params"]):
        raise ValueError("SGD with dampening treats its first step differently: take one step before capturing")
    on_gpu = any(t.is_cuda for t in tensors)
    random = torch.get_rng_state(), torch.cuda.get_rng_state_all() if on_gpu else None
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, saved, strict=True):
                tensor.copy_(value)
            for p, values in optimizer.state.items():
                for key, value in values.items():
                    if torch.is_tensor(value):
                        value.copy_(state[p][key]) if key in state.get(p, {}) else value.zero_()
        optimizer.zero_grad()
        torch.set_rng_state(random[0])
        if on_gpu:
            torch.cuda.set_rng_state_all(random[1])


def record(function: Callable[[], object]) -> Callable[[], None]:
    """Captures the CUDA kernels that `function` launches, without running them, and returns what launches them all."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def warm_up(function: Callable[[], object], repeats: int = WARMUP) -> None:
    """Calls `function` on a stream of its own, which is what a capture needs: its memory is then no other stream's."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(repeats):
            function()
    torch.cuda.current_stream().wait_stream(stream)


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


def _need_cuda(device: torch.device) -> None:
    if device.type != "cuda":
        raise ValueError(f"the model is on {device.type!r}, but CUDA graphs need a CUDA device")


def capture(step: Callable, model: nn.Module, optimizer: torch.optim.Optimizer, *, record=record, warm_up=warm_up):
    """`step` as a CUDA graph, under the same contract: `step(images, labels) -> loss`, fresh, detached, not waiting.

    It is captured at the first call, on that batch's shapes, after a warm-up that leaves weights, momentum and random
    states as they were. A batch of another size (the last one of a pass) runs the plain step on the same weights.

    Args:
        step, model, optimizer: the plain step and what it trains. Nothing in it may read a tensor's value on the host.
        record, warm_up: how; for tests.

    Raises:
        ValueError: at capture, the model is not on a CUDA device (or see `restored`). At a call, the batch differs from
            the captured one in more than its size; or the optimizer's settings were changed, which a graph ignores.
    """
    device = next(model.parameters()).device
    if record is globals()["record"]:
        _need_cuda(device)
    replay = None

    def captured(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal replay, at, loss, frozen
        if replay is None:
            at = images.clone(), labels.clone()  # the addresses that the graph reads from
            frozen = _frozen(optimizer)
            with restored(model, optimizer):
                warm_up(lambda: step(*at))
                optimizer.zero_grad()  # so that the gradients are allocated in the graph's own memory

                def once():
                    nonlocal loss
                    loss = step(*at)

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

    at = loss = frozen = None
    return captured


class EpochGraph(WholeEpoch):
    """A whole epoch as one CUDA graph: gathering, normalizing and training on every batch, the last one included.

    A pass copies the permutation in, launches the graph, and then only hands out the losses while the device works. See
    WholeEpoch.

    Args:
        step, model, optimizer: as for `capture`.
        batches: where the images come from, and in which order.
        record, warm_up: how; for tests.

    Raises:
        ValueError: the model is not on a CUDA device. At the first pass, see `restored`; at a later one, the optimizer
            was changed.
    """

    def __init__(self, step, model, optimizer, batches: DeviceBatches, *, record=record, warm_up=warm_up):
        if record is globals()["record"]:
            _need_cuda(next(model.parameters()).device)
        super().__init__(batches)
        self.plain_step, self.model, self.optimizer = step, model, optimizer
        self.record, self.warm_up, self.replay = record, warm_up, None

    def _capture(self, permutation: torch.Tensor, sizes: list[int]) -> None:
        self.permutation = permutation.clone()
        self.losses = torch.empty(len(sizes), device=permutation.device)
        parts = self.permutation.split(sizes)

        def epoch(parts):
            for i, index in enumerate(parts):
                self.losses[i].copy_(self.plain_step(*self.batches.batch(index)))

        self.frozen = _frozen(self.optimizer)
        with restored(self.model, self.optimizer):
            self.warm_up(lambda: epoch({len(part): part for part in parts}.values()))  # one of every size
            self.optimizer.zero_grad()
            self.replay = self.record(lambda: epoch(parts))

    def run(self, drawn: Sequence[torch.Tensor]) -> torch.Tensor:
        permutation, sizes = torch.cat(drawn), [len(index) for index in drawn]
        if self.replay is None:
            self._capture(permutation, sizes)
        _check_frozen(self.optimizer, self.frozen)
        self.permutation.copy_(permutation)
        self.replay()
        return self.losses.clone()  # the next replay overwrites the graph's own
