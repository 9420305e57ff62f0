"""Checks of chapter 03's exercises: the last batch, a table instead of arithmetic, and how many workers are enough."""

import random
from collections.abc import Callable
from functools import partial
from itertools import islice

import torch
from torch.utils.data import default_collate

from mnist_gpu.batches import normalize, textbook_dataset
from mnist_gpu.device import pick_device
from mnist_gpu.exercises.verdicts import MEND, PREDICT, WRITE, Undecided, Wrong, count_of, exercise, sentence
from mnist_gpu.measuring import plots
from mnist_gpu.measuring.timing import alternate, compare_all


@exercise("03.1", MEND, "A pipeline that loses images")
def last_batch(answer: Callable) -> str:
    sizes = [(random.randrange(20, 60), random.randrange(3, 9)) for _ in range(6)]
    sizes += [(24, 8), (8, 8), (5, 8), (1, 8), (7, 1)]  # a multiple of the batch, less than one, batches of one
    for n, size in sizes:
        images, labels, order = torch.arange(n)[:, None], torch.randint(10, (n,)), torch.randperm(n)
        given = f"{count_of(n, 'image')} in batches of {size}"
        found = list(islice(answer(images, labels, order, size), n + 2))
        for i, part in enumerate(order.split(size)):
            if i == len(found):
                raise Wrong(f"Of {given}, batch {i + 1} is missing: it has {count_of(len(part), 'image')}.")
            batch, its_labels = found[i]
            if len(batch) > len(part):
                raise Wrong(
                    f"Of {given}, batch {i + 1} has {len(batch)}, but only {len(part)} are left: some come twice."
                )
            if not torch.equal(batch[:, 0], part[: len(batch)]):
                raise Wrong(f"Of {given}, batch {i + 1} has other images than the order says, or in another order.")
            if len(batch) < len(part):
                raise Wrong(f"Of {given}, batch {i + 1} has {len(batch)}, but should have {len(part)}.")
            if not torch.equal(its_labels, labels[part]):
                raise Wrong(f"Of {given}, batch {i + 1} has labels of other images.")
        if len(found) > i + 1:
            raise Wrong(
                f"Of {given}, there is a batch too many after the last, with {count_of(len(found[-1][0]), 'image')}."
            )
    return f"No image is lost, none comes twice, for {len(sizes)} sizes."


