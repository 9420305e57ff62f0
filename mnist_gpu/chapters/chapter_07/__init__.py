"""Chapter 07: the ladder and networks trained together, two sections of the benchmark; figures, tables, exercises."""

import datetime
import os
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad_and_value, stack_module_state
from tqdm.auto import tqdm as progress

from mnist_gpu.chapters.chapter_07.exercises import EXERCISES, check  # noqa: F401
from mnist_gpu.checks import atomic_write, writable
from mnist_gpu.data import TRAIN_IMAGES, DeviceBatches, load_mnist, make_batches
from mnist_gpu.device import environment, usable_cpus, using_threads
from mnist_gpu.faster.compiled_epoch import CompiledEpoch
from mnist_gpu.faster.ladder import ALL_THREADS, PLAIN, RUNGS, TEXTBOOK, WIDE, rungs, sgd
from mnist_gpu.measuring import drawing
from mnist_gpu.measuring.busy import watched
from mnist_gpu.measuring.climb import FLOORS, extra, fastest_rung, gains, known, measure_ladder, quickest, skipped
from mnist_gpu.measuring.drawing import Drawn, Series, columns, number, span, stacked  # noqa: F401 - for a cell
from mnist_gpu.measuring.prediction import Range, outcomes, predicted_ladders
from mnist_gpu.measuring.results import REFERENCE, Results, Skipped, Timed, compare_in_turn, fingerprint, read, recorded
from mnist_gpu.measuring.section import QUICK_ROUNDS, ROUNDS, Section, comparisons
from mnist_gpu.measuring.timing import Comparison, compare_all, in_turn, interval, measure
from mnist_gpu.measuring.workloads import repeat
from mnist_gpu.model import make_model
from mnist_gpu.training import make_step

ROWS = {rung.name: f"{i}. {rung.name}" for i, rung in enumerate(RUNGS, start=1)}  # of the figure
FLOOR = "the floor: products alone"
TAKEN_APART = (PLAIN, "fused optimizer", "backward written out", "compiled epoch")


def compile_anew() -> tempfile.TemporaryDirectory:
    """From here on torch.compile finds nothing of an earlier run. Its folder is there as long as what this returns."""
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder.name
    return folder


def all_ladders(device: torch.device, *, steps: int | None = None, **options) -> Iterator[Timed | Skipped]:
    """All rungs with one thread; on a CPU some of them with all its threads, too, since that is what a GPU has to be
    compared with; and those of reduced precision on a wide network, where the products take the time."""
    yield from measure_ladder(device, steps=steps, **options)
    if device.type == "cpu" and usable_cpus() > 1:
        yield from measure_ladder(device, names=ALL_THREADS, steps=steps, threads=usable_cpus(), **options)
    yield from measure_ladder(device, names=WIDE, hidden=2048, steps=50, floor=False, **options)


def pairs(times: Mapping[str, Sequence[float]]) -> list[tuple[str, str]]:
    """Every rung with the textbook; the plain loop and the fastest rung with the floor."""
    floor = quickest(times, FLOORS)
    each = [(TEXTBOOK, name) for name in (*(n for n in times if n not in FLOORS), floor)]
    return [*each, (PLAIN, floor), (fastest_rung(times), floor)]


def wide_pairs(times: Mapping[str, Sequence[float]]) -> list[tuple[str, str]]:
    return [(WIDE[0], name) for name in times]


def summary(results: Results, device: str) -> list[str]:
    found = comparisons(results, device, "ladder", pairs, hidden=128, threads=1)
    return found + comparisons(results, device, "ladder", wide_pairs, ", width 2048", hidden=2048)


LADDER = Section(all_ladders, full=ROUNDS, quick=ROUNDS | {"steps": 50}, summary=summary)


