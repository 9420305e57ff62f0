"""The training step with its backward pass written out by hand: no autograd, no optimizer, few and large operations.

It computes what `make_step` with SGD computes, operation by operation, and shows what a step is made of.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from mnist_gpu.checks import positive
from mnist_gpu.faster.products import onednn_missing, onednn_product
from mnist_gpu.model import CLASSES, MLP


def need_float32_on_cpu(model: MLP) -> None:
    """Raises ValueError unless it is there."""
    if any(p.device.type != "cpu" or p.dtype != torch.float32 for p in model.parameters()):
        raise ValueError("this is written for a float32 model on the CPU")


def make_written_out_step(model: MLP, *, lr: float = 0.01, momentum: float = 0.9, onednn: bool = False) -> Callable:
    """SGD's step on `model` under the step contract (see mnist_gpu.training), for a model on the CPU.

    Tensors are kept with the features first (`[H, B]`, not `[B, H]`), so that every product reads its operands as they
    lie, and softmax runs along rows of B numbers instead of 10. The first layer's weights are 99 % of the parameters;
    the other three parameters are kept flat, in one tensor, since four small updates cost four times one.

    Args:
        model: is trained in place.
        lr, momentum: of SGD.
        onednn: the two large products by oneDNN instead of `torch.mm`.

    Raises:
        ValueError: lr not positive; the model is not on the CPU; onednn where there is none.
    """
    positive(lr=lr)
    need_float32_on_cpu(model)
    if onednn and onednn_missing():
        raise ValueError(onednn_missing())

    hidden = model.hidden.out_features
    weights_1 = model.hidden.weight.detach()  # [H, 784], the model's own memory
    rest = [model.hidden.bias, model.output.weight, model.output.bias]
    flat = torch.cat([p.detach().flatten() for p in rest])

    def views(flat):  # of the second layer's parameters and both biases; biases as columns
        bias_1, weights_2, bias_2 = flat.split([p.numel() for p in rest])
        return bias_1[:, None], weights_2.view(CLASSES, hidden), bias_2[:, None]

    bias_1, weights_2, bias_2 = views(flat)
    for parameter, view in zip(rest, (bias_1[:, 0], weights_2, bias_2[:, 0]), strict=True):
        parameter.data = view
    momentum_1, momentum_flat, gradient_flat = (torch.zeros_like(t) for t in (weights_1, flat, flat))
    gradient_bias_1, gradient_weights_2, gradient_bias_2 = views(gradient_flat)
    outputs = {}  # preallocated, by batch size: a pass has two

    @torch.no_grad()
    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal momentum_1
        n = len(labels)
        if n not in outputs:
            outputs[n] = torch.empty(CLASSES, n), torch.empty(hidden, n), torch.full((1, n), -1 / n)
        logits, gradient_hidden, minus = outputs[n]
        x = images.view(n, -1)  # [B, 784]

        # forward
        product = onednn_product(weights_1, x) if onednn else torch.mm(weights_1, x.t())
        activations = product.add_(bias_1).relu_()  # [H, B]
        torch.addmm(bias_2, weights_2, activations, out=logits)  # [10, B]
        log_p = torch.log_softmax(logits, 0)
        loss = F.nll_loss(log_p.t(), labels)

        # backward: the gradient of the mean cross-entropy by the logits is (p - 1 at the label) / B
        gradient_logits = log_p.exp_().mul_(1 / n).scatter_add_(0, labels[None], minus)
        torch.mm(gradient_logits, activations.t(), out=gradient_weights_2)
        torch.sum(gradient_logits, 1, keepdim=True, out=gradient_bias_2)
        torch.mm(weights_2.t(), gradient_logits, out=gradient_hidden)
        # Through ReLU, with autograd's own operator: a mask would take five times as long.
        gradient_hidden = torch.ops.aten.threshold_backward(gradient_hidden, activations, 0)
        torch.sum(gradient_hidden, 1, keepdim=True, out=gradient_bias_1)

        # update: momentum = 0.9 momentum + gradient; parameter = parameter - lr momentum
        if onednn:
            momentum_1 = onednn_product(gradient_hidden, x.t()).add_(momentum_1, alpha=momentum)
        else:
            torch.addmm(momentum_1, gradient_hidden, x, beta=momentum, out=momentum_1)  # both in one call
        weights_1.sub_(momentum_1, alpha=lr)
        momentum_flat.mul_(momentum).add_(gradient_flat)
        flat.sub_(momentum_flat, alpha=lr)
        return loss

    return step
