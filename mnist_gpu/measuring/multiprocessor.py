"""A multiprocessor's scheduler, simulated cycle by cycle: warps that compute, ask the memory, and wait.

A model that is small enough to read, not a GPU: one scheduler, which issues one instruction a cycle, and warps that
all do the same for ever, `compute` instructions of arithmetic and then one load. What it shows is how the waiting of
one warp is hidden by the computing of others. Which warp a real scheduler takes is not published.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from mnist_gpu.checks import at_least_one, positive
from mnist_gpu.measuring.chips import WARP

LOAD = 4 * WARP  # bytes that a load of a warp asks for: a float32 for each of its lanes


class Simulated(NamedTuple):
    """What was seen in `cycles` cycles."""

    cycles: int
    busy: float  # share of the cycles in which arithmetic was issued
    bytes_per_cycle: float  # that arrived
    bytes_in_flight: float  # that were on their way, on average over the cycles


def littles_law(rate: float, latency: float) -> float:
    """What must be on its way for a `rate` (a second, or a cycle) if each takes `latency` (in the same unit of time).

    J. D. C. Little, A proof for the queuing formula L = lambda W, Operations Research 9(3), 1961.
    """
    return rate * latency


def simulate(compute: Sequence[int], *, latency: int, interval: float = 1.0, cycles: int = 8000) -> Simulated:
    """Runs a warp for each number in `compute`, for twice `cycles`, and counts in the second half, which is steady.

    Each cycle the scheduler issues one instruction: of the warp that had the last turn, if it can go on, or else of the
    next one in order that can. A load takes one cycle to issue; its bytes arrive `latency` cycles after the memory has
    taken it, and until then its warp waits.

    Args:
        compute: of each warp, the instructions of arithmetic between two loads.
        latency: cycles.
        interval: cycles from one load that the memory takes to the next: its rate is LOAD / interval bytes a cycle.
        cycles: that are counted.

    Raises:
        ValueError: a number below 1, an interval that is not positive, or no warp at all.
    """
    at_least_one(warps=len(compute), latency=latency, cycles=cycles, compute=min(compute, default=1))
    positive(interval=interval)
    ready = [0.0] * len(compute)  # the cycle from which on each warp can go on
    left = list(compute)  # instructions until its next load
    turn, free = 0, 0.0  # whose turn it was last; from when on the memory takes the next load
    loads = []  # of each: when the memory took it, and when it arrived
    computed = 0
    for now in range(2 * cycles):
        for warp in (*range(turn, len(compute)), *range(turn)):
            if ready[warp] <= now:
                break
        else:
            continue  # all of them wait
        turn = warp
        if left[warp]:
            left[warp] -= 1
            computed += now >= cycles
        else:
            taken = max(now, free)
            free, ready[warp], left[warp] = taken + interval, taken + latency, compute[warp]
            loads.append((taken, ready[warp]))
    within = [(max(begin, cycles), min(end, 2 * cycles)) for begin, end in loads]
    arrived = sum(cycles < end <= 2 * cycles for _, end in loads)
    waited = sum(end - begin for begin, end in within if end > begin)
    return Simulated(cycles, computed / cycles, LOAD * arrived / cycles, LOAD * waited / cycles)


def hidden(warps: int, compute: int, latency: int, interval: float) -> float:
    """The share of busy cycles that can be expected at most, without simulating.

    A warp alone computes for `compute` of `compute + latency` cycles, and n warps n times that, until the scheduler
    issues every cycle (a load is an instruction, too), or the memory takes a load every `interval` cycles.
    """
    return min(warps * compute / (compute + latency), compute / (compute + 1), compute / interval)


def both_sides(condition: torch.Tensor, yes: int, no: int) -> list[int]:
    """Instructions that each warp executes for `yes() if condition else no()`, one element a lane, in their order.

    A warp has one instruction for all its lanes. Where they disagree it executes both sides, each with the lanes of
    the other switched off. `yes` and `no` are the instructions of a side. Elements beyond the last whole warp are left
    out. Raises ValueError for fewer elements than a warp has lanes.
    """
    at_least_one(warps=condition.numel() // WARP, yes=yes, no=no)
    lanes = condition.flatten()[: condition.numel() // WARP * WARP].bool().view(-1, WARP)
    return (lanes.any(1) * yes + (~lanes).any(1) * no).tolist()
