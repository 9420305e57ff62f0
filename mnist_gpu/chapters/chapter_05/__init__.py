"""Chapter 05, CPU versus GPU: which is faster, by how much, at which sizes, and how well a model predicts that."""

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated

import torch

from mnist_gpu.chapters.chapter_05.exercises import fair_times, may_be_claimed
from mnist_gpu.checks import at_least_one
from mnist_gpu.data import make_batches
from mnist_gpu.device import cpu_name, usable_cpus, using_threads
from mnist_gpu.faster.ladder import sgd
from mnist_gpu.measuring import prediction
from mnist_gpu.measuring.busy import watched
from mnist_gpu.measuring.drawing import Drawn, columns, grid, span
from mnist_gpu.measuring.exercises import MEND, WRITE, Exercise, checker
from mnist_gpu.measuring.prediction import Limits, predict_graph, predict_step, predictable, predicted_card, sources
from mnist_gpu.measuring.prediction import measured_limits as measured_limits  # for a cell
from mnist_gpu.measuring.results import Timed, side_name
from mnist_gpu.measuring.section import QUICK_ROUNDS, ROUNDS, Section
from mnist_gpu.measuring.timing import Comparison, alternate, compare, measure
from mnist_gpu.measuring.workloads import repeat, seconds_of, thread_counts, train_part, training_step
from mnist_gpu.model import make_model, step_bytes, step_flops
from mnist_gpu.training import Epoch, make_step

CPU = torch.device("cpu")


def sides_of(device: torch.device) -> dict[str, tuple[torch.device, int]]:
    """What to compare, (device, threads) by name: the CPU with one and all usable threads, `device` if it is a GPU."""
    found = [(on, threads) for on in dict.fromkeys([CPU, device]) for threads in thread_counts(on)]
    return {side_name(on.type, threads): (on, threads) for on, threads in found}


def training(on: torch.device, threads: int, kind: str = "device") -> Callable[[], Epoch]:
    """A hundred steps from fresh weights, as a function. Making the network and drawing the order are part of it."""
    batches = make_batches(kind, device=on)

    @using_threads(threads)
    def run() -> Epoch:
        model = make_model(device=on)
        return train_part((model, make_step(model, sgd(model)), batches), steps=100)

    return run


@watched
def measure_crossover(
    device: torch.device, *, batch_sizes=(32, 128, 512, 2048), widths=(32, 128, 512, 2048), rounds=10,
    call_seconds=0.02, progress: Callable = iter,
) -> Iterator[Timed]:  # fmt: skip
    """Time of a training step over batch size x hidden width, data already on the device, all sides timed in turn.

    A timed call repeats the step until it takes about `call_seconds`; the times yielded are of one step.
    """
    for batch_size, hidden in progress(list(itertools.product(batch_sizes, widths))):
        calls, counts = {}, {}
        for on, threads in sides_of(device).values():
            with using_threads(threads):
                step = training_step(on, batch_size, hidden)
                counts[on.type, threads] = count = max(1, math.ceil(call_seconds / seconds_of(step, on)))
            calls[on.type, threads] = partial(repeat, step, count, threads)
        sizes, flop = {"batch_size": batch_size, "hidden": hidden}, sum(step_flops(batch_size, hidden))
        work = {"flop": flop, "bytes": step_bytes(batch_size, hidden), "images": batch_size}
        for side, seconds in alternate(calls, rounds=rounds, device=device).items():
            yield Timed("crossover", "step", *side, [s / counts[side] for s in seconds], sizes, work)


SECTION = Section(measure_crossover, full=ROUNDS, quick=QUICK_ROUNDS, once=True)  # all devices in one run, in turn


def steps_of(measured: Iterable[Timed], side: str) -> list[Timed]:
    """Those of one side, by its name, in the order of batch sizes and then of widths."""
    own = [m for m in measured if side_name(m.device, m.threads) == side]
    return sorted(own, key=lambda m: (m.parameters["batch_size"], m.parameters["hidden"]))


def compared_steps(first: Sequence[Timed], second: Sequence[Timed]) -> list[Comparison]:
    """Two sides compared step by step, with intervals that hold together: above 1 where the second is faster."""
    pairs = [{"a": a.seconds, "b": b.seconds} for a, b in zip(first, second, strict=True)]
    return [compare(pair, "a", "b", of=len(pairs)) for pair in pairs]


