"""Chapter 03, the data pipeline: what batches cost, section "pipelines" of the benchmark; its figures and exercises."""

import datetime
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

import torch
from tqdm.auto import tqdm

from mnist_gpu.data import PIPELINES, make_batches, normalize
from mnist_gpu.device import environment, pick_device
from mnist_gpu.measuring.busy import watched
from mnist_gpu.measuring.drawing import OWN, RECORDED, Drawn, Series, bars, number, pictures, stacked
from mnist_gpu.measuring.exercises import MEND, WRITE, Exercise, Wrong, checker, compared
from mnist_gpu.measuring.operations import Operations
from mnist_gpu.measuring.results import Results, Timed, recorded
from mnist_gpu.measuring.section import ROUNDS, Section, comparisons
from mnist_gpu.measuring.timing import alternate, compare_all, in_turn, measure
from mnist_gpu.measuring.workloads import endless, repeat, training_step


@watched
def measure_pipelines(device, *, batches=100, rounds=10, workers=(2,), progress: Callable = iter) -> Iterator[Timed]:
    """What it costs to make batches of 128 without training on them: `batches` of every pipeline, one thread."""
    sides = {kind: make_batches(kind, device=device) for kind in PIPELINES}
    for kind in ("dataloader", "memory"):  # pinning changes nothing on a CPU; measured all the same, to show it
        sides[f"{kind}, pinned"] = make_batches(kind, device=device, pin_memory=True)
    for n in workers:
        sides[f"dataloader, {n} workers"] = make_batches("dataloader", device=device, workers=n)

    def one_part(side):
        # Slices of endless passes. Workers begin each with four batches prepared ahead: 4 % of 100, 8 % of 50.
        stream = endless(side)
        return lambda: [None for _ in islice(stream, batches)]

    parts = {name: one_part(side) for name, side in sides.items()}
    pause = {"pause": partial(time.sleep, 0.1)}  # or the workers would prepare those four in the next side's time
    for name, seconds in in_turn(parts | pause, threads=1, rounds=rounds, device=device, progress=progress):
        if name in sides:
            yield Timed("pipelines", name, device.type, 1, seconds, {"batch_size": 128}, {"images": 128 * batches})


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Every pipeline with the textbook's; a pinned one with the same unpinned."""
    return [(name.removesuffix(", pinned") if "pinned" in name else "dataloader", name) for name in names]


SUMMARY = partial(comparisons, section="pipelines", pairs=pairs)
SECTION = Section(measure_pipelines, full=ROUNDS | {"batches": 100}, quick=ROUNDS | {"batches": 50}, summary=SUMMARY)


def measured(device: torch.device, batches: int) -> Results:
    """`measure_pipelines` on the reader's machine, with a progress bar."""
    found = list(measure_pipelines(device, batches=batches, progress=tqdm))
    return Results(environment(device), found, datetime.date.today().isoformat(), quick=True)


def training_seconds(device: torch.device) -> float:
    """What the network needs for an image: the plain step on a batch of 128, divided by 128."""
    return measure(training_step(device, batch_size=128, hidden=128)).median / 128


def digits(images: torch.Tensor, labels: torch.Tensor) -> Drawn:
    """Images `[N, 28, 28]`, with their labels as titles."""
    return pictures(images, [str(label) for label in labels.tolist()])


def one_image(parts: Mapping[str, float], whole: float) -> Drawn:
    """What the parts of preparing an image take, in seconds, beside what was measured as a whole."""
    row = {name: 1e6 * seconds for name, seconds in parts.items()}
    axes, says = stacked({"an image": row}, unit="μs", wholes={"an image": 1e6 * whole})
    return Drawn(axes, f"{says}\nAs a whole {number(1e6 * whole)} μs; {max(parts, key=parts.get)} takes most.")


def rates(device: torch.device, mine: Results) -> Drawn:
    """Images per second of every pipeline, slowest first, beside what was recorded on other hardware."""
    series = []
    for results in (mine, *recorded(unlike=device)):
        for where in dict.fromkeys(m.device for m in results.select("pipelines")):
            found = sorted(results.select("pipelines", device=where), key=lambda m: m.rate("images"))
            lows, highs = zip(*(m.rate_interval("images") for m in found), strict=True)
            name, kind = results.whose(found[0], recorded=results is not mine), OWN if results is mine else RECORDED
            xs, ys = [m.name for m in found], [m.rate("images") for m in found]
            series.append(Series(name, kind, xs, ys, lows, highs))
    return bars(series, unit="images/s", title="Making batches, nothing else")


