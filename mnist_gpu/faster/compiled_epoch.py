"""A whole epoch as one compiled program for the CPU, in which all between two products is one pass over memory."""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster.products import PRODUCTS, fastest_products
from mnist_gpu.faster.whole_epoch import WholeEpoch
from mnist_gpu.model import CLASSES, MLP
from mnist_gpu.torch_private import scan

UNROLLED = 4  # steps in the body of the compiled loop: gathering several batches at once takes 26 to 29 μs each, not 36


def training_step(products: str, data: tuple, state: tuple, index: torch.Tensor, lr: float, momentum: float) -> tuple:
    """One step of SGD as a function without side effects: (new state, loss). `products` is a name of PRODUCTS.

    data: all images, uint8 `[N, 784]`, and labels. state: the four parameters, and the momentum of each. index: `[B]`.
    """
    hidden, gradient = PRODUCTS[products]
    (images, labels), (weights_1, bias_1, weights_2, bias_2), momenta = data, state[:4], state[4:]
    x = images[index].float() / 127.5 - 1  # [B, 784], mnist_gpu.data.normalize
    # x - -b, since torch.compile makes one call of x + b (addmm), which begins with a copy of b: 40 μs a step.
    activations = F.relu(hidden(weights_1, x) - -bias_1[:, None])  # [H, B]
    log_p = torch.log_softmax(torch.mm(weights_2, activations) - -bias_2[:, None], 0)  # [10, B]
    is_label = (torch.arange(CLASSES)[:, None] == labels[index]).float()
    loss = -(log_p * is_label).sum() / len(index)
    # Backward: the gradient of the mean cross-entropy by the logits is (p - 1 at the label) / B. All are negated here.
    logits = (is_label - log_p.exp()) / len(index)
    back = torch.where(activations > 0, torch.mm(weights_2.t(), logits), 0.0)
    gradients = gradient(back, x), back.sum(1), torch.mm(logits, activations.t()), logits.sum(1)
    momenta = [momentum * m - g for m, g in zip(momenta, gradients, strict=True)]
    return (*(p - lr * m for p, m in zip(state[:4], momenta, strict=True)), *momenta), loss


def many_steps(products: str, data: tuple, state: tuple, batches: torch.Tensor, lr: float, momentum: float) -> tuple:
    """Steps on `batches`, indices `[n, UNROLLED, B]`: (new state, losses)."""

    def body(state, few):
        losses = []
        for index in few.unbind():
            state, loss = training_step(products, data, state, index, lr, momentum)
            losses.append(loss)
        return state, torch.stack(losses)

    state, losses = scan(body, state, batches)
    return state, losses.flatten()


# `many_steps`, compiled at its first use, and once more for every other shape, product or learning rate.
compiled = functools.cache(lambda: torch.compile(many_steps, dynamic=False, fullgraph=True))


class CompiledEpoch(WholeEpoch):
    """SGD over a whole epoch, or the first `steps` of one, in one compiled program, on the CPU. See WholeEpoch.

    The first pass compiles (8 to 18 s). `products` is a name of PRODUCTS, None measures which are the fastest here.
    """

    def __init__(self, model: MLP, batches: DeviceBatches, *, lr: float = 0.01, momentum: float = 0.9, products=None):
        super().__init__(batches)
        self.settings = lr, momentum
        self.products = products or fastest_products(model.hidden.out_features)
        self.data = batches.images.flatten(1), batches.labels
        parameters = [p.detach() for p in model.parameters()]
        self.state = (*parameters, *map(torch.zeros_like, parameters))

    @torch.no_grad()
    def run(self, drawn: Sequence[torch.Tensor]) -> torch.Tensor:
        size, name, state, losses = self.order.batch_size, self.products, self.state, []
        full = sum(len(index) == size for index in drawn) // UNROLLED * UNROLLED  # the others run uncompiled
        if full:
            batches = torch.stack(drawn[:full]).view(-1, UNROLLED, size)
            state, found = compiled()(name, self.data, state, batches, *self.settings)
            losses.append(found)
        for index in drawn[full:]:
            state, loss = training_step(name, self.data, state, index, *self.settings)
            losses.append(loss[None])
        for tensor, value in zip(self.state, state, strict=True):
            tensor.copy_(value)
        return torch.cat(losses)
