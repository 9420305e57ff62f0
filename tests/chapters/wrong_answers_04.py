"""Wrong answers to chapter 04's exercises, each with a part of its hint."""

from functools import partial

import torch
import torch.nn.functional as F
from wrong import WrongAnswers

from mnist_gpu.training import make_step

wrong = WrongAnswers()


def step_of(*calls, give=torch.Tensor.detach):
    """An answer to 04.1 that makes these calls after the loss, and gives something of it."""

    def step(model, optimizer, images, labels):
        loss = F.cross_entropy(model(images), labels)
        for call in calls:
            getattr(loss if call == "backward" else optimizer, call)()
        return give(loss)

    return step


wrong("04.1", "No weight has changed")(step_of("backward", "zero_grad", "step"))
wrong("04.1", "gradients of the steps before")(step_of("backward", "step"))
wrong("04.1", "keeps all that the graph needs")(step_of("zero_grad", "backward", "step", give=lambda loss: loss))
wrong("04.1", "it calls item")(step_of("zero_grad", "backward", "step", give=torch.Tensor.item))


def reports(see=lambda loss: None, mean=lambda losses: torch.stack(losses[-100:]).mean().item()):
    """An answer to 04.2 that does `see` with every loss, and reports `mean` of them."""

    def answer(model, optimizer, batches):
        found, losses = [], []
        for i, batch in enumerate(batches, start=1):
            losses.append(make_step(model, optimizer)(*batch))
            see(losses[-1])
            if i % 100 == 0:
                found.append([mean(losses), torch.stack(losses[-100:]).max().item()])
        return found

    return answer


wrong("04.2", "it calls item")(reports(torch.Tensor.item))
wrong("04.2", "keeps all that the graph needs")(reports(mean=lambda losses: losses[-1].requires_grad_()))
wrong("04.2", "should give")(reports(mean=lambda losses: torch.stack(losses).mean().item()))


def passed(model, batches, *, training=False, recorded=False, back=True):
    """An answer to 04.3, right but for what is changed."""
    before = model.training
    model.train(training)
    with torch.set_grad_enabled(recorded):
        losses = torch.cat([F.cross_entropy(model(x), y, reduction="none") for x, y in batches])
    model.train(before if back else training)
    return losses.mean().item()


wrong("04.3", "leaves out other units")(partial(passed, training=True))
wrong("04.3", "Gradients were recorded")(partial(passed, recorded=True))
wrong("04.3", "left in the mode")(partial(passed, back=False))
wrong("04.3", "Every image counts once")(lambda *given: sum(passed(given[0], [b]) for b in given[1]) / len(given[1]))
wrong("04.1", "Is there a return?")(lambda *given: None)
for name in ("04.1", "04.2", "04.3"):
    wrong(name, "had not ended")(lambda *given: [0 for _ in iter(int, 1)])
