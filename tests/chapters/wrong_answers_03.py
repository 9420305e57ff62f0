"""Wrong answers to chapter 03's exercises, each with a part of its hint."""

from functools import partial
from itertools import islice
from random import choice, randrange, sample

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
wrong("03.1", "and its label")(lambda f, y, decode: [(x, -y[i]) for i, x in enumerate(stacked(f, decode))])
wrong("03.2", "wanted are -1 and 1")(lambda images, labels, index: (images[index, None] / 255, labels[index]))
wrong("03.2", "should be [5, 1, 28, 28]")(lambda x, labels, index: (normalize(x)[index, 0], labels[index]))
wrong("03.2", "torch.float64")(lambda images, labels, index: (normalize(images)[index].double(), labels[index]))
wrong("03.2", "not those of the images at index")(lambda x, y, index: (normalize(x[index]), y[: len(index)]))
wrong("03.2", "still computes")(lambda images, labels, index: (normalize(images[index]), labels[index]))
by_a_reciprocal = torch.arange(256).mul(2 / 255) - 1
wrong("03.2", "Divide once")(lambda x, y, index: (by_a_reciprocal.to(x.device)[x[index, None].int()], y[index]))


def shuffled(stream, room, pick=randrange, last=True):
    waiting = []
    for item in stream:
        waiting.append(item)
        if len(waiting) > room:
            yield waiting.pop(pick(len(waiting)))
    while waiting and last:
        yield waiting.pop(pick(len(waiting)))


@wrong("03.3", "keep the room full")
def in_pieces(stream, room):
    while piece := list(islice(stream, room)):
        yield from sample(piece, len(piece))


wrong("03.3", "no more fit")(lambda stream, room: shuffled(list(stream), room))
wrong("03.3", "it gives 32, in 32")(partial(shuffled, last=False))
wrong("03.3", "item 0 comes first 400 times")(partial(shuffled, pick=lambda n: 0))
wrong("03.3", "too often")(partial(shuffled, pick=lambda n: choice((0, randrange(n)))))
