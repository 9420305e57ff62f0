"""Wrong answers to chapter 11's exercises, each with a part of its hint."""

import itertools
import math

import torch
from wrong import WrongAnswers

wrong = WrongAnswers()
wrong.value("11.1", "which is no whole sum", lambda rank, step, ranks: (rank + step) % ranks)
wrong.value("11.1", "they would count twice", lambda rank, step, ranks: rank)
wrong.value("11.1", "Is % ranks missing?", lambda rank, step, ranks: rank - step)
wrong.value("11.1", "does not have the sum of chunk", lambda rank, step, ranks: (rank - min(step, ranks - 1)) % ranks)
wrong.value("11.2", "counts too much", lambda losses, counts: losses.sum() / max(1, len(losses)))
wrong.value("11.2", "DDP divides by the number of ranks, too", lambda losses, counts: losses.sum() / sum(counts))
wrong.value("11.2", "divided by the ranks, not by the images", lambda losses, counts: losses.sum())
wrong.value("11.2", "no .backward() reaches", lambda losses, counts: losses)
for zero in (0.0, torch.zeros((), requires_grad=True)):  # of no images
    wrong.value("11.2", "would wait", lambda losses, counts, z=zero: of_mean(losses, counts) if len(losses) else z)


@wrong("11.2", "What is the mean of no losses?")
def of_mean(losses, counts):
    return losses.mean() * len(losses) * len(counts) / sum(counts)


def messages(n, parameters, latency, bandwidth):
    return 2 * latency + 8 * (n - 1) / n * parameters / bandwidth


wrong.value("11.3", "still computes its part", lambda n, p, image, *link: math.floor(messages(n, p, *link) / image) + 1)


@wrong("11.3", "The loss is a message, too")
def one_message(n, p, image, latency, bandwidth):
    talk = messages(n, p, latency, bandwidth) - latency
    return next(b for b in itertools.count(1) if (b - math.ceil(b / n)) * image > talk)


@wrong("11.3", "a whole number of images")
def parts_of_images(n, p, image, *link):
    return math.floor(messages(n, p, *link) / image / (1 - 1 / n)) + 1


@wrong("11.3", "should give 66")
def equally_long(n, p, image, *link):
    return next(b for b in itertools.count(1) if (b - math.ceil(b / n)) * image >= messages(n, p, *link))


@wrong("11.3", "had not ended")
def never(n, p, image, *link):
    return next(b for b in itertools.count(1) if b * image < 0)
