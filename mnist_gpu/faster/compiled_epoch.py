"""A whole epoch as one compiled program for the CPU: what a CUDA graph of an epoch is for a GPU.

On a CPU what binds beside the matrix products is memory: every operation reads its operands and writes its result, and
a step's images, weights, gradient and momentum (0.4 MB each) push each other out of the caches. torch.compile fuses
what lies between two products into one pass over memory, and a loop around the step, compiled with it, leaves no Python
between the steps. Batches are gathered and normalized inside.
"""

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from mnist_gpu.checks import positive
from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster.products import PRODUCTS, Products, fastest_products
from mnist_gpu.faster.whole_epoch import WholeEpoch
from mnist_gpu.faster.written_out import need_float32
from mnist_gpu.model import CLASSES, MLP

# Steps in the body of the compiled loop. Their images are gathered together, so more reads of memory are under way at
# once: 26 to 29 µs a batch instead of 36. More steps gain next to nothing and compile for longer.
UNROLLED = 4


def training_step(products: str, data: tuple, state: tuple, index: torch.Tensor, lr: float, momentum: float) -> tuple:
    """One step of SGD as a function without side effects, on the CPU: (new state, loss).

    Args:
        products: a name of PRODUCTS.
        data: all images, uint8 `[N, 784]`, and labels, int64 `[N]`.
        state: the parameters weights_1 (in the products' layout), bias_1 `[H]`, weights_2 `[10, H]`, bias_2 `[10]`, and
            the momentum of each.
        index: of the batch, int64 `[B]`.
    """
    _, features_first, hidden, gradient = PRODUCTS[products]
    (images, labels), parameters, momenta = data, state[:4], state[4:]
    weights_1, bias_1, weights_2, bias_2 = parameters
    x = images[index].float() / 127.5 - 1  # [B, 784], mnist_gpu.data.normalize
    # In every sum with a product the other operand is subtracted, negated if need be. torch.compile would make one call
    # of product and addition (addmm), which begins with a copy of what is added: 40 µs a step.
    activations = F.relu(hidden(weights_1, x) - -(bias_1[:, None] if features_first else bias_1))
    columns = activations if features_first else activations.t()  # [H, B]
    log_p = torch.log_softmax(torch.mm(weights_2, columns) - -bias_2[:, None], 0)  # [10, B]
    is_label = (torch.arange(CLASSES)[:, None] == labels[index]).float()
    loss = -(log_p * is_label).sum() / len(index)
    # Backward: the gradient of the mean cross-entropy by the logits is (p - 1 at the label) / B. Here and from here on
    # every gradient is negated.
    logits = (is_label - log_p.exp()) / len(index)
    back = torch.mm(weights_2.t(), logits) if features_first else torch.mm(logits.t(), weights_2)
    back = torch.where(activations > 0, back, 0.0)
    gradients = gradient(back, x), back.sum(1 if features_first else 0), torch.mm(logits, columns.t()), logits.sum(1)
    momenta = [momentum * m - g for m, g in zip(momenta, gradients, strict=True)]
    return (*(p - lr * m for p, m in zip(parameters, momenta, strict=True)), *momenta), loss


def many_steps(products: str, data: tuple, state: tuple, batches: torch.Tensor, lr: float, momentum: float):
    """Steps on `batches`, indices `[n, UNROLLED, B]`: updates `state` in place, and returns the losses."""
    from torch._higher_order_ops import scan  # no public name yet; compiled, it is a loop without Python

    def body(state, few):
        losses = []
        for index in few.unbind():
            state, loss = training_step(products, data, state, index, lr, momentum)
            losses.append(loss)
        return state, torch.stack(losses)

    after, losses = scan(body, state, batches)
    assign(state, after)
    return losses.flatten()


def assign(state: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    """Copies the values into the tensors of `state`."""
    for tensor, value in zip(state, values, strict=True):
        tensor.copy_(value)


@functools.cache
def compiled() -> Callable:
    """`many_steps`, compiled at its first use, and once more for every other shape, product or learning rate."""
    # With cpp_wrapper the loop and the calls of the libraries are C++, too: 1 to 2 % faster. PyTorch 2.11 cannot write
    # this loop in C++ (its compiler ends with an AssertionError), 2.15 can.
    options = {"cpp_wrapper": True} if torch.__version__ >= (2, 15) else None
    return torch.compile(many_steps, dynamic=False, fullgraph=True, options=options)


class CompiledEpoch(WholeEpoch):
    """SGD over a whole epoch, or the first `steps` of one, in one compiled program. See WholeEpoch.

    The first pass compiles (measured: 8 to 18 s). Batches that do not fill the program's loop, the smaller last one
    among them, are trained on by the same function, uncompiled.

    Args:
        model: is trained in place. The weights of its hidden layer are laid out anew in memory, as the products need
            them.
        batches: on the CPU.
        lr, momentum: of SGD.
        products: how the large products are computed, a name of PRODUCTS; None measures which is fastest here. Products
            of another kind round differently, so name them where runs must agree to the last bit.

    Raises:
        ValueError: lr not positive; model or batches are not on the CPU, or not in float32; no such products.
    """

    def __init__(self, model: MLP, batches: DeviceBatches, *, lr: float = 0.01, momentum: float = 0.9, products=None):
        super().__init__(batches)
        positive(lr=lr)
        need_float32(model)
        if batches.device.type != "cpu":
            raise ValueError(f"the batches are on {batches.device.type!r}, but this epoch is compiled for the CPU")
        if products is not None and products not in PRODUCTS:
            raise ValueError(f"products is {products!r}, but must be one of: {', '.join(PRODUCTS)}")
        self.settings = lr, momentum
        self.products: Products = PRODUCTS[products] if products else fastest_products(model.hidden.out_features)
        self.data = batches.images.flatten(1), batches.labels
        parameters = [p.detach() for p in model.parameters()]
        # Row by row in the layout of the products, whatever the model's were: scan refuses a state whose strides differ
        # from those that a step returns. clone, since contiguous() keeps the strides of a [784, 1] that is transposed.
        if self.products.features_first:
            parameters[0] = parameters[0].clone(memory_format=torch.contiguous_format)
            model.hidden.weight.data = parameters[0]
        else:
            parameters[0] = parameters[0].t().clone(memory_format=torch.contiguous_format)
            model.hidden.weight.data = parameters[0].t()
        self.state = (*parameters, *map(torch.zeros_like, parameters))

    @torch.no_grad()
    def run(self, drawn: Sequence[torch.Tensor]) -> torch.Tensor:
        size, losses = self.order.batch_size, []
        full = sum(len(index) == size for index in drawn) // UNROLLED * UNROLLED
        if full:
            batches = torch.stack(drawn[:full]).view(-1, UNROLLED, size)
            losses.append(compiled()(self.products.name, self.data, self.state, batches, *self.settings))
        for index in drawn[full:]:
            after, loss = training_step(self.products.name, self.data, self.state, index, *self.settings)
            assign(self.state, after)
            losses.append(loss[None])
        return torch.cat(losses)