def ratio_map(ratios: Sequence[Comparison | float], steps: Sequence[Timed], title: str) -> Drawn:
    """How many times as fast, over the sizes of `steps`, measured or predicted.

    Coloured where one side wins. Pale and in brackets where the interval has 1 in it.
    """
    cells = [(r.ratio, r.times, r.differs) if isinstance(r, Comparison) else (r, f"{r:.2g}", True) for r in ratios]
    rows, widths = (sorted({m.parameters[name] for m in steps}) for name in ("batch_size", "hidden"))
    wins = torch.tensor([ratio if claimed else 1.0 for ratio, _, claimed in cells], dtype=torch.float64)
    texts = [text if claimed else f"({text})" for _, text, claimed in cells]
    axes = grid(
        wins.log2().reshape(len(rows), -1), [texts[i : i + len(widths)] for i in range(0, len(texts), len(widths))],
        rows=("batch size", rows), columns=("hidden width", widths), around=0.0, title=title, label="times as fast",
    ).axes  # fmt: skip
    axes.images[0].colorbar.ax.yaxis.set_major_formatter(lambda log2, _: f"{2**log2:.2g}")
    faster, slower = int((wins > 1).sum()), int((wins < 1).sum())
    counts = f"of {len(cells)} cells faster in {faster}, slower in {slower}, neither in {len(cells) - faster - slower}"
    (_, text, _), step = max(zip(cells, steps, strict=True), key=lambda pair: pair[0])
    at = "{batch_size} images at width {hidden}".format(**step.parameters)
    return Drawn(axes, f"{title}: {counts}. At best {text} times as fast, with {at}.")


def judge_model(model: Callable[..., float], limits: Mapping[str, Limits], measured: Sequence[Timed]) -> None:
    """Prints how far the model is off the steps of one side or two, and how often it knows which of them wins.

    `model(limits, batch_size=..., hidden=...)` gives the seconds of a step.
    """
    steps = {side: steps_of(measured, side) for side in limits}
    for side, own in steps.items():
        ratios = [model(limits[side], **m.parameters) / m.median for m in own]
        off = [max(ratio, 1 / ratio) for ratio in ratios]
        said = f"off by a factor of {statistics.median(off):.2f} (median), at most {max(off):.1f}"
        print(f"{side}: predicted times are {said}")
    *_, base, other = [*steps] * 2
    decided = []  # (whether the other wins, whether the model says so)
    for m, cell in zip(steps[base], compared_steps(steps[base], steps[other]), strict=True):
        if cell.differs:
            first, second = (model(limits[side], **m.parameters) for side in (base, other))
            decided.append((cell.ratio > 1, first > second))
    right, wins = sum(won == says for won, says in decided), sum(won for won, _ in decided)
    print(f"Of the {len(decided)} cells in which a side wins, the model names the right one in {right};", end=" ")
    print(f"always naming the same side would get {max(wins, len(decided) - wins)}.")


@using_threads()
def run_predict(
    card: Annotated[str | None, "one card, such as T4; without it, all", {"nargs": "?"}] = None,
    batch_size: Annotated[int, "images per step"] = 128,
    hidden: Annotated[int, "width of the hidden layer"] = 128,
) -> None:
    """Prints a table of a training step on GPUs that are not here, beside this computer's CPU, which is measured.

    Raises ValueError for an unknown card or sizes below 1.
    """
    at_least_one(batch_size=batch_size, hidden=hidden)
    cards = [predicted_card(name) for name in ([card] if card else predictable())]
    launch, rows, seconds = measure(training_step(CPU, 1, 1)).median, [], {}
    for threads in thread_counts(CPU):
        with using_threads(threads):
            seconds[threads] = measure(training_step(CPU, batch_size, hidden)).median
    threads, here = min(seconds.items(), key=lambda found: found[1])
    for there in cards:
        times = predict_step(there, launch, batch_size, hidden), predict_graph(there, batch_size, hidden)
        rows.append((there.name, *(text for t in times for text in (span(t, 1e-6), f"{span(t.gain_over(here))}x"))))
    print(f"Measured here, {cpu_name()}: a step of {batch_size} images at width {hidden} takes {1e6 * here:,.0f} μs,")
    print(f"with {threads} of {usable_cpus()} usable CPUs; to launch its operations takes {1e6 * launch:,.0f} μs.")
    print("Predicted for GPUs, from figures that others have published; nothing of it was measured:")
    print(columns(["card", "launched, μs", "gain", "as a CUDA graph, μs", "gain"], rows))
    print("launched: this CPU asks for the operations one by one; in a graph it does not. gain: over this CPU's step.")
    if card:
        print("From these figures of others:", sources(prediction.figures_for(card)), sep="\n")


EXERCISES = (
    Exercise("05.1", WRITE, "May a claim be made?", may_be_claimed),
    Exercise("05.2", MEND, "A comparison that favours one side", fair_times),
)
check = checker(EXERCISES)
