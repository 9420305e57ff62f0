"""Chapter 07: the ladder, a section of the benchmark; its figure and tables; networks trained together; exercises."""

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
from mnist_gpu.data import DeviceBatches, load_mnist
from mnist_gpu.device import usable_cpus, using_threads
from mnist_gpu.faster.compiled_epoch import CompiledEpoch
from mnist_gpu.faster.ladder import ALL_THREADS, PLAIN, RUNGS, TEXTBOOK, WIDE, rungs
from mnist_gpu.measuring import drawing
from mnist_gpu.measuring.climb import FLOORS, extra, fastest_rung, gains, known, measure_ladder, quickest, skipped
from mnist_gpu.measuring.drawing import Drawn, Series, columns, stacked  # noqa: F401 - for a cell
from mnist_gpu.measuring.prediction import predicted_ladders
from mnist_gpu.measuring.results import REFERENCE, Results, Skipped, Timed, compare_in_turn, read, recorded
from mnist_gpu.measuring.section import ROUNDS, Section, comparisons
from mnist_gpu.measuring.timing import Comparison, alternate, compare_all, interval, measure  # noqa: F401

# The rungs that tell the story, for a figure that is seen at a glance; of a predicted card only the last is drawn.
LAST = "CUDA graph of an epoch"
FEW = (TEXTBOOK, "tensors in memory", PLAIN, "compiled epoch", "WebGPU, a submission an epoch", LAST)
ROWS = {name: f"{[rung.name for rung in RUNGS].index(name) + 1}. {name}" for name in FEW}  # with the rung's number
TAKEN_APART = (PLAIN, "fused optimizer", "backward written out", "compiled epoch")


def compile_anew() -> tempfile.TemporaryDirectory:
    """From here on torch.compile finds nothing of an earlier run. Its folder is there as long as what this returns."""
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder.name
    return folder


def all_ladders(device: torch.device, *, steps: int | None = None, **options) -> Iterator[Timed | Skipped]:
    """All rungs; on a CPU some with all its threads, too, a GPU's fair opponent; and reduced precision when wide."""
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
        measured = [m for m in results.select("ladder", hidden=128, threads=1) if m.device in ("cpu", device)]
        sides = [(first, m.name) for first in (TEXTBOOK, PLAIN) for m in measured if m.device == device]
        return [f", ladder: {one}" for one in compare_in_turn(measured, sides)]
    wide = comparisons(
        results, device, "ladder", lambda times: [(WIDE[0], n) for n in times], ", width 2048", hidden=2048
    )
    return comparisons(results, device, "ladder", pairs, hidden=128, threads=1) + wide


LADDER = Section(all_ladders, full=ROUNDS, quick=ROUNDS | {"steps": 50}, summary=summary)


def above_the_floor(measured: Iterable[Timed]) -> dict[str, dict[str, float]]:
    """What a step of the rungs TAKEN_APART on the CPU is made of, in μs, by rung.

    "a slower library" is what the rung's own products take beyond the floor's; "launches" is the same training with
    one image a batch and one hidden unit, measured here (the compiled epoch is compiled anew); the rest are "passes".
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


def _bars(kind: str, label: str, measured: Sequence[Timed]) -> Series:
    """The few rungs that one device has, as bars."""
    timed, against = {m.name: m for m in measured}, gains(measured)
    times = {name: timed[name].per_epoch() for name in ROWS if name in timed}
    notes = [f"{known(s)[0]} s" + (f", {against[n].times}x" if n in against else "") for n, s in times.items()]
    medians, ends = map(statistics.median, times.values()), map(interval, times.values())
    return Series(label, kind, [ROWS[name] for name in times], [*medians], *zip(*ends, strict=True), notes)


def ladder_figure(machines: Sequence[Results], own: Results | None = None) -> Drawn:
    """Seconds per epoch of a few rungs, `own` and recorded, and of the last one predicted for cards.

    Raises ValueError if there is no ladder at all.
    """
    sides = {}
    every = [(r, m) for r in [*([own] if own else []), *machines] for m in r.select("ladder", hidden=128)]
    for results, m in every:
        if m.threads == 1 or any(other.device != "cpu" for _, other in every):  # one is no fair opponent of a GPU
            kind = drawing.OWN if results is own else drawing.RECORDED
            sides.setdefault((kind, results.whose(m, recorded=results is not own)), []).append(m)
    if not sides:
        raise ValueError(f"no machine's ladder is recorded in {REFERENCE}")
    series = [_bars(*side, measured) for side, measured in sides.items() if {m.name for m in measured} & {*FEW}]
    for label, found in predicted_ladders([r for r, _ in every]):
        series.append(Series(label, drawing.PREDICTED, [ROWS[LAST]], [None], *zip(found[LAST])))
    return drawing.bars(series, unit="seconds per epoch", order=[*ROWS.values()])


def draw_ladder(
    file: Annotated[Path, "a PNG file", {"nargs": "?"}] = REFERENCE / "ladder.png",
    add: Annotated[Path | None, "a results file to draw beside the recorded ones"] = None,
) -> int:
    """Draws a few rungs of all recorded machines and of the results file `add`. Raises ValueError if there is none."""
    writable(file)
    plt.switch_backend("agg")  # a file is wanted, no window
    axes, says = ladder_figure(recorded() + ([read(add)] if add else []))
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
