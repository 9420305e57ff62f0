"""`python -m mnist_gpu predict`: what a training step would take on a GPU that is not here."""

import datetime
from pathlib import Path

import torch

from mnist_gpu.checks import at_least_one, writable
from mnist_gpu.device import cpu_name, describe, using_threads
from mnist_gpu.measuring.card import Host, card_numbers, figures_for, host_of, predictable
from mnist_gpu.measuring.sections.account import measure_account
from mnist_gpu.measuring.workloads import step_here
from mnist_gpu.measuring.written_predictions import foretell, need_new, write_predictions


def measure_host(rounds: int = 10) -> Host:
    """This computer's part of a step, measured (ten seconds)."""
    return host_of({m.name: m for m in measure_account(torch.device("cpu"), sizes=(1, 64), steps=20, rounds=rounds)})


@using_threads()
def run(card: str | None = None, batch_size: int = 128, hidden: int = 128, write_down: Path | None = None) -> int:
    """Prints what a training step would take on a GPU that is not here, and on this computer's CPU, which is measured.

    With `write_down`, writes the predictions for every card there. Raises ValueError for an unknown card or sizes below
    1, FileExistsError if something has been written down there before.
    """
    from mnist_gpu.measuring import tables  # with matplotlib, which other commands need not wait for

    at_least_one(batch_size=batch_size, hidden=hidden)
    cards = predictable() if card is None else [card_numbers(card).name]
    if write_down:
        writable(write_down)
        need_new(write_down)
    cpu = torch.device("cpu")
    print(describe(cpu))
    launch, seconds = step_here(1, 1)[1], step_here(batch_size, hidden)
    here = ", ".join(f"{1e6 * s:,.0f} µs with {t} thread{'s' * (t > 1)}" for t, s in seconds.items())
    print(f"Measured on this CPU: a step of {batch_size} images at width {hidden} takes {here}.")
    print(f"To ask for its operations takes {1e6 * launch:,.0f} µs: the step of the smallest network, with one thread.")
    print("Predicted for GPUs, from figures that others have published; nothing of it was measured:")
    tables.predicted_steps(cards, launch, min(seconds.values()), batch_size, hidden)
    if card:
        print("From these figures of others:")
        tables.sources(figures_for(card))
    if write_down:
        date = datetime.date.today().isoformat()
        write_predictions(write_down, foretell(measure_host(), date=date, cpu=cpu_name()))
        print(f"Wrote down the predictions for every card in {write_down}")
    return 0
