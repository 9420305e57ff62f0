"""The two limits of a device: how fast it multiplies matrices, and how fast it moves bytes."""

import time
from collections.abc import Callable, Iterator
from functools import partial

import torch

from mnist_gpu.device import synchronize, using_threads
from mnist_gpu.measuring.results import Results, Timed
from mnist_gpu.measuring.sections.section import Section
from mnist_gpu.measuring.timing import measure
from mnist_gpu.measuring.workloads import thread_counts


def measure_ceilings(
    device: torch.device, *, sizes=(64, 128, 256, 512, 1024, 2048), mebibytes=(1, 4, 16, 64, 256), seconds=0.2
) -> Iterator[Timed]:
    """The two limits of a device, float32: matrix products of n x n (2 n^3 FLOP), and copies (read and written bytes).

    Also how soon the call of the largest product returns, and on a GPU transfers from pageable and pinned host memory.
    """
    for threads in thread_counts(device):

        def timed(name, make, parameters, per_call, threads=threads):
            # A function holds its tensors, and goes when it is measured: of the largest copy they are half a gigabyte.
            with using_threads(threads):
                found = measure(make(), min_seconds=seconds)
            return Timed("ceilings", name, device.type, threads, list(found.times), parameters, per_call)

        for n in sizes:
            yield timed("matrix product", partial(_product, n, device), {"size": n}, {"flop": 2 * n**3})
        # The largest product again, timed as many do it: without waiting for the device. On a GPU this is the launch.
        with using_threads(threads):
            launched = launch_seconds(_product(n, device), device)
        yield Timed("ceilings", "launch", device.type, threads, launched, {"size": n})
        for mib in mebibytes:
            yield timed("copy", partial(_copy, mib, device, device), {"mebibytes": mib}, {"bytes": 2 * mib * 2**20})
            if device.type in ("cuda", "xpu"):
                for kind in ("pageable", "pinned"):
                    transfer = partial(_copy, mib, "cpu", device, pin_memory=kind == "pinned")
                    yield timed(f"transfer, {kind}", transfer, {"mebibytes": mib}, {"bytes": mib * 2**20})


def _product(n: int, device: torch.device) -> Callable[[], object]:
    """A product of two n x n matrices, into a third."""
    a, b = torch.rand(n, n, device=device), torch.rand(n, n, device=device)
    return partial(torch.mm, a, b, out=torch.empty_like(a))


def _copy(mib: int, source: torch.device | str, target: torch.device, **memory) -> Callable[[], object]:
    """A copy of so many MiB between tensors that are there already; `memory` is of the source: pin_memory."""
    there = torch.ones(mib * 2**18, device=source, **memory)  # 2^18 numbers of 4 bytes
    return partial(torch.empty_like(there, device=target, pin_memory=False).copy_, there)


def launch_seconds(function: Callable[[], object], device: torch.device, repeats: int = 10) -> list[float]:
    """How long calls of `function` take to return, which on a GPU is before their work is done; in seconds."""
    seconds = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    synchronize(device)
    return seconds


def summary(results: Results, device: str) -> list[str]:
    lines = []
    for m in sorted(results.select("ceilings", "matrix product", device=device), key=lambda m: m.rate("flop"))[-1:]:
        lines.append(f": matrix products up to {m.rate('flop') / 1e9:,.0f} GFLOP/s ({m.threads} threads)")
    copies = results.select("ceilings", "copy", device=device)
    largest = max((m.parameters["mebibytes"] for m in copies), default=0)  # beyond the caches
    for m in sorted(copies, key=lambda m: (m.parameters["mebibytes"] == largest, m.rate("bytes")))[-1:]:
        lines.append(f": copies of {largest} MiB at {m.rate('bytes') / 1e9:,.0f} GB/s ({m.threads} threads)")
    return lines


SECTION = Section(measure_ceilings, quick={"seconds": 0.02}, summary=summary)
