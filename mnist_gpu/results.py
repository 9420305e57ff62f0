"""Recorded results: one JSON file a machine, with every raw time.

    {"format": "mnist_gpu results 1",
     "date": "2026-01-31",
     "quick": false,                      shorter runs: good for a look, not for a record
     "environment": {...},                mnist_gpu.device.environment: hardware, driver, versions, load
     "measurements": [
       {"section": "ceilings",            ceilings, pipelines, crossover or ladder
        "name": "matrix product",         what was timed
        "device": "cuda", "threads": 1,   where, and with how many CPU threads
        "parameters": {"size": 1024},     what was varied
        "per_call": {"flop": 2147483648}, what one timed call did: flop, bytes, images, steps
        "first_use_seconds": null,        the first call, where it is a matter of its own (compilation, capture)
        "seconds": [0.0021, 0.0022]}]}    every raw time of one call

Only `python -m mnist_gpu benchmark --record` writes them.
"""

import json
import math
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mnist_gpu.files import atomic_write
from mnist_gpu.timing import spread

FORMAT = "mnist_gpu results 1"
REFERENCE = Path(__file__).resolve().parent.parent / "data" / "reference"


@dataclass(frozen=True)
class Timed:
    """One measurement of a results file, fields as described above."""

    section: str
    name: str
    device: str
    threads: int
    seconds: list[float]
    parameters: dict = field(default_factory=dict)
    per_call: dict = field(default_factory=dict)
    first_use_seconds: float | None = None

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    def rate(self, what: str) -> float:
        """`per_call[what]` a second, from the median time: FLOP/s, bytes/s, images/s."""
        return self.per_call[what] / self.median

    def rate_spread(self, what: str) -> tuple[float, float]:
        """The spread of that rate, slowest first."""
        low, high = spread(self.seconds)
        return self.per_call[what] / high, self.per_call[what] / low


@dataclass(frozen=True)
class Results:
    """What one machine gave."""

    environment: dict
    measurements: list[Timed]
    date: str
    quick: bool = False

    def hardware(self, device: str) -> str:
        """The name of the hardware that a measurement ran on, for a legend."""
        return self.environment["cpu_name"] if device == "cpu" else self.environment["device_name"]

    def select(self, section: str, name: str | None = None, **fields) -> list[Timed]:
        """Measurements of a section, by name, fields and parameters: select("crossover", device="cpu", hidden=128)."""
        return [
            m
            for m in self.measurements
            if m.section == section
            and name in (None, m.name)
            and all((getattr(m, k) if hasattr(m, k) else m.parameters.get(k)) == v for k, v in fields.items())
        ]


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
        if not all(m.seconds and all(0 < s < math.inf for s in m.seconds) for m in measurements):
            raise ValueError("a measurement has no times above 0 seconds")
        return Results(content["environment"], measurements, content["date"], content["quick"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # JSONDecodeError is a ValueError
        raise ValueError(f"{path} is not a results file of format {FORMAT!r}: {error}") from error


def recorded(folder: str | Path = REFERENCE) -> list[Results]:
    """All recorded results in `folder`, in the order of their file names. Raises ValueError for a file that is none."""
    return [read(path) for path in sorted(Path(folder).glob("*.json"))]
