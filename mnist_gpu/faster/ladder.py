"""The speed ladder: the same training, faster rung by rung.

A rung is a function `(device, hidden) -> Training`, which differs from an earlier one in one thing.
"""

import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad_and_value

from mnist_gpu.data import load_mnist, make_batches
from mnist_gpu.faster.compiled_epoch import CompiledEpoch
from mnist_gpu.faster.graphs import EpochGraph, capture
from mnist_gpu.faster.webgpu_epoch import WebGPUEpoch
from mnist_gpu.faster.with_triton import triton_missing
from mnist_gpu.faster.written_out import make_written_out_step
from mnist_gpu.model import make_model
from mnist_gpu.torch_private import onednn_missing
from mnist_gpu.training import make_step
from mnist_gpu.webgpu.gpu import the_gpu, webgpu_missing

# torch.compile recommends TF32 on cards that have it: the course computes in float32, or says otherwise.
warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")


class Training(NamedTuple):
    """What `train` takes."""

    model: nn.Module
    step: Callable
    batches: Iterable


def sgd(model: nn.Module, **options) -> torch.optim.SGD:
    """The optimizer of the course. `options` change how it is computed: fused."""
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, **options)


def waiting(step: Callable) -> Callable:
    """The step as textbooks write it: it reads the loss, and so waits for the device, every time."""

    def step_and_wait(images, labels):
        loss = step(images, labels)
        loss.item()
        return loss

    return step_and_wait


def textbook(device, hidden=128, kind="dataloader", **loading):
    model = make_model(hidden, device=device)
    step = waiting(make_step(model, sgd(model)))
    return Training(model, step, make_batches(kind, device=device, **loading))


def plain(device, hidden=128, **options):
    model = make_model(hidden, device=device)
    step = make_step(model, sgd(model, **options))
    return Training(model, step, make_batches("device", device=device))


def compiled_step(device, hidden=128):
    model = make_model(hidden, device=device)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    momenta = {name: torch.zeros_like(w) for name, w in weights.items()}

    def loss_of(weights, images, labels):
        return F.cross_entropy(functional_call(model, weights, (images,)), labels)

    @torch.compile
    def step(images, labels):  # a call of loss.backward() would end the compiled graph; torch.func has none
        gradients, loss = grad_and_value(loss_of)(weights, images, labels)
        for name, gradient in gradients.items():
            weights[name].sub_(momenta[name].mul_(0.9).add_(gradient), alpha=0.01)
        return loss

    return Training(model, step, make_batches("device", device=device))


def bfloat16(device, hidden=128):
    model = make_model(hidden, device=device)
    autocast = torch.autocast(torch.device(device).type, torch.bfloat16)
    step = make_step(model, sgd(model, fused=True), autocast)
    return Training(model, step, make_batches("device", device=device))


def graph_of_a_step(device, hidden=128):
    model = make_model(hidden, device=device)
    optimizer = sgd(model, fused=True)
    step = capture(make_step(model, optimizer), model, optimizer)
    return Training(model, step, make_batches("device", device=device))


def graph_of_an_epoch(device, hidden=128):
    model = make_model(hidden, device=device)
    optimizer = sgd(model, fused=True)
    step, batches = make_step(model, optimizer), make_batches("device", device=device)
    epoch = EpochGraph(step, model, optimizer, batches)
    return Training(model, epoch.step, epoch)


def written_out(device, hidden=128, onednn=False):
    model = make_model(hidden, device=device)
    step = make_written_out_step(model, lr=0.01, momentum=0.9, onednn=onednn)
    return Training(model, step, make_batches("device", device=device))


def compiled_epoch(device, hidden=128):
    model = make_model(hidden, device=device)
    epoch = CompiledEpoch(model, make_batches("device", device=device), lr=0.01, momentum=0.9)
    return Training(model, epoch.step, epoch)


# Half the launches of "no wait per step", but by Triton's slow launcher: what the kernels gain shows in the next rung.
def own_kernels(device, hidden=128):
    from mnist_gpu.faster.kernels import KernelBatches, make_kernel_step  # here: they need Triton

    model = make_model(hidden, device=device)
    return Training(model, make_kernel_step(model), KernelBatches(*load_mnist(train=True), device=device))


def graph_of_own_kernels(device, hidden=128):
    model, step, batches = own_kernels(device, hidden)
    epoch = EpochGraph(step, model, step.optimizer, batches)
    return Training(model, epoch.step, epoch)


def webgpu_epoch(device, hidden=128, submissions="epoch"):
    model = make_model(hidden)
    optimizer, batches = sgd(model), make_batches("device")
    epoch = WebGPUEpoch(the_gpu(), model, optimizer, batches, submissions)
    return Training(model, epoch.step, epoch)


