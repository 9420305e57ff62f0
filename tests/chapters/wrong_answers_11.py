"""Wrong answers to chapter 11's exercises, each with a part of its hint."""

import itertools
import math

import torch
from wrong import WrongAnswers

wrong = WrongAnswers()
wrong.value("11.1", "which is no whole sum", lambda rank, step, ranks: (rank + step) % ranks)
wrong.value("11.1", "they would count twice", lambda rank, step, ranks: rank)
wrong.value("11.1", "take it % ranks", lambda rank, step, ranks: rank - step)
wrong.value("11.1", "sends chunk None, but their numbers go from 0 to 3", lambda rank, step, ranks: None)
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


def first(pays):
    return next(batch for batch in itertools.count(1) if pays(batch))


def messages(n, parameters, latency, bandwidth):
    return 2 * latency + 8 * (n - 1) / n * parameters / bandwidth


wrong.value("11.3", "still computes its part", lambda n, p, i, *link: first(lambda b: messages(n, p, *link) < b * i))
wrong.value("11.3", "had not ended", lambda n, p, i, *link: first(lambda b: b * i < 0))


@wrong("11.3", "The loss is a message, too")
def one_message(n, p, image, latency, bandwidth):
    return first(lambda b: messages(n, p, latency, bandwidth) - latency < (b - math.ceil(b / n)) * image)


@wrong("11.3", "a whole number of images")
def parts_of_images(n, p, image, *link):
    return first(lambda b: messages(n, p, *link) < (b - b / n) * image)


@wrong("11.3", "should give 66")
def equally_long(n, p, image, *link):
    return first(lambda b: messages(n, p, *link) <= (b - math.ceil(b / n)) * image)
