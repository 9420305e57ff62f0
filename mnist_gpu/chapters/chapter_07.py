"""Chapter 07: the ladder, a section of the benchmark, its figure, and the checks of its exercises."""

import copy
import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import torch

from mnist_gpu.checks import atomic_write, writable
from mnist_gpu.device import pick_device, usable_cpus
from mnist_gpu.faster.ladder import ALL_THREADS, PLAIN, RUNGS, TEXTBOOK, WIDE, Training, plain, sgd
from mnist_gpu.measuring import climb, drawing
from mnist_gpu.measuring.drawing import Drawn, Series, span
from mnist_gpu.measuring.exercises import MEND, WRITE, Exercise, Undecided, Wrong, checker, in_time
from mnist_gpu.measuring.prediction import predicted_ladders
from mnist_gpu.measuring.results import REFERENCE, Results, Timed, compare_in_turn, comparisons, read, recorded
from mnist_gpu.measuring.timing import Comparison, alternate, compare, compare_all, interval
from mnist_gpu.measuring.workloads import train_part
from mnist_gpu.model import make_model
from mnist_gpu.training import make_step

# The rungs that tell the story, for a figure that is seen at a glance.
LAST, FLOOR = "CUDA graph of an epoch", "the floor: products alone"
FEW = (TEXTBOOK, "tensors in memory", PLAIN, "compiled epoch", "WebGPU, a submission an epoch", LAST)


def all_ladders(device: torch.device, *, steps: int | None = None, **options) -> Iterator:
    """All rungs; on a CPU some with all its threads, too, a GPU's fair opponent; and reduced precision when wide."""
    yield from climb.measure_ladder(device, steps=steps, **options)
    if device.type == "cpu" and usable_cpus() > 1:
        yield from climb.measure_ladder(device, names=ALL_THREADS, steps=steps, threads=usable_cpus(), **options)
    yield from climb.measure_ladder(device, names=WIDE, hidden=2048, steps=50, floor=False, **options)


def pairs(times: Mapping[str, Sequence[float]]) -> list[tuple[str, str]]:
    """Every rung, and the floor, with the textbook; the plain loop and the fastest rung with the floor."""
    names, floor = [name for name in times if name not in climb.FLOORS], climb.quickest(times, climb.FLOORS)
    return [*((TEXTBOOK, name) for name in (*names, floor)), (PLAIN, floor), (climb.fastest_rung(times), floor)]


def summary(results: Results, device: str) -> list[str]:
    """Lines for the results of one device, each to follow the device's name."""
    if device == "webgpu":  # timed in turn with the CPU
        measured = [m for m in results.select("ladder", hidden=128, threads=1) if m.device in ("cpu", device)]
        sides = [(first, m.name) for first in (TEXTBOOK, PLAIN) for m in measured if m.device == device]
        return [f", ladder: {one}" for one in compare_in_turn(measured, sides)]
    wide = comparisons(results, device, "ladder", lambda times: [WIDE], ", width 2048", hidden=2048)
    return comparisons(results, device, "ladder", pairs, hidden=128, threads=1) + wide


def against_base(measured: Iterable[Timed]) -> list[Comparison]:
    """Every rung against the one that it changes."""
    times = {m.name: m.seconds for m in measured}
    return compare_all(times, [(rung.base, rung.name) for rung in RUNGS if {rung.base, rung.name} <= times.keys()])


def ladder_figure(machines: Sequence[Results], own: Results | None = None) -> Drawn:
    """Seconds per epoch of the rungs, `own` and recorded, of CPUs and of GPUs, and what is predicted for cards.

    Raises ValueError if there is no ladder at all.
    """
    sides, series = {}, []
    every = [(r, m) for r in [*([own] if own else []), *machines] for m in r.select("ladder", hidden=128)]
    for results, m in every:
        if m.threads == 1 or any(other.device != "cpu" for _, other in every):  # one is no fair opponent of a GPU
            kind = drawing.OWN if results is own else drawing.RECORDED
            sides.setdefault((kind, results.whose(m, recorded=results is not own)), []).append(m)
    if not sides:
        raise ValueError(f"no machine's ladder is recorded in {REFERENCE}")
    for (kind, label), measured in sides.items():
        timed = {m.name: m.per_epoch() for m in measured}
        names = [r.name for r in RUNGS if kind == drawing.OWN or r.name in FEW]  # of others a few
        times = {name: timed[name] for name in names if name in timed}
        if floor := climb.quickest(timed, climb.FLOORS):
            times[FLOOR] = timed[floor]
        # Those of the reader's GPU through WebGPU are compared with the CPU's textbook.
        beside = own.select("ladder", hidden=128, threads=1) if kind == drawing.OWN else measured
        shown = {name: f", x {gain.times}" for name, gain in climb.gains(beside).items() if gain.differs}
        notes = [f"{climb.known(seconds)[0]} s{shown.get(name, '')}" for name, seconds in times.items()]
        medians, ends = map(statistics.median, times.values()), map(interval, times.values())
        series.append(Series(label, kind, [*times], [*medians], *zip(*ends, strict=True), notes))
    for label, found in predicted_ladders([r for r, _ in every]):
        names, base = [name for name in FEW if name in found], found[TEXTBOOK].middle
        notes = [f"{span(found[name])} s, x {span(found[name].gain_over(base))}" for name in names]
        notes[0] = f"{span(found[TEXTBOOK])} s"
        ends = zip(*(found[name] for name in names), strict=True)
        series.append(Series(label, drawing.PREDICTED, names, [None] * len(names), *ends, notes))
    return drawing.bars(series, unit="seconds per epoch", order=[*(r.name for r in RUNGS), FLOOR], log=True)


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