def above_the_floor(measured: Iterable[Timed]) -> dict[str, dict[str, float]]:
    """What a step of the rungs TAKEN_APART on the CPU is made of, in µs, by rung; {} where no products were timed.

    - "products": by the library and in the layout that are fastest here, the floor;
    - "a slower library": what the rung's own products take beyond that;
    - "launches": the same training with next to no data, one image a batch and one hidden unit: Python, PyTorch's
      dispatch, autograd. They do not depend on the size of the data. Measured here, warm;
    - "passes over memory": the rest. Every operation between two products reads and writes its tensors.

    The compiled epoch is compiled once more for that, which takes some seconds.
    """
    timed = {m.name: m for m in measured}
    micros = {name: 1e6 * m.median / m.per_call["steps"] for name, m in timed.items()}
    if not (floor := quickest({name: m.seconds for name, m in timed.items()}, FLOORS)):
        return {}
    found, few = {}, DeviceBatches(*(t[:64] for t in load_mnist(train=True)), batch_size=1)
    for name in (n for n in TAKEN_APART if n in timed):
        products = timed[name].proof.get("products")  # of an epoch that is compiled with its batches
        with using_threads(timed[name].threads):
            model, step, batches = rungs([name])[0].make(torch.device("cpu"), 1)
            batches = CompiledEpoch(model, few, products=products) if products else few
            step = batches.step if products else step
            launches = 1e6 * measure(lambda s=step, bs=batches: [s(*batch) for batch in bs]).median / len(few)
        own = micros[f"products alone, {products or 'torch.mm, weights [H, 784]'}"]
        parts = {"products": micros[floor], "a slower library": own - micros[floor], "launches": launches}
        found[name] = parts | {"passes over memory": micros[name] - sum(parts.values())}
    return found


def against_base(measured: Iterable[Timed]) -> list[Comparison]:
    """Every rung against the one that it changes."""
    times = {m.name: m.seconds for m in measured}
    return compare_all(times, [(rung.base, rung.name) for rung in RUNGS if {rung.base, rung.name} <= times.keys()])


# The ladder's figure


def here(device: torch.device, measured: list[Timed]) -> Results:
    """What was measured here; beside a GPU's the CPU's best, which takes all its threads, measured now."""
    if device.type != "cpu":
        options = {"names": ALL_THREADS, "steps": 48, "threads": usable_cpus(), "progress": progress}
        measured = measured + skipped(measure_ladder(torch.device("cpu"), **options))
    return Results(environment(device), measured, datetime.date.today().isoformat(), quick=True)


def ladder_sources(machines: Iterable[Results], own: Results | None = None) -> list[tuple[str, str, dict[str, Timed]]]:
    """(kind, label, measurements by name) of every ladder at width 128, that of the reader's `own` machine first.

    A CPU's with all its threads is there where a GPU is: one thread would be no fair opponent.
    """
    found = []
    for results in [*([own] if own else []), *machines]:
        sides = {}
        for m in results.select("ladder", hidden=128):
            sides.setdefault((m.device, m.threads), {})[m.name] = m
        for (device, threads), timed in sides.items():
            label = results.whose(next(iter(timed.values())), recorded=results is not own)
            found.append((device, threads, (drawing.OWN if results is own else drawing.RECORDED, label, timed)))
    any_gpu = any(device != "cpu" for device, _, _ in found)
    return [source for _, threads, source in found if any_gpu or threads == 1]


def _as_measured(kind: str, label: str, timed: Mapping[str, Timed]) -> Series:
    """The rungs of one device as bars, and its floor as the last one."""
    against = gains(timed.values())
    names = [n for n in (*ROWS, quickest({n: m.seconds for n, m in timed.items()}, FLOORS)) if n in timed]
    times = [timed[name].per_epoch() for name in names]
    notes = []
    for name, seconds in zip(names, times, strict=True):
        products = timed[name].proof.get("products") if name in ROWS else name.removeprefix("products alone, ")
        gain = f", {against[name].times}x" if name in against else ""
        notes.append(f"{known(seconds)[0]} s{gain}" + (f" ({products})" if products else ""))
    lows, highs = zip(*map(interval, times), strict=True)
    medians = [statistics.median(seconds) for seconds in times]
    return Series(label, kind, [ROWS.get(name, FLOOR) for name in names], medians, lows, highs, notes)


