"""Wrong answers to chapter 08's exercises, each with a part of the hint that it gets."""

import torch.nn.functional as F
from wrong import WrongAnswers

wrong = WrongAnswers()


def parts_of(images, labels, parts):
    return zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True)


wrong.value("08.2", "once a warp", lambda side, costs: [sum(costs[s] for s in w.tolist()) for w in side.split(32)])
wrong.value("08.2", "sides add up", lambda side, costs: [max(costs[s] for s in w) for w in side.split(32)])
wrong.value("08.2", "that no lane takes", lambda side, costs: [sum(costs) for _ in side.split(32)])
wrong.value("08.2", "for one that is not full", lambda s, costs: [sum(costs)] * (len(s) // 32))


def weighted(weight, reset=lambda model, i: model.zero_grad() if i == 0 else None):
    """An answer that weights the parts so, and resets the gradient before some of them."""

    def answer(model, images, labels, parts):
        for i, (some, theirs) in enumerate(parts_of(images, labels, parts)):
            reset(model, i)
            (F.cross_entropy(model(some), theirs) * weight(len(some), len(images), parts)).backward()

    return answer


wrong.value("08.3", "in .grad before is still in it", weighted(lambda some, images, _: some / images, lambda *_: None))
wrong.value("08.3", "Only the last part's gradient", weighted(lambda *_: 1, lambda model, _: model.zero_grad()))
wrong.value("08.3", "means of all parts are added up", weighted(lambda *_: 1))
wrong.value("08.3", "count the same", weighted(lambda some, images, parts: 1 / parts))
wrong.value("08.3", "12 at once", lambda model, images, labels, _: F.cross_entropy(model(images), labels).backward())
wrong.value("08.3", "gone backward", lambda model, images, _, parts: [model(i) for i in images.tensor_split(parts)])
