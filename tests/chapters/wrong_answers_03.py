"""Wrong answers to chapter 03's exercises, each with a part of its hint."""

import torch
from wrong import WrongAnswers

from mnist_gpu.data import normalize

wrong = WrongAnswers()


def batches(images, labels, order, size):
    return [(images[index], labels[index]) for index in order.split(size)]


wrong("03.1", "last batch is missing")(lambda x, y, order, n: batches(x, y, order[: len(order) // n * n], n))
wrong("03.1", "come twice")(lambda x, y, order, n: batches(x, y, torch.cat([order, order[: -len(order) % n]]), n))
wrong("03.1", "should give")(lambda x, y, o, n: [(x[o[i : i + n]], y[o[i : i + n]]) for i in range(0, len(x), n)])
wrong("03.1", "should give")(lambda x, y, order, n: [(x[i], y[i]) for i in order.chunk(-(-len(order) // n))])


@wrong("03.1", "labels are of other images")
def labels_as_stored(images, labels, order, size):
    return zip(images[order].split(size), labels.split(size), strict=True)


wrong("03.2", "wanted are -1 and 1")(lambda images, labels, index: (images[index, None] / 255, labels[index]))
wrong("03.2", "A dimension is missing")(lambda images, labels, index: (normalize(images)[index, 0], labels[index]))
wrong("03.2", "are torch.float64")(lambda images, labels, index: (normalize(images)[index].double(), labels[index]))


@wrong("03.2", "not those of the images at index")
def first_labels(images, labels, index):
    return normalize(images[index]), labels[: len(index)]


@wrong("03.2", "one division")
def by_a_reciprocal(images, labels, index):
    table = torch.arange(256, device=images.device).mul(2 / 255) - 1
    return table[images[index].int()].unsqueeze(1), labels[index]


wrong("03.2", "still computes")(lambda images, labels, index: (normalize(images[index]), labels[index]))
