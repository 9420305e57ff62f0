"""Wrong answers to chapter 09's exercises, each with a part of the hint that it gets."""

import torch.nn.functional as F
from wrong import WrongAnswers

wrong = WrongAnswers()


def weighted(weight, reset=lambda model, i: model.zero_grad() if i == 0 else None):
    """An answer that weights the parts so, and resets the gradient before some of them."""

    def answer(model, images, labels, parts):
        split = zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True)
        for i, (some, theirs) in enumerate(split):
            reset(model, i)
            (F.cross_entropy(model(some), theirs) * weight(len(some), len(images), parts)).backward()

    return answer


wrong.value("09.1", "in .grad before is still in it", weighted(lambda some, images, _: some / images, lambda *_: None))
wrong.value("09.1", "Only the last part's gradient", weighted(lambda *_: 1, lambda model, _: model.zero_grad()))
wrong.value("09.1", "means of all parts are added up", weighted(lambda *_: 1))
wrong.value("09.1", "count the same", weighted(lambda some, images, parts: 1 / parts))
wrong.value("09.1", "[12, 0]", lambda model, images, labels, _: F.cross_entropy(model(images), labels).backward())
wrong.value("09.1", "than a part", lambda model, images, _, parts: [model(i) for i in images.tensor_split(parts)])


@wrong("09.2", "batch 0 does not arrive")
def as_it_stands(batches, buffers, targets, copy):
    for batch, target in zip(batches, targets, strict=True):
        buffers[0].copy_(batch)
        copy(target, buffers[0])


@wrong("09.2", "take turns")
def waits_at_once(batches, buffers, targets, copy):
    for batch, target in zip(batches, targets, strict=True):
        buffers[0].copy_(batch)
        copy(target, buffers[0]).synchronize()


@wrong("09.2", "take turns")
def makes_all_first(batches, buffers, targets, copy):
    right(list(batches), buffers, targets, copy)


@wrong("09.2", "other memory")
def leaves_the_buffers_out(batches, buffers, targets, copy):
    for batch, target in zip(batches, targets, strict=True):
        copy(target, batch)


@wrong("09.2", "Of 3, batch 0 does not arrive")
def uses_both_and_waits_for_neither(batches, buffers, targets, copy):
    for i, (batch, target) in enumerate(zip(batches, targets, strict=True)):
        buffers[i % 2].copy_(batch)
        copy(target, buffers[i % 2])


def right(batches, buffers, targets, copy):
    events = []
    for i, batch in enumerate(batches):
        if i >= 2:
            events[i - 2].synchronize()
        buffers[i % 2].copy_(batch)
        events.append(copy(targets[i], buffers[i % 2]))


def doubled(peak, memory):
    batch = 1
    while peak(2 * batch) <= memory:
        batch *= 2
    return batch


@wrong("09.3", "had not ended")
def one_by_one(peak, memory):
    batch = 0
    while peak(batch + 1) <= memory:
        batch += 1
    return batch


wrong.value("09.3", "if not even one fits", doubled)
wrong.value("09.3", "one more must not", lambda peak, memory: doubled(peak, memory) * (peak(1) <= memory))
wrong.value("09.3", "those must fit".capitalize(), lambda peak, memory: (memory - peak(0)) // (peak(1) - peak(0) or 1))
