"""Chapter 05, CPU versus GPU: which is faster, by how much, from which size on, and how well a model predicts that."""

import itertools
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated

import torch

from mnist_gpu.chapters.chapter_05.exercises import fair_times, may_be_claimed, threads_pay
from mnist_gpu.checks import at_least_one
from mnist_gpu.data import make_batches
from mnist_gpu.device import describe, using_threads
from mnist_gpu.faster.ladder import sgd
from mnist_gpu.measuring import prediction
from mnist_gpu.measuring.busy import watched
from mnist_gpu.measuring.commands import run_command
from mnist_gpu.measuring.drawing import RECORDED, Drawn, Series, bars, columns, grid, number, span
from mnist_gpu.measuring.exercises import MEND, PREDICT, WRITE, Exercise, checker
from mnist_gpu.measuring.prediction import Limits, Range, predict_graph, predict_step, predictable, predicted_card
from mnist_gpu.measuring.prediction import measured_limits as measured_limits  # for a cell
from mnist_gpu.measuring.published import sources
from mnist_gpu.measuring.results import Results, Timed, recorded, side_name
from mnist_gpu.measuring.section import QUICK_ROUNDS, ROUNDS, Section
from mnist_gpu.measuring.timing import Comparison, alternate, compare, measure
from mnist_gpu.measuring.workloads import product_size, repeat, seconds_of, thread_counts, train_part, training_step
from mnist_gpu.model import make_model, step_bytes, step_flops
from mnist_gpu.training import Epoch, make_step

CPU = torch.device("cpu")
PIPELINES = ("textbook", "tensors in memory", "uint8 on the device")  # rungs of the ladder; chapter 07 has the others


# Wrong timings, and the fair one


def two_matrices(device: torch.device) -> torch.Tensor:
    """`[2, n, n]`, so large that launching their product takes a small part of its time."""
    n = product_size(device)
    return torch.rand(2, n, n, device=device)


def recorded_launches(device: torch.device) -> None:
    """Prints what a clock that does not wait says of a matrix product on recorded GPUs, and one that does."""
    for r in recorded(unlike=device):
        for m in r.select("ceilings", "launch"):
            if m.device != "cpu":
                whole = r.select("ceilings", "matrix product", device=m.device, size=m.parameters["size"])[0].median
                print(f"{r.whose(m)}: not waiting {1e6 * m.median:.0f} µs, waiting {1e6 * whole:.0f} µs")


def fresh_starts(program: str, times: int = 3) -> list[list[float]]:
    """The numbers in the last line that a Python program prints, started so often, each time as a new process."""
    said = [run_command([sys.executable, "-c", program]).splitlines()[-1] for _ in range(times)]
    return [[float(text) for text in line.split()] for line in said]


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


def recorded_pipelines(device: torch.device) -> None:
    """Shows what other recorded machines gave for an epoch with each of chapter 03's pipelines."""
    series = []
    for r in recorded(unlike=device):
        rungs = [m for m in r.select("ladder", hidden=128) if m.name in PIPELINES]
        for who in dict.fromkeys(map(r.whose, rungs)):
            own = [m for m in rungs if r.whose(m) == who]
            ends = zip(*(m.rate_interval("images") for m in own), strict=True)
            series.append(Series(who, RECORDED, [m.name for m in own], [m.rate("images") for m in own], *ends))
    if series:
        bars(series, unit="images/s", title="One epoch of training on recorded machines", log=True).show()


# From which size on it pays


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


def ratio_map(ratios: Sequence[Comparison | Range | float], steps: Sequence[Timed], title: str) -> Drawn:
    """How many times as fast, over the sizes of `steps`: measured, a predicted range, or a number.

    Coloured where one side wins. Pale and in brackets where the interval or the range has 1 in it.
    """

    def cell(found: Comparison | Range | float) -> tuple[float, str, bool]:
        if isinstance(found, Comparison):
            return found.ratio, found.times, found.differs
        if isinstance(found, Range):
            return found.middle, span(found), 1 not in found
        return found, f"{found:.2g}", True

    rows, widths = (sorted({m.parameters[name] for m in steps}) for name in ("batch_size", "hidden"))
    cells = [cell(found) for found in ratios]
    wins = torch.tensor([ratio if claimed else 1.0 for ratio, _, claimed in cells], dtype=torch.float64)
    texts = [text if claimed else f"({text})" for _, text, claimed in cells]
    axes = grid(
        wins.log2().reshape(len(rows), -1), [texts[i : i + len(widths)] for i in range(0, len(texts), len(widths))],
        rows=rows, columns=widths, around=0.0, xlabel="hidden width", ylabel="batch size", title=title,
        label="times as fast",
    ).axes  # fmt: skip
    axes.figure.set_size_inches(1.6 + 1.15 * len(widths), 1.1 + 0.62 * len(rows))  # for the text of a range
    axes.images[0].colorbar.ax.yaxis.set_major_formatter(lambda log2, _: f"{2**log2:.2g}")
    faster, slower = int((wins > 1).sum()), int((wins < 1).sum())
    (_, text, _), step = max(zip(cells, steps, strict=True), key=lambda pair: pair[0])
    at = "{batch_size} images at width {hidden}".format(**step.parameters)
    counts = f"of {len(cells)} cells faster in {faster}, slower in {slower}, neither in {len(cells) - faster - slower}"
    return Drawn(axes, f"{title}: {counts}. At best {text} times as fast, with {at}.")


