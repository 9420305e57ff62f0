"""Chapter 07: the ladder and networks trained together, two sections of the benchmark; figures, tables, exercises."""

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

from mnist_gpu.chapters.chapter_07.exercises import EXERCISES, check  # noqa: F401
from mnist_gpu.checks import atomic_write, writable
from mnist_gpu.data import DeviceBatches, load_mnist, make_batches
from mnist_gpu.device import usable_cpus, using_threads
from mnist_gpu.faster.compiled_epoch import CompiledEpoch
from mnist_gpu.faster.ladder import ALL_THREADS, PLAIN, RUNGS, TEXTBOOK, WIDE, rungs, sgd
from mnist_gpu.measuring import drawing
from mnist_gpu.measuring.busy import watched
from mnist_gpu.measuring.climb import FLOORS, extra, fastest_rung, gains, known, measure_ladder, quickest, skipped
from mnist_gpu.measuring.drawing import Drawn, Series, columns, stacked  # noqa: F401 - for a cell
from mnist_gpu.measuring.prediction import predicted_ladders
from mnist_gpu.measuring.results import REFERENCE, Results, Skipped, Timed, compare_in_turn, read, recorded
from mnist_gpu.measuring.section import QUICK_ROUNDS, ROUNDS, Section, comparisons
from mnist_gpu.measuring.timing import Comparison, compare_all, in_turn, interval, measure
from mnist_gpu.measuring.workloads import repeat
from mnist_gpu.model import make_model
from mnist_gpu.training import make_step

ROWS = {rung.name: f"{i}. {rung.name}" for i, rung in enumerate(RUNGS, start=1)}  # of the figure
FLOOR = "the floor: products alone"
# The rungs that tell the story, for a figure that is seen at a glance; of a predicted card only the last is drawn.
FEW = (
    TEXTBOOK,
    "tensors in memory",
    PLAIN,
    "compiled epoch",
    "WebGPU, a submission an epoch",
    "CUDA graph of an epoch",
)
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


def summary(results: Results, device: str) -> list[str]:
    if device == "webgpu":  # timed in turn with the CPU
        measured = results.select("ladder", hidden=128, threads=1)
        own = [m.name for m in measured if m.device == device]
        sides = [(first, name) for first in (TEXTBOOK, PLAIN, *own[:1]) for name in own if name != first]
        return [
            f", ladder: {one}" for one in compare_in_turn((m for m in measured if m.device in ("cpu", device)), sides)
        ]
    found = comparisons(results, device, "ladder", pairs, hidden=128, threads=1)
    return found + comparisons(
        results, device, "ladder", lambda times: [(WIDE[0], name) for name in times], ", width 2048", hidden=2048
    )


LADDER = Section(all_ladders, full=ROUNDS, quick=ROUNDS | {"steps": 50}, summary=summary)


def above_the_floor(measured: Iterable[Timed]) -> dict[str, dict[str, float]]:
    """What a step of the rungs TAKEN_APART on the CPU is made of, in μs, by rung.

    "products" are the floor; "a slower library" is what the rung's own products take beyond it; "launches" is the same
    training with next to no data (one image a batch, one hidden unit), measured here, warm, for which the compiled
    epoch is compiled once more; and "passes over memory" is the rest.
    """
    timed = {m.name: m for m in measured}
    micros = {name: 1e6 * m.median / m.per_call["steps"] for name, m in timed.items()}
    floor = min(micros[name] for name in FLOORS if name in micros)
    found, few = {}, DeviceBatches(*(t[:64] for t in load_mnist(train=True)), batch_size=1)
    for name in (n for n in TAKEN_APART if n in timed):
        products = timed[name].proof.get("products")  # of an epoch that is compiled with its batches
        with using_threads(timed[name].threads):
            model, step, batches = rungs([name])[0].make(torch.device("cpu"), 1)
            batches = CompiledEpoch(model, few, products=products) if products else few
            step = batches.step if products else step
            launches = 1e6 * measure(lambda s=step, bs=batches: [s(*batch) for batch in bs]).median / len(few)
        own = micros[f"products alone, {products or 'torch.mm, weights [H, 784]'}"]
        parts = {"products": floor, "a slower library": own - floor, "launches": launches}
        found[name] = parts | {"passes over memory": micros[name] - sum(parts.values())}
    return found


def against_base(measured: Iterable[Timed]) -> list[Comparison]:
    """Every rung against the one that it changes."""
    times = {m.name: m.seconds for m in measured}
    return compare_all(times, [(rung.base, rung.name) for rung in RUNGS if {rung.base, rung.name} <= times.keys()])


