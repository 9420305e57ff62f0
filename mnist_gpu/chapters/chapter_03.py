"""Chapter 03, the data pipeline: what batches cost, its figures, and the checks of its exercises."""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice

import torch

from mnist_gpu.data import DeviceBatches
from mnist_gpu.device import pick_device
from mnist_gpu.measuring.drawing import OWN, PUBLISHED, Drawn, Series, bars
from mnist_gpu.measuring.exercises import MEND, WRITE, Exercise, Wrong, checker, in_time, same
from mnist_gpu.measuring.operations import Operations
from mnist_gpu.measuring.results import Timed
from mnist_gpu.measuring.timing import alternate, compare_all
from mnist_gpu.measuring.workloads import repeat, seconds_of


def measure_pipelines(device, sides: Mapping, *, batches: int, step: Callable | None = None) -> list[Timed]:
    """Times so many batches of 128 from each of `sides`, in turn, on one thread; `step`, if given, gets each."""

    def one_part(stream):  # workers begin each with four batches prepared ahead: 8 % of 50
        return lambda: [step and step(*batch) for batch in islice(stream, batches)]

    parts = {}
    for name, side in sides.items():  # with a pause, or workers would prepare those in the next side's time
        endless = itertools.chain.from_iterable(itertools.repeat(side))
        parts |= {name: one_part(endless), f"after {name}": partial(time.sleep, 0.05)}
    seconds, images = alternate(parts, threads=1, device=device), {"images": 128 * batches}
    return [Timed("pipelines", name, device.type, 1, seconds[name], {"batch_size": 128}, images) for name in sides]


def factors(seconds: Mapping, published: Mapping | None = None, source: str = "") -> Drawn:
    """How many times as fast as the first side each one is: measured in turn here, and published."""
    series, first = [], next(iter(seconds))
    for name, kind, sides in [("timed in turn", OWN, seconds), (source, PUBLISHED, published)][: 2 if published else 1]:
        found = compare_all(sides, [(first, one) for one in sides])
        ends = zip(*(c.interval for c in found), strict=True)
        notes = [f"x {c.times}".removesuffix(".000") for c in found]
        series.append(Series(name, kind, list(sides), [c.ratio for c in found], *ends, notes))
    return bars(series, unit=f"times as fast as {first}")


def _prepared(answer: Callable) -> str:
    """Two epochs of a data set: the right samples, each file decoded once, nothing computed on all for one."""
    n, calls = int(torch.randint(23, 40, ())), Counter()
    images, labels = torch.randint(256, (n, 28, 28), dtype=torch.uint8), torch.randint(10, (n,)).tolist()
    files, right = [f"{i}.png" for i in range(n)], list(zip(images - images.float().mean(), labels, strict=True))
    dataset = answer(files, labels, lambda file: calls.update([file]) or images[files.index(file)].clone())
    for _ in range(2):
        with Operations() as operations:
            samples = [dataset[i] for i in range(len(dataset))]
        if not same([(image, int(label)) for image, label in samples], right):
            raise Wrong("A sample is not its image as decoded, less the mean of all images, and its label.")
    if max(calls.values()) > 1:
        raise Wrong(f"In two epochs {n} files were decoded {calls.total()} times: once each is enough.")
    if max((o.bytes for o in operations.seen if not o.is_view), default=0) > 16_000:
        raise Wrong(f"In the second epoch every sample still computes on all {n} images.")
    return f"Two epochs of {n} images: each was decoded once, and the mean computed once."


def _looked_up(answer: Callable) -> str:
    """Batches with the textbook's bits, and nothing computed for each pixel; and how fast."""
    arithmetic = ("add", "sub", "rsub", "mul", "div", "lerp", "addcmul", "addcdiv")
    for size in (5, 1, 128):
        images, labels = torch.randint(256, (1024, 28, 28), dtype=torch.uint8), torch.randint(10, (1024,))
        images[0, :16, :16] = torch.arange(256).view(16, 16)  # every byte there is
        index = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + torch.randperm(1023)[: size - 1]])
        batches, index = DeviceBatches(images, labels, device=pick_device()), index.to(pick_device())
        given, (right, right_labels) = (batches.images, batches.labels, index), batches.batch(index)
        in_time(answer, *given)  # it ends
        with Operations() as operations:
            found, found_labels = answer(*given)
        if found.shape != right.shape:
            raise Wrong(f"A batch of {size} is {list(found.shape)}, but should be {list(right.shape)}.")
        if not torch.equal(found_labels, right_labels):
            raise Wrong("The labels are not those of the images at index.")
        if (off := (found - right).abs().max()) > 1e-4:
            raise Wrong(f"Byte 0 gives {found[0, 0, 0, 0]:.3g}, 255 {found[0, 0, 15, 15]:.3g}: wanted are -1 and 1.")
        if off or found.dtype != right.dtype:
            raise Wrong(f"Nearly: {found.dtype}, up to {off:.0e} off. Divide once, by 127.5, in torch.float32.")
        if done := [o.name for o in operations.seen if o.bytes >= right.nbytes and o.name.strip("_") in arithmetic]:
            raise Wrong(f"The bits are right, but {done[0]} still computes {right.numel():,} numbers. Look them up.")
    sides = {"normalize": partial(batches.batch, index), "yours": partial(answer, *given)}
    calls = max(1, int(0.005 / seconds_of(sides["yours"], index.device)))  # so that a slow answer takes a second or two
    found = alternate({name: partial(repeat, side, calls) for name, side in sides.items()}, device=index.device)
    return f"The same bits. {compare_all(found, [('normalize', 'yours')])[0]}"


def _shuffled(answer: Callable) -> str:
    """Streams, longer and shorter than the room; how far a stream was read says how many items wait."""
    for n, room in [(40, 8), (23, 5), (3, 8), (7, 1), (0, 4)]:
        first = Counter()
        for _ in range(400):
            stream, given = iter(range(n)), []
            for item in islice(answer(stream, room), n + 1):
                given.append(item)
                wait = n - (left := stream.__length_hint__()) - len(given)
                if wait > room or (left and wait < room - 1):
                    said = "no more fit" if wait > room else "keep the room full"
                    raise Wrong(f"With room for {room}, {wait} items wait when item {len(given)} is given: {said}.")
            if sorted(given) != list(range(n)):
                raise Wrong(f"Of {n} items, with room for {room}, it gives {len(set(given))}, in {len(given)} pieces.")
            first.update(given[:1])
        for item, times in first.items():
            if times * min(n, room) > 800:
                raise Wrong(f"With room for {room} of {n}, item {item} comes first {times} times in 400: too often.")
    return "Nothing is lost, nothing comes twice, the room is used, and any that waits is as likely to be next."


EXERCISES = (
    Exercise("03.1", MEND, "Work that belongs before the loop", partial(in_time, _prepared)),
    Exercise("03.2", WRITE, "A table instead of arithmetic", _looked_up),
    Exercise("03.3", WRITE, "A shuffle for a stream", partial(in_time, _shuffled, seconds=10)),
)
check = checker(EXERCISES)