def _compiler_missing(device: torch.device) -> str | None:
    """What torch.compile lacks here: it generates C++ for CPUs and Triton kernels for GPUs."""
    if device.type == "cpu":
        name = os.environ.get("CXX", {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++"))
        return None if shutil.which(name) else f"torch.compile needs a C++ compiler ({name}) on a CPU"
    if device.type in ("cuda", "xpu"):
        return triton_missing()
    return None if device.type == "mps" else f"torch.compile generates no code for {device.type}"


NEEDS = {"cpu": "is written for the CPU", "cuda": "needs an NVIDIA GPU"}  # what is said of other devices


@dataclass(frozen=True)
class Rung:
    """One rung: its name, what makes it, which rung it changes, and what it needs of a device."""

    name: str
    make: Callable[..., Training]
    base: str | None
    relieves: tuple[str, ...] = ()  # the most first: loading, launches, bytes, operations
    needs: str = ""  # of NEEDS: the type of device that it is for, where that is one
    lacks: Callable[[torch.device], str | None] = lambda device: None  # what else may be missing, as a compiler
    # Largest allowed difference of a batch's loss from the plain loop's, in nats: float32 agrees to 1e-6 until rounding
    # decides on a ReLU, then to 5e-3.
    tolerance: float = 0.02
    hardware: str = ""  # whose times they are, as in a results file, where it isn't the device that PyTorch has

    def missing(self, device: torch.device) -> str | None:
        """Why it cannot run on this device, or None."""
        return self.lacks(device) if self.needs in ("", device.type) else NEEDS[self.needs]


COMPILED = {"lacks": _compiler_missing}
OWN_KERNELS = {"needs": "cuda", "lacks": lambda device: triton_missing()}
WEBGPU = {"needs": "cpu", "lacks": lambda device: webgpu_missing(), "hardware": "webgpu"}  # timed beside the CPU
RUNGS = (
    Rung("textbook", textbook, None),
    Rung("two workers", partial(textbook, workers=2), "textbook", ("loading",)),
    Rung("tensors in memory", partial(textbook, kind="memory"), "textbook", ("loading",)),
    # None cross the bus; a pixel is one byte.
    Rung("uint8 on the device", partial(textbook, kind="device"), "tensors in memory", ("bytes",)),
    Rung("no wait per step", plain, "uint8 on the device", ("launches",)),  # they run ahead of the device
    Rung("fused optimizer", partial(plain, fused=True), "no wait per step", ("bytes", "launches")),
    Rung("compiled step", compiled_step, "fused optimizer", ("launches", "bytes"), **COMPILED),
    Rung("bfloat16 autocast", bfloat16, "fused optimizer", ("operations",), tolerance=0.05),
    Rung("CUDA graph of a step", graph_of_a_step, "fused optimizer", ("launches",), "cuda"),
    Rung("CUDA graph of an epoch", graph_of_an_epoch, "CUDA graph of a step", ("launches", "loading"), "cuda"),
    Rung("backward written out", written_out, "fused optimizer", ("launches", "bytes"), "cpu"),
    Rung("written out, oneDNN", partial(written_out, onednn=True), "backward written out", ("operations",), "cpu",
         lambda device: onednn_missing()),
    Rung("compiled epoch", compiled_epoch, "backward written out", ("launches", "bytes"), "cpu", **COMPILED),
    Rung("kernels of our own", own_kernels, "no wait per step", ("launches", "bytes"), **OWN_KERNELS),
    Rung("kernels of our own, as a CUDA graph", graph_of_own_kernels, "kernels of our own", ("launches", "bytes"),
         **OWN_KERNELS),
    Rung("WebGPU, a submission a step", partial(webgpu_epoch, submissions="step"), None, (), **WEBGPU),
    Rung("WebGPU, a submission an epoch", webgpu_epoch, "WebGPU, a submission a step", ("launches",), **WEBGPU),
)  # fmt: skip
TEXTBOOK, PLAIN = "textbook", "no wait per step"
# Measured with all of a CPU's threads, too.
ALL_THREADS = (TEXTBOOK, PLAIN, "fused optimizer", "backward written out", "written out, oneDNN", "compiled epoch")
WIDE = ("fused optimizer", "bfloat16 autocast")  # reduced precision is also measured on a wide network


def rungs(names: Iterable[str] | None = None) -> list[Rung]:
    """The rungs of these names, or all, in the order of the ladder. Raises ValueError for an unknown name."""
    every = [r.name for r in RUNGS]
    names = every if names is None else list(names)
    if unknown := set(names).difference(every):
        raise ValueError(f"no rung is called {', '.join(sorted(unknown))}; there are: {', '.join(every)}")
    return [r for r in RUNGS if r.name in names]
