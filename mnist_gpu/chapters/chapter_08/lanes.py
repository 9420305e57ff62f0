"""A CPU's vector lanes, and what they gain: the same operations with and without them, in two processes.

PyTorch chooses at its start, from what the processor can do, which of its compiled variants it takes, and the
environment variable ATEN_CPU_CAPABILITY lowers that choice. It rules PyTorch's own kernels alone: operations that a
library computes (MKL's matrix products, and its exp, which PyTorch calls on x86) choose by themselves. Both kinds are
measured here. "default" is not one lane: every 64-bit processor has vectors of four numbers, which a compiler may use.
"""

import os
from typing import NamedTuple

import torch

from mnist_gpu.checks import at_least_one
from mnist_gpu.measuring.busy import watching
from mnist_gpu.measuring.processes import process
from mnist_gpu.measuring.timing import compare_all, measure

# float32 numbers in a vector, by what torch.backends.cpu.get_cpu_capability() answers; in every other case 128 bits.
NUMBERS = {"AVX512": 16, "AVX2": 8, "SVE256": 8}
CAPABILITY = "ATEN_CPU_CAPABILITY"
WITH, WITHOUT = "with vector lanes", "without"


class Lanes(NamedTuple):
    """What the two processes measured."""

    capability: dict[str, str]  # by side, WITH and WITHOUT: what PyTorch says it uses
    seconds: dict[str, dict[str, list[float]]]  # by operation, then by side: a median a round, in turn


def vector_lanes(capability: str | None = None) -> int:
    """float32 lanes of one vector instruction of a core, with what PyTorch uses here, or with a `capability`."""
    return NUMBERS.get(capability or torch.backends.cpu.get_cpu_capability(), 4)


def _round() -> dict[str, float]:
    """Seconds of each operation: 16,384 numbers, or two 128 x 128 matrices, which fit into a core's caches."""
    x = torch.linspace(-1, 1, 2**14)
    out, square = torch.empty_like(x), x.view(128, 128)
    product = torch.empty_like(square)
    operations = {
        "ReLU": lambda: torch.clamp_min(x, 0, out=out),
        "sigmoid": lambda: torch.sigmoid(x, out=out),
        "exp": lambda: torch.exp(x, out=out),
        "matrix product": lambda: torch.mm(square, square, out=product),
    }
    return {name: measure(function, min_seconds=0.02).median for name, function in operations.items()}


def measure_lanes(rounds: int = 10) -> Lanes:
    """Times the operations in two processes in turn, one of them told to use no wider vectors than every processor has.

    One thread. Raises ValueError for rounds below 1, RuntimeError (BrokenProcessPool) if a process ends early.
    """
    at_least_one(rounds=rounds)
    plain = {name: value for name, value in os.environ.items() if name != CAPABILITY}
    with watching(), process(plain) as wide, process(plain | {CAPABILITY: "default"}) as narrow:
        sides = {WITH: wide, WITHOUT: narrow}
        for call in sides.values():
            call(torch.set_num_threads, 1)
            call(_round)  # to warm up
        capability = {side: call(torch.backends.cpu.get_cpu_capability) for side, call in sides.items()}
        every = [{side: call(_round) for side, call in sides.items()} for _ in range(rounds)]
    seconds = {name: {side: [one[side][name] for one in every] for side in sides} for name in every[0][WITH]}
    return Lanes(capability, seconds)


def lane_gains(found: Lanes) -> str:
    """How many times as fast each operation is with wide vectors, and how wide they are."""
    times = {f"{name} {side}": seconds for name, sides in found.seconds.items() for side, seconds in sides.items()}
    said = list(map(str, compare_all(times, [(f"{name} {WITHOUT}", f"{name} {WITH}") for name in found.seconds])))
    widths = (f"{side} {vector_lanes(name)} ({name})" for side, name in found.capability.items())
    said.append(f"float32 numbers in a vector: {', '.join(widths)}")
    if len(set(found.capability.values())) == 1:
        said.append("PyTorch has no wider variant for this processor, so both processes ran the same code.")
    return "\n".join(said)