def recorded_maps(device: torch.device) -> None:
    """Shows the map of every other recorded machine with a GPU, against its CPU with all threads."""
    for r in recorded(unlike=device):
        measured = r.select("crossover")
        if gpu := next((m for m in measured if m.device != "cpu"), None):
            cpu = max((m for m in measured if m.device == "cpu"), key=lambda m: m.threads)
            first, second = (steps_of(measured, side_name(m.device, m.threads)) for m in (cpu, gpu))
            title = f"{r.hardware(gpu.device)} against {r.whose(cpu)}"
            ratio_map(compared_steps(first, second), first, title).show()


# A model of launches, operations and bytes: seconds, from a side's limits, batch_size= and hidden=


def off_by(model: Callable[..., float], limits: Limits, steps: Sequence[Timed]) -> str:
    """By which factors, 1 or more, measured steps take longer or shorter than the model says."""
    ratios = [model(limits, **m.parameters) / m.median for m in steps]
    off = [max(ratio, 1 / ratio) for ratio in ratios]
    return f"off by a factor of {statistics.median(off):.2f} (median) and at most {max(off):.1f}"


def judge_model(model: Callable[..., float], limits: Mapping[str, Limits], measured: Sequence[Timed]) -> None:
    """Prints how far the model is off the steps of one side or two, and how often it knows which of them wins."""
    steps = {side: steps_of(measured, side) for side in limits}
    for side, own in steps.items():
        print(f"{side}: predicted times are {off_by(model, limits[side], own)}")
    *_, base, other = [*steps] * 2
    decided = []  # (whether the other wins, whether the model says so)
    for m, cell in zip(steps[base], compared_steps(steps[base], steps[other]), strict=True):
        if cell.differs:
            first, second = (model(limits[side], **m.parameters) for side in (base, other))
            decided.append((cell.ratio > 1, first > second))
    right, wins = sum(won == says for won, says in decided), sum(won for won, _ in decided)
    print(f"Of the {len(decided)} cells in which a side wins, the model names the right one in {right};", end=" ")
    print(f"always naming the same side would get {max(wins, len(decided) - wins)}.")
    if wins in (0, len(decided)):
        print("Wherever one side wins it is the same: there is no crossover in this map for the model to find.")


def recorded_limits(results: Results, device: str, threads: int) -> Limits | None:
    """Those of a recorded machine, or None where one is not recorded. Launching is recorded with one thread alone."""
    launch = results.select("account", "smallest network", device=device)
    products = results.select("ceilings", "matrix product", device=device, threads=threads)
    copies = results.select("ceilings", "copy", device=device, threads=threads)
    if not (launch and products and copies):
        return None
    largest = max(copies, key=lambda m: m.parameters["mebibytes"])
    return Limits(launch[0].median, max(m.rate("flop") for m in products), largest.rate("bytes"))


def judge_recorded(model: Callable[..., float]) -> None:
    """Prints how far the model is off on every recorded machine, from its recorded limits."""
    for r in recorded():
        for device, threads in dict.fromkeys((m.device, m.threads) for m in r.select("crossover")):
            if limits := recorded_limits(r, device, threads):
                steps = r.select("crossover", device=device, threads=threads)
                print(f"{r.whose(steps[0])}: {off_by(model, limits, steps)}")


# A GPU that is not here


def step_here(batch_size: int, hidden: int) -> dict[int, float]:
    """Seconds of a training step on this computer's CPU, measured, by the number of threads."""
    found = {}
    for threads in thread_counts(CPU):
        with using_threads(threads):
            found[threads] = measure(training_step(CPU, batch_size, hidden)).median
    return found


def gains_of(card: str, launch: float, steps: Sequence[Timed]) -> list[Range]:
    """How many times as fast as each measured step it is on the card, if the host takes `launch` seconds to ask."""
    there = predicted_card(card)
    return [predict_step(there, launch, **m.parameters).gain_over(m.median) for m in steps]


def pays_from(gains: Sequence[float], sizes: Sequence[int]) -> int | None:
    """From which of the growing `sizes` on every gain is above 1; None if from none of them on."""
    return next((size for i, size in enumerate(sizes) if min(gains[i:]) > 1), None)


