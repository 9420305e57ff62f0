"""Wrong answers to chapter 04's exercises, each with a part of its hint."""

import torch
import torch.nn.functional as F
from wrong import WrongAnswers

from mnist_gpu.training import evaluate, make_step

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
wrong("04.2", "it calls cpu")(reports(torch.Tensor.cpu))
wrong("04.2", "it calls __bool__")(reports(lambda loss: 1 if loss > 9 else 0))
wrong("04.2", "it calls __repr__")(reports(str))
wrong("04.2", "should give")(reports(mean=lambda losses: torch.stack(losses).mean().item()))


@wrong("04.3", "leaves out other units")
def while_training(model, batches):
    with torch.no_grad():
        return torch.cat([F.cross_entropy(model(x), y, reduction="none") for x, y in batches]).mean()


@wrong("04.3", "Gradients were recorded")
def recorded(model, batches):
    training = model.training
    losses = torch.cat([F.cross_entropy(model.eval()(x), y, reduction="none") for x, y in batches])
    model.train(training)
    return losses.mean().item()


wrong("04.3", "left in the mode")(lambda model, batches: evaluate(model.eval(), batches).loss)
PARTS = {
    "count for more": lambda parts: sum(m for m, _ in parts) / len(parts),
    "over the number of batches": lambda parts: sum(m * n for m, n in parts) / len(parts),
    "Means of batches were added": lambda parts: sum(m for m, _ in parts) / sum(n for _, n in parts),
}
for hint, of in PARTS.items():  # of the batches' means and sizes
    wrong("04.3", hint)(lambda model, batches, of=of: of([(evaluate(model, [b]).loss, len(b[1])) for b in batches]))
