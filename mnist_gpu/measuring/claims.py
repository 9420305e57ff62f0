"""What others measured, CPU against GPU, on trainings like ours: data/published/head_to_heads.json.

Figures read from their sources, with what the source leaves unsaid. They are *published* numbers.
"""

import functools
import json
from typing import NamedTuple

from mnist_gpu.measuring.prediction import PUBLISHED


class Run(NamedTuple):
    """One training of a claim."""

    device: str  # "GTX 1080 Ti"
    kind: str  # "cpu", "gpu" or "other"
    seconds: float
    of: str = ""  # what was trained, where a claim has several: "width 750"


class Claim(NamedTuple):
    """What somebody published: their trainings, and what their text leaves out."""

    title: str
    what: str  # network, data, loader, batch, optimizer
    per: str  # what the seconds are of: "epoch", "training", or "run" where that is not said
    runs: tuple[Run, ...]
    unsaid: str  # which CPU, threads, warm-up, spread, ...
    source: str
    year: str  # "" where it is not known
    read: str  # the day on which the figures were read

    def seconds(self, device: str) -> float:
        """Of the training on this device. Raises KeyError where there is none."""
        return {run.device: run.seconds for run in self.runs if not run.of}[device]


@functools.cache
def claims() -> dict[str, Claim]:
    """All claims by their name."""
    content, found = json.loads((PUBLISHED / "head_to_heads.json").read_text(encoding="utf-8")), {}
    for name, claim in content["claims"].items():
        runs = tuple(Run(**run) for run in claim.pop("runs"))
        found[name] = Claim(runs=runs, read=content["read"], **claim)
    return found
