"""The kernels that a piece of a program launches: each with its arguments, and what it computes and moves.

Nothing is run for it: the launches are noted instead of made.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from mnist_gpu.faster.graphs import record
from mnist_gpu.faster.with_triton import interpreted, kernel_device
from mnist_gpu.measuring.drawing import columns, span
from mnist_gpu.measuring.prediction import LAUNCHES, binding, predicted_card
from mnist_gpu.measuring.timing import alternate, compare_all
from mnist_gpu.model import PIXELS, make_model

# The launches of a batch and its training step, in their order.
NAMES = ("gather, normalize", "hidden layer, ReLU", "logits", "loss, its gradient", "mean loss",
         "gradient of weights 2", "gradient of bias 2", "gradient of hidden layer", "gradient of weights 1",
         "gradient of bias 1", "update of everything")  # fmt: skip


class Launch(NamedTuple):
    """One launch of a Triton kernel."""

    kernel: object
    grid: tuple[int, ...]
    arguments: dict  # by name; tensors, numbers, None
    options: dict  # of Triton: num_warps

    @property
    def name(self) -> str:
        return self.kernel.fn.__name__

    @property
    def programs(self) -> int:
        return math.prod(self.grid)

    @property
    def operations(self) -> int:
        """Floating-point operations: additions, products and quotients; an exponential or a logarithm counts as one."""
        return COSTS[self.name](self.arguments)[0]

    @property
    def bytes(self) -> int:
        """Bytes that it reads and writes if it goes to memory once for each element, and once to store it."""
        return COSTS[self.name](self.arguments)[1]


def _product(a: dict) -> tuple[int, int]:
    m, n, k = a["m"], a["n"], a["k"]
    bias, gate = a["bias"] is not None, a["gate"] is not None
    return 2 * m * n * k + m * n * bias, 4 * (m * k + k * n + m * n + n * bias + m * n * gate)


def _cross_entropy(a: dict) -> tuple[int, int]:
    rows, logits = a["n"], a["n"] * a["classes"]
    # Greatest, difference, exponential, sum; quotient, difference, quotient. A row: logarithm, difference, quotient.
    return 7 * logits + 3 * rows, 4 * (2 * logits + rows) + 8 * rows


# (operations, bytes) from the arguments, by kernel.
COSTS = {
    "update_kernel": lambda a: (2 * a["n"], 4 * 3 * a["n"]),
    "gather_kernel": lambda a: (2 * PIXELS * len(a["index"]), len(a["index"]) * (8 + PIXELS * (1 + 4))),
    "product_kernel": _product,
    "cross_entropy_kernel": _cross_entropy,
    "column_sums_kernel": lambda a: (a["rows"] * a["columns"], 4 * (a["rows"] + 1) * a["columns"]),
    "sgd_kernel": lambda a: (4 * a["n"], 4 * 5 * a["n"]),
}


def launches_of(function: Callable[[], object]) -> list[Launch]:
    """The launches of mnist_gpu.faster.kernels that a call of `function` would make; none is made."""
    from mnist_gpu.faster import kernels  # here: it says where Triton is missing

    every, found = [getattr(kernels, name) for name in COSTS], []

    def noting(kernel):
        def run(*args, grid, warmup, **named):
            named = dict(zip(kernel.arg_names, args, strict=False)) | named
            options = {name: value for name, value in named.items() if name not in kernel.arg_names}
            found.append(Launch(kernel, grid, {name: named[name] for name in kernel.arg_names}, options))

        return run

    try:
        for kernel in every:
            kernel.run = noting(kernel)
        function()
    finally:
        for kernel in every:
            vars(kernel).pop("run", None)
    return found


def launches_of_a_step(batch_size: int = 128, hidden: int = 128, tile: int | None = None) -> dict[str, Launch]:
    """The launches that make a batch and train on it, by NAMES.

    The products have the tiles that they have on a GPU, or square ones with sides of `tile`.
    """
    from mnist_gpu.faster import kernels

    device = kernel_device()
    images, labels = torch.zeros(batch_size, 28, 28, dtype=torch.uint8), torch.zeros(batch_size, dtype=torch.int64)
    batches = kernels.KernelBatches(images, labels, batch_size, device=device)
    step = kernels.make_kernel_step(make_model(hidden, device=device))
    chosen, kernels.TILING = kernels.TILING, kernels.Tiling(tile, 1) if tile else kernels.ON_A_GPU
    try:
        found = launches_of(lambda: [step(*batch) for batch in batches])
    finally:
        kernels.TILING = chosen
    return dict(zip(NAMES, found, strict=True))


def launch_table(launches: Mapping[str, Launch]) -> None:
    """Prints the launches with their programs, operations and bytes."""
    rows = [
        (name, f.programs, f"{f.operations:,}", f"{f.bytes:,}", f"{f.operations / f.bytes:.2g}")
        for name, f in launches.items()
    ]
    print(columns(["launch", "programs", "operations", "bytes", "operations per byte"], rows))
    operations, moved = (sum(getattr(f, what) for f in launches.values()) for what in ("operations", "bytes"))
    most = max(launches, key=lambda name: launches[name].bytes)
    print(f"{len(rows)} launches, {operations / 1e6:,.0f} million operations, {moved / 1e6:,.1f} MB.")
    print(f"Most bytes: {most}, {launches[most].bytes / moved:.0%} of all.")


def predicted_table(launches: Mapping[str, Launch], cards: Sequence[str]) -> None:
    """Prints every launch's time on `cards`, which are not here, predicted, in microseconds, and what binds."""
    rows, bound = [[name] for name in launches], {}
    for card in map(predicted_card, cards):
        costs = [(f.operations, f.bytes) for f in launches.values()]
        bound[card.name] = [binding(card.middle.parts(*cost)) for cost in costs]
        for row, cost, binds in zip(rows, costs, bound[card.name], strict=True):
            row.append(f"{span(card.seconds(*cost), 1e-6)}, {binds}")
    print(columns(["predicted, µs, and what binds", *bound], rows))
    for card, binds in bound.items():
        print(f"{card}: launching the kernel takes longest in {binds.count(LAUNCHES)} of {len(rows)}.")


def timed(**functions: Callable[[], object]) -> None:
    """Times functions that launch kernels on the GPU, in turn, and compares the first with the others.

    Each is called 100 times inside a CUDA graph, which launches without Python: Triton's launcher, which is Python,
    takes longer than most of these kernels. Where kernels are interpreted it says that it does not time them.
    """
    if interpreted():
        print("Not timed: the kernels are interpreted.")
        return
    replays = {name: record(f, calls=100) for name, f in functions.items()}
    found = alternate(replays, rounds=10, warmup=2, device=kernel_device())
    for name, seconds in found.items():
        print(f"{name}: {statistics.median(seconds) * 1e4:.1f} µs")
    first, *others = found
    print(*compare_all(found, [(other, first) for other in others]), sep="\n")
