"""Wrong answers to chapter 02's exercises, each with a part of the hint that it gets."""

from itertools import pairwise

import torch.nn.functional as F
from wrong import WrongAnswers

wrong = WrongAnswers()


def forward(batch, widths):
    return sum(2 * batch * m * n for m, n in pairwise(widths))


@wrong("02.1", "the gradient of the images, too")
def with_the_images_gradient(batch, widths):
    return forward(batch, widths), 2 * forward(batch, widths)


@wrong("02.1", "What carries the gradient further back?")
def one_product_back(batch, widths):
    return forward(batch, widths), forward(batch, widths)


@wrong("02.1", "are two operations")
def multiplications_alone(batch, widths):
    forwards = forward(batch, widths) // 2
    return forwards, 2 * forwards - batch * widths[0] * widths[1]


def gradients(x, labels, w1, b1, w2, b2, *, mean=True, through=lambda z: z > 0):
    z = x @ w1.T + b1
    h = z.clamp(min=0)
    g_logits = (h @ w2.T + b2).softmax(1) - F.one_hot(labels, len(b2))
    g_logits = g_logits / len(labels) if mean else g_logits
    g_z = (g_logits @ w2) * through(z)
    return g_z.T @ x, g_z.sum(0), g_logits.T @ h, g_logits.sum(0)


@wrong("02.3", "but their mean is wanted")
def of_the_sum(*given):
    return gradients(*given, mean=False)


@wrong("02.3", "It is averaged twice")
def averages_one_bias(*given):
    w1, b1, w2, b2 = gradients(*given)
    return w1, b1 / len(given[0]), w2, b2


@wrong("02.3", "It comes back through the ReLU everywhere")
def back_everywhere(*given):
    return gradients(*given, through=lambda z: 1)


@wrong("02.3", "Where z is exactly 0")
def back_at_zero(*given):
    return gradients(*given, through=lambda z: z >= 0)
