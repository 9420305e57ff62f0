"""Wrong answers to chapter 11's exercises, each with a part of its hint."""

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


def scaled(losses, counts):
    return losses.sum() * len(counts) / sum(counts)


@wrong("11.2", "What is the mean of no losses?")
def mean_of_nothing(losses, counts):
    return losses.mean() * len(losses) * len(counts) / sum(counts)


@wrong("11.2", "no .backward() reaches the weights")
def nothing_of_no_images(losses, counts):
    return scaled(losses, counts) if len(losses) else 0.0


@wrong("11.2", "other ranks would wait")
def fresh_zero(losses, counts):
    return scaled(losses, counts) if len(losses) else torch.zeros((), requires_grad=True)


def saved(n, parameters, image, latency, bandwidth, messages=2):
    return math.floor((messages * latency + 8 * (n - 1) / n * parameters / bandwidth) / image) + 1


wrong.value("11.3", "Each process still computes its part", saved)


@wrong("11.3", "The loss is a message, too")
def one_message(*given):
    needed = saved(*given, messages=1)
    return needed + math.ceil(needed / (given[0] - 1))


@wrong("11.3", "a whole number of images")
def parts_of_images(n, parameters, image, latency, bandwidth):
    talk = 2 * latency + 8 * (n - 1) / n * parameters / bandwidth
    return math.floor(talk / image / (1 - 1 / n)) + 1


@wrong("11.3", "should give 66")
def equally_long(*given):
    needed = saved(*given) - (given[1] == 2**20)  # the one case without a rest
    return needed + math.ceil(needed / (given[0] - 1))


@wrong("11.3", "had not ended")
def never(n, parameters, image, latency, bandwidth):
    batch = 1
    while batch * image > -latency:
        batch += 1
