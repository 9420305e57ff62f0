"""The training step with its backward pass written out by hand: no autograd, no optimizer, few and large operations."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from mnist_gpu.checks import positive
from mnist_gpu.model import MLP
from mnist_gpu.torch_private import onednn_missing, onednn_product


def need_float32(model: MLP, where: str = "cpu") -> None:
    """Raises ValueError unless all parameters are float32 and on a device of this type."""
    for p in model.parameters():
        if (p.device.type, p.dtype) != (where, torch.float32):
            raise ValueError(f"the model is {p.dtype} on {p.device.type!r}, but must be torch.float32 on {where!r}")


def in_one_tensor(tensors: Iterable[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Moves tensors into a flat one, of which they become views, so that one operation updates all; gives both."""
    tensors = list(tensors)
    flat = parameters_to_vector(tensors).detach()
    vector_to_parameters(flat, tensors)
    return flat, [t.detach() for t in tensors]


def make_written_out_step(model: MLP, *, lr: float = 0.01, momentum: float = 0.9, onednn: bool = False) -> Callable:
    """SGD's step on `model`, in place, under the step contract (see mnist_gpu.training), on the CPU.

    Activations are `[H, B]`, so that every product reads its operands as they lie. The three small parameters are in
    one tensor, to be updated at once. `onednn` computes the large products. Raises ValueError for what it cannot train.
    """
    positive(lr=lr)
    need_float32(model)
    if onednn and (reason := onednn_missing()):
        raise ValueError(reason)
    weights_1 = model.hidden.weight.detach()  # [H, 784], the model's own memory
    rest = [model.hidden.bias, model.output.weight, model.output.bias]
    flat, (bias_1, *layer_2) = in_one_tensor(rest)
    gradient_flat, (gradient_bias_1, *gradient_layer_2) = in_one_tensor(map(torch.zeros_like, rest))
    momentum_1, momentum_flat = torch.zeros_like(weights_1), torch.zeros_like(flat)

    @torch.no_grad()
    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal momentum_1
        x = images.view(len(labels), -1)  # [B, 784]
        product = onednn_product(weights_1, x) if onednn else torch.mm(weights_1, x.t())
        activations = product.add_(bias_1[:, None]).relu_()  # [H, B]
        loss, gradient = second_layer(activations, labels, layer_2, gradient_layer_2)
        # Through ReLU, with autograd's own operator: a mask would take five times as long.
        gradient = torch.ops.aten.threshold_backward(gradient, activations, 0)
        torch.sum(gradient, 1, out=gradient_bias_1)
        # update: momentum = 0.9 momentum + gradient; parameter = parameter - lr momentum
        if onednn:
            momentum_1 = onednn_product(gradient, x.t()).add_(momentum_1, alpha=momentum)
        else:
            torch.addmm(momentum_1, gradient, x, beta=momentum, out=momentum_1)  # both in one call
        weights_1.sub_(momentum_1, alpha=lr)
        momentum_flat.mul_(momentum).add_(gradient_flat)
        flat.sub_(momentum_flat, alpha=lr)
        return loss

    return step


def second_layer(activations, labels, parameters, gradients) -> tuple[torch.Tensor, torch.Tensor]:
    """From activations `[H, B]` to the loss, and back to their gradient. Writes the gradients of weights and bias."""
    (weights, bias), (gradient_weights, gradient_bias), n = parameters, gradients, len(labels)
    log_p = torch.log_softmax(torch.addmm(bias[:, None], weights, activations), 0)  # [10, B]
    loss = F.nll_loss(log_p.t(), labels)
    # The gradient of the mean cross-entropy by the logits is (p - 1 at the label) / B.
    gradient = log_p.exp_().mul_(1 / n).scatter_add_(0, labels[None], torch.full((1, n), -1 / n))
    torch.mm(gradient, activations.t(), out=gradient_weights)
    torch.sum(gradient, 1, out=gradient_bias)
    return loss, torch.mm(weights.t(), gradient)