def _as_predicted(label: str, found: Mapping[str, Range]) -> Series:
    """The rungs of a card that nobody has measured, from the least to the most, and how many times the textbook."""
    names, first = [name for name in ROWS if name in found], found[TEXTBOOK]
    lows, highs = zip(*(found[name] for name in names), strict=True)
    times = [f", {span((first.low / found[name].high, first.high / found[name].low))}x" for name in names]
    notes = [f"{span(found[n])} s{gain if n != TEXTBOOK else ''}" for n, gain in zip(names, times, strict=True)]
    return Series(label, drawing.PREDICTED, [ROWS[name] for name in names], [None] * len(names), lows, highs, notes)


def ladder_figure(machines: Sequence[Results], own: Results | None = None) -> Drawn:
    """Seconds per epoch of every rung and the floor, logarithmic: `own`, the recorded, and predictions for some cards.

    Raises ValueError if there is no ladder at all.
    """
    sources = ladder_sources(machines, own)
    if not sources:
        raise ValueError(f"no machine's ladder is recorded in {REFERENCE}")
    series = [_as_measured(*source) for source in sources]
    predicted = predicted_ladders([*machines, *([own] if own else [])])
    every = series + [_as_predicted(*one) for one in predicted]
    axes, says = drawing.bars(every, unit="seconds per epoch", log=True, order=[*ROWS.values(), FLOOR])
    for i, s in enumerate(series):
        if s.xs[-1] == FLOOR:
            axes.axvline(s.ys[-1], color=drawing.PALETTE[i % len(drawing.PALETTE)], linestyle="--", linewidth=1.2)
    for s, (_, _, timed) in zip(series, sources, strict=True):
        best = quickest({name: m.seconds for name, m in timed.items()}, ROWS)
        if gain := gains(timed.values()).get(best):
            says += f"\n{s.label}, the fastest rung: {gain}"
    return Drawn(axes, says)


def draw_ladder(
    file: Annotated[Path, "a PNG file", {"nargs": "?"}] = REFERENCE / "ladder.png",
    add: Annotated[Path | None, "a results file that is not among the recorded ones"] = None,
) -> int:
    """Draws the speed ladder of all recorded machines as a PNG file, and predictions for some cards.

    `add` is a results file that is not among the recorded ones. Raises ValueError if none is recorded.
    """
    writable(file)
    plt.switch_backend("agg")  # a file is wanted, no window
    figure = ladder_figure(recorded() + ([read(add)] if add else [])).axes.figure
    with atomic_write(file) as out:
        figure.savefig(out, format="png", dpi=130, metadata={"Description": fingerprint()})
    plt.close(figure)
    print(f"Drew {file}")
    return 0


def predictions_met() -> None:
    """Says of every predicted epoch whether what was recorded since lies in its range."""
    for (card, section, name, _, seconds), measured in outcomes(recorded()):
        if section == "ladder":
            met = "in the range" if measured in seconds else "NOT in the range"
            print(f"{card}, {name}: predicted {span(seconds)} s, recorded {number(measured)} s, {met}.")


def libraries() -> None:
    """Prints other libraries on every recorded machine, the fastest first, and which differ from the plain loop."""
    for results in recorded():
        measured = sorted(results.select("peers"), key=lambda m: m.median)
        if not measured:
            continue
        print(f"{results.whose(measured[0])}")
        rows = []
        for m in measured:
            name = f"{m.name}: {m.proof['rung']}" if "rung" in m.proof else m.name
            rows.append((name, *known(m.seconds), extra(m), f"{m.proof['test_loss']:.3f}", m.proof["lines_of_code"]))
        print(columns(["training", "s per epoch", "interval", "first use", "test loss", "lines"], rows))
        skipped(s for s in results.skipped if s.section == "peers")
        found = compare_in_turn(measured, [("plain loop", m.name) for m in measured if m.name != "plain loop"])
        for verdict, sign in (("Slower", -1), ("Faster", 1)):
            apart = [c.names[1] for c in found if c.differs and sign * (c.ratio - 1) > 0]
            print(f"{verdict} than the plain loop: {'; '.join(apart) or 'none'}.")


