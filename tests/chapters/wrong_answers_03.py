"""Wrong answers to chapter 03's exercises, each with a part of its hint."""

import torch
from wrong import WrongAnswers

from mnist_gpu.data import normalize

wrong = WrongAnswers()


class Computed(list):
    """A data set whose i-th sample is what the i-th function gives."""

    def __getitem__(self, i):
        return super().__getitem__(i)()


def stacked(files, decode):
    return torch.stack([decode(file) for file in files]).float()


@wrong("03.1", "once each is enough")
def decoded_in_the_loop(files, labels, decode):
    mean = stacked(files, decode).mean()
    return Computed(lambda f=f, y=y: (decode(f) - mean, y) for f, y in zip(files, labels, strict=True))


@wrong("03.1", "computes on all")
def mean_in_the_loop(files, labels, decode):
    x = stacked(files, decode)
    return Computed(lambda i=i, y=y: (x[i] - x.mean(), y) for i, y in enumerate(labels))


wrong("03.1", "mean of all")(lambda f, y, decode: [(x - x.mean(), y[i]) for i, x in enumerate(stacked(f, decode))])
wrong("03.1", "other labels")(lambda f, y, decode: [(x, -y[i]) for i, x in enumerate(stacked(f, decode))])
wrong("03.2", "wanted are -1 and 1")(lambda images, labels, index: (images[index, None] / 255, labels[index]))
wrong("03.2", "should be [5, 1, 28, 28]")(lambda x, labels, index: (normalize(x)[index, 0], labels[index]))
wrong("03.2", "torch.float64")(lambda images, labels, index: (normalize(images)[index].double(), labels[index]))
wrong("03.2", "not those of the images at index")(lambda x, y, index: (normalize(x[index]), y[: len(index)]))
wrong("03.2", "still computes")(lambda images, labels, index: (normalize(images[index]), labels[index]))
by_a_reciprocal = torch.arange(256).mul(2 / 255) - 1
wrong("03.2", "Divide once")(lambda x, y, index: (by_a_reciprocal.to(x.device)[x[index, None].int()], y[index]))


def in_pieces(stream, room, last=True, mix=torch.randperm):
    waiting = []
    for item in stream:
        waiting.append(item)
        if len(waiting) == room:
            yield from (waiting[i] for i in mix(room))
            waiting = []
    yield from waiting if last else []


wrong("03.3", "39 items wait")(lambda stream, room: in_pieces(list(stream), room))
wrong("03.3", "it gives 20, in 20")(lambda stream, room: in_pieces(stream, room, last=False))
wrong("03.3", "Only 1 of 40")(lambda stream, room: in_pieces(stream, room, mix=range))
wrong("03.3", "Only 1 of 3")(in_pieces)
wrong("03.3", "in 41 pieces")(lambda stream, room: (x for item in stream for x in (item, item)))