def _orders() -> Iterator[tuple]:
    """Images, their labels, an order of some or all of them, and the size of a batch."""
    sizes = [(23, 23, 7), (30, 17, 5), (24, 24, 8), (5, 5, 8), (1, 1, 8), (7, 7, 1)]  # less than a batch; batches of 1
    for n, some, size in [*sizes, *((40, random.randrange(10, 41), random.randrange(5, 9)) for _ in range(6))]:
        yield torch.arange(n)[:, None], torch.randint(10, (n,)), torch.randperm(n)[:some], size


def _in_batches(images, labels, order, size) -> list[torch.Tensor]:
    """The batches, each as the numbers of its images over their labels: `[2, B]`."""
    return list(torch.stack([order, labels[order]]).split(size, dim=1))


def _indices(sizes: Sequence[int] = (1, 5, 128)) -> Iterator[tuple]:
    images, labels = torch.randint(256, (1024, 28, 28), dtype=torch.uint8), torch.randint(10, (1024,))
    images[0, :16, :16] = torch.arange(256).view(16, 16)  # every byte there is
    for size in sizes:
        index = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + torch.randperm(1023)[: size - 1]])
        yield tuple(tensor.to(pick_device()) for tensor in (images, labels, index))


def _normalized(images, labels, index) -> tuple[torch.Tensor, torch.Tensor]:
    return normalize(images.index_select(0, index)), labels.index_select(0, index)


ARITHMETIC = ("add", "sub", "rsub", "mul", "div", "lerp", "addcmul", "addcdiv")


def _bits_and_speed(answer: Callable) -> str:
    """Of an answer that is right but for rounding: the same bits, with nothing computed for each pixel? How fast?"""
    given = next(_indices([128]))
    with Operations() as operations:
        images = answer(*given)[0]
    right = _normalized(*given)[0]
    if images.dtype != right.dtype or not torch.equal(images, right):
        off = f"{images.dtype}, up to {(images - right).abs().max():.0e} from the textbook's torch.float32"
        raise Wrong(f"Nearly: the pixels are {off}. Make the table by one division by 127.5, in float32.")
    if computed := [o.name for o in operations.seen if o.bytes >= right.nbytes and o.name.strip("_") in ARITHMETIC]:
        raise Wrong(f"The bits are right, but {computed[0]} still computes {right.numel():,} numbers. Look them up.")
    sides = {"yours": partial(repeat, partial(answer, *given), 20)}
    sides["normalize"] = partial(repeat, partial(_normalized, *given), 20)
    return f"The same bits. {compare_all(alternate(sides, device=right.device), [('normalize', 'yours')])[0]}"


EXERCISES = (
    Exercise("03.1", MEND, "A pipeline that loses images", compared(
        _in_batches, _orders, then=lambda answer: "No image is lost, none comes twice.",
        run=lambda answer, *given: [torch.stack([batch[:, 0], of]) for batch, of in islice(answer(*given), 99)],
        given=lambda images, labels, order, n: f"{len(order)} images in batches of {n}, as numbers over labels",
        hints=[
            (lambda x, y, order, n: _in_batches(x, y, order[: len(order) // n * n], n), "The last batch is missing."),
            (lambda x, y, order, n: _in_batches(x, y, torch.cat([order, order[: -len(order) % n]]), n),
             "The last batch is smaller; filled up, it has images that come twice."),
            (lambda x, y, order, n: list(torch.stack([order, y[: len(order)]]).split(n, dim=1)),
             "The labels are of other images."),
        ],
    )),
    Exercise("03.2", WRITE, "A table instead of arithmetic", compared(
        _normalized, _indices, then=_bits_and_speed,
        given=lambda images, labels, index: f"A batch of {len(index)}",
        hints=[
            (lambda x, y, at: (x[at, None] / 255, y[at]), "Byte 0 becomes 0, and 255 becomes 1: wanted are -1 and 1."),
            (lambda x, y, at: (normalize(x)[at, 0], y[at]), "A dimension is missing: [B, 1, 28, 28]."),
            (lambda x, y, at: (normalize(x)[at], y[: len(at)]), "The labels are not those of the images at index."),
        ],
    )),
)  # fmt: skip
check = checker(EXERCISES)
