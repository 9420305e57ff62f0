"""The three regimes of a step, launches, bytes and operations: which of them binds, and which one a rung relieves."""

from collections.abc import Mapping

import torch

from mnist_gpu.faster.ladder import RUNGS
from mnist_gpu.measuring.prediction import ThreeNumbers
from mnist_gpu.model import step_bytes, step_flops

LAUNCHES, BYTES, OPERATIONS = REGIMES = ("launches", "bytes", "operations")
LOADING = "loading"  # none of the three: the device waits for images
# What each rung of the ladder relieves, first what it relieves most. The textbook's rung relieves nothing.
RELIEVES = {
    "textbook": (),
    "two workers": (LOADING,),
    "pinned memory": (BYTES,),  # over the bus
    "tensors in memory": (LOADING,),
    "prefetch on a side stream": (BYTES,),  # over the bus: hidden behind the step
    "uint8 on the device": (BYTES,),  # none cross the bus, and a pixel is one byte
    "no wait per step": (LAUNCHES,),  # they run ahead of the device
    "fused optimizer": (BYTES, LAUNCHES),
    "compiled model": (BYTES, LAUNCHES),
    "compiled step": (LAUNCHES, BYTES),
    "bfloat16 autocast": (OPERATIONS,),
    "TF32": (OPERATIONS,),
    "compiled step, reduce-overhead": (LAUNCHES,),
    "CUDA graph of a step": (LAUNCHES,),
    "CUDA graph of an epoch": (LAUNCHES, LOADING),
    "backward written out": (LAUNCHES, BYTES),
    "written out, oneDNN": (OPERATIONS,),
    "compiled epoch": (LAUNCHES, BYTES),
    "kernels of our own": (LAUNCHES, BYTES),
    "kernels of our own, as a CUDA graph": (LAUNCHES, BYTES),
}


def rungs_of(regime: str) -> list[str]:
    """The rungs that relieve a regime, in the order of the ladder: "7. no wait per step"."""
    return [f"{i}. {name}" for i, (name, relieved) in enumerate(RELIEVES.items(), start=1) if regime in relieved]


def relieving(regime: str, device: str) -> list[str]:
    """The rungs that relieve this regime most, of those that are written for a device of this type ("cpu", "cuda")."""
    elsewhere = torch.device("cpu" if device == "cpu" else "xpu")  # a device that is asked for nothing
    wrong = "GPU" if device == "cpu" else "written for the CPU"
    missing = {rung.name: rung.missing(elsewhere) or "" for rung in RUNGS}
    return [name for name, relieved in RELIEVES.items() if relieved[:1] == (regime,) and wrong not in missing[name]]


def parts(numbers: ThreeNumbers, batch_size: int = 128, hidden: int = 128) -> dict[str, float]:
    """Seconds that each regime would take alone: launching the step, moving its bytes, doing its operations."""
    return {
        LAUNCHES: numbers.launch,
        BYTES: step_bytes(batch_size, hidden) / numbers.bandwidth,
        OPERATIONS: sum(step_flops(batch_size, hidden)) / numbers.rate,
    }


def binding(found: Mapping[str, float]) -> str:
    """The regime that takes longest."""
    return max(found, key=found.get)
