"""Predictions that were written down before the card was measured: data/published/predictions.json.

    {"format": "mnist_gpu predictions 1",
     "date": "2026-01-31",
     "cpu_name": "AMD EPYC",                  the computer around the card, whose times went into the predictions:
     "host": {"launch": 0.00025, ...},        mnist_gpu.measuring.card.Host, in seconds
     "predictions": [                         of what a results file has under the same section, name and parameters
       {"card": "T4", "section": "crossover", "name": "step", "parameters": {"batch_size": 32, "hidden": 32},
        "seconds": [0.00025, 0.0004]},        at least, at most; a step, or an epoch of the ladder
       {"card": "T4", "section": "ladder", "name": "textbook", "parameters": {"hidden": 128}, "seconds": [5.6, 6.1]}]}

`python -m mnist_gpu predict --write-down` writes it, once: a prediction that may be changed afterwards is none.
"""

import datetime
import itertools
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mnist_gpu.checks import atomic_write
from mnist_gpu.measuring.card import Host, Range, card_numbers, predict_ladder, predict_step, predictable
from mnist_gpu.measuring.published import CARDS, card_of
from mnist_gpu.measuring.results import Results

FORMAT = "mnist_gpu predictions 1"
PREDICTIONS = CARDS.parent / "predictions.json"
DRAWN = ("T4", "H100")  # an old card that hosted notebooks lend, and one of a data centre
SIZES = (32, 128, 512, 2048)  # of batches and of widths, as in section crossover


class Predicted(NamedTuple):
    """One prediction. `seconds` of a step (section crossover) or an epoch (section ladder)."""

    card: str
    section: str
    name: str
    parameters: dict[str, int]
    seconds: Range


class Written(NamedTuple):
    """All that was written down on one day."""

    date: str
    cpu_name: str
    host: Host
    predictions: list[Predicted]

    def ladder(self, card: str) -> dict[str, Range]:
        """Seconds per epoch of the rungs of one card that were predicted."""
        return {p.name: p.seconds for p in self.predictions if (p.card, p.section) == (card, "ladder")}

    def label(self, card: str) -> str:
        """For a legend."""
        return f"predicted: {card}, with the CPU {self.cpu_name} ({self.date})"


class Outcome(NamedTuple):
    """A prediction beside what was measured on the card later, in seconds."""

    predicted: Predicted
    measured: float

    @property
    def factor(self) -> float:
        """What was measured, in times of the range's middle."""
        return self.measured / self.predicted.seconds.middle

    @property
    def right(self) -> bool:
        """Whether it lies in the range."""
        return self.measured in self.predicted.seconds


def foretell(host: Host, *, date: str, cpu: str) -> Written:
    """Predictions for every card there are figures of."""
    found = []
    for name in predictable():
        card = card_numbers(name)
        for batch_size, hidden in itertools.product(SIZES, SIZES):
            seconds = predict_step(card, host.launch, batch_size, hidden)
            found.append(Predicted(name, "crossover", "step", {"batch_size": batch_size, "hidden": hidden}, seconds))
        for rung, seconds in predict_ladder(card, host).items():
            found.append(Predicted(name, "ladder", rung, {"hidden": 128}, seconds))
    return Written(date, cpu, host, found)


def drawn(written: Written, machines: Sequence[Results]) -> list[tuple[str, dict[str, Range]]]:
    """(label, ladder) of the cards whose predictions figures show: a few, and those that have been recorded since."""
    recorded = [card_of(results.environment["device_name"]) for results in machines]
    cards = dict.fromkeys([*DRAWN, *(card for card in recorded if card and written.ladder(card))])
    return [(written.label(card), written.ladder(card)) for card in cards]


def need_new(path: str | Path) -> None:
    """Raises FileExistsError if there is a file already."""
    if Path(path).exists():
        raise FileExistsError(f"{path} is there already: predictions are written down once, and not changed afterwards")


def write_predictions(path: str | Path, written: Written) -> None:
    """Writes the predictions, whole or not at all. Raises FileExistsError if there are some already."""
    need_new(path)
    content = {"format": FORMAT, "date": written.date, "cpu_name": written.cpu_name, "host": written.host._asdict()}
    lines = ",\n  ".join(json.dumps(p._asdict()) for p in written.predictions)
    with atomic_write(path) as file:
        file.write(f'{json.dumps(content)[:-1]},\n "predictions": [\n  {lines}]}}\n'.encode())


def read_predictions(path: str | Path = PREDICTIONS) -> Written:
    """Reads such a file. Raises ValueError if it is none, FileNotFoundError if it is not there."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError("its format is another")
        datetime.date.fromisoformat(content["date"])
        every = [Predicted(**p | {"seconds": Range(*p["seconds"])}) for p in content.pop("predictions")]
        if not all(0 < p.seconds.low <= p.seconds.high < math.inf for p in every):
            raise ValueError("a prediction is no range of times above 0 seconds")
        return Written(predictions=every, **content | {"host": Host(**content["host"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # JSONDecodeError is a ValueError
        raise ValueError(f"{path} is not a file of format {FORMAT!r}: {error}") from error


def outcomes(written: Written, machines: Sequence[Results]) -> list[Outcome]:
    """Every prediction of a card that is among the recorded `machines`, beside what was measured there."""
    found = []
    for results in machines:
        card = card_of(results.environment["device_name"])
        for p in written.predictions:
            for m in results.select(p.section, p.name, **p.parameters) if p.card == card else []:
                if m.device != "cpu":
                    seconds = statistics.median(m.per_epoch()) if p.section == "ladder" else m.median
                    found.append(Outcome(p, seconds))
    return found
