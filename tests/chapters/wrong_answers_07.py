"""Wrong answers to chapter 07's exercises, each with a part of the hint that it gets."""

import torch
import torch.nn.functional as F
from wrong import WrongAnswers

from mnist_gpu.data import make_batches
from mnist_gpu.faster.ladder import Training
from mnist_gpu.model import make_model
from mnist_gpu.training import make_step

wrong = WrongAnswers()


def rung(device, hidden, *, weights=0, order=0, lr=0.01, momentum=0.9):
    """A rung like the plain loop, but for what is named."""
    model = make_model(hidden, seed=weights, device=device)
    step = make_step(model, torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum))
    return Training(model, step, make_batches("device", seed=order, device=device))


wrong.value("07.1", "should give Training(model, step, batches)", lambda device, hidden: make_model(hidden))
wrong.value("07.1", "the weights that make_model(hidden) gives", lambda d, h: rung(d, h, weights=1))
wrong.value("07.1", "the weights that make_model(hidden) gives", lambda device, hidden: rung(device, 128))
wrong.value("07.1", "Its first batch has other images", lambda d, h: rung(d, h, order=1))
wrong.value("07.1", "the learning rate is 0.01", lambda d, h: rung(d, h, lr=0.1))
wrong.value("07.1", "the momentum is 0.9", lambda d, h: rung(d, h, momentum=0))


@wrong("07.1", "other pixels than from -1 to 1")
def other_pixels(device, hidden):
    model, step, batches = rung(device, hidden)
    return Training(model, step, [(images / 2 + 0.5, labels) for images, labels in batches])


@wrong("07.1", "468 steps instead of 469")
def without_the_last_batch(device, hidden):
    model, step, batches = rung(device, hidden)
    return Training(model, step, [batch for batch in batches if len(batch[1]) == 128])


@wrong("07.1", "gradients begin at zero again")
def gradients_add_up(device, hidden):
    model, _, batches = rung(device, hidden)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step(images, labels):
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Training(model, step, batches)


def recorded(*, copied=2, own=True, plainly=True, replays=1, fresh=True, again=False, by_step=False):
    """An answer to 07.2 that is right but for what is named."""

    def answer(step, record, images, labels):
        at = (images.clone(), labels.clone()) if own else (images, labels)
        replay, loss = record(step, *at)

        def replayed(*batch):
            if by_step or (plainly and len(batch[0]) != len(at[0])):
                return step(*batch)
            for kept, given in list(zip(at, batch, strict=True))[:copied]:
                if len(kept) == len(given):
                    kept.copy_(given)
            for _ in range(replays):
                (record(step, *at)[0] if again else replay)()
            return loss.clone() if fresh else loss

        return replayed

    return answer


wrong.value("07.2", "trained on images of another batch", recorded(copied=0))
wrong.value("07.2", "trained on labels of another batch", recorded(copied=1))
wrong.value("07.2", "tensors of its own", recorded(own=False))
wrong.value("07.2", "that needs the plain step", recorded(plainly=False))
wrong.value("07.2", "was trained on 2 times", recorded(replays=2))
wrong.value("07.2", "all losses are the last one", recorded(fresh=False))
wrong.value("07.2", "It records a second time", recorded(again=True))
wrong.value("07.2", "took the plain step: replay it", recorded(by_step=True))


def gain(first, own, other):
    return -(-first // (other - own)) if own < other else None


wrong.value("07.3", "By then it has not caught up", lambda f, o, p: max(1, f // (p - o)) if o < p else None)
wrong.value("07.3", "An epoch gains the difference of the two", lambda f, o, p: -(-f // p) if o < p else None)
wrong.value("07.3", "At least one epoch is trained", gain)
wrong.value("07.3", "An epoch gains", lambda f, o, p: gain(f, o, p) and max(1, gain(f, o, p)) + 1)
wrong.value("07.3", "An epoch gains -", lambda f, o, p: max(1, gain(f, o, p)) if o < p else 1)