# Exercises

STEPS, TOLERANCE = 24, 0.02  # nats, as of the ladder's rungs in float32
THEIRS, YOURS = "the plain loop", "my_rung"


def same_training(answer: Callable) -> str:
    """Proves some steps at the ladder's width, and two epochs at a small one, with their last, smaller batch."""
    for width, steps in ((128, STEPS), (random.randrange(20, 60), None)):
        here = climb.Climb(pick_device(), width, steps)
        training = Training(*answer(here.device, width))
        try:
            difference = here.prove(training._replace(step=fresh(training.step)), TOLERANCE)
        except climb.AnotherTraining as found:
            raise Wrong(f"At width {width} it {found}") from None
    mine, right = (train_part(one).losses for one in (training, here.plain))
    if len(mine) != len(right) or not all(abs(a - b) <= TOLERANCE for a, b in zip(mine, right, strict=True)):
        raise Wrong("Its first epoch is right, and its second is another training: look at the order.")
    return f"The losses differ by at most {difference:.1g}."


def fresh(step: Callable) -> Callable:
    """The step. Raises Wrong for a loss that is no detached tensor of one number, or one that was given before."""
    given = {}

    def checked(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = step(images, labels)
        if not isinstance(loss, torch.Tensor) or loss.shape or loss.requires_grad:
            raise Wrong("A step gives its loss as a tensor [], loss.detach(): a number waits, a graph takes memory.")
        if loss.data_ptr() in given:
            raise Wrong("A step gives the tensor of an earlier loss, which is overwritten: every loss needs its own.")
        given[loss.data_ptr()] = loss
        return loss

    return checked


def own_rung(answer: Callable) -> str:
    """Proves the training; then times it beside the plain loop and the floor. Undecided if no difference is shown."""
    device, proof = pick_device(), same_training(answer)
    made = {THEIRS: plain(device, 128), YOURS: Training(*answer(device, 128))}
    sides = {name: partial(train_part, training, STEPS) for name, training in made.items()}
    times = alternate(sides | climb.floors(device, 128, STEPS), device=device)
    gain, floor = compare(times, THEIRS, YOURS), climb.quickest(times, climb.FLOORS)
    score, before = (compare(times, name, floor).ratio for name in (YOURS, THEIRS))
    said = f"It takes {score:.2f} times as long as the products alone, {THEIRS} {before:.2f} times. {gain}"
    if not gain.differs:
        raise Undecided(f"nothing can be claimed. {proof} {said}")
    if gain.ratio < 1:
        raise Wrong(f"{said} So it is further from the floor.")
    return f"{proof} Score: {score:.2f}. {said}"


def recorded_step(answer: Callable) -> str:
    """Of 07.2: it records once, and trains on every batch once, by a replay if the batch has the recorded size."""
    for _ in range(4):
        n = random.randrange(8, 30)
        sizes = [n, n, n, random.randrange(2, n), n, n + random.randrange(1, 9), n]
        batches = [(torch.rand(size, 1, 28, 28), torch.randint(10, (size,))) for size in sizes]
        _replayed(answer, [[tensor.to(pick_device()) for tensor in batch] for batch in batches])
    return f"Tried on 4 times {len(sizes)} batches."


def _replayed(answer: Callable, batches: Sequence[Sequence[torch.Tensor]]) -> None:
    """Gives the answer a step whose replay is the step itself. Raises Wrong where with a graph something else ran."""
    model = make_model(16, device=batches[0][0].device)
    true_step, recorded, done = make_step(model, sgd(model)), [], []

    def step(*batch: torch.Tensor, replayed: bool = False) -> torch.Tensor:
        loss = true_step(*batch)
        done.append((replayed, loss, *map(torch.clone, batch)))
        return loss

    def record(_: Callable, *at: torch.Tensor) -> tuple[Callable, torch.Tensor]:
        recorded.append(len(at[0]))
        loss = torch.full((), torch.nan, device=at[0].device)
        return lambda: loss.copy_(step(*at, replayed=True)), loss

    given = copy.deepcopy(batches)
    mine = fresh(answer(step, record, *given[0]))
    for batch, whole in zip(given, batches, strict=True):
        done.clear()
        found = mine(*batch)
        if len(recorded) != 1:
            raise Wrong(f"It has recorded {len(recorded)} times. Recording costs more than a step: record once.")
        if len(done) != 1:
            raise Wrong(f"A batch of {len(batch[0])} images was trained on {len(done)} times.")
        replayed, loss, *used = done[0]
        if not all(map(torch.equal, used, whole)):
            raise Wrong("It trained on images or labels that the recorded tensors had before, not on its batch's.")
        if replayed != (len(whole[0]) == recorded[0]):
            raise Wrong("A batch of the recorded size is to be replayed, and one of another size takes the plain step.")
        if found != loss:
            raise Wrong("It gives another number than the loss of its batch.")
    if not all(map(torch.equal, chain(*given), chain(*batches))):
        raise Wrong("The first batch has changed: a recording needs tensors of its own to copy the others into.")


EXERCISES = (
    Exercise("07.1", WRITE, "A rung of your own", partial(in_time, own_rung, seconds=180)),
    Exercise("07.2", MEND, "A recorded step", partial(in_time, recorded_step)),
    Exercise("07.3", MEND, "A rung that is too fast", partial(in_time, same_training, seconds=60)),
)
check = checker(EXERCISES)
