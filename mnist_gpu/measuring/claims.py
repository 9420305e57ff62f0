"""What others measured, CPU against GPU, on trainings like ours: data/published/head_to_heads.json.

Figures read from their sources, with what the source leaves unsaid. They are *published* numbers.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from mnist_gpu.measuring.prediction import PUBLISHED

KINDS = ("cpu", "gpu", "other")


@dataclass(frozen=True)
class Run:
    """One training of a claim."""

    device: str  # "GTX 1080 Ti"
    kind: str  # of KINDS
    seconds: float
    of: str = ""  # what was trained, where a claim has several: "width 750"


@dataclass(frozen=True)
class Claim:
    """What somebody published: their trainings, and what their text leaves out."""

    title: str
    what: str  # network, data, loader, batch, optimizer
    per: str  # what the seconds are of: "epoch", "training", or "run" where that is not said
    runs: tuple[Run, ...]
    unsaid: str  # which CPU, threads, warm-up, spread, ...
    source: str
    year: str  # "" where it is not known
    read: str  # the day on which the figures were read

    def seconds(self, device: str, of: str = "") -> float:
        """Of the training on this device. Raises KeyError where there is none."""
        for run in self.runs:
            if (run.device, run.of) == (device, of):
                return run.seconds
        raise KeyError(f"{self.title} has no training on {device!r}")


@functools.cache
def claims() -> dict[str, Claim]:
    """All claims by their name. Raises ValueError for a file that is not as described in data/README.md."""
    return read(PUBLISHED / "head_to_heads.json")


def read(path: Path) -> dict[str, Claim]:
    """The claims of one file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != "mnist_gpu head to heads 1":
            raise ValueError(f"its format is {content['format']!r}")
        found = {}
        for name, claim in content["claims"].items():
            runs = tuple(Run(**run) for run in claim.pop("runs"))
            if not runs or any(run.kind not in KINDS or not 0 < run.seconds < 1e6 for run in runs):
                raise ValueError(f"a training of {name!r} has no kind or no seconds above 0")
            found[name] = Claim(runs=runs, read=content["read"], **claim)
            if not all((found[name].title, found[name].what, found[name].source, found[name].unsaid)):
                raise ValueError(f"{name!r} says too little")
        return found
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is not a file of published head-to-head runs: {error}") from error
