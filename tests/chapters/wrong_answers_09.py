"""Wrong answers to chapter 09's exercises, each with a part of the hint that it gets."""

import torch.nn.functional as F
from wrong import WrongAnswers

wrong = WrongAnswers()


def weighted(weight, reset=lambda model, i: model.zero_grad() if i == 0 else None):
    def answer(model, images, labels, parts):
        for i, (some, theirs) in enumerate(zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True)):
            reset(model, i)
            (F.cross_entropy(model(some), theirs) * weight(len(some), len(images), parts)).backward()

    return answer


wrong.value("09.1", "in .grad before is still in it", weighted(lambda some, images, _: some / images, lambda *_: None))
wrong.value("09.1", "Only the last part's gradient", weighted(lambda *_: 1, lambda model, _: model.zero_grad()))
wrong.value("09.1", "means of all parts are added up", weighted(lambda *_: 1))
wrong.value("09.1", "count the same", weighted(lambda some, images, parts: 1 / parts))
wrong.value("09.1", "sum, not of their mean", weighted(lambda some, *_: some))
wrong.value("09.1", "another gradient", lambda model, *_: model.zero_grad())
wrong.value("09.1", "[12, 0]", lambda model, images, labels, _: F.cross_entropy(model(images), labels).backward())
wrong.value("09.1", "than a part", lambda model, images, _, parts: [model(i) for i in images.tensor_split(parts)])


def through(buffer, wait=False):
    def answer(batches, buffers, targets, copy):
        for i, batch in enumerate(batches):
            event = copy(targets[i], buffer(buffers, batch, i).copy_(batch))
            _ = wait and event.synchronize()

    return answer


wrong.value("09.2", "Of 2, batch 0 does not arrive", through(lambda buffers, *_: buffers[0]))
wrong.value("09.2", "Of 3, batch 0 does not arrive", through(lambda buffers, _, i: buffers[i % 2]))
wrong.value("09.2", "take turns", through(lambda buffers, *_: buffers[0], wait=True))
wrong.value("09.2", "other memory", through(lambda _, batch, i: batch))