def predicted_map(card: str, launch: float, steps: Sequence[Timed], against: str) -> None:
    """Shows what is predicted for a card against measured steps, what it rests on, and from which batch on it pays."""
    there, kernels, gains = predicted_card(card), prediction.kernels(), gains_of(card, launch, steps)
    print(f"launching on this CPU {1e6 * launch:.0f} µs, {kernels.low} to {kernels.high} kernels a step")
    print(f"{card}, published: {span(there.rate, 1e9)} GFLOP/s, {span(there.bandwidth, 1e9)} GB/s,", end=" ")
    print(f"{span(there.kernel, 1e-6)} µs a kernel (of any card)")
    ratio_map(gains, steps, f"{card} (predicted) against {against} (measured)").show()
    sizes, widths = (sorted({m.parameters[name] for m in steps}) for name in ("batch_size", "hidden"))
    for i, width in enumerate(widths):
        surely, perhaps = (pays_from(ends, sizes) for ends in zip(*gains[i :: len(widths)], strict=True))
        where = f"surely from {surely} images on" if surely else f"perhaps from {perhaps} images on"
        print(f"width {width}: pays {where if perhaps else 'at none of these batch sizes'}")


def predicted_maps(launch: float, steps: Sequence[Timed]) -> str:
    """A table of every card there is a prediction for: in how many of a CPU's measured steps it would be faster."""
    rows = []
    for card in predictable():
        gains = gains_of(card, launch, steps)
        surely, never = sum(g.low > 1 for g in gains), sum(g.high < 1 for g in gains)
        best = max(gains, key=lambda g: g.middle)
        rows.append((card, surely, len(gains) - surely - never, never, f"{span(best)}x"))
    return columns(["predicted", "surely faster", "open", "surely slower", "the most that it gains"], rows)


def predicted_steps(cards: Sequence[str], launch: float, here: float, batch_size: int = 128, hidden: int = 128) -> str:
    """A table of a step on `cards`, predicted: launched by this computer in `launch` seconds, its CPU takes `here`."""
    rows, steps = [], []
    for card in map(predicted_card, cards):
        found = predict_step(card, launch, batch_size, hidden), predict_graph(card, batch_size, hidden)
        rows.append((card.name, *(text for t in found for text in (span(t, 1e-6), f"{span(t.gain_over(here))}x"))))
        steps.append(found[0])
    head = ["predicted", "launched, µs", "against this CPU", "as a CUDA graph, µs", "against this CPU"]
    said = [
        columns(head, rows),
        "At least to at most. launched: the host asks for the operations one by one; in a graph it does not.",
        f"against this CPU: how many times as fast as its {1e6 * here:,.0f} µs.",
    ]
    if len(steps) > 1:
        alike = max(s.low for s in steps) <= min(s.high for s in steps)
        said += ["Launched one by one, " + ("all may take as long: their ranges overlap." if alike else "they differ.")]
    return "\n".join(said)


def outcomes() -> None:
    """Prints how many predictions were written down, and those of cards that were recorded since with their times."""
    when, written = prediction.written_down()
    print(f"{len(written)} predictions, {when}.")
    rows, found = [], prediction.outcomes(recorded())
    for (card, section, name, parameters, seconds), measured in found:
        sizes = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in parameters.items())
        per, unit = (1, "s") if section == "ladder" else (1e-6, "µs")
        times = f"{span(seconds, per)} {unit}", number(measured / per), f"{measured / seconds.middle:.2f}x"
        rows.append((f"{card}: {name}, {sizes}", *times, "yes" if measured in seconds else "NO"))
    if rows:
        print(columns(["what", "predicted", "measured", "of the middle", "in the range"], rows))
        right = sum(o.measured in o.predicted.seconds for o in found)
        print(f"{right} of {len(rows)} measured times lie in the predicted range.")


@using_threads()
def run_predict(
    card: Annotated[str | None, "one card, such as T4; without it, all", {"nargs": "?"}] = None,
    batch_size: Annotated[int, "images per step"] = 128,
    hidden: Annotated[int, "width of the hidden layer"] = 128,
) -> int:
    """Prints what a training step would take on a GPU that is not here, and on this computer's CPU, which is measured.

    Raises ValueError for an unknown card or sizes below 1.
    """
    at_least_one(batch_size=batch_size, hidden=hidden)
    cards = [predicted_card(card).name] if card else predictable()
    print(describe(CPU))
    launch, seconds = step_here(1, 1)[1], step_here(batch_size, hidden)
    here = ", ".join(f"{1e6 * s:,.0f} µs with {t} thread{'s' * (t > 1)}" for t, s in seconds.items())
    print(f"Measured on this CPU: a step of {batch_size} images at width {hidden} takes {here}.")
    print(f"To ask for its operations takes {1e6 * launch:,.0f} µs: the step of the smallest network, with one thread.")
    print("Predicted for GPUs, from figures that others have published; nothing of it was measured:")
    print(predicted_steps(cards, launch, min(seconds.values()), batch_size, hidden))
    if card:
        print("From these figures of others:", sources(prediction.figures_for(card)), sep="\n")
    return 0


EXERCISES = (
    Exercise("05.1", WRITE, "May a claim be made?", may_be_claimed),
    Exercise("05.2", MEND, "A comparison that favours one side", fair_times),
    Exercise("05.3", PREDICT, "From which width on do more threads pay?", threads_pay),
)
check = checker(EXERCISES)
