"""A CPU's vector lanes, and what they gain: the same operations with and without them, in two processes.

PyTorch chooses at its start, from what the processor can do, which of its compiled variants it takes, and the
environment variable ATEN_CPU_CAPABILITY lowers that choice. It rules PyTorch's own kernels alone: operations that a
library computes (MKL's matrix products, and its exp, which PyTorch calls on x86) choose by themselves. Both kinds are
measured here. "default" is not one lane: every 64-bit processor has vectors of four numbers, which a compiler may use.

`python -m mnist_gpu.measuring.lanes` is what the two processes run: a line of JSON for each line that they are sent.
"""

import contextlib
import json
import os
import subprocess
import sys
from typing import NamedTuple

import torch

from mnist_gpu.checks import at_least_one
from mnist_gpu.measuring.neighbours import watching
from mnist_gpu.measuring.timing import measure

# float32 numbers in a vector, by what torch.backends.cpu.get_cpu_capability() answers; in every other case 128 bits.
NUMBERS = {"AVX512": 16, "AVX2": 8, "SVE256": 8}
CAPABILITY = "ATEN_CPU_CAPABILITY"
WITH, WITHOUT = "with vector lanes", "without"


class Lanes(NamedTuple):
    """What the two processes found."""

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

    One thread. Raises ValueError for rounds below 1, RuntimeError if a process ends early.
    """
    at_least_one(rounds=rounds)
    plain = {name: value for name, value in os.environ.items() if name != CAPABILITY}
    command = [sys.executable, "-m", "mnist_gpu.measuring.lanes"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8", "bufsize": 1}
    processes = {
        side: subprocess.Popen(command, env=environment, **pipes)
        for side, environment in ((WITH, plain), (WITHOUT, plain | {CAPABILITY: "default"}))
    }

    def ask(side: str) -> dict:
        with contextlib.suppress(BrokenPipeError):  # it has ended: there will be no answer
            print(file=processes[side].stdin, flush=True)
        if not (answer := processes[side].stdout.readline()):
            raise RuntimeError(f"the process {side} ended with status {processes[side].wait()}")
        return json.loads(answer)

    try:
        with watching():
            first = {side: ask(side) for side in processes}  # the first round warms up
            found = [{side: ask(side)["seconds"] for side in processes} for _ in range(rounds)]
    finally:
        for process in processes.values():
            process.communicate()  # closes its input, which ends it
    names = found[0][WITH]
    seconds = {name: {side: [one[side][name] for one in found] for side in processes} for name in names}
    return Lanes({side: answer["capability"] for side, answer in first.items()}, seconds)


def main() -> None:
    torch.set_num_threads(1)
    for _ in sys.stdin:
        print(json.dumps({"capability": torch.backends.cpu.get_cpu_capability(), "seconds": _round()}), flush=True)


if __name__ == "__main__":
    main()
