"""Wrong answers to chapter 12's exercises, each with a part of the hint that it gets."""

import torch
import torch.nn.functional as F
from wrong import WrongAnswers

wrong = WrongAnswers()


def back(slope, mean=len, summed=lambda g: g.sum(0)):
    """An answer to 12.1: through the activation by `slope` of z and its sigmoid."""

    def answer(x, labels, w1, b1, w2, b2):
        z = x @ w1.T + b1
        s = z.sigmoid()
        g = ((z * s @ w2.T + b2).softmax(1) - F.one_hot(labels, len(b2))) / mean(x)
        return summed(g @ w2 * slope(z, s))

    return answer


slope = lambda z, s: s + z * s * (1 - s)  # noqa: E731
wrong.value("12.1", "the loss is their mean", back(slope, mean=lambda x: 1))
wrong.value("12.1", "the slope of a ReLU", back(lambda z, s: z > 0))
wrong.value("12.1", "SiLU is z times a sigmoid", back(lambda z, s: s * (1 - s)))
wrong.value("12.1", "The sigmoid changes with z", back(lambda z, s: s))
wrong.value("12.1", "should give", back(slope, summed=lambda g: g))


@wrong("12.1", "By hand, please")
def by_autograd(x, labels, w1, b1, w2, b2):
    return torch.func.grad(lambda b: F.cross_entropy(F.silu(x @ w1.T + b) @ w2.T + b2, labels))(b1)


def agree(dtype, limit):
    return lambda one, other: (one(dtype) - other(dtype)).abs().max() <= limit


for limit, given in ((0, False), (1e-3, False), (1e3, True)):
    wrong.value("12.2", f"it gives {given}", agree(torch.float32, limit))
wrong.value("12.2", "in float64: it gives False", agree(torch.float64, 0))
wrong.value("12.2", "it gives True", agree(torch.float64, 0.1))
wrong.value("12.2", "it gives None", lambda one, other: None)