@exercise("03.2", WRITE, "A table instead of arithmetic")
def from_a_table(answer: Callable) -> str:
    from torchvision.transforms import Compose, Normalize, ToTensor  # here: it costs a second

    device = pick_device()
    images, labels = torch.randint(256, (1000, 28, 28), dtype=torch.uint8), torch.randint(10, (1000,))
    images[0, :16, :16] = torch.arange(256).view(16, 16)  # every byte there is
    there = images.to(device), labels.to(device)
    dataset = textbook_dataset(images, labels, Compose([ToTensor(), Normalize((0.5,), (0.5,))]))

    def textbook(index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return tuple(part.to(device) for part in default_collate([dataset[i] for i in index.tolist()]))

    for size in (1, random.randrange(2, 40), 128):
        index = torch.randperm(len(images))[:size]
        index[0] = 0
        _same_batch(answer(*there, index.to(device)), textbook(index))

    index = torch.randperm(len(images))[:128]
    on_device = index.to(device)
    sides = {
        "the textbook": partial(textbook, index),
        "yours": lambda: answer(*there, on_device),
        "normalize": lambda: (normalize(there[0].index_select(0, on_device)), there[1].index_select(0, on_device)),
    }
    enough = {name: partial(_often, side, 1 if name == "the textbook" else 20) for name, side in sides.items()}
    seconds = alternate(enough, device=device)
    seconds["the textbook"] = [20 * s for s in seconds["the textbook"]]
    against_textbook, against_normalize = compare_all(seconds, [("the textbook", "yours"), ("normalize", "yours")])
    if not against_textbook.differs:
        raise Undecided(
            f"the batches are the same, but nothing can be claimed on this machine now. {sentence(against_textbook)}"
        )
    if against_textbook.ratio < 1:
        raise Wrong(f"The batches are the same, but {against_textbook} What is still done image by image?")
    return f"The same bits. {sentence(against_textbook)} {sentence(against_normalize)}"


def _often(side: Callable, count: int) -> None:
    for _ in range(count):
        side()


def _same_batch(found: tuple, expected: tuple) -> None:
    (images, labels), (right, right_labels) = found, expected
    if list(images.shape) != list(right.shape):
        raise Wrong(f"The images are {list(images.shape)}, but should be {list(right.shape)}: [B, 1, 28, 28].")
    if images.dtype != right.dtype:
        raise Wrong(f"The images are {images.dtype}, but should be {right.dtype}: four bytes a pixel.")
    if not torch.equal(labels, right_labels):
        raise Wrong("The labels are not those of the images at index.")
    difference = (images - right).abs().max().item()
    if difference > 1e-3:
        low, high = images.min().item(), images.max().item()
        raise Wrong(
            f"The pixels go from {low:.3g} to {high:.3g}. Byte 0 should become -1, and byte 255 should become 1."
        )
    if difference:
        raise Wrong(
            f"Nearly: some pixels differ by {difference:.0e}, and the same bits are wanted. Dividing rounds once; "
            "multiplying by a reciprocal, which is rounded itself, rounds twice."
        )


@exercise("03.3", PREDICT, "How many workers are enough")
def enough_workers(answer: Callable) -> str:
    times = [(random.randrange(200, 3000), random.randrange(100, 900)) for _ in range(20)]
    times += [(900, 300), (300, 900), (500, 500), (901, 300)]  # a multiple, fewer than one, exactly one, just above
    for load, train in times:
        given = f"Loading {load} µs a batch and training {train} µs"
        workers = answer(load, train)
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise Wrong(f"{given}: it says {workers!r}, but a number of workers is a whole one, from 1.")
        if waits(load, train, workers):
            draw = partial(draw_workers, load, train, workers)
            raise Wrong(f"{given}: with {count_of(workers, 'worker')} the training still waits for every batch.", draw)
        if workers > 1 and not waits(load, train, workers - 1):
            draw = partial(draw_workers, load, train, workers - 1)
            raise Wrong(f"{given}: {workers} are enough, but {count_of(workers - 1, 'worker')} would be, too.", draw)
    return f"Simulated for {len(times)} pairs of times: with so many it waits no more, with one fewer it does."


def simulate_workers(load: int, train: int, workers: int, batches: int) -> list[tuple[int, int]]:
    """When the training begins and ends each batch: worker k % workers prepares batch k, one after another, each
    `load` long; the training takes them in their order, as soon as they are ready, each `train` long."""
    end, found = 0, []
    for k in range(batches):
        begin = max(end, load * (k // workers + 1))
        end = begin + train
        found.append((begin, end))
    return found


def waits(load: int, train: int, workers: int) -> bool:
    """Whether the training goes on waiting for batches, long after the first one."""
    steps = simulate_workers(load, train, workers, 400 * workers)[200 * workers :]
    return steps[-1][1] - steps[0][0] > train * len(steps)


def draw_workers(load: int, train: int, workers: int) -> None:
    """Workers and training for the first batches."""
    steps = simulate_workers(load, train, workers, max(6, 3 * workers))
    events = [
        (f"worker {k % workers + 1}", "load", 1e-6 * load * (k // workers), 1e-6 * load * (k // workers + 1), 0)
        for k in range(len(steps))
    ]
    events += [("training", "train", 1e-6 * begin, 1e-6 * end, 0) for begin, end in steps]
    plots.timeline(sorted(events, key=lambda e: e[0]), named=len(events), since="the first worker began")