def _bars(kind: str, label: str, measured: Sequence[Timed], names: Iterable[str] = ROWS) -> Series:
    """Those of the rungs `names` that one device has as bars, and its floor as the last one."""
    timed, against = {m.name: m for m in measured}, gains(measured)
    floor = [quickest({name: m.seconds for name, m in timed.items()}, FLOORS)] if names is ROWS else []
    names = [name for name in (*names, *floor) if name in timed]
    times = [timed[name].per_epoch() for name in names]
    notes = [f"{known(seconds)[0]} s" for seconds in times]
    notes = [f"{note}, {against[n].times}x" if n in against else note for n, note in zip(names, notes, strict=True)]
    medians = [statistics.median(seconds) for seconds in times]
    lows, highs = zip(*map(interval, times), strict=True)
    return Series(label, kind, [ROWS.get(name, FLOOR) for name in names], medians, lows, highs, notes)


def ladder_figure(machines: Sequence[Results], own: Results | None = None, names: Iterable[str] = ROWS) -> Drawn:
    """Seconds per epoch of the rungs `names`, `own`, recorded and predicted; of all of them also the floor.

    Raises ValueError if there is no ladder at all.
    """
    machines, sides = [*([own] if own else []), *machines], {}
    every = [(results, m) for results in machines for m in results.select("ladder", hidden=128)]
    for results, m in every:
        if m.threads == 1 or any(other.device != "cpu" for _, other in every):  # one is no fair opponent of a GPU
            kind = drawing.OWN if results is own else drawing.RECORDED
            sides.setdefault((kind, results.whose(m, recorded=results is not own)), []).append(m)
    if not sides:
        raise ValueError(f"no machine's ladder is recorded in {REFERENCE}")
    series = [
        _bars(*side, measured, names) for side, measured in sides.items() if {m.name for m in measured} & {*names}
    ]
    for label, found in predicted_ladders(machines):
        rows = {ROWS[name]: ends for name, ends in found.items() if names is ROWS or name == FEW[-1]}
        lows, highs = zip(*rows.values(), strict=True)
        series.append(Series(label, drawing.PREDICTED, list(rows), [None] * len(rows), lows, highs))
    return drawing.bars(
        series, unit="seconds per epoch", log=names is ROWS, order=[*(ROWS[name] for name in names), FLOOR]
    )


def draw_ladder(
    file: Annotated[Path, "a PNG file", {"nargs": "?"}] = REFERENCE / "ladder.png",
    add: Annotated[Path | None, "a results file to draw beside the recorded ones"] = None,
) -> int:
    """Draws a few rungs of all recorded machines and of the results file `add`. Raises ValueError if there is none."""
    writable(file)
    plt.switch_backend("agg")  # a file is wanted, no window
    axes, says = ladder_figure(recorded() + ([read(add)] if add else []), names=FEW)
    with atomic_write(file) as out:
        axes.figure.savefig(out, format="png", dpi=130, metadata={"Description": says})
    plt.close(axes.figure)
    print(f"Drew {file}\n{says}")
    return 0


def libraries() -> None:
    """Prints other libraries on every recorded machine, the fastest first, and each against the plain loop."""
    for results in recorded():
        measured = sorted(results.select("peers"), key=lambda m: m.median)
        rows = []
        for m in measured:
            name = f"{m.name}: {m.proof['rung']}" if "rung" in m.proof else m.name
            rows.append((name, *known(m.seconds), extra(m), f"{m.proof['test_loss']:.3f}", m.proof["lines_of_code"]))
        if rows:
            print(results.whose(measured[0]))
            print(columns(["training", "s per epoch", "interval", "first use", "test loss", "lines"], rows))
            skipped(s for s in results.skipped if s.section == "peers")
            found = compare_in_turn(measured, [("plain loop", m.name) for m in measured if m.name != "plain loop"])
            print(*found, sep="\n")


def make_ensemble_step(models: Sequence[nn.Module]) -> Callable:
    """The course's SGD on all `models` together, on the same batch: `step(images, labels) -> losses [N]`, detached.

    `torch.vmap` turns every operation on one network into one on N, so they need as many launches as one.
    `step.weights` holds the stacked parameters by name, `[N, ...]` each; the models stay as they are.
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


ENSEMBLE = Section(measure_ensemble, full=ROUNDS, quick=QUICK_ROUNDS)
