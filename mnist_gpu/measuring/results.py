"""Recorded results: one JSON file per machine, with every raw time. data/README.md describes the fields.

Only `python -m mnist_gpu benchmark --record` writes them, and `python benchmarks/peers --record` adds its section.
"""

import json
import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from mnist_gpu.checks import atomic_write
from mnist_gpu.data import TRAIN_IMAGES
from mnist_gpu.device import cpu_name, device_name
from mnist_gpu.measuring.timing import Comparison, compare_all

QUIET = 0.5  # the load average up to which a machine is idle enough to record; above, every legend says it
FORMAT = "mnist_gpu results 1"
BROKEN_OFF = "the rest of the section"  # the name of what is skipped when an error ends a section
REFERENCE = Path(__file__).resolve().parents[2] / "data" / "reference"


@dataclass(frozen=True)
class Timed:
    """One measurement of a results file."""

    section: str
    name: str
    device: str
    threads: int
    seconds: list[float]  # every raw time of a call
    parameters: dict = field(default_factory=dict)  # what was varied
    per_call: dict = field(default_factory=dict)  # what one timed call did: flop, bytes, images, steps
    first_use_seconds: float | None = None  # the very first call, with compilation, capture or start-up in it
    proof: dict = field(default_factory=dict)  # what shows that the result is the same
    run: int = 0  # only what one run of the benchmark has timed in turn is compared

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    def rate(self, what: str) -> float:
        """`per_call[what]` per second, from the median time: FLOP/s, bytes/s, images/s."""
        return self.per_call[what] / self.median

    def per_epoch(self) -> list[float]:
        """The raw times scaled to one epoch of MNIST's 60,000 training images, in seconds."""
        return [s * TRAIN_IMAGES / self.per_call["images"] for s in self.seconds]


@dataclass(frozen=True)
class Skipped:
    """What could not be measured, and why."""

    section: str
    name: str
    device: str
    reason: str


@dataclass(frozen=True)
class Results:
    """What one machine gave."""

    environment: dict
    measurements: list[Timed]
    date: str
    skipped: list[Skipped] = field(default_factory=list)

    def hardware(self, device: str) -> str:
        """The name of the hardware that a measurement ran on, for a legend."""
        if device == "webgpu":  # which is none of PyTorch's devices: each of its measurements names the hardware
            return next((m.proof["hardware"] for m in self.measurements if "hardware" in m.proof), "a GPU")
        return self.environment["cpu_name" if device == "cpu" else "device_name"]

    def whose(self, timed: "Timed", *, recorded: bool = True) -> str:
        """For a legend: the hardware and its threads; of a recorded machine also when, and how busy it was."""
        where, load = side_name(timed.device, timed.threads), self.environment.get("load_average") or 0.0
        busy = f", at a load of {load:g}" if load > QUIET else ""
        return f"{self.hardware(timed.device)}, {where}" + f" (recorded {self.date}{busy})" * recorded

    def select(self, section: str, name: str | None = None, **fields) -> list[Timed]:
        """Measurements of a section, by name, fields and parameters: select("crossover", device="cpu", hidden=128)."""

        def has(m: Timed) -> bool:
            return all((getattr(m, k) if hasattr(m, k) else m.parameters.get(k)) == v for k, v in fields.items())

        return [m for m in self.measurements if m.section == section and name in (None, m.name) and has(m)]


def side_name(device: str, threads: int) -> str:
    """ "CPU with 2 threads", "WebGPU", or the type of the GPU: "CUDA"."""
    if device == "webgpu":
        return "WebGPU"
    return f"CPU with {threads} thread" + "s" * (threads > 1) if device == "cpu" else device.upper()


def write(path: str | Path, results: Results) -> None:
    """Writes a results file, whole or not at all."""
    text = json.dumps({"format": FORMAT, **asdict(results)}, indent=1) + "\n"
    with atomic_write(path) as file:
        file.write(text.encode())


def read(path: str | Path) -> Results:
    """Reads a results file. Raises ValueError if it is none, FileNotFoundError if it is not there."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
        measurements = [Timed(**m) for m in content["measurements"]]
        skipped = [Skipped(**s) for s in content.get("skipped", [])]
        if not all(m.seconds and all(0 < s < math.inf for s in m.seconds) for m in measurements):
            raise ValueError("a measurement has no times above 0 seconds")
        return Results(content["environment"], measurements, content["date"], skipped)
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # JSONDecodeError is a ValueError
        raise ValueError(f"{path} is not a results file of format {FORMAT!r}: {error}") from error


def merged(first: Results, second: Results) -> Results:
    """Two runs on one machine as one; of the load that they began with, the larger.

    A measurement of the first gives way only to the same one of the second with as many rounds or more. Raises
    ValueError if their environments differ in anything but the load.
    """
    loads = [r.environment.get("load_average") for r in (first, second)]
    environment = first.environment | {"load_average": max((x for x in loads if x is not None), default=None)}
    if different := [k for k, v in environment.items() if k != "load_average" and second.environment.get(k) != v]:
        raise ValueError(f"these are results of another machine or program: {', '.join(different)} differ")

    def same(m: Timed) -> tuple:
        return m.section, m.name, m.device, m.threads, json.dumps(m.parameters, sort_keys=True)

    run, kept = 1 + max((m.run for m in first.measurements), default=-1), {same(m): m for m in first.measurements}
    for m in second.measurements:
        if same(m) not in kept or len(m.seconds) >= len(kept[same(m)].seconds):
            kept[same(m)] = replace(m, run=run + m.run)
    again = {(one.section, one.name, one.device) for one in [*second.measurements, *second.skipped]}
    again |= {(section, BROKEN_OFF, device) for section, _, device in again}
    skipped = [s for s in first.skipped if (s.section, s.name, s.device) not in again] + second.skipped
    return Results(environment, list(kept.values()), second.date, skipped)


def compare_in_turn(measured: Iterable[Timed], pairs: Iterable[tuple[str, str]]) -> list[Comparison]:
    """`compare_all` for those of `pairs` (names) that one run has timed in turn; the others are left out."""
    found = {m.name: m for m in measured}
    timed = [(a, b) for a, b in pairs if a in found and b in found and found[a].run == found[b].run]
    return compare_all({name: m.seconds for name, m in found.items()}, timed)


def recorded(folder: str | Path = REFERENCE, *, unlike: torch.device | None = None) -> list[Results]:
    """All recorded results in `folder`, by file name; with `unlike`, the reader's device, those of other hardware."""
    every = [read(path) for path in sorted(Path(folder).glob("*.json"))]
    here = {device_name(unlike), cpu_name()} if unlike else set()
    return [r for r in every if not unlike or not {r.environment["device_name"], r.environment["cpu_name"]} <= here]


def comparisons(results: Results, device: str, section: str, pairs: Callable, note: str = "", **fields) -> list[str]:
    """A line of the summary for each of `pairs(times)` that were timed, over the measurements that `fields` select."""
    measured = results.select(section, device=device, **fields)
    asked = [(a, b) for a, b in dict.fromkeys(pairs({m.name: m.seconds for m in measured})) if a != b]
    return [f", {section}{note}: {one}" for one in compare_in_turn(measured, asked)]
