"""Wrong answers to chapter 04's exercises, each with a part of its hint."""

import torch
import torch.nn.functional as F
from wrong import WrongAnswers

from mnist_gpu.training import evaluate, make_step

wrong = WrongAnswers()


def loss_of(model, images, labels):
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    return loss.detach()


@wrong("04.1", "No weight has changed")
def forgotten_too_early(model, optimizer, images, labels):
    loss = loss_of(model, images, labels)
    optimizer.zero_grad()
    optimizer.step()
    return loss


@wrong("04.1", "gradients of the steps before")
def never_forgotten(model, optimizer, images, labels):
    loss = loss_of(model, images, labels)
    optimizer.step()
    return loss


@wrong("04.1", "without its graph")
def with_its_graph(model, optimizer, images, labels):
    loss = F.cross_entropy(model(images), labels)
    make_step(model, optimizer)(images, labels)
    return loss


wrong("04.1", "Python waits")(lambda model, optimizer, *batch: make_step(model, optimizer)(*batch).item())


@wrong("04.3", "leaves out other units")
def while_training(model, batches):
    with torch.no_grad():
        return torch.cat([F.cross_entropy(model(x), y, reduction="none") for x, y in batches]).mean()


@wrong("04.3", "Gradients were recorded")
def recorded(model, batches):
    training = model.training
    model.eval()
    losses = torch.cat([F.cross_entropy(model(x), y, reduction="none") for x, y in batches])
    model.train(training)
    return losses.mean().item()


@wrong("04.3", "has to be left in the mode")
def left_evaluating(model, batches):
    return evaluate(model.eval(), batches).loss


def of_parts(combine):
    """An answer to 04.3 that combines the (mean, size) of all batches."""
    return lambda model, batches: combine([(evaluate(model, [b]).loss, len(b[1])) for b in batches])


wrong("04.3", "count for more")(of_parts(lambda parts: sum(m for m, _ in parts) / len(parts)))
wrong("04.3", "over the number of batches")(of_parts(lambda parts: sum(m * n for m, n in parts) / len(parts)))
wrong("04.3", "Means of batches were added")(of_parts(lambda p: sum(m for m, _ in p) / sum(n for _, n in p)))
