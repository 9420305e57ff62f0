"""Wrong answers to chapter 07's exercises, each with a part of the hint that it gets."""

import itertools

import torch
from wrong import WrongAnswers

from mnist_gpu.data import make_batches
from mnist_gpu.faster.ladder import Training
from mnist_gpu.model import make_model
from mnist_gpu.training import make_step

wrong = WrongAnswers()


def rung(device, hidden, *, weights=0, lr=0.01, momentum=0.9):
    """A rung like the plain loop, but for what is named."""
    model = make_model(hidden, seed=weights, device=device)
    step = make_step(model, torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum))
    return Training(model, step, make_batches("device", device=device))


def changed(change):
    """The plain rung with another step or other batches: `change` gets both, and gives both."""

    def answer(device, hidden):
        model, step, batches = rung(device, hidden)
        return Training(model, *change(step, batches))

    return answer


wrong.value("07.1", "The first loss differs already", lambda d, h: rung(d, h, weights=1))
wrong.value("07.1", "The first loss is right, and the second is not", lambda d, h: rung(d, h, lr=0.1))
wrong.value("07.1", "look at the momentum", lambda d, h: rung(d, h, momentum=0))
wrong.value("07.1", "loss.detach()", changed(lambda step, all: (lambda *b: step(*b).requires_grad_(), all)))
wrong.value("07.1", "a number waits", changed(lambda step, all: (lambda *b: step(*b).item(), all)))

untrained = torch.optim.SGD(make_model().parameters(), lr=0.01)  # its model is another than the loss's
full = changed(lambda step, batches: (step, [batch for batch in batches if len(batch[1]) == 128]))
same = torch.zeros(())
wrong.value("07.3", "468 steps instead of 469", full)
wrong.value("07.3", "470 steps instead of 469", changed(lambda step, batches: (step, itertools.cycle(batches))))
wrong.value(
    "07.3", "the second is not", lambda d, h: rung(d, h)._replace(step=make_step(make_model(h, device=d), untrained))
)
wrong.value("07.3", "it has trained a copy", lambda d, h: rung(d, h)._replace(model=make_model(h, device=d)))
wrong.value("07.3", "every loss needs its own", changed(lambda s, all: (lambda *b: same.copy_(s(*b)), all)))
in_turn = itertools.cycle([torch.zeros(()), torch.zeros(())])
wrong.value("07.1", "every loss needs its own", changed(lambda s, all: (lambda *b: next(in_turn).copy_(s(*b)), all)))
wrong.value("07.3", "its second is another training", changed(lambda step, batches: (step, list(batches))))


def recorded(*, copied=2, own=True, plainly=True, replays=1, fresh=True, again=False, by_step=False, resized=False):
    """An answer to 07.2 that is right but for what is named."""

    def answer(step, record, images, labels):
        at = (images.clone(), labels.clone()) if own else (images, labels)
        replay, loss = record(step, *at)

        def replayed(*batch):
            if by_step or (plainly and len(batch[0]) != len(at[0])):
                return step(*batch)
            for kept, given in list(zip(at, batch, strict=True))[:copied]:
                if resized or len(kept) == len(given):
                    kept.resize_(given.shape).copy_(given)
            for _ in range(replays):
                (record(step, *at)[0] if again else replay)()
            return loss.clone() if fresh else loss

        return replayed

    return answer


wrong.value("07.2", "It has recorded 0 times", lambda step, record, images, labels: step)
wrong.value("07.2", "images or labels that the recorded tensors had before", recorded(copied=1))
wrong.value("07.2", "tensors of its own", recorded(own=False))
wrong.value("07.2", "not on its batch's", recorded(plainly=False))
wrong.value("07.2", "was trained on 2 times", recorded(replays=2))
wrong.value("07.2", "every loss needs its own", recorded(fresh=False))
wrong.value("07.2", "It has recorded 2 times", recorded(again=True))
wrong.value("07.2", "is to be replayed", recorded(by_step=True))
wrong.value("07.2", "is to be replayed", recorded(plainly=False, resized=True))
