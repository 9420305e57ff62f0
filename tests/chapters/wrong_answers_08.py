"""Wrong answers to chapter 08's exercises, each with a part of the hint that it gets."""

import torch.nn.functional as F
from wrong import WrongAnswers

wrong = WrongAnswers()


def parts_of(images, labels, parts):
    return zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True)


wrong.value("08.2", "not once a lane", lambda side, costs: [sum(costs[s] for s in w.tolist()) for w in side.split(32)])
wrong.value("08.2", "follow one another", lambda side, costs: [max(costs[s] for s in w) for w in side.split(32)])
wrong.value("08.2", "that none of its lanes takes", lambda side, costs: [sum(costs) for _ in side.split(32)])
wrong.value("08.2", "for one that is not full", lambda s, costs: [sum(costs)] * (len(s) // 32))


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
wrong.value(
    "08.3", "12 at once", lambda model, images, labels, parts: F.cross_entropy(model(images), labels).backward()
)
wrong.value(
    "08.3", "gone backward", lambda model, images, labels, parts: [model(i) for i in images.tensor_split(parts)]
)
