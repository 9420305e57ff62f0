"""Wrong answers to chapter 08's exercises, each with a part of the hint that it gets."""

import math

import torch
import torch.nn.functional as F
from wrong import WrongAnswers

wrong = WrongAnswers()
IMAGE = 28 * 28


def parts_of(images, labels, parts):
    return zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True)


wrong.value("08.1", "in cycles, not seconds", lambda rate, cycles, clock: math.ceil(rate * cycles / (5 * IMAGE)))
wrong.value("08.1", "what is written is moved", lambda rate, cycles, clock: math.ceil(rate * cycles / clock / IMAGE))
wrong.value("08.1", "what is read is moved", lambda rate, cycles, clock: rate * cycles / clock // (4 * IMAGE) + 1)
wrong.value("08.1", "but should give", lambda rate, cycles, clock: rate * cycles / clock // (5 * IMAGE))
wrong.value("08.1", "it gives None", lambda rate, cycles, clock: None)
wrong.value("08.2", "not once a lane", lambda side, costs: [sum(costs[s] for s in w.tolist()) for w in side.split(32)])
wrong.value("08.2", "follow one another", lambda side, costs: [max(costs[s] for s in w) for w in side.split(32)])
wrong.value("08.2", "that none of its lanes takes", lambda side, costs: [sum(costs) for _ in side.split(32)])
wrong.value("08.2", "but should give", lambda side, costs: [costs[w[0]] for w in side.split(32)])
wrong.value("08.2", "A list with 4 numbers", lambda side, costs: sum(costs[s] for s in side.unique()))


@wrong("08.2", "for one that is not full")
def two_sides_of_full_warps(side, costs):
    lanes = (side[: len(side) // 32 * 32] == 0).view(-1, 32)
    return (lanes.any(1) * costs[0] + (~lanes).any(1) * costs[1]).tolist()


@wrong("08.3", "in .grad before is still in it")
def never_reset(model, images, labels, parts):
    for some, theirs in parts_of(images, labels, parts):
        (F.cross_entropy(model(some), theirs) * len(some) / len(images)).backward()


@wrong("08.3", "Only the last part's gradient")
def reset_every_time(model, images, labels, parts):
    for some, theirs in parts_of(images, labels, parts):
        model.zero_grad()
        F.cross_entropy(model(some), theirs).backward()


def weighted(weight):
    def answer(model, images, labels, parts):
        model.zero_grad()
        for some, theirs in parts_of(images, labels, parts):
            (F.cross_entropy(model(some), theirs) * weight(len(some), len(images), parts)).backward()

    return answer


wrong.value("08.3", "means of all parts are added up", weighted(lambda *_: 1))
wrong.value("08.3", "count the same", weighted(lambda some, images, parts: 1 / parts))
wrong.value("08.3", "should be", weighted(lambda some, images, parts: some))
wrong.value(
    "08.3", "12 at once", lambda model, images, labels, parts: F.cross_entropy(model(images), labels).backward()
)
wrong.value(
    "08.3", "gone backward", lambda model, images, labels, parts: [model(i) for i in images.tensor_split(parts)]
)


@wrong("08.3", "both are kept")
def all_forward_first(model, images, labels, parts):
    losses = [F.cross_entropy(model(i), of) * len(i) / len(images) for i, of in parts_of(images, labels, parts)]
    torch.stack(losses).sum().backward()
