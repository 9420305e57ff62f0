"""Many networks of the same shape trained at once: another use of the time that a small network leaves a GPU idle."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad_and_value, stack_module_state

from mnist_gpu.checks import at_least_one, positive


def make_ensemble_step(models: Sequence[nn.Module], *, lr: float = 0.01, momentum: float = 0.9) -> Callable:
    """SGD's step on all `models` together, on the same batch: `step(images, labels) -> losses [N]`, detached.

    `torch.vmap` turns every operation on one network into one operation on N: N small matrix products become one
    batched product, so N networks need as many launches as one. `step.weights` holds the stacked parameters by name,
    `[N, ...]` each; the models themselves stay as they are.

    Raises ValueError if there are no models, or lr is not positive.
    """
    at_least_one(models=len(models))
    positive(lr=lr)
    weights = {name: w.detach() for name, w in stack_module_state(list(models))[0].items()}
    momenta = {name: torch.zeros_like(w) for name, w in weights.items()}

    def loss_of(weights, images, labels):
        return F.cross_entropy(functional_call(models[0], weights, (images,)), labels)

    every = torch.vmap(grad_and_value(loss_of), in_dims=(0, None, None))

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        gradients, losses = every(weights, images, labels)
        for name, gradient in gradients.items():
            momenta[name].mul_(momentum).add_(gradient)
            weights[name].sub_(momenta[name], alpha=lr)
        return losses

    step.weights = weights
    return step
