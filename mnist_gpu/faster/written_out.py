"""The training step with its backward pass written out by hand: no autograd, no optimizer, few and large operations."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from mnist_gpu.model import MLP
from mnist_gpu.torch_private import onednn_product


def in_one_tensor(tensors: Iterable[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Moves tensors into a flat one, of which they become views, so that one operation updates all; gives both."""
    tensors = list(tensors)
    flat = parameters_to_vector(tensors).detach()
    vector_to_parameters(flat, tensors)
    return flat, [t.detach() for t in tensors]


def make_written_out_step(model: MLP, *, lr: float = 0.01, momentum: float = 0.9, onednn: bool = False) -> Callable:
    """SGD's step on `model`, in place, under the step contract (see mnist_gpu.training), on the CPU.

    Activations are `[H, B]`, so that every product reads its operands as they lie. The three small parameters are in
    one tensor, to be updated at once. `onednn` computes the large products.
    """
    times = onednn_product if onednn else lambda a, b: torch.mm(a, b.t())  # a @ b.t()
    weights_1, rest = model.hidden.weight.detach(), [model.hidden.bias, *model.output.parameters()]
    flat, (bias_1, weights_2, bias_2) = in_one_tensor(rest)
    gradients, (to_bias_1, to_weights_2, to_bias_2) = in_one_tensor(map(torch.zeros_like, rest))
    momentum_1, momenta = torch.zeros_like(weights_1), torch.zeros_like(flat)

    @torch.no_grad()
    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal momentum_1
        x, n = images.view(len(labels), -1), len(labels)  # [B, 784]
        activations = times(weights_1, x).add_(bias_1[:, None]).relu_()  # [H, B]
        log_p = torch.log_softmax(torch.addmm(bias_2[:, None], weights_2, activations), 0)  # [10, B]
        loss = F.nll_loss(log_p.t(), labels)
        # Backward: the gradient of the mean cross-entropy by the logits is (p - 1 at the label) / B.
        to_logits = log_p.exp_().mul_(1 / n).scatter_add_(0, labels[None], torch.full((1, n), -1 / n))
        torch.mm(to_logits, activations.t(), out=to_weights_2)
        torch.sum(to_logits, 1, out=to_bias_2)
        # Through ReLU, with autograd's own operator: a mask would take five times as long.
        to_hidden = torch.ops.aten.threshold_backward(torch.mm(weights_2.t(), to_logits), activations, 0)
        torch.sum(to_hidden, 1, out=to_bias_1)
        momentum_1 = times(to_hidden, x.t()).add_(momentum_1, alpha=momentum)  # the update: gradient + 0.9 momentum
        weights_1.sub_(momentum_1, alpha=lr)
        momenta.mul_(momentum).add_(gradients)
        flat.sub_(momenta, alpha=lr)
        return loss

    return step
