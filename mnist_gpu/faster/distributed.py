"""The same training on several processes, started by torchrun: each has the whole model, and its part of a batch."""

import contextlib
import datetime
import gc
import importlib
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mnist_gpu.device import accelerator, pick_device

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}  # what carries the gradients, which DistributedDataParallel averages


@dataclass(frozen=True)
class Group:
    """The processes that train together, and which of them this one is: 0 prints and writes. One is a group, too."""

    rank: int
    processes: int
    device: torch.device

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model for the step: every backward pass then averages the gradients over all ranks."""
        return DistributedDataParallel(model) if self.processes > 1 else model

    def of_first(self, function: Callable[[], object]):
        """What `function` returns on rank 0, on all ranks; so is its error, or the others would only lose contact."""
        value = error = None
        try:
            value = function() if self.rank == 0 else None
        except (OSError, ValueError) as raised:  # what a file, or what is in it, can do
            error = raised
        if self.processes > 1:
            dist.broadcast_object_list(box := [value, error], src=0)
            value, error = box
        if error is not None:
            raise error
        return value


def pick_local_device(name: str) -> torch.device:
    """The device of this rank, on a machine with NVIDIA GPUs one of its own. Raises ValueError where it cannot be."""
    local, found = int(os.environ.get("LOCAL_RANK", 0)), accelerator()
    if str(name) in ("auto", "cuda") and found is not None and found.type == "cuda":
        if local >= (here := torch.cuda.device_count()):
            raise ValueError(
                f"this is process {local + 1} of this machine, which has {here} GPUs: start one process per GPU "
                f"(--nproc-per-node {here}), or train on the CPU (--device cpu)"
            )
        torch.cuda.set_device(local)  # before pick_device runs a kernel, or every rank opens a context on GPU 0, too
    device = pick_device(name)
    if device.type not in BACKENDS:  # mps, xpu
        raise ValueError(f"processes cannot train together on the {device.type} device, only on the CPU (--device cpu)")
    return torch.device("cuda", local) if device == torch.device("cuda") else device


@contextlib.contextmanager
def join(device_name: str = "auto", *, timeout: float = 60.0) -> Iterator[Group]:
    """Joins the group that torchrun started this process for, and leaves it at the end. Without it: a group of one.

    Raises ConnectionError if the others are not met within `timeout` seconds, and what pick_local_device raises.
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        yield Group(0, 1, pick_device(device_name))
        return
    group = Group(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), pick_local_device(device_name))
    _meet(group, timeout)
    # Nothing may refer to the group when it is left: a thread of gloo that outlives it may hold a tensor when Python
    # ends, and then kills the process ("terminate called without an active exception").
    try:
        yield group
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # they refer to the wrapped model, which refers to the group
        raise
    finally:
        gc.collect()  # the wrapped model is one of a circle of objects
        dist.destroy_process_group()


def _meet(group: Group, timeout: float) -> None:
    """Waits for the other processes, and makes the group of them."""
    patience = datetime.timedelta(seconds=timeout)
    # Its functions keep the group of the moment of their import, and the first optimizer imports them: too late.
    importlib.import_module("torch.distributed.nn.functional")
    try:
        store, _, _ = next(dist.rendezvous("env://", timeout=patience))
        # After a restart torchrun's store still holds addresses under the same names.
        store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        backend = BACKENDS[group.device.type]
        dist.init_process_group(backend, store=store, rank=group.rank, world_size=group.processes, timeout=patience)
    except (dist.DistError, RuntimeError, ValueError, OSError) as error:
        at = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ConnectionError(
            f"rank {group.rank} of {group.processes} could not meet the others at {at} within {timeout:g} s. Are all "
            f"of them started, with the same endpoint, and can it be reached? ({str(error).strip().splitlines()[0]})"
        ) from error


def make_distributed_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable:
    """The plain step for a model that is wrapped in DistributedDataParallel; its loss is the mean over the whole batch.

    Parts may be unequal, or empty: so each rank takes the *sum* of its losses, and gradients are scaled afterwards.
    """

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels, reduction="sum")
        total = torch.stack([loss.detach(), loss.new_full((), len(labels))])
        adding = dist.all_reduce(total, async_op=True)  # meanwhile the backward pass goes on
        loss.backward()  # its gradients are averaged over the ranks as they become ready
        adding.wait()
        scale = dist.get_world_size() / total[1]
        for parameter in model.parameters():
            parameter.grad.mul_(scale)
        optimizer.step()
        return total[0] / total[1]

    return step
