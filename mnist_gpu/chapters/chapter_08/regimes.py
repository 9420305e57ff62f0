"""The three regimes of a step, launches, bytes and operations: where each binds, and which rungs relieve it."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch

from mnist_gpu.faster.ladder import RUNGS
from mnist_gpu.measuring.drawing import HATCHES, OWN, PALETTE, PREDICTED, Drawn, columns
from mnist_gpu.measuring.prediction import BYTES, LAUNCHES, OPERATIONS, Card, Limits, binding
from mnist_gpu.model import step_bytes, step_flops

LOADING = "loading"  # none of the three: the device waits for images


def rungs_of(regime: str) -> list[str]:
    """The rungs that relieve a regime, in the order of the ladder: "7. no wait per step"."""
    return [f"{i}. {rung.name}" for i, rung in enumerate(RUNGS, start=1) if regime in rung.relieves]


def relieving(regime: str, device: str) -> list[str]:
    """The rungs that relieve this regime most, of those that are written for a device of this type ("cpu", "cuda")."""
    needs = ("", "cpu") if device == "cpu" else ("", "gpu", "cuda", "ampere")
    return [rung.name for rung in RUNGS if rung.relieves[:1] == (regime,) and rung.needs in needs]


def plane(limits: Limits, device: torch.device, steps: Sequence[tuple[int, int]]) -> Drawn:
    """The plane of operations per byte and bytes, divided into what binds on this device, with the rungs that help.

    Launching binds where bytes and operations take less than it does. `steps`: (images, width), drawn as points.
    """
    points = [(sum(step_flops(*s)) / step_bytes(*s), step_bytes(*s)) for s in steps]
    ridge, floor = limits.rate / limits.bandwidth, limits.launch * limits.bandwidth
    spots = np.array([*points, (ridge, floor)])
    (low, least), (high, most) = spots.min(0) / (4, 6), spots.max(0) * (6, 8)
    xs = np.geomspace(low, high, 201)
    edge = floor * np.minimum(1, ridge / xs)
    axis = plt.subplots(figsize=(8.5, 4.6))[1]
    regions = {  # its xs, from where to where, and where its name stands
        LAUNCHES: (xs, least, edge, (0.5, 0.04, "center", "bottom")),
        BYTES: (xs[xs <= ridge], floor, most, (0.02, 0.97, "left", "top")),
        OPERATIONS: (xs[xs > ridge], edge[xs > ridge], most, (0.98, 0.97, "right", "top")),
    }
    for i, (regime, (where, below, above, (x, y, across, along))) in enumerate(regions.items()):
        axis.fill_between(where, below, above, color=PALETTE[i], alpha=0.15, hatch=HATCHES[i + 1], edgecolor="white")
        text = f"{regime}\nrungs " + ", ".join(name.split(".")[0] for name in rungs_of(regime))
        axis.text(x, y, text, transform=axis.transAxes, fontsize=9, ha=across, va=along)
    for (images, width), point in zip(steps, points, strict=True):
        axis.plot(*point, "o", color="black", markersize=5)
        label = f"{images} image{'s' * (images > 1)}, width {width}"
        axis.annotate(label, point, (6, -3), textcoords="offset points", fontsize=8)
    name = f"{OWN}: {device.type.upper()}, one thread"
    axis.set(xscale="log", yscale="log", xlim=(low, high), ylim=(least, most), title=name,
             xlabel="operations per byte (FLOP/byte)", ylabel="bytes of a step")  # fmt: skip
    axis.xaxis.set_major_formatter("{x:g}")
    says = f"the ridge is at {ridge:.3g} FLOP/byte; below {floor / 1e6:.3g} MB a step, launching takes longest."
    return Drawn(axis, f"{name}: {says}")


def what_binds(here: Limits, device: torch.device, cards: Sequence[Card], steps: Sequence[tuple[int, int]]) -> str:
    """What binds in `steps` (images, width) on this device and on `cards` launched by this computer, and what helps."""
    every = {f"{OWN}: {device.type.upper()}": (here, device.type)}
    for c in cards:
        every[f"{PREDICTED}: {c.name}"] = Limits(here.launch, c.sheet_peak, c.bandwidth), "cuda"
    rows = [(label, *(binding(limits.of_step(*s)) for s in steps)) for label, (limits, _) in every.items()]
    said = [
        columns(["what binds", *(f"{images} x {width}" for images, width in steps)], rows),
        f"Columns: images x width. Cards: their data sheets, launched from here in {1e6 * here.launch:.0f} µs.",
    ]
    together = {}
    for label, (limits, kind) in every.items():
        together.setdefault((binding(limits.of_step()), kind), []).append(label)
    for (regime, kind), labels in together.items():
        said.append(f"{'; '.join(labels)}: 128 images at width 128 wait for {regime}.")
        said.append(f"Rungs that relieve them most: {'; '.join(relieving(regime, kind))}.")
    return "\n".join(said)