def make_ensemble_step(models: Sequence[nn.Module]) -> Callable:
    """The course's SGD on all `models` together, on the same batch: `step(images, labels) -> losses [N]`, detached.

    `torch.vmap` turns every operation on one network into one operation on N: N small matrix products become one
    batched product, so N networks need as many launches as one. `step.weights` holds the stacked parameters by name,
    `[N, ...]` each; the models themselves stay as they are. Raises RuntimeError if there are no models.
    """
    weights = {name: w.detach() for name, w in stack_module_state(list(models))[0].items()}
    momenta = {name: torch.zeros_like(w) for name, w in weights.items()}

    def loss_of(weights, images, labels):
        return F.cross_entropy(functional_call(models[0], weights, (images,)), labels)

    every = torch.vmap(grad_and_value(loss_of), in_dims=(0, None, None))

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        gradients, losses = every(weights, images, labels)
        for name, gradient in gradients.items():
            momenta[name].mul_(0.9).add_(gradient)
            weights[name].sub_(momenta[name], alpha=0.01)
        return losses

    step.weights = weights
    return step


@watched
def measure_ensemble(
    device: torch.device, *, counts=(1, 2, 4, 8, 16, 32), steps=20, rounds=10, progress: Callable = iter
) -> Iterator[Timed]:
    """Many networks trained at once on the same batches, against one by the plain step."""
    batch = next(iter(make_batches("device", device=device)))
    model = make_model(device=device)
    calls = {0: make_step(model, sgd(model))}  # the plain step
    for n in counts:
        calls[n] = make_ensemble_step([make_model(seed=i, device=device) for i in range(n)])
    sides = {n: lambda step=step: repeat(lambda: step(*batch), steps) for n, step in calls.items()}
    for n, seconds in in_turn(sides, threads=1, rounds=rounds, device=device, progress=progress):
        name = "at once" if n else "plain step"
        work = {"images": 128 * steps * max(1, n), "steps": steps, "networks": max(1, n)}
        yield Timed("ensemble", name, device.type, 1, seconds, {"networks": max(1, n)}, work)


def ensemble_table(measured: Sequence[Timed], others: Sequence[Results] = ()) -> None:
    """Prints networks trained at once against one, by the time for each network, and rates of GPUs among `others`."""
    label = {f"{m.name}, {m.parameters['networks']}": m for m in measured}
    one, *several = label
    each = {name: [s / m.parameters["networks"] for s in m.seconds] for name, m in label.items()}
    found = compare_all(each, [(one, name) for name in several])
    rows = []
    for (name, m), gain in zip(label.items(), ["1", *(c.times for c in found)], strict=True):
        rows.append((name, f"{m.rate('images'):,.0f}", number(m.rate("images") / TRAIN_IMAGES), f"{gain}x"))
    print(columns(["networks", "images/s", "networks per second (an epoch each)", "against one"], rows))
    print(f"At best, by the time for each network: {max(found, key=lambda c: c.ratio)}")
    for r in others:
        for m in r.select("ensemble", "at once"):
            if m.device != "cpu":
                count, rate = m.parameters["networks"], m.rate("images")
                print(f"{r.hardware(m.device)} (recorded), {count} networks: {rate:,.0f} images/s")


ENSEMBLE = Section(measure_ensemble, full=ROUNDS, quick=QUICK_ROUNDS)
SECTIONS = (LADDER, ENSEMBLE)
